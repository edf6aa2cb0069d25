"""Stitching: perfect crops give the perfect plane, in any order; then real cases."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure
from skimage.segmentation import relabel_sequential

from napari_sam.masks import Candidate
from napari_sam.stitch import PlaneObject, merge_views, paint, ranked
from napari_sam.tiling import Box, CropGrid


def scene(seed, shape, n_seeds, connectivity):
    """Random regions of any form and size, each in one piece, and background."""
    rng = np.random.default_rng(seed)
    seeds = rng.uniform(0, shape, (n_seeds, 2))
    stretch = rng.uniform(0.3, 3, (n_seeds, 2))
    grid = np.stack(np.mgrid[: shape[0], : shape[1]], axis=-1)[:, :, None]
    # cells of a distorted Voronoi diagram with holes and ragged borders
    nearest = (((grid - seeds) * stretch) ** 2).sum(-1).argmin(-1)
    kept = rng.random(n_seeds) < 0.7
    nearest = np.where(kept[nearest] & (rng.random(shape) < 0.95), nearest + 1, 0)
    return in_order(measure.label(nearest, background=0, connectivity=connectivity))


def in_order(labels):
    """Number objects by their first pixels, from 1."""
    values, first = np.unique(labels, return_index=True)
    numbers = np.zeros(labels.max() + 1, np.uint32)
    order = values[np.argsort(first)]
    order = order[order > 0]
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers[labels]


def views(labels, grid):
    """What a perfect decoder says in each crop."""
    found = []
    for crop in grid:
        part = labels[crop.box.slices]
        for value in np.unique(part[part > 0]):
            mask = part == value
            rows, columns = ndimage.find_objects(mask.astype(int))[0]
            box = Box(rows.start, columns.start, rows.stop, columns.stop)
            found.append(
                Candidate(
                    box.shift(crop.box.y0, crop.box.x0),
                    mask[rows, columns],
                    crop=crop.index,
                )
            )
    return found


def stitched(candidates, grid):
    return paint(merge_views(candidates, grid), grid.shape)[0]


grids = st.builds(
    lambda height, width, size, halo, scale: CropGrid(
        (height, width), size=size, halo=min(halo, (size - 1) // 2), scale=scale
    ),
    st.integers(1, 48),
    st.integers(1, 48),
    st.integers(6, 24),
    # one plane pixel of halo at least: crops that share no pixel cannot agree
    st.integers(2, 8),
    st.sampled_from([1.0, 0.5, 1.7]),
)


@settings(deadline=None, max_examples=40)
@given(
    grid=grids,
    seed=st.integers(0, 2**32 - 1),
    n_seeds=st.integers(1, 12),
    connectivity=st.sampled_from([1, 2]),
    order=st.randoms(use_true_random=False),
)
def test_perfect_crops_give_the_perfect_plane(grid, seed, n_seeds, connectivity, order):
    truth = scene(seed, grid.shape, n_seeds, connectivity)
    candidates = views(truth, grid)
    order.shuffle(candidates)
    np.testing.assert_array_equal(stitched(candidates, grid), truth)


def test_control_without_merging_objects_fall_apart():
    grid = CropGrid((40, 40), size=20, halo=4, scale=1.0)
    truth = np.zeros((40, 40), np.uint32)
    truth[5:35, 5:35] = 1
    parts = [PlaneObject(c) for c in views(truth, grid)]
    assert len(parts) == len(grid) == 9
    assert paint(parts, grid.shape, min_visible=0)[0].max() > 1
    np.testing.assert_array_equal(stitched(views(truth, grid), grid), truth)


@settings(deadline=None, max_examples=40)
@given(
    grid=grids,
    seed=st.integers(0, 2**32 - 1),
    order=st.randoms(use_true_random=False),
)
def test_result_does_not_depend_on_the_order(grid, seed, order):
    rng = np.random.default_rng(seed)
    candidates = []
    for crop in grid:
        for _ in range(rng.integers(0, 4)):
            y0, x0 = (int(rng.integers(0, n)) for n in crop.box.shape)
            y1 = int(rng.integers(y0, crop.box.height)) + 1
            x1 = int(rng.integers(x0, crop.box.width)) + 1
            box = Box(y0, x0, y1, x1).shift(crop.box.y0, crop.box.x0)
            mask = rng.random(box.shape) < 0.8
            # few different scores: ties are the hard part
            score = float(rng.integers(1, 3)) / 2
            candidates.append(Candidate(box, mask, score, crop=crop.index))
    expected = stitched(candidates, grid)
    order.shuffle(candidates)
    np.testing.assert_array_equal(stitched(candidates, grid), expected)
    values = np.unique(expected)
    assert (
        values.tolist() == list(range(len(values) + (values[0] != 0)))[-len(values) :]
    )


class TestTwoCrops:
    """Two crops of 24 px side by side; columns 16 to 24 are in both."""

    grid = CropGrid((24, 40), size=24, halo=4, scale=1.0)

    def view(self, crop, box, iou=0.9, mask=None):
        box = Box(*box)
        full = np.ones(box.shape, bool) if mask is None else mask
        return Candidate(box, full, iou, crop=crop)

    def objects(self, *candidates):
        return paint(merge_views(candidates, self.grid), self.grid.shape)[1]

    def test_the_layout_is_as_said(self):
        assert [crop.box for crop in self.grid] == [
            Box(0, 0, 24, 24),
            Box(0, 16, 24, 40),
        ]
        assert self.grid[0].core == Box(0, 0, 24, 20)

    def test_a_long_object_is_put_together(self):
        found = self.objects(
            self.view(0, (8, 6, 14, 24), 0.9), self.view(1, (8, 16, 14, 30), 0.7)
        )
        assert [o.candidate.box for o in found] == [Box(8, 6, 14, 30)]
        assert found[0].candidate.mask.all()
        assert (found[0].n_views, found[0].is_cut) == (2, True)
        assert found[0].agreement == 1.0
        # 14 columns from the first core, 10 from the second
        assert found[0].candidate.predicted_iou == pytest.approx(
            (14 * 0.9 + 10 * 0.7) / 24
        )

    def test_each_pixel_comes_from_the_crop_whose_core_holds_it(self):
        found = self.objects(
            self.view(0, (8, 6, 14, 24)), self.view(1, (7, 16, 14, 30))
        )
        assert found[0].agreement == pytest.approx(6 / 7)
        mask = np.zeros((24, 40), bool)
        mask[8:14, 6:20] = True
        mask[7:14, 20:30] = True
        np.testing.assert_array_equal(
            found[0].candidate.within(Box(0, 0, 24, 40)), mask
        )

    def test_a_whole_view_wins_over_a_cut_one(self):
        whole = self.view(0, (8, 10, 14, 19), 0.6)
        cut = self.view(1, (8, 16, 14, 19), 0.99)
        (found,) = self.objects(whole, cut)
        assert found.candidate.box == whole.box
        assert found.candidate.predicted_iou == 0.6
        assert (found.n_views, found.is_cut) == (2, False)

    def test_the_better_of_two_whole_views_wins(self):
        grid = CropGrid((24, 40), size=24, halo=8, scale=1.0)
        assert [crop.box.x0 for crop in grid] == [0, 8, 16]
        worse = replace(self.view(1, (8, 21, 14, 25), 0.8))
        better = replace(self.view(2, (8, 21, 15, 25), 0.9))
        (found,) = merge_views([worse, better], grid)
        assert found.candidate.box == better.box
        assert found.agreement == pytest.approx(6 / 7)

    def test_a_view_that_ends_too_early_is_not_trusted(self):
        short = self.view(0, (8, 10, 14, 20), 0.95)
        long = self.view(1, (8, 16, 14, 22), 0.7)
        (found,) = self.objects(short, long)
        assert found.agreement == pytest.approx(4 / 6)
        assert found.candidate.box == Box(8, 10, 14, 22)

    def test_what_only_the_halo_shows_is_left_to_the_other_crop(self):
        assert self.objects(self.view(0, (8, 20, 14, 24))) == []
        assert len(self.objects(self.view(0, (8, 19, 14, 24)))) == 1

    def test_views_that_disagree_are_two_objects_if_both_are_visible(self):
        found = self.objects(
            self.view(0, (0, 10, 8, 24)), self.view(1, (6, 16, 20, 30))
        )
        assert [o.n_views for o in found] == [1, 1]

    def test_a_cut_view_without_partner_comes_after_whole_objects(self):
        whole = self.view(0, (4, 4, 16, 20), 0.6)
        cut = self.view(1, (4, 16, 8, 22), 0.99)
        (found,) = self.objects(whole, cut)
        assert found.candidate.box == whole.box

    def test_two_objects_of_one_crop_are_never_joined(self):
        # crop 1 sees one blob where crop 0 sees two cells
        upper, lower = self.view(0, (4, 10, 12, 24)), self.view(0, (12, 10, 16, 24))
        blob = self.view(1, (4, 16, 16, 24), 0.5)
        found = self.objects(upper, lower, blob)
        assert len(found) == 2
        assert found[0].n_views == 2
        assert found[1].candidate.box == Box(12, 10, 16, 20)

    def test_a_plane_border_cuts_nothing(self):
        (found,) = self.objects(self.view(0, (0, 0, 24, 12)))
        assert not found.is_cut


class TestPaint:
    def candidate(self, box, iou):
        return PlaneObject(Candidate(Box(*box), np.ones(Box(*box).shape, bool), iou))

    def test_better_objects_keep_their_pixels(self):
        labels, kept = paint(
            [self.candidate((2, 2, 6, 6), 0.9), self.candidate((2, 5, 6, 12), 0.8)],
            (10, 14),
        )
        expected = np.zeros((10, 14), np.uint32)
        expected[2:6, 5:12] = 2
        expected[2:6, 2:6] = 1
        np.testing.assert_array_equal(labels, expected)
        assert kept[1].candidate.box == Box(2, 6, 6, 12)
        assert kept[1].candidate.mask.all()

    def test_duplicates_vanish(self):
        labels, kept = paint(
            [self.candidate((2, 2, 6, 6), 0.9), self.candidate((2, 3, 6, 7), 0.8)],
            (10, 14),
        )
        assert len(kept) == 1
        assert labels.max() == 1

    def test_a_worse_group_does_not_fill_the_gaps_between_its_parts(self):
        parts = [self.candidate((0, x, 8, x + 4), 0.8) for x in (0, 5, 10)]
        labels, _ = paint([self.candidate((0, 0, 8, 14), 0.7), *parts], (10, 14))
        assert labels.max() == 3
        assert (labels[:8, 4] == 0).all()

    def test_small_fragments_are_left_out(self):
        # the better bar leaves seven rows of the other above, and one below
        bar = self.candidate((7, 0, 10, 14), 0.9)
        long = self.candidate((0, 2, 11, 6), 0.8)
        labels, kept = paint([bar, long], (12, 14))
        assert kept[0].candidate.box == Box(0, 2, 7, 6)
        assert not labels[10:].any()

    def test_objects_that_are_too_small_are_dropped(self):
        objects = [self.candidate((0, 0, 3, 3), 0.9), self.candidate((5, 5, 9, 9), 0.9)]
        labels, kept = paint(objects, (10, 14), min_area=10)
        assert [o.candidate.box for o in kept] == [Box(5, 5, 9, 9)]
        assert labels.sum() == 16

    def test_ids_follow_the_first_pixels(self):
        objects = [
            self.candidate((5, 0, 7, 2), 0.99),
            self.candidate((0, 9, 2, 11), 0.5),
            self.candidate((0, 3, 2, 5), 0.7),
        ]
        labels, kept = paint(objects, (10, 14))
        assert (labels[0, 3], labels[0, 9], labels[5, 0]) == (1, 2, 3)
        assert [o.candidate.predicted_iou for o in kept] == [0.7, 0.5, 0.99]

    def test_nothing(self):
        labels, kept = paint([], (3, 4))
        assert labels.shape == (3, 4)
        assert labels.dtype == np.uint32
        assert not labels.any()
        assert kept == []


def test_ranked_puts_the_best_first():
    masks = [
        Candidate(Box(0, 0, 1, 1), np.ones((1, 1), bool), iou) for iou in (0.2, 0.9)
    ]
    assert [c.predicted_iou for c in ranked(masks)] == [0.9, 0.2]


def test_relabelling_helper_agrees_with_skimage():
    truth = scene(3, (30, 30), 6, 1)
    np.testing.assert_array_equal(truth, relabel_sequential(truth)[0])
