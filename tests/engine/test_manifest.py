"""The list of crops survives crashes, and belongs to one piece of work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_sam.engine.manifest import CropRecord, Manifest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cells.manifest.jsonl"


def test_what_was_added_is_read_again_and_the_last_line_counts(path: Path) -> None:
    manifest = Manifest.open(path, "work")
    failed = CropRecord(0, 2, 7, "failed", reason="tile 3: broken\nbadly")
    manifest.add(failed)
    manifest.add(CropRecord(0, 2, 8, "done", objects=12))
    again = Manifest.open(path, "work")
    assert again.records == manifest.records
    assert again.failed == [failed]
    again.add(CropRecord(0, 2, 7, "empty"))
    assert Manifest.open(path, "work").failed == []


def test_it_is_finished_until_another_crop_is_added(path: Path) -> None:
    manifest = Manifest.open(path, "work")
    manifest.add(CropRecord(0, 0, 0, "done", 3))
    assert Manifest.open(path, "work").n_objects is None
    manifest.finish(3)
    again = Manifest.open(path, "work")
    assert again.n_objects == 3
    again.add(CropRecord(0, 0, 0, "done", 4))
    assert Manifest.open(path, "work").n_objects is None


@pytest.mark.parametrize("n_bytes", range(1, 60, 7))
def test_a_line_that_was_cut_off_costs_one_crop(path: Path, n_bytes: int) -> None:
    manifest = Manifest.open(path, "work")
    for crop in range(3):
        manifest.add(CropRecord(0, 0, crop, "done", crop))
    path.write_bytes(path.read_bytes()[:-n_bytes])
    again = Manifest.open(path, "work")
    kept = 3 if n_bytes == 1 else 2
    assert [record.crop for record in again.records.values()] == list(range(kept))
    again.add(CropRecord(0, 0, 9, "empty"))
    read = Manifest.open(path, "work").records
    assert [record.crop for record in read.values()] == [*range(kept), 9]


def test_results_of_other_work_are_not_taken(path: Path) -> None:
    Manifest.open(path, "work").add(CropRecord(0, 0, 0, "done"))
    assert Manifest.open(path, "other work").records == {}
    assert Manifest.open(path, "work").records == {}


def test_no_manifest_is_none(path: Path) -> None:
    assert Manifest.read(path) is None
    path.write_text("precious\n")
    assert Manifest.read(path) is None
