"""What can be done to objects: pure functions on the labels of a region."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

# A line along a ragged border cuts off crumbs; below this share of the object they
# stay with their neighbour (ours).
_SLIVER = 0.02
# Pixels by which a way from the middle of a body to that of another must become
# narrower, seen from its axis, to be a neck (ours).
_NECK = 1.0


def painted(
    labels: NDArray[np.uint32],
    mask: NDArray[np.bool_],
    object_id: int,
    *,
    overwrite: bool,
) -> NDArray[np.uint32]:
    """Make a mask an object; pixels of the same id outside the mask are cleared.

    Parameters
    ----------
    labels : (h, w) uint32 array
    mask : (h, w) array of bool
    object_id : int
    overwrite : bool
        Whether pixels of other objects are taken.

    Returns
    -------
    (h, w) uint32 array
    """
    result = np.where(labels == object_id, 0, labels).astype(np.uint32)
    result[mask if overwrite else mask & (result == 0)] = object_id
    return result


def covered(
    labels: NDArray[np.uint32], mask: NDArray[np.bool_], object_id: int | None = None
) -> dict[int, int]:
    """Count the pixels of other objects that a mask covers.

    Parameters
    ----------
    labels : (h, w) uint32 array
    mask : (h, w) array of bool
    object_id : int, optional
        An object that does not count.

    Returns
    -------
    dict of int to int
        Number of pixels by object id.
    """
    ids, counts = np.unique(labels[mask], return_counts=True)
    found = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    return {each: n for each, n in found.items() if each not in (0, object_id)}


def outline(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the outermost pixels of a mask.

    Parameters
    ----------
    mask : (h, w) array of bool
        What lies beyond its edges is background.
    width : int
        Thickness, in pixels.

    Returns
    -------
    (h, w) array of bool

    Examples
    --------
    >>> outline(np.ones((4, 5), bool), 1).astype(int).tolist()[1]
    [1, 0, 0, 0, 1]
    """
    inner = np.pad(mask, 1)
    for _ in range(width):
        shrunk = inner.copy()
        shrunk[1:] &= inner[:-1]
        shrunk[:-1] &= inner[1:]
        shrunk[:, 1:] &= inner[:, :-1]
        shrunk[:, :-1] &= inner[:, 1:]
        inner = shrunk
    return mask & ~inner[1:-1, 1:-1]


def merged(
    labels: NDArray[np.uint32], ids: Sequence[int], into: int
) -> NDArray[np.uint32]:
    """Give several objects one id; what lies between them stays background."""
    result = labels.copy()
    result[np.isin(labels, ids)] = into
    return result


def without(labels: NDArray[np.uint32], ids: Sequence[int]) -> NDArray[np.uint32]:
    """Remove objects."""
    return merged(labels, ids, 0)


def split_at_points(
    labels: NDArray[np.uint32],
    object_id: int,
    points: ArrayLike,
    new_ids: Sequence[int],
) -> NDArray[np.uint32]:
    """Split an object into one part for each point.

    A watershed on the distance to the border of the object cuts it at its necks.
    Between points that have no neck between them each pixel goes to the nearest one,
    and what is beyond a neck without a point goes to its neighbour.

    Parameters
    ----------
    labels : (h, w) uint32 array
    object_id : int
        The object; its part around the first point keeps this id.
    points : (N, 2) array, (y, x), pixels
        At least two in the object, on different pixels; others do not count.
    new_ids : sequence of int
        For the second and further parts.

    Returns
    -------
    (h, w) uint32 array

    Raises
    ------
    InputError
        If fewer than two points lie in the object, or two on one pixel.
    """
    mask = labels == object_id
    places = np.floor(np.asarray(points, np.float64).reshape(-1, 2) + 0.5).astype(int)
    inside = (places >= 0).all(1) & (places < labels.shape).all(1)
    places = places[inside]
    places = places[mask[places[:, 0], places[:, 1]]]
    n_places = len(np.unique(places, axis=0))
    if n_places < 2 or n_places < len(places):
        raise InputError(
            f"{len(places)} points on {n_places} pixels of object {object_id}; to "
            "split it, put one positive point into each part"
        )
    ids = [object_id, *new_ids][: len(places)]
    seeds = np.zeros(labels.shape, np.int64)
    seeds[places[:, 0], places[:, 1]] = ids
    from skimage.morphology import h_maxima  # both slow to import, rarely needed
    from skimage.segmentation import watershed

    # beyond the border there is no object
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    middles = ndimage.label(h_maxima(depth, _NECK), np.ones((3, 3)))[0]
    bodies = watershed(-depth, middles, mask=mask)
    grown = np.zeros_like(seeds)
    for body in np.unique(bodies[seeds > 0]):
        here = bodies == body
        nearest = ndimage.distance_transform_edt(
            (seeds == 0) | ~here, return_distances=False, return_indices=True
        )
        grown[here] = seeds[tuple(nearest)][here]
    parts = watershed(-depth, grown, mask=mask)
    result = labels.copy()
    found = parts > 0  # a piece without a point stays with the object
    result[found] = parts[found]
    return result


