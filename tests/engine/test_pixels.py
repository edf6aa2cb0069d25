"""Pixels of crops: those of a pyramid's level are those of the full resolution."""

import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import open_plane
from napari_sam.engine.pixels import read_crop
from napari_sam.errors import InputError
from napari_sam.images import ImageSource, Intensity, fitting_levels
from napari_sam.readers import open_image
from napari_sam.tiling import Box, Crop, CropGrid

GRAY = Intensity((0,), ((0.0, 255.0),))
SIZE = 128


def averaged(image, factor):
    """Mean of each block; what fills no block is lost, as writers of pyramids do."""
    height, width = (n // factor for n in image.shape)
    whole = image[: height * factor, : width * factor].astype(np.float64)
    blocks = whole.reshape(height, factor, width, factor).mean(axis=(1, 3))
    return np.floor(blocks + 0.5).astype(image.dtype)


def pyramid(image, *factors):
    return ImageSource(image, levels=tuple(averaged(image, n) for n in factors))


class Counted:
    """An array that counts the pixels that are read."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self.n_read = 0

    def __getitem__(self, key):
        part = self.array[key]
        self.n_read += part.size
        return part


def seen(source, crop):
    part = read_crop(source, GRAY, (0, 0), crop, band=64, is_sealed=True)
    assert part.pixels.shape == (1, 3, *crop.input_shape)
    return part.pixels[0, 0].numpy().astype(float)


@st.composite
def crops(draw, shape, scales):
    scale = draw(scales)
    side = int(SIZE / scale)
    y0 = draw(st.integers(0, shape[0] - side))
    x0 = draw(st.integers(0, shape[1] - side))
    box = Box(y0, x0, y0 + side, x0 + side)
    length = round(side * scale)
    return Crop(-1, -1, -1, box, box, (length, length))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), factor=st.sampled_from([2, 3, 4]))
def test_a_ramp_is_the_same_from_each_level(data, factor):
    # straight lines keep their values when they are averaged: no pixel may move
    shape = (1001, 1003)
    crop = data.draw(crops(shape, st.floats(0.13, 1 / factor)))
    axis = data.draw(st.sampled_from([0, 1]))
    start, length = (crop.box.y0, crop.box.x0)[axis], crop.box.height
    places = np.expand_dims(np.arange(shape[axis]) - start, 1 - axis)
    ramp = np.clip(places * 255 / length, 0, 255) + np.zeros(shape)
    image = np.round(ramp).astype(np.uint8)
    source = pyramid(image, factor)
    assert source.level_for(crop.scale) == 1
    full, level = seen(ImageSource(image), crop), seen(source, crop)
    # two gray levels are an input pixel; at the ends the ramp is bent
    assert np.abs(full - level)[2:-2, 2:-2].max() <= 1


@settings(max_examples=15, deadline=None)
@given(data=st.data(), factors=st.sampled_from([(2,), (4,), (2, 4), (3,)]))
def test_a_disc_keeps_its_place_to_a_tenth_of_an_input_pixel(data, factors):
    shape = (1021, 1019)
    crop = data.draw(crops(shape, st.floats(0.13, 1 / factors[-1])))
    box, margin = crop.box, crop.box.height / 4
    y = data.draw(st.floats(box.y0 + margin, box.y1 - margin))
    x = data.draw(st.floats(box.x0 + margin, box.x1 - margin))
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    away = np.hypot(rows - y, columns - x)
    radius = 0.15 * crop.box.height
    image = np.round(200 * np.clip(0.5 + (radius - away) / 6, 0, 1)).astype(np.uint8)
    found = seen(pyramid(image, *factors), crop)
    total = found.sum()
    centre = [
        (found.sum(axis=1) * np.arange(found.shape[0])).sum() / total,
        (found.sum(axis=0) * np.arange(found.shape[1])).sum() / total,
    ]
    assert centre == pytest.approx(crop.to_input([[y, x]])[0], abs=0.1)
    difference = np.abs(found - seen(ImageSource(image), crop))
    assert difference.mean() < 2
    assert difference.max() < 60  # at the edge, drawn a little softer


def test_the_last_pixels_of_a_level_that_was_rounded_down():
    image = np.tile(np.arange(401) // 2, (401, 1)).astype(np.uint8)
    source = pyramid(image, 2)
    assert source.levels[0].shape == (200, 200)
    box = Box(0, 145, 256, 401)
    crop = Crop(-1, -1, -1, box, box, (128, 128))
    full, level = seen(ImageSource(image), crop), seen(source, crop)
    assert np.abs(full - level).max() <= 1


@pytest.mark.parametrize(
    ("scale", "level"), [(1.0, 0), (0.6, 0), (0.5, 1), (0.3, 1), (0.2501, 2), (0.1, 2)]
)
def test_only_the_coarsest_level_that_suffices_is_read(scale, level):
    image = np.zeros((1200, 1200), np.uint8)
    arrays = [Counted(image), Counted(averaged(image, 2)), Counted(averaged(image, 4))]
    source = ImageSource(arrays[0], levels=tuple(arrays[1:]))
    grid = CropGrid(image.shape, size=SIZE, halo=16, scale=scale)
    seen(source, grid[0])
    n_read = [each.n_read for each in arrays]
    assert n_read.count(0) == 2
    side = min(int(SIZE / scale), 1200)
    assert n_read[level] == (-(-side // 2**level)) ** 2


def test_a_view_of_a_large_object_reads_a_level(tiny_sam):
    image = np.zeros((1200, 1200), np.uint8)
    full, level = Counted(image), Counted(averaged(image, 8))
    source = ImageSource(full, levels=(level,))
    grid = CropGrid(image.shape, size=SIZE, halo=16, scale=1.0)
    embedding = open_plane(source, tiny_sam, grid=grid, intensity=GRAY)
    embedding.of(embedding.crop_around(Box(50, 50, 1150, 1150)))
    assert (full.n_read, level.n_read) == (0, 150 * 150)


def test_the_key_says_which_level_was_read(tiny_sam):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (512, 512), dtype=np.uint8)
    grid = CropGrid(image.shape, size=SIZE, halo=16, scale=0.25)
    cache = EmbeddingCache()
    for source in (ImageSource(image), pyramid(image, 2), pyramid(image, 2, 4)):
        embedding = open_plane(source, tiny_sam, cache=cache, grid=grid, intensity=GRAY)
        embedding.of(embedding.grid[0])
    keys = [entry.key for entry in cache.entries()]
    assert sorted(key["level"] for key in keys) == [0, 1, 2]
    shapes = {key["level"]: key["image"]["shape"] for key in keys}
    assert shapes == {0: [512, 512], 1: [256, 256], 2: [128, 128]}
    # a level with other pixels is another image
    other = ImageSource(image, levels=(255 - averaged(image, 4),))
    open_plane(other, tiny_sam, cache=cache, grid=grid, intensity=GRAY)
    assert len(cache.entries()) == 4


def test_a_pyramidal_tiff_is_read_at_a_level(tmp_path):
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (512, 640), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tif:
        options = {"tile": (64, 64), "photometric": "minisblack"}
        tif.write(image, subifds=2, **options)
        tif.write(averaged(image, 2), subfiletype=1, **options)
        tif.write(averaged(image, 4), subfiletype=1, **options)
    source = open_image(tmp_path / "a.tif", pixel_size_um=0.5)
    assert [level.shape for level in source.levels] == [(256, 320), (128, 160)]
    assert source.level(2).pixel_size_um == (2.0, 2.0)
    grid = CropGrid(image.shape, size=SIZE, halo=16, scale=0.25)
    # a scale that a level has: its pixels as they are
    crop = grid[0]
    assert (seen(source, crop) == averaged(image, 4)[:, :128]).all()
    assert open_image(tmp_path / "a.tif", level=1).level(1).plane_shape == (128, 160)
    assert open_image(tmp_path / "a.tif", level=-1).levels == ()


def test_a_pyramid_over_z_has_no_levels_to_read(tmp_path):
    stack = np.zeros((4, 64, 64), np.uint8)
    half, flat = np.zeros((2, 32, 32), np.uint8), np.zeros((4, 32, 32), np.uint8)
    assert fitting_levels(stack, [half, flat], "ZYX") == (flat,)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    for name, array in (("0", stack), ("1", half), ("2", flat)):
        root.create_array(name, data=array)
    root.attrs["multiscales"] = [
        {
            "version": "0.4",
            "axes": [{"name": n, "type": "space"} for n in "zyx"],
            "datasets": [{"path": name} for name in "012"],
        }
    ]
    (level,) = open_image(tmp_path / "a.zarr").levels
    assert level.shape == (4, 32, 32)
    with pytest.raises(InputError, match="differ in height and width only"):
        ImageSource(stack, "ZYX", levels=(half,))
    with pytest.raises(InputError, match="levels are 0 to 0"):
        ImageSource(stack, "ZYX").level(1)
