"""Objects compete for pixels: better ones are drawn over worse ones.

What is left of an object depends on the better ones that overlap with it and on
nothing else, so that objects can be settled place by place, each after those that it
depends on, and the result is the same as if they were drawn one after the other over
the whole plane. No picture of the plane is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.masks import Candidate, remove_small

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from napari_sam.stitch.objects import Objects

MIN_VISIBLE = 0.5
"""Share of itself that better objects must leave to one, or it is dropped (ours)."""

# Parts of an object that overlap with better ones leaves over, as share of its area.
_MIN_FRAGMENT = 0.1


def settle(objects: Objects, min_visible: float, min_area: int) -> NDArray[np.bool_]:
    """Let objects compete; change the masks of those that lose pixels.

    Parameters
    ----------
    objects : Objects
        In draw order, best first.
    min_visible : float
        An object of which better ones leave a smaller share is dropped.
    min_area : int
        An object of which fewer pixels are left is dropped.

    Returns
    -------
    (N,) bool array
        Which objects are kept.
    """
    better = _Rivals.of(objects)
    is_kept = objects.areas >= max(min_area, 1)
    is_settled = better.counts == 0
    # crop by crop: rivals are neighbours, whose masks were read a moment ago
    waiting = np.flatnonzero(~is_settled)
    waiting = waiting[np.argsort(objects.crops[waiting], kind="stable")]
    for start in waiting.tolist():
        todo = [start]
        while todo:
            i = todo[-1]
            unsettled = [j for j in better[i] if not is_settled[j]]
            if unsettled and not is_settled[i]:
                todo += unsettled
                continue
            todo.pop()
            if not is_settled[i]:
                rivals = [j for j in better[i] if is_kept[j]]
                is_kept[i] = _keep(objects, i, rivals, min_visible, min_area)
                is_settled[i] = True
    return is_kept


def left_over(
    candidate: Candidate, taken: NDArray[np.bool_], min_visible: float, min_area: int
) -> Candidate | None:
    """Return what better ones leave of a candidate; None if it is too little.

    Parameters
    ----------
    candidate : Candidate
        The object.
    taken : (h, w) bool array
        Pixels of its box that better ones hold.
    min_visible, min_area
        As in `settle`.
    """
    area = candidate.area
    free = candidate.mask & ~taken
    n_free = int(np.count_nonzero(free))
    if n_free < area:
        free = remove_small(free, _MIN_FRAGMENT * area, "islands")
        n_free = int(np.count_nonzero(free))
    if n_free < max(min_visible * area, min_area, 1):
        return None
    return candidate.with_mask(free)


def _keep(
    objects: Objects, i: int, rivals: list[int], min_visible: float, min_area: int
) -> bool:
    """Take from an object what its rivals hold; whether enough is left."""
    candidate = objects.candidate(i)
    box = candidate.box
    taken = np.zeros(box.shape, bool)
    for j in rivals:
        shared = box.intersection(objects.box(j))
        if shared is not None:  # the rival may have lost that part itself
            here = shared.shift(-box.y0, -box.x0).slices
            taken[here] |= objects.within(j, shared)
    left = left_over(candidate, taken, min_visible, min_area)
    if left is not None and left.area < candidate.area:
        objects.set_mask(i, left)
    return left is not None


@dataclass(frozen=True, slots=True, eq=False)
class _Rivals:
    """For each object the better ones whose boxes overlap with its own."""

    starts: NDArray[np.int64]
    better: NDArray[np.int64]

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.diff(self.starts)

    def __getitem__(self, i: int) -> list[int]:
        rivals: list[int] = self.better[self.starts[i] : self.starts[i + 1]].tolist()
        return rivals

    @classmethod
    def of(cls, objects: Objects) -> _Rivals:
        pairs = np.concatenate([np.zeros((2, 0), np.int64), *_pairs(objects)], axis=1)
        better, worse = pairs.min(axis=0), pairs.max(axis=0)
        order = np.lexsort((better, worse))
        counts = np.bincount(worse, minlength=len(objects))
        return cls(np.cumsum([0, *counts]), better[order])


def _pairs(objects: Objects) -> Iterator[NDArray[np.int64]]:
    """Yield (2, n) pairs of objects whose boxes overlap, two crops at a time."""
    order, starts, extents = by_crop(objects)
    is_own = np.zeros(len(objects), bool)
    is_own[list(objects.own_masks)] = True
    for a in range(len(extents)):
        low = np.maximum(extents[a:, :2], extents[a, :2])
        high = np.minimum(extents[a:, 2:], extents[a, 2:])
        first = order[starts[a] : starts[a + 1]]
        for b in (a + np.flatnonzero((low < high).all(axis=1))).tolist():
            second = order[starts[b] : starts[b + 1]]
            if a != b:
                yield _overlapping(objects.boxes, first, second)
                continue
            # views of one crop are disjoint; what was joined from several is not
            i, j = _overlapping(objects.boxes, first[is_own[first]], second)
            wanted = (i < j) | (~is_own[j] & (i != j))
            yield np.stack([i[wanted], j[wanted]])


def by_crop(
    objects: Objects,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Sort objects by the crop of their best view.

    Returns
    -------
    order : (N,) int64 array
        Objects, crop by crop; those of crop number n are
        ``order[starts[n]:starts[n + 1]]``.
    starts : (n_crops + 1,) int64 array
        For the crops that have objects.
    extents : (n_crops, 4) int32 array, y0, x0, y1, x1
        Box around all objects of each of these crops.
    """
    order = np.argsort(objects.crops, kind="stable")
    first = np.flatnonzero(np.diff(objects.crops[order], prepend=-1))
    boxes = objects.boxes[order]
    if not len(order):
        return order, np.zeros(1, np.int64), boxes
    low = np.minimum.reduceat(boxes[:, :2], first)
    high = np.maximum.reduceat(boxes[:, 2:], first)
    return order, np.append(first, len(order)), np.concatenate([low, high], axis=1)


def _overlapping(
    boxes: NDArray[np.int32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Find all pairs of one object of each set whose boxes overlap, (2, n)."""
    first = first[_reach(boxes[first], boxes[second])]
    second = second[_reach(boxes[second], boxes[first])]
    low = np.maximum(boxes[first, None, :2], boxes[None, second, :2])
    high = np.minimum(boxes[first, None, 2:], boxes[None, second, 2:])
    i, j = np.nonzero((low < high).all(axis=-1))
    return np.stack([first[i], second[j]])


def _reach(boxes: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Whether boxes reach into the extent of others: few objects of a crop do."""
    if not len(others):
        return np.zeros(len(boxes), bool)
    low = np.maximum(boxes[:, :2], others[:, :2].min(axis=0))
    high = np.minimum(boxes[:, 2:], others[:, 2:].max(axis=0))
    reach: NDArray[np.bool_] = (low < high).all(axis=1)
    return reach
