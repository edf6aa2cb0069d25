"""Full collections are put off while a dock is open, and made when a layer has gone."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display


class Ring:
    """Garbage that only the collector can find."""

    def __init__(self) -> None:
        self.self = self


def test_it_is_collected_when_a_layer_has_gone_and_nobody_waits(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari.components import ViewerModel

    from napari_sam.widgets import garbage

    monkeypatch.setattr(garbage, "_REST_MS", 10)
    usual = gc.get_threshold()
    viewer = ViewerModel()
    viewer.add_image(np.zeros((8, 8), np.uint8))
    busy = [True]
    first = garbage.Garbage(viewer, lambda: busy[0])
    second = garbage.Garbage(viewer, lambda: True)
    assert gc.get_threshold()[2] > usual[2]
    gc.disable()
    try:
        ring = weakref.ref(Ring())
        viewer.layers.clear()
        qtbot.wait(60)
        assert ring() is not None
        busy[0] = False
        qtbot.waitUntil(lambda: ring() is None)
    finally:
        gc.enable()
    first.close()
    assert gc.get_threshold() != usual
    second.close()
    assert gc.get_threshold() == usual
