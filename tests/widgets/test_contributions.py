"""Samples, reader and writer as napari calls them; then in a real window."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import zarr
from npe2 import PluginManifest

from napari_sam.errors import FormatError
from napari_sam.readers import open_image
from napari_sam.widgets import contributions
from napari_sam.widgets.contributions import (
    get_reader,
    pixel_size_um,
    read_layers,
    write_labels,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = "napari-sam-microscopy"
RNG = np.random.default_rng(0)


def test_a_small_tiff_is_read_at_once_with_its_scale(tmp_path: Path) -> None:
    stack = RNG.integers(0, 4000, (3, 20, 30)).astype(np.uint16)
    path = tmp_path / "stack.ome.tif"
    sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(path, stack, metadata={"axes": "ZYX", **sizes})
    reader = get_reader(str(path))
    assert reader is not None
    [(data, options, kind)] = reader(str(path))
    assert kind == "image"
    assert isinstance(data, np.ndarray)
    np.testing.assert_array_equal(data, stack)
    assert options["scale"] == (2.0, 0.25, 0.25)
    assert options["units"] == ("um",) * 3
    assert options["axis_labels"] == ("z", "y", "x")


def test_channels_become_layers_with_limits_of_their_own(tmp_path: Path) -> None:
    image = RNG.integers(0, 100, (2, 3, 40, 50)).astype(np.uint16)  # T, C
    image[:, 1] *= 30
    path = tmp_path / "two.ome.tif"
    tifffile.imwrite(path, image[:, :2], metadata={"axes": "TCYX"})
    layers = read_layers(str(path))
    assert [options["colormap"] for _, options, _ in layers] == ["magenta", "green"]
    for channel, (data, options, _) in enumerate(layers):
        np.testing.assert_array_equal(data, image[:, channel])
        assert options["contrast_limits"][1] > 90 * (30 if channel else 1)
    assert layers[0][1]["contrast_limits"][1] < 101


def test_colour_stays_in_one_layer(tmp_path: Path) -> None:
    image = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    path = tmp_path / "colour.tif"
    tifffile.imwrite(path, image, photometric="rgb")
    [(data, options, _)] = read_layers(str(path))
    assert options["rgb"]
    np.testing.assert_array_equal(data, image)


def save_ome_zarr(path: Path, levels: list[np.ndarray[Any, Any]], name: str) -> None:
    """Write OME-Zarr 0.5 by the specification, with a pixel size of 0.5 um."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    datasets = []
    for i, level in enumerate(levels):
        group.create_array(str(i), data=level, chunks=(16, 16))
        scale = {"type": "scale", "scale": [0.5 * 2**i] * 2}
        datasets.append({"path": str(i), "coordinateTransformations": [scale]})
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    multiscale = {"name": name, "axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}


def test_an_ome_zarr_opens_lazily_with_its_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contributions, "_IN_MEMORY_BYTES", 100)
    image = RNG.integers(0, 255, (64, 96)).astype(np.uint8)
    objects = (image > 128).astype(np.uint32) * 7
    path = tmp_path / "plane.ome.zarr"
    save_ome_zarr(path, [image, image[::2, ::2]], "plane")
    save_ome_zarr(path / "labels" / "cells", [objects, objects[::2, ::2]], "cells")
    inner = zarr.open_group(path / "labels", mode="a")
    inner.attrs["ome"] = {"version": "0.5", "labels": ["cells"]}

    (levels, options, kind), (label_levels, label_options, label_kind) = read_layers(
        str(path)
    )
    assert (kind, label_kind) == ("image", "labels")
    assert options["multiscale"]
    assert label_options["name"] == "cells"
    assert options["scale"] == label_options["scale"] == (0.5, 0.5)
    for found, expected in zip(
        (*levels, *label_levels),
        (image, image[::2, ::2], objects, objects[::2, ::2]),
        strict=True,
    ):
        assert not isinstance(found, np.ndarray)
        np.testing.assert_array_equal(np.asarray(found), expected)


def test_a_view_reads_its_part_of_the_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contributions, "_IN_MEMORY_BYTES", 100)
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, np.zeros((512, 512), np.uint8), tile=(64, 64))
    [(data, _, _)] = read_layers(str(path))
    asked = []
    source = open_image(path)
    read = type(source.array).__getitem__

    def counted(self: Any, key: Any) -> Any:
        asked.append(key)
        return read(self, key)

    monkeypatch.setattr(type(source.array), "__getitem__", counted)
    np.asarray(data[100:130, 200:260])
    assert asked == [(slice(100, 130, None), slice(200, 260, None))]


