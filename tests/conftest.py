"""Fixtures that all tests share, and the rule for tests that open a window."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import settings
from skimage.draw import disk

from napari_sam.model import Sam
from napari_sam.model.config import VARIANTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

settings.register_profile("busy", deadline=None)  # a busy machine is no failure
settings.load_profile("busy")
torch.set_num_threads(1)  # the arrays are tiny; threads would only wait for each other


@pytest.fixture(scope="session")
def tiny_sam() -> Sam:
    """A network of 128 px input with random, seeded parameters; do not change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Sam(VARIANTS["tiny"]).eval()


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Let torch have two threads, as a program has them."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def cells() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """Bright discs on a dark plane (96, 128), and their labels 1 to 5."""
    image = np.full((96, 128), 20, np.uint8)
    labels = np.zeros((96, 128), np.uint32)
    spots = [(20, 20, 10), (24, 60, 14), (60, 30, 12), (66, 84, 16), (22, 108, 9)]
    for number, (y, x, radius) in enumerate(spots, start=1):
        rows, columns = disk((y, x), radius)
        image[rows, columns] = 120 + 20 * number
        labels[rows, columns] = number
    return image, labels


@cache
def display_problem() -> str | None:
    """Why no window can be opened here; None where one can."""
    if importlib.util.find_spec("napari") is None:
        return "napari is not installed"
    windows_and_mac = sys.platform in ("win32", "darwin")
    if not windows_and_mac and not os.environ.get("DISPLAY"):
        tool = "run ./check" if shutil.which("Xvfb") else "sh scripts/gui_packages.sh"
        return f"no X display; as root: {tool}"
    probe = "import napari.layers; from qtpy.QtWidgets import QApplication as A; A([])"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        lines = result.stderr.strip().splitlines() or ["aborted without a message"]
        return f"Qt does not start ({lines[-1]}); as root: sh scripts/gui_packages.sh"
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test that cannot open its window; with ``CI=true`` fail it.

    So green on CI means that everything ran.
    """
    if item.get_closest_marker("display") is None:
        return
    problem = display_problem()
    if problem is None:
        return
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true and this test could not run: {problem}", pytrace=False)
    pytest.skip(problem)
