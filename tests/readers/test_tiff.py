"""TIFF in all its dialects, written by tifffile, which is also the oracle."""

from __future__ import annotations

import gc
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sam.errors import FormatError, InputError, NapariSamWarning
from napari_sam.readers import list_images, list_levels, open_image
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 60_000, (150, 210), dtype=np.uint16)
STACK = RNG.integers(0, 255, (3, 2, 4, 40, 50), dtype=np.uint8)
RGB = RNG.integers(0, 255, (60, 70, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bigtiff": True},
        {"byteorder": ">"},
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
        {"tile": (32, 48)},
        {"tile": (32, 48), "compression": "zlib", "byteorder": ">", "bigtiff": True},
    ],
    ids=str,
)
def test_reads_the_pixels_of_a_box(tmp_path: Path, options: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PLANE, **options)
    image = open_image(tmp_path / "a.tif")
    assert (image.axes, image.name, image.pixel_size_um) == ("YX", "a", None)
    assert image.path == tmp_path / "a.tif"
    pixels = image.read(Box(20, 30, 70, 100))
    np.testing.assert_array_equal(pixels, PLANE[20:70, 30:100])
    assert pixels.dtype == np.uint16
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(image.read(), PLANE)


def test_decodes_only_the_tiles_that_the_box_touches(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANE, tile=(32, 48), compression="zlib")
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    # 5 columns of tiles; rows 32 to 64, columns 48 to 144 are tiles 6 and 7
    with path.open("rb+") as file:
        for number, (offset, count) in enumerate(places):
            if number not in (6, 7):
                file.seek(offset)
                file.write(bytes(count))
    image = open_image(path)
    np.testing.assert_array_equal(
        image.read(Box(32, 48, 64, 144)), PLANE[32:64, 48:144]
    )
    with pytest.raises(FormatError, match=r"a\.tif cannot be decoded .* damaged"):
        image.read()


def test_maps_contiguous_pixels_into_memory(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True)
    image: Any = open_image(tmp_path / "a.tif")
    assert isinstance(image.array.array, np.memmap)
    np.testing.assert_array_equal(image.read(plane=(1, 1))[..., 2], STACK[1, 1, 2])


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m", "microns"])
def test_reads_an_imagej_hyperstack(tmp_path: Path, unit: str) -> None:
    metadata = {"axes": "TZCYX", "unit": unit, "spacing": 1.5}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, imagej=True, resolution=(4.0, 2.0), metadata=metadata)
    image = open_image(path)
    assert image.axes == "TZCYX"
    assert image.shape == (3, 2, 40, 50)
    assert image.n_channels == 4
    assert image.pixel_size_um == (0.5, 0.25)
    assert image.z_step_um == 1.5
    box = Box(3, 5, 20, 30)
    expected = np.moveaxis(STACK[2, 1, :, 3:20, 5:30], 0, -1)
    np.testing.assert_array_equal(image.read(box, (2, 1)), expected)


def test_imagej_without_a_unit_has_no_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(1, 1))
    image = open_image(tmp_path / "a.tif")
    assert image.pixel_size_um is None
    assert image.z_step_um is None


def test_reads_ome_metadata(tmp_path: Path) -> None:
    metadata = {
        "axes": "CZYX",
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 2,
        "Channel": {"Name": ["DAPI", "GFP", "Actin"]},
    }
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, STACK[:, :, 0], metadata=metadata, tile=(16, 16))
    image = open_image(path)
    assert (image.axes, image.name) == ("CZYX", "cells")
    assert image.channel_names == ("DAPI", "GFP", "Actin")
    assert image.pixel_size_um == pytest.approx((0.5, 0.25))
    assert image.z_step_um == 2
    np.testing.assert_array_equal(image.read(plane=(0, 1))[..., 2], STACK[2, 1, 0])


def test_reads_an_ome_tiff_of_several_files(tmp_path: Path) -> None:
    plane = (
        '<TiffData FirstZ="{z}" IFD="0"><UUID FileName="{name}">{uuid}</UUID>'
        "</TiffData>"
    )
    uuids = ["urn:uuid:0000", "urn:uuid:0001"]
    names = ["z0.ome.tif", "z1.ome.tif"]
    parts = "".join(plane.format(z=z, name=names[z], uuid=uuids[z]) for z in range(2))
    for z in range(2):
        xml = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuids[z]}"><Image ID="Image:0"><Pixels ID="Pixels:0" '
            'DimensionOrder="XYZCT" Type="uint16" SizeX="210" SizeY="150" SizeZ="2" '
            f'SizeC="1" SizeT="1" PhysicalSizeX="2" PhysicalSizeY="2">{parts}'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(tmp_path / names[z], PLANE + z, description=xml, metadata=None)
    image = open_image(tmp_path / "z0.ome.tif")
    assert (image.axes, image.pixel_size_um) == ("ZYX", (2.0, 2.0))
    np.testing.assert_array_equal(image.read(plane=(0, 1)), PLANE + 1)


