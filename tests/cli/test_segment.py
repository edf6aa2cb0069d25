"""``napari-sam segment`` and ``run``: the library's labels; nothing done is lost."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_sam import load_model, run, segment
from napari_sam.cli import records
from napari_sam.engine.manifest import Manifest
from napari_sam.engine.recipe import Recipe
from napari_sam.engine.records import from_notes
from napari_sam.images import ImageSource
from napari_sam.readers.notes import read_notes

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
    # each object says how it was made: the plugin can review and refine it
    noted = from_notes(read_notes(tmp_path / "out" / "cells.labels.tif"))
    assert list(noted) == list(range(1, n_objects + 1))
    np.testing.assert_allclose(
        [each.predicted_iou for each in noted.values()],
        expected.table["predicted_iou"],
        rtol=1e-6,
    )
    assert {each.index for each in noted.values()} == {(None, None)}
    assert all(len(each.points) == 1 for each in noted.values())


def test_an_image_that_fails_does_not_stop_the_others(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tif"
    bad.write_bytes(b"II*\0 no TIFF")
    ended = cli("segment", bad, image, "--model", weights, "-o", "out", "--json")
    assert ended.status == 1
    records = [json.loads(line) for line in ended.out.splitlines()]
    ends = [record for record in records if record["event"] != "progress"]
    assert [sorted(record) for record in ends] == [
        ["error", "event", "image"],
        ["event", "failed_crops", "image", "labels", "objects", "seconds"],
    ]
    assert "1 of 2 images failed" in ended.err
    assert (tmp_path / "out" / "cells.labels.tif").exists()


def test_thresholds_are_set_by_name_and_kept_in_the_recipe(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    arguments = ("segment", image, "--model", weights, "-o", "out", "--mode", "grid")
    ended = cli(*arguments, "--set", "grid.points_per_side=3", "--set", "min_area=9")
    assert ended.status == 0, ended.err
    recipe = Recipe.read(tmp_path / "out" / "cells.recipe.yaml")
    assert recipe.config.min_area == 9
    assert recipe.config.grid.points_per_side == 3
    ended = cli(*arguments, "--min-area", "9", "--exclude-border", "--overwrite")
    assert ended.status == 0, ended.err
    recipe = Recipe.read(tmp_path / "out" / "cells.recipe.yaml")
    assert (recipe.config.min_area, recipe.config.drop_at_border) == (9, True)
    ended = cli(*arguments, "--min-area", "9", "--max-area", "8")
    assert ended.status == 2
    assert "at least 9 px and at most 8 px" in ended.err
    ended = cli(*arguments, "--set", "points=3")
    assert ended.status == 2
    assert "unknown setting 'points'" in ended.err


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
    noted = from_notes(read_notes(tmp_path / "stack.labels.tif"))
    assert {(n, each.index[0]) for n, each in noted.items()} == found


def test_one_plane_of_a_stack_is_chosen(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("segment", stack, "--model", weights, "--plane", "1", "--overlay")
    assert ended.status == 0, ended.err
    assert tifffile.imread(tmp_path / "stack.labels.tif").shape == (40, 50)


def test_a_plane_that_is_not_there_is_refused(
    cli: Callable[..., Ended], stack: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("segment", stack, "--model", weights, "--plane", "5")
    assert ended.status == 2
    assert "2 slices" in ended.err
    assert not (tmp_path / "stack.labels.tif").exists()


def test_a_stack_among_images_has_labels_without_overlay(
    cli: Callable[..., Ended], image: Path, stack: Path, weights: Path, tmp_path: Path
) -> None:
    given = ("segment", image, stack, "--model", weights, "--overlay", "-o", "out")
    ended = cli(*given)
    assert ended.status == 0, ended.err
    assert "no overlay of stack: it has 2 planes" in ended.err
    names = {path.name for path in (tmp_path / "out").glob("*.*")}
    assert {"stack.labels.tif", "cells.overlay.png"} <= names
    assert "stack.overlay.png" not in names
    assert "were there already" in cli(*given).out
    ended = cli(*given, "--set", "min_area=30")
    assert ended.status == 1
    assert "made with other settings" in ended.err


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


@pytest.fixture
def slide(tmp_path: Path, cells: tuple[np.ndarray, np.ndarray]) -> Path:
    """Many crops of the tiny network."""
    path = tmp_path / "slide.tif"
    pixels = np.tile(cells[0], (6, 5))
    pixels += np.random.default_rng(0).integers(0, 20, pixels.shape, np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


def wait_for_crops(manifest: Path, n: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not manifest.exists() or len(manifest.read_bytes().splitlines()) <= n:
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline, "no crop was done"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_was_stopped_goes_on(
    cli: Callable[..., Ended],
    slide: Path,
    weights: Path,
    tmp_path: Path,
    blow: signal.Signals,
) -> None:
    expected = run(segment(slide, load_model(weights))).labels
    command = ["segment", str(slide), "--model", str(weights), "-o", "out"]
    # A shell starts what runs in its background with interrupts ignored.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from napari_sam.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        cwd=tmp_path,
    )
    path = tmp_path / "out" / "slide.manifest.jsonl"
    wait_for_crops(path, 3, process)
    process.send_signal(blow)
    _, printed = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130}[blow]
    if blow is signal.SIGINT:
        assert b"the same command goes on" in printed
    assert not (tmp_path / "out" / "slide.labels.tif").exists()
    n_done = len(Manifest.read(path).records)
    assert n_done >= 3
    ended = cli(*command)
    assert ended.status == 0, ended.err
    written = tifffile.imread(tmp_path / "out" / "slide.labels.tif")
    np.testing.assert_array_equal(written, expected)
    assert expected.max() > 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    crops = [line["crop"] for line in lines if "crop" in line]
    assert sorted(crops) == list(range(len(crops)))  # none of them twice
    assert "were there already" in cli(*command).out


def test_crops_that_fail_end_with_status_1_and_can_be_tried_again(
    cli: Callable[..., Ended],
    image: Path,
    slide: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = run(segment(slide, load_model(weights))).labels
    read = ImageSource.read

    def failing(self, box=None, *arguments, **options):
        if box is not None and box.y0 == box.x0 == 96 and self.name == "slide":
            raise OSError("the share is gone")
        return read(self, box, *arguments, **options)

    command = ("segment", slide, image, "--model", weights, "-o", "out")
    with monkeypatch.context() as context:
        context.setattr(ImageSource, "read", failing)
        ended = cli(*command)
    assert ended.status == 1
    assert "but 1 crops failed" in ended.out
    assert "the share is gone" in ended.err
    assert "1 of 2 images failed, or parts of them" in ended.err
    ended = cli(*command, "--only-failed", "--json")
    assert ended.status == 0, ended.err
    ends = [json.loads(line) for line in ended.out.splitlines()]
    ends = [record for record in ends if record["event"] == "done"]
    assert [record["image"] for record in ends] == [str(slide)]
    assert ends[0]["failed_crops"] == 0
    written = tifffile.imread(tmp_path / "out" / "slide.labels.tif")
    np.testing.assert_array_equal(written, expected)
    ended = cli(*command, "--only-failed")
    assert (ended.status, ended.out) == (0, "")
    assert "nothing to do" in ended.err


def test_a_fault_of_ours_does_not_stop_the_others(
    cli: Callable[..., Ended],
    image: Path,
    slide: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read = ImageSource.read

    def failing(self, box=None, *arguments, **options):
        if self.name == "slide":
            raise ZeroDivisionError("oh")
        return read(self, box, *arguments, **options)

    monkeypatch.setattr(ImageSource, "read", failing)
    ended = cli("segment", slide, image, "--model", weights, "-o", "out")
    assert ended.status == 1
    assert "ZeroDivisionError: oh; please report it" in ended.err
    assert "cells.tif: " in ended.out


def test_a_recipe_is_run_again(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    arguments = ("--model", weights, "--invert", "--diameter", "30")
    assert cli("segment", image, *arguments, "-o", "one").status == 0
    recipe = tmp_path / "one" / "cells.recipe.yaml"
    ended = cli("run", recipe, "-o", "two")
    assert ended.status == 0, ended.err
    np.testing.assert_array_equal(
        *(tifffile.imread(tmp_path / n / "cells.labels.tif") for n in ("one", "two"))
    )
    text = recipe.read_text()
    assert f"name: {weights}" in text
    recipe.write_text(text.replace("invert: true", "invert: maybe"))
    ended = cli("run", recipe, "-o", "three")
    assert ended.status == 2
    assert "is no recipe" in ended.err
    pixels = tifffile.imread(image)
    tifffile.imwrite(image, pixels[::-1], photometric="minisblack")
    recipe.write_text(text)
    ended = cli("run", recipe, "-o", "three")
    assert ended.status == 2
    assert "the pixels of" in ended.err
    assert not (tmp_path / "three").exists()


@pytest.mark.parametrize("named", ["default", "moved.safetensors"])
def test_a_recipe_that_is_run_says_which_weights_were_named(
    cli: Callable[..., Ended],
    image: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str,
) -> None:
    assert cli("segment", image, "--model", weights, "-o", "one").status == 0
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(weights.read_bytes())
    monkeypatch.setattr(
        "napari_sam.weights.load.load_model", lambda _, **how: load_model(moved, **how)
    )
    recipe = tmp_path / "one" / "cells.recipe.yaml"
    assert cli("run", recipe, "--model", named, "-o", "two").status == 0
    name = Recipe.read(tmp_path / "two" / "cells.recipe.yaml").weights.name
    assert name == (str(moved) if named == moved.name else named)


def test_a_plan_is_printed_and_nothing_written(
    cli: Callable[..., Ended], image: Path, slide: Path, weights: Path, tmp_path: Path
) -> None:
    command = ("segment", tmp_path, "--model", weights, "-o", "out", "--plan")
    ended = cli(*command, "--json")
    assert ended.status == 0, ended.err
    small, large = (json.loads(line) for line in ended.out.splitlines())
    assert (small["crops"], small["pixel_bytes"]) == (1, 96 * 128)
    # 576 x 640 px in cores of 96 px with halos of 16
    assert (large["crops"], large["left"]) == (42, 42)
    assert large["label_bytes"] == 4 * 576 * 640
    assert large["seconds"] == pytest.approx(42 * small["seconds"], abs=0.05)
    assert "43 crops at" in cli(*command).out
    assert not (tmp_path / "out").exists()


def test_a_plan_counts_what_was_done_with_the_same_settings(
    cli: Callable[..., Ended], image: Path, weights: Path
) -> None:
    command = ("segment", image, "--model", weights, "-o", "out", "--json")
    assert cli(*command).status == 0

    def left(*options: str) -> int:
        return json.loads(cli(*command, "--plan", *options).out)["left"]

    assert left() == 0
    assert left("--invert") == 1
    assert left("--overwrite") == 1


def test_progress_is_said_as_json_lines(
    cli: Callable[..., Ended],
    slide: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(records, "PROGRESS_EVERY_S", 0)
    ended = cli("segment", slide, "--model", weights, "--json")
    *steps, end = (json.loads(line) for line in ended.out.splitlines())
    assert end["event"] == "done"
    assert {step["event"] for step in steps} == {"progress"}
    assert [step["done"] for step in steps] == sorted(step["done"] for step in steps)
    assert steps[-1]["done"] == steps[-1]["total"] == 42
    assert any(step["remaining_s"] for step in steps)
    assert {"segment", "stitch", "write labels"} <= {step["what"] for step in steps}


def test_a_series_is_chosen_in_every_image(
    cli: Callable[..., Ended], image: Path, weights: Path, tmp_path: Path
) -> None:
    twin = image.with_name("twin.tif")
    twin.write_bytes(image.read_bytes())
    ended = cli(
        *("segment", str(image), str(twin), "--series", "0"),
        *("--model", str(weights), "-o", "out"),
    )
    assert ended.status == 0, ended.err
    written = {path.name for path in (tmp_path / "out").glob("*.labels.tif")}
    assert written == {f"{image.stem}.labels.tif", "twin.labels.tif"}
