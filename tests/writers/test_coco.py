"""Run lengths read back with pycocotools, and equal to its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from napari_sam.errors import InputError
from napari_sam.images import ImageSource
from napari_sam.writers.coco import _packed, save_coco, save_sa1b

if TYPE_CHECKING:
    from pathlib import Path


def check(annotation: dict[str, Any], expected: Any) -> None:
    """Compare an annotation with what pycocotools makes of the mask."""
    runs = annotation["segmentation"]
    assert_array_equal(oracle.decode(runs), expected)
    assert (
        runs["counts"] == oracle.encode(np.asfortranarray(expected))["counts"].decode()
    )
    assert annotation["bbox"] == oracle.toBbox(runs).tolist()
    assert annotation["area"] == oracle.area(runs)


@pytest.mark.usefixtures("small_windows")
def test_coco_gives_the_masks_back(tmp_path: Path, scene: Any) -> None:
    data = COCO(save_coco(scene, tmp_path / "a.json"))
    (image,) = data.loadImgs(data.getImgIds())
    assert (image["height"], image["width"]) == scene.shape
    found = data.loadAnns(data.getAnnIds())
    assert sorted(a["id"] for a in found) == np.unique(scene[scene > 0]).tolist()
    for annotation in found:
        assert annotation["object_id"] == annotation["id"]
        assert annotation["image_id"] == image["id"]
        check(annotation, (scene == annotation["id"]).astype(np.uint8))
        assert_array_equal(data.annToMask(annotation), scene == annotation["id"])
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == ["object"]


def test_each_plane_of_a_stack_is_an_image(tmp_path: Path, scene: Any) -> None:
    stack = np.stack([[scene, scene[::-1]], [scene * 0, scene[:, ::-1]]])
    source = ImageSource(stack, "TZYX", name="stack")
    data = COCO(save_coco(source, tmp_path / "a.json"))
    back = np.zeros_like(stack)
    for annotation in data.loadAnns(data.getAnnIds()):
        (image,) = data.loadImgs(annotation["image_id"])
        inside = data.annToMask(annotation) > 0
        back[image["frame"], image["slice"]][inside] = annotation["object_id"]
    assert_array_equal(back, stack)
    assert len(data.getImgIds()) == 4


@pytest.mark.usefixtures("small_windows")
def test_sa1b_has_its_fields_and_masks(tmp_path: Path, scene: Any) -> None:
    image = tmp_path / "cells.tif"
    source = ImageSource(scene, name="cells", path=image)
    found = json.loads(save_sa1b(scene, tmp_path / "a.json", image=source).read_text())
    about = {"image_id": 1, "width": 220, "height": 150, "file_name": "cells.tif"}
    assert found["image"] == about
    for annotation in found["annotations"]:
        assert set(annotation) == {"id", "area", "bbox", "segmentation"}
        check(annotation, (scene == annotation["id"]).astype(np.uint8))
    with pytest.raises(InputError, match="SA-1B holds one plane"):
        save_sa1b(np.stack([scene, scene]), tmp_path / "b.json")


def test_a_plane_that_pycocotools_cannot_count_is_refused(tmp_path: Path) -> None:
    wide = np.broadcast_to(np.zeros(1, np.uint8), (2**16, 2**16))
    with pytest.raises(InputError, match="choose another format"):
        save_coco(wide, tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=12))
def test_packing_is_that_of_pycocotools(counts: list[int]) -> None:
    runs = {"size": [sum(counts), 1], "counts": counts}
    packed = oracle.frPyObjects(runs, *runs["size"])["counts"].decode()
    assert _packed(np.array(counts, np.int64)) == packed