def test_reads_the_levels_of_a_pyramid(tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    full = RNG.integers(0, 255, (201, 322), dtype=np.uint8)
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        options: Any = {"tile": (64, 64), "compression": "zlib"}
        size = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        tif.write(full, subifds=2, metadata={"axes": "YX", **size}, **options)
        tif.write(full[:-1:2, ::2], subfiletype=1, **options)
        tif.write(full[:-1:4, ::4], subfiletype=1, **options)
    assert list_levels(path) == ((201, 322), (100, 161), (50, 81))
    for level, factor in ((0, 1), (1, 2), (2, 4), (-1, 4)):
        image = open_image(path, level=level)
        assert image.pixel_size_um == (0.5 * factor, 0.5 * factor)
        whole = full[: 201 // factor * factor : factor, ::factor]
        np.testing.assert_array_equal(image.read(), whole)
    with pytest.raises(InputError, match=r"level 3 .* levels are 0 to 2"):
        open_image(path, level=3)


@pytest.mark.parametrize("options", [{}, {"tile": (16, 32), "compression": "zlib"}])
def test_reads_rgb_interleaved_and_planar(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    planar = np.moveaxis(RGB, -1, 0)
    rgba = np.concatenate([RGB, np.full_like(RGB[..., :1], 255)], axis=2)
    for name, data, axes, order in (
        ("contig", RGB, "YXS", "contig"),
        ("separate", planar, "SYX", "separate"),
        ("alpha", rgba, "YXS", "contig"),
    ):
        path = tmp_path / f"{name}.tif"
        extra = {"extrasamples": ["unassalpha"]} if name == "alpha" else {}
        tifffile.imwrite(
            path, data, photometric="rgb", planarconfig=order, **extra, **options
        )
        image = open_image(path)
        assert (image.axes, image.is_rgb) == (axes, True)
        np.testing.assert_array_equal(image.read(Box(5, 6, 50, 60)), RGB[5:50, 6:60])


def test_pages_without_axes_are_slices_unless_told_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as tif:
        for plane in STACK[:, 0, 0]:
            tif.write(plane, metadata=None, contiguous=False)
    assert open_image(path).axes == "ZYX"
    film = open_image(path, axes="tyx", pixel_size_um=(0.2, 0.1))
    assert (film.shape, film.pixel_size_um) == ((3, 1, 40, 50), (0.2, 0.1))
    np.testing.assert_array_equal(film.read(plane=(2, 0)), STACK[2, 0, 0])


@pytest.mark.parametrize(
    ("resolution", "unit", "expected"),
    [
        ((20_000, 40_000), "CENTIMETER", (0.25, 0.5)),
        ((50_800, 50_800), "INCH", (0.5, 0.5)),
        ((72, 72), "INCH", None),
        ((300, 300), "INCH", None),
        ((20_000, 20_000), "NONE", None),
    ],
)
def test_tells_pixel_size_from_print_resolution(
    tmp_path: Path,
    resolution: tuple[int, int],
    unit: str,
    expected: tuple[float, float] | None,
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANE, resolution=resolution, resolutionunit=unit)
    size = open_image(path).pixel_size_um
    assert size is None if expected is None else size == pytest.approx(expected)


def test_reads_the_scale_of_an_aperio_slide_and_hides_its_thumbnail(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.svs"
    text = "Aperio Image Library v1\r\n70x60 (16x16)|AppMag = 20|MPP = 0.4990|Left = 2"
    with tifffile.TiffWriter(path) as tif:
        tif.write(RGB, tile=(16, 16), description=text, metadata=None)
        tif.write(RGB[::4, ::4], description="Aperio\r\n17x15", metadata=None)
    image = open_image(path)
    assert image.pixel_size_um == (0.499, 0.499)
    np.testing.assert_array_equal(image.read(), RGB)
    assert list_images(path) == ("0",)


def test_a_file_of_several_images_warns_and_lets_choose(tmp_path: Path) -> None:
    path = tmp_path / "positions.tif"
    with tifffile.TiffWriter(path) as tif:
        tif.write(PLANE)
        tif.write(RGB, photometric="rgb")
    assert list_images(path) == ("0", "1")
    with pytest.warns(NapariSamWarning, match=r"2 images \(0, 1\).*image="):
        assert open_image(path).axes == "YX"
    chosen = open_image(path, image=1)
    assert chosen.name == "positions 1"
    np.testing.assert_array_equal(chosen.read(), RGB)
    with pytest.raises(InputError, match=r"no image '2' .* holds 0, 1"):
        open_image(path, image=2)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [4, 8, 100, 300, 0.5, 0.99])
def test_a_truncated_file_is_refused(
    tmp_path: Path, compression: str | None, kept: float
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANE, tile=(32, 32), compression=compression)
    content = path.read_bytes()
    path.write_bytes(content[: kept if kept > 1 else int(len(content) * kept)])
    with pytest.raises(FormatError, match=r"a\.tif .*(damaged|truncated|fresh copy)"):
        open_image(path)


def test_a_truncated_contiguous_stack_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, imagej=True)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(FormatError, match="truncated"):
        open_image(path)


def test_a_missing_codec_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).save(path, compression="tiff_lzw")
    try:
        tifffile.TIFF.DECOMPRESSORS[5]
    except KeyError:
        with pytest.raises(FormatError, match=r"LZW, .* pip install imagecodecs"):
            open_image(path)
    else:
        np.testing.assert_array_equal(open_image(path).read(), RGB)


def test_the_file_is_closed_when_the_image_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANE, tile=(32, 32))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always", ResourceWarning)
        image = open_image(path)
        image.read()
        del image
        gc.collect()
    assert [w for w in seen if str(path) in str(w.message)] == []
