"""Automatic masks of Segment Anything in one crop (mode "grid").

A regular grid of points is asked, and what is certain and stable is kept: Kirillov
et al. 2023, appendix B; reference `automatic_mask_generator.py` (Apache-2.0), whose
masks these are for a plane of one crop. Candidates may still overlap;
`napari_sam.stitch` resolves that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sam.engine.enlarge import extent, plane_logits
from napari_sam.engine.jobs import device_errors
from napari_sam.engine.predict import decode_points, decoder_batch
from napari_sam.errors import InputError
from napari_sam.masks import (
    Candidate,
    box_nms,
    remove_small,
    stability_scores,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.model import PreparedEmbedding, Sam
    from napari_sam.tiling import Box, Crop

# Distance, in plane pixels, at which a mask counts as touching the border of its
# crop: the reference's value.
_BORDER_TOLERANCE = 20


@dataclass(frozen=True, slots=True)
class GridMode:
    """Automatic masks of Segment Anything; the defaults are those of the paper.

    Parameters
    ----------
    points_per_side : int, default 32
        Points along each side of a crop.
    batch : int, optional
        Points decoded at once; without influence on the result. Default: what is
        fast on the device.
    min_predicted_iou : float, default 0.88
        Masks of which the model expects less are dropped.
    min_stability : float, default 0.95
        Masks with a lower stability score are dropped.
    box_nms : float, default 0.7
        Of two masks whose boxes have a larger IoU the worse is dropped.
    min_area : int, default 0
        Islands and holes of masks with fewer plane pixels are removed.
    drop_at_borders : bool, default True
        Drop masks that touch a crop's border inside the plane.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    points_per_side: int = 32
    batch: int | None = None
    min_predicted_iou: float = 0.88
    min_stability: float = 0.95
    box_nms: float = 0.7
    min_area: int = 0
    drop_at_borders: bool = True

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or (self.batch is not None and self.batch < 1):
            raise InputError(
                f"{self.points_per_side} points per side in batches of {self.batch}; "
                "both must be 1 or more"
            )


def grid_candidates(
    model: Sam, embedding: Tensor, crop: Crop, plane: Box, mode: GridMode
) -> Generator[None, None, list[Candidate]]:
    """Ask at a regular grid of points.

    Parameters
    ----------
    model : Sam
        The network.
    embedding : (1, C, e, e) tensor
        Embedding of the crop.
    crop : Crop
        Where the crop lies.
    plane : Box
        The whole plane; borders of the crop inside it may cut objects.
    mode : GridMode
        Points and thresholds.

    Yields
    ------
    None
        After each batch.

    Returns
    -------
    list of Candidate
        Best first.
    """
    found: list[Candidate] = []
    points = _grid_points(crop, mode.points_per_side)
    with torch.inference_mode(), device_errors():
        prepared = model.prepare(embedding)
    size = mode.batch or decoder_batch(prepared)
    for i in range(0, len(points), size):
        batch = points[i : i + size]
        found += _certain_masks(model, prepared, crop, batch, mode)
        yield
    if mode.drop_at_borders:
        found = [c for c in found if not _touches_border(c.box, crop.box, plane)]
    found = best_of_boxes(found, [c.predicted_iou for c in found], mode.box_nms)
    if mode.min_area > 0:
        found = _without_small_parts(found, mode)
    return found


def best_of_boxes(
    candidates: Sequence[Candidate], scores: Sequence[float], iou: float
) -> list[Candidate]:
    """Keep the best of candidates whose boxes overlap.

    Parameters
    ----------
    candidates : sequence of Candidate
        Of one crop.
    scores : sequence of float
        One for each; higher is better, of equal ones the first wins.
    iou : float
        A candidate with a larger IoU of boxes with a better one is dropped.

    Returns
    -------
    list of Candidate
        Best first.
    """
    if not candidates:
        return []
    corners = [(c.box.y0, c.box.x0, c.box.y1 - 1, c.box.x1 - 1) for c in candidates]
    # from first to last pixel, one less than the size: so the reference counts
    kept = box_nms(torch.tensor(corners), torch.tensor(scores), iou)
    return [candidates[i] for i in kept.tolist()]


def _grid_points(crop: Crop, n: int) -> NDArray[np.float64]:
    """Return (n * n, 2) points (y, x) of the plane, row by row."""
    fractions = (np.arange(n) + 0.5) / n
    y, x = np.meshgrid(fractions, fractions, indexing="ij")
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    # the reference spreads the points over the sides of the input, without the
    # half pixel that separates edges from centres
    return crop.to_plane(points * crop.input_shape)


@torch.inference_mode()
def _certain_masks(
    model: Sam,
    embedding: PreparedEmbedding,
    crop: Crop,
    points: NDArray[np.float64],
    mode: GridMode,
) -> list[Candidate]:
    worth = mode.min_predicted_iou
    logits, ious = decode_points(model, embedding, crop, points, worth)
    certain = ious > worth
    owner = torch.nonzero(certain)[:, 0].tolist()
    if not owner:
        return []
    with device_errors():
        parts = [plane_logits(each, crop) for each in logits[certain]]
        stability = torch.stack([stability_scores(part) for _, part in parts]).tolist()
        masks = _to_host([part > 0 for _, part in parts])
    found = []
    scores = ious[certain].tolist()
    for k, ((box, _), mask) in enumerate(zip(parts, masks, strict=True)):
        if stability[k] >= mode.min_stability and mask.any():
            y, x = points[owner[k]].tolist()
            inside = extent(mask)
            found.append(
                Candidate(
                    box=inside.shift(box.y0, box.x0),
                    mask=mask[inside.slices].copy(),
                    predicted_iou=scores[k],
                    stability=stability[k],
                    point=(y, x),
                    crop=crop.index,
                )
            )
    return found


def _to_host(masks: list[Tensor]) -> list[NDArray[np.bool_]]:
    """Copy (h, w) masks of several sizes at once, for each copy waits for the GPU."""
    flat = torch.cat([mask.flatten() for mask in masks]).cpu().numpy()
    ends = np.cumsum([mask.numel() for mask in masks])[:-1]
    return [
        part.reshape(tuple(mask.shape))
        for part, mask in zip(np.split(flat, ends), masks, strict=True)
    ]


def _touches_border(box: Box, crop: Box, plane: Box) -> bool:
    """Whether a box ends near a border of its crop, but not near one of the plane."""

    def near(a: int, b: int) -> bool:
        return abs(a - b) <= _BORDER_TOLERANCE

    return any(
        near(getattr(box, side), getattr(crop, side))
        and not near(getattr(box, side), getattr(plane, side))
        for side in ("y0", "x0", "y1", "x1")
    )


def _without_small_parts(
    candidates: list[Candidate], mode: GridMode
) -> list[Candidate]:
    """Remove small islands and holes; masks that need not change win over others."""
    cleaned, unchanged = [], []
    for candidate in candidates:
        mask = remove_small(candidate.mask, mode.min_area, "holes")
        mask = remove_small(mask, mode.min_area, "islands")
        unchanged.append(float(np.array_equal(mask, candidate.mask)))
        cleaned.append(candidate.with_mask(mask))
    return best_of_boxes(cleaned, unchanged, mode.box_nms)
