"""Labels as OME-TIFF, read back by tifffile and by our own reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
import torch
import zarr
from numpy.testing import assert_array_equal

from napari_sam.errors import FileError, InputError
from napari_sam.readers import open_image
from napari_sam.writers.tiff import save_labels

if TYPE_CHECKING:
    from pathlib import Path

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 70_000, (130, 700), dtype=np.uint32)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (16, 16), (130, 700), (600, 513)])
@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.TIFF"])
def test_a_plane_comes_back(tmp_path: Path, shape: tuple[int, int], name: str) -> None:
    labels = RNG.integers(0, 2**32, shape, dtype=np.uint32)
    path = save_labels(labels, tmp_path / name)
    assert path == tmp_path / name
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        assert (tif.is_ome, page.is_tiled, page.compression.name) == (
            True,
            True,
            "ADOBE_DEFLATE",
        )
        assert tif.series[0].axes == "YX"
        read = tif.asarray()
    assert read.dtype == np.uint32
    assert_array_equal(read, labels)
    assert names(tmp_path) == [name]


@pytest.mark.parametrize(
    ("shape", "axes", "stored"),
    [
        ((3, 20, 30), None, "ZYX"),
        ((3, 20, 30), "tyx", "TYX"),
        ((2, 3, 20, 30), None, "TZYX"),
    ],
)
def test_a_stack_comes_back_with_axes_and_scale(
    tmp_path: Path, shape: tuple[int, ...], axes: str | None, stored: str
) -> None:
    labels = RNG.integers(0, 99, shape)
    path = tmp_path / "Zellen 5 µm.tif"
    save_labels(labels, path, axes=axes, pixel_size_um=(2, 0.5, 0.25))
    image = open_image(path)
    assert image.axes == stored
    assert image.pixel_size_um == pytest.approx((0.5, 0.25))
    assert image.z_step_um == 2
    assert_array_equal(tifffile.imread(path), labels)


def test_the_pixel_size_stands_in_ome_metadata_and_tags(tmp_path: Path) -> None:
    path = save_labels(PLANE, tmp_path / "a.tif", pixel_size_um=(0.5, 0.25))
    with tifffile.TiffFile(path) as tif:
        tags = tif.pages.first.tags
        per_cm = [tags[f"{axis}Resolution"].value for axis in "YX"]
        assert [n / d for n, d in per_cm] == [20_000, 40_000]
        assert tags["ResolutionUnit"].value == 3
        assert tif.ome_metadata is not None
        pixels = ElementTree.fromstring(tif.ome_metadata).find(".//{*}Pixels")
    assert pixels is not None
    found = {key: value for key, value in pixels.items() if "Physical" in key}
    assert found == {
        "PhysicalSizeX": "0.25",
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": "0.5",
        "PhysicalSizeYUnit": "µm",
    }


def test_without_pixel_size_none_is_made_up(tmp_path: Path) -> None:
    assert open_image(save_labels(PLANE, tmp_path / "a.tif")).pixel_size_um is None


def test_lazy_labels_are_read_band_by_band(tmp_path: Path) -> None:
    from dask.array import from_array

    labels = np.kron(PLANE, np.ones((5, 1), np.uint32))
    for i, lazy in enumerate(
        (zarr.array(labels, chunks=(64, 64)), from_array(labels, chunks=100))
    ):
        path = save_labels(lazy, tmp_path / f"{i}.tif")
        assert_array_equal(tifffile.imread(path), labels)


def test_16_bit_on_demand_if_ids_fit(tmp_path: Path) -> None:
    path = save_labels(PLANE % 65_536, tmp_path / "a.tif", dtype="uint16")
    assert tifffile.imread(path).dtype == np.uint16
    with pytest.raises(InputError, match=r"0 to 69999 do not fit in uint16; .*uint32"):
        save_labels(np.array([[0, 69_999]]), tmp_path / "b.tif", dtype="uint16")
    assert names(tmp_path) == ["a.tif"]


def test_masks_are_labels_of_one_object(tmp_path: Path) -> None:
    path = save_labels(PLANE > 1000, tmp_path / "a.tif")
    assert_array_equal(tifffile.imread(path), PLANE > 1000)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (np.array([[-1, 0]]), {}, "ids from -1 to 0 do not fit in uint32"),
        (np.array([[2**32]]), {}, "not fit in uint32; .* or save as OME-Zarr"),
        (np.zeros((4, 4)), {}, "labels of type float64; give integers"),
        ([[0.5, 1]], {}, "labels of type float64; give integers"),
        (torch.ones(4, 4), {}, "labels of type torch.float32; give integers"),
        (np.zeros((4, 0), int), {}, "have no pixels"),
        (np.zeros(4, int), {}, r"axes '' for labels of shape \(4,\)"),
        (np.zeros((2, 4, 4), int), {"axes": "YXZ"}, "the last two YX"),
        (np.zeros((4, 4), int), {"axes": "ZYX"}, "axes 'ZYX' for labels"),
        (np.zeros((4, 4), int), {"pixel_size_um": 0}, "one number above 0"),
        (np.zeros((4, 4), int), {"pixel_size_um": (1, 2, 3, 4)}, "or .y, x."),
    ],
)
def test_refuses_what_are_no_labels(
    tmp_path: Path, labels: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        save_labels(labels, tmp_path / "a.tif", **options)
    assert names(tmp_path) == []


def test_refuses_another_ending_and_an_existing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.png; give a name that ends in \.tif"):
        save_labels(PLANE, tmp_path / "a.png")
    path = save_labels(PLANE, tmp_path / "a.tif")
    with pytest.raises(FileError, match="exists already"):
        save_labels(PLANE + 1, path)
    assert_array_equal(tifffile.imread(path), PLANE)
    save_labels(PLANE + 1, path, overwrite=True)
    assert_array_equal(tifffile.imread(path), PLANE + 1)


def test_large_labels_become_bigtiff(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, is_bigtiff in ((PLANE.nbytes + 1, False), (PLANE.nbytes, True)):
        monkeypatch.setattr("napari_sam.writers.tiff._BIGTIFF_BYTES", limit)
        path = save_labels(PLANE, tmp_path / f"{limit}.tif")
        with tifffile.TiffFile(path) as tif:
            assert tif.is_bigtiff == is_bigtiff
            assert_array_equal(tif.asarray(), PLANE)
