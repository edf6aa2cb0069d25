"""Candidates of overlapping crops to the objects of one plane.

Crops see the overlap of their halos twice. Two candidates of different crops are
the same object if they agree there (IoU of what both crops see). Agreement makes
one graph over the whole plane, solved best edge first; no object takes two
candidates of one crop. An object that some crop sees whole is taken from there; one
that every crop cuts is put together, each pixel from the crop whose core holds it.
Then objects are painted, best first, so that labels never overlap.

Nothing depends on the order of crops or candidates: ties are broken by position.
Merging crop by crop into a label image was rejected, since then the first crop wins.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.masks import Candidate, remove_small
from napari_sam.tiling import Box, Crop, CropGrid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

MIN_AGREEMENT = 0.5
"""IoU in the overlap from which two candidates are one object: above one half each
has at most one partner in a crop of disjoint masks (ours)."""

MIN_VISIBLE = 0.5
"""Share of itself that better objects must leave to one, or it is dropped (ours)."""

# One cell of the decoder's logits, in input pixels: a mask that ends nearer to the
# border of its crop may go on beyond it.
_BORDER = 4.0

# What a whole view may lack of the object put together, before it is not trusted.
_MAX_LACK = 0.1

# Parts of an object that overlap with better ones leaves over, as share of its area.
_MIN_FRAGMENT = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class PlaneObject:
    """One object of the plane.

    Parameters
    ----------
    candidate : Candidate
        Its mask and scores; crop and point are those of its best view.
    n_views : int
        Number of crops that see it.
    agreement : float
        Lowest IoU of two views in their overlap; 1 if there is only one view.
    is_cut : bool
        Whether it goes on beyond the border of every crop that sees it.
    """

    candidate: Candidate
    n_views: int = 1
    agreement: float = 1.0
    is_cut: bool = False


def quality(candidate: Candidate) -> float:
    """Return the score by which candidates compete.

    It is predicted IoU x stability, as both say how good a mask is, less
    `Candidate.penalty`.
    """
    return candidate.predicted_iou * candidate.stability - candidate.penalty


def ranked(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sort candidates, best first; the result does not depend on their order."""
    return sorted(candidates, key=_rank)


def merge_views(
    candidates: Iterable[Candidate],
    grid: CropGrid,
    *,
    min_agreement: float = MIN_AGREEMENT,
) -> list[PlaneObject]:
    """Find out which candidates of different crops are the same object.

    Parameters
    ----------
    candidates : iterable of Candidate
        Of all crops, in any order; duplicates within a crop are resolved already.
    grid : CropGrid
        The crops; `Candidate.crop` is a number in it.
    min_agreement : float
        IoU in the overlap from which two candidates are one object.

    Returns
    -------
    list of PlaneObject
        An object that a single crop sees must reach into that crop's core: beyond
        it, another crop answers.
    """
    nodes = ranked(candidates)
    crops = {crop.index: crop for crop in grid}
    edges = [edge for edge in _edges(nodes, grid) if edge[0] >= min_agreement]
    component = _components(nodes, edges)
    agreement: dict[int, float] = {}
    for iou, i, j in edges:
        if component[i] is component[j]:
            first = component[i][0]
            agreement[first] = min(iou, agreement.get(first, 1.0))
    objects = []
    for i, members in component.items():
        views = [nodes[k] for k in sorted(members)]
        is_new = i == min(members)
        if not is_new or (len(views) == 1 and not _reaches_core(views[0], crops)):
            continue
        cut = [_is_cut(view, crops[view.crop], grid.shape) for view in views]
        objects.append(
            PlaneObject(
                candidate=_joined(views, cut, crops),
                n_views=len(views),
                agreement=agreement.get(members[0], 1.0),
                is_cut=all(cut),
            )
        )
    return objects


def without_duplicates(
    candidates: Iterable[Candidate], region: Box, *, min_visible: float = MIN_VISIBLE
) -> list[Candidate]:
    """Let the candidates of one crop compete for its pixels.

    Parameters
    ----------
    candidates : iterable of Candidate
        In any order.
    region : Box
        The crop, in plane pixels; candidates do not leave it.
    min_visible : float
        A candidate of which better ones leave a smaller share is dropped.

    Returns
    -------
    list of Candidate
        Disjoint masks, best first.
    """
    _, drawn = _draw(ranked(candidates), region, min_visible, min_area=1)
    return [candidate for _, candidate in drawn]


