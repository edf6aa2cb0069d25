"""Names of what is written for an image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_sam.engine.files import ImageOptions, open_file, plan_outputs
from napari_sam.errors import InputError
from napari_sam.settings import get_settings
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


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (("a.tif", "a.PNG", "b.tif"), ["a_tif", "a_PNG", "b"]),
        (("a.tif", "a.ome.tif"), ["a_tif", "a_ome_tif"]),
        (("day1/a.tif", "day2/a.tif", "day2/b.tif"), ["day1_a", "day2_a", "b"]),
        (("day1/a.tif", "day1/a.png", "day2/a.tif"), ["day1_a", "a_png", "day2_a"]),
    ],
)
def test_images_of_one_name_have_results_of_several(
    images: tuple[str, ...], names: list[str]
) -> None:
    planned = plan_outputs([Path(image) for image in images], Path("out"))
    assert [each.labels.name for each in planned] == [f"{n}.labels.tif" for n in names]


def test_two_images_never_share_a_file() -> None:
    images = [Path("1/x/a.tif"), Path("2/x/a.tif")]
    with pytest.raises(InputError, match="would both be written"):
        plan_outputs(images, Path("out"))


@pytest.mark.parametrize("how", [{"diameter": 10.0}, {"fewer_crops": True}, {}])
def test_the_halo_is_that_of_the_settings(
    tiny_sam: Sam,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: dict[str, Any],
) -> None:
    monkeypatch.setenv("NAPARI_SAM_CROP_HALO", "320")
    get_settings.cache_clear()
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.arange(140 * 140, dtype=np.uint16).reshape(140, 140))
    opened = open_file(path, tiny_sam, ImageOptions(**how))
    halo = opened.embedding(tiny_sam, (0, 0)).grid.halo
    get_settings.cache_clear()
    # of 1024 px; the network takes 128, and fewer crops have half of it
    assert halo == (20 if how == {"fewer_crops": True} else 40)
