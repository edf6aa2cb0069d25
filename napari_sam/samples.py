"""Images to try things on, without a download.

The histology section comes with scikit-image. The mosaic is made of mirrored copies of
it that nobody stores: it is as large as a slide and takes the memory of one copy. The
volume and the time-lapse are drawn, so their true objects are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage
from skimage import data
from skimage.transform import downscale_local_mean

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

VOXEL_SIZE_UM = (1.5, 0.5, 0.5)
"""(z, y, x) size of a voxel of the drawn volume, in micrometres."""

PIXEL_SIZE_UM = 0.5
"""Pixel size of the drawn time-lapse, in micrometres."""

_COPIES = 40  # of 512 px: 20,480 px a side, a small slide
_LEVELS = 6  # the smallest of 640 px


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A drawn image and the objects in it.

    Parameters
    ----------
    image : array of uint8
        Gray.
    labels : array of uint32, of the shape of the image
        Object ids; 0 is background.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class Mosaic:
    """Copies of an image side by side, every second one mirrored; made when read.

    Neighbours meet at equal borders, so there is no seam.

    Parameters
    ----------
    image : (h, w, ...) array
        One copy.
    copies : int
        Number of copies in each direction.

    Raises
    ------
    InputError
        If the number of copies is below 1.

    Examples
    --------
    >>> Mosaic(np.array([[1, 2]]), 3)[0].tolist()
    [1, 2, 2, 1, 1, 2]
    """

    image: NDArray[Any]
    copies: int

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise InputError(f"{self.copies} copies; use 1 or more")

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        height, width = self.image.shape[:2]
        return height * self.copies, width * self.copies, *self.image.shape[2:]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.image.ndim

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.image.size * self.copies**2

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one pixel."""
        return self.image.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        parts = _one_for_each_axis(key, self.ndim)
        rows, columns = (
            _folded(np.atleast_1d(np.arange(length * self.copies)[part]), length)
            for length, part in zip(self.image.shape[:2], parts[:2], strict=True)
        )
        # a number takes its axis away, as in numpy
        kept = [slice(None) if isinstance(part, slice) else 0 for part in parts[:2]]
        found: NDArray[Any] = self.image[rows[:, None], columns][*kept, *parts[2:]]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self[:], dtype=dtype, copy=copy)


def histology() -> NDArray[np.uint8]:
    """Return a section of colon, stained for FHL2 with a blue counterstain.

    Returns
    -------
    (512, 512, 3) uint8 array
        RGB; `skimage.data.immunohistochemistry`, without copyright restrictions.
    """
    section: NDArray[np.uint8] = data.immunohistochemistry()
    return section


def mosaic(copies: int = _COPIES, n_levels: int = _LEVELS) -> list[Mosaic]:
    """Return the histology section repeated to the size of a slide.

    Parameters
    ----------
    copies : int
        Copies in each direction.
    n_levels : int
        Number of resolution levels, each half as large as the one before.

    Returns
    -------
    list of Mosaic
        The largest first; 20,480 x 20,480 px RGB by default.
    """
    levels = [histology()]
    while len(levels) < n_levels:
        half = downscale_local_mean(levels[-1], (2, 2, 1))
        levels.append(half.round().astype(np.uint8))
    return [Mosaic(level, copies) for level in levels]


def volume(shape: tuple[int, int, int] = (24, 256, 256), n_cells: int = 60) -> Drawn:
    """Draw nuclei in a confocal stack.

    Parameters
    ----------
    shape : tuple of int
        (z, y, x), in voxels of `VOXEL_SIZE_UM`.
    n_cells : int
        How many nuclei are tried; those that would touch another are left out.

    Returns
    -------
    Drawn
        Of the given shape; the same at each call.
    """
    rng = np.random.default_rng(0)
    step = np.array(VOXEL_SIZE_UM) / VOXEL_SIZE_UM[1]
    radii = rng.uniform(9, 15, (n_cells, 1)) / step
    places = rng.uniform(0, shape, (n_cells, 3))
    kept = _apart(places * step, radii.max(axis=1))
    return _drawn(shape, places[kept], radii[kept], rng)


def time_lapse(
    shape: tuple[int, int, int] = (20, 256, 256), n_cells: int = 40
) -> Drawn:
    """Draw cells that drift.

    Parameters
    ----------
    shape : tuple of int
        (frames, y, x).
    n_cells : int
        How many cells are tried; those that would touch another are left out.

    Returns
    -------
    Drawn
        Of the given shape; a cell keeps its id. The same at each call.
    """
    rng = np.random.default_rng(1)
    n_frames, *plane = shape
    radii = rng.uniform(10, 16, (n_cells, 2))
    margin = radii.max()
    starts = rng.uniform(margin, np.array(plane) - margin, (n_cells, 2))
    kept = _apart(starts, radii.max(axis=1) + 3)
    steps = rng.normal(0, 0.5, starts.shape)
    frames = [
        _drawn(plane, (starts + t * steps)[kept], radii[kept], rng)
        for t in range(n_frames)
    ]
    return Drawn(
        np.stack([frame.image for frame in frames]),
        np.stack([frame.labels for frame in frames]),
    )


def _one_for_each_axis(key: Any, ndim: int) -> tuple[Any, ...]:
    """Write an index in full: no ellipsis, one part for each axis."""
    parts = key if isinstance(key, tuple) else (key,)
    at = next((i for i, part in enumerate(parts) if part is Ellipsis), len(parts))
    before, after = parts[:at], parts[at + 1 :]
    return *before, *[slice(None)] * (ndim - len(before) - len(after)), *after


def _folded(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Reflect places along a mosaic into its first copy."""
    turn = places % (2 * length)
    return np.minimum(turn, 2 * length - 1 - turn)


def _apart(places: NDArray[np.float64], radii: NDArray[np.float64]) -> list[int]:
    """Choose places that are not too near to one chosen before."""
    kept: list[int] = []
    for i, place in enumerate(places):
        gaps = np.linalg.norm(places[kept] - place, axis=1)
        if (gaps > 0.95 * (radii[kept] + radii[i])).all():
            kept.append(i)
    return kept


def _drawn(
    shape: Any,
    centres: NDArray[np.float64],
    radii: NDArray[np.float64],
    rng: np.random.Generator,
) -> Drawn:
    """Draw ellipses, brighter in their middle; then blur and noise."""
    labels = np.zeros(shape, np.uint32)
    light = np.zeros(shape, np.float32)
    for number, (centre, radius) in enumerate(zip(centres, radii, strict=True), 1):
        first = np.floor(centre - radius).clip(0).astype(int)
        last = np.ceil(centre + radius).astype(int) + 1
        region = tuple(slice(a, b) for a, b in zip(first, last, strict=True))
        axes = np.ogrid[tuple(slice(0, n) for n in labels[region].shape)]
        distance = sum(
            ((axis + start - middle) / r) ** 2
            for axis, start, middle, r in zip(axes, first, centre, radius, strict=True)
        )
        inside = (distance < 1) & (labels[region] == 0)
        labels[region][inside] = number
        brightness = 0.6 + 0.4 * np.sin(number)  # its own, and the same in each frame
        light[region][inside] = (brightness + 0.4) * (1 - 0.3 * distance[inside])
    blurred = ndimage.gaussian_filter(light, 1.2) * 140 + 15
    noisy = blurred + rng.normal(0, 4, blurred.shape)
    return Drawn(noisy.clip(0, 255).astype(np.uint8), labels)