def paint(
    objects: Iterable[PlaneObject],
    shape: tuple[int, int],
    *,
    min_visible: float = MIN_VISIBLE,
    min_area: int = 1,
) -> tuple[NDArray[np.uint32], list[PlaneObject]]:
    """Draw objects into one label image, better ones over worse ones.

    Parameters
    ----------
    objects : iterable of PlaneObject
        In any order.
    shape : tuple of int
        (height, width) of the plane, in pixels.
    min_visible : float
        An object of which better ones leave a smaller share is dropped.
    min_area : int
        An object of which fewer pixels are left is dropped.

    Returns
    -------
    labels : (H, W) uint32 array
        Object ids from 1, in the order of their first pixels; 0 is background.
    kept : list of PlaneObject
        Object ``i`` has the id ``i + 1``; its mask is what was drawn.
    """
    # what no crop sees whole, and no two crops agree on, comes last
    in_order = sorted(
        objects, key=lambda o: (o.is_cut and o.n_views == 1, *_rank(o.candidate))
    )
    labels, drawn = _draw(
        [each.candidate for each in in_order], Box.whole(shape), min_visible, min_area
    )
    kept = [replace(in_order[i], candidate=candidate) for i, candidate in drawn]
    order = sorted(range(len(kept)), key=lambda i: _first_pixel(kept[i].candidate))
    numbers = np.zeros(len(kept) + 1, np.uint32)
    numbers[np.array(order, np.int64) + 1] = np.arange(1, len(kept) + 1)
    for row in labels:
        # row by row: no second label image
        row[:] = numbers[row]
    return labels, [kept[i] for i in order]


def _draw(
    candidates: Sequence[Candidate], region: Box, min_visible: float, min_area: int
) -> tuple[NDArray[np.uint32], list[tuple[int, Candidate]]]:
    """Draw candidates in their order; return labels and what was drawn of whom."""
    labels = np.zeros(region.shape, np.uint32)
    drawn: list[tuple[int, Candidate]] = []
    for i, candidate in enumerate(candidates):
        local = candidate.box.shift(-region.y0, -region.x0)
        left = _left_over(candidate, labels[local.slices], min_visible, min_area)
        if left is not None:
            drawn.append((i, left))
            local = left.box.shift(-region.y0, -region.x0)
            labels[local.slices][left.mask] = len(drawn)
    return labels, drawn


def _rank(candidate: Candidate) -> tuple[float, ...]:
    box = candidate.box
    # equal masks of one crop and equal score are the same object
    checksum = zlib.crc32(np.ascontiguousarray(candidate.mask).tobytes())
    place = (box.y0, box.x0, box.y1, box.x1, candidate.crop, checksum)
    return (-quality(candidate), *place)


def _edges(
    nodes: Sequence[Candidate], grid: CropGrid
) -> Iterator[tuple[float, int, int]]:
    """Compare the candidates of each two crops that overlap: (IoU, i, j)."""
    by_crop: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        by_crop.setdefault(node.crop, []).append(i)
    for index in sorted(by_crop):
        crop = grid[index]
        for other in grid.crops_touching(crop.box):
            shared = crop.box.intersection(other.box)
            if other.index <= index or other.index not in by_crop or shared is None:
                continue
            yield from _edges_within(
                nodes, by_crop[index], by_crop[other.index], shared
            )


def _edges_within(
    nodes: Sequence[Candidate], first: list[int], second: list[int], shared: Box
) -> Iterator[tuple[float, int, int]]:
    """Compare two crops' candidates in the region that both crops see."""
    first, first_boxes = _seen_in(nodes, first, shared)
    second, second_boxes = _seen_in(nodes, second, shared)
    starts = np.maximum(first_boxes[:, None, :2], second_boxes[None, :, :2])
    ends = np.minimum(first_boxes[:, None, 2:], second_boxes[None, :, 2:])
    areas: dict[int, int] = {}
    # thousands of pairs are far apart; only the others are looked at one by one
    for a, b in np.argwhere((starts < ends).all(axis=-1)).tolist():
        i, j = first[a], second[b]
        both = Box(*starts[a, b].tolist(), *ends[a, b].tolist())
        overlap = np.count_nonzero(nodes[i].within(both) & nodes[j].within(both))
        if not overlap:
            continue
        for k, box in ((i, first_boxes[a]), (j, second_boxes[b])):
            if k not in areas:
                part = nodes[k].within(Box(*box.tolist()))
                areas[k] = int(np.count_nonzero(part))
        yield overlap / (areas[i] + areas[j] - overlap), min(i, j), max(i, j)


