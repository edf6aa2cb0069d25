"""Stitching: perfect crops give the perfect plane, in any order; then real cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage import measure
from skimage.segmentation import relabel_sequential

from napari_sam.errors import FormatError
from napari_sam.masks import Candidate, remove_small
from napari_sam.stitch import Views, stitch, without_duplicates
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


def perfect_candidates(labels, grid):
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


def random_candidates(grid, seed, most=4):
    """Ragged boxes anywhere, of few different scores: ties are the hard part."""
    rng = np.random.default_rng(seed)
    found = []
    for crop in grid:
        for _ in range(rng.integers(0, most)):
            y0, x0 = (int(rng.integers(0, n)) for n in crop.box.shape)
            y1 = int(rng.integers(y0, crop.box.height)) + 1
            x1 = int(rng.integers(x0, crop.box.width)) + 1
            box = Box(y0, x0, y1, x1).shift(crop.box.y0, crop.box.x0)
            mask = rng.random(box.shape) < 0.8
            score = float(rng.integers(1, 3)) / 2
            found.append(Candidate(box, mask, score, crop=crop.index))
    return found


def packed(candidates, grid):
    """By crop, after the candidates of each crop have competed."""
    by_crop = {crop.index: [] for crop in grid}
    for candidate in candidates:
        by_crop[candidate.crop].append(candidate)
    return {
        index: Views.of(index, without_duplicates(found, grid[index].box))
        for index, found in by_crop.items()
    }


def stitched(candidates, grid, **options):
    return stitch(packed(candidates, grid), grid, **options).labels()


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


@settings(deadline=None, max_examples=25)
@given(
    grid=grids,
    seed=st.integers(0, 2**32 - 1),
    n_seeds=st.integers(1, 12),
    connectivity=st.sampled_from([1, 2]),
    order=st.randoms(use_true_random=False),
)
def test_perfect_crops_give_the_perfect_plane(grid, seed, n_seeds, connectivity, order):
    truth = scene(seed, grid.shape, n_seeds, connectivity)
    candidates = perfect_candidates(truth, grid)
    order.shuffle(candidates)
    np.testing.assert_array_equal(stitched(candidates, grid), truth)


def test_control_without_merging_objects_fall_apart():
    grid = CropGrid((40, 40), size=20, halo=4, scale=1.0)
    truth = np.zeros((40, 40), np.uint32)
    truth[5:35, 5:35] = 1
    parts = perfect_candidates(truth, grid)
    assert len(parts) == len(grid) == 9
    assert stitched(parts, grid, min_agreement=2, min_visible=0).max() > 1
    np.testing.assert_array_equal(stitched(parts, grid), truth)


@settings(deadline=None, max_examples=25)
@given(
    grid=grids,
    seed=st.integers(0, 2**32 - 1),
    order=st.randoms(use_true_random=False),
)
def test_result_does_not_depend_on_the_order(grid, seed, order):
    candidates = random_candidates(grid, seed)
    expected = stitched(candidates, grid)
    order.shuffle(candidates)
    np.testing.assert_array_equal(stitched(candidates, grid), expected)
    values = np.unique(expected[expected > 0])
    assert values.tolist() == list(range(1, len(values) + 1))


@settings(deadline=None, max_examples=25)
@given(grid=grids, seed=st.integers(0, 2**32 - 1), min_area=st.integers(1, 9))
def test_competition_is_drawing_one_after_the_other(grid, seed, min_area):
    """Settled place by place, but as if drawn over the whole plane, best first."""
    views = packed(random_candidates(grid, seed), grid)
    found = [
        views[index].candidate(k) for index in views for k in range(len(views[index]))
    ]
    cut_last = sorted(found, key=lambda c: draw_key(c, grid))
    expected = np.zeros(grid.shape, np.uint32)
    for number, each in enumerate(cut_last, start=1):
        core = each.box.intersection(grid[each.crop].core)
        if core is None or not each.within(core).any():
            continue
        here = expected[each.box.slices]
        free = each.mask & (here == 0)
        if free.sum() < each.area:
            free = remove_small(free, 0.1 * each.area, "islands")
        if free.sum() >= max(0.5 * each.area, min_area, 1):
            here[free] = number
    # nothing is joined: no IoU is above 1
    labels = stitch(views, grid, min_agreement=2, min_area=min_area).labels()
    np.testing.assert_array_equal(labels, in_order(expected))


def draw_key(candidate, grid):
    """What is cut by its crop comes last, then the better score, then the place."""
    crop, box = grid[candidate.crop], candidate.box
    margins = [4 / scale for scale in crop.scale]
    is_cut = (
        (crop.box.y0 > 0 and box.y0 < crop.box.y0 + margins[0])
        or (crop.box.x0 > 0 and box.x0 < crop.box.x0 + margins[1])
        or (crop.box.y1 < grid.shape[0] and box.y1 > crop.box.y1 - margins[0])
        or (crop.box.x1 < grid.shape[1] and box.x1 > crop.box.x1 - margins[1])
    )
    place = (box.y0, box.x0, box.y1, box.x1, candidate.crop)
    score = candidate.predicted_iou * candidate.stability - candidate.penalty
    return (is_cut, -score, *place)


@settings(deadline=None, max_examples=20)
@given(grid=grids, seed=st.integers(0, 2**32 - 1), data=st.data())
def test_a_region_is_a_part_of_the_plane(grid, seed, data):
    painting = stitch(packed(random_candidates(grid, seed), grid), grid)
    whole = painting.labels()
    y0, x0 = (data.draw(st.integers(0, n - 1)) for n in grid.shape)
    y1, x1 = (
        data.draw(st.integers(a + 1, n))
        for a, n in zip((y0, x0), grid.shape, strict=True)
    )
    region = Box(y0, x0, y1, x1)
    np.testing.assert_array_equal(painting.labels(region), whole[region.slices])
    later = painting.labels(region, first_id=11)
    np.testing.assert_array_equal(
        later, np.where(whole > 0, whole + 10, 0)[region.slices]
    )


class TestViews:
    """Candidates of a crop, packed."""

    grid = CropGrid((40, 40), size=20, halo=4, scale=1.0)

    def test_unpacked_is_what_was_packed(self):
        found = without_duplicates(
            random_candidates(self.grid, 5, most=9), Box(0, 0, 40, 40)
        )
        assert len(found) > 5
        views = Views.from_bytes(Views.of(3, found).to_bytes())
        assert (views.crop, len(views)) == (3, len(found))
        for k, each in enumerate(found):
            again = views.candidate(k)
            np.testing.assert_array_equal(again.mask, each.mask)
            assert (again.box, again.point, again.crop) == (each.box, None, 3)
            assert again.predicted_iou == each.predicted_iou
            assert views.areas[k] == each.area
            first_row = np.flatnonzero(each.mask[0])
            assert views.first_columns[k] == each.box.x0 + first_row[0]
            for region in (Box(3, 2, 17, 19), Box(10, 11, 12, 13), each.box):
                np.testing.assert_array_equal(
                    views.within(k, region), each.within(region)
                )

    def test_a_point_is_kept_and_none_is_possible(self):
        candidate = Candidate(Box(1, 2, 3, 4), np.ones((2, 2), bool), point=(1.5, 2.25))
        assert Views.of(0, [candidate]).candidate(0).point == (1.5, 2.25)
        nothing = Views.from_bytes(Views.of(7, []).to_bytes())
        assert len(nothing) == 0

    def test_damage_is_found(self):
        data = bytearray(
            Views.of(0, [Candidate(Box(0, 0, 9, 9), np.ones((9, 9), bool))]).to_bytes()
        )
        for change in (data[: len(data) // 2], b"nothing", b""):
            with pytest.raises(FormatError, match="damaged"):
                Views.from_bytes(bytes(change))
        data[data.index(b"bits.npy") + 30] ^= 255
        with pytest.raises(FormatError, match="damaged"):
            Views.from_bytes(bytes(data))


class Found:
    """One object of several as columns, as tests look at it."""

    def __init__(self, objects, i):
        self.candidate = objects.candidate(i)
        self.n_views = objects.n_views[i]
        self.agreement = objects.agreement[i]
        self.is_cut = objects.is_cut[i]


class TestTwoCrops:
    """Two crops of 24 px side by side; columns 16 to 24 are in both."""

    grid = CropGrid((24, 40), size=24, halo=4, scale=1.0)

    def view(self, crop, box, iou=0.9, mask=None):
        box = Box(*box)
        full = np.ones(box.shape, bool) if mask is None else mask
        return Candidate(box, full, iou, crop=crop)

    def objects(self, *candidates, grid=None):
        grid = grid or self.grid
        found = stitch(packed(candidates, grid), grid).objects
        return [Found(found, i) for i in range(len(found))]

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

    @pytest.mark.parametrize("x0", [20, 24])
    def test_the_more_central_of_two_whole_views_wins(self, x0):
        grid = CropGrid((24, 56), size=24, halo=8, scale=1.0)
        assert [crop.box.x0 for crop in grid][1:3] == [8, 16]
        first = self.view(1, (8, x0 - 2, 14, x0 + 2), 0.8)  # 8 to 32 px
        second = self.view(2, (8, x0 - 2, 15, x0 + 2), 0.9)  # 16 to 40 px
        (found,) = self.objects(first, second, grid=grid)
        expected = first if x0 == 20 else second  # 12 and 4, or 8 and 8 px away
        assert found.candidate.box == expected.box
        assert found.agreement == pytest.approx(6 / 7)

    def test_beyond_a_border_of_the_plane_there_is_nothing_to_see(self):
        grid = CropGrid((24, 40), size=24, halo=8, scale=1.0)
        assert [crop.box for crop in grid][1:] == [
            Box(0, 8, 24, 32),
            Box(0, 16, 24, 40),
        ]
        first = self.view(1, (0, 24, 6, 28), 0.9)  # 6 px before its right border
        second = self.view(2, (0, 24, 7, 28), 0.8)  # 10 px behind its left border
        (found,) = self.objects(first, second, grid=grid)
        assert found.candidate.box == second.box

    def test_a_view_that_ends_too_early_is_not_trusted(self):
        short = self.view(0, (8, 10, 14, 20), 0.95)
        long = self.view(1, (8, 16, 14, 22), 0.7)
        (found,) = self.objects(short, long)
        assert found.agreement == pytest.approx(4 / 6)
        assert found.candidate.box == Box(8, 10, 14, 22)

    def test_agreement_is_the_lowest_even_of_two_that_a_third_joins(self):
        grid = CropGrid((24, 40), size=24, halo=8, scale=1.0)
        # 8 rows in the middle crop, of which the others see 5 each, 2 of them the same
        first = self.view(0, (0, 17, 5, 23))
        middle = self.view(1, (0, 17, 8, 23))
        last = self.view(2, (3, 17, 8, 23))
        (found,) = self.objects(first, middle, last, grid=grid)
        assert found.n_views == 3
        assert found.agreement == pytest.approx(2 / 8)

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


class TestOneCrop:
    """Candidates of one crop compete; what is left gets its id."""

    grid = CropGrid((12, 14), size=14, halo=2, scale=1.0)

    def candidate(self, box, iou):
        return Candidate(Box(*box), np.ones(Box(*box).shape, bool), iou)

    def paint(self, candidates, min_area=1):
        kept = without_duplicates(candidates, Box.whole(self.grid.shape))
        painting = stitch({0: Views.of(0, kept)}, self.grid, min_area=min_area)
        return painting.labels(), kept

    def test_better_objects_keep_their_pixels(self):
        labels, kept = self.paint(
            [self.candidate((2, 2, 6, 6), 0.9), self.candidate((2, 5, 6, 12), 0.8)]
        )
        expected = np.zeros((12, 14), np.uint32)
        expected[2:6, 5:12] = 2
        expected[2:6, 2:6] = 1
        np.testing.assert_array_equal(labels, expected)
        assert kept[1].box == Box(2, 6, 6, 12)
        assert kept[1].mask.all()

    def test_duplicates_vanish(self):
        labels, kept = self.paint(
            [self.candidate((2, 2, 6, 6), 0.9), self.candidate((2, 3, 6, 7), 0.8)]
        )
        assert len(kept) == 1
        assert labels.max() == 1

    def test_a_worse_group_does_not_fill_the_gaps_between_its_parts(self):
        parts = [self.candidate((0, x, 8, x + 4), 0.8) for x in (0, 5, 10)]
        labels, _ = self.paint([self.candidate((0, 0, 8, 14), 0.7), *parts])
        assert labels.max() == 3
        assert (labels[:8, 4] == 0).all()

    def test_small_fragments_are_left_out(self):
        # the better bar leaves seven rows of the other above, and one below
        bar = self.candidate((7, 0, 10, 14), 0.9)
        long = self.candidate((0, 2, 11, 6), 0.8)
        labels, kept = self.paint([bar, long])
        assert kept[1].box == Box(0, 2, 7, 6)
        assert not labels[10:].any()

    def test_objects_that_are_too_small_are_dropped(self):
        objects = [self.candidate((0, 0, 3, 3), 0.9), self.candidate((5, 5, 9, 9), 0.9)]
        labels, _ = self.paint(objects, min_area=10)
        assert labels.sum() == 16
        assert (labels[5:9, 5:9] == 1).all()

    def test_ids_follow_the_first_pixels(self):
        objects = [
            self.candidate((5, 0, 7, 2), 0.99),
            self.candidate((0, 9, 2, 11), 0.5),
            self.candidate((0, 3, 2, 5), 0.7),
        ]
        labels, kept = self.paint(objects)
        assert (labels[0, 3], labels[0, 9], labels[5, 0]) == (1, 2, 3)
        assert [each.predicted_iou for each in kept] == [0.99, 0.7, 0.5]

    def test_nothing(self):
        labels, kept = self.paint([])
        assert labels.shape == (12, 14)
        assert labels.dtype == np.uint32
        assert not labels.any()
        assert kept == []
        assert len(stitch({}, self.grid)) == 0


def test_relabelling_helper_agrees_with_skimage():
    truth = scene(3, (30, 30), 6, 1)
    np.testing.assert_array_equal(truth, relabel_sequential(truth)[0])
