"""One change of labels and its inverse, and where it is applied.

A `LabelEdit` keeps the pixels of one box before and after, so undoing costs what the
object costs and not what the plane costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from napari_sam.errors import InputError
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PlaneIndex: TypeAlias = "tuple[int | None, ...]"
"""Where a plane lies in an array: an integer for each axis that is fixed, None for
the axes of its rows and columns, in this order. ``(4, None, None)`` is slice 4."""


def region_of(index: PlaneIndex, box: Box) -> tuple[int | slice, ...]:
    """Return the numpy index of a box of a plane.

    Parameters
    ----------
    index : tuple of int or None
        Where the plane lies.
    box : Box
        Plane pixels.

    Examples
    --------
    >>> region_of((4, None, None), Box(0, 10, 5, 20))
    (4, slice(0, 5, None), slice(10, 20, None))
    """
    sides = iter(box.slices)
    return tuple(next(sides) if each is None else each for each in index)


@dataclass(frozen=True, slots=True, eq=False)
class LabelEdit:
    """One change of labels in a box of one plane.

    Parameters
    ----------
    index : tuple of int or None
        Where the plane lies in the labels.
    box : Box
        What changes, in plane pixels.
    before, after : (h, w) uint32 array
        Object ids in the box.

    Raises
    ------
    InputError
        If an array has not the shape of the box.

    Examples
    --------
    >>> labels = np.zeros((4, 6), np.uint32)
    >>> after = np.ones((2, 2), np.uint32)
    >>> edit = LabelEdit((None, None), Box(0, 0, 2, 2), labels[:2, :2].copy(), after)
    >>> edit.apply(labels)
    >>> int(labels.sum())
    4
    >>> edit.inverse().apply(labels)
    >>> int(labels.sum())
    0
    """

    index: PlaneIndex
    box: Box
    before: NDArray[np.uint32]
    after: NDArray[np.uint32]

    def __post_init__(self) -> None:
        for pixels in (self.before, self.after):
            if pixels.shape != self.box.shape:
                raise InputError(
                    f"labels of shape {pixels.shape} in {self.box}; give the "
                    f"{self.box.height} x {self.box.width} px of the box"
                )

    @property
    def where(self) -> tuple[int | slice, ...]:
        """Index of the region in the labels."""
        return region_of(self.index, self.box)

    @property
    def n_changed(self) -> int:
        """Number of pixels that differ."""
        return int(np.count_nonzero(self.before != self.after))

    def inverse(self) -> LabelEdit:
        """Return the edit that undoes this one."""
        return LabelEdit(self.index, self.box, self.after, self.before)

    def apply(self, labels: Any) -> None:
        """Write the pixels that change; the others may have changed meanwhile.

        Parameters
        ----------
        labels : array of unsigned integers
            Changed in place.
        """
        region = np.array(labels[self.where])
        changed = self.before != self.after
        region[changed] = self.after[changed]
        labels[self.where] = region


class LabelTarget(Protocol):
    """Where objects are committed to: an array, a layer, a store."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    def read(self, index: PlaneIndex, box: Box) -> NDArray[np.uint32]:
        """Return a copy of the labels of a box of a plane."""

    def write(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits, in order, as one step."""

    def draw(self, edits: Sequence[LabelEdit]) -> None:
        """Show edits that are no step yet; who draws them takes them back."""

    def undo(self, edits: Sequence[LabelEdit]) -> None:
        """Take back the newest step; it made these edits, none if made by hand."""

    def redo(self, edits: Sequence[LabelEdit]) -> None:
        """Make the step again that was taken back last."""

    def fresh_ids(self, n: int) -> list[int]:
        """Return ids that no object has had."""

    def box_of(self, index: PlaneIndex, object_id: int) -> Box | None:
        """Return the smallest box around an object of a plane; None without it."""


class ArrayLabels:
    """Labels in an array, for work without a window.

    Parameters
    ----------
    array : array of unsigned integers
        Changed in place.
    """

    def __init__(self, array: NDArray[np.uint32]) -> None:
        self.array = array
        self._last_id = int(array.max(initial=0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.array.shape

    def read(self, index: PlaneIndex, box: Box) -> NDArray[np.uint32]:
        """Return a copy of the labels of a box of a plane."""
        return np.array(self.array[region_of(index, box)], np.uint32)

    def write(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits, in order."""
        for edit in edits:
            edit.apply(self.array)
            self._last_id = max(self._last_id, int(edit.after.max(initial=0)))

    def draw(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits that are no step yet."""
        self.write(edits)

    def undo(self, edits: Sequence[LabelEdit]) -> None:
        """Take edits back, the last first."""
        for edit in reversed(edits):
            edit.inverse().apply(self.array)

    def redo(self, edits: Sequence[LabelEdit]) -> None:
        """Apply edits again."""
        self.write(edits)

    def fresh_ids(self, n: int) -> list[int]:
        """Return ids above all that were ever used."""
        return list(range(self._last_id + 1, self._last_id + 1 + n))

    def box_of(self, index: PlaneIndex, object_id: int) -> Box | None:
        """Return the smallest box around an object of a plane; None without it."""
        whole = tuple(slice(None) if each is None else each for each in index)
        return box_around(self.array[whole] == object_id)


def box_around(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box around a mask; None if it is empty.

    Examples
    --------
    >>> box_around(np.eye(3, dtype=bool)[:2])
    Box(y0=0, x0=0, y1=2, x1=2)
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
