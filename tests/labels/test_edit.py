"""An edit and its inverse leave nothing behind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam.errors import InputError
from napari_sam.labels import (
    ArrayLabels,
    LabelEdit,
    PackedEdits,
    paint_free,
    region_of,
)
from napari_sam.tiling import Box

SMALL = arrays(np.uint32, (5, 7), elements=st.integers(0, 9))


@given(SMALL, SMALL)
def test_an_edit_and_its_inverse_are_nothing(old: np.ndarray, new: np.ndarray) -> None:
    labels = np.zeros((3, 9, 8), np.uint32)
    box = Box(2, 1, 7, 8)
    index = (1, None, None)
    labels[region_of(index, box)] = old
    before = labels.copy()
    edit = LabelEdit(index, box, old, new)
    edit.apply(labels)
    np.testing.assert_array_equal(labels[1, 2:7, 1:8], new)
    assert (labels != before).sum() == edit.n_changed == (old != new).sum()
    edit.inverse().apply(labels)
    np.testing.assert_array_equal(labels, before)


@given(st.lists(st.tuples(SMALL, SMALL), max_size=3))
def test_packed_edits_are_the_same_edits(
    pixels: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    box = Box(2, 1, 7, 8)
    edits = [LabelEdit((z, None, None), box, *each) for z, each in enumerate(pixels)]
    packed = PackedEdits()
    for edit in edits:
        packed.append(edit)
    assert len(packed) == len(edits)
    for ours, edit in zip(
        [*packed, *reversed(packed), *packed[1:]],
        [*edits, *reversed(edits), *edits[1:]],
        strict=True,
    ):
        assert (ours.index, ours.box) == (edit.index, box)
        np.testing.assert_array_equal(ours.before, edit.before)
        np.testing.assert_array_equal(ours.after, edit.after)


def test_an_edit_leaves_pixels_alone_that_it_does_not_change() -> None:
    labels = np.zeros((2, 2), np.uint32)
    after = np.array([[0, 5], [0, 0]], np.uint32)
    edit = LabelEdit((None, None), Box(0, 0, 2, 2), labels.copy(), after)
    labels[1, 1] = 8  # painted meanwhile
    edit.apply(labels)
    assert labels.tolist() == [[0, 5], [0, 8]]


def test_planes_along_any_axis() -> None:
    labels = np.zeros((4, 5, 6), np.uint32)
    labels[region_of((None, 2, None), Box(1, 0, 3, 6))] = 1
    assert labels[1:3, 2].all()
    assert labels.sum() == 12


def test_an_edit_of_another_shape_is_refused() -> None:
    small = np.zeros((2, 2), np.uint32)
    with pytest.raises(InputError, match="2 x 3 px of the box"):
        LabelEdit((None, None), Box(0, 0, 2, 3), small, small)


def test_fresh_ids_are_above_all_that_ever_were() -> None:
    target = ArrayLabels(np.full((2, 2), 7, np.uint32))
    assert target.fresh_ids(2) == [8, 9]
    pixels = target.read((None, None), Box(0, 0, 1, 1))
    edit = LabelEdit((None, None), Box(0, 0, 1, 1), pixels, pixels + 5)
    target.write([edit])
    target.undo([edit])
    assert target.fresh_ids(1) == [13]
    assert target.box_of((None, None), 7) == Box(0, 0, 2, 2)
    assert target.box_of((None, None), 3) is None
    assert Box.around(np.zeros((3, 3), bool)) is None


@pytest.mark.parametrize("most", [10**9, 0])
def test_masks_take_free_pixels_first_come_first(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """All at once or one by one, the same labels; against painting one by one."""
    monkeypatch.setattr("napari_sam.labels.edit._ONE_EDIT", most)
    rng = np.random.default_rng(3)
    labels = np.zeros((2, 60, 2100), np.uint32)
    labels[1, 10:30, 1000:1040] = 4
    expected = labels[1].copy()
    masks, has_pixels, number = [], [], 5
    for _ in range(60):
        y, x = rng.integers(0, 40), rng.integers(980, 1060)  # across two cells
        box = Box(y, x, y + rng.integers(1, 20), x + rng.integers(1, 40))
        mask = rng.random(box.shape) < 0.7
        masks.append((box, mask))
        free = mask & (expected[box.slices] == 0)
        has_pixels.append(bool(free.any()))
        expected[box.slices][free] = number
        number += has_pixels[-1]
    target = ArrayLabels(labels)
    edits, found = paint_free(target, (1, None, None), masks, 5)
    target.write(edits)
    np.testing.assert_array_equal(labels[1], expected)
    assert found == has_pixels
    assert not all(found)
    assert not labels[0].any()
    assert len(edits) == (1 if most else len(masks))
