"""``napari-sam predict``: same result as the library."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import roifile  # noqa: TID253 - of the test group
import tifffile

from napari_sam import Predictor, Prompts, load_model
from napari_sam.engine.embed import open_plane
from napari_sam.engine.records import from_notes
from napari_sam.readers.notes import read_notes

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
    predictor = Predictor(model, open_plane(image, model))
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
    record, *objects = [json.loads(line) for line in ended.out.splitlines()]
    assert record["labels"] == "labels.tif"
    assert [each["object"] for each in objects] == [1, 2]
    assert record["objects"] == len(set(np.unique(expected)) - {0})
    # the file says how its objects were made, so that the plugin can go on with them
    first, second = from_notes(read_notes(tmp_path / "labels.tif")).values()
    assert first.points == ((20, 20), (60, 110))
    assert first.positive == (True, False)
    assert first.model_sha256 == model.weights_sha256
    assert first.predicted_iou == pytest.approx(float(point.predicted_iou.max()))
    assert second.shapes[0].corners == ((49.5, 67.5), (82.5, 100.5))


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
    assert "napari-sam: warning: object 1: box" in ended.err
    assert "leaves the plane" in ended.err


def test_a_stack_needs_a_chosen_plane(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("predict", stack, "--model", weights, "--points", "3,3")
    assert ended.status == 2
    assert "prompts belong to one" in ended.err
    assert not (tmp_path / "stack.labels.tif").exists()


def test_an_object_outside_is_left_out_and_reported(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text("object,y,x\n7,20,20\n3,66,840\n")
    ended = cli("predict", image, "-m", weights, "--prompts", table, "--json")
    assert ended.status == 1
    assert "object 3: point (y, x) = (66, 840) lies outside" in ended.err
    records = [json.loads(line) for line in ended.out.splitlines()]
    assert [each.get("problem") is None for each in records[1:]] == [True, False]
    labels = tifffile.imread(tmp_path / "cells.labels.tif")
    assert set(np.unique(labels)) == {0, 7}


@pytest.mark.parametrize("kind", ["csv", "geojson", "zip", "tif"])
def test_the_same_points_in_any_file_give_the_same_labels(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path, kind: str
) -> None:
    points = {1: (20, 20), 2: (66, 84)}
    path = tmp_path / f"prompts.{kind}"
    unit = []
    if kind == "csv":
        lines = [f"{n},{y / 2},{x / 2}" for n, (y, x) in points.items()]
        path.write_text("\n".join(["object,y,x", *lines]))
        unit = ["--unit", "um", "--pixel-size", "0.5"]
    elif kind == "geojson":
        corners = [[x + 0.5, y + 0.5] for y, x in points.values()]
        path.write_text(json.dumps({"type": "MultiPoint", "coordinates": corners}))
    elif kind == "zip":
        roi = roifile.ImagejRoi.frompoints(
            np.array([[x, y] for y, x in points.values()])
        )
        roi.roitype = roifile.ROI_TYPE.POINT
        roifile.roiwrite(path, [roi], mode="w")
    else:
        seeds = np.zeros((96, 128), np.uint16)
        for number, (y, x) in points.items():
            seeds[y - 2 : y + 3, x - 2 : x + 3] = number
        tifffile.imwrite(path, seeds)
    typed = [f"{y},{x}" for y, x in points.values()]
    expected = cli(
        "predict", image, "-m", weights, "-o", "a.tif", "--points", typed[0],
        "--points", typed[1],
    )  # fmt: skip
    ended = cli(
        "predict", image, "-m", weights, "-o", "b.tif", "--prompts", path, *unit
    )
    assert (expected.status, ended.status) == (0, 0), ended.err
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "b.tif"), tifffile.imread(tmp_path / "a.tif")
    )


def test_micrometres_need_a_pixel_size(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.csv").write_text("y,x\n20,20\n")
    ended = cli("predict", image, "-m", weights, "--prompts", "p.csv", "--unit", "um")
    assert ended.status == 2
    assert "does not say how large a pixel is" in ended.err
