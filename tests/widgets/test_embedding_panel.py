"""Embedding a plane beforehand, in a real window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sam.cache import EmbeddingCache
from tests.engine.oracle import OracleSam

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display

PATIENCE_MS = 240_000


def test_every_crop_is_encoded_once_and_shown(
    make_napari_viewer: Callable[..., napari.Viewer],
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_sam.widgets.dock import SegmentAnything
    from napari_sam.widgets.embedding_panel import EmbeddingPanel

    oracle = OracleSam(np.zeros((200, 300), np.uint32), scale=1)
    monkeypatch.setattr("napari_sam.weights.load_model", lambda *_, **__: oracle)
    viewer = make_napari_viewer()
    viewer.add_image(np.random.default_rng(0).integers(0, 255, (200, 300), np.uint8))
    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.network.planes is not None, timeout=PATIENCE_MS)
    planes: Any = dock.network.planes
    planes.keep_in(EmbeddingCache())
    panel = dock.panel(EmbeddingPanel)
    panel.run.click()
    qtbot.waitUntil(lambda: "embedded" in panel.status.text(), timeout=PATIENCE_MS)
    grid = planes.open(dock.session.view).grid
    assert oracle.n_encoded == len(grid) > 1
    assert panel.progress.value() == len(grid)
    assert panel.overlay.layer is not None
    assert panel.overlay.layer.data.all()  # green everywhere
    assert panel.run.text() == "Embed this plane"
    panel.start()  # nothing is left to do
    qtbot.waitUntil(lambda: "embedded" in panel.status.text(), timeout=PATIENCE_MS)
    assert oracle.n_encoded == len(grid)
    panel.start()
    dock.bridge.look()  # a new view, before the plane is open
    qtbot.waitUntil(lambda: "has changed" in panel.status.text(), timeout=PATIENCE_MS)
    assert panel.overlay.layer is None
    panel.pause.setChecked(True)
    panel.stop()
    assert panel.pause.text() == "Pause"
    panel.stop()
    assert panel.overlay.layer is None
    dock.close_dock()
