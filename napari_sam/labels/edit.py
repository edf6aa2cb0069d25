"""One change of labels and its inverse, and where it is applied.

A `LabelEdit` keeps the pixels of one box before and after, so undoing costs what the
object costs and not what the plane costs.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, overload

import numpy as np

from napari_sam.errors import InputError
from napari_sam.tiling import Box

if TYPE_CHECKING:
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


@dataclass(frozen=True, slots=True)
class _Packed:
    index: PlaneIndex
    box: Box
    before: bytes
    after: bytes

    @classmethod
    def of(cls, edit: LabelEdit) -> _Packed:
        sides = (
            zlib.compress(each.astype(np.uint32).tobytes(), 1)
            for each in (edit.before, edit.after)
        )
        return cls(edit.index, edit.box, *sides)

    def edit(self) -> LabelEdit:
        before, after = (
            np.frombuffer(zlib.decompress(each), np.uint32).reshape(self.box.shape)
            for each in (self.before, self.after)
        )
        return LabelEdit(self.index, self.box, before, after)


class PackedEdits(Sequence[LabelEdit]):
    """Edits that are held compressed, for whole planes of a long stack.

    Examples
    --------
    >>> edits = PackedEdits()
    >>> none, all_ = np.zeros((500, 500), np.uint32), np.ones((500, 500), np.uint32)
    >>> edits.append(LabelEdit((3, None, None), Box(0, 0, 500, 500), none, all_))
    >>> edits[0].n_changed
    250000
    """

    def __init__(self) -> None:
        self._packed: list[_Packed] = []

    def append(self, edit: LabelEdit) -> None:
        """Add an edit."""
        self._packed.append(_Packed.of(edit))

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, i: int) -> LabelEdit: ...
    @overload
    def __getitem__(self, i: slice) -> list[LabelEdit]: ...
    def __getitem__(self, i: int | slice) -> LabelEdit | list[LabelEdit]:
        if isinstance(i, slice):
            return [each.edit() for each in self._packed[i]]
        return self._packed[i].edit()


# Pixels up to which objects are written at once; the fewer writes, the fewer refreshes.
_ONE_EDIT = 4096 * 4096
_CELL = 1024  # pixels a side; objects share few cells, and are compared there only


def paint_free(
    target: LabelTarget,
    index: PlaneIndex,
    masks: Sequence[tuple[Box, NDArray[np.bool_]]],
    first_id: int,
) -> tuple[list[LabelEdit], list[bool]]:
    """Return what makes objects of masks, where no object is yet.

    Parameters
    ----------
    target : LabelTarget
        Is read, and does not change.
    index : tuple of int or None
        The plane.
    masks : sequence of (Box, (h, w) array of bool)
        Of two that share pixels the first has them.
    first_id : int
        Objects that get a pixel are numbered from here, without gaps.

    Returns
    -------
    edits : list of LabelEdit
        One for all masks together, where they lie close enough.
    has_pixels : list of bool
        For each mask, whether it became an object.
    """
    if not masks:
        return [], []
    region = masks[0][0]
    for box, _ in masks:
        region = region.union(box)
    is_one = region.area <= _ONE_EDIT
    edits: list[LabelEdit] = []
    near: dict[tuple[int, int], list[LabelEdit]] = {}  # by cell that they touch
    has_pixels: list[bool] = []
    number = first_id
    for group in [masks] if is_one else [[each] for each in masks]:
        around = region if is_one else group[0][0]
        before = target.read(index, around)
        after = before.copy()
        cells = _cells(around)
        for edit in [each for cell in cells for each in near.get(cell, ())]:
            _take_over(after, around, edit)  # taken, though not written yet
        for box, mask in group:
            part = after[box.shift(-around.y0, -around.x0).slices]
            free = mask & (part == 0)
            has_pixels.append(bool(free.any()))
            part[free] = number
            number += has_pixels[-1]
        edits.append(LabelEdit(index, around, before, after))
        for cell in cells:
            near.setdefault(cell, []).append(edits[-1])
    return edits, has_pixels


def _cells(box: Box) -> list[tuple[int, int]]:
    rows = range(box.y0 // _CELL, (box.y1 - 1) // _CELL + 1)
    columns = range(box.x0 // _CELL, (box.x1 - 1) // _CELL + 1)
    return [(y, x) for y in rows for x in columns]


def _take_over(pixels: NDArray[np.uint32], around: Box, edit: LabelEdit) -> None:
    """Put what an edit has changed into the pixels of a box."""
    shared = edit.box.intersection(around)
    if shared is not None:
        there = shared.shift(-edit.box.y0, -edit.box.x0).slices
        here = pixels[shared.shift(-around.y0, -around.x0).slices]
        np.copyto(
            here, edit.after[there], where=edit.before[there] != edit.after[there]
        )


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
        return Box.around(self.array[whole] == object_id)
