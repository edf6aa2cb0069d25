"""Many objects at once: painted where they overlap, reported one by one."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam.engine.jobs import run
from napari_sam.engine.prompted import paint, predict_objects
from napari_sam.errors import InputError, NapariSamWarning
from napari_sam.masks import Candidate
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from tests.engine.bright import predictor_of

SHAPE = (6, 8)


def full(box: Box, predicted_iou: float) -> Candidate:
    """A mask as large as its box."""
    return Candidate(box, np.ones(box.shape, bool), predicted_iou)


def test_the_more_certain_object_lies_on_top() -> None:
    lower, upper = full(Box(0, 0, 4, 4), 0.6), full(Box(2, 2, 6, 6), 0.9)
    expected = np.zeros(SHAPE, np.uint32)
    expected[0:4, 0:4] = 5
    expected[2:6, 2:6] = 2
    np.testing.assert_array_equal(paint({5: lower, 2: upper}, SHAPE), expected)
    np.testing.assert_array_equal(paint({2: upper, 5: lower}, SHAPE), expected)


def test_an_object_that_gets_no_pixel_is_reported() -> None:
    covered, cover = full(Box(1, 1, 2, 2), 0.5), full(Box(0, 0, 4, 4), 0.8)
    empty = Candidate(Box(0, 0, 2, 2), np.zeros((2, 2), bool), 0.7)
    with pytest.warns(NapariSamWarning, match=r"objects \[1, 2\] got no pixel"):
        labels = paint({1: covered, 2: empty, 3: cover}, SHAPE)
    assert set(np.unique(labels)) == {0, 3}


@pytest.fixture
def bars() -> np.ndarray:
    """Two bright bars; the first is longer than a crop of 128 px."""
    image = np.full((200, 420), 20, np.uint8)
    image[40:80, 10:400] = 220
    image[120:160, 20:60] = 220
    return image


PROMPTS = [
    Prompts(points=[(60, 30)], object_id=4),
    Prompts(points=[(900, 30)], object_id=9),
    Prompts(boxes=[118, 18, 162, 62]),
    Prompts(boxes=[-10, 20, 82, 90], object_id=7),
]


def test_objects_are_finished_and_reported_one_by_one(bars: np.ndarray) -> None:
    answers = run(predict_objects(predictor_of(bars), PROMPTS))
    assert [each.object_id for each in answers] == [4, 9, 3, 7]
    long, lost, square, leaving = answers
    assert long.found is not None
    assert long.is_completed
    assert abs(long.found.area - 40 * 390) < 0.05 * 40 * 390
    assert lost.found is None
    assert "(900, 30) lies outside" in lost.problem
    assert square.found is not None
    assert not square.is_completed
    assert square.found.box == Box(120, 20, 160, 60)
    assert leaving.found is not None
    assert "leaves the plane" in leaving.problem


def test_quick_answers_end_at_the_crop(bars: np.ndarray) -> None:
    predictor = predictor_of(bars)
    (quick,) = run(predict_objects(predictor, PROMPTS[:1], complete=False))
    assert quick.found is not None
    assert quick.found.box.x1 == 128
    assert predictor.model.n_encoded == 1


def test_objects_of_one_crop_share_calls(bars: np.ndarray) -> None:
    predictor = predictor_of(bars)
    asked = [Prompts(points=[(130 + i, 30)]) for i in range(4)]
    run(predict_objects(predictor, asked))
    assert predictor.model.decoded == [4]


def test_ids_are_unique(bars: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"have the id \[4\]"):
        run(predict_objects(predictor_of(bars), [PROMPTS[0], PROMPTS[0]]))
