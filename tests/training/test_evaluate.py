"""Evaluation of a real, tiny network on files on disk."""

import csv
import json

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import distance_transform_edt

from napari_sam.engine.automatic import segment
from napari_sam.engine.embed import embed
from napari_sam.engine.jobs import Step, run
from napari_sam.engine.predict import Predictor
from napari_sam.errors import FormatError, InputError
from napari_sam.prompts import Prompts
from napari_sam.training.evaluate import EvaluateConfig, evaluate
from napari_sam.training.metrics import iou, mean_segmentation_accuracy


@pytest.fixture
def folder(tmp_path, cells):
    """The cells as a TIFF, and turned upside down as a PNG with TIFF labels."""
    image, labels = cells
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", image)
    tifffile.imwrite(tmp_path / "labels" / "a.tif", labels.astype(np.uint16))
    Image.fromarray(image[::-1].copy()).save(tmp_path / "images" / "b.png")
    tifffile.imwrite(tmp_path / "labels" / "b.tif", labels[::-1].astype(np.uint8))
    return tmp_path


def measure(folder, model, **changes):
    return run(evaluate(EvaluateConfig(folder, **changes), model), progress=False)


def test_scores_equal_those_computed_by_hand(folder, cells, tiny_sam):
    image, labels = cells
    result = measure(folder, tiny_sam, split=None, clicks=(1,)).images[0]
    predictor = Predictor(tiny_sam, run(embed(image, tiny_sam), progress=False))
    for i, number in enumerate(range(1, 6)):
        truth = labels == number
        depth = distance_transform_edt(truth)
        middle = np.unravel_index(depth.argmax(), depth.shape)
        clicked = predictor.predict(Prompts(points=[middle]))
        chosen = int(np.argmax(clicked.predicted_iou))
        ious = [iou(clicked.plane_mask(truth.shape, k), truth) for k in range(3)]
        assert result.prompted["click_1"][i] == pytest.approx(ious[chosen], abs=1e-3)
        assert result.prompted["oracle_1"][i] == pytest.approx(max(ious), abs=1e-3)
        y, x = np.nonzero(truth)
        box = Prompts(boxes=[y.min(), x.min(), y.max() + 1, x.max() + 1])
        boxed = predictor.predict(box).plane_mask(truth.shape)
        assert result.prompted["box"][i] == pytest.approx(iou(boxed, truth), abs=1e-3)
    found = run(segment(image, tiny_sam), progress=False).labels
    assert result.automatic["mSA"] == mean_segmentation_accuracy(labels, found)
    assert result.automatic["n_found"] == len(np.unique(found[found > 0]))
    np.testing.assert_array_equal(result.areas, np.bincount(labels.ravel())[1:])


def test_one_encoder_call_for_each_image(folder, tiny_sam, monkeypatch):
    calls = []
    encode = tiny_sam.encode
    monkeypatch.setattr(tiny_sam, "encode", lambda x: calls.append(len(x)) or encode(x))
    measure(folder, tiny_sam, split=None, clicks=(1, 3))
    assert calls == [1, 1]


def test_a_step_tells_of_each_image(folder, tiny_sam):
    job = evaluate(EvaluateConfig(folder, clicks=(1,), automatic=False), tiny_sam)
    steps = list(job)
    assert [(s.done, s.total) for s in steps] == [(1, 2), (2, 2)]
    assert all(isinstance(s, Step) for s in steps)
    assert [s.value.image.name for s in steps] == ["a", "b"]


