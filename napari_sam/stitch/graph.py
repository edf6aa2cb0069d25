"""Which views of overlapping crops are the same object.

Two views of different crops are one object if they agree in the overlap: IoU of what
both crops see. Agreement makes one graph over the whole plane, solved best edge
first; no object takes two views of one crop. Only columns of numbers stay in memory;
masks are looked at two crops at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_sam.stitch.views import Views
    from napari_sam.tiling import CropGrid


MIN_AGREEMENT = 0.5
"""IoU in the overlap from which two candidates are one object: above one half each
has at most one partner in a crop of disjoint masks (ours)."""


@dataclass(frozen=True, slots=True, eq=False)
class Nodes:
    """Every view of a plane, best first: where it is found, and its box.

    Parameters
    ----------
    crops, numbers : (N,) int64 array
        Number of the crop, and of the view in it.
    boxes : (N, 4) int32 array, y0, x0, y1, x1, plane pixels
        Where the masks lie.
    """

    crops: NDArray[np.int64]
    numbers: NDArray[np.int64]
    boxes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.crops)


@dataclass(frozen=True, slots=True)
class Group:
    """Several views of one object.

    Parameters
    ----------
    members : list of int
        Their places in `Nodes`, best first.
    agreement : float
        Lowest IoU of two of them in what both crops see, if they share a pixel.
    """

    members: list[int]
    agreement: float


def rank_keys(
    scores: NDArray[np.float64],
    boxes: NDArray[np.int32],
    crops: NDArray[np.int64],
    checksums: NDArray[np.uint32],
) -> tuple[NDArray[np.generic], ...]:
    """Return the keys by which candidates are sorted, for `numpy.lexsort`.

    The best score comes first: predicted IoU x stability, as both say how good a
    mask is, less the penalty. Ties are broken by position, so that the order in
    which crops were worked through has no influence.
    """
    quality = scores[:, 0] * scores[:, 1] - scores[:, 2]
    y0, x0, y1, x1 = boxes.T
    return (checksums, crops, x1, y1, x0, y0, -quality)


def rank_views(views: Mapping[int, Views]) -> Nodes:
    """Sort the views of all crops, best first.

    Parameters
    ----------
    views : mapping of int to Views
        By number of the crop.
    """
    indices = sorted(views)
    parts = [_columns(views[index]) for index in indices] or [_columns(None)]
    scores, boxes, checksums = (
        np.concatenate([part[i] for part in parts]) for i in range(3)
    )
    lengths = [len(part[1]) for part in parts]
    crops = np.repeat(np.array(indices or [0], np.int64), lengths)
    numbers = np.concatenate([np.arange(n) for n in lengths])
    order = np.lexsort(rank_keys(scores, boxes, crops, checksums))
    return Nodes(crops[order], numbers[order], boxes[order])


def find_groups(
    nodes: Nodes, views: Mapping[int, Views], grid: CropGrid, min_agreement: float
) -> list[Group]:
    """Find the views that are one object.

    Parameters
    ----------
    nodes : Nodes
        From `rank_views`.
    views : mapping of int to Views
        By number of the crop.
    grid : CropGrid
        The crops.
    min_agreement : float
        IoU in the overlap from which two views are one object.

    Returns
    -------
    list of Group
        Of two views or more, in the order of their best.
    """
    edges = np.concatenate([np.zeros((0, 3)), *_edges(nodes, views, grid)])
    edges = edges[np.lexsort((edges[:, 2], edges[:, 1], -edges[:, 0]))]
    pairs = edges[:, 1:].astype(np.int64).tolist()
    n_agreeing = int(np.count_nonzero(edges[:, 0] >= min_agreement))
    group_of: dict[int, list[int]] = {}
    for i, j in pairs[:n_agreeing]:
        first = group_of.setdefault(i, [i])
        second = group_of.setdefault(j, [j])
        seen = {nodes.crops[k] for k in first}
        if first is second or any(nodes.crops[k] in seen for k in second):
            continue
        first.extend(second)
        for k in second:
            group_of[k] = first
    # best edges come first, so the last one of a group is its lowest
    agreement = {
        id(group_of[i]): iou
        for iou, (i, j) in zip(edges[:, 0].tolist(), pairs, strict=True)
        if i in group_of and group_of[i] is group_of.get(j)
    }
    return [
        Group(sorted(members), agreement[id(members)])
        for i, members in sorted(group_of.items())
        if len(members) > 1 and i == min(members)
    ]


def _columns(
    found: Views | None,
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.uint32]]:
    if found is None:
        return np.zeros((0, 3)), np.zeros((0, 4), np.int32), np.zeros(0, np.uint32)
    return found.scores[:, :3], found.boxes, found.checksums


def _edges(
    nodes: Nodes, views: Mapping[int, Views], grid: CropGrid
) -> Iterator[NDArray[np.float64]]:
    """Compare the views of each two crops that overlap: rows of IoU, i, j."""
    places = _places(nodes)
    for index in sorted(views):
        crop = grid[index]
        for other in grid.crops_touching(crop.box):
            shared = crop.box.intersection(other.box)
            if other.index <= index or other.index not in views or shared is None:
                continue
            rows = [
                (iou, *sorted((places[index][k], places[other.index][m])))
                for iou, k, m in _agreements(views[index], views[other.index], shared)
            ]
            yield np.array(rows, np.float64).reshape(-1, 3)


def _places(nodes: Nodes) -> dict[int, NDArray[np.int64]]:
    """Return, for each crop, the place in `nodes` of each of its views."""
    order = np.lexsort((nodes.numbers, nodes.crops))
    crops, starts = np.unique(nodes.crops[order], return_index=True)
    parts = np.split(order, starts[1:]) if len(crops) else []
    return dict(zip(crops.tolist(), parts, strict=True))


def _agreements(
    first: Views, second: Views, shared: Box
) -> Iterator[tuple[float, int, int]]:
    """Compare the views of two crops in the region that both crops see."""
    numbers, boxes = _seen_in(first, shared)
    others, other_boxes = _seen_in(second, shared)
    starts = np.maximum(boxes[:, None, :2], other_boxes[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], other_boxes[None, :, 2:])
    areas: dict[tuple[bool, int], int] = {}
    # thousands of pairs are far apart; only the others are looked at one by one
    for a, b in np.argwhere((starts < ends).all(axis=-1)).tolist():
        k, m = int(numbers[a]), int(others[b])
        both = Box(*starts[a, b].tolist(), *ends[a, b].tolist())
        overlap = np.count_nonzero(first.within(k, both) & second.within(m, both))
        if not overlap:
            continue
        if (False, k) not in areas:
            areas[False, k] = _area_in(first, k, boxes[a])
        if (True, m) not in areas:
            areas[True, m] = _area_in(second, m, other_boxes[b])
        union = areas[False, k] + areas[True, m] - overlap
        yield overlap / union, k, m


def _area_in(views: Views, k: int, corners: NDArray[np.int32]) -> int:
    return int(np.count_nonzero(views.within(k, Box(*corners.tolist()))))


def _seen_in(views: Views, region: Box) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the views that reach into a region, and their boxes in it."""
    low = np.maximum(views.boxes[:, :2], (region.y0, region.x0))
    high = np.minimum(views.boxes[:, 2:], (region.y1, region.x1))
    numbers = np.flatnonzero((low < high).all(axis=1))
    return numbers, np.concatenate([low, high], axis=1)[numbers].astype(np.int32)
