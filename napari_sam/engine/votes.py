"""Where votes for centres meet: one place for each object (ours).

Every place of the default model's proposal head votes for the centre of its object and
tells the object's size (`napari_sam.model.affinity`). A vote counts as its part of the
object's area, so that the votes of a whole object sum to one, whatever its size. The
densest meetings come first and take their voters with them; what is left of an object
that was found does not make another one.

P places in the foreground; coordinates (y, x) in map cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from napari_sam.model.affinity import CELL

if TYPE_CHECKING:
    from numpy.typing import NDArray

# In sizes of the object (the root of its area): how near to the centre a vote has to
# be to count for it, how far apart two centres are at least, and over what the density
# is taken. Two touching discs have centres 1.13 sizes apart.
_REACH, _APART, _SPREAD = 0.35, 0.4, 0.2
# Half widths of the squares over which densities are taken, cells.
_HALF_WIDTHS = (1, 2, 4, 8)
# No object is smaller, cells.
_SMALLEST = 2.0


def find_meetings(
    is_foreground: NDArray[np.bool_], votes: NDArray[np.float32], min_share: float
) -> NDArray[np.int64]:
    """Find a place in every object for whose centre enough places vote.

    Parameters
    ----------
    is_foreground : (h, w) bool array
        Places that have a vote.
    votes : (3, h, w) float32 array
        Centre (x, y) that is voted for and size of the object, in input pixels of the
        frame whose first pixel is that of the first place.
    min_share : float
        Share of an object's votes that must meet, 0 to 1.

    Returns
    -------
    (N, 2) int64 array, (y, x), map cells
        For each meeting the voter that is nearest to it. Top to bottom.
    """
    places = np.argwhere(is_foreground)
    if not len(places):
        return places
    x, y, size = votes[:, places[:, 0], places[:, 1]].astype(np.float64)
    centres = (np.stack([y, x], axis=1) - (CELL - 1) / 2) / CELL
    size = np.maximum(size / CELL, _SMALLEST)
    part = 1 / size**2
    meetings, sizes = _by_density(centres, size, part, is_foreground.shape)
    tree = KDTree(centres)
    is_free = np.ones(len(places), bool)
    is_open = np.ones(is_foreground.shape, bool)
    found = []
    for (row, column), extent in zip(meetings.tolist(), sizes.tolist(), strict=True):
        if not is_open[row, column]:
            continue
        apart = max(round(_APART * extent), 1)
        is_open[
            max(row - apart, 0) : row + apart + 1,
            max(column - apart, 0) : column + apart + 1,
        ] = False
        near = tree.query_ball_point((row, column), max(_REACH * extent, 1.0))
        voters = np.array(near, np.int64)
        voters = voters[is_free[voters]]
        if part[voters].sum() < min_share:
            continue
        is_free[voters] = False
        away = places[voters] - (row, column)
        found.append(places[voters[(away**2).sum(axis=1).argmin()]])
    peaks = np.array(found, np.int64).reshape(-1, 2)
    return peaks[np.lexsort(peaks.T[::-1])]


def _by_density(
    centres: NDArray[np.float64],
    size: NDArray[np.float64],
    part: NDArray[np.float64],
    shape: tuple[int, ...],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the cells that are voted for, densest first, and the size said there."""
    height, width = shape
    landing = np.rint(centres).astype(np.int64)
    is_inside = ((landing >= 0) & (landing < shape)).all(axis=1)
    cell = landing[is_inside] @ (width, 1)

    def gather(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        sums = np.bincount(cell, weight[is_inside], height * width).astype(np.float64)
        return sums.reshape(height, width)

    share = gather(part)
    # neighbouring cells say what the size is: a single vote may be off
    logs = ndimage.uniform_filter(gather(part * np.log(size)), 3, mode="constant")
    around = ndimage.uniform_filter(share, 3, mode="constant")
    extent = np.exp(logs / np.maximum(around, 1e-12))
    scale = np.rint(np.log2(np.maximum(_SPREAD * extent, 1)))
    scale = scale.astype(np.int64).clip(0, len(_HALF_WIDTHS) - 1)
    density = np.stack(
        [
            ndimage.uniform_filter(share, 2 * n + 1, mode="constant") * (2 * n + 1) ** 2
            for n in _HALF_WIDTHS
        ]
    )
    density = np.take_along_axis(density, scale[None], axis=0)[0]
    cells = np.argwhere(share > 0)
    order = np.argsort(-density[cells[:, 0], cells[:, 1]], kind="stable")
    cells = cells[order]
    sizes: NDArray[np.float64] = extent[cells[:, 0], cells[:, 1]]
    return cells, sizes
