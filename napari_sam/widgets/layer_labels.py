"""A Labels layer as the place that objects are committed to.

napari's own history knows each step, so that its undo works beside ours: one undo for
pixels, not two. A few objects go through `Labels.data_setitem`, which draws again what
lies around them. For each pixel that changes it makes indices and looks up a colour:
with 4,600 objects on 4096 x 4096 px the window stood still for 0.8 s. So many are
written box by box, and the plane is drawn once, which takes 0.1 s.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.errors import InputError
from napari_sam.labels import PlaneIndex, region_of
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_sam.labels import LabelEdit

_MANY = 16  # edits from which on drawing the whole plane is cheaper (ours)


class LayerLabels:
    """The `LabelTarget` of a single-scale Labels layer.

    Parameters
    ----------
    layer : Labels
    on_paint : callable
        Called with the ids that a stroke by hand has put or taken away.

    Raises
    ------
    InputError
        If the layer cannot be painted.
    """

    def __init__(
        self, layer: Labels, on_paint: Callable[[list[int]], None] = lambda ids: None
    ) -> None:
        if layer.multiscale:
            raise InputError(
                f"{layer.name!r} is multiscale, and napari cannot paint such labels; "
                "choose another layer"
            )
        self.layer = layer
        self._on_paint = on_paint
        self._is_writing = self._is_connected = False
        self._last_id: int | None = None
        self.connect()

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(self.layer.data.shape)

    def read(self, index: PlaneIndex, box: Box) -> NDArray[np.uint32]:
        """Return a copy of the labels of a box of a plane."""
        return np.array(self.layer.data[region_of(index, box)], np.uint32)

    def write(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits as one step of napari's history."""
        self._is_writing = True
        is_much = len(edits) >= _MANY or 4 * sum(
            each.box.area for each in edits
        ) > self._plane_area(edits)
        try:
            with self.layer.block_history():
                for edit in edits:
                    if is_much:
                        self._put(edit)
                    else:
                        self._set(edit)
            if is_much:
                self.layer.refresh(extent=False, thumbnail=False)
        finally:
            self._is_writing = False

    def draw(self, edits: Sequence[LabelEdit]) -> None:
        """Show edits that are no step yet; napari's history does not know them."""
        for edit in edits:
            edit.apply(self.layer.data)
            if self._last_id is not None:
                self._last_id = max(self._last_id, int(edit.after.max(initial=0)))
        self.layer.refresh(extent=False, thumbnail=False)

    def undo(self, edits: Sequence[LabelEdit]) -> None:
        """Take the newest step back through napari's history."""
        self.layer.undo()
        # napari keeps 100 steps; beyond them, and where somebody has called undo
        # beside us, the edit itself knows what was there
        self._make_sure([edit.inverse() for edit in reversed(edits)])

    def redo(self, edits: Sequence[LabelEdit]) -> None:
        """Make the step again that was taken back last."""
        self.layer.redo()
        self._make_sure(edits)

    def fresh_ids(self, n: int) -> list[int]:
        """Return ids above all that were ever used."""
        if self._last_id is None:
            data = np.asarray(self.layer.data)
            self._last_id = int(data.max(initial=0))
        first = self._last_id + 1
        highest = np.iinfo(self.layer.data.dtype).max
        if first + n - 1 > highest:
            raise InputError(
                f"{self.layer.name!r} of type {self.layer.data.dtype} has no free id "
                f"above {self._last_id}; choose labels of type uint32"
            )
        return list(range(first, first + n))

    def box_of(self, index: PlaneIndex, object_id: int) -> Box | None:
        """Return the smallest box around an object of a plane; None without it."""
        if self._last_id is not None and object_id > self._last_id:
            return None  # a new object: the plane need not be searched
        whole = tuple(slice(None) if each is None else each for each in index)
        return Box.around(np.asarray(self.layer.data[whole]) == object_id)

    def connect(self) -> None:
        """Listen to the layer, which others may have changed meanwhile."""
        self._last_id = None
        if not self._is_connected:
            self.layer.events.paint.connect(self._note_paint)
        self._is_connected = True

    def disconnect(self) -> None:
        """Listen to the layer no more."""
        self.layer.events.paint.disconnect(self._note_paint)
        self._is_connected = False

    def _plane_area(self, edits: Sequence[LabelEdit]) -> int:
        if not edits:
            return 0
        sides = [
            n for n, at in zip(self.shape, edits[0].index, strict=True) if at is None
        ]
        return sides[0] * sides[1]

    def _put(self, edit: LabelEdit) -> None:
        """Write the box of an edit; nothing is drawn."""
        region = np.asarray(self.layer.data[edit.where])
        old, new = edit.before, edit.after
        if not np.array_equal(region, old):  # others have changed it meanwhile
            old, new = region.copy(), np.where(old != new, new, region)
        self.layer._save_history((edit.where, old, new))  # noqa: SLF001 - no public name
        self.layer.data[edit.where] = new
        if self._last_id is not None:
            self._last_id = max(self._last_id, int(edit.after.max(initial=0)))

    def _set(self, edit: LabelEdit) -> None:
        changed = np.nonzero(edit.before != edit.after)
        if not changed[0].size:
            return
        sides = iter((changed[0] + edit.box.y0, changed[1] + edit.box.x0))
        places = tuple(
            next(sides) if each is None else np.full(changed[0].size, each)
            for each in edit.index
        )
        self.layer.data_setitem(places, edit.after[changed])
        if self._last_id is not None:
            self._last_id = max(self._last_id, int(edit.after.max()))

    def _make_sure(self, edits: Sequence[LabelEdit]) -> None:
        """Write edits again where their common result is not there."""
        planes: dict[PlaneIndex, list[LabelEdit]] = {}
        for edit in edits:
            planes.setdefault(edit.index, []).append(edit)
        missing = [each for each in planes.values() if not self._holds(each)]
        if missing:
            self.write([edit for each in missing for edit in each])

    def _holds(self, edits: Sequence[LabelEdit]) -> bool:
        """Whether the common result of edits of one plane is there."""
        box = reduce(Box.union, (edit.box for edit in edits))
        found = self.read(edits[0].index, box)
        wanted = found.copy()
        for edit in edits:
            region = wanted[edit.box.shift(-box.y0, -box.x0).slices]
            np.copyto(region, edit.after, where=edit.before != edit.after)
        return np.array_equal(found, wanted)

    def _note_paint(self, event: Any) -> None:
        if self._is_writing:
            return
        ids = painted_ids(event.value)
        if self._last_id is not None and ids:
            self._last_id = max(self._last_id, *ids)
        self._on_paint(ids)


def painted_ids(atoms: Iterable[Any]) -> list[int]:
    """Return the ids that a stroke of napari's brush put or took away.

    Parameters
    ----------
    atoms : iterable
        Of the event ``paint``: (indices, old values, new values), or, from napari 0.8
        on, records with the attributes ``old_values`` and ``new_value``.
    """
    ids: set[int] = set()
    for atom in atoms:
        if hasattr(atom, "new_value"):
            values = (atom.old_values, atom.new_value)
        else:
            values = atom[1:]
        for each in values:
            ids.update(np.unique(np.asarray(each)).tolist())
    return sorted(ids - {0})
