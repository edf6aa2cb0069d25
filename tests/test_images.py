from __future__ import annotations

import math
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam.errors import InputError, NapariSamWarning
from napari_sam.images import (
    ImageSource,
    Intensity,
    find_intensity,
    read_rgb,
    to_uint8_rgb,
)
from napari_sam.tiling import Box

LENGTHS = {"T": 2, "Z": 3, "C": 4, "Y": 5, "X": 6}


class CountingArray:
    """Counts what is read of an array that would be too large to hold."""

    def __init__(self, shape: tuple[int, ...], chunks: tuple[int, ...] | None = None):
        self.shape, self.dtype, self.chunks = shape, np.dtype(np.uint16), chunks
        self.reads: list[tuple[Any, ...]] = []

    def __getitem__(self, key):
        self.reads.append(key)
        lengths = [len(range(*k.indices(n))) for k, n in self._slices(key)]
        return np.broadcast_to(np.arange(lengths[-1], dtype=self.dtype), lengths)

    def _slices(self, key):
        return [(k, n) for k, n in zip(key, self.shape, strict=True) if k is not None
                and isinstance(k, slice)]  # fmt: skip

    @property
    def n_pixels(self) -> int:
        return sum(
            math.prod(len(range(*k.indices(n))) for k, n in self._slices(key))
            for key in self.reads
        )


def numbered(axes: str) -> np.ndarray:
    """Pixels that say where they lie: the digits of a pixel are t, z, c, y, x."""
    grid = np.indices([LENGTHS[axis] for axis in axes])
    return sum(grid[i] * 10 ** (4 - "TZCYX".index(a)) for i, a in enumerate(axes))


def as_dask(array: np.ndarray) -> Any:
    from dask.array import from_array

    return from_array(array)


