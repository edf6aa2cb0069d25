"""Zarr and OME-Zarr, written with zarr and metadata as the specification says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
import zarr

from napari_sam.errors import FormatError, InputError, NapariSamWarning
from napari_sam.readers import list_images, list_levels, open_image
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 60_000, (100, 130), dtype=np.uint16)
FULL = RNG.integers(0, 60_000, (2, 3, 101, 130), dtype=np.uint16)
Version = Literal["0.4", "0.5"]


def write_attributes(
    group: zarr.Group, version: Version, content: dict[str, Any]
) -> None:
    """Put metadata where this version of OME-Zarr wants them."""
    if version == "0.5":
        content = {"ome": {"version": version, **content}}
    group.attrs.update(content)


def new_group(path: Path, version: Version) -> zarr.Group:
    return zarr.open_group(path, mode="a", zarr_format=3 if version == "0.5" else 2)


def write_image(path: Path, version: Version, **changes: Any) -> None:
    """Write a CZYX image of two levels, the second of every other pixel."""
    group = new_group(path, version)
    for name, data in (("s0", FULL), ("s1", FULL[..., :-1:2, ::2])):
        array = group.create_array(
            name, shape=data.shape, dtype=data.dtype, chunks=(1, 1, 32, 32)
        )
        array[...] = data
    space = {"type": "space", "unit": "micrometer"}
    multiscale = {
        "version": version,
        "axes": [
            {"name": "c", "type": "channel"},
            {"name": "z", **space},
            {"name": "y", **space},
            {"name": "x", **space},
        ],
        "datasets": [
            {
                "path": f"s{i}",
                "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 2, 0.3 * 2**i, 0.2 * 2**i]}
                ],
            }
            for i in range(2)
        ],
    }
    channels = [
        {"label": "DAPI", "color": "FFFFFF"},
        {"label": "GFP", "color": "00FF00"},
    ]
    content = {"multiscales": [multiscale | changes], "omero": {"channels": channels}}
    write_attributes(group, version, content)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_reads_an_image_with_levels_scale_and_channels(
    tmp_path: Path, version: Version
) -> None:
    path = tmp_path / "cells.ome.zarr"
    write_image(path, version)
    image = open_image(path)
    assert (image.axes, image.name) == ("CZYX", "cells")
    assert image.channel_names == ("DAPI", "GFP")
    assert image.pixel_size_um == pytest.approx((0.3, 0.2))
    assert image.z_step_um == 2
    box = Box(10, 20, 60, 90)
    expected = np.moveaxis(FULL[:, 2, 10:60, 20:90], 0, -1)
    np.testing.assert_array_equal(image.read(box, (0, 2)), expected)

    assert list_levels(path) == ((101, 130), (50, 65))
    assert list_images(path) == ("0",)
    small = open_image(path, level=1)
    assert small.pixel_size_um == pytest.approx((0.6, 0.4))
    np.testing.assert_array_equal(small.read()[..., 1], FULL[1, 0, :-1:2, ::2])


def test_multiplies_the_scale_of_image_and_level(tmp_path: Path) -> None:
    transformations = [{"type": "scale", "scale": [1, 10, 10, 10]}]
    write_image(tmp_path / "a.zarr", "0.4", coordinateTransformations=transformations)
    image = open_image(tmp_path / "a.zarr", level=1)
    assert image.pixel_size_um == pytest.approx((6, 4))
    assert image.z_step_um == 20


def test_converts_units_and_asks_for_one(tmp_path: Path) -> None:
    for unit, expected in (("nanometer", 0.0003), (None, None), ("pixel", None)):
        path = tmp_path / f"{unit}.zarr"
        axes: list[dict[str, Any]] = [{"name": name} for name in "czyx"]
        for axis in axes[1:] if unit else ():
            axis["unit"] = unit
        write_image(path, "0.4", axes=axes)
        size = open_image(path).pixel_size_um
        assert size == (None if expected is None else pytest.approx((0.0003, 0.0002)))


def test_reads_old_versions_without_axes(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", shape=(1, 2, 1, 40, 50), dtype="u1")
    group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    assert open_image(path).axes == "TCZYX"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_reads_a_plain_array(tmp_path: Path, zarr_format: Literal[2, 3]) -> None:
    path = tmp_path / "Größe 5 µm" / "a.zarr"
    array = zarr.create_array(
        path,
        shape=PLANE.shape,
        dtype=PLANE.dtype,
        chunks=(32, 32),
        zarr_format=zarr_format,
    )
    array[...] = PLANE
    image = open_image(path)
    assert (image.axes, image.name) == ("YX", "a")
    np.testing.assert_array_equal(image.read(Box(5, 6, 70, 80)), PLANE[5:70, 6:80])


def test_reads_only_the_chunks_that_the_box_touches(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    array = zarr.create_array(
        path, shape=PLANE.shape, dtype=PLANE.dtype, chunks=(32, 32)
    )
    array[...] = PLANE
    for chunk in (path / "c").glob("*/*"):
        if chunk != path / "c" / "1" / "2":
            chunk.write_bytes(b"damaged")
    image = open_image(path)
    np.testing.assert_array_equal(image.read(Box(32, 64, 64, 96)), PLANE[32:64, 64:96])
    with pytest.raises(FormatError, match=r"a\.zarr cannot be decoded"):
        image.read()


def test_takes_axes_from_names_of_dimensions(tmp_path: Path) -> None:
    zarr.create_array(
        tmp_path / "v3.zarr",
        shape=(2, 9, 8, 3),
        dtype="u1",
        dimension_names=["time", "y", "x", "channel"],
    )
    array = zarr.create_array(
        tmp_path / "v2.zarr", shape=(3, 8, 9), dtype="u1", zarr_format=2
    )
    array.attrs["_ARRAY_DIMENSIONS"] = ["c", "y", "x"]
    assert open_image(tmp_path / "v3.zarr").axes == "TYXC"
    assert open_image(tmp_path / "v2.zarr").axes == "CYX"


def test_lists_a_group_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = zarr.open_group(path, mode="w")
    for name in ("raw", "mask"):
        group.create_array(name, shape=(40, 50), dtype="u2")[...] = len(name)
    assert list_images(path) == ("mask", "raw")
    assert open_image(path, image="raw").read().max() == 3
    assert open_image(path / "raw").read().max() == 3
    with pytest.warns(NapariSamWarning, match=r"2 images \(mask, raw\)"):
        assert open_image(path).read().max() == 4
    with pytest.raises(InputError, match=r"no image 'labels' .* holds mask, raw"):
        open_image(path, image="labels")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_lists_wells_and_fields_of_a_plate(tmp_path: Path, version: Version) -> None:
    path = tmp_path / "plate.zarr"
    plate = new_group(path, version)
    wells = [{"path": name} for name in ("A/1", "B/2", "H/12")]  # H/12: not yet there
    write_attributes(plate, version, {"plate": {"wells": wells}})
    for name, n_fields in (("A/1", 2), ("B/2", 1)):
        well = plate.require_group(name)
        images = [{"path": str(field)} for field in range(n_fields)]
        write_attributes(well, version, {"well": {"images": images}})
        for field in range(n_fields):
            write_image(path / name / str(field), version)
    assert list_images(path) == ("A/1/0", "A/1/1", "B/2/0")
    assert list_images(path / "A" / "1") == ("0", "1")
    image = open_image(path, image="B/2/0")
    assert (image.name, image.pixel_size_um) == (
        "plate B/2/0",
        pytest.approx((0.3, 0.2)),
    )


def test_lists_a_collection_of_bioformats2raw_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    group = new_group(path, "0.4")
    group.attrs["bioformats2raw.layout"] = 3
    for name in ("0", "1", "10", "2"):
        write_image(path / name, "0.4")
    assert list_images(path) == ("0", "1", "2", "10")
    new_group(path / "OME", "0.4").attrs["series"] = ["1", "0"]
    assert list_images(path) == ("1", "0")
    write_image(path / "0" / "labels" / "nuclei", "0.4")
    new_group(path / "0" / "labels", "0.4").attrs["labels"] = ["nuclei"]
    assert list_images(path / "0" / "labels") == ("nuclei",)


def test_a_group_without_images_says_what_it_holds(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_group("tables")
    with pytest.raises(FormatError, match=r"without images; .*\['tables'\]"):
        open_image(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.filterwarnings("ignore:Object at s1 is not recognized")  # zarr's own
@pytest.mark.parametrize("fault", ["not json", "no level", "no datasets"])
def test_damaged_metadata_are_named(
    tmp_path: Path, version: Version, fault: str
) -> None:
    path = tmp_path / "a.zarr"
    write_image(path, version)
    if fault == "not json":
        (path / ("zarr.json" if version == "0.5" else ".zattrs")).write_text("{ not")
    elif fault == "no level":
        (path / "s1" / ("zarr.json" if version == "0.5" else ".zarray")).unlink()
    else:
        write_attributes(new_group(path, version), version, {"multiscales": [{}]})
    with pytest.raises(FormatError, match=r"a\.zarr is not a Zarr .* fresh copy"):
        open_image(path)
