"""One volume segmented three times, plane by plane along z, y and x: fused by votes.

Objects of the three results that are alike become one: pairs with the highest
intersection over union first, and never two objects of one result. Then every voxel
has three votes, each for an object or for background, and takes what two of them say.
Where one result has merged two objects, the two others outvote it; what only one has
seen goes. The share of votes against the winner is the uncertainty.

Objects of volumes larger than memory are compared and drawn slab by slab.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Node = tuple[int, int]  # result, object id

_SLAB = 8  # slices held at a time, of each result


@dataclass(frozen=True, slots=True, eq=False)
class FusedViews:
    """What three results agree on; drawn where it is asked for.

    Parameters
    ----------
    views : sequence of three (Z, Y, X) arrays of integers
        The results; anything that can be sliced.
    names : tuple of (n,) int64 array
        For each result, the fused object of each of its ids; negative where it stands
        alone.
    n_objects : int
        Fused objects are numbered from 1 to this.
    """

    views: Sequence[Any]
    names: tuple[NDArray[np.int64], ...]
    n_objects: int

    def slab(
        self, first: int, last: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """Draw slices `first` to `last`, the latter excluded.

        Returns
        -------
        labels : (n, Y, X) uint32 array
            Fused objects, 0 is background.
        uncertainty : (n, Y, X) float32 array
            Share of votes against what was chosen: 0, 1/3 or 2/3.
        """
        one, two, three = (
            names[np.asarray(view[first:last]).astype(np.int64)]
            for view, names in zip(self.views, self.names, strict=True)
        )
        labels = np.where(one == two, one, np.where(two == three, two, 0))
        labels = np.where(one == three, one, labels)
        n_equal = 1 + (one == two) + (two == three) + (one == three)
        # of three votes one pair is equal, or all three pairs are
        against = np.where(n_equal == 4, 0, np.where(n_equal == 2, 1, 2))
        return labels.astype(np.uint32), (against / 3).astype(np.float32)

    def labels(self) -> NDArray[np.uint32]:
        """Draw all slices."""
        return np.concatenate([self.slab(*ends)[0] for ends in _slabs(self.views[0])])

    def uncertainty(self) -> NDArray[np.float32]:
        """Draw the uncertainty of all slices."""
        return np.concatenate([self.slab(*ends)[1] for ends in _slabs(self.views[0])])


def fuse_views(views: Sequence[Any], *, min_iou: float = 0.3) -> FusedViews:
    """Fuse three segmentations of one volume.

    Parameters
    ----------
    views : sequence of three (Z, Y, X) arrays of integers
        Object ids, 0 is background; anything that can be sliced along z.
    min_iou : float, default 0.3
        Objects of two results with less are not the same.

    Returns
    -------
    FusedViews

    Raises
    ------
    InputError
        If there are not three, or they differ in shape.

    Examples
    --------
    >>> one = np.zeros((2, 4, 4), np.uint32)
    >>> one[:, :2] = 7
    >>> two = one.copy()
    >>> two[1] = 0
    >>> fused = fuse_views([one, two, one])
    >>> int(fused.labels().sum()), round(float(fused.uncertainty()[1, 0, 0]), 2)
    (16, 0.33)
    """
    shapes = {tuple(view.shape) for view in views}
    if len(views) != 3 or len(shapes) != 1 or len(next(iter(shapes))) != 3:
        raise InputError(
            f"{len(views)} results of shapes {sorted(shapes)}; give three of one "
            "shape (Z, Y, X)"
        )
    areas, shared = _counted(views)
    groups = _grouped(areas, shared, min_iou)
    names = [
        np.zeros(1 + max((i for k, i in areas if k == view), default=0), np.int64)
        for view in range(3)
    ]
    n_objects, n_alone = 0, 0
    for group in groups:
        if len(group) > 1:
            n_objects += 1
            name = n_objects
        else:
            n_alone += 1
            name = -n_alone
        for view, number in group:
            names[view][number] = name
    return FusedViews(views, (names[0], names[1], names[2]), n_objects)


def _slabs(view: Any) -> list[tuple[int, int]]:
    n = int(view.shape[0])
    return [(z, min(z + _SLAB, n)) for z in range(0, n, _SLAB)]


def _counted(
    views: Sequence[Any],
) -> tuple[Counter[Node], Counter[tuple[Node, Node]]]:
    """Count the voxels of objects, and those that objects of two results share."""
    areas: Counter[Node] = Counter()
    shared: Counter[tuple[Node, Node]] = Counter()
    for first, last in _slabs(views[0]):
        slabs = [np.asarray(view[first:last]) for view in views]
        for k, slab in enumerate(slabs):
            ids, counts = np.unique(slab[slab > 0], return_counts=True)
            for number, count in zip(ids.tolist(), counts.tolist(), strict=True):
                areas[k, number] += count
        for a, b in ((0, 1), (0, 2), (1, 2)):
            both = (slabs[a] > 0) & (slabs[b] > 0)
            pairs = np.stack([slabs[a][both], slabs[b][both]], axis=1)
            ids, counts = np.unique(pairs, axis=0, return_counts=True)
            for (i, j), count in zip(ids.tolist(), counts.tolist(), strict=True):
                shared[(a, i), (b, j)] += count
    return areas, shared


def _grouped(
    areas: Counter[Node], shared: Counter[tuple[Node, Node]], min_iou: float
) -> list[list[Node]]:
    """Join objects that are alike, at most one of each result; in a fixed order."""
    alike = []
    for (one, two), count in shared.items():
        iou = count / (areas[one] + areas[two] - count)
        if iou >= min_iou:
            alike.append((-iou, one, two))
    group = {node: [node] for node in sorted(areas)}
    for _, one, two in sorted(alike):
        first, second = group[one], group[two]
        if first is not second and not {k for k, _ in first} & {k for k, _ in second}:
            first.extend(second)
            for node in second:
                group[node] = first
    unique = {id(each): sorted(each) for each in group.values()}
    return sorted(unique.values())