def split_by_line(
    labels: NDArray[np.uint32],
    object_id: int,
    line: ArrayLike,
    fresh: Sequence[int],
) -> NDArray[np.uint32]:
    """Cut an object along a drawn line; no pixel is lost.

    Parameters
    ----------
    labels : (h, w) uint32 array
    object_id : int
        The object; its largest part keeps this id.
    line : (N, 2) array, (y, x), pixels
        Corners of the line.
    fresh : sequence of int
        Ids for the further parts, largest first.

    Returns
    -------
    (h, w) uint32 array

    Raises
    ------
    InputError
        If the line does not cut the object into parts, or into more than there are
        ids.
    """
    mask = labels == object_id
    cut = mask & ~line_pixels(line, labels.shape)
    parts, n_parts = _large_parts(cut, _SLIVER * np.count_nonzero(mask))
    if n_parts <= _large_parts(mask, _SLIVER * np.count_nonzero(mask))[1]:
        raise InputError(
            f"the line does not cut object {object_id}; draw it from one side of the "
            "object to the other"
        )
    if n_parts > len(fresh) + 1:
        raise InputError(
            f"the line cuts object {object_id} into {n_parts} parts; draw a simpler one"
        )
    order = np.argsort(-np.bincount(parts.ravel())[1:], kind="stable")
    ids = np.zeros(n_parts + 1, np.uint32)
    ids[order + 1] = [object_id, *fresh[: n_parts - 1]]
    # pixels of the line go to the nearest part
    nearest = ndimage.distance_transform_edt(
        parts == 0, return_distances=False, return_indices=True
    )
    result = labels.copy()
    result[mask] = ids[parts[tuple(nearest)]][mask]
    return result


def line_pixels(line: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the pixels that a line through several corners touches.

    Neighbours along the line share a side, so that it has no gap at a diagonal.

    Parameters
    ----------
    line : (N, 2) array, (y, x), pixels
    shape : tuple of int

    Returns
    -------
    array of bool
    """
    corners = np.asarray(line, np.float64).reshape(-1, 2)
    pixels = np.zeros(shape, bool)
    for start, end in pairwise(corners):
        n = 4 * int(np.abs(end - start).max()) + 2  # four steps for a pixel: no gap
        places = np.floor(np.linspace(start, end, n) + 0.5).astype(int)
        corner = np.stack([places[1:, 0], places[:-1, 1]], axis=1)
        places = np.concatenate([places, corner])
        inside = ((places >= 0) & (places < shape)).all(1)
        pixels[tuple(places[inside].T)] = True
    return pixels


def smoothed(
    labels: NDArray[np.uint32], object_id: int, sigma: float = 2.0
) -> NDArray[np.uint32]:
    """Smooth the outline of an object; other objects keep their pixels.

    Parameters
    ----------
    labels : (h, w) uint32 array
        With some margin around the object.
    object_id : int
    sigma : float, default 2
        Of the Gaussian over the mask, in pixels; the outline is where it is one half,
        or less where the object would lose pixels by it: a small one would vanish.

    Returns
    -------
    (h, w) uint32 array
    """
    mask = labels == object_id
    n_pixels = np.count_nonzero(mask)
    if not n_pixels:
        return labels.copy()
    soft = ndimage.gaussian_filter(mask.astype(np.float64), sigma, mode="nearest")
    level = min(0.5, np.partition(soft, -n_pixels, axis=None)[-n_pixels])
    return painted(labels, soft >= level, object_id, overwrite=False)


def filled(labels: NDArray[np.uint32], object_id: int) -> NDArray[np.uint32]:
    """Fill the holes of an object; other objects in them stay."""
    mask = ndimage.binary_fill_holes(labels == object_id)
    return painted(labels, mask, object_id, overwrite=False)


def without_islands(labels: NDArray[np.uint32], object_id: int) -> NDArray[np.uint32]:
    """Keep the largest connected part of an object; corners connect."""
    mask = labels == object_id
    parts, n_parts = ndimage.label(mask, structure=np.ones((3, 3), bool))
    if n_parts < 2:
        return labels.copy()
    sizes = np.bincount(parts.ravel())
    largest = 1 + int(sizes[1:].argmax())
    return painted(labels, parts == largest, object_id, overwrite=False)


def _large_parts(mask: NDArray[np.bool_], area: float) -> tuple[NDArray[np.int64], int]:
    """Number the parts of at least an area; sides connect, corners do not."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    large = sizes >= area
    large[0] = False
    numbers = np.where(large, np.cumsum(large), 0)
    found: NDArray[np.int64] = numbers[parts]
    return found, int(np.count_nonzero(large))
