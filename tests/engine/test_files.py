"""Names of what is written for an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_sam.engine.files import ImageOptions, open_file, plan_outputs
from napari_sam.errors import InputError
from napari_sam.tiling import CropGrid

if TYPE_CHECKING:
    from napari_sam.model import Sam


def test_outputs_are_named_after_the_images() -> None:
    (outputs,) = plan_outputs(
        [Path("in/a.b.ome.tif")], Path("out"), overlay=True, measurements=True
    )
    assert outputs.labels == Path("out/a.b.labels.tif")
    assert outputs.overlay == Path("out/a.b.overlay.png")
    assert outputs.measurements == Path("out/a.b.csv")


def test_one_image_may_name_its_file() -> None:
    (outputs,) = plan_outputs([Path("a.png")], Path("o/cells.ome.tif"), overlay=True)
    assert outputs.labels == Path("o/cells.ome.tif")
    assert outputs.overlay == Path("o/cells.overlay.png")
    with pytest.raises(InputError, match="give a folder"):
        plan_outputs([Path("a.png"), Path("b.png")], Path("cells.tif"))


def test_a_name_of_another_kind_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels in out\.png; give a folder"):
        plan_outputs([Path("a.tif")], tmp_path / "out.png")
    folder = tmp_path / "v1.csv"
    folder.mkdir()
    (outputs,) = plan_outputs([Path("a.tif")], folder)
    assert outputs.labels == folder / "a.labels.tif"


@pytest.mark.parametrize("size", [None, 0.5])
def test_a_diameter_in_micrometres_is_one_in_pixels(
    tiny_sam: Sam, tmp_path: Path, size: float | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(64 * 64, dtype=np.uint16).reshape(64, 64))
    options = ImageOptions(diameter_um=20.0, pixel_size_um=size)
    if size is None:
        with pytest.raises(InputError, match="does not say how large a pixel is"):
            open_file(path, tiny_sam, options)
        return
    in_pixels = open_file(path, tiny_sam, ImageOptions(diameter=40.0)).grid
    assert in_pixels is not None
    found = open_file(path, tiny_sam, options).grid
    assert found is not None
    assert found.scale == pytest.approx(in_pixels.scale)
    with pytest.raises(InputError, match="give one of the two"):
        open_file(path, tiny_sam, replace(options, diameter=40.0))


def test_fewer_crops_if_they_are_asked_for(tiny_sam: Sam, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(136 * 140, dtype=np.uint16).reshape(136, 140))
    options = ImageOptions(fewer_crops=True)
    grid = open_file(path, tiny_sam, options).grid
    assert grid is not None
    assert (len(CropGrid((136, 140), 128, 16)), len(grid)) == (4, 1)
    assert grid.scale == 128 / 140
    with pytest.raises(InputError, match="leave it out"):
        open_file(path, tiny_sam, replace(options, diameter=40.0))


def test_two_images_never_share_a_file() -> None:
    with pytest.raises(InputError, match="would both be written"):
        plan_outputs([Path("x/a.tif"), Path("y/a.png")], Path("out"))
