"""The command line, run in this process; weights and images for it."""

from __future__ import annotations

import copy
import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest
import tifffile
import torch

from napari_sam.cli import main
from napari_sam.settings import get_settings
from napari_sam.weights.load import save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.model import Sam


@dataclass(frozen=True)
class Ended:
    """Exit status and what was printed."""

    status: int
    out: str
    err: str


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ended]]:
    """Run ``napari-sam`` with arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setenv("NAPARI_SAM_CACHE_DIR", str(tmp_path / "user-cache"))
    get_settings.cache_clear()
    monkeypatch.setenv("COLUMNS", "200")  # errors of typer are not broken into lines

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    yield run
    get_settings.cache_clear()
    logger = logging.getLogger("napari_sam")
    logger.handlers = [logging.NullHandler()]
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def weights(tiny_sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny network that trusts its masks, as a file.

    As they are, random weights find nothing: all masks are uncertain, and the maps of
    the proposal head nearly flat.
    """
    model = copy.deepcopy(tiny_sam)
    decoder, maps = model.mask_decoder, model.proposal_head.maps
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        decoder.iou_prediction_head.layers[-1].weight.mul_(0.1)
        decoder.iou_prediction_head.layers[-1].bias.fill_(0.9)
        for mlp in decoder.output_hypernetworks_mlps:
            mlp.layers[-1].weight.mul_(1000)
            mlp.layers[-1].bias.mul_(1000)
        flat = model.propose(model.encode(model.preprocess(255 * noise)))[0].logit()
        spread, mean = flat.std((1, 2)), flat.mean((1, 2))
        maps.bias.copy_((maps.bias - mean) / spread + torch.tensor([2.0, 0.0, 0.0]))
        maps.weight.div_(spread[:, None, None, None])
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return save_weights(model.state_dict(), path, model.config)


@pytest.fixture
def image(tmp_path: Path, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]) -> Path:
    """A file with bright discs."""
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, cells[0], photometric="minisblack")
    return path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Two slices of noise."""
    planes = np.random.default_rng(0).integers(0, 255, (2, 40, 50), np.uint8)
    path = tmp_path / "stack.tif"
    metadata = {"axes": "ZYX"}
    tifffile.imwrite(path, planes, photometric="minisblack", metadata=metadata)
    return path
