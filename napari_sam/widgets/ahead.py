"""Clicks that come while an earlier object still waits for its mask.

Whoever keeps an object before its mask is there goes on with the next one. Its points
must not become points of the first: they are held, and put when the first is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam.engine.draft import Draft


@dataclass
class HeldObject:
    """Points of an object that is asked for later.

    Parameters
    ----------
    points : (N, 2) array, (y, x), plane pixels
    positive : (N,) array of bool
    is_kept : bool
        Whether it is to be kept as soon as its mask is there.
    """

    points: NDArray[np.float32]
    positive: NDArray[np.bool_]
    is_kept: bool = False


class Ahead:
    """The objects that wait behind the one whose mask is computed."""

    def __init__(self) -> None:
        self._draft: Draft | None = None
        self._n_shown = 0  # points that the layer shows beside those of the draft
        self._held: list[HeldObject] = []

    def begin(self, draft: Draft) -> None:
        """Wait for the mask of a draft; points that are added are other objects."""
        self._draft, self._n_shown = draft, 0

    def end(self) -> Draft | None:
        """Hold no more; return whose mask was waited for."""
        draft, self._draft = self._draft, None
        return draft

    @property
    def draft(self) -> Draft | None:
        """Prompts that are kept as soon as their mask is there."""
        return self._draft

    def hold(self, points: NDArray[np.float32], positive: NDArray[np.bool_]) -> bool:
        """Hold points that were added to a draft; whether they were.

        Parameters
        ----------
        points : (N, 2) array, (y, x), plane pixels
            All that the layer shows.
        positive : (N,) array of bool
        """
        if self._draft is None:
            return False
        n_own = len(self._draft.points)
        n_known = n_own + self._n_shown
        if len(points) <= n_known or not np.array_equal(
            points[:n_own], self._draft.points
        ):
            return False  # the draft itself has changed
        new, signs = points[n_known:].copy(), positive[n_known:].copy()
        if self._held and not self._held[-1].is_kept:
            last = self._held[-1]
            new = np.concatenate([last.points, new])
            signs = np.concatenate([last.positive, signs])
            self._held.pop()
        self._held.append(HeldObject(new, signs))
        self._n_shown = len(points) - n_own
        return True

    def keep_last(self) -> None:
        """Let the object that was pointed at last be kept, too, if there is one."""
        if self._held:
            self._held[-1].is_kept = True

    def take(self) -> HeldObject | None:
        """Return the object that comes next; None if there is none."""
        return self._held.pop(0) if self._held else None

    def forget(self) -> None:
        """Drop what is held."""
        self._held.clear()
        self._draft, self._n_shown = None, 0
