"""What is written of stitched planes, without reading labels as a whole."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam.engine.files import ImageOptions, OpenedFile, Outputs
from napari_sam.engine.results import LabelStack, without_overlay, write_results
from napari_sam.errors import NapariSamWarning
from napari_sam.images import ImageSource, Intensity
from napari_sam.masks import Candidate
from napari_sam.stitch import Views, stitch
from napari_sam.tiling import Box, CropGrid

if TYPE_CHECKING:
    from pathlib import Path

GRID = CropGrid((20, 30), size=30, halo=2, scale=1.0)


def painting(*boxes: tuple[int, int, int, int]):
    found = [
        Candidate(Box(*box), np.ones(Box(*box).shape, bool), 0.5 + 0.1 * i)
        for i, box in enumerate(boxes)
    ]
    return stitch({0: Views.of(0, found)}, GRID)


@pytest.fixture
def opened() -> OpenedFile:
    """Two slices and two channels, of which the second slice was chosen."""
    pixels = np.arange(2 * 2 * 20 * 30, dtype=np.uint16).reshape(2, 2, 20, 30)
    source = ImageSource(pixels, "ZCYX", channel_names=("a", "b"))
    options = ImageOptions(plane=(0, 1))
    return OpenedFile(source, options, Intensity((0,), ((0.0, 1.0),)), GRID)


def test_a_stack_of_labels_is_drawn_where_it_is_read() -> None:
    planes = [
        painting((0, 0, 4, 5)),
        painting(),
        painting((2, 3, 9, 9), (15, 20, 20, 30)),
    ]
    stack = LabelStack(planes, (3,))
    whole = np.zeros((3, 20, 30), np.uint32)
    whole[0, 0:4, 0:5] = 1
    whole[2, 2:9, 3:9] = 2
    whole[2, 15:20, 20:30] = 3
    assert (stack.shape, stack.n_objects) == ((3, 20, 30), 3)
    for index in np.ndindex(3):
        np.testing.assert_array_equal(stack[index], whole[index])
    np.testing.assert_array_equal(stack[2, 3:17, 5:25], whole[2, 3:17, 5:25])
    np.testing.assert_array_equal(stack[2, 3:99], whole[2, 3:])


def test_one_plane_of_a_stack_is_measured_with_its_own_pixels(
    opened: OpenedFile, tmp_path: Path
) -> None:
    to = Outputs(
        tmp_path / "x.labels.tif",
        measurements=tmp_path / "x.csv",
        seams=tmp_path / "x.seams.csv",
    )
    n = write_results(opened, [painting((2, 3, 9, 9), (15, 20, 20, 30))], GRID, to, {})
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert n == len(rows) == 2
    for row, place in zip(rows, (np.s_[2:9, 3:9], np.s_[15:20, 20:30]), strict=True):
        for number, channel in enumerate("ab"):
            pixels = opened.source.array[1, number][place]
            found = [float(v) for k, v in row.items() if k.endswith(f"mean_{channel}")]
            assert found == [pytest.approx(pixels.mean())]
    assert [float(row["predicted_iou"]) for row in rows] == pytest.approx([0.5, 0.6])
    assert (tmp_path / "x.seams.csv").read_text().count("\n") == 1


def test_an_overlay_of_a_slide_is_left_out_before_the_work(tmp_path: Path) -> None:
    array = np.broadcast_to(np.uint8(0), (20_000, 20_000))
    opened = OpenedFile(
        ImageSource(array, name="slide"),
        ImageOptions(),
        Intensity((0,), ((0, 1),)),
        None,
    )
    to = Outputs(tmp_path / "x.tif", overlay=tmp_path / "x.png")
    with pytest.warns(NapariSamWarning, match="an overlay has at most 100000000 px"):
        assert without_overlay(opened, to) == Outputs(tmp_path / "x.tif")
    without_overlay(opened, Outputs(tmp_path / "x.tif"))  # says nothing
