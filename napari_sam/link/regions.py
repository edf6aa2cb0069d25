"""Objects of a plane, and the pixels that two planes' objects share, as numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_RING = 3  # pixels around an object that its brightness is compared with (ours)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """The objects of one plane, or of one frame of several slices.

    Parameters
    ----------
    ids : (N,) int64 array
        Object ids, ascending, without the background.
    area : (N,) int64 array
        Pixels of each object.
    centre : (N, 3) float64 array, (z, y, x)
        Centroid of each object, in pixels and slices.
    """

    ids: NDArray[np.int64]
    area: NDArray[np.int64]
    centre: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids)


class Shared(NamedTuple):
    """Pairs of objects of two planes that share pixels.

    Attributes
    ----------
    first, second : (K,) int64 array
        Rows of the two `Regions`.
    pixels : (K,) int64 array
        How many pixels they share, at least 1.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    pixels: NDArray[np.int64]


def measure_regions(slices: Iterable[NDArray[np.integer]]) -> Regions:
    """Measure the objects of a frame, slice by slice.

    Parameters
    ----------
    slices : iterable of (H, W) arrays of integers
        Object ids, 0 is background; one plane, or all slices of a volume.

    Returns
    -------
    Regions

    Examples
    --------
    >>> found = measure_regions([np.array([[0, 7, 7], [0, 7, 3]])])
    >>> found.ids.tolist(), found.area.tolist(), found.centre[0].tolist()
    ([3, 7], [1, 3], [0.0, 1.0, 2.0])
    """
    ids = [np.zeros(0, np.int64)]
    sums = [np.zeros((0, 4))]  # pixels, and sums of z, y, x
    for z, labels in enumerate(slices):
        rows, columns = np.nonzero(labels)
        found, of = np.unique(labels[rows, columns], return_inverse=True)
        n = len(found)
        area = np.bincount(of, minlength=n).astype(np.float64)
        y, x = (np.bincount(of, weights=at, minlength=n) for at in (rows, columns))
        ids.append(found.astype(np.int64))
        sums.append(np.stack([area, z * area, y, x], axis=1))
    every, of = np.unique(np.concatenate(ids), return_inverse=True)
    total = np.zeros((len(every), 4))
    np.add.at(total, of, np.concatenate(sums))
    area = total[:, 0]
    return Regions(every, area.astype(np.int64), total[:, 1:] / area[:, None])


def shared_pixels(
    first: Regions,
    second: Regions,
    slices: Iterable[tuple[NDArray[np.integer], NDArray[np.integer]]],
) -> Shared:
    """Count the pixels that objects of two frames share.

    Parameters
    ----------
    first, second : Regions
        The objects of both frames.
    slices : iterable of pairs of (H, W) arrays of integers
        The labels of both frames, slice by slice.

    Returns
    -------
    Shared
        Sorted by `first`, then `second`.

    Raises
    ------
    InputError
        If two slices differ in shape.
    """
    n = max(len(second), 1)
    keys, counts = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for a, b in slices:
        if a.shape != b.shape:
            raise InputError(
                f"planes of {a.shape} and {b.shape} px in one stack; give one shape"
            )
        both = (a > 0) & (b > 0)
        rows = np.searchsorted(first.ids, a[both])
        key, count = np.unique(
            rows * n + np.searchsorted(second.ids, b[both]), return_counts=True
        )
        keys.append(key.astype(np.int64))
        counts.append(count.astype(np.int64))
    key, of = np.unique(np.concatenate(keys), return_inverse=True)
    pixels = np.zeros(len(key), np.int64)
    np.add.at(pixels, of, np.concatenate(counts))
    return Shared(*np.divmod(key, n), pixels)


def overlap_score(
    shared: NDArray[np.int64],
    first_area: NDArray[np.int64],
    second_area: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return how well overlapping shapes agree, 0 to 1.

    A weighted geometric mean of IoU (1 part) and of the share of the smaller one that
    lies in the larger (3 parts). A cross-section that shrinks in its place keeps a
    high score (a sphere ends like this), one that moves aside does not (ours).

    Parameters
    ----------
    shared, first_area, second_area : (K,) arrays
        Pixels in common, and pixels of each.

    Examples
    --------
    >>> in_place = overlap_score(np.array([16]), np.array([16]), np.array([256]))
    >>> aside = overlap_score(np.array([16]), np.array([48]), np.array([48]))
    >>> in_place.round(2).tolist(), aside.round(2).tolist()
    ([0.5], [0.29])
    """
    iou = shared / (first_area + second_area - shared)
    held = shared / np.minimum(first_area, second_area)
    score: NDArray[np.float64] = (iou * held**3) ** 0.25
    return score


def measure_contrast(
    labels: NDArray[np.integer], gray: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Measure how much brighter or darker objects are than what is around them.

    Parameters
    ----------
    labels : (H, W) array of integers
        Object ids, 0 is background.
    gray : (H, W) array
        Brightness of the same pixels.

    Returns
    -------
    (N,) float64 array
        For each object, in the order of `Regions.ids`, the difference of its mean and
        that of the background in a ring of three pixels; NaN where there is none.

    Examples
    --------
    >>> labels = np.zeros((9, 9), int)
    >>> labels[3:6, 3:6] = 7
    >>> measure_contrast(labels, 100.0 * labels + 20).tolist()
    [700.0]
    """
    numbers, of = np.unique(labels, return_inverse=True)
    places = ndimage.find_objects(of.reshape(labels.shape) + 1)
    found = []
    for number, place in zip(numbers.tolist(), places, strict=True):
        if not number:
            continue
        wide = tuple(slice(max(0, s.start - _RING), s.stop + _RING) for s in place)
        mask = labels[wide] == number
        ring = ndimage.binary_dilation(mask, iterations=_RING) & (labels[wide] == 0)
        inside = gray[wide][mask].mean()
        found.append(inside - gray[wide][ring].mean() if ring.any() else np.nan)
    return np.array(found, np.float64)
