"""Masks in numbers: boxes, stability, overlap, small parts.

Batches that come out of the decoder are torch tensors and stay on their device;
a mask that was kept is a small numpy array in its box (`Candidate`), because a
plane holds thousands of objects and few of them are large.

Boxes are half-open ``y0, x0, y1, x1``, so that height is ``y1 - y0``; boxes of
Segment Anything end with the last pixel instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy import ndimage

from napari_sam.errors import InputError
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor


# Boxes of which all pairs are compared sooner than neighbours are found.
_FEW = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One object that was found, before duplicates are resolved.

    Parameters
    ----------
    box : Box
        Where the mask lies, in plane pixels.
    mask : (h, w) array of bool
        The object inside `box`.
    predicted_iou : float
        The model's own estimate of the quality of the mask.
    stability : float
        Stability score of the mask, 0 to 1.
    point : tuple of float, optional
        The point prompt (y, x) that gave the mask, in plane pixels.
    crop : int
        Number of the crop that it was decoded in.
    penalty : float
        What is taken off its score where candidates compete.

    Raises
    ------
    InputError
        If mask and box differ in shape.
    """

    box: Box
    mask: NDArray[np.bool_]
    predicted_iou: float = 1.0
    stability: float = 1.0
    point: tuple[float, float] | None = None
    crop: int = 0
    penalty: float = 0.0

    def __post_init__(self) -> None:
        if self.mask.shape != self.box.shape:
            raise InputError(
                f"mask of shape {self.mask.shape} in {self.box}; cut the mask to the "
                f"{self.box.height} x {self.box.width} px of its box"
            )

    @property
    def area(self) -> int:
        """Number of pixels of the object."""
        return int(np.count_nonzero(self.mask))

    def overlap(self, other: Candidate) -> int:
        """Return the number of pixels of the plane that both objects hold."""
        shared = self.box.intersection(other.box)
        if shared is None:
            return 0
        return int(np.count_nonzero(self.within(shared) & other.within(shared)))

    def iou(self, other: Candidate) -> float:
        """Return intersection over union with another object; 0 if both are empty."""
        overlap = self.overlap(other)
        union = self.area + other.area - overlap
        return overlap / union if union else 0.0

    def with_mask(self, mask: NDArray[np.bool_]) -> Candidate:
        """Return this candidate with another mask, cut to the pixels that it holds.

        Parameters
        ----------
        mask : (h, w) array of bool
            Over the whole of `box`.

        Returns
        -------
        Candidate
            Its box is empty if the mask is.
        """
        held = Box.around(mask) or Box(0, 0, 0, 0)
        box = held.shift(self.box.y0, self.box.x0)
        return replace(self, box=box, mask=mask[held.slices])

    def within(self, region: Box) -> NDArray[np.bool_]:
        """Return the part of the mask in a region.

        Parameters
        ----------
        region : Box
            Plane pixels; may reach beyond the candidate's own box.

        Returns
        -------
        (h, w) array of bool, of the shape of `region`
        """
        if self.box.contains(region):
            return self.mask[region.shift(-self.box.y0, -self.box.x0).slices]
        part = np.zeros(region.shape, bool)
        shared = self.box.intersection(region)
        if shared is not None:
            here = shared.shift(-region.y0, -region.x0).slices
            part[here] = self.within(shared)
        return part


def boxes_of(masks: Tensor) -> Tensor:
    """Return the smallest box around each mask.

    Parameters
    ----------
    masks : (N, H, W) bool tensor

    Returns
    -------
    (N, 4) int64 tensor, y0, x0, y1, x1, pixels
        Half-open; all 0 for an empty mask.

    Examples
    --------
    >>> masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    >>> masks[0, 2:5, 3] = True
    >>> boxes_of(masks).tolist()
    [[2, 3, 5, 4]]
    """
    rows, columns = (_any(masks, dim) for dim in (2, 1))
    (y0, y1), (x0, x1) = _extent(rows), _extent(columns)
    return torch.stack([y0, x0, y1, x1], dim=1)


def stability_scores(
    logits: Tensor, threshold: float = 0.0, offset: float = 1.0
) -> Tensor:
    """Return how little each mask changes when the threshold moves.

    IoU of the masks at ``threshold + offset`` and at ``threshold - offset``
    (Kirillov et al. 2023, appendix B, "Filtering"). The first lies inside the
    second, so the IoU is the ratio of their areas.

    Parameters
    ----------
    logits : (..., H, W) float tensor
    threshold : float
        Where the mask is cut.
    offset : float
        How far the threshold is moved, up and down.

    Returns
    -------
    (...) float32 tensor, 0 to 1
        0 where even the larger mask is empty.
    """
    inner = _count_above(logits, threshold + offset)
    outer = _count_above(logits, threshold - offset)
    return (inner / outer.clamp(min=1)).to(torch.float32)


def _count_above(logits: Tensor, limit: float) -> Tensor:
    """Count the pixels of (..., H, W) logits above a limit: (...) int32 tensor."""
    if logits.device.type == "cpu" and logits.dtype == torch.float32:
        # numpy, which knows no bfloat16, counts several times as fast
        each = logits.detach().reshape(-1, *logits.shape[-2:])
        counts = [np.count_nonzero(mask > limit) for mask in each.numpy()]
        return torch.tensor(counts, dtype=torch.int32).view(logits.shape[:-2])
    # in 32 bit, which a mask does not overflow: half the time of 64
    return (logits > limit).flatten(-2).sum(dim=-1, dtype=torch.int32)


def box_nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Keep the best of boxes that overlap (greedy non-maximum suppression).

    Parameters
    ----------
    boxes : (N, 4) tensor, y0, x0, y1, x1, half-open
    scores : (N,) tensor
        Higher is better; of equal ones the first wins.
    iou_threshold : float
        A box with a larger IoU with a kept one is dropped.

    Returns
    -------
    (K,) int64 tensor
        Indices of the boxes kept, best first.
    """
    order = scores.argsort(descending=True, stable=True)
    # one transfer instead of one per kept box: the loop runs on the CPU
    ranked = boxes[order].cpu().double().numpy()
    near = _neighbours(ranked)
    alive = np.ones(len(ranked), bool)
    for i in range(len(ranked)):
        if alive[i]:
            rivals = near(i)
            rivals = rivals[(rivals > i) & alive[rivals]]
            alive[rivals[_suppressed(ranked[i], ranked[rivals], iou_threshold)]] = False
    kept = torch.from_numpy(np.flatnonzero(alive)).to(order.device)
    return order[kept]


def _suppressed(
    best: NDArray[np.float64], others: NDArray[np.float64], iou_threshold: float
) -> NDArray[np.bool_]:
    """Whether each of (N, 4) boxes overlaps a better one too much."""
    first = np.maximum(best[:2], others[:, :2])
    last = np.minimum(best[2:], others[:, 2:])
    shared = np.prod(np.clip(last - first, 0, None), axis=1)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    union = np.prod(best[2:] - best[:2]) + areas - shared
    overlapping: NDArray[np.bool_] = shared > iou_threshold * union
    return overlapping


def _neighbours(
    boxes: NDArray[np.float64],
) -> Callable[[int], NDArray[np.int64]]:
    """Return a function that lists the boxes that may overlap one, itself too.

    Boxes are put into the cells of a grid, a level of cells for each size; a box meets
    the few cells around it on each level. So a plane of a hundred thousand objects
    costs a hundred thousand short lists and not ten thousand million pairs.
    """
    if len(boxes) <= _FEW:
        return lambda _: np.arange(len(boxes))
    sizes = np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=1.0), 1.0)
    levels = np.ceil(np.log2(sizes)).astype(int)  # cells at least as large as the box
    cells: dict[tuple[int, int, int], list[int]] = {}
    corners = np.floor(boxes[:, :2] / (2.0**levels)[:, None]).astype(int)
    for i, (level, (row, column)) in enumerate(
        zip(levels.tolist(), corners.tolist(), strict=True)
    ):
        cells.setdefault((level, row, column), []).append(i)
    members = {key: np.array(found) for key, found in cells.items()}
    every_level = sorted(set(levels.tolist()))

    def near(i: int) -> NDArray[np.int64]:
        found = []
        for level in every_level:
            # the first corner of what overlaps lies at most a cell before the box
            low = np.floor(boxes[i, :2] / 2.0**level).astype(int) - 1
            high = np.floor(boxes[i, 2:] / 2.0**level).astype(int)
            n_cells = np.prod(high - low + 1)
            if n_cells > len(members):  # a large box among small ones
                found.append(np.flatnonzero(levels == level))
                continue
            for row in range(low[0], high[0] + 1):
                for column in range(low[1], high[1] + 1):
                    there = members.get((level, row, column))
                    if there is not None:
                        found.append(there)
        return np.concatenate(found)

    return near


def boundary_depth(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the distance of each pixel of a mask to the nearest one outside.

    Parameters
    ----------
    mask : (h, w) array of bool
        What lies beyond the array is outside.

    Returns
    -------
    (h, w) array of float64
        In pixels; 0 outside.
    """
    depth: NDArray[np.float64] = ndimage.distance_transform_edt(np.pad(mask, 1))
    return depth[1:-1, 1:-1]


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Return intersection over union of two masks of one shape; 0 if both are empty.

    Parameters
    ----------
    a, b : (H, W) array of bool

    Raises
    ------
    InputError
        If the shapes differ.
    """
    if a.shape != b.shape:
        raise InputError(f"masks of shapes {a.shape} and {b.shape}; give one shape")
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 0.0


def remove_small(
    mask: NDArray[np.bool_], area: float, kind: Literal["islands", "holes"]
) -> NDArray[np.bool_]:
    """Drop small islands of a mask, or fill its small holes.

    Pixels of an island touch at sides or corners, those of a hole at sides only,
    so that no hole leaks through a corner. What reaches the border is no hole.

    Parameters
    ----------
    mask : (H, W) array of bool
    area : float
        Parts with fewer pixels change.
    kind : str
        ``islands`` or ``holes``.

    Returns
    -------
    (H, W) array of bool
        A new mask. If all islands are small the largest stays, as in Segment
        Anything: an object never vanishes.

    Raises
    ------
    InputError
        If the kind is another word.
    """
    if kind not in ("islands", "holes"):
        raise InputError(f"kind {kind!r}; use islands or holes")
    if not mask.size:
        return mask.copy()
    return _without_islands(mask, area) if kind == "islands" else _filled(mask, area)


def _without_islands(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    parts, n_parts = ndimage.label(mask, structure=np.ones((3, 3), bool))
    sizes = np.bincount(parts.ravel(), minlength=n_parts + 1)
    keep = sizes >= area
    keep[0] = False
    if n_parts and not keep.any():
        keep[1 + int(sizes[1:].argmax())] = True
    kept: NDArray[np.bool_] = keep[parts]
    return kept


def _filled(mask: NDArray[np.bool_], area: float) -> NDArray[np.bool_]:
    parts, n_parts = ndimage.label(~mask)
    fill = np.bincount(parts.ravel(), minlength=n_parts + 1) < area
    fill[np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])] = False
    fill[0] = True  # the mask itself
    filled: NDArray[np.bool_] = fill[parts]
    return filled


def _any(masks: Tensor, dim: int) -> Tensor:
    """Whether any pixel along a dimension is set."""
    if masks.device.type == "cpu":  # numpy takes a tenth of the time
        return torch.from_numpy(masks.numpy().any(axis=dim))
    return masks.any(dim=dim)


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """Return start and end of the True part of each row, (N, L) -> (N,), (N,)."""
    if occupied.shape[1] == 0:
        empty = occupied.new_zeros(len(occupied), dtype=torch.int64)
        return empty, empty
    flags = occupied.to(torch.uint8)
    first = flags.argmax(dim=1)
    last = occupied.shape[1] - flags.flip(1).argmax(dim=1)
    return first, last * occupied.any(dim=1)
