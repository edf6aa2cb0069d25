"""The shape between two shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray


def shape_between(
    first: NDArray[np.bool_], second: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    """Return the shape on the way from one to another.

    Signed distances to both outlines are averaged about the centres of mass, which
    move on a straight line (Raya and Udupa 1990, IEEE TMI 9:32, with the motion of
    the centre added): a disc that moves stays a disc.

    Parameters
    ----------
    first, second : (H, W) arrays of bool
        Neither of them empty.
    share : float
        0 gives the first shape, 1 the second.

    Returns
    -------
    (H, W) array of bool

    Examples
    --------
    >>> row = np.zeros((3, 9), bool)
    >>> left, right = row.copy(), row.copy()
    >>> left[:, :3] = right[:, 6:] = True
    >>> shape_between(left, right, 0.5)[1].astype(int).tolist()
    [0, 0, 0, 1, 1, 1, 0, 0, 0]
    """
    way = _centre(second) - _centre(first)
    inside = (1 - share) * _shifted(_depth(first), share * way)
    inside += share * _shifted(_depth(second), (share - 1) * way)
    between: NDArray[np.bool_] = inside > 0
    return between


def _depth(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Distance to the outline in pixels, positive inside."""
    padded = np.pad(mask, 1)
    inside = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~mask)
    depth: NDArray[np.float64] = inside - outside + np.where(mask, -0.5, 0.5)
    return depth


def _centre(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    centre: NDArray[np.float64] = np.argwhere(mask).mean(axis=0)
    return centre


def _shifted(
    depth: NDArray[np.float64], way: NDArray[np.float64]
) -> NDArray[np.float64]:
    if not way.any():
        return depth
    shifted: NDArray[np.float64] = ndimage.shift(depth, way, order=1, mode="nearest")
    return shifted
