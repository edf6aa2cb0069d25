"""Real damage of files: what cannot be read is recorded, all else is done."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_sam.engine.manifest import Manifest
from napari_sam.tiling import Box, CropGrid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended

TILE = Box(128, 128, 192, 192)
GRID = CropGrid((288, 256), size=128, halo=16)
LOST = [crop.index for crop in GRID if crop.box.intersection(TILE)]


@pytest.fixture
def slide(tmp_path: Path, cells: tuple[np.ndarray, np.ndarray]) -> Path:
    """Nine crops of the tiny network, or a few more."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, np.tile(cells[0], (3, 2)), photometric="minisblack")
    return path


@pytest.fixture
def damaged(slide: Path, tmp_path: Path) -> Path:
    """The slide in tiles of 64 px, of which one is no zlib."""
    pixels = tifffile.imread(slide)
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(
        path, pixels, tile=(64, 64), compression="zlib", photometric="minisblack"
    )
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        offset, length = page.dataoffsets[10], page.databytecounts[10]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * length)
    return path


def test_a_damaged_tile_costs_its_crop_and_nothing_else(
    cli: Callable[..., Ended], damaged: Path, weights: Path, tmp_path: Path
) -> None:
    command = ("segment", damaged, "--model", weights, "-o", "out", "--cache", "kept")
    ended = cli(*command, "--measurements", "--overlay")
    assert ended.status == 1
    assert "parts of damaged that were looked at for contrast limits" in ended.err
    manifest = Manifest.read(tmp_path / "out" / "damaged.manifest.jsonl")
    assert len(manifest.records) == len(GRID)
    assert 0 < len(LOST) < len(GRID)
    assert [each.crop for each in manifest.failed] == LOST
    assert "cannot be decoded" in manifest.failed[0].reason
    labels = tifffile.imread(tmp_path / "out" / "damaged.labels.tif")
    assert labels.any()
    assert (tmp_path / "out" / "damaged.overlay.png").exists()
    with (tmp_path / "out" / "damaged.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["object"]) for row in rows] == np.unique(labels)[1:].tolist()
    # what is measured in one window with the tile has no intensities, but a size
    assert all(row["area"] for row in rows)
    assert not any(row["intensity_mean"] for row in rows)
    assert "objects without intensities" in ended.err


def test_embed_leaves_out_what_is_damaged(
    cli: Callable[..., Ended], damaged: Path, weights: Path
) -> None:
    command = ("embed", damaged, "--model", weights, "--cache", "kept", "--json")
    ended = cli(*command)
    assert ended.status == 1
    facts = json.loads(ended.out)
    assert facts["crops"] == len(GRID)
    expected = [f"frame 0 slice 0 crop {crop}" for crop in LOST]
    assert [reason.split(":")[0] for reason in facts["failed"]] == expected
    assert "1 of 1 images failed, or parts of them" in ended.err
    info = cli("cache", "info", "--cache", "kept").out.splitlines()[1].split()
    assert info[1:3] == [str(len(GRID)), str(len(GRID) - len(LOST))]


def test_a_fresh_copy_is_segmented_from_the_start(
    cli: Callable[..., Ended],
    damaged: Path,
    slide: Path,
    weights: Path,
    tmp_path: Path,
) -> None:
    command = ("segment", damaged, "--model", weights, "-o", "out", "--only-failed")
    assert cli(*command[:-1]).status == 1
    damaged.write_bytes(slide.read_bytes())
    assert "exists already" in cli(*command).err  # the pixels are others
    ended = cli(*command, "--overwrite")
    assert ended.status == 0, ended.err
    assert cli("segment", slide, "--model", weights, "-o", "out").status == 0
    np.testing.assert_array_equal(
        *(tifffile.imread(tmp_path / "out" / f"{n}.labels.tif") for n in
          ("damaged", "slide"))
    )  # fmt: skip


@pytest.fixture
def folder(image: Path, tmp_path: Path) -> Path:
    """One good image, and three that cannot be opened."""
    folder = tmp_path / "night"
    folder.mkdir()
    image.rename(folder / "good.tif")
    (folder / "cut.tif").write_bytes(b"II*\0 no TIFF")
    (folder / "empty.png").touch()
    (folder / "lost.zarr").mkdir()
    (folder / "lost.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_ty')
    return folder


def test_what_cannot_be_opened_is_recorded_and_tried_again(
    cli: Callable[..., Ended], folder: Path, weights: Path, tmp_path: Path
) -> None:
    command = ("segment", folder, "--model", weights, "-o", "out")
    ended = cli(*command)
    assert ended.status == 1
    assert "3 of 4 images failed" in ended.err
    assert (tmp_path / "out" / "good.labels.tif").exists()
    lines = (tmp_path / "out" / "empty.manifest.jsonl").read_text().splitlines()
    assert "is empty, 0 bytes" in json.loads(lines[1])["image"]
    (folder / "cut.tif").write_bytes((folder / "good.tif").read_bytes())
    ended = cli(*command, "--only-failed", "--json")
    assert ended.status == 1
    ends = [json.loads(line) for line in ended.out.splitlines()]
    states = {each["image"].rpartition("/")[2]: each["event"] for each in ends}
    assert states == {"cut.tif": "done", "empty.png": "failed", "lost.zarr": "failed"}
    written = [tmp_path / "out" / f"{name}.labels.tif" for name in ("cut", "good")]
    np.testing.assert_array_equal(*map(tifffile.imread, written))


def test_a_plan_names_what_cannot_be_opened(
    cli: Callable[..., Ended], folder: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("segment", folder, "--model", weights, "-o", "out", "--plan", "--json")
    assert ended.status == 1
    (planned,) = (json.loads(line) for line in ended.out.splitlines())
    assert planned["crops"] == 1
    assert "3 of 4 images cannot be used" in ended.err
    assert not (tmp_path / "out").exists()
