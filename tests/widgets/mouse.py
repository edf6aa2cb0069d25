"""A mouse for napari's canvas: clicks and drags at image coordinates."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari
    from napari.layers import Layer


class Mouse:
    """Sends Qt events to the canvas of a viewer whose window is shown."""

    def __init__(self, viewer: napari.Viewer) -> None:
        self.viewer = viewer

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def place(self, layer: Layer, point: Sequence[float]) -> Any:
        """Canvas pixel of a point in data coordinates."""
        from qtpy.QtCore import QPoint

        world = np.asarray(layer.data_to_world(point), float)
        dims = self.viewer.dims
        missing = dims.ndim - len(world)
        y, x = (world[axis - missing] for axis in dims.displayed)
        # napari 0.9 has moved it
        holder = getattr(self.viewer, "scene", self.viewer)
        centre, zoom = holder.camera.center[-2:], holder.camera.zoom
        width, height = self.canvas.width(), self.canvas.height()
        return QPoint(
            round(width / 2 + (x - centre[1]) * zoom),
            round(height / 2 + (y - centre[0]) * zoom),
        )

    def click(
        self, layer: Layer, point: Sequence[float], *, shift: bool = False
    ) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        held = Qt.KeyboardModifier
        place = self.place(layer, point)
        QTest.mouseMove(self.canvas, place)
        settle(2)
        QTest.mouseClick(
            self.canvas,
            Qt.MouseButton.LeftButton,
            held.ShiftModifier if shift else held.NoModifier,
            place,
        )
        settle(2)

    def move(self, layer: Layer, point: Sequence[float]) -> None:
        """Move without a button; QTest's own moves do not reach the canvas."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        at, none = self.place(layer, point), Qt.MouseButton.NoButton
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(at),
            QPointF(self.canvas.mapToGlobal(at)),
            none,
            none,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(self.canvas, event)
        settle(20)  # napari looks at the mouse a few times a second

    def turn(self, layer: Layer, point: Sequence[float], steps: int) -> None:
        """Turn the wheel, away from the user, with Shift held."""
        from qtpy.QtCore import QPoint, QPointF, Qt
        from qtpy.QtGui import QWheelEvent
        from qtpy.QtWidgets import QApplication

        at = self.place(layer, point)
        event = QWheelEvent(
            QPointF(at),
            QPointF(self.canvas.mapToGlobal(at)),
            QPoint(0, 0),
            QPoint(0, 120 * steps),
            Qt.MouseButton.NoButton,
            Qt.KeyboardModifier.ShiftModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(self.canvas, event)
        settle(2)

    def drag(self, layer: Layer, start: Sequence[float], end: Sequence[float]) -> None:
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtTest import QTest
        from qtpy.QtWidgets import QApplication

        left, nothing = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
        first, last = self.place(layer, start), self.place(layer, end)
        QTest.mouseMove(self.canvas, first)
        settle(1)
        QTest.mousePress(self.canvas, left, nothing, first)
        for share in (0.25, 0.5, 0.75, 1.0):
            at = first + (last - first) * share
            # QTest's own moves carry no button
            event = QMouseEvent(
                QEvent.Type.MouseMove,
                QPointF(at),
                QPointF(self.canvas.mapToGlobal(at)),
                Qt.MouseButton.NoButton,
                left,
                nothing,
            )
            QApplication.sendEvent(self.canvas, event)
            settle(1)
        QTest.mouseRelease(self.canvas, left, nothing, last)
        settle(2)

    def press(self, name: str, *, control: bool = False, shift: bool = False) -> None:
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        held = Qt.KeyboardModifier.NoModifier
        if control:
            held |= Qt.KeyboardModifier.ControlModifier
        if shift:
            held |= Qt.KeyboardModifier.ShiftModifier
        QTest.keyClick(self.canvas, getattr(Qt.Key, f"Key_{name}"), held)
        settle(2)


def settle(rounds: int = 1) -> None:
    """Let Qt run its loop."""
    from qtpy.QtWidgets import QApplication

    for _ in range(rounds):
        QApplication.processEvents()
        time.sleep(0.005)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Let Qt run its loop until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not so within {seconds} s")
        settle()
