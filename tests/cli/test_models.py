"""``napari-sam models``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from napari_sam.weights.download import BUNDLED
from napari_sam.weights.table import list_models

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_sam.model import Sam
    from tests.cli.conftest import Ended


def test_list_shows_every_model_and_marks_the_restricted_ones(
    cli: Callable[..., Ended],
) -> None:
    lines = cli("models", "list").out.splitlines()[1:]
    specs = list_models()
    assert [line.split()[0] for line in lines] == [spec.name for spec in specs]
    for line, spec in zip(lines, specs, strict=True):
        assert ("(not commercial)" in line) == spec.non_commercial


def test_list_as_json_has_one_record_a_line(cli: Callable[..., Ended]) -> None:
    records = [
        json.loads(line)
        for line in cli("models", "list", "--json").out.split("\n")
        if line
    ]
    assert [r["name"] for r in records] == [spec.name for spec in list_models()]
    (vit_b,) = [r for r in records if r["name"] == "vit_b"]
    assert vit_b["bytes"] == 375_042_383
    assert vit_b["licence"] == "Apache-2.0"


def test_info_describes_published_weights(cli: Callable[..., Ended]) -> None:
    out = cli("models", "info", "medsam").out
    assert "CC-BY-4.0" in out
    assert "sha256:34b34b78" in out


def test_info_describes_a_file(
    cli: Callable[..., Ended], weights: Path, tiny_sam: Sam
) -> None:
    facts = json.loads(cli("models", "info", weights, "--json").out)
    assert facts["network"] == "tiny"
    assert facts["input_px"] == 128
    assert facts["parameters"] == sum(p.numel() for p in tiny_sam.state_dict().values())
    assert facts["proposal_head"] is True


def test_info_about_a_damaged_file_says_so(
    cli: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"nothing of the kind")
    ended = cli("models", "info", "bad.safetensors")
    assert ended.status == 1
    assert "bad.safetensors" in ended.err


def test_download_shows_the_licence_and_prints_the_path(
    cli: Callable[..., Ended],
) -> None:
    ended = cli("models", "download", "default")
    assert "licence BSD-3-Clause" in ended.err
    # the weights of the package need no download; a source tree may lack them
    if BUNDLED.is_file():
        assert (ended.status, ended.out.strip()) == (0, str(BUNDLED))
    else:
        assert (ended.status, ended.out) == (1, "")
        assert "are missing" in ended.err
