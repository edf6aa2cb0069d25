"""Work of the window's thread in pieces, so that it goes on to react between them.

A frame that software OpenGL draws takes up to 40 ms of the 50 that the window may stand
still, and napari takes as long to select another layer, and thrice that to add one
(`docs/explain/performance.md`). What changes the window is done one thing after the
other, each with its frame.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

# Not 0: Qt 6 calls that back among the events of the turn that asked for it.
_NEXT_MS = 1


class _Turns:
    """What waits for a turn of the event loop."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], object]] = deque()
        self._is_due = False

    def add(self, *acts: Callable[[], object]) -> None:
        """Let functions wait."""
        self._waiting.extend(acts)
        if self._waiting and not self._is_due:
            self._is_due = True
            QTimer.singleShot(_NEXT_MS, self._act)

    def _act(self) -> None:
        act = self._waiting.popleft()
        later, self._waiting = self._waiting, deque()
        try:
            act()
        finally:
            self._waiting.extend(later)
            self._is_due = False
            self.add()  # the time runs from here on, so that a frame is drawn before


_turns = _Turns()


def in_turns(*acts: Callable[[], object]) -> None:
    """Call functions soon, in order, each in a turn of the event loop of its own.

    Parameters
    ----------
    *acts : callable
        Whatever else happens in the window may happen before each. What they ask for
        by this function comes right after them.
    """
    _turns.add(*acts)


def insert_beside(
    viewer: ViewerModel, at: int, layer: Layer, *, gently: bool = False
) -> None:
    """Insert a layer; what is selected stays selected.

    To select the new one and go back would take napari half as long again as adding it.

    Parameters
    ----------
    viewer : ViewerModel
    at : int
        Its place in the list of layers, from below.
    layer : Layer
    gently : bool
        Whether it is seen a turn later only: its first frame takes as long as all else.
    """
    layers = viewer.layers
    selected = layers.selection.active
    layer.visible = not gently and layer.visible
    layers._activate_on_insert = False  # noqa: SLF001 - no public name
    try:
        layers.insert(at, layer)
    finally:
        layers._activate_on_insert = True  # noqa: SLF001
    layers.selection.active = selected  # for a napari that does not know the name

    def appear() -> None:
        if layer in layers:
            layer.visible = True

    if gently:
        in_turns(appear)
