"""Objects on the borders between crops: where to look if stitching is in doubt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam.stitch.painting import Painting
    from napari_sam.tiling import CropGrid


def find_seams(
    painting: Painting, grid: CropGrid, first_id: int = 1
) -> dict[str, NDArray[Any]]:
    """List the objects that lie on a border between two cores, the doubtful first.

    Parameters
    ----------
    painting : Painting
        The objects of a plane.
    grid : CropGrid
        The crops.
    first_id : int
        Id of the first object.

    Returns
    -------
    dict of str to (n,) array
        ``object``; ``y`` and ``x``, a place on the border, in the middle of the
        object's box; the box ``y0``, ``x0``, ``y1``, ``x1``; ``n_views``, the number
        of crops that see the object; ``agreement``, the lowest IoU of two of these
        views in what both crops see, or 0 if a single crop sees it, so that nobody
        confirms it; ``is_cut``, whether no crop sees it whole.
    """
    objects = painting.objects
    boxes = objects.boxes.astype(np.int64)
    rows = np.array([grid[i * grid.n_cols].core.y0 for i in range(1, grid.n_rows)])
    columns = np.array([grid[i].core.x0 for i in range(1, grid.n_cols)])
    middle = (boxes[:, :2] + boxes[:, 2:] - 1) / 2
    y, crosses_y = _nearest_between(rows, boxes[:, 0], boxes[:, 2], middle[:, 0])
    x, crosses_x = _nearest_between(columns, boxes[:, 1], boxes[:, 3], middle[:, 1])
    agreement = np.where(objects.n_views > 1, objects.agreement, 0.0)
    on_seam = np.flatnonzero(crosses_y | crosses_x)
    order = on_seam[np.lexsort((on_seam, agreement[on_seam]))]
    y0, x0, y1, x1 = boxes[order].T
    return {
        "object": order + first_id,
        "y": y[order],
        "x": x[order],
        "y0": y0,
        "x0": x0,
        "y1": y1,
        "x1": x1,
        "n_views": objects.n_views[order],
        "agreement": agreement[order],
        "is_cut": objects.is_cut[order],
    }


def _nearest_between(
    borders: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    middle: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Find the border inside each stretch that is nearest to its middle, if any."""
    if not len(borders):
        return middle, np.zeros(len(middle), bool)
    # a border lies on the edge before its pixel
    edges = borders - 0.5
    after = np.searchsorted(edges, middle).clip(0, len(edges) - 1)
    before = (after - 1).clip(0)
    is_nearer = np.abs(edges[before] - middle) < np.abs(edges[after] - middle)
    nearest = np.where(is_nearer, edges[before], edges[after])
    crosses = (nearest > starts) & (nearest < stops - 1)
    return np.where(crosses, nearest, middle), crosses