def test_the_report_has_what_was_asked_for(folder, tiny_sam, tmp_path):
    result = measure(folder, tiny_sam, clicks=(1, 3), automatic=False)
    header = result.table().splitlines()[0].split()
    assert header == [
        "group",
        "images",
        "objects",
        "click_1",
        "oracle_1",
        "click_3",
        "box",
    ]
    result.save(tmp_path / "report")
    summary = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert summary["by modality"][0]["objects"] == 10
    with (tmp_path / "report" / "objects.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 10


def test_a_seeded_choice_of_objects(folder, tiny_sam):
    options = {"clicks": (), "automatic": False, "max_objects": 2}
    first = measure(folder, tiny_sam, seed=3, **options)
    again = measure(folder, tiny_sam, seed=3, **options)
    ids = [scores.object_ids.tolist() for scores in first.images]
    assert ids == [scores.object_ids.tolist() for scores in again.images]
    assert [len(i) for i in ids] == [2, 2]
    assert [scores.n_objects for scores in first.images] == [5, 5]
    choices = {
        tuple(measure(folder, tiny_sam, seed=s, **options).images[0].object_ids)
        for s in range(5)
    }
    assert len(choices) > 1
    assert len(measure(folder, tiny_sam, max_images=1, **options).images) == 1


def test_small_objects_are_not_prompted(folder, tiny_sam, cells):
    area = np.bincount(cells[1].ravel())
    result = measure(
        folder, tiny_sam, clicks=(), automatic=False, min_area=int(area[1])
    )
    assert result.images[0].object_ids.tolist() == [1, 2, 3, 4]


@pytest.fixture
def indexed(tmp_path, cells):
    """A complete image, a silver one, and a stack whose middle plane differs."""
    image, labels = cells
    rows = [
        ("cells", "whole", "light", "manual"),
        ("cells", "silver", "light", "machine, silver"),
        ("stacks", "deep", "dark", "manual"),
    ]
    with (tmp_path / "index.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "name", "modality", "labels", "split"])
        writer.writerows([*row, "val"] for row in rows)
    for dataset, name, *_ in rows:
        for kind, pixels in (("images", image), ("labels", labels.astype(np.uint16))):
            folder = tmp_path / dataset / kind
            folder.mkdir(parents=True, exist_ok=True)
            if name == "deep":
                planes = np.stack([pixels * 0, pixels, pixels * 0])
                tifffile.imwrite(
                    folder / "deep.tif",
                    planes,
                    photometric="minisblack",
                    metadata={"axes": "ZYX"},
                )
            else:
                tifffile.imwrite(folder / f"{name}.tif", pixels)
    return tmp_path


def test_partial_labels_get_no_automatic_score(indexed, tiny_sam):
    result = measure(indexed, tiny_sam, clicks=(1,))
    whole, silver, deep = result.images
    assert set(whole.automatic) == {"SA50", "mSA", "n_found"}
    assert silver.automatic == {}
    assert set(silver.prompted) == {"click_1", "oracle_1", "box"}
    assert [g["group"] for g in result.summary()] == ["dark", "light"]
    assert deep.image.modality == "dark"


def test_of_a_stack_the_middle_plane_is_evaluated(indexed, tiny_sam):
    whole, _, deep = measure(indexed, tiny_sam, clicks=(1,), automatic=False).images
    assert deep.n_objects == 5
    # contrast limits are those of the whole stack, so scores agree, but not exactly
    np.testing.assert_array_equal(deep.areas, whole.areas)


def test_datasets_can_be_chosen(indexed, tiny_sam):
    result = measure(
        indexed, tiny_sam, clicks=(), automatic=False, datasets=("stacks",)
    )
    assert [scores.image.name for scores in result.images] == ["deep"]


def test_labels_of_another_size_are_refused(folder, tiny_sam):
    tifffile.imwrite(folder / "labels" / "a.tif", np.zeros((5, 6), np.uint8))
    with pytest.raises(FormatError, match="must be equal"):
        measure(folder, tiny_sam)


def test_labels_that_are_no_whole_numbers_are_refused(folder, tiny_sam, cells):
    tifffile.imwrite(folder / "labels" / "a.tif", cells[1] / np.float32(2))
    with pytest.raises(FormatError, match="one integer from 0"):
        measure(folder, tiny_sam)


def test_an_image_without_objects_has_only_an_automatic_score(tmp_path, tiny_sam):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        noise = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
        tifffile.imwrite(tmp_path / kind / "a.tif", noise * (kind == "images"))
    (scores,) = measure(tmp_path, tiny_sam).images
    assert scores.prompted == {}
    assert scores.automatic["mSA"] == float(scores.automatic["n_found"] == 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clicks": (), "box": False, "automatic": False}, "nothing to evaluate"),
        ({"clicks": (0, 1)}, "numbers of 1 or more"),
        ({"max_objects": -1}, "numbers of 1 or more"),
        ({"max_images": 0}, "numbers of 1 or more"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        EvaluateConfig(tmp_path, **changes)