class TestSource:
    @pytest.mark.parametrize("n_axes", [2, 3, 4, 5])
    def test_reads_any_order_of_axes(self, n_axes):
        orders = [
            "".join(order)
            for order in permutations("TZCYX", n_axes)
            if {"Y", "X"} <= set(order)
        ]
        for axes in orders:
            source = ImageSource(numbered(axes), axes=axes)
            t, z = int("T" in axes), 2 * int("Z" in axes)
            pixels = source.read(Box(1, 2, 4, 6), (t, z))
            y, x = np.mgrid[1:4, 2:6]
            expected = 10_000 * t + 1_000 * z + 10 * y + x
            if "C" in axes:
                expected = expected[..., None] + 100 * np.arange(4)
            assert np.array_equal(pixels, expected), axes

    def test_lengths(self):
        source = ImageSource(numbered("CXTYZ"), axes="CXTYZ")
        assert source.shape == (2, 3, 5, 6)
        assert (source.plane_shape, source.n_channels) == ((5, 6), 4)
        assert list(source.plane_indices()) == [
            (0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)
        ]  # fmt: skip
        assert not source.is_rgb

    @pytest.mark.parametrize(
        ("samples", "n_channels", "is_rgb"),
        [(1, 1, False), (2, 1, False), (3, 3, True), (4, 3, True)],
    )
    def test_alpha_is_no_channel(self, samples, n_channels, is_rgb):
        array = np.arange(20 * samples, dtype=np.uint8).reshape(4, 5, samples)
        source = ImageSource(array, axes="YXS")
        assert (source.n_channels, source.is_rgb) == (n_channels, is_rgb)
        assert np.array_equal(source.read(), array[..., :n_channels])

    def test_planar_rgb(self):
        array = np.arange(60).reshape(3, 4, 5)
        source = ImageSource(array, axes="SYX")
        assert np.array_equal(source.read(), np.moveaxis(array, 0, 2))

    def test_chosen_channels_come_in_that_order(self):
        source = ImageSource(numbered("CYX"), axes="CYX")
        assert np.array_equal(
            source.read(channels=[3, 1]), source.read()[..., [3, 1]]
        )  # fmt: skip
        rgb = ImageSource(np.arange(60).reshape(4, 5, 3), axes="YXS")
        assert np.array_equal(rgb.read(channels=[2]), rgb.read()[..., [2]])

    def test_the_channel_of_a_gray_image_is_not_its_first_column(self):
        gray = ImageSource(np.arange(20).reshape(4, 5))
        assert gray.read(channels=[0]).shape == (4, 5, 1)
        assert np.array_equal(gray.read(channels=[0])[..., 0], gray.read())

    def test_reads_only_what_is_asked_for(self):
        array = CountingArray((2, 3, 30_000, 30_000))
        source = ImageSource(array, axes="TCYX")
        pixels = source.read(Box(100, 200, 110, 220), (1, 0), channels=[2])
        assert pixels.shape == (10, 20, 1)
        assert array.reads == [(1, 2, slice(100, 110), slice(200, 220))]

    @pytest.mark.parametrize("wrap", [zarr.array, as_dask, np.asarray])
    def test_reads_lazy_arrays(self, wrap):
        data = numbered("TYX").astype(np.uint16)
        pixels = ImageSource(wrap(data), axes="TYX").read(Box(1, 1, 3, 4), (1, 0))
        assert type(pixels) is np.ndarray
        assert np.array_equal(pixels, data[1, 1:3, 1:4])

    @pytest.mark.parametrize("axes", ["TZCYX", "ZTYXC", "YXZCT"])
    def test_one_frame_slice_or_plane(self, axes):
        full = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
        array = full.transpose(["TZCYX".index(axis) for axis in axes])
        source = ImageSource(array, axes=axes, z_step_um=2.0)
        for plane in source.plane_indices():
            expected = full[plane].transpose(1, 2, 0)
            one = source.at(plane)
            np.testing.assert_array_equal(one.read(), expected)
            assert (one.shape, one.z_step_um) == ((1, 1, 5, 6), None)
            frame, number = plane
            frames = source.at((frame, None))
            assert (frames.shape, frames.z_step_um) == ((1, 3, 5, 6), 2.0)
            np.testing.assert_array_equal(frames.read(plane=(0, number)), expected)
        with pytest.raises(InputError, match="which has 2 frames and 3 slices"):
            source.at((2, None))

    def test_a_plane_of_a_pyramid_is_a_pyramid(self):
        sides = (8, 4, 2)
        planes = [np.arange(3 * n * n).reshape(3, n, n) for n in sides]
        source = ImageSource(planes[0], axes="ZYX", levels=tuple(planes[1:]))
        one = source.at((0, 2))
        for level in range(3):
            np.testing.assert_array_equal(one.level(level).read(), planes[level][2])

    def test_channels_by_name(self):
        source = ImageSource(
            numbered("CYX"), axes="CYX", channel_names=("DAPI", "GFP", "RFP", "BF")
        )
        assert source.channel_numbers(["RFP", 0, "DAPI"]) == (2, 0, 0)
        with pytest.raises(InputError, match=r"no channel 'Cy5'.*'GFP'"):
            source.channel_numbers(["Cy5"])

    @pytest.mark.parametrize(
        ("shape", "axes", "message"),
        [
            ((4, 5, 6), "YX", "one letter"),
            ((4, 5), "ZX", "Y and X among them"),
            ((4, 5, 6), "YYX", "at most once"),
            ((4, 5, 6), "QYX", "at most once"),
            ((0, 5), "YX", "has no pixels"),
            ((0, 4, 5), "TYX", "has no pixels"),
            ((4, 5, 5), "YXS", "1 to 4 colour samples"),
            ((2, 4, 5, 3), "CYXS", "1 to 4 colour samples"),
        ],
    )
    def test_refuses_axes(self, shape, axes, message):
        with pytest.raises(InputError, match=message):
            ImageSource(np.zeros(shape), axes=axes)

    @pytest.mark.parametrize("dtype", [complex, object, "U3", "datetime64[s]"])
    def test_refuses_pixels_that_are_no_numbers(self, dtype):
        with pytest.raises(InputError, match="booleans, integers or floats"):
            ImageSource(np.zeros((4, 5), dtype))

    @pytest.mark.parametrize("size", [0, -1, math.nan, math.inf])
    def test_refuses_sizes(self, size):
        with pytest.raises(InputError, match="pixel size"):
            ImageSource(np.zeros((4, 5)), pixel_size_um=(0.5, size))
        with pytest.raises(InputError, match="pixel size"):
            ImageSource(np.zeros((4, 5)), z_step_um=size)

    def test_refuses_the_wrong_number_of_channel_names(self):
        with pytest.raises(InputError, match="2 channel names for 1 channels"):
            ImageSource(np.zeros((4, 5)), channel_names=("a", "b"))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"box": Box(0, 0, 6, 6)}, "leaves the plane of 5 x 6 px"),
            ({"box": Box(-1, 0, 5, 6)}, "leaves the plane"),
            ({"plane": (2, 0)}, "2 frames and 3 slices"),
            ({"plane": (0, -1)}, "2 frames and 3 slices"),
            ({"channels": [4]}, "channel 4 of image, which has 4"),
            ({"channels": [-1]}, "channel -1"),
        ],
    )
    def test_refuses_to_read(self, arguments, message):
        source = ImageSource(numbered("TZCYX"), axes="TZCYX")
        with pytest.raises(InputError, match=message):
            source.read(**arguments)