def _seen_in(
    nodes: Sequence[Candidate], chosen: list[int], region: Box
) -> tuple[list[int], NDArray[np.int64]]:
    """Return the candidates that reach into a region, and their boxes in it."""
    seen, boxes = [], []
    for i in chosen:
        box = nodes[i].box.intersection(region)
        if box is not None:
            seen.append(i)
            boxes.append((box.y0, box.x0, box.y1, box.x1))
    return seen, np.array(boxes, np.int64).reshape(-1, 4)


def _components(
    nodes: Sequence[Candidate], edges: list[tuple[float, int, int]]
) -> dict[int, list[int]]:
    """Join nodes, best edge first; no component gets two nodes of one crop.

    Returns the component of each node; nodes of one component share one list.
    """
    component = {i: [i] for i in range(len(nodes))}
    for _, i, j in sorted(edges, key=lambda edge: (-edge[0], *edge[1:])):
        first, second = component[i], component[j]
        crops = {nodes[k].crop for k in first}
        if first is second or any(nodes[k].crop in crops for k in second):
            continue
        first.extend(second)
        for k in second:
            component[k] = first
    return component


def _reaches_core(candidate: Candidate, crops: dict[int, Crop]) -> bool:
    core = candidate.box.intersection(crops[candidate.crop].core)
    return core is not None and bool(candidate.within(core).any())


def _is_cut(candidate: Candidate, crop: Crop, shape: tuple[int, int]) -> bool:
    """Whether a mask comes close to a border of its crop inside the plane."""
    box, limit = candidate.box, crop.box
    margin_y, margin_x = (_BORDER / scale for scale in crop.scale)
    return (
        (limit.y0 > 0 and box.y0 < limit.y0 + margin_y)
        or (limit.x0 > 0 and box.x0 < limit.x0 + margin_x)
        or (limit.y1 < shape[0] and box.y1 > limit.y1 - margin_y)
        or (limit.x1 < shape[1] and box.x1 > limit.x1 - margin_x)
    )


def _joined(
    views: list[Candidate], cut: list[bool], crops: dict[int, Crop]
) -> Candidate:
    """Make one candidate of the views of an object, which are sorted best first."""
    if len(views) == 1:
        return views[0]
    together = _composed(views, crops)
    for view, is_cut in zip(views, cut, strict=True):
        if not is_cut:
            lack = together.area - together.overlap(view)
            # a view that lacks much ends before the object does
            return view if lack <= _MAX_LACK * together.area else together
    return together


def _composed(views: list[Candidate], crops: dict[int, Crop]) -> Candidate:
    """Take each pixel from the crop whose core holds it, else from any view."""
    box = views[0].box
    for view in views[1:]:
        box = box.union(view.box)
    mask = np.zeros(box.shape, bool)
    for view in views:
        mask |= view.within(box)
    weights = []
    for view in views:
        core = crops[view.crop].core.intersection(box)
        if core is None:
            weights.append(0)
            continue
        part = view.within(core)
        mask[core.shift(-box.y0, -box.x0).slices] = part
        weights.append(int(np.count_nonzero(part)))
    if not any(weights):
        weights = [view.area for view in views]
    return replace(
        views[0],
        box=box,
        mask=mask,
        predicted_iou=float(
            np.average([view.predicted_iou for view in views], weights=weights)
        ),
        stability=float(
            np.average([view.stability for view in views], weights=weights)
        ),
    )


def _left_over(
    candidate: Candidate,
    taken: NDArray[np.uint32],
    min_visible: float,
    min_area: int,
) -> Candidate | None:
    """Return what others leave of a candidate, in its box; None if too little."""
    area = candidate.area
    free = candidate.mask & (taken == 0)
    n_free = int(np.count_nonzero(free))
    if n_free < area:
        free = remove_small(free, _MIN_FRAGMENT * area, "islands")
        n_free = int(np.count_nonzero(free))
    if n_free < max(min_visible * area, min_area, 1):
        return None
    return candidate.with_mask(free)


def _first_pixel(candidate: Candidate) -> tuple[int, int]:
    return candidate.box.y0, candidate.box.x0 + int(candidate.mask[0].argmax())
