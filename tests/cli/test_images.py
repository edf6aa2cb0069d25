"""``napari-sam segment``: same result as the library."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sam import load_model, run, segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended


def test_segment_writes_labels_overlay_and_measurements(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli(
        "segment", image, "--model", weights, "-o", "out", "--overlay",
        "--measurements", "--pixel-size", "0.5",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    expected = run(segment(image, load_model(weights)))
    written = tifffile.imread(tmp_path / "out" / "cells.labels.tif")
    assert written.dtype == np.uint32
    np.testing.assert_array_equal(written, expected)
    with Image.open(tmp_path / "out" / "cells.overlay.png") as overlay:
        assert overlay.size[0] / overlay.size[1] == pytest.approx(128 / 96)
    rows = (tmp_path / "out" / "cells.csv").read_text().splitlines()
    assert "area_um2" in rows[0]
    n_objects = expected.n_objects
    assert n_objects > 0
    assert len(rows) == n_objects + 1
    assert f"cells.tif: {n_objects} objects in " in ended.out


def test_an_image_that_fails_does_not_stop_the_others(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0 no TIFF")
    ended = cli("segment", bad, image, "--model", weights, "-o", "out", "--json")
    assert ended.status == 1
    records = [json.loads(line) for line in ended.out.splitlines()]
    assert [sorted(record) for record in records] == [
        ["error", "image"],
        ["image", "labels", "objects", "seconds"],
    ]
    assert "1 of 2 images failed" in ended.err
    assert (tmp_path / "out" / "cells.labels.tif").exists()


def test_a_file_is_replaced_only_on_demand(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    target = tmp_path / "labels.tif"
    target.write_text("precious")
    arguments = ("segment", image, "--model", weights, "-o", "labels.tif")
    ended = cli(*arguments)
    assert ended.status == 1
    assert "exists already" in ended.err
    assert target.read_text() == "precious"
    assert cli(*arguments, "--overwrite").status == 0
    assert tifffile.imread(target).shape == (96, 128)


def test_all_planes_of_a_stack_are_segmented_and_measured(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("segment", stack, "--model", weights, "--measurements")
    assert ended.status == 0, ended.err
    expected = run(segment(stack, load_model(weights)))
    with tifffile.TiffFile(tmp_path / "stack.labels.tif") as written:
        assert written.series[0].axes == "ZYX"
        np.testing.assert_array_equal(written.asarray(), expected.labels)
    with (tmp_path / "stack.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert expected.labels.any(axis=(1, 2)).all()
    found = {(int(row["object"]), int(row["slice"])) for row in rows}
    present = [np.unique(plane[plane > 0]).tolist() for plane in expected.labels]
    assert found == {(n, z) for z, ids in enumerate(present) for n in ids}


def test_one_plane_of_a_stack_is_chosen(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("segment", stack, "--model", weights, "--plane", "1", "--overlay")
    assert ended.status == 0, ended.err
    assert tifffile.imread(tmp_path / "stack.labels.tif").shape == (40, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "--overlay"], "an overlay is a picture of one"),
        (["segment", "--plane", "5"], "2 slices"),
    ],
)
def test_a_stack_where_one_plane_is_needed_is_refused(
    cli: Callable[..., Ended],
    stack: Path,
    weights: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    ended = cli(arguments[0], stack, "--model", weights, *arguments[1:])
    assert ended.status == 2
    assert message in ended.err
    assert not (tmp_path / "stack.labels.tif").exists()


def test_a_channel_is_chosen_by_number_or_name(
    cli: Callable[..., Ended], weights: Path, tmp_path: Path
) -> None:
    planes = np.random.default_rng(0).integers(0, 255, (2, 40, 50), np.uint8)
    metadata = {"axes": "CYX"}
    tifffile.imwrite(
        tmp_path / "two.tif", planes, photometric="minisblack", metadata=metadata
    )
    tifffile.imwrite(tmp_path / "one.tif", planes[1], photometric="minisblack")
    for name, channel in (("two.tif", ["--channel", "1"]), ("one.tif", [])):
        assert cli("segment", name, "--model", weights, *channel).status == 0
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "two.labels.tif"),
        tifffile.imread(tmp_path / "one.labels.tif"),
    )
    ended = cli("segment", "two.tif", "-m", weights, "-o", "x", "--channel", "DAPI")
    assert ended.status == 2
    assert "no channel 'DAPI'" in ended.err
