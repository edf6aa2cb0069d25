"""Painting of objects that overlap."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam.engine.predict import Prediction
from napari_sam.engine.prompted import paint_predictions
from napari_sam.errors import NapariSamWarning
from napari_sam.tiling import Box, CropGrid

SHAPE = (6, 8)


def prediction(box: Box, *predicted_iou: float) -> Prediction:
    """Full boxes as masks; the first as large as the box, others without a pixel."""
    masks = np.zeros((len(predicted_iou), *box.shape), bool)
    masks[0] = True
    ious = np.array(predicted_iou, np.float32)
    logits = np.zeros((len(masks), 32, 32), np.float32)
    crop = CropGrid(SHAPE, size=128, halo=16)[0]
    return Prediction(masks, ious, ious, box, int(ious.argmax()), logits, crop)


def test_the_more_certain_object_lies_on_top() -> None:
    lower, upper = prediction(Box(0, 0, 4, 4), 0.6), prediction(Box(2, 2, 6, 6), 0.9)
    expected = np.zeros(SHAPE, np.uint32)
    expected[0:4, 0:4] = 5
    expected[2:6, 2:6] = 2
    np.testing.assert_array_equal(
        paint_predictions({5: lower, 2: upper}, SHAPE), expected
    )
    np.testing.assert_array_equal(
        paint_predictions({2: upper, 5: lower}, SHAPE), expected
    )


def test_an_object_that_gets_no_pixel_is_reported() -> None:
    covered = prediction(Box(1, 1, 2, 2), 0.5)
    empty = prediction(Box(0, 0, 2, 2), 0.1, 0.7)
    cover = prediction(Box(0, 0, 4, 4), 0.8)
    with pytest.warns(NapariSamWarning, match=r"objects \[1, 2\] got no pixel"):
        labels = paint_predictions({1: covered, 2: empty, 3: cover}, SHAPE)
    assert set(np.unique(labels)) == {0, 3}
