"""Crops that cover a plane, and the coordinates of plane and network.

A plane is cut into overlapping crops of equal size. Each crop answers for its
core; cores tile the plane without gap or overlap, and the border between two
cores runs through the middle of the overlap, so that the crop whose core holds
a point is also the crop in which that point lies most central.

Crops start at multiples of one step, which is itself a multiple of 64 input px: a
network with strides gives another answer to pixels that lie elsewhere between its
strides, and two crops that see one object should agree. The last crop is shifted back
to such a multiple and ends with the plane, less than 64 input px shorter than the
others. Spreading crops evenly would widen each halo a little, but at scale 1 the
regular starts fall on the chunk borders of common files (768 = 3 x 256), too. Fewer
crops of a plane that is shrunk a little (`CropGrid.balanced`) take half the time for
2048 x 2048 px, but find a little less, so they have to be asked for.

Integer coordinates are pixel centres, so a point ``y`` of the plane lies at
``(y + 0.5 - y0) * scale - 0.5`` in the input frame of a crop that begins at
``y0``. The reference code of Segment Anything multiplies by the scale alone
and is therefore off by ``(scale - 1) / 2`` input pixels.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import numpy as np

from napari_sam.errors import InputError
from napari_sam.tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import ArrayLike, NDArray

MAX_UPSCALE = 4.0
"""Small planes are enlarged at most this much; beyond it nothing is gained (ours)."""

CELLS = 16
"""Crops start at multiples of this part of their size: 64 px of 1024, in which the
strides of all encoders fit."""

MAX_SHRINK = 1.1
"""`CropGrid.balanced` shrinks a plane at most by this factor."""

TARGET_DIAMETER = 40.0
"""Object diameter, in input pixels, that `CropGrid.for_diameter` aims at (ours)."""


@dataclass(frozen=True, slots=True)
class Crop:
    """One crop: what the encoder sees, and the part that it answers for.

    Parameters
    ----------
    index, row, col : int
        Number in the grid, row by row, and place in the grid.
    box : Box
        What is read, halo included, in plane pixels.
    core : Box
        What this crop answers for, in plane pixels; lies inside `box`.
    input_shape : tuple of int
        (height, width) of the crop in the input frame of the network.
    """

    index: int
    row: int
    col: int
    box: Box
    core: Box
    input_shape: tuple[int, int]

    @property
    def scale(self) -> tuple[float, float]:
        """Input pixels per plane pixel, (y, x); exact for this crop."""
        return (
            self.input_shape[0] / self.box.height,
            self.input_shape[1] / self.box.width,
        )

    def to_input(self, points: ArrayLike) -> NDArray[np.float64]:
        """Move points of the plane into the input frame.

        Parameters
        ----------
        points : (N, 2) array, (y, x), plane pixels
            Pixel centres have integer coordinates.

        Returns
        -------
        (N, 2) float64 array, (y, x), input pixels
            Not yet clipped: a point outside the crop stays outside.
        """
        centres = np.asarray(points, np.float64).reshape(-1, 2)
        return (centres + 0.5 - self._origin) * self._factor - 0.5

    def to_plane(self, points: ArrayLike) -> NDArray[np.float64]:
        """Move points of the input frame back into the plane; undoes `to_input`.

        Parameters
        ----------
        points : (N, 2) array, (y, x), input pixels

        Returns
        -------
        (N, 2) float64 array, (y, x), plane pixels
        """
        centres = np.asarray(points, np.float64).reshape(-1, 2)
        return (centres + 0.5) / self._factor - 0.5 + self._origin

    def boxes_to_input(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Move half-open boxes of the plane into the input frame.

        The numbers of a half-open box are pixel edges, not pixel centres, so the
        edge at the start of the crop becomes exactly 0.

        Parameters
        ----------
        boxes : (N, 4) array, y0, x0, y1, x1, plane pixels

        Returns
        -------
        (N, 4) float64 array, y0, x0, y1, x1, input pixels, half-open
        """
        edges = np.asarray(boxes, np.float64).reshape(-1, 2, 2)
        return ((edges - self._origin) * self._factor).reshape(-1, 4)

    def boxes_to_plane(self, boxes: ArrayLike) -> NDArray[np.float64]:
        """Move half-open boxes of the input frame back; undoes `boxes_to_input`.

        Parameters
        ----------
        boxes : (N, 4) array, y0, x0, y1, x1, input pixels

        Returns
        -------
        (N, 4) float64 array, y0, x0, y1, x1, plane pixels, half-open
        """
        edges = np.asarray(boxes, np.float64).reshape(-1, 2, 2)
        return (edges / self._factor + self._origin).reshape(-1, 4)

    @property
    def _factor(self) -> NDArray[np.float64]:
        return np.array(self.scale, np.float64)

    @property
    def _origin(self) -> NDArray[np.float64]:
        return np.array([self.box.y0, self.box.x0], np.float64)


