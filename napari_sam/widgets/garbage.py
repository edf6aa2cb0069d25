"""Full garbage collections, when nobody waits.

With torch and napari loaded, Python's collector looks through half a million objects,
and no thread runs meanwhile: a third of a second on a quiet machine, several on a busy
one, in the middle of a click (measured). Nearly all of those objects stay for ever.
So full collections become rare while a dock is open, and are made once the window
rests after a layer was removed, which is where memory is to be had. Freezing what is
there (`gc.freeze`) was rejected: a large image removed later would never be freed.
"""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, ClassVar

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel
    from napari.layers import Layer

_RARELY = 1000  # younger collections for a full one, instead of ten
_REST_MS = 3000


class Garbage(QObject):
    """Puts full collections off until the window rests.

    Parameters
    ----------
    viewer : ViewerModel
    is_busy : callable
        Whether somebody waits for an answer.
    parent : QObject, optional
    """

    _usual: ClassVar[tuple[int, int, int] | None] = None
    _n_open: ClassVar[int] = 0

    def __init__(
        self,
        viewer: ViewerModel,
        is_busy: Callable[[], bool],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._viewer = viewer
        self._is_busy = is_busy
        self._rest = QTimer(self)
        self._rest.setSingleShot(True)
        self._rest.setInterval(_REST_MS)
        self._rest.timeout.connect(self._collect)
        viewer.layers.events.removed.connect(self._removed)
        if Garbage._n_open == 0:
            Garbage._usual = gc.get_threshold()
            gc.set_threshold(*Garbage._usual[:2], _RARELY)
        Garbage._n_open += 1

    def close(self) -> None:
        """Collect as usual from now on, unless other docks are open."""
        self._rest.stop()
        self._viewer.layers.events.removed.disconnect(self._removed)
        Garbage._n_open -= 1
        if Garbage._n_open == 0 and Garbage._usual is not None:
            gc.set_threshold(*Garbage._usual)

    def _removed(self, _event: object = None) -> None:
        self._rest.start()

    def _collect(self) -> None:
        if self._is_busy():
            self._rest.start()
        else:
            gc.collect()


def remove_layer(viewer: ViewerModel, layer: Layer) -> None:
    """Take a layer of ours away, without the full collection that napari makes then.

    While all objects are frozen there is nothing to look through; they thaw at once,
    and what the layer leaves behind goes with the next collection of `Garbage`.
    Drivers of Windows need napari's collection at that moment, so there it is made.

    Parameters
    ----------
    viewer : ViewerModel
    layer : Layer
    """
    if sys.platform == "win32" or gc.get_freeze_count():
        viewer.layers.remove(layer)
        return
    gc.freeze()
    try:
        viewer.layers.remove(layer)
    finally:
        gc.unfreeze()
