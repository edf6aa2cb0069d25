"""Averages, tables and files of an evaluation."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from napari_sam.errors import InputError
from napari_sam.training.collection import AnnotatedImage
from napari_sam.training.report import Evaluation, ImageScores


def scores(name, dataset, modality, click_1, automatic):
    image = AnnotatedImage(name, dataset, modality, Path("a.tif"), Path("b.tif"))
    return ImageScores(
        image=image,
        n_objects=len(click_1) + 1,
        object_ids=np.arange(len(click_1)) + 1,
        areas=np.arange(len(click_1)) + 100,
        prompted={"click_1": np.array(click_1)} if click_1 else {},
        automatic=automatic,
        seconds=0.5,
    )


@pytest.fixture
def evaluation():
    return Evaluation(
        model_name="tiny",
        weights_sha256="ab",
        settings={"data": Path("somewhere")},
        names=("click_1", "mSA"),
        images=[
            scores("a", "one", "red", [0.2, 0.4, 0.6], {"mSA": 0.5, "n_found": 3.0}),
            scores("b", "one", "red", [1.0], {"mSA": 0.1, "n_found": 1.0}),
            scores("c", "two", "red", [], {"mSA": 0.3, "n_found": 0.0}),
            scores("d", "two", "blue", [0.7], {}),
        ],
    )


def test_objects_weigh_alike_when_prompted_and_images_when_not(evaluation):
    blue, red = evaluation.summary("modality")
    assert (red["group"], red["images"], red["objects"]) == ("red", 3, 4)
    assert red["click_1"] == pytest.approx((0.2 + 0.4 + 0.6 + 1.0) / 4)
    assert red["mSA"] == pytest.approx((0.5 + 0.1 + 0.3) / 3)
    assert blue["click_1"] == pytest.approx(0.7)
    assert blue["mSA"] is None


def test_groups_can_be_datasets_or_both(evaluation):
    assert [g["group"] for g in evaluation.summary("dataset")] == ["one", "two"]
    both = [g["group"] for g in evaluation.summary("dataset and modality")]
    assert both == ["one, red", "two, blue", "two, red"]
    with pytest.raises(InputError, match="use one of modality, dataset"):
        evaluation.summary("colour")


def test_the_table_has_aligned_columns_and_a_dash_for_nothing(evaluation):
    lines = evaluation.table().splitlines()
    assert lines == [
        "group  images  objects  click_1    mSA",
        "blue        1        1    0.700      -",
        "red         3        4    0.550  0.300",
    ]


def test_all_is_written_and_can_be_read(evaluation, tmp_path):
    evaluation.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["model"] == "tiny"
    assert summary["seconds"] == pytest.approx(2.0)
    assert summary["by modality"][0]["mSA"] is None
    assert summary["settings"] == {"data": "somewhere"}
    with (folder / "images.csv").open(newline="") as file:
        images = list(csv.DictReader(file))
    assert [row["name"] for row in images] == ["a", "b", "c", "d"]
    assert float(images[0]["click_1"]) == pytest.approx(0.4)
    assert images[0]["n_found"] == "3.0"
    with (folder / "objects.csv").open(newline="") as file:
        objects = list(csv.DictReader(file))
    assert len(objects) == 5
    assert objects[1] == {
        "dataset": "one",
        "name": "a",
        "object": "2",
        "area": "101",
        "click_1": "0.4",
    }