@dataclass(frozen=True, slots=True)
class _Axis:
    """Crops along one side of the plane, in plane pixels.

    Attributes
    ----------
    length : int
        Of the side.
    crop : int
        Of a crop.
    step : float
        From a crop to the next, before rounding to whole pixels; at least 1.
    last : int
        Where the last crop starts.
    n : int
        Number of crops.
    zoom : float
        Input pixels per plane pixel.
    size : int
        Largest number of input pixels.
    """

    length: int
    crop: int
    step: float
    last: int
    n: int
    zoom: float
    size: int

    @classmethod
    def layout(cls, length: int, zoom: float, size: int, halo: int) -> Self:
        """Cut `length` plane pixels into crops of at most `size` input pixels."""
        scaled = max(1, int(length * zoom + 0.5))
        if scaled <= size:
            return cls(length, length, length, 0, 1, zoom, size)
        # 1e-9: size / zoom must not lose a pixel to rounding of the quotient
        crop = int(size / zoom * (1 + 1e-9))
        core, cell = min(size - 2 * halo, int(crop * zoom)), max(1, size // CELLS)
        step = max(1.0, _step(size, core) / zoom)
        # the last crop starts at a cell, too, and so reaches over the end by less
        # than one
        behind, fine = length - crop, max(1.0, min(cell / zoom, step))
        n = 1 + _first_beyond(behind, step)
        last = min(_whole((n - 1) * step), _whole(_first_beyond(behind, fine) * fine))
        return cls(length, crop, step, last, n, zoom, size)

    def start(self, i: int) -> int:
        return min(_whole(i * self.step), self.last)

    def stop(self, i: int) -> int:
        return min(self.start(i) + self.crop, self.length)

    def input_length(self, i: int) -> int:
        scaled = int((self.stop(i) - self.start(i)) * self.zoom + 0.5)
        return max(1, min(self.size, scaled))

    def middle(self, i: int) -> float:
        """Edge in the middle of the overlap of crop `i` and the next."""
        return (self.stop(i) + self.start(i + 1)) / 2

    def core(self, i: int) -> tuple[int, int]:
        first = 0 if i == 0 else int(self.middle(i - 1))
        return first, self.length if i == self.n - 1 else int(self.middle(i))

    def most_central(self, centre: float) -> int:
        """Crop of which the inner borders are farthest from a pixel centre."""
        # a tie goes to the later crop, as the rounded-down core borders do
        return bisect_right(range(self.n - 1), centre + 0.5, key=self.middle)

    def touching(self, start: int, stop: int) -> list[int]:
        return [
            i for i in range(self.n) if self.start(i) < stop and start < self.stop(i)
        ]


@dataclass(frozen=True, slots=True)
class CropGrid:
    """Crops that cover one plane.

    Parameters
    ----------
    shape : tuple of int
        Size of the plane, (height, width), in pixels.
    size : int, default 1024
        Side of a crop with its halo, in input pixels; the encoder's input size.
    halo : int, default 128
        Context on each side of the core, in input pixels.
    scale : float, optional
        Input pixels per plane pixel. Default: a plane that fits in one crop is
        enlarged to fill it, at most x4; a larger plane keeps its resolution.

    Raises
    ------
    InputError
        If the plane is empty, if the halo leaves no core (``2 * halo >= size``)
        or if the scale is not a number between 0 and `size`.

    Examples
    --------
    >>> grid = CropGrid((1500, 900), size=1024, halo=128)
    >>> grid.core, len(grid), grid[1].box
    (768, 2, Box(y0=512, x0=0, y1=1500, x1=900))
    """

    shape: tuple[int, int]
    size: int = 1024
    halo: int = 128
    scale: float | None = None
    _y: _Axis = field(init=False, repr=False, compare=False)
    _x: _Axis = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _plane_shape(self.shape))
        if self.size < 1:
            raise InputError(f"crop size {self.size} px; use 1 px or more")
        if self.halo < 0 or 2 * self.halo >= self.size:
            raise InputError(
                f"halo {self.halo} px leaves no core in a crop of {self.size} px; "
                f"use a halo from 0 to {(self.size - 1) // 2} px"
            )
        if self.scale is not None and not 0 < self.scale <= self.size:
            raise InputError(
                f"scale {self.scale}; give input pixels per plane pixel, "
                f"more than 0 and at most {self.size}"
            )
        for name, length in zip(("_y", "_x"), self.shape, strict=True):
            axis = _Axis.layout(length, self.zoom, self.size, self.halo)
            object.__setattr__(self, name, axis)

    @classmethod
    def for_diameter(
        cls,
        shape: tuple[int, int],
        diameter: float,
        *,
        size: int = 1024,
        halo: int = 128,
    ) -> Self:
        """Choose the scale so that objects have a good size for the encoder.

        Parameters
        ----------
        shape : tuple of int
            Size of the plane, (height, width), in pixels.
        diameter : float
            Typical object diameter, in plane pixels.
        size, halo : int
            As in `CropGrid`.

        Raises
        ------
        InputError
            If the diameter is not a positive number.

        Examples
        --------
        >>> CropGrid.for_diameter((4000, 4000), diameter=80).scale
        0.5
        """
        if not 0 < diameter < math.inf:
            raise InputError(f"diameter {diameter} px; give a number of pixels above 0")
        return cls(shape, size, halo, min(TARGET_DIAMETER / diameter, MAX_UPSCALE))

    @classmethod
    def balanced(
        cls, shape: tuple[int, int], *, size: int = 1024, halo: int = 128
    ) -> Self:
        """Cut a plane into fewer crops where little is lost by it.

        The plane is shrunk, by a factor of at most `MAX_SHRINK`, and the halo halved,
        if then fewer crops see all of it.

        Parameters
        ----------
        shape : tuple of int
            Size of the plane, (height, width), in pixels.
        size, halo : int
            As in `CropGrid`.

        Examples
        --------
        >>> grid = CropGrid.balanced((2048, 2048))
        >>> len(CropGrid((2048, 2048))), len(grid), grid.scale, grid.halo
        (9, 4, 0.9375, 64)
        """
        plain = cls(shape, size, halo)
        if max(plain.shape) <= size:
            return plain
        step = _step(size, size - 2 * (halo // 2))
        # input pixels that the fewest crops see along each side
        seen = [
            size + step * max(0, math.ceil((length / MAX_SHRINK - size) / step))
            for length in plain.shape
        ]
        scales = [n / length for n, length in zip(seen, plain.shape, strict=True)]
        fewer = cls(shape, size, halo // 2, min(1.0, *scales))
        return fewer if len(fewer) < len(plain) else plain

    @property
    def zoom(self) -> float:
        """Input pixels per plane pixel; `scale`, or what its default rule gives.

        The exact factor of a crop, after rounding to whole pixels, is
        `Crop.scale`.
        """
        if self.scale is not None:
            return self.scale
        longest = max(self.shape)
        return min(self.size / longest, MAX_UPSCALE) if longest <= self.size else 1.0

    @property
    def core(self) -> int:
        """Side of an inner crop without its halo, in input pixels."""
        return self.size - 2 * self.halo

    @property
    def n_rows(self) -> int:
        """Number of crops from top to bottom."""
        return self._y.n

    @property
    def n_cols(self) -> int:
        """Number of crops from left to right."""
        return self._x.n

    def __len__(self) -> int:
        return self.n_rows * self.n_cols

    def __getitem__(self, index: int) -> Crop:
        if not 0 <= index < len(self):
            # IndexError, not ours: iteration and `in` rely on it
            raise IndexError(f"crop {index} of {len(self)}; count from 0")
        return self._crop(*divmod(index, self.n_cols))

    def __iter__(self) -> Iterator[Crop]:
        return (self[i] for i in range(len(self)))

    def crop_at(self, y: float, x: float) -> Crop:
        """Return the crop in which a point lies most central.

        Parameters
        ----------
        y, x : float
            Point of the plane, in pixels; pixel centres have integer coordinates.

        Raises
        ------
        InputError
            If the point lies outside the plane.
        """
        height, width = self.shape
        if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
            raise InputError(
                f"point (y, x) = ({y}, {x}) lies outside the plane of "
                f"{height} x {width} px; give a point inside"
            )
        return self._crop(self._y.most_central(y), self._x.most_central(x))

    def crops_touching(self, box: Box) -> list[Crop]:
        """Return the crops that see at least one pixel of a box, in grid order.

        Parameters
        ----------
        box : Box
            Region of the plane, in pixels.
        """
        if box.area == 0:
            return []
        return [
            self._crop(row, col)
            for row in self._y.touching(box.y0, box.y1)
            for col in self._x.touching(box.x0, box.x1)
        ]

    def _crop(self, row: int, col: int) -> Crop:
        y, x = self._y, self._x
        y0, x0 = y.start(row), x.start(col)
        (core_y0, core_y1), (core_x0, core_x1) = y.core(row), x.core(col)
        return Crop(
            index=row * x.n + col,
            row=row,
            col=col,
            box=Box(y0, x0, y.stop(row), x.stop(col)),
            core=Box(core_y0, core_x0, core_y1, core_x1),
            input_shape=(y.input_length(row), x.input_length(col)),
        )


def _step(size: int, core: int) -> int:
    """Return from one crop to the next: the core, in whole cells if it has any."""
    cell = max(1, size // CELLS)
    return core if core < cell else core // cell * cell


def _whole(x: float) -> int:
    return math.floor(x + 0.5)


def _first_beyond(length: int, step: float) -> int:
    """Return the first i of which ``i * step``, rounded, reaches a length."""
    i = max(0, math.ceil((length - 0.5) / step) - 1)  # a little early, for rounding
    while _whole(i * step) < length:
        i += 1
    return i


def _plane_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(
            f"plane shape {tuple(shape)}; give (height, width), each 1 px or more"
        )
    return int(shape[0]), int(shape[1])
