"""The review queue: areas and boxes as in the pixels, doubt where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.measure import regionprops

from napari_sam.engine.label_store import LabelStore
from napari_sam.engine.records import ObjectRecord
from napari_sam.engine.review import crosses_seam, review_rows
from napari_sam.labels import ArrayLabels
from napari_sam.tiling import Box, CropGrid

PLANE = (1, None, None)


@pytest.fixture
def plane():
    labels = np.zeros((60, 80), np.uint32)
    rng = np.random.default_rng(0)
    for number in (3, 5, 9):
        y, x = rng.integers(0, (50, 70))
        labels[y : y + 9, x : x + 7] = number
    return labels


@pytest.fixture(params=["array", "store"])
def target(request, plane):
    stack = np.stack([np.zeros_like(plane), plane])
    if request.param == "array":
        return ArrayLabels(stack)
    store = LabelStore.create(stack.shape)
    store[1, :, :] = plane
    return store


def record(object_id, **facts):
    return ObjectRecord(object_id=object_id, index=PLANE, **facts)


def test_rows_tell_what_the_pixels_say(plane, target):
    rows = review_rows(target, PLANE, {5: record(5, predicted_iou=0.8, stability=0.5)})
    expected = {each.label: each for each in regionprops(plane.astype(int))}
    assert [row.object_id for row in rows] == sorted(expected)
    for row in rows:
        assert row.area == expected[row.object_id].area
        box = row.box
        assert (box.y0, box.x0, box.y1, box.x1) == expected[row.object_id].bbox
    assert [row.doubt for row in rows] == [0, pytest.approx(0.6), 0]


def test_an_object_on_a_seam_is_doubted_more():
    grid = CropGrid((200, 200), size=128, halo=16, scale=1.0)
    seam = grid[0].core.x1
    assert crosses_seam(Box(10, seam - 2, 20, seam + 2), grid)
    assert not crosses_seam(Box(10, seam - 12, 20, seam), grid)
    labels = np.zeros((200, 200), np.uint32)
    labels[10:20, seam - 5 : seam + 5] = 1
    labels[40:50, 3:9] = 2
    facts = {"predicted_iou": 0.9, "stability": 1.0}
    rows = review_rows(
        ArrayLabels(labels),
        (None, None),
        {number: record(number, **facts) for number in (1, 2)},
        grid,
    )
    assert [row.touches_seam for row in rows] == [True, False]
    assert [row.doubt for row in rows] == pytest.approx([0.19, 0.1])
