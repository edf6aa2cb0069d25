"""The simulated annotator against brute force, and against a model that obeys."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam.errors import InputError
from napari_sam.tiling import Box, CropGrid
from napari_sam.training.metrics import iou
from napari_sam.training.protocol import (
    correct,
    deepest_point,
    find_targets,
    score_boxes,
    score_clicks,
)

masks = arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def depth_by_force(region):
    """Distance of every pixel to the nearest one outside; the frame is outside."""
    framed = np.pad(region, 1)
    outside = np.argwhere(~framed)
    depth = np.zeros(region.shape)
    for y, x in np.argwhere(region):
        depth[y, x] = np.sqrt(((outside - (y + 1, x + 1)) ** 2).sum(1).min())
    return depth


@given(masks)
@settings(max_examples=60, deadline=None)
def test_the_deepest_point_equals_brute_force(region):
    expected = depth_by_force(region)
    depth, y, x = deepest_point(region)
    assert depth == pytest.approx(expected.max())
    assert expected[y, x] == pytest.approx(expected.max())


def test_objects_are_cut_out_with_their_ids():
    labels = np.zeros((8, 9), np.uint32)
    labels[1:3, 2:6] = 70000
    labels[5, 1] = 3
    three, big = find_targets(labels)
    assert (three.object_id, three.box, three.area) == (3, Box(5, 1, 6, 2), 1)
    assert (big.object_id, big.box, big.area) == (70000, Box(1, 2, 3, 6), 8)
    assert find_targets(np.zeros((4, 4), np.uint8)) == []
    assert [t.object_id for t in find_targets(np.full((3, 3), 5))] == [5]


@given(
    arrays(bool, (9, 11)).filter(np.any),
    arrays(bool, (9, 11)),
    st.integers(0, 4),
    st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_a_correction_is_the_middle_of_the_deeper_error(truth, answer, y0, x0):
    box = Box(y0, x0, 9, 11)
    found = np.zeros_like(answer)
    found[box.slices] = answer[box.slices]
    (target,) = find_targets(truth.astype(int))
    missed, taken = depth_by_force(truth & ~found), depth_by_force(found & ~truth)
    click = correct(target, answer[box.slices], box)
    if click is None:
        np.testing.assert_array_equal(truth, found)
        return
    y, x, is_positive = click
    assert is_positive == (missed.max() >= taken.max())
    assert truth[y, x] == is_positive
    assert found[y, x] != is_positive
    # the frame around the plane is outside for both
    errors = missed if is_positive else taken
    assert errors[y, x] == pytest.approx(errors.max())


@dataclass
class Painter:
    """A model that paints a disc at each positive click and erases at negative ones.

    It stands for a trained network, whose answers a test could not foresee.
    """

    shape: tuple[int, int]
    radius: float
    n_masks: int = 1
    asked: list = field(default_factory=list)

    def crop_for(self, prompts):
        return CropGrid(self.shape, 64, 8, 1.0).crop_at(*prompts.centre)

    def predict_many(self, prompts):
        self.asked.append(prompts)
        return [self._answer(p) for p in prompts]

    def _answer(self, prompts):
        crop = self.crop_for(prompts)
        y, x = np.mgrid[crop.box.slices]
        mask = np.zeros(crop.box.shape, bool)
        if prompts.has_box:
            y0, x0, y1, x1 = prompts.boxes[0]
            mask |= (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
        for (cy, cx), positive in zip(prompts.points, prompts.positive, strict=True):
            mask[np.hypot(y - cy, x - cx) < self.radius] = positive
        several = np.stack([mask] + [mask & (y > 10**6)] * (self.n_masks - 1))
        return SimpleNamespace(
            masks=several,
            best=self.n_masks - 1,
            box=crop.box,
            crop=crop,
            logits=np.full((self.n_masks, 4, 4), len(prompts.points), np.float32),
        )


@pytest.fixture
def labels():
    """A disc that one click of radius 6 fills, and a long bar that it does not."""
    plane = np.zeros((60, 64), np.uint32)
    y, x = np.mgrid[:60, :64]
    plane[np.hypot(y - 14, x - 20) < 6] = 4
    plane[40:47, 5:60] = 9
    return plane


def test_clicks_go_where_the_answer_is_wrong(labels):
    painter = Painter(labels.shape, radius=6)
    disc, bar = find_targets(labels)
    scores = score_clicks(painter, [disc, bar], 4)
    assert sorted(scores) == ["click_1", "click_2", "click_3", "click_4", "oracle_1"]
    assert scores["click_1"][0] == 1.0
    np.testing.assert_array_equal(painter.asked[0][0].points, [[14, 20]])
    # the disc is right after one click: it is left alone and keeps its score
    assert [len(prompts) for prompts in painter.asked] == [2, 1, 1, 1]
    assert scores["click_4"][0] == 1.0
    expected = []
    found = np.zeros(labels.shape, bool)
    y, x = np.mgrid[: labels.shape[0], : labels.shape[1]]
    last = painter.asked[-1][0]
    for (cy, cx), positive in zip(last.points, last.positive, strict=True):
        found[np.hypot(y - cy, x - cx) < 6] = positive
        expected.append(iou(labels == 9, found))
    got = [scores[f"click_{n}"][1] for n in (1, 2, 3, 4)]
    assert got == pytest.approx(expected)


def test_earlier_logits_come_with_the_next_click(labels):
    painter = Painter(labels.shape, radius=6)
    score_clicks(painter, find_targets(labels), 3)
    assert painter.asked[0][1].mask is None
    assert painter.asked[1][0].mask.tolist() == [[1.0] * 4] * 4
    assert painter.asked[2][0].mask.tolist() == [[2.0] * 4] * 4


def test_logits_of_another_crop_are_not_used():
    plane = np.zeros((40, 200), np.uint32)
    plane[10:25, 5:195] = 1  # reaches over several crops of 64 px
    painter = Painter(plane.shape, radius=5)
    score_clicks(painter, find_targets(plane), 14)
    crops = [painter.crop_for(p[0]).index for p in painter.asked]
    assert len(set(crops)) > 1
    for before, after, prompts in zip(
        crops, crops[1:], painter.asked[1:], strict=False
    ):
        assert (prompts[0].mask is not None) == (before == after)


def test_the_oracle_takes_the_best_mask_and_the_score_the_chosen_one(labels):
    painter = Painter(labels.shape, radius=6, n_masks=3)
    scores = score_clicks(painter, find_targets(labels), 1)
    assert scores["oracle_1"][0] == 1.0
    assert list(scores["click_1"]) == [0.0, 0.0]  # the painter prefers an empty mask


def test_boxes_are_tight(labels):
    painter = Painter(labels.shape, radius=6)
    scores = score_boxes(painter, find_targets(labels))
    np.testing.assert_array_equal(painter.asked[0][1].boxes, [[40, 5, 47, 60]])
    disc = labels == 4
    assert scores["box"] == pytest.approx([disc.sum() / 11**2, 1.0])


def test_no_click_is_refused(labels):
    with pytest.raises(InputError, match="0 clicks"):
        score_clicks(Painter(labels.shape, 6), find_targets(labels), 0)
