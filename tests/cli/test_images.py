"""``napari-sam segment`` and ``napari-sam predict``: same result as the library."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sam import Predictor, Prompts, embed, load_model, run, segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended


def test_predict_writes_what_the_library_predicts(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli(
        "predict", image, "--model", weights, "-o", "labels.tif",
        "--points", "20,20 60,110,-", "--boxes", "50,68,83,101", "--json",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    model = load_model(weights)
    predictor = Predictor(model, run(embed(image, model)))
    point = predictor.predict(
        Prompts(points=[[20, 20], [60, 110]], positive=[True, False])
    )
    box = predictor.predict(Prompts(boxes=[50, 68, 83, 101]))
    expected = np.zeros((96, 128), np.uint32)
    order = sorted(
        [(point.predicted_iou.max(), 1, point), (box.predicted_iou.max(), 2, box)]
    )
    for _, number, prediction in order:
        expected[prediction.plane_mask((96, 128))] = number
    written = tifffile.imread(tmp_path / "labels.tif")
    np.testing.assert_array_equal(written, expected)
    record = json.loads(ended.out)
    assert record["labels"] == "labels.tif"
    assert record["objects"] == len(set(np.unique(expected)) - {0})


def test_predict_takes_a_table_of_prompts_and_keeps_its_numbers(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("object,y,x\n7,20,20\n3,66,84\n")
    ended = cli(
        "predict", image, "--model", weights, "--prompts", table, "--points", "60,30",
        "--measurements", "-o", "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    labels = tifffile.imread(tmp_path / "out" / "cells.labels.tif")
    assert set(np.unique(labels)) <= {0, 3, 7, 8}
    with (tmp_path / "out" / "cells.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    ids = sorted(set(np.unique(labels).tolist()) - {0})
    assert [int(row["object"]) for row in rows] == ids
    for row in rows:
        assert int(row["area"]) == np.count_nonzero(labels == int(row["object"]))
        assert 0 <= float(row["stability"]) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--points", "20,200"], "(20, 200) lies outside the plane of 96 x 128 px"),
        (["--boxes", "100,0,120,10"], "lies outside the plane of 96 x 128 px"),
        (["--points", "20;20"], "write y,x"),
        (["--boxes", "1,2,3"], "write y0,x0,y1,x1"),
        ([], "no prompts"),
        (["--points", "20,20", "--plane", "x"], "write frame,slice"),
    ],
)
def test_prompts_that_cannot_be_used_are_reported(
    cli: Callable[..., Ended],
    image: Path,
    weights: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    ended = cli("predict", image, "--model", weights, "-o", "out", *arguments)
    assert ended.status == 2
    assert message in ended.err
    assert not (tmp_path / "out").exists()


def test_a_box_that_leaves_the_plane_is_reported_and_used(
    cli: Callable[..., Ended], image: Path, weights: Path
) -> None:
    ended = cli("predict", image, "--model", weights, "--boxes", "80,100,120,140")
    assert ended.status == 0
    assert "napari-sam: warning: box" in ended.err
    assert "leaves the plane" in ended.err


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


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Two slices of noise."""
    planes = np.random.default_rng(0).integers(0, 255, (2, 40, 50), np.uint8)
    path = tmp_path / "stack.tif"
    metadata = {"axes": "ZYX"}
    tifffile.imwrite(path, planes, photometric="minisblack", metadata=metadata)
    return path


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
        (["predict", "--points", "3,3"], "prompts belong to one"),
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
