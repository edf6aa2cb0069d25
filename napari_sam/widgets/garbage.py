"""Full garbage collections, when nobody waits.

With torch and napari loaded, Python's collector looks through half a million objects,
and no thread runs meanwhile: a third of a second on a quiet machine, several on a busy
one, in the middle of a click (measured). Nearly all of those objects stay for ever.
So full collections become rare while a dock is open, and are made once the window
rests after a layer was removed, which is where memory is to be had. Freezing what is
there (`gc.freeze`) was rejected: a large image removed later would never be freed.

napari itself makes a full collection when a layer goes, 0.3 s. To freeze all objects
meanwhile was rejected, too: what such a layer leaves on the graphics card is then
deleted together with that of the next one, and drawing crashes (napari 0.9.2, vispy
0.17). So layers that come and go are better hidden, as that of candidates is.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, ClassVar

from qtpy.QtCore import QObject, QTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import ViewerModel

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
