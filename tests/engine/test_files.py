"""Names of what is written for an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_sam.engine.files import plan_outputs
from napari_sam.errors import InputError


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


def test_two_images_never_share_a_file() -> None:
    with pytest.raises(InputError, match="would both be written"):
        plan_outputs([Path("x/a.tif"), Path("y/a.png")], Path("out"))
