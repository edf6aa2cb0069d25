"""What every test of a panel gets: nothing of the user's own folders is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.draw import disk

from napari_sam.settings import get_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

PLACES = [(6, 6), (6, 22), (22, 8), (24, 25)]
"""Middles of the discs of `truth`."""


@pytest.fixture(autouse=True)
def data_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of the user's data during a test."""
    monkeypatch.setattr("napari_sam.settings._data_path", lambda: tmp_path / "data")
    monkeypatch.setattr("napari_sam.settings._cache_path", lambda: tmp_path / "cache")
    get_settings.cache_clear()
    yield tmp_path / "data"
    get_settings.cache_clear()


@pytest.fixture
def truth() -> NDArray[np.uint32]:
    """Four discs; the network of some tests knows them."""
    labels = np.zeros((32, 32), np.uint32)
    for number, place in enumerate(PLACES, 1):
        rows, columns = disk(place, 5, shape=labels.shape)
        labels[rows, columns] = number
    return labels