class TestConversion:
    @given(
        hnp.arrays(np.uint16, (3, 4)),
        st.integers(0, 60_000),
        st.integers(1, 60_000),
        st.booleans(),
    )
    def test_values_are_those_of_the_straight_line(self, pixels, low, width, invert):
        intensity = Intensity((0,), ((low, low + width),), invert)
        exact = (pixels.astype(np.float64) - low) / width * 255
        gray = np.clip(exact, 0, 255)
        found = to_uint8_rgb(pixels, intensity)
        assert found.shape == (3, 4, 3)
        assert found.dtype == np.uint8
        assert (found == found[..., :1]).all()
        shown = 255 - found[..., 0] if invert else found[..., 0]
        assert np.abs(shown - gray).max() <= 0.5 + 1e-3

    @pytest.mark.parametrize(
        "dtype",
        ["u1", "i1", "<u2", ">u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"],
    )
    def test_every_number_type_gives_the_same_picture(self, dtype):
        pixels = np.array([[0, 25, 50, 100, 127]]).astype(dtype)
        found = to_uint8_rgb(pixels, Intensity((0,), ((0, 100),)))
        assert found[0, :, 0].tolist() == [0, 64, 128, 255, 255]

    def test_large_numbers_keep_small_differences(self):
        pixels = 2**40 + np.array([[0, 1, 2]], np.uint64)
        found = to_uint8_rgb(pixels, Intensity((0,), ((2.0**40, 2.0**40 + 2),)))
        assert found[0, :, 0].tolist() == [0, 128, 255]

    @pytest.mark.filterwarnings("error")
    def test_what_is_no_number_is_black_and_infinity_saturates(self):
        pixels = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
        found = to_uint8_rgb(pixels, Intensity((0,), ((0, 1),)))
        assert found[0, :, 0].tolist() == [0, 255, 0, 128]

    def test_two_channels_become_magenta_and_green(self):
        pixels = np.array([[[255, 0], [0, 255], [255, 255]]], np.uint8)
        found = to_uint8_rgb(pixels, Intensity((0, 1), ((0, 255),) * 2))
        assert found[0].tolist() == [[255, 0, 255], [0, 255, 0], [255, 255, 255]]

    def test_three_channels_become_rgb_in_the_order_chosen(self):
        pixels = np.array([[[10, 20, 30, 40]]], np.uint8)
        found = to_uint8_rgb(pixels, Intensity((3, 0, 2), ((0, 255),) * 3))
        assert found[0, 0].tolist() == [40, 10, 30]

    def test_of_more_channels_the_mean_becomes_gray(self):
        pixels = np.array([[[10, 20, 30, 41]]], np.uint8)
        found = to_uint8_rgb(pixels, Intensity((0, 1, 2, 3), ((0, 255),) * 4))
        assert found[0, 0].tolist() == [25, 25, 25]  # 25.25

    def test_the_pixels_given_do_not_change(self):
        pixels = np.array([[0.0, 1.0, np.nan]], np.float32)
        before = pixels.copy()
        to_uint8_rgb(pixels, Intensity((0,), ((0, 2),), invert=True))
        assert np.array_equal(pixels, before, equal_nan=True)

    @pytest.mark.parametrize("shape", [(4,), (2, 3, 4, 5)])
    def test_refuses_the_wrong_number_of_axes(self, shape):
        with pytest.raises(InputError, match="pixels of shape"):
            to_uint8_rgb(np.zeros(shape), Intensity((0,), ((0, 1),)))

    def test_refuses_pixels_without_a_channel_it_needs(self):
        with pytest.raises(InputError, match="pixels with 1 channels"):
            to_uint8_rgb(np.zeros((4, 5)), Intensity((1,), ((0, 1),)))

    @pytest.mark.parametrize(
        "limits", [(1, 1), (2, 1), (0, math.nan), (0, math.inf), (-math.inf, 0)]
    )
    def test_refuses_limits_that_do_not_rise(self, limits):
        with pytest.raises(InputError, match="the lower one first"):
            Intensity((0,), (limits,))

    @pytest.mark.parametrize("channels", [(), (0, 1)])
    def test_refuses_limits_that_do_not_fit_the_channels(self, channels):
        with pytest.raises(InputError, match="1 pairs of limits"):
            Intensity(channels, ((0, 1),))


