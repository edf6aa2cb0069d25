"""By way of the disk the labels are those of `segment`; nothing done is lost."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import yaml
import zarr

from napari_sam import open_image
from napari_sam.engine import batch, fingerprint
from napari_sam.engine.automatic import AutomaticConfig, segment
from napari_sam.engine.batch import Outcome, segment_file, segment_recipe
from napari_sam.engine.embed import open_plane
from napari_sam.engine.files import ImageOptions, Outputs, plan_outputs
from napari_sam.engine.grid_masks import GridMode
from napari_sam.engine.jobs import run
from napari_sam.engine.manifest import Manifest
from napari_sam.engine.proposals import ProposalMode
from napari_sam.engine.recipe import Recipe, change_config
from napari_sam.errors import FileError, FormatError, InputError
from napari_sam.tiling import CropGrid
from tests.engine.oracle import OracleSam, image_of

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (150, 190)


@pytest.fixture
def truth() -> np.ndarray:
    """Blocks of many sizes, one of them longer than any crop."""
    labels = np.zeros(SHAPE, np.uint32)
    rng = np.random.default_rng(1)
    for number in range(2, 90):
        y, x = rng.integers(0, SHAPE)
        h, w = rng.integers(3, 16, 2)
        if not labels[y : y + h, x : x + w].any():
            labels[y : y + h, x : x + w] = number
    labels[72:77, 20:170] = 1
    return labels


@pytest.fixture
def oracle(truth: np.ndarray) -> OracleSam:
    oracle = OracleSam(truth, scale=4)
    oracle.name, oracle.weights_sha256 = "oracle", "0" * 64
    return oracle


@pytest.fixture
def image(truth: np.ndarray, tmp_path: Path) -> Path:
    path = tmp_path / "blocks.tif"
    tifffile.imwrite(path, image_of(truth), photometric="rgb")
    return path


# enlarged four times: crops of 32 px with a core of 24
OPTIONS = ImageOptions(diameter=10)
CONFIG = AutomaticConfig(skip_background=False)


def outputs_in(folder: Path, image: Path, **wanted: bool) -> Outputs:
    return plan_outputs([image], folder, **wanted)[0]


@pytest.fixture
def expected(truth: np.ndarray, image: Path) -> np.ndarray:
    grid = CropGrid.for_diameter(SHAPE, 10, size=128, halo=16)
    labels = run(
        segment(image, OracleSam(truth, scale=4), grid=grid, config=CONFIG)
    ).labels
    assert labels.max() > 20
    return labels


def test_the_labels_are_those_of_segment(
    image: Path, oracle: OracleSam, expected: np.ndarray, tmp_path: Path
) -> None:
    to = outputs_in(tmp_path / "out", image, measurements=True, seams=True)
    report = run(segment_file(image, to, oracle, OPTIONS, CONFIG))
    np.testing.assert_array_equal(tifffile.imread(to.labels), expected)
    assert report.n_objects == expected.max()
    assert not to.crops.exists()
    with to.measurements.open(newline="") as file:
        rows = list(csv.DictReader(file))
    areas = np.bincount(expected.ravel())[1:].tolist()
    assert [int(row["area"]) for row in rows] == areas
    assert float(rows[0]["predicted_iou"]) == pytest.approx(0.9)


def test_labels_that_are_ready_are_not_made_again_for_one_more_file(
    image: Path, oracle: OracleSam, tmp_path: Path
) -> None:
    to = outputs_in(tmp_path / "out", image)
    run(segment_file(image, to, oracle, OPTIONS, CONFIG))
    by_hand = np.full_like(tifffile.imread(to.labels), 7)
    tifffile.imwrite(to.labels, by_hand)
    more = outputs_in(tmp_path / "out", image, seams=True)
    with pytest.raises(FileError, match="exists already"):
        run(segment_file(image, more, oracle, OPTIONS, CONFIG))
    np.testing.assert_array_equal(tifffile.imread(to.labels), by_hand)


def test_as_zarr_too(
    image: Path, oracle: OracleSam, expected: np.ndarray, tmp_path: Path
) -> None:
    to = plan_outputs([image], tmp_path / "out", ending=".zarr")[0]
    run(segment_file(image, to, oracle, OPTIONS, CONFIG))
    group = zarr.open_group(tmp_path / "out" / "blocks.labels.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], expected)
    assert "image-label" in group.attrs["ome"]


class Shuffled:
    """Workers that finish in any order."""

    def __init__(self, oracle: OracleSam, seed: int) -> None:
        self.oracle, self.seed = oracle, seed

    def outcomes(self, recipe, places):
        opened = recipe.open()
        order = np.random.default_rng(self.seed).permutation(len(places))
        embedding = open_plane(
            opened.source,
            self.oracle,
            grid=opened.grid,
            intensity=opened.intensity,
        )
        for i in order:
            step = batch.Step(0, 1, "")
            work = batch.find_outcome(embedding, places[i][2], recipe.config, step)
            yield run(work, progress=False)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_gives_the_same(
    seed: int, image: Path, oracle: OracleSam, expected: np.ndarray, tmp_path: Path
) -> None:
    to = outputs_in(tmp_path, image)
    workers = Shuffled(oracle, seed)
    run(segment_file(image, to, oracle, OPTIONS, CONFIG, workers=workers))
    np.testing.assert_array_equal(tifffile.imread(to.labels), expected)


def test_a_closed_job_goes_on_where_it_was(
    image: Path, oracle: OracleSam, expected: np.ndarray, tmp_path: Path
) -> None:
    to = outputs_in(tmp_path, image)
    job = segment_file(image, to, oracle, OPTIONS, CONFIG)
    while next(job).done < 10:
        pass
    job.close()
    assert not to.labels.exists()
    n_before = oracle.n_encoded
    run(segment_file(image, to, oracle, OPTIONS, CONFIG))
    np.testing.assert_array_equal(tifffile.imread(to.labels), expected)
    n_crops = len(Manifest.read(to.manifest).records)
    assert n_before >= 10
    assert oracle.n_encoded == n_crops
    # and what is complete is not touched
    report = run(segment_file(image, to, oracle, OPTIONS, CONFIG))
    assert report.was_done
    assert (report.n_objects, oracle.n_encoded) == (expected.max(), n_crops)


def test_a_damaged_file_of_a_crop_is_made_again(
    image: Path, oracle: OracleSam, expected: np.ndarray, tmp_path: Path
) -> None:
    to = outputs_in(tmp_path, image)
    job = segment_file(image, to, oracle, OPTIONS, CONFIG)
    while next(job).done < 10:
        pass
    job.close()
    files = sorted((to.crops / "t0_z0").glob("*.npz"))
    files[3].write_bytes(files[3].read_bytes()[:-9])
    files[5].unlink()
    n_before = oracle.n_encoded
    run(segment_file(image, to, oracle, OPTIONS, CONFIG))
    np.testing.assert_array_equal(tifffile.imread(to.labels), expected)
    n_crops = len(Manifest.read(to.manifest).records)
    assert oracle.n_encoded - n_before == n_crops - len(files) + 2


def test_other_settings_do_not_take_over_what_is_there(
    image: Path, oracle: OracleSam, tmp_path: Path
) -> None:
    to = outputs_in(tmp_path, image)
    run(segment_file(image, to, oracle, OPTIONS, CONFIG))
    other = replace(CONFIG, min_area=40)
    with pytest.raises(FileError, match="exists already"):
        run(segment_file(image, to, oracle, OPTIONS, other))
    before = tifffile.imread(to.labels)
    run(segment_file(image, replace(to, overwrite=True), oracle, OPTIONS, other))
    assert 0 < tifffile.imread(to.labels).max() < before.max()


def test_background_is_skipped_and_recorded(
    truth: np.ndarray, oracle: OracleSam, tmp_path: Path
) -> None:
    pixels = image_of(truth)
    pixels[:, 100:] = 200
    path = tmp_path / "half.tif"
    tifffile.imwrite(path, pixels, photometric="rgb")
    to = outputs_in(tmp_path, path)
    run(segment_file(path, to, oracle, OPTIONS))
    records = Manifest.read(to.manifest).records.values()
    grid = CropGrid.for_diameter(SHAPE, 10, size=128, halo=16)
    skipped = {record.crop for record in records if record.state == "skipped"}
    assert skipped == {crop.index for crop in grid if crop.box.x0 >= 100}
    assert oracle.n_encoded == len(grid) - len(skipped)


def damaged(path: Path, y: int, x: int, to: Path) -> None:
    """Copy a tiled TIFF with one tile that cannot be decoded."""
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        per_row = -(-page.imagewidth // page.tilewidth)
        tile = y // page.tilelength * per_row + x // page.tilewidth
        start, n = page.dataoffsets[tile], page.databytecounts[tile]
    data[start : start + n] = bytes(n)
    to.write_bytes(data)


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A larger image in tiles, of which a fingerprint reads samples only."""
    pixels = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), np.uint8)
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(64, 64), compression="zlib")
    return path


