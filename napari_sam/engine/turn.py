"""Who may use the device now: a click goes before background work.

A plain lock would not do: the background thread takes it again before the waiting
click wakes up.
"""

from __future__ import annotations

import threading
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sam.model import Sam


class DeviceTurn:
    """One thread at a time; those in a hurry first.

    Examples
    --------
    >>> turn = DeviceTurn()
    >>> with turn.take(urgent=True), turn.take(urgent=False):
    ...     pass  # a thread that has the turn may take it again
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owner: int | None = None
        self._depth = 0
        self._n_urgent = 0

    @contextmanager
    def take(self, *, urgent: bool) -> Iterator[None]:
        """Wait for the turn and keep it for this block.

        Parameters
        ----------
        urgent : bool
            Go before all that are not urgent; work that runs is not interrupted.
        """
        with self._changed:
            if self._owner != threading.get_ident():
                self._wait(urgent)
            self._depth += 1
        try:
            yield
        finally:
            with self._changed:
                self._depth -= 1
                if self._depth == 0:
                    self._owner = None
                    self._changed.notify_all()

    @property
    def n_urgent(self) -> int:
        """How many urgent threads wait."""
        return self._n_urgent

    def _wait(self, urgent: bool) -> None:
        self._n_urgent += urgent
        try:
            self._changed.wait_for(
                lambda: self._owner is None and (urgent or self._n_urgent == 0)
            )
            self._owner = threading.get_ident()
        finally:
            self._n_urgent -= urgent
            if self._owner is None:  # interrupted while it waited
                self._changed.notify_all()


def turn_of(model: Sam) -> DeviceTurn:
    """Return the turn that all users of a network share.

    Parameters
    ----------
    model : Sam
        From `load_model`.
    """
    with _making:
        return _turns.setdefault(model, DeviceTurn())


_turns: weakref.WeakKeyDictionary[Sam, DeviceTurn] = weakref.WeakKeyDictionary()
_making = threading.Lock()
