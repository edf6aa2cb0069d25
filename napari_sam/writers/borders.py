"""Objects -> polygons that run along the borders of their pixels.

A polygon fills exactly the pixels of its object, so nothing is lost on the way to
another program and back. `skimage.measure.find_contours` was rejected: it cuts
corners, and looks at one object at a time.

Every side of a pixel whose neighbour belongs to something else is an edge, directed
so that its pixel lies to the right. At the end of an edge the border turns right if
the pixel ahead is another object's, else left if it can, else it goes on: it stays
with one 4-connected part. All edges of a window are linked and ordered at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from skimage.measure import label

if TYPE_CHECKING:
    from numpy.typing import NDArray

Ring: TypeAlias = "NDArray[np.int64]"
"""(n, 2) corners, (y, x); the first is not repeated at the end."""

Polygon: TypeAlias = "list[Ring]"
"""The outer ring, then holes."""

_SOUTH, _NORTH = 1, 3  # of the directions east, south, west, north
_ENDS = np.array([[0, 1], [1, 1], [1, 0], [0, 0]])
"""Where an edge ends that has this direction, from the corner (r, c) of its pixel."""


def trace(numbers: NDArray[Any], y0: int = 0, x0: int = 0) -> list[list[Polygon]]:
    """Find the outlines of all objects of a window.

    Parameters
    ----------
    numbers : (h, w) integer array
        Objects 1 to n, 0 is background.
    y0, x0 : int
        Where the window begins, in plane pixels.

    Returns
    -------
    list of list of Polygon
        For each object 1 to n, one polygon for each of its 4-connected parts: valid
        by the rules of OGC simple features. Corners lie between pixels: pixel (r, c)
        covers r to r + 1 and c to c + 1. With x to the right and y down, outer rings
        run clockwise and holes against the clock.

    Examples
    --------
    >>> (rectangle,) = trace(np.array([[0, 1, 1], [0, 0, 0]]))
    >>> rectangle[0][0].tolist()
    [[0, 3], [1, 3], [1, 1], [0, 1]]
    """
    outlines: list[list[Polygon]] = [[] for _ in range(int(numbers.max(initial=0)))]
    padded = np.pad(numbers.astype(np.int32), 1)
    edges = _find_edges(padded)
    if not len(edges.pixels):
        return outlines
    order, starts = _in_order(edges.following)
    pixels, directions = edges.pixels[order], edges.directions[order]
    corners = np.stack(np.divmod(pixels, padded.shape[1]), axis=1) + _ENDS[directions]
    corners += (y0 - 1, x0 - 1)
    ends = np.append(starts[1:], len(order))
    # area = sum of x dy: what runs south adds its x, what runs north takes it off
    down = (directions == _SOUTH).astype(np.int64) - (directions == _NORTH)
    areas = np.add.reduceat(down * corners[:, 1], starts)
    knotted = _find_knotted(corners, edges.is_touch[order], starts)
    is_turn = directions != edges.directions[edges.following[order]]
    firsts = pixels[starts]
    owners = padded.ravel()[firsts].tolist()
    parts = label(padded, connectivity=1).ravel()[firsts].tolist()
    polygons: dict[int, Polygon] = {}
    for i, (owner, part) in enumerate(zip(owners, parts, strict=True)):
        ring = slice(starts[i], ends[i])
        if part not in polygons:
            polygons[part] = []
            outlines[owner - 1].append(polygons[part])
        if i in knotted:
            _add_loops(polygons[part], corners[ring])
        else:
            where = 0 if areas[i] > 0 else len(polygons[part])
            polygons[part].insert(where, corners[ring][is_turn[ring]])
    return outlines


class _Edges(NamedTuple):
    """All edges of a window, in order of their pixels.

    `following` is the place of the next edge; `is_touch` tells where an edge ends at
    a corner at which another pixel of the object lies diagonally opposite.
    """

    pixels: NDArray[np.int64]
    directions: NDArray[np.int64]
    following: NDArray[np.int64]
    is_touch: NDArray[np.bool_]


def _find_edges(padded: NDArray[np.int32]) -> _Edges:
    flat, width = padded.ravel(), padded.shape[1]
    ahead = np.array([1, width, -1, -width])
    left = np.array([-width, 1, width, -1])
    inside = np.flatnonzero(flat)
    keys = np.sort(
        np.concatenate(
            [4 * inside[flat[inside] != flat[inside + left[d]]] + d for d in range(4)]
        )
    )
    pixels, directions = np.divmod(keys, 4)
    objects = flat[pixels]
    onward = pixels + ahead[directions]
    beside = onward + left[directions]
    is_right = flat[onward] != objects
    is_left = ~is_right & (flat[beside] == objects)
    next_pixels = np.where(is_right, pixels, np.where(is_left, beside, onward))
    next_directions = (directions + is_right - is_left) % 4
    following = np.searchsorted(keys, 4 * next_pixels + next_directions)
    return _Edges(pixels, directions, following, is_right & (flat[beside] == objects))


def _in_order(
    following: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort edges by ring, and along each ring; also tell where each ring starts."""
    n_edges = len(following)
    links = coo_array(
        (np.ones(n_edges, bool), (np.arange(n_edges), following)), (n_edges, n_edges)
    )
    ring = connected_components(links, connection="weak")[1]
    _, first, lengths = np.unique(ring, return_index=True, return_counts=True)
    # steps to the first edge of the ring, found by doubling: 1, 2, 4, ... at a time
    jump, steps = following.copy(), np.ones(n_edges, np.int64)
    jump[first], steps[first] = first, 0
    for _ in range(int(lengths.max()).bit_length()):
        steps += steps[jump]
        jump = jump[jump]
    starts = np.cumsum(lengths) - lengths
    order = np.empty(n_edges, np.int64)
    order[starts[ring] + (lengths[ring] - steps) % lengths[ring]] = np.arange(n_edges)
    return order, starts


def _find_knotted(
    corners: NDArray[np.int64], is_touch: NDArray[np.bool_], starts: NDArray[np.int64]
) -> set[int]:
    """Number the rings that pass a corner twice."""
    touches = np.flatnonzero(is_touch)
    rings = np.searchsorted(starts, touches, side="right") - 1
    visits, n_visits = np.unique(
        np.column_stack([rings, corners[touches]]), axis=0, return_counts=True
    )
    return set(visits[n_visits > 1, 0].tolist())


def _add_loops(polygon: Polygon, ring: Ring) -> None:
    """Split a ring where it touches itself; add an outer ring and holes."""
    path: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for y, x in [*ring.tolist(), ring[0].tolist()]:
        if (y, x) in place:
            loop = path[place[y, x] :]
            del path[place[y, x] :]
            for corner in loop:
                del place[corner]
            corners = np.array(loop)
            before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
            area = ((corners + after)[:, 1] * (after - corners)[:, 0]).sum()
            is_turn = ((corners - before) != (after - corners)).any(axis=1)
            polygon.insert(0 if area > 0 else len(polygon), corners[is_turn])
        place[y, x] = len(path)
        path.append((y, x))
