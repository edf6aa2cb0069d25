"""What every test of a panel gets: nothing of the user's own folders is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_sam.settings import get_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def data_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of the user's data during a test."""
    monkeypatch.setattr("napari_sam.settings._data_path", lambda: tmp_path / "data")
    monkeypatch.setattr("napari_sam.settings._cache_path", lambda: tmp_path / "cache")
    get_settings.cache_clear()
    yield tmp_path / "data"
    get_settings.cache_clear()
