"""Many objects into the labels: computed in the worker, written in the window."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from napari.utils.notifications import show_info

from napari_sam.widgets.turns import in_turns

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam.engine.records import ObjectRecord
    from napari_sam.labels import LabelEdit, LabelTarget
    from napari_sam.widgets.panel import DockParts

Found: TypeAlias = "tuple[list[LabelEdit], list[ObjectRecord]]"


class Keeper:
    """Keeps objects as one step; the window waits for the writing alone.

    Parameters
    ----------
    parts : DockParts
    """

    def __init__(self, parts: DockParts) -> None:
        self._parts = parts
        self._n_changes = 0
        parts.session.labels_changed.connect(self._note_change)

    def keep(
        self,
        make: Callable[[LabelTarget], Found],
        on_done: Callable[[int], None] = lambda n: None,
        of: str = "",
    ) -> None:
        """Keep objects soon.

        Parameters
        ----------
        make : callable
            Returns edits of the labels and records; runs in the worker's thread, and
            once more if the labels have changed meanwhile.
        on_done : callable
            Called with the number of objects, in the thread of the window; 0 after an
            error, which the worker tells.
        of : str
            Where they come from, for people: " of prompts.csv".
        """
        self._parts.bridge.need_labels()
        session = self._parts.session
        target, n_changes = session.labels, self._n_changes
        if target is None:
            on_done(0)
            return

        def write(found: Found) -> None:
            if n_changes != self._n_changes and session.labels is target:
                self.keep(make, on_done, of)
                return
            n_kept = 0
            try:
                if session.labels is target:  # else they would lie beside the others
                    n_kept = self._write(*found, of)
            finally:
                on_done(n_kept)

        def failed(error: Exception) -> None:
            on_done(0)
            self._parts.worker.failed.emit(error)

        self._parts.worker.call(lambda: make(target), write, failed)

    def close(self) -> None:
        """Listen no more."""
        self._parts.session.labels_changed.disconnect(self._note_change)

    def _write(
        self, edits: list[LabelEdit], records: list[ObjectRecord], of: str
    ) -> int:
        if not records:
            in_turns(lambda: show_info("No objects to keep."))
            return 0
        noun = "object" if len(records) == 1 else "objects"
        self._parts.session.edit_labels(
            f"keep {len(records)} {noun}{of}",
            edits,
            [(each.object_id, each) for each in records],
        )
        in_turns(lambda: show_info(f"{len(records)} {noun} kept."))
        return len(records)

    def _note_change(self, _edits: object) -> None:
        self._n_changes += 1