def test_a_crop_that_fails_is_recorded_and_tried_again(
    slide: Path, tiny_sam, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "FULL_BYTES", 0)
    options = ImageOptions(diameter=80)  # crops of 256 px
    good = slide.read_bytes()
    undisturbed = outputs_in(tmp_path / "good", slide)
    run(segment_file(slide, undisturbed, tiny_sam, options))
    damaged(slide, 270, 270, slide)
    to = outputs_in(tmp_path / "out", slide)
    report = run(segment_file(slide, to, tiny_sam, options))
    grid = CropGrid.for_diameter((1000, 1000), 80, size=128, halo=16)
    tile = (256, 256, 320, 320)
    touched = [c.index for c in grid if _overlaps(c.box, tile)]
    assert [record.crop for record in report.failed] == touched
    assert "cannot be decoded" in report.failed[0].reason
    assert to.labels.exists()
    n_lines = len(to.manifest.read_text().splitlines())
    slide.write_bytes(good)
    report = run(segment_file(slide, to, tiny_sam, options))
    assert report.failed == ()
    lines = to.manifest.read_text().splitlines()[n_lines:]
    again = [json.loads(line).get("crop") for line in lines]
    assert again == [*touched, None]
    np.testing.assert_array_equal(
        tifffile.imread(to.labels), tifffile.imread(undisturbed.labels)
    )


