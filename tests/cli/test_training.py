"""``napari-sam train`` and ``napari-sam evaluate``, on five discs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import tifffile

from napari_sam import run
from napari_sam.training.evaluate import EvaluateConfig
from napari_sam.training.evaluate import evaluate as evaluate_job
from napari_sam.training.loop import train_step

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam.training.loop import TrainingState
    from tests.cli.conftest import Ended

TINY = """
model: tiny
frame: 128
windows: [[128, 1]]
window_shares: [1.0]
warmup_steps: 1
decay_steps: 1
warm_steps: 0
workers: 0
"""


@pytest.fixture
def data(tmp_path: Path, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]) -> Path:
    """A folder with one image and its labels."""
    for kind, array in zip(("images", "labels"), cells, strict=True):
        folder = tmp_path / "data" / kind
        folder.mkdir(parents=True)
        tifffile.imwrite(folder / "cells.tif", array, photometric="minisblack")
    return tmp_path / "data"


def test_train_writes_weights_and_goes_on(
    cli: Callable[..., Ended], data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    arguments = ("train", "--config", config, "--data", data, "-o", "run")
    ended = cli(*arguments, "--set", "steps=2", "--set", "learning_rate=1e-4")
    assert ended.status == 0, ended.err
    assert ended.out.strip() == "run/weights.safetensors"
    curves = tmp_path / "run" / "curves.csv"
    assert len(curves.read_text().splitlines()) == 1 + 2
    assert cli(*arguments, "--set", "steps=3").status == 0
    assert len(curves.read_text().splitlines()) == 1 + 3
    facts = json.loads(cli("models", "info", "run/weights.safetensors", "--json").out)
    assert facts["network"] == "tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "no_such_name=1"], "no_such_name"),
        (["--set", "steps"], "write NAME=VALUE"),
        (["--set", "windows=[[128"], "is no YAML"),
        (["--set", "steps=many"], "setting steps = 'many'"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_settings_are_reported(
    cli: Callable[..., Ended], tmp_path: Path, arguments: list[str], message: str
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY)
    ended = cli("train", "--config", config, "-o", "run", *arguments)
    assert ended.status == 2
    assert message in ended.err


def test_a_training_that_is_interrupted_says_how_to_go_on(
    cli: Callable[..., Ended],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(TINY + "steps: 3\ncheckpoint_every_s: 999\n")
    arguments = ("train", "--config", config, "--data", data, "-o", "run")

    def step(state: TrainingState, *given: Any) -> dict[str, float]:
        if state.step == 2:
            raise KeyboardInterrupt
        return train_step(state, *given)

    with monkeypatch.context() as patch:
        patch.setattr("napari_sam.training.loop.train_step", step)
        ended = cli(*arguments)
    assert ended.status == 130
    assert "the same command goes on" in ended.err
    assert cli(*arguments).status == 0
    curves = (tmp_path / "run" / "curves.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in curves] == ["step", "1", "2", "3"]


def test_evaluate_prints_and_saves_what_the_library_measures(
    cli: Callable[..., Ended], data: Path, weights: Path, tmp_path: Path
) -> None:
    ended = cli("evaluate", "--data", data, "-m", weights, "--json", "-o", "scores")
    assert ended.status == 0, ended.err
    config = EvaluateConfig(data=data, weights=str(weights))
    (expected,) = run(evaluate_job(config)).summary("dataset and modality")
    record = json.loads(ended.out)
    assert record["group"] == "data"
    for name in ("click_1", "box", "mSA"):
        assert record[name] == pytest.approx(expected[name])
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert summary["model"] == "tiny"


def test_evaluate_prints_a_table(
    cli: Callable[..., Ended], data: Path, weights: Path
) -> None:
    ended = cli("evaluate", "--data", data, "-m", weights, "--max-objects", "2")
    header, row = ended.out.splitlines()
    assert header.split()[:3] == ["group", "images", "objects"]
    assert row.split()[:3] == ["data", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--by", "colour"], 2, "colour"),
        (["-o", "cells.tif/scores"], 1, "cannot make the folder"),
        (["--data", "nowhere"], 2, "no such folder"),
    ],
)
def test_evaluate_refuses_before_it_measures(
    cli: Callable[..., Ended],
    data: Path,
    image: Path,
    weights: Path,
    arguments: list[str],
    status: int,
    message: str,
) -> None:
    ended = cli("evaluate", "--data", data, "-m", weights, *arguments)
    assert ended.status == status
    assert message in ended.err
    assert "tiny" not in ended.err  # no weights were loaded
