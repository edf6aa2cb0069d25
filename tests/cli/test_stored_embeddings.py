"""Commands find what was encoded before, and give the same answer without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile

from napari_sam import Prompts, load_model, open_image
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.planes import Planes
from napari_sam.engine.request import PlaneView
from napari_sam.model import Sam

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.cli.conftest import Ended


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of crops in each call of the encoder."""
    calls: list[int] = []
    encode = Sam.encode

    def counted(self: Sam, x: object) -> object:
        calls.append(len(x))
        return encode(self, x)

    monkeypatch.setattr(Sam, "encode", counted)
    return calls


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    """A picture of 3 x 3 crops."""
    path = tmp_path / "slide.tif"
    pixels = np.random.default_rng(0).integers(0, 256, (300, 290), dtype=np.uint8)
    tifffile.imwrite(path, pixels, photometric="minisblack")
    return path


def read(path: Path) -> np.ndarray:
    return tifffile.imread(path)


def test_a_second_predict_does_not_encode(
    cli: Callable[..., Ended],
    slide: Path,
    weights: Path,
    encoded: list[int],
    tmp_path: Path,
) -> None:
    command = ("predict", slide, "--model", weights, "--points", "20,20", "--quick")
    assert cli(*command, "-o", "one.tif").status == 0
    assert encoded == [1]
    assert cli(*command, "-o", "two.tif").status == 0
    assert encoded == [1]
    # not even where the folder is named, as for `embed`
    folder = tmp_path / "user-cache"
    assert cli(*command, "-o", "three.tif", "--cache", folder).status == 0
    assert encoded == [1]
    assert cli(*command, "-o", "four.tif", "--cache", "other").status == 0
    assert encoded == [1, 1]
    for name in ("two", "three", "four"):
        assert (read(tmp_path / "one.tif") == read(tmp_path / f"{name}.tif")).all()


def test_segment_uses_what_embed_kept_and_adds_nothing_unasked(
    cli: Callable[..., Ended],
    slide: Path,
    weights: Path,
    encoded: list[int],
    tmp_path: Path,
) -> None:
    command = ("segment", slide, "--model", weights, "--every-crop")
    assert cli(*command, "-o", "plain").status == 0
    assert sum(encoded) == 9
    assert not (tmp_path / "user-cache").exists()
    assert cli("embed", slide, "--model", weights, "--all-crops").status == 0
    assert sum(encoded) == 18
    assert cli(*command, "-o", "again").status == 0
    assert sum(encoded) == 18
    labels = [tmp_path / each / "slide.labels.tif" for each in ("plain", "again")]
    assert read(labels[0]).max() > 0
    assert (read(labels[0]) == read(labels[1])).all()
    # another image is not added to the user's folder, but to one that is named
    other = tmp_path / "other.tif"
    tifffile.imwrite(other, read(slide)[::-1], photometric="minisblack")
    command = ("segment", other, "--model", weights, "--every-crop")
    for target in ("a", "b"):
        assert cli(*command, "-o", target).status == 0
    assert sum(encoded) == 36
    assert len(EmbeddingCache(tmp_path / "user-cache").entries()) == 1
    for target in ("c", "d"):
        assert cli(*command, "-o", target, "--cache", "kept").status == 0
    assert sum(encoded) == 45
    assert EmbeddingCache(tmp_path / "kept").entries()[0].n_done == 9
    recipe = tmp_path / "d" / "other.recipe.yaml"
    assert cli("run", recipe, "-o", "e", "--cache", "kept").status == 0
    assert sum(encoded) == 45


def test_the_plugin_keeps_in_the_same_folder(
    cli: Callable[..., Ended], slide: Path, weights: Path, encoded: list[int]
) -> None:
    planes = Planes(load_model(weights))
    planes.keep_on_disk()
    predictor = planes.predictor(PlaneView(open_image(slide)))
    predictor.predict(Prompts(points=[[20, 20]]))
    assert encoded == [1]
    command = ("predict", slide, "--model", weights, "--points", "20,20", "--quick")
    assert cli(*command).status == 0
    assert encoded == [1]


def test_a_limit_removes_what_was_not_used_for_longest(
    cli: Callable[..., Ended], slide: Path, weights: Path, tmp_path: Path
) -> None:
    options = ("--model", weights, "--cache", "kept", "--all-crops")
    for name in ("a", "b"):
        pixels = read(slide) // 2 + (name == "b")
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="minisblack")
        # nine crops have at most 36 kB, as float16 before compression
        limit = ("--cache-limit", "0.00005")
        assert cli("embed", tmp_path / f"{name}.tif", *options, *limit).status == 0
    (entry,) = EmbeddingCache(tmp_path / "kept").entries()
    assert entry.n_done == 9
    assert cli("embed", tmp_path / "a.tif", *options).status == 0
    assert len(EmbeddingCache(tmp_path / "kept").entries()) == 2


def test_a_folder_of_the_user_that_cannot_be_used_is_told_and_left(
    cli: Callable[..., Ended], slide: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "user-cache").mkdir()
    (tmp_path / "user-cache" / "letter.txt").write_text("not embeddings")
    command = ("predict", slide, "--model", weights, "--points", "20,20", "--quick")
    ended = cli(*command, "-o", "one.tif")
    assert ended.status == 0
    assert "is not a store of embeddings" in ended.err
    assert "going on without it" in ended.err
    ended = cli(*command, "-o", "two.tif", "--cache", tmp_path / "user-cache")
    assert ended.status == 2