def plane_of_nuclei() -> np.ndarray:
    """Background with noise, and nuclei on 0.2 % of a 500 x 500 plane."""
    plane = np.random.default_rng(1).normal(100, 5, (500, 500))
    plane[200:220, 300:325] = np.linspace(500, 1500, 25)
    return plane.round().astype(np.uint16)


class TestLimits:
    def test_are_percentiles_of_a_small_image(self):
        plane = plane_of_nuclei()
        (found,) = find_intensity(ImageSource(plane)).limits
        assert found == tuple(np.percentile(plane, (0.1, 99.9)))

    def test_hot_pixels_do_not_darken_the_image(self):
        plane = plane_of_nuclei()
        plane.ravel()[:: 500 * 50] = 65_535
        assert find_intensity(ImageSource(plane)).limits[0][1] < 1500

    def test_sparse_nuclei_do_not_turn_flat_white(self):
        source, nuclei = ImageSource(plane_of_nuclei()), Box(200, 300, 220, 325)
        white = {
            upper: (read_rgb(source, intensity, nuclei) == 255).mean()
            for upper in (99.9, 99)
            for intensity in [find_intensity(source, percentiles=(0.1, upper))]
        }
        assert white[99.9] < 0.55  # half of their 0.2 % of the plane
        assert white[99] == 1

    def test_hold_for_all_planes(self):
        stack = np.arange(4000, dtype=np.uint16).reshape(2, 2, 20, 50)
        (found,) = find_intensity(ImageSource(stack, axes="TZYX")).limits
        assert found == pytest.approx((4.0, 3995.0), abs=0.01)

    def test_are_found_for_each_channel(self):
        image = np.stack([plane_of_nuclei(), plane_of_nuclei() * 3])
        source = ImageSource(image, axes="CYX", channel_names=("a", "b"))
        intensity = find_intensity(source, channels=["b", "a"])
        assert intensity.channels == (1, 0)
        (low_b, high_b), (low_a, high_a) = intensity.limits
        assert (low_b, high_b) == pytest.approx((3 * low_a, 3 * high_a))

    def test_8_bit_rgb_keeps_its_values(self):
        rgb = np.random.default_rng(0).integers(90, 130, (8, 9, 3), np.uint8)
        source = ImageSource(rgb, axes="YXS")
        assert np.array_equal(read_rgb(source, find_intensity(source)), rgb)
        rgba = np.concatenate([rgb, np.full((8, 9, 1), 7, np.uint8)], axis=2)
        source = ImageSource(rgba, axes="YXS")
        assert np.array_equal(read_rgb(source, find_intensity(source)), rgb)

    def test_colours_of_16_bit_rgb_keep_their_balance(self):
        rgb = np.zeros((10, 10, 3), np.uint16)
        rgb[:5] = (1000, 500, 250)
        source = ImageSource(rgb, axes="YXS")
        assert read_rgb(source, find_intensity(source))[0, 0].tolist() == [255, 128, 64]

    def test_gray_of_8_bit_is_stretched(self):
        source = ImageSource(np.array([[10, 20], [30, 60]], np.uint8))
        found = read_rgb(source, find_intensity(source, percentiles=(0, 100)))
        assert found[..., 0].tolist() == [[0, 51], [102, 255]]

    def test_booleans_are_black_and_white(self):
        source = ImageSource(np.array([[True, False]]))
        assert read_rgb(source, find_intensity(source))[0, :, 0].tolist() == [255, 0]

    def test_invert_exchanges_dark_and_bright(self):
        source = ImageSource(plane_of_nuclei())
        plain = read_rgb(source, find_intensity(source))
        inverted = read_rgb(source, find_intensity(source, invert=True))
        assert np.array_equal(inverted, 255 - plain)

    @pytest.mark.parametrize("value", [0, 7, 255])
    def test_a_constant_image_is_black_with_a_warning(self, value):
        source = ImageSource(np.full((6, 7), value, np.uint8))
        with pytest.warns(NapariSamWarning, match=f"constant \\({value}\\)"):
            intensity = find_intensity(source)
        assert (read_rgb(source, intensity) == 0).all()

    def test_a_constant_image_of_huge_numbers(self):
        with pytest.warns(NapariSamWarning, match="constant"):
            intensity = find_intensity(ImageSource(np.full((6, 7), 1e30)))
        assert (to_uint8_rgb(np.full((6, 7), 1e30), intensity) == 0).all()

    def test_one_pixel(self):
        source = ImageSource(np.array([[5.0]]))
        with pytest.warns(NapariSamWarning, match="constant"):
            intensity = find_intensity(source)
        assert read_rgb(source, intensity).tolist() == [[[0, 0, 0]]]

    def test_one_object_smaller_than_the_saturated_share_stays_visible(self):
        plane = np.zeros((200, 200), np.uint16)
        plane[50:53, 50:53] = 900
        source = ImageSource(plane)
        found = read_rgb(source, find_intensity(source))
        assert np.array_equal(found[..., 0] == 255, plane == 900)

    def test_not_finite_pixels_are_left_out_with_a_warning(self):
        plane = plane_of_nuclei().astype(np.float32)
        expected = find_intensity(ImageSource(plane)).limits
        with_holes = np.concatenate([plane, np.full((9, 500), np.nan, np.float32)])
        with_holes[-1] = np.inf
        with pytest.warns(
            NapariSamWarning, match=r"4500 of 254500 pixels of channel 0"
        ):
            found = find_intensity(ImageSource(with_holes)).limits
        assert found == expected

    def test_nothing_finite_is_an_error(self):
        source = ImageSource(np.full((4, 5), np.nan))
        with pytest.raises(InputError, match="holds no finite number"):
            find_intensity(source)

    def test_may_be_given(self):
        source = ImageSource(numbered("CYX"), axes="CYX")
        assert find_intensity(source, limits=[(1, 9)]).limits == ((1, 9),) * 4
        chosen = find_intensity(source, channels=[1, 3], limits=[(1, 9), (2, 5)])
        assert chosen == Intensity((1, 3), ((1, 9), (2, 5)))
        with pytest.raises(InputError, match="3 pairs of limits for 4 channels"):
            find_intensity(source, limits=[(1, 9)] * 3)

    @pytest.mark.parametrize("percentiles", [(-1, 99), (5, 5), (99, 1), (1, 101)])
    def test_refuses_percentiles(self, percentiles):
        with pytest.raises(InputError, match="percentages"):
            find_intensity(ImageSource(plane_of_nuclei()), percentiles=percentiles)


