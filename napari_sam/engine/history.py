"""Steps that can be taken back: one line of time for prompts and label pixels."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.engine.draft import Draft
    from napari_sam.engine.records import ObjectRecord
    from napari_sam.engine.request import PlaneView
    from napari_sam.labels import LabelEdit, LabelTarget, PlaneIndex


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One thing that the user did.

    Parameters
    ----------
    what : str
        For people: "add a point", "commit object 3".
    view : PlaneView
        The plane it was done on.
    before, after : Draft
        The prompts.
    target : LabelTarget, optional
        The labels that it concerns. Default: none.
    edits : sequence of LabelEdit
        How they changed; empty if the user painted by hand.
    records : tuple of (int, ObjectRecord or None, ObjectRecord or None)
        Object id, its record before and after.
    used : dict of (image key, plane) to Draft
        Prompts of other planes that became an object with this step.
    changes_pixels : bool
        Whether pixels of the labels changed.
    """

    what: str
    view: PlaneView
    before: Draft
    after: Draft
    target: LabelTarget | None = None
    edits: Sequence[LabelEdit] = ()
    records: tuple[tuple[int, ObjectRecord | None, ObjectRecord | None], ...] = ()
    used: dict[tuple[object, PlaneIndex], Draft] = field(default_factory=dict)
    changes_pixels: bool = False


# A step keeps the pixels that it changed and the logits that a click refined, some 0.3
# MB: those of a day of clicks would fill the memory.
_MOST_STEPS = 500


class History:
    """Steps done and steps taken back; of many steps the newest."""

    def __init__(self) -> None:
        self._done: deque[Step] = deque(maxlen=_MOST_STEPS)
        self._undone: list[Step] = []

    def push(self, step: Step) -> None:
        """Add a step; what was taken back before can no longer be made again."""
        self._done.append(step)
        self._undone.clear()

    def back(self) -> Step | None:
        """Return the step to take back; None if there is none."""
        if not self._done:
            return None
        self._undone.append(self._done.pop())
        return self._undone[-1]

    def forward(self) -> Step | None:
        """Return the step to make again; None if there is none."""
        if not self._undone:
            return None
        self._done.append(self._undone.pop())
        return self._done[-1]

    def forget(self, target: LabelTarget) -> None:
        """Drop the steps that changed labels which are no longer there."""
        left = [step for step in self._done if step.target is not target]
        self._done = deque(left, _MOST_STEPS)
        self._undone = [step for step in self._undone if step.target is not target]

    @property
    def last(self) -> str | None:
        """What would be taken back; None if nothing can be."""
        return self._done[-1].what if self._done else None

    @property
    def following(self) -> str | None:
        """What would be made again; None if nothing can be."""
        return self._undone[-1].what if self._undone else None
