"""The command line, run in this process; weights and images for it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import tifffile

from napari_sam.cli import main
from napari_sam.weights import save_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import numpy as np
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
    monkeypatch.setenv("COLUMNS", "200")  # errors of typer are not broken into lines

    def run(*arguments: object) -> Ended:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Ended(int(ended.value.code or 0), printed.out, printed.err)

    yield run
    logger = logging.getLogger("napari_sam")
    logger.handlers = [logging.NullHandler()]
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def weights(tiny_sam: Sam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the tiny network, as a file."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return save_weights(tiny_sam.state_dict(), path, tiny_sam.config)


@pytest.fixture
def image(tmp_path: Path, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]) -> Path:
    """A file with bright discs."""
    path = tmp_path / "cells.tif"
    tifffile.imwrite(path, cells[0], photometric="minisblack")
    return path
