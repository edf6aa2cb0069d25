"""Long work in napari's activity dock, and a notification when it ends."""

from __future__ import annotations

import io
import time
from typing import Any

from napari.utils import progress
from napari.utils.notifications import show_info

_LONG_S = 10.0  # whoever waits for less has stayed


class Activity:
    """One piece of long work at a time: a bar with the time that is left.

    Parameters
    ----------
    what : str
        For people: "Find objects".
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._bar: Any = None
        self._begun = 0.0

    def begin(self) -> None:
        """Show a bar that only moves, until there is a number."""
        self.end()
        self._begun = time.monotonic()
        # where there is no window, tqdm would write into the terminal
        self._bar = progress(desc=self._what, total=0, file=io.StringIO())

    def show(self, done: int, total: int) -> None:
        """Show how far the work is."""
        if self._bar is None or not total:
            return
        if self._bar.total != total:
            self._bar.total = total
        self._bar.update(done - self._bar.n)

    def end(self, told: str = "") -> None:
        """Take the bar away.

        Parameters
        ----------
        told : str
            What came of it, for whoever did not wait. Default: nothing is told.
        """
        bar, self._bar = self._bar, None
        if bar is None:
            return
        bar.close()
        if told and time.monotonic() - self._begun > _LONG_S:
            show_info(told)
