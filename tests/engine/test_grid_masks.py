"""Automatic masks of one crop: points, thresholds, borders, small parts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from napari_sam.engine.embed import open_plane
from napari_sam.engine.grid_masks import (
    GridMode,
    _drawn,
    drawn_at_once,
    grid_candidates,
)
from napari_sam.engine.proposals import ProposalMode, proposal_candidates
from napari_sam.errors import InputError
from napari_sam.tiling import Box, Crop
from tests.engine.oracle import OracleSam, crop_of, discs, image_of, result


def test_the_grid_finds_the_same_objects():
    truth = discs()
    oracle, embedding, crop = crop_of(truth, 4)
    mode = GridMode(points_per_side=16, min_stability=0.5, batch=16)
    plane = Box.whole(truth.shape)
    found, n_pauses = result(
        grid_candidates(oracle, lambda _: embedding, crop, plane, mode)
    )
    assert (sum(oracle.decoded), n_pauses) == (256, 16)
    objects, _ = result(proposal_candidates(oracle, embedding, crop, ProposalMode()))
    by_grid = {(c.box, c.mask.tobytes()) for c in found}
    # boxes of neighbours may be alike: the reference's box NMS takes some away
    assert len(by_grid) >= 0.8 * truth.max()
    assert by_grid <= {(c.box, c.mask.tobytes()) for c in objects}


@pytest.mark.usefixtures("two_threads")
def test_batches_and_threads_do_not_change_the_result(tiny_sam):
    image = np.random.default_rng(0).integers(0, 256, (100, 128), dtype=np.uint8)
    plane = open_plane(image, tiny_sam)
    crop, whole = plane.grid[0], Box(0, 0, 100, 128)
    # a random network is sure of nothing
    lenient = {"min_predicted_iou": -9, "min_stability": 0.0, "points_per_side": 6}
    found = []
    for batch, n_threads in ((1, 1), (7, 1), (64, 1), (1, 2), (7, 2)):
        torch.set_num_threads(n_threads)
        mode = GridMode(batch=batch, box_nms=1.0, **lenient)
        found.append(result(grid_candidates(tiny_sam, plane.of, crop, whole, mode))[0])
    assert len(found[0]) > 20
    for other in found[1:]:
        assert len(other) == len(found[0])
        for a, b in zip(found[0], other, strict=True):
            assert a.iou(b) > 0.99
            assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-4)


@pytest.mark.parametrize("side", [128, 300])  # one at scale 1, one at less
def test_masks_drawn_at_once_are_those_drawn_one_by_one(tiny_sam, side):
    logits = torch.randn(6, 6, 6, generator=torch.Generator().manual_seed(0))
    logits = 10 * F.interpolate(logits[None], (32, 32), mode="bicubic")[0]
    logits[0] = -3.0
    box = Box(5, 7, 5 + side, 7 + side)
    crop = Crop(0, 0, 0, box, box, input_shape=(128, 128))
    expected = _drawn(tiny_sam, logits, crop, min_stability=0.3)
    found = drawn_at_once(tiny_sam, logits, crop, min_stability=0.3)
    assert sum(each.stability >= 0.3 for each in expected) >= 3
    for a, b in zip(found, expected, strict=True):
        assert a.stability == pytest.approx(b.stability, abs=1e-4)
        if b.stability >= 0.3:
            assert a.box == b.box
            assert (a.mask != b.mask).mean() < 1e-3


class TestBorders:
    def candidates(self, box, drop):
        """A grid mode's answer for one rectangle in a crop inside a larger plane."""
        truth = np.zeros((128, 128), np.uint32)
        truth[box.slices] = 1
        oracle = OracleSam(truth, scale=1)
        plane = open_plane(image_of(truth), oracle)
        inner = Crop(0, 0, 0, Box(0, 0, 128, 128), Box(0, 0, 128, 128), (128, 128))
        mode = GridMode(points_per_side=8, drop_at_borders=drop, min_stability=0.5)
        # the plane goes on to the right and below
        whole = Box(0, 0, 500, 500)
        embedding = plane.of(plane.grid[0])
        work = grid_candidates(oracle, lambda _: embedding, inner, whole, mode)
        return result(work)[0]

    def test_masks_at_an_inner_border_are_dropped(self):
        near = Box(40, 40, 80, 112)
        assert self.candidates(near, drop=True) == []
        assert len(self.candidates(near, drop=False)) == 1

    def test_masks_inside_and_at_the_border_of_the_plane_stay(self):
        assert len(self.candidates(Box(40, 40, 80, 80), drop=True)) == 1
        assert len(self.candidates(Box(0, 0, 80, 80), drop=True)) == 1


def test_small_islands_and_holes_are_removed():
    truth = np.zeros((32, 32), np.uint32)
    truth[4:20, 4:20] = 1
    truth[10:12, 10:12] = 0  # a hole of 4 px
    truth[28:30, 28:30] = 1  # an island of 4 px
    oracle, embedding, crop = crop_of(truth, 4)
    plane = Box.whole(truth.shape)

    def found(min_area):
        mode = GridMode(points_per_side=8, min_area=min_area, min_stability=0.5)
        return result(grid_candidates(oracle, lambda _: embedding, crop, plane, mode))[
            0
        ]

    assert found(0)[0].area == 256 - 4 + 4
    assert found(5)[0].area == 256
    assert found(5)[0].box == Box(4, 4, 20, 20)


@pytest.mark.parametrize("thresholds", [{"points_per_side": 0}, {"batch": 0}])
def test_impossible_thresholds_are_refused(thresholds):
    with pytest.raises(InputError, match="1 or more"):
        GridMode(**thresholds)