class TestSample:
    @pytest.mark.parametrize(
        ("shape", "axes", "chunks"),
        [
            ((60_000, 80_000), "YX", None),
            ((60_000, 80_000), "YX", (1, 80_000)),  # strips
            ((60_000, 80_000), "YX", (512, 512)),
            ((60_000, 80_000), "YX", (32, 32)),
            ((400, 50, 2000, 2000), "TZYX", (1, 1, 2000, 2000)),
        ],
    )
    def test_reads_little_of_a_huge_image(self, shape, axes, chunks):
        array = CountingArray(shape, chunks)
        find_intensity(ImageSource(array, axes=axes))
        assert 64 <= len(array.reads) <= 256
        assert 200_000 <= array.n_pixels <= 2**22

    def test_reads_only_the_channels_chosen(self):
        array = CountingArray((40, 5000, 5000))
        find_intensity(ImageSource(array, axes="CYX"), channels=[7])
        assert {key[0] for key in array.reads} == {7}

    def test_is_the_same_each_time(self):
        first, second = CountingArray((9, 5000, 5000)), CountingArray((9, 5000, 5000))
        assert find_intensity(ImageSource(first, axes="TYX")) == find_intensity(
            ImageSource(second, axes="TYX")
        )
        assert first.reads == second.reads

    def test_sees_all_of_the_image(self):
        # brightness is the place: limits are right only if no part is left out
        for axes, place in (("TYX", 0), ("TYX", 1), ("TYX", 2)):
            shape = (8, 3000, 3000)
            ramp = np.arange(shape[place], dtype=np.float32) / (shape[place] - 1)
            ramp = np.broadcast_to(
                ramp.reshape([-1 if i == place else 1 for i in range(3)]), shape
            )
            ((low, high),) = find_intensity(ImageSource(ramp, axes=axes)).limits
            assert low < 0.06
            assert high > 0.94

    def test_agrees_with_all_pixels_of_a_mosaic(self):
        rng = np.random.default_rng(3)
        fields = rng.integers(100, 400, (12, 12)).repeat(256, 0).repeat(256, 1)
        mosaic = (fields + rng.normal(0, 30, fields.shape)).astype(np.uint16)
        found = find_intensity(ImageSource(mosaic), percentiles=(1, 99)).limits[0]
        assert found == pytest.approx(np.percentile(mosaic, (1, 99)), rel=0.2)
