"""A rectangle of whole pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open rectangle of whole pixels, rows ``y0:y1``, columns ``x0:x1``.

    Parameters
    ----------
    y0, x0, y1, x1 : int
        Edges, in pixels. A box may be empty (``y1 == y0``), never negative.

    Raises
    ------
    InputError
        If an end lies before its start.

    Examples
    --------
    >>> Box(0, 0, 10, 20).intersection(Box(5, 5, 30, 30))
    Box(y0=5, x0=5, y1=10, x1=20)
    """

    y0: int
    x0: int
    y1: int
    x1: int

    def __post_init__(self) -> None:
        if self.y1 < self.y0 or self.x1 < self.x0:
            raise InputError(
                f"box {(self.y0, self.x0, self.y1, self.x1)} ends before it starts; "
                "give y0, x0, y1, x1 with y0 <= y1 and x0 <= x1"
            )

    @classmethod
    def whole(cls, shape: tuple[int, int]) -> Self:
        """Return the box of all pixels of a plane of this (height, width)."""
        return cls(0, 0, shape[0], shape[1])

    @classmethod
    def around(cls, mask: NDArray[np.bool_]) -> Self | None:
        """Return the smallest box around a mask, (h, w); None if it is empty.

        Examples
        --------
        >>> Box.around(np.eye(3, dtype=bool)[:2])
        Box(y0=0, x0=0, y1=2, x1=2)
        """
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not rows.size:
            return None
        ends = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
        return cls(*(int(end) for end in ends))

    @property
    def height(self) -> int:
        """Number of rows."""
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width), in pixels."""
        return self.height, self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of this region in an array whose first axes are rows and columns."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def contains(self, other: Box) -> bool:
        """Whether every pixel of `other` lies in this box."""
        return (
            self.y0 <= other.y0
            and self.x0 <= other.x0
            and other.y1 <= self.y1
            and other.x1 <= self.x1
        )

    def intersection(self, other: Box) -> Box | None:
        """Return the pixels that both boxes have, or None if there are none."""
        y0, x0 = max(self.y0, other.y0), max(self.x0, other.x0)
        y1, x1 = min(self.y1, other.y1), min(self.x1, other.x1)
        return Box(y0, x0, y1, x1) if y0 < y1 and x0 < x1 else None

    def union(self, other: Box) -> Box:
        """Return the smallest box around both; an empty box adds nothing."""
        if self.area == 0:
            return other
        if other.area == 0:
            return self
        return Box(
            min(self.y0, other.y0),
            min(self.x0, other.x0),
            max(self.y1, other.y1),
            max(self.x1, other.x1),
        )

    def shift(self, dy: int, dx: int) -> Box:
        """Return the box moved by `dy` rows and `dx` columns."""
        return Box(self.y0 + dy, self.x0 + dx, self.y1 + dy, self.x1 + dx)

    def clip(self, shape: tuple[int, int]) -> Box:
        """Return the part inside a plane of this (height, width); may be empty."""
        y0, x0 = min(max(self.y0, 0), shape[0]), min(max(self.x0, 0), shape[1])
        y1, x1 = min(max(self.y1, 0), shape[0]), min(max(self.x1, 0), shape[1])
        return Box(y0, x0, y1, x1)
