"""Regions of ImageJ read back with roifile."""

from __future__ import annotations

import builtins
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from napari_sam.errors import InputError
from napari_sam.writers.imagej import save_imagej_rois
from tests.writers.polygons import even_odd, paint

if TYPE_CHECKING:
    from pathlib import Path


def rois(path: Path) -> list[Any]:
    from roifile import roiread

    found = roiread(path)
    return found if isinstance(found, list) else [found]


@pytest.mark.usefixtures("small_windows")
def test_a_plane_comes_back_exactly(tmp_path: Path, scene: Any) -> None:
    back = np.zeros_like(scene)
    found = rois(save_imagej_rois(scene, tmp_path / "a.zip"))
    for roi in found:
        shape = even_odd(roi.coordinates(multi=True))
        paint(back, shape, int(roi.name))
        bounds = (roi.left, roi.top, roi.right, roi.bottom)
        assert bounds == tuple(int(edge) for edge in shape.bounds)
        assert (roi.position, roi.z_position, roi.t_position) == (0, 0, 0)
    assert_array_equal(back, scene)
    kinds = {roi.name: roi.roitype.name for roi in found}
    assert (kinds["12"], kinds["7"], kinds["5"]) == ("TRACED", "RECT", "RECT")


@pytest.mark.parametrize("axes", ["ZYX", "TZYX"])
def test_regions_stand_at_their_place_in_the_stack(
    tmp_path: Path, scene: Any, axes: str
) -> None:
    stack = np.zeros((2, 3, *scene.shape) if axes == "TZYX" else (3, *scene.shape), int)
    stack[(1, 2) if axes == "TZYX" else 2] = scene
    found = rois(save_imagej_rois(stack, tmp_path / "a.zip"))
    places = {(roi.position, roi.z_position, roi.t_position) for roi in found}
    assert places == ({(0, 3, 2)} if axes == "TZYX" else {(3, 0, 0)})
    frame = 2 if axes == "TZYX" else 1
    numbers = np.unique(scene[scene > 0]).tolist()
    assert {roi.name for roi in found} == {f"{n}_t{frame}_z3" for n in numbers}


def test_places_beyond_16_bits_are_kept(tmp_path: Path) -> None:
    labels = np.zeros((3, 70_010), np.uint8)
    labels[1, 70_000:70_005] = 1
    (roi,) = rois(save_imagej_rois(labels, tmp_path / "a.zip"))
    assert even_odd(roi.coordinates(multi=True)).bounds == (70_000, 1, 70_005, 2)


def test_names_in_the_zip_are_those_of_the_regions(tmp_path: Path, scene: Any) -> None:
    path = save_imagej_rois(scene, tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        names = sorted(archive.namelist())
    assert names == sorted(f"{n}.roi" for n in np.unique(scene[scene > 0]))


def test_says_what_to_install(
    tmp_path: Path, scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "roifile":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match="pip install roifile"):
        save_imagej_rois(scene, tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []
