"""Groups of views to objects: which view is taken, or how several are joined.

An object that some crop sees whole is taken from there; of several such crops from the
one in which it lies most central, for a network sees less of the surroundings of what
lies near a border. One that every crop cuts is put together, each pixel from the crop
whose core holds it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_sam.masks import Candidate
from napari_sam.stitch.graph import Group, Nodes, rank_keys
from napari_sam.stitch.views import checksum
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_sam.stitch.views import Views
    from napari_sam.tiling import Crop, CropGrid

# One cell of the decoder's logits, in input pixels: a mask that ends nearer to the
# border of its crop may go on beyond it.
_BORDER = 4.0

# What a whole view may lack of the object put together, before it is not trusted.
_MAX_LACK = 0.1


@dataclass(slots=True, eq=False)
class Objects:
    """Objects of a plane as columns; their masks stay where the views are.

    Parameters
    ----------
    views : mapping of int to Views
        By number of the crop.
    crops, numbers : (N,) int64 array
        The best view: number of its crop, and its number in it.
    boxes : (N, 4) int32 array, y0, x0, y1, x1, plane pixels
        Where the masks lie.
    scores : (N, 5) float64 array
        As in `Views`.
    areas : (N,) int64 array
        Number of pixels.
    first_columns : (N,) int32 array
        As in `Views`.
    checksums : (N,) uint32 array
        As in `Views`.
    n_views : (N,) int64 array
        Number of crops that see it.
    agreement : (N,) float64 array
        Lowest IoU of two views in their overlap; 1 if there is only one view.
    is_cut : (N,) bool array
        Whether it goes on beyond the border of every crop that sees it.
    own_masks : dict of int to bytes
        Masks that differ from the best view's, packed and compressed.
    """

    views: Mapping[int, Views]
    crops: NDArray[np.int64]
    numbers: NDArray[np.int64]
    boxes: NDArray[np.int32]
    scores: NDArray[np.float64]
    areas: NDArray[np.int64]
    first_columns: NDArray[np.int32]
    checksums: NDArray[np.uint32]
    n_views: NDArray[np.int64]
    agreement: NDArray[np.float64]
    is_cut: NDArray[np.bool_]
    own_masks: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.crops)

    def box(self, i: int) -> Box:
        """Return the box of an object."""
        return Box(*self.boxes[i].tolist())

    def within(self, i: int, region: Box) -> NDArray[np.bool_]:
        """Return the part of a mask in a region, as `Views.within`."""
        if i not in self.own_masks:
            return self.views[int(self.crops[i])].within(int(self.numbers[i]), region)
        box = self.box(i)
        part = np.zeros(region.shape, bool)
        shared = box.intersection(region)
        if shared is not None:
            mask = _unpack(self.own_masks[i], box)
            here = shared.shift(-box.y0, -box.x0).slices
            part[shared.shift(-region.y0, -region.x0).slices] = mask[here]
        return part

    def candidate(self, i: int) -> Candidate:
        """Unpack one object; crop and point are those of its best view."""
        predicted_iou, stability, penalty, y, x = self.scores[i].tolist()
        return Candidate(
            box=self.box(i),
            mask=self.within(i, self.box(i)),
            predicted_iou=predicted_iou,
            stability=stability,
            point=None if np.isnan(y) else (y, x),
            crop=int(self.crops[i]),
            penalty=penalty,
        )

    def set_mask(self, i: int, candidate: Candidate) -> None:
        """Give an object another mask and box; its place and scores stay."""
        box, mask = candidate.box, candidate.mask
        self.boxes[i] = (box.y0, box.x0, box.y1, box.x1)
        self.areas[i] = candidate.area
        self.first_columns[i] = box.x0 + (int(mask[0].argmax()) if mask.size else 0)
        self.own_masks[i] = zlib.compress(np.packbits(mask).tobytes(), 1)

    def take(self, order: NDArray[np.integer[Any]]) -> Self:
        """Return some of the objects, or all of them in another order."""
        columns = {
            each.name: getattr(self, each.name)[order]
            for each in fields(self)
            if each.name not in ("views", "own_masks")
        }
        own = {
            new: self.own_masks[old]
            for new, old in enumerate(order.tolist())
            if old in self.own_masks
        }
        return replace(self, **columns, own_masks=own)

    def in_draw_order(self) -> Self:
        """Sort objects, best first.

        What no crop sees whole, and no two crops agree on, comes last.
        """
        is_alone = self.is_cut & (self.n_views == 1)
        keys = rank_keys(self.scores, self.boxes, self.crops, self.checksums)
        return self.take(np.lexsort((*keys, is_alone)))


def make_objects(
    nodes: Nodes, groups: list[Group], views: Mapping[int, Views], grid: CropGrid
) -> Objects:
    """Choose or put together the mask of each object.

    Parameters
    ----------
    nodes, groups
        From `rank_views` and `find_groups`.
    views : mapping of int to Views
        By number of the crop.
    grid : CropGrid
        The crops.

    Returns
    -------
    Objects
        An object that a single crop sees must reach into that crop's core: beyond
        it, another crop answers.
    """
    crops = {index: grid[index] for index in sorted(views)}
    cut = _are_cut(nodes, crops, grid.shape)
    is_single = np.ones(len(nodes), bool)
    for group in groups:
        is_single[group.members] = False
    singles = _that_reach_core(nodes, np.flatnonzero(is_single), views, crops)
    chosen, own = singles.tolist(), {}
    # crop by crop, so that views that were read a moment ago are asked again
    in_order = sorted(groups, key=lambda group: nodes.crops[group.members[0]])
    for group in in_order:
        members = _most_central_first(group.members, nodes, crops, grid.shape)
        candidates = [_candidate(nodes, i, views) for i in members]
        best, joined = _joined(candidates, cut[members].tolist(), crops)
        if joined is not None:
            own[len(chosen)] = joined
        chosen.append(members[best])
    n_views = [1] * len(singles) + [len(group.members) for group in in_order]
    agreement = [1.0] * len(singles) + [group.agreement for group in in_order]
    is_cut = [*cut[singles].tolist()] + [bool(cut[g.members].all()) for g in in_order]
    places = np.array(chosen, np.int64)
    objects = Objects(
        views=views,
        crops=nodes.crops[places],
        numbers=nodes.numbers[places],
        boxes=nodes.boxes[places],
        **_gathered(nodes, places, views),
        n_views=np.array(n_views, np.int64),
        agreement=np.array(agreement, np.float64),
        is_cut=np.array(is_cut, bool),
        own_masks={},
    )
    for i, joined in own.items():
        objects.set_mask(i, joined)
        objects.scores[i, :2] = joined.predicted_iou, joined.stability
        objects.checksums[i] = checksum(joined.mask)
    return objects


def _candidate(nodes: Nodes, i: int, views: Mapping[int, Views]) -> Candidate:
    return views[int(nodes.crops[i])].candidate(int(nodes.numbers[i]))


def _gathered(
    nodes: Nodes, places: NDArray[np.int64], views: Mapping[int, Views]
) -> dict[str, NDArray[Any]]:
    """Collect columns of the views at some places of `nodes`."""
    crops, numbers = nodes.crops[places], nodes.numbers[places]
    gathered: dict[str, NDArray[Any]] = {
        "scores": np.zeros((len(places), 5)),
        "areas": np.zeros(len(places), np.int64),
        "first_columns": np.zeros(len(places), np.int32),
        "checksums": np.zeros(len(places), np.uint32),
    }
    for index in np.unique(crops).tolist():
        part = np.flatnonzero(crops == index)
        for name, column in gathered.items():
            column[part] = getattr(views[index], name)[numbers[part]]
    return gathered


def _are_cut(
    nodes: Nodes, crops: dict[int, Crop], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Whether masks come close to a border of their crop inside the plane."""
    low, high, margins = np.zeros((3, max(crops, default=0) + 1, 2))
    for index, crop in crops.items():
        low[index] = crop.box.y0, crop.box.x0
        high[index] = crop.box.y1, crop.box.x1
        margins[index] = [_BORDER / scale for scale in crop.scale]
    low, high, margins = (each[nodes.crops] for each in (low, high, margins))
    starts, ends = nodes.boxes[:, :2], nodes.boxes[:, 2:]
    before = (low > 0) & (starts < low + margins)
    behind = (high < shape) & (ends > high - margins)
    return np.asarray((before | behind).any(axis=1))


def _most_central_first(
    members: list[int], nodes: Nodes, crops: dict[int, Crop], shape: tuple[int, int]
) -> list[int]:
    """Sort views of one object by their distance from the borders of their crops."""

    def depth(i: int) -> float:
        """Return the distance of the middle from the nearest border in the plane."""
        crop, sides = crops[int(nodes.crops[i])].box, nodes.boxes[i]
        middle = (sides[:2] + sides[2:]) / 2
        before = np.where(
            (crop.y0, crop.x0) > np.zeros(2), middle - (crop.y0, crop.x0), np.inf
        )
        ends = np.array([crop.y1, crop.x1])
        behind = np.where(ends < shape, ends - middle, np.inf)
        return float(min(before.min(), behind.min()))

    return sorted(members, key=depth, reverse=True)  # stable: then the better one


def _that_reach_core(
    nodes: Nodes,
    places: NDArray[np.int64],
    views: Mapping[int, Views],
    crops: dict[int, Crop],
) -> NDArray[np.int64]:
    """Keep the nodes with a pixel in the core of their crop."""
    cores = np.zeros((max(crops, default=0) + 1, 4), np.int64)
    for index, crop in crops.items():
        cores[index] = crop.core.y0, crop.core.x0, crop.core.y1, crop.core.x1
    core, box = cores[nodes.crops[places]], nodes.boxes[places]
    low = np.maximum(core[:, :2], box[:, :2])
    high = np.minimum(core[:, 2:], box[:, 2:])
    reaches = np.asarray((low < high).all(axis=1))
    is_inside = (low == box[:, :2]).all(axis=1) & (high == box[:, 2:]).all(axis=1)
    # a box may reach where its mask does not
    unclear = np.flatnonzero(reaches & ~is_inside)
    for n in unclear[np.argsort(nodes.crops[places[unclear]], kind="stable")].tolist():
        i = places[n]
        part = Box(*low[n].tolist(), *high[n].tolist())
        found = views[int(nodes.crops[i])]
        reaches[n] = found.within(int(nodes.numbers[i]), part).any()
    return places[reaches]


def _joined(
    candidates: list[Candidate], cut: list[bool], crops: dict[int, Crop]
) -> tuple[int, Candidate | None]:
    """Choose among views, the first choice first, or make one mask of them all.

    Returns the number of the view that is taken; of the first, if all are joined.
    """
    together = _composed(candidates, crops)
    for k, (candidate, is_cut) in enumerate(zip(candidates, cut, strict=True)):
        if not is_cut:
            lack = together.area - together.overlap(candidate)
            # a view that lacks much ends before the object does
            is_whole = lack <= _MAX_LACK * together.area
            return (k, None) if is_whole else (0, together)
    return 0, together


def _composed(candidates: list[Candidate], crops: dict[int, Crop]) -> Candidate:
    """Take each pixel from the crop whose core holds it, else from any view."""
    box = candidates[0].box
    for each in candidates[1:]:
        box = box.union(each.box)
    mask = np.zeros(box.shape, bool)
    for each in candidates:
        mask[each.box.shift(-box.y0, -box.x0).slices] |= each.mask
    weights = []
    for each in candidates:
        core = crops[each.crop].core.intersection(box)
        if core is None:
            weights.append(0)
            continue
        part = each.within(core)
        mask[core.shift(-box.y0, -box.x0).slices] = part
        weights.append(int(np.count_nonzero(part)))
    if not any(weights):
        weights = [each.area for each in candidates]
    ious = [each.predicted_iou for each in candidates]
    stabilities = [each.stability for each in candidates]
    joined = replace(
        candidates[0],
        box=box,
        mask=mask,
        predicted_iou=_mean(ious, weights),
        stability=_mean(stabilities, weights),
    )
    # where cores decide, nothing may be left at the edge of the views
    return joined.with_mask(mask)


def _mean(values: list[float], weights: list[int]) -> float:
    products = (value * weight for value, weight in zip(values, weights, strict=True))
    return sum(products) / sum(weights)


def _unpack(packed: bytes, box: Box) -> NDArray[np.bool_]:
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=box.area).reshape(box.shape).view(bool)
