"""Every format of the table: one call, the same objects, nothing left behind."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.testing import assert_array_equal
from PIL import Image

from napari_sam.errors import FileError, InputError
from napari_sam.images import ImageSource
from napari_sam.writers.formats import FORMATS, Format, find_format
from napari_sam.writers.measurements import (
    columns_of,
    measure,
    measure_objects,
    save_measurements,
)
from napari_sam.writers.picture import save_outlines

if TYPE_CHECKING:
    from pathlib import Path

every_format = pytest.mark.parametrize(
    "each", FORMATS.values(), ids=lambda each: each.name
)


@every_format
def test_writes_once_and_leaves_nothing_behind(
    tmp_path: Path, scene: Any, each: Format
) -> None:
    path = tmp_path / f"a{each.ending}"
    assert each.ending.endswith(each.endings)
    options = {"pixel_size_um": 0.5, "image": scene * 0.5}
    assert each.write(zarr.array(scene, chunks=64), path, **options) == path
    with pytest.raises(FileError, match="exists already"):
        each.write(scene, path, **options)
    each.write(scene, path, overwrite=True)
    with pytest.raises(InputError, match=r"object ids? .*-1"):
        each.write(np.array([[-1]]), tmp_path / f"b{each.ending}")
    with pytest.raises(InputError, match="give a name that ends in"):
        each.write(scene, tmp_path / "a.xyz")
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@every_format
def test_takes_stacks_or_says_so(tmp_path: Path, scene: Any, each: Format) -> None:
    path = tmp_path / f"a{each.ending}"
    if each.takes_stacks:
        each.write(np.stack([scene, scene]), path)
        assert path.exists()
    else:
        with pytest.raises(InputError, match="holds one plane"):
            each.write(np.stack([scene, scene]), path)


def test_an_unknown_format_is_answered_with_all() -> None:
    with pytest.raises(InputError, match="choose from tiff, ome-zarr, geojson"):
        find_format("gif")


@pytest.mark.usefixtures("small_windows")
def test_objects_over_many_windows_are_measured_like_the_plane(scene: Any) -> None:
    image = np.random.default_rng(0).normal(100, 9, (*scene.shape, 2))
    source = ImageSource(image, "YXC", channel_names=("DAPI", "GFP"))
    options: Any = {"pixel_size_um": (3, 0.5, 0.5)}
    whole = measure(scene, image, channel_names=("DAPI", "GFP"), **options)
    found = measure_objects(scene, source, **options)
    assert list(found) == list(whole)
    for name, column in whole.items():
        np.testing.assert_allclose(found[name], column, rtol=1e-9, atol=1e-6)


def test_a_stack_is_measured_plane_by_plane(scene: Any) -> None:
    stack = np.stack([[scene, scene * 0], [scene[::-1], scene]])
    found = measure_objects(stack)
    plane = measure(scene)
    n_objects = len(plane["object"])
    assert list(found)[:3] == ["object", "frame", "slice"]
    assert found["frame"].tolist() == [0] * n_objects + [1] * 2 * n_objects
    assert found["slice"].tolist() == [0] * 2 * n_objects + [1] * n_objects
    assert_array_equal(found["y"][2 * n_objects :], plane["y"])


def test_without_objects_a_table_has_its_columns(scene: Any) -> None:
    found = measure_objects(scene * 0, np.zeros((*scene.shape, 2)), pixel_size_um=1)
    expected = measure(scene, np.zeros((*scene.shape, 2)), pixel_size_um=1)
    assert list(found) == list(expected)
    assert {len(column) for column in found.values()} == {0}


def test_parquet_holds_the_table_in_full(tmp_path: Path, scene: Any) -> None:
    from pyarrow import parquet

    table = measure(scene)
    table |= columns_of({"score": {7: 1 / 3}}, table["object"])
    read = parquet.read_table(save_measurements(table, tmp_path / "a.parquet"))
    assert read.column_names == list(table)
    for name, column in table.items():
        assert_array_equal(read[name].to_numpy(), column)


def test_tables_of_a_format_are_those_of_measure(tmp_path: Path, scene: Any) -> None:
    image = np.ones(scene.shape)
    path = FORMATS["csv"].write(scene, tmp_path / "a.csv", image=image)
    other = save_measurements(measure(scene, image), tmp_path / "b.csv")
    with path.open(newline="") as a, other.open(newline="") as b:
        assert list(csv.reader(a)) == list(csv.reader(b))


def test_labels_that_are_a_source_become_tiff(tmp_path: Path, scene: Any) -> None:
    stack = np.stack([scene, scene[::-1]])
    source = ImageSource(stack, "TYX", pixel_size_um=(0.5, 0.25))
    path = FORMATS["tiff"].write(source, tmp_path / "a.tif")
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "TYX"
        assert_array_equal(tif.asarray(), stack)


@pytest.mark.parametrize("has_image", [True, False])
def test_a_large_plane_is_shrunk_as_it_is_read(
    tmp_path: Path, scene: Any, has_image: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam.writers.picture.MAX_SIDE", 100)
    monkeypatch.setattr("napari_sam.writers.picture._BAND_PIXELS", 900)
    rgb = ImageSource(np.full((*scene.shape, 3), 200, np.uint8), "YXS")
    image = rgb if has_image else None
    picture = save_outlines(scene, tmp_path / "a.png", image=image)
    small = scene[1:150:3, 1:219:3]
    large = np.asarray(Image.open(picture))
    zoom = large.shape[0] // small.shape[0]
    assert large.shape[:2] == (small.shape[0] * zoom, small.shape[1] * zoom)
    background = large[zoom * 45 : zoom * 49, zoom * 50 : zoom * 60]
    assert (background == (200 if has_image else 0)).all()


@pytest.mark.parametrize("shape", [(1, 350), (350, 1), (2, 101)])
def test_a_strip_is_shrunk_to_a_line(
    tmp_path: Path, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam.writers.picture.MAX_SIDE", 100)
    image = ImageSource(np.full((*shape, 3), 200, np.uint8), "YXS")
    picture = save_outlines(np.zeros(shape, np.uint32), tmp_path / "a.png", image=image)
    factor = -(-max(shape) // 100)
    drawn = np.asarray(Image.open(picture))
    small = tuple(max(n // factor, 1) for n in shape)
    assert drawn.shape[0] * small[1] == drawn.shape[1] * small[0]
    assert (drawn == 200).all()


def test_places_far_out_keep_their_decimals(tmp_path: Path) -> None:
    labels = np.zeros((2, 12_350), np.uint8)
    labels[0, 12_345:12_347] = labels[1, 12_346] = 1
    path = FORMATS["csv"].write(labels, tmp_path / "a.csv")
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["x"]) == pytest.approx(12_345 + 2 / 3, abs=1e-4)