def _overlaps(box, other) -> bool:
    y0, x0, y1, x1 = other
    return box.y0 < y1 and y0 < box.y1 and box.x0 < x1 and x0 < box.x1


def test_a_stack_has_ids_of_its_own_in_each_plane(tiny_sam, tmp_path: Path) -> None:
    planes = np.random.default_rng(0).integers(0, 255, (2, 60, 70), np.uint8)
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, planes, photometric="minisblack", metadata={"axes": "ZYX"})
    to = outputs_in(tmp_path, path)
    run(segment_file(path, to, tiny_sam))
    expected = run(segment(path, tiny_sam)).labels
    np.testing.assert_array_equal(tifffile.imread(to.labels), expected)


class TestRecipe:
    """The file beside the labels makes them again."""

    def test_it_gives_identical_labels(
        self, image: Path, oracle: OracleSam, tmp_path: Path
    ) -> None:
        to = outputs_in(tmp_path / "out", image)
        run(segment_file(image, to, oracle, OPTIONS, replace(CONFIG, min_area=20)))
        recipe = Recipe.read(to.recipe)
        assert recipe.weights.sha256 == "0" * 64
        assert recipe.intensity.limits == ((0.0, 255.0),) * 3
        assert recipe.config.min_area == 20
        assert recipe.other_versions() == []
        again = outputs_in(tmp_path / "again", image)
        run(segment_recipe(recipe, again, oracle))
        np.testing.assert_array_equal(
            tifffile.imread(again.labels), tifffile.imread(to.labels)
        )
        assert Recipe.read(again.recipe) == recipe

    def test_changed_weights_and_pixels_are_reported(
        self, image: Path, oracle: OracleSam, tmp_path: Path
    ) -> None:
        to = outputs_in(tmp_path / "out", image)
        run(segment_file(image, to, oracle, OPTIONS, CONFIG))
        recipe = Recipe.read(to.recipe)
        pixels = open_image(image).read()
        pixels[3, 4, 2] += 1
        tifffile.imwrite(image, pixels, photometric="rgb")
        oracle.weights_sha256 = "1" * 64
        again = outputs_in(tmp_path / "again", image)
        with pytest.raises(InputError) as error:
            run(segment_recipe(recipe, again, oracle))
        assert "the checksum 1111" in str(error.value)
        assert "the pixels of" in str(error.value)
        assert not (tmp_path / "again").exists()

    def test_what_is_no_recipe_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "a.recipe.yaml"
        path.write_text(yaml.safe_dump({"image": 3}))
        with pytest.raises(FormatError, match="is no recipe"):
            Recipe.read(path)
        path.write_text("a: [")
        with pytest.raises(FormatError, match="is no YAML"):
            Recipe.read(path)

    def test_limits_of_the_user_are_kept(self, tiny_sam, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 4000, (64, 64), np.uint16)
        path = tmp_path / "deep.tif"
        tifffile.imwrite(path, pixels)
        to = outputs_in(tmp_path, path)
        run(segment_file(path, to, tiny_sam, ImageOptions(limits=((100, 3000),))))
        assert Recipe.read(to.recipe).intensity.limits == ((100.0, 3000.0),)


def test_an_outcome_of_a_crop_that_cannot_be_read_says_so(
    slide: Path, tiny_sam, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.tif"
    damaged(slide, 10, 10, bad)
    plane = open_plane(open_image(bad), tiny_sam)
    outcome = run(batch.find_outcome(plane, 0, CONFIG, batch.Step(0, 1, "")))
    assert isinstance(outcome, Outcome)
    assert outcome.record.state == "failed"
    assert outcome.data == b""


def test_settings_of_a_search_are_changed_by_name() -> None:
    changes = {"min_area": 5, "grid.points_per_side": 8, "proposals.crowding": "1e-2"}
    changed = change_config(AutomaticConfig(mode="grid"), changes)
    assert (changed.mode, changed.min_area) == ("grid", 5)
    assert changed.grid == GridMode(points_per_side=8)
    assert changed.proposals == ProposalMode(crowding=0.01)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("points_per_side", 8, r"unknown setting .*grid.points_per_side"),
        ("grid", 8, "unknown setting 'grid'"),
        ("other.batch", 8, "unknown setting"),
        ("grid.batch", "many", r"grid.batch: .*valid integer"),
        ("proposals.foreground", 2, "give a value from 0 to 1"),
    ],
)
def test_wrong_settings_of_a_search_are_named(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        change_config(AutomaticConfig(), {name: value})
