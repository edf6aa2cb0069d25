"""Candidates of one crop: where the peaks are, and what the masks look like."""

import numpy as np
import pytest
import torch
from skimage.draw import disk, ellipse
from skimage.segmentation import relabel_sequential

from napari_sam.engine.candidates import (
    GridMode,
    ProposalMode,
    find_peaks,
    grid_candidates,
    proposal_candidates,
)
from napari_sam.engine.embed import open_plane
from napari_sam.errors import InputError
from napari_sam.tiling import Box, Crop
from napari_sam.training.data import distance_maps
from tests.engine.oracle import OracleSam, image_of


def maps_of(labels):
    """What a perfect proposal head says."""
    distances = distance_maps(labels.astype(np.int32)) / np.float32(255)
    return np.stack([labels > 0, *distances]).astype(np.float32)


def result(generator):
    """Drive a generator; return its result and how often it paused."""
    n_pauses = 0
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value, n_pauses
        n_pauses += 1


class TestPeaks:
    mode = ProposalMode()

    def test_one_for_each_object(self):
        labels = np.zeros((64, 64), int)
        labels[disk((20, 20), 10)] = 1
        labels[disk((20, 39), 10)] = 2  # touches the first
        labels[ellipse(50, 30, 4, 25)] = 3
        labels[62:, 60:] = 4  # cut by the crop
        peaks = find_peaks(maps_of(labels), self.mode)
        assert sorted(labels[tuple(peaks.T)].tolist()) == [1, 2, 3, 4]
        np.testing.assert_allclose(peaks[:2], [[20, 20], [20, 39]], atol=1)

    def test_they_lie_in_the_object_even_if_its_centre_does_not(self):
        labels = np.zeros((64, 64), int)
        labels[disk((32, 32), 25)] = 1
        labels[disk((32, 32), 19)] = 0
        labels[:, 40:] = 0
        peaks = find_peaks(maps_of(labels), self.mode)
        assert len(peaks) >= 1
        assert labels[tuple(peaks.T)].all()

    def test_noise_makes_no_peaks(self):
        rng = np.random.default_rng(0)
        labels = np.zeros((64, 64), int)
        labels[disk((32, 32), 20)] = 1
        maps = maps_of(labels)
        maps[1] += rng.normal(0, 0.05, maps[1].shape)
        assert len(find_peaks(maps, self.mode)) == 1
        control = ProposalMode(smoothing=0, min_prominence=0)
        assert len(find_peaks(maps, control)) > 50

    def test_an_object_that_fills_the_crop_has_one(self):
        labels = np.ones((16, 16), int)
        assert len(find_peaks(maps_of(labels), self.mode)) == 1
        flat = np.full((3, 16, 16), 0.6, np.float32)
        assert len(find_peaks(flat, self.mode)) == 1

    def test_each_part_of_the_foreground_has_one(self):
        maps = np.ones((3, 32, 32), np.float32)  # far from any centre everywhere
        maps[0] = 0
        maps[0, 2:4, 2:5] = 1
        maps[0, 20, 20] = 1
        np.testing.assert_array_equal(find_peaks(maps, self.mode)[1:], [[20, 20]])
        assert len(find_peaks(maps, self.mode)) == 2

    def test_small_neighbours_stay_apart(self):
        # 12 input pixels are 3 cells
        labels = np.zeros((32, 32), int)
        for i, (y, x) in enumerate([(8, 8), (8, 11), (11, 8), (20, 24)], start=1):
            labels[y : y + 3, x : x + 3] = i
        peaks = find_peaks(maps_of(labels), self.mode)
        assert sorted(labels[tuple(peaks.T)].tolist()) == [1, 2, 3, 4]

    def test_nothing(self):
        assert find_peaks(np.zeros((3, 8, 8), np.float32), self.mode).shape == (0, 2)


@pytest.fixture
def truth():
    rng = np.random.default_rng(2)
    labels = np.zeros((32, 32), np.uint32)
    for i in range(1, 30):
        rows, columns = disk(rng.uniform(2, 30, 2), rng.uniform(2, 5), shape=(32, 32))
        if not labels[rows, columns].any():
            labels[rows, columns] = i
    return relabel_sequential(labels)[0]


def crop_of(truth, scale):
    oracle = OracleSam(truth, scale=scale)
    plane = open_plane(image_of(truth), oracle)
    return oracle, plane.of(plane.grid[0]), plane.grid[0]


