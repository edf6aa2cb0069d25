"""What every test of a panel gets: no session is saved in the user's own folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def data_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of the user's data during a test."""
    monkeypatch.setattr("napari_sam.settings._data_path", lambda: tmp_path / "data")
    return tmp_path / "data"
