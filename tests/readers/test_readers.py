"""Arrays, pictures, overrides, and what is said about files that are not images."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
import zarr
from numpy.testing import assert_array_equal
from PIL import Image

from napari_sam.errors import FileError, FormatError, InputError, MissingFileError
from napari_sam.readers import list_images, list_levels, open_image
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 255, (40, 50, 3), dtype=np.uint8)
GRAY16 = RNG.integers(0, 60_000, (40, 50), dtype=np.uint16)


class Named(np.ndarray):
    """An array with names of dimensions, as those of xarray have."""

    dims = ("time", "x", "y")


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((40, 50), "YX"),
        ((7, 40, 50), "ZYX"),
        ((40, 50, 3), "YXS"),
        ((40, 50, 4), "YXS"),
        ((7, 40, 50, 3), "ZYXS"),
        ((2, 3, 4, 40, 50), "TZCYX"),
    ],
)
def test_guesses_the_axes_of_an_array(shape: tuple[int, ...], axes: str) -> None:
    assert open_image(np.zeros(shape, np.uint8)).axes == axes


def test_asks_for_axes_that_it_cannot_guess() -> None:
    with pytest.raises(InputError, match=r"4 axes .*\(7, 2, 40, 50\).* axes='ZCYX'"):
        open_image(np.zeros((7, 2, 40, 50)))
    with pytest.raises(InputError, match="1 axes"):
        open_image(np.zeros(50))
    assert open_image(np.zeros((7, 2, 40, 50)), axes="TCYX").n_channels == 2


def test_takes_arrays_of_all_kinds_as_they_are() -> None:
    from dask.array import from_array

    box = Box(3, 4, 20, 30)
    for array in (GRAY16, zarr.array(GRAY16), from_array(GRAY16, chunks=16)):
        image = open_image(array)
        assert image.array is array
        assert_array_equal(image.read(box), GRAY16[3:20, 4:30])
    assert open_image(np.zeros((2, 9, 8)).view(Named)).axes == "TXY"


@pytest.mark.parametrize("thing", [None, 5, [[1, 2], [3, 4]], torch.zeros(4, 5)])
def test_refuses_what_is_neither_path_nor_array(thing: Any) -> None:
    with pytest.raises(InputError, match=r"cannot open .* give a path, or an array"):
        open_image(thing)


def test_what_the_user_says_overrides_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "spacing": 3, "unit": "um"}
    tifffile.imwrite(
        path, np.zeros((2, 9, 8), np.uint8), imagej=True, metadata=metadata
    )
    half = np.float32(0.5)
    image = open_image(path, axes="cyx", channel_names=["a", "b"], pixel_size_um=half)
    assert (image.axes, image.channel_names) == ("CYX", ("a", "b"))
    assert (image.pixel_size_um, image.z_step_um) == ((0.5, 0.5), 3)
    image = open_image(image, axes="TYX", channel_names=(), pixel_size_um=(4, 0.2, 0.1))
    assert (image.axes, image.pixel_size_um, image.z_step_um) == ("TYX", (0.2, 0.1), 4)
    with pytest.raises(InputError, match="axes 'YX' for an array of shape"):
        open_image(path, axes="YX")
    with pytest.raises(InputError, match=r"one number above 0, or \(y, x\)"):
        open_image(path, pixel_size_um=(1, 2, 3, 4))
    with pytest.raises(InputError, match="above 0"):
        open_image(path, pixel_size_um=0)


@pytest.mark.parametrize(
    ("mode", "name", "axes"),
    [
        ("RGB", "a.png", "YXS"),
        ("RGBA", "a.png", "YXS"),
        ("L", "a.png", "YX"),
        ("LA", "a.png", "YXS"),
        ("1", "a.png", "YX"),
        ("P", "a.png", "YXS"),
        ("RGB", "a.bmp", "YXS"),
        ("L", "a.jpg", "YX"),
        ("CMYK", "a.jpg", "YXS"),
    ],
)
def test_reads_pictures(tmp_path: Path, mode: str, name: str, axes: str) -> None:
    picture = Image.fromarray(RGB).convert(mode)
    picture.save(tmp_path / name)
    with Image.open(tmp_path / name) as decoded:
        expected = np.asarray(decoded.convert("RGB" if axes == "YXS" else "L"))
    image = open_image(tmp_path / name)
    assert image.axes == axes
    pixels = image.read()
    if mode == "LA":
        expected = expected[..., :1]
    assert_array_equal(pixels, expected)


def test_reads_16_bit_png_and_npy(tmp_path: Path) -> None:
    Image.fromarray(GRAY16).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", GRAY16)
    for name in ("a.png", "a.npy"):
        image = open_image(tmp_path / name)
        assert image.array.dtype == np.uint16
        assert_array_equal(image.read(Box(3, 4, 20, 30)), GRAY16[3:20, 4:30])


def test_opens_by_content_whatever_the_name(tmp_path: Path) -> None:
    folder = tmp_path / "Zellen, 5 µm, 細胞"
    folder.mkdir()
    tifffile.imwrite(folder / "a b.ome.tif", GRAY16, metadata={"axes": "YX"})
    (folder / "a b.ome.tif").rename(folder / "no ending")
    assert_array_equal(open_image(str(folder / "no ending")).read(), GRAY16)
    Image.fromarray(RGB).save(folder / "png.tif", format="PNG")
    assert_array_equal(open_image(folder / "png.tif").read(), RGB)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for open_it in (open_image, list_images, list_levels):
        with pytest.raises(MissingFileError, match=r"nothing\.tif: no such file"):
            open_it(tmp_path / "nothing.tif")
    assert issubclass(MissingFileError, FileNotFoundError)


def test_a_file_that_is_no_folder_cannot_hold_files(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(FileError, match="cannot read"):
        open_image(tmp_path / "a" / "b.tif")


def test_a_folder_without_zarr_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a folder and no Zarr; give a file"):
        open_image(tmp_path)


@pytest.mark.parametrize("content", [b"hello", b"\x89PNG", b"\xff\xd8\xff"])
def test_a_file_of_no_known_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(FormatError, match=r"a\.tif .* convert the file to OME-TIFF"):
        open_image(tmp_path / "a.tif")


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / "none.tif").touch()
    with pytest.raises(FormatError, match="is empty, 0 bytes"):
        open_image(tmp_path / "none.tif")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.npy"])
def test_a_truncated_picture_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    np.save(path, RGB) if name == "a.npy" else Image.fromarray(RGB).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(FormatError, match="cannot be decoded"):
        open_image(path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(FormatError, match="cannot be decoded"):
        open_image(tmp_path / "a.npy")


@pytest.mark.skipif(
    importlib.util.find_spec("bioio_imageio") is None, reason="bioio is not installed"
)
def test_other_formats_go_through_bioio(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.gif")
    image = open_image(tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        expected = np.asarray(picture.convert("RGB"))
    assert_array_equal(image.read(Box(3, 4, 20, 30)), expected[3:20, 4:30])
