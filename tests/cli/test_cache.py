"""``napari-sam embed`` and ``napari-sam cache``: the whole life of a store."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_sam.cache import EmbeddingCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """3 x 3 crops of the tiny network, of which those on the right show nothing."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    pixels[:, 150:] = 100
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


@pytest.fixture
def embedded(cli: Callable[..., Ended], slide: Path, weights: Path) -> Path:
    ended = cli("embed", slide, "--model", weights, "--cache", "kept", "--json")
    assert ended.status == 0, ended.err
    record = json.loads(ended.out)
    assert (record["crops"], record["skipped"], record["planes"]) == (9, 3, 1)
    return slide.parent / "kept"


def records(ended: Ended) -> list[dict[str, object]]:
    return [json.loads(line) for line in ended.out.splitlines()]


def test_embed_again_encodes_nothing_unless_all_crops_are_asked_for(
    cli: Callable[..., Ended], slide: Path, weights: Path, embedded: Path
) -> None:
    chunks = {path: path.stat().st_mtime_ns for path in embedded.rglob("c.*")}
    assert len(chunks) == 6 + 6 + 3
    ended = cli("embed", slide, "--model", weights, "--cache", "kept")
    assert "9 crops, 3 of them background" in ended.out
    after = {path: path.stat().st_mtime_ns for path in embedded.rglob("c.*")}
    assert after == chunks
    ended = cli("embed", slide, "--model", weights, "--cache", "kept", "--all-crops")
    assert "9 crops, 0 of them background" in ended.out
    assert EmbeddingCache(embedded).entries()[0].n_done == 9


def test_one_image_that_fails_does_not_stop_the_others(
    cli: Callable[..., Ended], slide: Path, weights: Path
) -> None:
    slide.with_name("bad.tif").write_text("no image")
    arguments = ("--model", weights, "--cache", "kept")
    ended = cli("embed", "bad.tif", slide, *arguments)
    assert ended.status == 1
    assert "1 of 2 images failed" in ended.err
    assert "slide.tif: 9 crops" in ended.out
    # a pattern and a folder stand for the same images
    for images in ("*.tif", "."):
        again = cli("embed", images, *arguments)
        assert again.status == 1
        assert "slide.tif: 9 crops" in again.out
    assert cli("embed", "none.tif", slide, *arguments).status == 2


def test_limits_of_contrast_are_another_embedding(
    cli: Callable[..., Ended], slide: Path, weights: Path, embedded: Path
) -> None:
    arguments = (slide, "--model", weights, "--cache", "kept", "--limits", "0,400")
    assert cli("embed", *arguments).status == 0
    entries = EmbeddingCache(embedded).entries()
    limits = [entry.key["intensity"]["limits"] for entry in entries]
    assert len(limits) == 2
    assert [[0.0, 400.0]] in limits


def test_each_channel_has_limits_of_its_own(
    cli: Callable[..., Ended], weights: Path, tmp_path: Path
) -> None:
    pixels = np.random.default_rng(0).integers(0, 500, (2, 90, 80), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "two.tif", pixels, metadata={"axes": "CYX"})
    command = ("embed", "two.tif", "--model", weights, "--cache", "kept")
    assert cli(*command, "--limits", "0,400", "--limits", "10,200").status == 0
    assert cli(*command, "--limits", "0,300").status == 0
    found = [e.key["intensity"]["limits"] for e in EmbeddingCache("kept").entries()]
    assert sorted(found) == [[[0.0, 300.0]] * 2, [[0.0, 400.0], [10.0, 200.0]]]
    ended = cli(*command, *("--limits", "0,1") * 3)
    assert ended.status == 2
    assert "3 pairs of limits for 2 channels" in ended.err


@pytest.mark.parametrize("command", ["info", "verify", "clean", "pack"])
def test_a_store_that_is_not_there_is_not_made(
    cli: Callable[..., Ended], tmp_path: Path, command: str
) -> None:
    ended = cli("cache", command, "--cache", "nowhere")
    assert ended.status == 2
    assert "nowhere: no such folder" in ended.err
    assert not (tmp_path / "nowhere").exists()


def test_info(cli: Callable[..., Ended], embedded: Path) -> None:
    (record,) = records(cli("cache", "info", "--cache", embedded, "--json"))
    assert (record["crops"], record["done"], record["skipped"]) == (9, 6, 3)
    text = cli("cache", "info", "--cache", embedded).out
    assert "300 x 300 px, frame 0, slice 0" in text
    assert "1 planes, " in text


def test_pack_verify_repair_clean(
    cli: Callable[..., Ended], slide: Path, weights: Path, embedded: Path
) -> None:
    (before,) = EmbeddingCache(embedded).entries()
    assert cli("cache", "pack", "--cache", embedded).out == f"{before.name}: packed\n"
    assert "packed already" in cli("cache", "pack", "--cache", embedded).out
    assert EmbeddingCache(embedded).entries()[0].is_packed
    ended = cli("cache", "verify", "--cache", embedded)
    assert ended.status == 0
    assert "1 planes, nothing damaged" in ended.out

    (shard,) = embedded.glob("*/packed-1/embeddings/c.*")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    ended = cli("cache", "verify", "--cache", embedded)
    assert ended.status == 1
    assert ended.out == f"{before.name}: damaged crops 0\n"
    assert cli("cache", "verify", "--cache", embedded, "--repair").status == 1
    assert cli("cache", "verify", "--cache", embedded).status == 0
    left = cli("cache", "pack", "--cache", embedded).out
    assert left == f"{before.name}: left, 1 of 9 crops are missing\n"
    cli("embed", slide, "--model", weights, "--cache", "kept")
    assert cli("cache", "pack", "--cache", embedded).out == f"{before.name}: packed\n"
    assert cli("cache", "verify", "--cache", embedded).status == 0

    ended = cli("cache", "clean", "--cache", embedded, "--limit-gb", 0)
    assert ended.out == "removed 1 planes and 0 leftovers\n"
    assert EmbeddingCache(embedded).entries() == []


def test_clean_removes_by_name_and_by_age(
    cli: Callable[..., Ended], embedded: Path
) -> None:
    (entry,) = EmbeddingCache(embedded).entries()
    assert "removed 0" in cli("cache", "clean", "--cache", embedded).out
    kept = cli("cache", "clean", "--cache", embedded, "--unused-days", 1)
    assert "removed 0" in kept.out
    ended = cli("cache", "clean", "nothing", "--cache", embedded)
    assert ended.status == 2
    assert "no stored embeddings 'nothing'" in ended.err
    assert "removed 1" in cli("cache", "clean", entry.name, "--cache", embedded).out
    assert EmbeddingCache(embedded).entries() == []
