"""Labels of planes become objects of a stack: as one step, with ids that stay."""

import tracemalloc

import numpy as np
import pytest

from napari_sam.engine.jobs import run
from napari_sam.engine.records import ObjectRecord, SliceMark
from napari_sam.engine.request import PlaneView, StackView
from napari_sam.engine.session import Session
from napari_sam.engine.stack_link import link_stack
from napari_sam.errors import InputError
from napari_sam.images import ImageSource, Intensity
from napari_sam.labels import ArrayLabels
from tests.engine.test_propagate import box_stack

TRUTH = box_stack(7, (1, 1, 6, 4, 4, 8, 0), (2, 0, 7, 18, 6, 8, 1))


def of_planes(truth):
    """Give the objects of each plane ids of their own, counted through."""
    labels, last = np.zeros_like(truth), 0
    for z, plane in enumerate(truth):
        for number in np.unique(plane[plane > 0]):
            last += 1
            labels[z][plane == number] = last
    return labels


def stack_of(labels, axes="ZYX"):
    source = ImageSource(np.zeros(labels.shape, np.uint8), axes)
    view = PlaneView(source, (0, 0), Intensity((0,), ((0.0, 255.0),)), (0, None, None))
    return StackView(source, "z" if "Z" in axes else "t", 0, view, 0)


def link(labels, axes="ZYX", within=None, records=None):
    stack, target = stack_of(labels, axes), ArrayLabels(labels)
    session = Session(None, target)
    session.set_view(stack.view)
    known = records or {}
    found = run(link_stack(target, stack, within or (0, len(labels)), known))
    session.edit_labels("link", found.edits, found.records)
    return session, found


def test_planes_become_two_objects_in_one_step():
    labels = of_planes(TRUTH)
    before = labels.copy()
    session, found = link(labels)
    assert found.n_objects == 2
    # object 2 is in the first plane, so its lowest id is 1; the other begins with 2
    np.testing.assert_array_equal(labels == 1, TRUTH == 2)
    np.testing.assert_array_equal(labels == 2, TRUTH == 1)
    marks = session.records[2].slices
    assert [mark.at for mark in marks] == [1, 2, 3, 4, 5]
    assert session.records[2].along == 0
    assert session.undo() == "link"
    np.testing.assert_array_equal(labels, before)
    assert not session.records


def test_an_object_that_was_followed_keeps_id_and_marks():
    labels = of_planes(TRUTH) + 100 * (TRUTH > 0).astype(np.uint32)
    labels[TRUTH == 1] = 5
    made = SliceMark(at=3, state="prompted", is_checked=True)
    records = {
        5: ObjectRecord(object_id=5, index=(3, None, None), along=0, slices=(made,)),
        105: ObjectRecord(object_id=105, index=(2, None, None)),
    }
    session, found = link(labels, records=records)
    np.testing.assert_array_equal(labels == 5, TRUTH == 1)
    assert session.records[5].slices[2] == made
    assert (105, None) in found.records  # it is a part of another object now


def test_a_gap_is_filled_and_other_slices_stay():
    labels = of_planes(TRUTH)
    labels[3][TRUTH[3] == 1] = 0
    beyond = labels[5:].copy()
    _, found = link(labels, within=(0, 5))
    np.testing.assert_array_equal(labels[:5] == 2, TRUTH[:5] == 1)
    np.testing.assert_array_equal(labels[5:], beyond)
    assert {edit.index[0] for edit in found.edits} <= set(range(5))


def test_frames_become_tracks():
    labels = np.zeros((4, 32, 32), np.uint32)
    for t in range(4):
        labels[t, 8:16, 2 + 5 * t : 10 + 5 * t] = 1 + t
    _, found = link(labels, "TYX")
    assert found.n_objects == 1
    assert set(np.unique(labels)) == {0, 1}


def test_what_is_linked_does_not_change():
    labels = TRUTH.copy()
    _, found = link(labels)
    assert not found.edits
    np.testing.assert_array_equal(labels, TRUTH)


def test_nothing_to_link():
    with pytest.raises(InputError, match="no slice has an object"):
        link(np.zeros((3, 8, 8), np.uint32))


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_memory_does_not_grow_with_the_planes(axes):
    peaks = []
    for n in (3, 12):
        labels = np.zeros((n, 256, 256), np.uint32)
        for z in range(n):
            labels[z, 20:230, 30:240] = 1 + z
        stack, target = stack_of(labels, axes), ArrayLabels(labels)
        tracemalloc.start()
        found = run(link_stack(target, stack, (0, n), {}))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(found.edits) == n - 1  # the first keeps its id
        assert {int(edit.after.max()) for edit in found.edits} == {1}
    assert peaks[1] < peaks[0] + labels[0].nbytes  # nine planes more, less than one
