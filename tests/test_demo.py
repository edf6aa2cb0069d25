"""The demo: its mosaic, its files, its summary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_sam.demo import demo_images, run_demo, segment_into

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.model import Sam


def test_an_image_is_segmented_into_four_files(
    tiny_sam: Sam,
    cells: tuple[NDArray[np.uint8], NDArray[np.uint32]],
    tmp_path: Path,
) -> None:
    rgb = np.stack([cells[0]] * 3, axis=-1)
    for _ in range(2):  # files of an earlier demo are replaced
        timing = segment_into(rgb, tiny_sam, tmp_path, "cells")
    assert timing.n_crops == 1
    names = ["cells.csv", "cells.labels.tif", "cells.overlay.png", "cells.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    labels = tifffile.imread(tmp_path / "cells.labels.tif")
    assert labels.shape == (96, 128)
    n_objects = len(np.unique(labels[labels > 0]))
    assert timing.n_objects == n_objects
    assert len((tmp_path / "cells.csv").read_text().splitlines()) == 1 + n_objects


def test_the_image_comes_with_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    # no download: the demo works without a network
    monkeypatch.setattr("socket.socket.connect", pytest.fail)
    shapes = {name: image.shape for name, image in demo_images().items()}
    assert shapes == {"ihc": (512, 512, 3), "mosaic": (1536, 1536, 3)}


def test_the_summary_names_model_images_times_and_files(
    tiny_sam: Sam, tmp_path: Path
) -> None:
    images = {"wide": np.zeros((20, 30, 3), np.uint8)}
    model, wide, files = run_demo(tiny_sam, tmp_path / "out", images)
    assert "on cpu" in model
    assert wide.startswith("wide    20 x 30 px, crops: 1, encoder ")
    for word in ("all objects ", "one click ", "objects found: "):
        assert word in wide
    assert str(tmp_path / "out") in files
