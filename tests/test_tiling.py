from __future__ import annotations

import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from napari_sam.errors import InputError
from napari_sam.tiling import CELLS, Box, Crop, CropGrid

coordinates = st.floats(-100, 40_000)


@st.composite
def grids(draw, longest=3000):
    size = draw(st.integers(1, 300))
    halo = draw(st.integers(0, (size - 1) // 2))
    scale = draw(st.none() | st.floats(0.02, 8).map(lambda scale: min(scale, size)))
    core = (size - 2 * halo) / (scale or 1)
    lengths = st.integers(1, min(longest, 1 + int(30 * core)))  # few crops: fast
    return CropGrid((draw(lengths), draw(lengths)), size, halo, scale)


def one_row_and_one_column(grid: CropGrid) -> tuple[list[Crop], list[Crop]]:
    """Rows and columns of a grid are independent, so these show all of it."""
    return (
        [grid[col] for col in range(grid.n_cols)],
        [grid[row * grid.n_cols] for row in range(grid.n_rows)],
    )


@st.composite
def boxes(draw, longest=60):
    y0, x0 = draw(st.integers(-9, longest)), draw(st.integers(-9, longest))
    return Box(
        y0, x0, y0 + draw(st.integers(0, longest)), x0 + draw(st.integers(0, longest))
    )


def painted(box: Box, margin: int = 10, side: int = 140) -> np.ndarray:
    canvas = np.zeros((side, side), bool)
    canvas[box.shift(margin, margin).slices] = True
    return canvas


class TestBox:
    def test_measures(self):
        box = Box(2, 3, 10, 30)
        assert (box.height, box.width, box.shape, box.area) == (8, 27, (8, 27), 216)
        assert np.zeros((40, 40))[box.slices].shape == (8, 27)

    def test_whole_plane(self):
        assert Box.whole((5, 7)) == Box(0, 0, 5, 7)

    @pytest.mark.parametrize("edges", [(5, 0, 4, 1), (0, 5, 1, 4)])
    def test_that_ends_before_it_starts_is_an_error(self, edges):
        with pytest.raises(InputError, match="ends before it starts"):
            Box(*edges)

    @given(boxes(), boxes())
    def test_intersection_equals_painting(self, a, b):
        both = painted(a) & painted(b)
        shared = a.intersection(b)
        assert (shared is None) == (not both.any())
        assert shared is None or np.array_equal(painted(shared), both)

    @given(boxes(), boxes())
    def test_union_is_the_smallest_box_around_both(self, a, b):
        either = painted(a) | painted(b)
        union = a.union(b)
        assume(either.any())
        rows, cols = np.flatnonzero(either.any(1)), np.flatnonzero(either.any(0))
        assert union.shift(10, 10) == Box(
            int(rows[0]), int(cols[0]), int(rows[-1]) + 1, int(cols[-1]) + 1
        )

    def test_union_with_an_empty_box_is_the_other(self):
        box, empty = Box(2, 3, 4, 5), Box(9, 9, 9, 20)
        assert box.union(empty) == empty.union(box) == box

    @given(boxes(), boxes())
    def test_contains_equals_painting(self, a, b):
        assume(b.area)
        assert a.contains(b) == bool((painted(a) >= painted(b)).all())

    @given(boxes(), st.integers(0, 60), st.integers(0, 60))
    def test_clip_keeps_what_lies_in_the_plane(self, box, height, width):
        kept = painted(box) & painted(Box(0, 0, height, width))
        clipped = box.clip((height, width))
        assert clipped.area == kept.sum()
        assert Box(0, 0, height, width).contains(clipped)


class TestLayout:
    @given(grids())
    def test_cores_tile_the_plane_without_gap_or_overlap(self, grid):
        cols, rows = one_row_and_one_column(grid)
        edges_x = [(c.core.x0, c.core.x1) for c in cols]
        edges_y = [(c.core.y0, c.core.y1) for c in rows]
        for edges, length in ((edges_y, grid.shape[0]), (edges_x, grid.shape[1])):
            assert edges[0][0] == 0
            assert edges[-1][1] == length
            assert all(a[1] == b[0] for a, b in pairwise(edges))
            assert all(start < stop for start, stop in edges)

    @given(grids(longest=40))
    def test_every_pixel_lies_in_one_core(self, grid):
        assume(len(grid) <= 200)
        count = np.zeros(grid.shape, int)
        for crop in grid:
            count[crop.core.slices] += 1
        assert (count == 1).all()

    @given(grids())
    def test_crops_lie_in_the_plane_and_hold_core_and_halo(self, grid):
        cols, rows = one_row_and_one_column(grid)
        for crop in cols + rows:
            assert Box.whole(grid.shape).contains(crop.box)
            halo = max(0, int(grid.halo / grid.zoom) - 1)  # starts are rounded
            # a core has one pixel at least, which may cost a pixel of halo
            halo_y = min(halo, (crop.box.height - 1) // 2)
            halo_x = min(halo, (crop.box.width - 1) // 2)
            wanted = Box(
                crop.core.y0 - halo_y,
                crop.core.x0 - halo_x,
                crop.core.y1 + halo_y,
                crop.core.x1 + halo_x,
            )
            assert crop.box.contains(wanted.clip(grid.shape))

    @given(grids())
    def test_crops_are_alike_and_fit_the_encoder(self, grid):
        cols, rows = one_row_and_one_column(grid)
        for crops in (cols[:-1], rows[:-1]):
            assert len({(c.box.shape, c.input_shape) for c in crops}) <= 1
        assert min(min(c.input_shape) for c in cols + rows) >= 1
        assert max(max(c.input_shape) for c in cols + rows) <= grid.size

    @given(grids())
    def test_the_last_crop_lacks_less_than_a_cell(self, grid):
        cell = max(1, math.ceil(max(1, grid.size // CELLS) / grid.zoom))
        first, *_, last = [grid[0], grid[grid.n_cols - 1]]
        assert first.box.width - cell < last.box.width <= first.box.width

    @given(grids())
    def test_the_scale_is_kept_to_half_an_input_pixel(self, grid):
        for crop in (grid[0], grid[len(grid) - 1]):
            for seen, length in zip(crop.input_shape, crop.box.shape, strict=True):
                assert abs(seen - max(1, length * grid.zoom)) <= 0.5 + 1e-6

    @given(grids())
    def test_starts_are_multiples_of_one_step_but_for_the_last(self, grid):
        starts = [crop.box.x0 for crop in one_row_and_one_column(grid)[0]]
        assert all(b > a for a, b in pairwise(starts))
        if len(starts) > 2:  # rounded to whole pixels
            step = starts[-2] / (len(starts) - 2)
            expected = step * np.arange(len(starts) - 1)
            assert np.abs(expected - starts[:-1]).max() <= 1

    @given(grids())
    def test_starts_lie_on_cells_of_the_encoder(self, grid):
        cell = max(1, grid.size // CELLS)
        # where a cell has less than a pixel, or a core or a crop less than a cell, none
        # can
        assume(cell >= grid.zoom and grid.core >= cell and grid.core // grid.zoom > 1)
        assume(grid[0].box.width * grid.zoom >= cell)
        for crop in one_row_and_one_column(grid)[0]:
            at = crop.box.x0 * grid.zoom
            # the pixel whose edge is nearest
            assert abs(at - cell * round(at / cell)) <= 0.5 * grid.zoom + 1e-6

    @given(grids(longest=400), st.data())
    def test_index_row_and_column_agree(self, grid, data):
        index = data.draw(st.integers(0, len(grid) - 1))
        crop = grid[index]
        assert crop.index == index == crop.row * grid.n_cols + crop.col
        assert 0 <= crop.row < grid.n_rows

    def test_iterates_over_all_crops(self):
        grid = CropGrid((100, 150), size=64, halo=8)
        assert (
            [crop.index for crop in grid]
            == list(range(len(grid)))
            == [0, 1, 2, 3, 4, 5]
        )
        with pytest.raises(IndexError, match="crop 6 of 6"):
            grid[6]

    def test_a_known_grid(self):
        grid = CropGrid((1500, 900), size=1024, halo=128)
        first, second = grid
        assert (first.box, first.core) == (Box(0, 0, 1024, 900), Box(0, 0, 768, 900))
        assert (second.box, second.core) == (
            Box(512, 0, 1500, 900),  # 476 would be no multiple of 64
            Box(768, 0, 1500, 900),
        )
        assert first.input_shape == (1024, 900)
        assert second.input_shape == (988, 900)

    def test_a_slide_needs_no_memory(self):
        grid = CropGrid((200_000, 300_000))
        assert len(grid) == 261 * 391
        assert grid[len(grid) - 1].box == Box(198_976, 299_008, 200_000, 300_000)

    def test_travels_to_another_process(self):
        grid = CropGrid((1500, 900), scale=0.7)
        assert pickle.loads(pickle.dumps(grid)) == grid
        assert hash(grid) == hash(CropGrid((1500, 900), scale=0.7))


class TestScale:
    @pytest.mark.parametrize(
        ("shape", "zoom", "input_shape"),
        [
            ((1024, 1024), 1.0, (1024, 1024)),
            ((256, 320), 3.2, (819, 1024)),  # 819.2
            ((512, 300), 2.0, (1024, 600)),
            ((333, 1000), 1.024, (341, 1024)),  # 340.99
            ((256, 256), 4.0, (1024, 1024)),
            ((100, 60), 4.0, (400, 240)),  # not more than x4
            ((1, 1), 4.0, (4, 4)),
            ((1025, 10), 1.0, (1024, 10)),  # does not fit: keeps its resolution
        ],
    )
    def test_default_fills_one_crop_but_at_most_fourfold(
        self, shape, zoom, input_shape
    ):
        grid = CropGrid(shape)
        assert grid.zoom == zoom
        assert grid[0].input_shape == input_shape

    @given(st.integers(1, 1024), st.integers(1, 1024))
    def test_a_plane_that_fits_is_one_crop(self, height, width):
        crops = list(CropGrid((height, width)))
        assert [crop.box for crop in crops] == [Box(0, 0, height, width)]
        assert crops[0].core == crops[0].box

    @given(st.integers(1025, 20_000), st.integers(1, 20_000))
    def test_scaling_the_long_side_to_the_crop_gives_one_crop(self, height, width):
        # what the reference does with a plane larger than its input
        assume(width <= height)
        grid = CropGrid((height, width), scale=1024 / height)
        assert len(grid) == 1
        assert grid[0].input_shape == (1024, max(1, int(width * 1024 / height + 0.5)))

    def test_a_scale_resamples_objects(self):
        grid = CropGrid((4000, 4000), size=1024, halo=128, scale=0.5)
        assert grid[0].box == Box(0, 0, 2048, 2048)
        assert grid[0].input_shape == (1024, 1024)
        assert grid[1].box.x0 == 2048 - 2 * 256

    def test_for_diameter_brings_objects_to_the_target(self):
        assert CropGrid.for_diameter((4000, 4000), 160).scale == 0.25
        assert CropGrid.for_diameter((4000, 4000), 2).scale == 4

    @pytest.mark.parametrize(
        ("shape", "n_plain", "n_balanced"),
        [
            ((1024, 700), 1, 1),
            ((1100, 1100), 4, 1),
            ((1127, 900), 2, 2),  # more than 10 % too large for one
            ((1900, 900), 3, 2),  # without any shrinking
            ((2048, 2048), 9, 4),
            ((2113, 2048), 9, 6),
            ((2113, 2113), 9, 9),
            ((20_000, 20_000), 676, 441),
        ],
    )
    def test_balanced_grids_have_fewer_crops(self, shape, n_plain, n_balanced):
        grid = CropGrid.balanced(shape)
        assert (len(CropGrid(shape)), len(grid)) == (n_plain, n_balanced)
        if n_balanced == n_plain:
            assert grid == CropGrid(shape)

    @given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 100), st.data())
    def test_balanced_grids_shrink_little_and_see_all(self, height, width, size, data):
        halo = data.draw(st.integers(0, (size - 1) // 2))
        plain = CropGrid((height, width), size, halo)
        assume(len(plain) <= 400)
        grid = CropGrid.balanced((height, width), size=size, halo=halo)
        if grid == plain:
            return
        assert len(grid) < len(plain)
        assert 1 / 1.1 - 1e-9 <= grid.zoom <= 1
        seen = np.zeros((height, width), bool)
        for crop in grid:
            seen[crop.box.slices] = True
        assert seen.all()

    @pytest.mark.parametrize("diameter", [0, -3, math.inf, math.nan])
    def test_for_diameter_refuses(self, diameter):
        with pytest.raises(InputError, match="diameter"):
            CropGrid.for_diameter((4000, 4000), diameter)


class TestCoordinates:
    @given(
        grids(), st.data(), st.lists(st.tuples(coordinates, coordinates), max_size=9)
    )
    def test_crop_to_plane_to_crop_is_identity(self, grid, data, points):
        crop = grid[data.draw(st.integers(0, len(grid) - 1))]
        there = crop.to_input(points)
        assert there.shape == (len(points), 2)
        back = crop.to_plane(there)
        assert np.allclose(back, np.reshape(points, (-1, 2)), rtol=0, atol=1e-4)
        assert np.allclose(crop.to_input(back), there, rtol=0, atol=1e-4)

    @given(grids(), st.data())
    def test_box_edges_are_exact(self, grid, data):
        crop = grid[data.draw(st.integers(0, len(grid) - 1))]
        box = crop.box
        edges = crop.boxes_to_input([box.y0, box.x0, box.y1, box.x1])
        assert edges == pytest.approx(np.array([[0, 0, *crop.input_shape]]), abs=1e-9)
        assert edges[0, 0] == edges[0, 1] == 0
        back = crop.boxes_to_plane(edges)
        assert back == pytest.approx(np.array([[box.y0, box.x0, box.y1, box.x1]]))

    @given(grids(), st.integers(0, 2**31))
    def test_box_edges_lie_half_a_pixel_from_pixel_centres(self, grid, number):
        crop = grid[number % len(grid)]
        y, x = crop.core.y0, crop.core.x0
        edge = crop.boxes_to_input([[y, x, y + 1, x + 1]])[0]
        centre = crop.to_input([[y, x]])[0]
        assert (edge[:2] + edge[2:]) / 2 - 0.5 == pytest.approx(centre, abs=1e-6)

    @pytest.mark.parametrize("scale", [0.37, 0.5, 1.0, 1.7, 3.0])
    def test_coordinates_are_those_of_resampled_pixels(self, scale):
        # oracle: torch resamples an image whose pixels hold their own row
        grid = CropGrid((130, 90), size=64, halo=8, scale=scale)
        crop = grid[len(grid) // 2]
        rows = torch.arange(130.0, dtype=torch.float64)[:, None].expand(130, 90)
        resampled = torch.nn.functional.interpolate(
            rows[crop.box.slices][None, None], size=crop.input_shape, mode="bilinear"
        )[0, 0, :, 0].numpy()
        numbers = np.arange(crop.input_shape[0])
        plane = crop.to_plane(np.stack([numbers, numbers], axis=1))[:, 0]
        inside = (plane >= crop.box.y0) & (plane <= crop.box.y1 - 1)
        assert inside.sum() > 10
        assert resampled[inside] == pytest.approx(plane[inside], abs=1e-6)

    def test_float32_points_keep_their_place_in_a_slide(self):
        crop = CropGrid((200_000, 300_000)).crop_at(150_000.25, 250_000.5)
        points = np.array([[150_000.25, 250_000.5]], np.float32)
        assert crop.to_plane(crop.to_input(points)).tolist() == [
            [150_000.25, 250_000.5]
        ]


class TestPlaces:
    @given(grids(longest=300), st.floats(0, 1), st.floats(0, 1))
    def test_crop_at_is_the_crop_in_which_a_point_lies_most_central(self, grid, v, u):
        y, x = v * grid.shape[0] - 0.5, u * grid.shape[1] - 0.5
        cols, rows = one_row_and_one_column(grid)

        def depth(at, start, stop, length):
            """Distance to the nearest border beyond which the plane goes on."""
            inner = [at + 0.5 - start] * (start > 0) + [stop - at - 0.5] * (
                stop < length
            )
            return min(inner, default=math.inf)

        def depth_y(crop):
            return depth(y, crop.box.y0, crop.box.y1, grid.shape[0])

        def depth_x(crop):
            return depth(x, crop.box.x0, crop.box.x1, grid.shape[1])

        found = grid.crop_at(y, x)
        assert depth_y(found) == pytest.approx(max(map(depth_y, rows)))
        assert depth_x(found) == pytest.approx(max(map(depth_x, cols)))
        assert grid[found.index] == found

    @given(grids(longest=300), st.data())
    def test_a_pixel_belongs_to_the_crop_whose_core_holds_it(self, grid, data):
        y = data.draw(st.integers(0, grid.shape[0] - 1))
        x = data.draw(st.integers(0, grid.shape[1] - 1))
        assert grid.crop_at(y, x).core.contains(Box(y, x, y + 1, x + 1))

    @pytest.mark.parametrize("point", [(-0.6, 5), (100.5, 5), (5, -1), (5, math.nan)])
    def test_crop_at_refuses_points_outside_the_plane(self, point):
        with pytest.raises(InputError, match="outside the plane of 100 x 90 px"):
            CropGrid((100, 90)).crop_at(*point)

    def test_crop_at_takes_the_very_border(self):
        grid = CropGrid((100, 90), size=32, halo=4)
        assert grid.crop_at(-0.5, -0.5).index == 0
        assert grid.crop_at(99.5, 89.5).index == len(grid) - 1

    @given(grids(longest=120), st.data())
    def test_crops_touching_a_box_are_those_that_see_a_pixel_of_it(self, grid, data):
        assume(len(grid) <= 400)
        box = data.draw(boxes(longest=120))
        seen = [crop for crop in grid if crop.box.intersection(box) is not None]
        assert grid.crops_touching(box) == seen


class TestWrongInput:
    @pytest.mark.parametrize("halo", [512, 600, -1])
    def test_halo_without_core(self, halo):
        with pytest.raises(InputError, match=f"halo {halo} px leaves no core"):
            CropGrid((100, 100), size=1024, halo=halo)

    @pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf, 2000])
    def test_scale(self, scale):
        with pytest.raises(InputError, match="scale"):
            CropGrid((100, 100), scale=scale)

    @pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5,), (5, 5, 3)])
    def test_shape(self, shape):
        with pytest.raises(InputError, match="plane shape"):
            CropGrid(shape)

    def test_size(self):
        with pytest.raises(InputError, match="crop size 0 px"):
            CropGrid((5, 5), size=0, halo=0)
