"""Long work in napari's activity dock, and a notification when it ends."""

from __future__ import annotations

import io
import time
from typing import Any

from napari.utils import progress
from napari.utils.notifications import show_info

from napari_sam.widgets.turns import in_turns

_SHORT_S = 2.0  # less is over before a bar is made, which takes the window 50 ms
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
        self._wanted: tuple[int, int] | None = None  # what the bar shows next

    def begin(self) -> None:
        """Note when the work began; a bar comes if it takes longer."""
        self.end()
        self._begun = time.monotonic()

    def show(self, done: int, total: int) -> None:
        """Show soon how far the work is."""
        if not self._begun or not total:
            return
        if self._wanted is None:
            in_turns(self._update)
        self._wanted = done, total

    def _update(self) -> None:
        """Show the newest step; napari runs the event loop until it is drawn."""
        wanted, self._wanted = self._wanted, None
        if wanted is None or not self._begun:
            return
        done, total = wanted
        if self._bar is None and time.monotonic() - self._begun >= _SHORT_S:
            self._make(total)
        if (bar := self._bar) is not None:
            if bar.total != total:
                bar.total = total
            bar.update(done - bar.n)

    def _make(self, total: int) -> None:
        begun = self._begun
        # where there is no window, tqdm would write into the terminal
        bar = progress(desc=self._what, total=total, file=io.StringIO())
        if begun == self._begun:
            self._bar = bar
        else:  # the work has ended, or other work has begun
            bar.close()

    def end(self, told: str = "") -> None:
        """Take the bar away.

        Parameters
        ----------
        told : str
            What came of it, for whoever did not wait. Default: nothing is told.
        """
        bar, begun = self._bar, self._begun
        self._bar, self._begun = None, 0.0
        if bar is not None:
            bar.close()
        if told and begun and time.monotonic() - begun > _LONG_S:
            in_turns(lambda: show_info(told))