def test_a_large_plane_without_levels_gets_thin_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contributions, "_IN_MEMORY_BYTES", 100)
    monkeypatch.setattr(contributions, "_LARGEST_PLANE", 100)
    monkeypatch.setattr(contributions, "_SMALLEST_LEVEL", 50)
    image = RNG.integers(0, 255, (200, 120)).astype(np.uint8)
    path = tmp_path / "flat.tif"
    tifffile.imwrite(path, image)
    [(levels, options, _)] = read_layers(str(path))
    assert options["multiscale"]
    assert [level.shape for level in levels] == [(200, 120), (100, 60), (50, 30)]
    np.testing.assert_array_equal(np.asarray(levels[2]), image[::4, ::4])


def test_several_files_at_once_are_left_to_napari() -> None:
    assert get_reader(["a.tif", "b.tif"]) is None


def test_a_file_that_is_no_image_says_so(tmp_path: Path) -> None:
    path = tmp_path / "broken.tif"
    path.write_bytes(b"II*\0 and nothing else")
    with pytest.raises(FormatError, match=r"broken\.tif"):
        read_layers(str(path))


def test_multiscale_labels_are_written_at_full_size(tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint32)
    labels[5:20, 10:30] = 70_000
    path = tmp_path / "labels.ome.tif"
    attributes = {"multiscale": True, "scale": (0.5, 0.5), "units": ("micron",) * 2}
    assert write_labels(str(path), [labels, labels[::2, ::2]], attributes) == [
        str(path)
    ]
    opened = open_image(path)
    assert opened.pixel_size_um == (0.5, 0.5)
    np.testing.assert_array_equal(np.asarray(opened.array[:]), labels)


def test_every_ending_in_the_manifest_can_be_written(tmp_path: Path) -> None:
    manifest = PluginManifest.from_file(ROOT / "napari.yaml")
    labels = np.zeros((40, 60), np.uint32)
    labels[5:20, 10:30] = 3
    writers = manifest.contributions.writers or []
    endings = [ending for each in writers for ending in each.filename_extensions]
    assert len(endings) == len(set(endings)) >= 9
    for ending in endings:
        path = tmp_path / f"labels{ending}"
        assert write_labels(str(path), labels, {}) == [str(path)]
        assert path.exists()
    assert write_labels(str(tmp_path / "labels.xyz"), labels, {}) == []


def test_every_command_of_the_manifest_is_there() -> None:
    manifest = PluginManifest.from_file(ROOT / "napari.yaml")
    for command in manifest.contributions.commands or []:
        module, name = str(command.python_name).split(":")
        if module != "napari_sam.widgets.dock":  # needs Qt; opened in test_dock
            assert callable(getattr(import_module(module), name))


def test_pixel_sizes_need_a_unit_of_length() -> None:
    assert pixel_size_um((2, 0.5, 0.5), ("um", "nm", "nm")) == (2, 0.0005, 0.0005)
    assert pixel_size_um((1, 0.5, 0.5), ("pixel", "um", "um")) == (0.5, 0.5)
    assert pixel_size_um((0.5, 0.5), ("pixel", "pixel")) is None
    assert pixel_size_um((0.5, 0.5), None) is None


@pytest.mark.display
def test_samples_reader_and_writer_work_in_a_window(
    make_napari_viewer: Callable[..., napari.Viewer], tmp_path: Path
) -> None:
    viewer = make_napari_viewer()
    for key, shape in {
        "histology": (512, 512, 3),
        "mosaic": (20480, 20480, 3),
        "volume": (24, 256, 256),
        "time_lapse": (20, 256, 256),
    }.items():
        viewer.open_sample(PLUGIN, key)
        [layer] = viewer.layers
        assert (layer.data[0] if layer.multiscale else layer.data).shape == shape
        viewer.layers.clear()

    labels = viewer.add_labels(np.eye(30, dtype=np.uint32), scale=(0.5, 0.5))
    labels.units = ("um", "um")
    path = tmp_path / "saved.ome.tif"
    assert labels.save(str(path), plugin=PLUGIN) == [str(path)]
    viewer.layers.clear()
    [opened] = viewer.open(path, plugin=PLUGIN)
    np.testing.assert_array_equal(opened.data, np.eye(30))
    np.testing.assert_allclose(opened.scale, (0.5, 0.5))


@pytest.mark.parametrize("name", ["cells.labels.tif", "cells.labels.zarr"])
def test_how_objects_were_made_comes_back_with_them(tmp_path: Path, name: str) -> None:
    from napari_sam.engine.records import RECORDS, ObjectRecord
    from napari_sam.widgets.contributions import read_layers, write_labels

    labels = np.zeros((60, 50), np.uint32)
    labels[10:20, 10:30] = 4
    record = ObjectRecord(object_id=4, index=(None, None), points=((15, 20),))
    metadata = {RECORDS: {4: record}}
    path = str(tmp_path / name)
    assert write_labels(path, labels, {"metadata": metadata}) == [path]
    ((data, options, kind),) = read_layers(path)
    assert kind == "labels"
    found = data[0] if options.get("multiscale") else data
    np.testing.assert_array_equal(np.asarray(found), labels)
    assert options["metadata"][RECORDS] == {4: record}
