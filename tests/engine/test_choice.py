"""From candidates to objects: clicks, thresholds, commits that can be taken back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_sam.engine.automatic import AutomaticConfig
from napari_sam.engine.candidates import Candidates
from napari_sam.engine.choice import Choice
from napari_sam.engine.proposals import ProposalMode
from napari_sam.engine.thresholds import Thresholds
from napari_sam.labels import ArrayLabels
from napari_sam.masks import Candidate
from napari_sam.tiling import Box, CropGrid

PLANE = (2, None, None)
BOXES = {0.9: Box(2, 2, 10, 12), 0.6: Box(20, 4, 30, 14), 0.4: Box(40, 30, 50, 45)}


@pytest.fixture
def labels():
    """A stack; in its slice 2 object 5 covers a quarter of the second candidate."""
    array = np.zeros((3, 64, 64), np.uint32)
    array[2, 20:25, 4:9] = 5
    return ArrayLabels(array)


@pytest.fixture
def choice(labels):
    found = [
        Candidate(
            box, np.ones(box.shape, bool), iou, 0.8, point=(box.y0 + 4.0, box.x0 + 6.0)
        )
        for iou, box in BOXES.items()
    ]
    plane = (64, 64)
    kept = Candidates(
        CropGrid(plane, size=64, halo=8),
        AutomaticConfig(),
        ProposalMode(min_predicted_iou=0.2),
        Box.whole(plane),
        found,
    )
    choice = Choice(kept, labels, PLANE)
    choice.update()
    return choice


def painted(choice):
    """Object i of a choice as i + 1, over the whole plane."""
    labels = np.zeros((64, 64), np.uint32)
    for number, each in enumerate(choice.objects, 1):
        labels[each.candidate.box.slices][each.candidate.mask] = number
    return labels


def test_objects_keep_off_other_labels(choice):
    found = painted(choice)
    assert np.unique(found).tolist() == [0, 1, 2, 3]
    assert (found[20:30, 4:14] == 2).sum() == 100 - 25
    assert not found[20:25, 4:9].any()


@pytest.mark.parametrize("box", [Box.whole((64, 64)), Box(5, 5, 45, 40)])
def test_a_picture_shows_what_is_marked(choice, box):
    choice.toggle(5, 5)
    found = painted(choice)
    expected = np.where(found == 1, 2, found > 0)[box.slices]
    np.testing.assert_array_equal(choice.picture(box), expected)
    # napari's contours are made by erosion, too
    inside = np.zeros_like(found, bool)
    for number in (1, 2, 3):
        inside |= ndimage.binary_erosion(found == number, iterations=2)
    expected[inside[box.slices]] = 0
    np.testing.assert_array_equal(choice.picture(box, width=2), expected)
    none = choice.picture(box, [])
    assert none.shape == box.shape
    assert not none.any()


def test_without_labels_nothing_is_in_the_way_and_nothing_is_committed(choice):
    choice.target = None
    choice.update()
    assert (painted(choice) == 2).sum() == 100
    assert choice.edits() == ([], [])


def test_thresholds_choose_again(choice):
    choice.update(Thresholds(min_predicted_iou=0.5))
    assert len(choice.objects) == 2
    choice.update(Thresholds())
    assert len(choice.objects) == 3


def test_a_click_marks_and_a_second_one_takes_it_away(choice):
    assert not choice.toggle(60, 60)
    assert choice.toggle(5.4, 5)
    assert [choice.is_marked(each) for each in choice.objects] == [True, False, False]
    choice.update(Thresholds(min_predicted_iou=0.5))  # what is meant stays marked
    assert [choice.is_marked(each) for each in choice.objects] == [True, False]
    assert choice.toggle(8, 10)  # another place of the same object
    assert not any(choice.is_marked(each) for each in choice.objects)


def test_rejected_ones_do_not_come_back(choice):
    choice.toggle(5, 5)
    assert len(choice.reject_marked()) == 1
    choice.update(Thresholds(min_predicted_iou=0.2))
    assert choice.object_at(5, 5) is None
    assert len(choice.objects) == 2


@pytest.mark.parametrize("limit", [0, 4096**2])
def test_commit_and_undo(choice, labels, limit, monkeypatch):
    monkeypatch.setattr("napari_sam.labels.edit._ONE_EDIT", limit)
    before = labels.array.copy()
    found = painted(choice)
    edits, records = choice.edits()
    labels.write(edits)
    expected = before.copy()
    expected[2][found > 0] = found[found > 0] + 5  # ids follow those in use
    np.testing.assert_array_equal(labels.array, expected)
    assert [record.object_id for record in records] == [6, 7, 8]
    assert records[0].predicted_iou == pytest.approx(0.9)
    assert records[0].points == ((6.0, 8.0),)
    assert records[0].index == PLANE
    choice.update()
    assert choice.objects == []  # all of it is labelled now
    labels.undo(edits)
    np.testing.assert_array_equal(labels.array, before)


def test_only_the_marked_ones(choice, labels):
    choice.toggle(45, 35)
    edits, records = choice.edits("marked", first_id=6)
    labels.write(edits)
    assert len(edits) == len(records) == 1
    np.testing.assert_array_equal(
        np.argwhere(labels.array == 6)[[0, -1]], [[2, 40, 30], [2, 49, 44]]
    )
