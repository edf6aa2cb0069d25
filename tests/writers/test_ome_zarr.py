"""Labels as OME-Zarr: valid by ome-zarr-models, read back by zarr and by our reader."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from numpy.testing import assert_array_equal
from ome_zarr_models import v05 as models

from napari_sam.errors import FileError, FormatError, InputError
from napari_sam.images import ImageSource
from napari_sam.readers import list_levels, open_image
from napari_sam.writers import ome_zarr
from napari_sam.writers.ome_zarr import save_ome_zarr

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks, shards and levels small."""
    monkeypatch.setattr(ome_zarr, "_CHUNK", 16)
    monkeypatch.setattr(ome_zarr, "_SHARD", 64)
    monkeypatch.setattr(ome_zarr, "_SMALLEST_LEVEL", 32)


@pytest.mark.usefixtures("small_levels")
def test_a_plane_comes_back_with_a_pyramid(tmp_path: Path, scene: Any) -> None:
    path = save_ome_zarr(scene, tmp_path / "a.zarr", pixel_size_um=(0.5, 0.25))
    group = zarr.open_group(path, mode="r")
    models.ImageLabel.from_zarr(group)
    sizes = [(150, 220), (75, 110), (38, 55), (19, 28)]
    assert list_levels(path) == tuple(sizes)
    for level, size in enumerate(sizes):
        step = 2**level
        opened = open_image(path, level=level)
        assert opened.plane_shape == size
        assert_array_equal(opened.read(), scene[::step, ::step])
        assert opened.pixel_size_um == (0.5 * step, 0.25 * step)
    array = group["0"]
    assert isinstance(array, zarr.Array)
    assert (array.dtype, array.chunks, array.shards) == (np.uint32, (16, 16), (64, 64))


def test_a_stack_keeps_axes_and_steps(tmp_path: Path, scene: Any) -> None:
    stack = np.stack([[scene, scene[::-1], scene * 0]] * 2)
    path = save_ome_zarr(stack, tmp_path / "a.zarr", pixel_size_um=(2, 0.5, 0.5))
    models.ImageLabel.from_zarr(zarr.open_group(path, mode="r"))
    opened = open_image(path)
    assert (opened.axes, opened.z_step_um) == ("TZYX", 2)
    assert_array_equal(np.asarray(opened.array[:]), stack)
    frames = ImageSource(stack[0], "TYX")
    path = save_ome_zarr(frames, tmp_path / "b.zarr")
    opened = open_image(path)
    assert (opened.axes, opened.pixel_size_um) == ("TYX", None)
    assert_array_equal(np.asarray(opened.array[:]), stack[0])


@pytest.mark.usefixtures("small_levels")
def test_colours_and_properties_name_each_object(tmp_path: Path, scene: Any) -> None:
    path = save_ome_zarr(scene, tmp_path / "a.zarr")
    facts: Any = zarr.open_group(path, mode="r").attrs["ome"]["image-label"]
    numbers = np.unique(scene[scene > 0]).tolist()
    assert [each["label-value"] for each in facts["colors"]] == numbers
    assert len({tuple(each["rgba"]) for each in facts["colors"]}) == len(numbers)
    for each in facts["properties"]:
        rows, columns = np.nonzero(scene == each["label-value"])
        assert each["area"] == len(rows)
        assert each["y"] == pytest.approx(rows.mean(), abs=0.006)
        assert each["x"] == pytest.approx(columns.mean(), abs=0.006)


def make_image(path: Path, version: str, shape: tuple[int, int]) -> None:
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(path, zarr_format=zarr_format)
    names = list("yx") if zarr_format == 3 else None
    group.create_array("0", shape=shape, dtype=np.uint8, dimension_names=names)
    scale = {"type": "scale", "scale": [1.0, 1.0]}
    image = {
        "name": "image",
        "axes": [{"name": name, "type": "space"} for name in "yx"],
        "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
    }
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{**image, "version": version}]


def test_labels_stand_in_the_image_that_they_belong_to(
    tmp_path: Path, scene: Any
) -> None:
    image = tmp_path / "image.zarr"
    make_image(image, "0.5", scene.shape)
    for name in ("cells", "nuclei", "cells"):
        save_ome_zarr(scene, image / "labels" / name, overwrite=True)
    group = zarr.open_group(image, mode="r")
    models.Image.from_zarr(group)
    labels = models.Labels.from_zarr(zarr.open_group(image / "labels", mode="r"))
    assert labels.label_paths == ["nuclei", "cells"]
    facts: Any = zarr.open_group(image / "labels" / "cells", mode="r").attrs["ome"]
    assert facts["image-label"]["source"] == {"image": "../../"}
    assert_array_equal(open_image(image / "labels" / "nuclei").read(), scene)


def test_an_image_of_another_version_takes_no_labels(
    tmp_path: Path, scene: Any
) -> None:
    make_image(tmp_path / "old.zarr", "0.4", scene.shape)
    with pytest.raises(FormatError, match=r"no image of OME-Zarr 0\.5"):
        save_ome_zarr(scene, tmp_path / "old.zarr" / "labels" / "cells")


def test_ids_take_64_bits_where_they_need_them(tmp_path: Path) -> None:
    ids = np.zeros((1100, 40), np.int64)
    ids[:600, 10:20], ids[700:, 3:30] = 5, 2**32 - 1
    path = save_ome_zarr(ids, tmp_path / "small.zarr")
    assert open_image(path).array.dtype == np.uint32
    ids[700:, 3:30] = 2**40 + 7
    path = save_ome_zarr(ids, tmp_path / "large.zarr")
    assert open_image(path).array.dtype == np.uint64
    assert_array_equal(open_image(path).read(), ids)
    assert_array_equal(open_image(path, level=1).read(), ids[::2, ::2])
    facts: Any = zarr.open_group(path, mode="r").attrs["ome"]
    values = [each["label-value"] for each in facts["image-label"]["properties"]]
    assert values == [5, 2**40 + 7]


def test_a_failure_leaves_what_was_there(tmp_path: Path, scene: Any) -> None:
    path = save_ome_zarr(scene, tmp_path / "a.zarr")
    with pytest.raises(FileError, match="exists already"):
        save_ome_zarr(scene * 0, path)
    with pytest.raises(InputError, match=f"object id {2**63} does not fit in 63 bits"):
        save_ome_zarr(np.array([[2**63]], np.uint64), path, overwrite=True)
    assert_array_equal(open_image(path).read(), scene)
    save_ome_zarr(scene[::-1], path, overwrite=True)
    assert_array_equal(open_image(path).read(), scene[::-1])
    assert [each.name for each in tmp_path.iterdir()] == ["a.zarr"]
    with pytest.raises(InputError, match=r"ends in \.zarr"):
        save_ome_zarr(scene, tmp_path / "a.tif")