def test_proposals_are_the_objects(truth):
    oracle, embedding, crop = crop_of(truth, 4)
    found, n_pauses = result(
        proposal_candidates(oracle, embedding, crop, ProposalMode(batch=3))
    )
    assert oracle.decoded[:-1] == [3] * (n_pauses - 1)
    masks = {c.mask.tobytes() for c in found}
    assert len(masks) == truth.max()
    for each in found:
        number = truth[each.box.slices][each.mask][0]
        whole = np.zeros(truth.shape, bool)
        whole[each.box.slices] = each.mask
        np.testing.assert_array_equal(whole, truth == number)
        # no empty rim
        assert each.mask.any(axis=1)[[0, -1]].all()
        assert each.mask.any(axis=0)[[0, -1]].all()
        y, x = each.point
        assert truth[round(y), round(x)] == number
        assert each.predicted_iou == pytest.approx(0.9)


def test_the_grid_finds_the_same_objects(truth):
    oracle, embedding, crop = crop_of(truth, 4)
    mode = GridMode(points_per_side=16, min_stability=0.5)
    plane = Box.whole(truth.shape)
    found, n_pauses = result(grid_candidates(oracle, embedding, crop, plane, mode))
    assert (sum(oracle.decoded), n_pauses) == (256, 16)
    objects, _ = result(proposal_candidates(oracle, embedding, crop, ProposalMode()))
    by_grid = {(c.box, c.mask.tobytes()) for c in found}
    # boxes of neighbours may be alike: the reference's box NMS takes some away
    assert len(by_grid) >= 0.8 * truth.max()
    assert by_grid <= {(c.box, c.mask.tobytes()) for c in objects}


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_predicted_iou", 0.95), ("min_stability", 1.01), ("min_foreground", 1.01)],
)
def test_thresholds_of_proposals_drop_candidates(truth, name, value):
    oracle, embedding, crop = crop_of(truth, 4)
    mode = ProposalMode(**{name: value})
    assert result(proposal_candidates(oracle, embedding, crop, mode))[0] == []


def test_batches_do_not_change_the_result(tiny_sam):
    image = np.random.default_rng(0).integers(0, 256, (100, 128), dtype=np.uint8)
    plane = open_plane(image, tiny_sam)
    crop, embedding = plane.grid[0], plane.of(plane.grid[0])
    for makes, mode, others in (
        (grid_candidates, GridMode, (Box.whole(image.shape),)),
        (proposal_candidates, ProposalMode, ()),
    ):
        found = []
        for batch in (1, 7, 64):
            # a random network is sure of nothing
            lenient = {"min_predicted_iou": -9, "min_stability": 0.0, "batch": batch}
            if mode is ProposalMode:
                lenient |= {"min_foreground": 0, "foreground": 0.3}
            else:
                lenient |= {"points_per_side": 6}
            made, _ = result(makes(tiny_sam, embedding, crop, *others, mode(**lenient)))
            found.append(made)
        assert len(found[0]) > 0
        for other in found[1:]:
            assert len(other) == len(found[0])
            for a, b in zip(found[0], other, strict=True):
                assert a.iou(b) > 0.99
                assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-4)


@pytest.mark.parametrize(
    ("shape", "agreement"), [((128, 128), 1.0), ((100, 128), 1.0), ((96, 60), 0.95)]
)
def test_masks_of_proposals_are_those_of_upscaled_logits(tiny_sam, shape, agreement):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    plane = open_plane(image, tiny_sam)
    crop, embedding = plane.grid[0], plane.of(plane.grid[0])
    mode = ProposalMode(
        min_predicted_iou=-9, min_stability=0, min_foreground=0, foreground=0.3
    )
    found, _ = result(proposal_candidates(tiny_sam, embedding, crop, mode))
    assert found
    for each in found:
        y, x = crop.to_input([each.point])[0]
        with torch.inference_mode():
            logits, iou = tiny_sam.decode(
                embedding,
                points=torch.tensor([[[x, y]]], dtype=torch.float32),
                labels=torch.ones(1, 1),
            )
            full = tiny_sam.upscale(logits, crop.input_shape, shape)[0]
        expected = full[iou[0].argmax()].numpy() > 0
        mask = np.zeros(shape, bool)
        mask[each.box.slices] = each.mask
        union = (mask | expected).sum()
        assert (mask & expected).sum() >= agreement * union


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
        return result(grid_candidates(oracle, embedding, inner, whole, mode))[0]

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
        return result(grid_candidates(oracle, embedding, crop, plane, mode))[0]

    assert found(0)[0].area == 256 - 4 + 4
    assert found(5)[0].area == 256
    assert found(5)[0].box == Box(4, 4, 20, 20)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GridMode(points_per_side=0), "1 or more"),
        (lambda: GridMode(batch=0), "1 or more"),
        (lambda: ProposalMode(foreground=1.0), "0 to 1"),
        (lambda: ProposalMode(batch=0), "1 or more"),
        (lambda: ProposalMode(smoothing=-1), "negative"),
    ],
)
def test_impossible_thresholds_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
