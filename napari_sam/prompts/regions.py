"""Regions that are drawn or labelled, as prompts: a box and a point well inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy import ndimage

from napari_sam.errors import InputError
from napari_sam.prompts.prompt import Prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LabelsAs = Literal["points", "boxes", "both"]

# A drawn region is looked at in a picture of at most this many pixels along a side:
# enough to tell inside from outside (ours).
_MAX_SIDE = 200

_LINE_POINTS = 5  # a scribble says as much as a few points along it (ours)


def prompts_from_labels(
    labels: NDArray[Any], kind: LabelsAs = "points"
) -> list[Prompts]:
    """Make prompts from an image of labels, such as seeds or an older segmentation.

    Parameters
    ----------
    labels : (H, W) array of integers
        Object ids; 0 is background.
    kind : str
        ``points``: the pixel deepest inside each object, which unlike the centroid is
        never beside it. ``boxes``: the box around it. ``both``.

    Returns
    -------
    list of Prompts
        One for each object, by id, which `Prompts.object_id` keeps.

    Raises
    ------
    InputError
        If the labels are none, an id is negative, or the kind is another word.

    Examples
    --------
    >>> labels = np.zeros((9, 9), np.uint8)
    >>> labels[2:7, 3:8] = 4
    >>> (found,) = prompts_from_labels(labels)
    >>> found.object_id, found.points.tolist()
    (4, [[4.0, 5.0]])
    """
    if labels.ndim != 2 or labels.dtype.kind not in "biu":
        raise InputError(
            f"labels of shape {labels.shape} and type {labels.dtype}; give one plane "
            "of integers, 0 for background"
        )
    if labels.min(initial=0) < 0:
        raise InputError(f"object id {labels.min()}; ids count from 1, 0 is background")
    if kind not in ("points", "boxes", "both"):
        raise InputError(f"labels as {kind!r}; use points, boxes or both")
    ids, places = np.unique(labels, return_inverse=True)
    places = places.reshape(labels.shape) + (0 if ids[:1] == 0 else 1)
    found = []
    for number, part in zip(
        ids[ids > 0].tolist(), ndimage.find_objects(places), strict=True
    ):
        inside = labels[part] == number
        rows, columns = part
        y, x = deepest_pixel(inside)
        box = [rows.start, columns.start, rows.stop, columns.stop]
        found.append(
            Prompts(
                points=None
                if kind == "boxes"
                else [[rows.start + y, columns.start + x]],
                boxes=None if kind == "points" else box,
                object_id=number,
            )
        )
    return found


def points_along(line: NDArray[Any]) -> NDArray[np.float32]:
    """Return a few points at equal distances along a line.

    Parameters
    ----------
    line : (N, 2) array, (y, x)
        Its corners; without any there are no points.

    Returns
    -------
    (n, 2) float32 array
    """
    if not len(line):
        return np.zeros((0, 2), np.float32)
    steps = np.hypot(*np.diff(line, axis=0).T)
    at = np.concatenate([[0], np.cumsum(steps)])
    wanted = np.linspace(0, at[-1], 2 * _LINE_POINTS + 1)[1::2]
    found = np.stack([np.interp(wanted, at, line[:, i]) for i in (0, 1)], axis=1)
    return np.unique(found.astype(np.float32), axis=0)


def prompts_from_outline(rings: Sequence[NDArray[np.float64]]) -> Prompts:
    """Make prompts from the outline of a region.

    Parameters
    ----------
    rings : sequence of (N, 2) arrays, (y, x)
        Corners, in pixels from the upper left corner of the plane, where pixel
        (r, c) spans r to r + 1 and c to c + 1. What lies in an even number of rings
        is a hole.

    Returns
    -------
    Prompts
        The box around the region, and the point deepest inside.

    Raises
    ------
    InputError
        If the region has no area.
    """
    from skimage.draw import polygon2mask  # slow to import

    corners = np.concatenate(rings)
    first, last = corners.min(axis=0), corners.max(axis=0)
    if (last <= first).any():
        raise InputError("an outline without an area; draw round the object")
    scale = min(_MAX_SIDE / (last - first).max(), 4.0)  # small regions: quarter pixels
    shape = np.ceil((last - first) * scale).astype(int)
    inside = np.zeros(shape, bool)
    for ring in rings:
        inside ^= polygon2mask(tuple(shape), (ring - first) * scale - 0.5)
    if not inside.any():
        inside[:] = True  # thinner than a pixel: its middle will do
    y, x = (np.add(deepest_pixel(inside), 0.5) / scale + first - 0.5).tolist()
    return Prompts([[y, x]], boxes=[*first, *last])


def deepest_pixel(inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the pixel that is farthest from what lies outside a region.

    Of several the one nearest to their mean, so that a bar is met in its middle.

    Parameters
    ----------
    inside : (H, W) array of bool
        Not empty; what lies beyond the array is outside.
    """
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    deepest = np.argwhere(depth == depth.max())
    distances = ((deepest - deepest.mean(axis=0)) ** 2).sum(axis=1)
    y, x = deepest[distances.argmin()].tolist()
    return y, x
