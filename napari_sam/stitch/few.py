"""Competition of candidates that are all in memory: of one crop, or of a few.

A person who moves a threshold waits for the answer, and looks at a few crops; `stitch`
does the same for a whole plane, out of memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.stitch.compete import MIN_VISIBLE, left_over
from napari_sam.stitch.graph import MIN_AGREEMENT, find_groups, rank_keys, rank_views
from napari_sam.stitch.objects import make_objects
from napari_sam.stitch.views import Views, checksum
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_sam.masks import Candidate
    from napari_sam.tiling import CropGrid


@dataclass(frozen=True, slots=True, eq=False)
class PlaneObject:
    """One object of the plane, with its mask.

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
    found = list(candidates)
    ranked = [found[i] for i in np.lexsort(_rank_keys(found)).tolist()]
    left = _drawn(ranked, region, min_visible, min_area=1)
    return [each for each in left if each is not None]


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
        Of all crops, in any order; those of one crop do not overlap.
    grid : CropGrid
        The crops; `Candidate.crop` is a number in it.
    min_agreement : float
        IoU in the overlap from which two candidates are one object.

    Returns
    -------
    list of PlaneObject
        An object that a single crop sees must reach into that crop's core: beyond
        it, another crop answers. They have not competed yet.
    """
    by_crop: dict[int, list[Candidate]] = {}
    for each in candidates:
        by_crop.setdefault(each.crop, []).append(each)
    views = {index: Views.of(index, found) for index, found in by_crop.items()}
    nodes = rank_views(views)
    groups = find_groups(nodes, views, grid, min_agreement)
    objects = make_objects(nodes, groups, views, grid)
    return [
        PlaneObject(
            objects.candidate(i),
            int(objects.n_views[i]),
            float(objects.agreement[i]),
            bool(objects.is_cut[i]),
        )
        for i in range(len(objects))
    ]


def compete(
    objects: Iterable[PlaneObject],
    *,
    min_visible: float = MIN_VISIBLE,
    min_area: int = 1,
) -> list[PlaneObject]:
    """Let objects of different crops compete for the pixels that they share.

    Parameters
    ----------
    objects : iterable of PlaneObject
        In any order; memory follows the box around all of them.
    min_visible : float
        An object of which better ones leave a smaller share is dropped.
    min_area : int
        An object of which fewer pixels are left is dropped.

    Returns
    -------
    list of PlaneObject
        With disjoint masks, in the order of their first pixels.
    """
    # what no crop sees whole, and no two crops agree on, comes last
    found = list(objects)
    is_alone = np.array([each.is_cut and each.n_views == 1 for each in found], bool)
    keys = _rank_keys([each.candidate for each in found])
    in_order = [found[i] for i in np.lexsort((*keys, is_alone)).tolist()]
    region = Box(0, 0, 0, 0)
    for each in in_order:
        region = region.union(each.candidate.box)
    candidates = [each.candidate for each in in_order]
    left = _drawn(candidates, region, min_visible, min_area)
    kept = [
        replace(each, candidate=candidate)
        for each, candidate in zip(in_order, left, strict=True)
        if candidate is not None
    ]
    return sorted(kept, key=lambda each: _first_pixel(each.candidate))


def _drawn(
    ranked: Sequence[Candidate], region: Box, min_visible: float, min_area: int
) -> list[Candidate | None]:
    """Draw candidates one after the other; return what is left of each."""
    taken = np.zeros(region.shape, bool)
    left: list[Candidate | None] = []
    for candidate in ranked:
        local = candidate.box.shift(-region.y0, -region.x0)
        rest = left_over(candidate, taken[local.slices], min_visible, min_area)
        if rest is not None:
            local = rest.box.shift(-region.y0, -region.x0)
            taken[local.slices] |= rest.mask
        left.append(rest)
    return left


def _rank_keys(candidates: Sequence[Candidate]) -> tuple[NDArray[np.generic], ...]:
    """Return `rank_keys` of candidates that are not packed."""
    scores = [(c.predicted_iou, c.stability, c.penalty) for c in candidates]
    boxes = [(c.box.y0, c.box.x0, c.box.y1, c.box.x1) for c in candidates]
    return rank_keys(
        np.array(scores, np.float64).reshape(-1, 3),
        np.array(boxes, np.int32).reshape(-1, 4),
        np.array([c.crop for c in candidates], np.int64),
        np.array([checksum(c.mask) for c in candidates], np.uint32),
    )


def _first_pixel(candidate: Candidate) -> tuple[int, int]:
    return candidate.box.y0, candidate.box.x0 + int(candidate.mask[0].argmax())
