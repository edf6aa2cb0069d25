"""Candidates: everything in one crop that might be an object, with its scores.

Two ways lead to them. `grid_candidates` asks at a regular grid of points and keeps
what is certain and stable: the automatic masks of Segment Anything (Kirillov et al.
2023, appendix B; reference `automatic_mask_generator.py`, Apache-2.0), equal to them
for a plane of one crop. `proposal_candidates` asks once for each object that the
proposal head sees: fewer questions, better placed (ours).

Candidates of one crop may still overlap; `napari_sam.stitch` resolves that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import h_maxima

from napari_sam.engine.jobs import device_errors
from napari_sam.errors import InputError
from napari_sam.masks import (
    Candidate,
    box_nms,
    boxes_of,
    remove_small,
    stability_scores,
)
from napari_sam.prompts import Prompts, to_input
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.model import Sam
    from napari_sam.tiling import Crop

# Distance, in plane pixels, at which a mask counts as touching the border of its
# crop: the reference's value.
_BORDER_TOLERANCE = 20

# Logits have a quarter of the input's resolution.
_CELL = 4


@dataclass(frozen=True, slots=True)
class GridMode:
    """Automatic masks of Segment Anything; the defaults are those of the paper.

    Parameters
    ----------
    points_per_side : int, default 32
        Points along each side of a crop.
    batch : int, default 16
        Points decoded at once; without influence on the result.
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
    batch: int = 16
    min_predicted_iou: float = 0.88
    min_stability: float = 0.95
    box_nms: float = 0.7
    min_area: int = 0
    drop_at_borders: bool = True

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or self.batch < 1:
            raise InputError(
                f"{self.points_per_side} points per side in batches of {self.batch}; "
                "both must be 1 or more"
            )


@dataclass(frozen=True, slots=True)
class ProposalMode:
    """One prompt for each object that the proposal head sees (ours).

    Parameters
    ----------
    foreground : float, default 0.5
        Foreground probability from which a place may be part of an object.
    smoothing : float, default 0.7
        Standard deviation, in map cells of 4 input pixels, by which the map of
        centres is smoothed before its peaks are taken.
    min_prominence : float, default 0.05
        How far a peak must rise above the way to any higher one, 0 to 1.
    batch : int, default 8
        Points decoded at once; without influence on the result.
    min_predicted_iou : float, default 0.5
        Masks of which the model expects less are dropped.
    min_stability : float, default 0.5
        Masks with a lower stability score are dropped.
    min_foreground : float, default 0.3
        Masks whose mean foreground probability is lower are dropped.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    foreground: float = 0.5
    smoothing: float = 0.7
    min_prominence: float = 0.05
    batch: int = 8
    min_predicted_iou: float = 0.5
    min_stability: float = 0.5
    min_foreground: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.foreground < 1:
            raise InputError(f"foreground {self.foreground}; give a value from 0 to 1")
        if self.smoothing < 0 or self.min_prominence < 0 or self.batch < 1:
            raise InputError(
                f"smoothing {self.smoothing}, min_prominence {self.min_prominence}, "
                f"batch {self.batch}; none may be negative, and batch is 1 or more"
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
    for i in range(0, len(points), mode.batch):
        batch = points[i : i + mode.batch]
        found += _certain_masks(model, embedding, crop, batch, mode)
        yield
    if mode.drop_at_borders:
        found = [c for c in found if not _touches_border(c.box, crop.box, plane)]
    found = _box_nms(found, [c.predicted_iou for c in found], mode.box_nms)
    if mode.min_area > 0:
        found = _without_small_parts(found, mode)
    return found


def proposal_candidates(
    model: Sam, embedding: Tensor, crop: Crop, mode: ProposalMode
) -> Generator[None, None, list[Candidate]]:
    """Ask once for each peak of the proposal head.

    Parameters
    ----------
    model : Sam
        A network with a proposal head.
    embedding : (1, C, e, e) tensor
        Embedding of the crop.
    crop : Crop
        Where the crop lies.
    mode : ProposalMode
        Thresholds.

    Yields
    ------
    None
        After each batch.

    Returns
    -------
    list of Candidate
        In the order of the peaks.
    """
    height, width = (-(-n // _CELL) for n in crop.input_shape)
    with torch.inference_mode(), device_errors():
        maps = model.propose(embedding)[0, :, :height, :width].cpu().numpy()
    peaks = find_peaks(maps, mode)
    points = crop.to_plane((peaks + 0.5) * _CELL - 0.5)
    found: list[Candidate] = []
    for i in range(0, len(points), mode.batch):
        batch = points[i : i + mode.batch]
        found += _best_masks(model, embedding, crop, batch, maps[0], mode)
        yield
    return found


def find_peaks(maps: NDArray[np.float32], mode: ProposalMode) -> NDArray[np.int64]:
    """Find the centre of every object that the proposal head sees.

    Parameters
    ----------
    maps : (3, h, w) float32 array, 0 to 1
        Foreground probability, centre distance, boundary distance.
    mode : ProposalMode
        Thresholds.

    Returns
    -------
    (N, 2) int64 array, (y, x), map cells
        One cell inside the foreground for each peak of the smoothed closeness to
        a centre that is prominent enough; each connected part of the foreground
        has at least one. Top to bottom.
    """
    inside = maps[0] > mode.foreground
    if not inside.any():
        return np.zeros((0, 2), np.int64)
    closeness = ndimage.gaussian_filter(1 - maps[1], mode.smoothing)
    # above the background by more than the prominence, so that no part is lost
    landscape = np.where(inside, closeness + 2 * mode.min_prominence + 1e-3, 0)
    # a rim of background: an object that fills the crop has a peak, too
    rimmed = np.pad(landscape, 1)
    tops = h_maxima(rimmed, max(mode.min_prominence, 1e-6))[1:-1, 1:-1] > 0
    regions, n_regions = ndimage.label(tops & inside, np.ones((3, 3)))
    places = ndimage.maximum_position(landscape, regions, range(1, n_regions + 1))
    return np.array(sorted(places), np.int64).reshape(-1, 2)


def _grid_points(crop: Crop, n: int) -> NDArray[np.float64]:
    """Return (n * n, 2) points (y, x) of the plane, row by row."""
    fractions = (np.arange(n) + 0.5) / n
    y, x = np.meshgrid(fractions, fractions, indexing="ij")
    points = np.stack([y.ravel(), x.ravel()], axis=1)
    # the reference spreads the points over the sides of the input, without the
    # half pixel that separates edges from centres
    return crop.to_plane(points * crop.input_shape)


@torch.inference_mode()
def _decode_points(
    model: Sam, embedding: Tensor, crop: Crop, points: NDArray[np.float64]
) -> tuple[Tensor, Tensor]:
    """Return logits (N, 3, m, m) and predicted IoU (N, 3) of single points."""
    prompts = [Prompts(points=[point]) for point in points]
    tensors = to_input(prompts, crop, model.device)
    with device_errors():
        return model.decode(
            embedding, points=tensors.points, labels=tensors.labels, multimask=True
        )


@torch.inference_mode()
def _certain_masks(
    model: Sam,
    embedding: Tensor,
    crop: Crop,
    points: NDArray[np.float64],
    mode: GridMode,
) -> list[Candidate]:
    logits, ious = _decode_points(model, embedding, crop, points)
    certain = ious > mode.min_predicted_iou
    owner = torch.nonzero(certain)[:, 0].tolist()
    if not owner:
        return []
    with device_errors():
        full = model.upscale(
            logits[certain][:, None], crop.input_shape, crop.box.shape
        )[:, 0]
        stability = stability_scores(full)
        masks = full > 0
        boxes = boxes_of(masks).tolist()
    found = []
    for k, (y0, x0, y1, x1) in enumerate(boxes):
        if stability[k] >= mode.min_stability:
            y, x = points[owner[k]].tolist()
            found.append(
                Candidate(
                    box=Box(y0, x0, y1, x1).shift(crop.box.y0, crop.box.x0),
                    mask=masks[k, y0:y1, x0:x1].cpu().numpy(),
                    predicted_iou=float(ious[certain][k]),
                    stability=float(stability[k]),
                    point=(y, x),
                    crop=crop.index,
                )
            )
    return found


def _touches_border(box: Box, crop: Box, plane: Box) -> bool:
    """Whether a box ends near a border of its crop, but not near one of the plane."""

    def near(a: int, b: int) -> bool:
        return abs(a - b) <= _BORDER_TOLERANCE

    return any(
        near(getattr(box, side), getattr(crop, side))
        and not near(getattr(box, side), getattr(plane, side))
        for side in ("y0", "x0", "y1", "x1")
    )


def _box_nms(
    candidates: list[Candidate], scores: list[float], iou: float
) -> list[Candidate]:
    if not candidates:
        return []
    corners = [(c.box.y0, c.box.x0, c.box.y1 - 1, c.box.x1 - 1) for c in candidates]
    # from first to last pixel, one less than the size: so the reference counts
    kept = box_nms(torch.tensor(corners), torch.tensor(scores), iou)
    return [candidates[i] for i in kept.tolist()]


def _without_small_parts(
    candidates: list[Candidate], mode: GridMode
) -> list[Candidate]:
    """Remove small islands and holes; masks that need not change win over others."""
    cleaned, unchanged = [], []
    for candidate in candidates:
        mask = remove_small(candidate.mask, mode.min_area, "holes")
        mask = remove_small(mask, mode.min_area, "islands")
        unchanged.append(float(np.array_equal(mask, candidate.mask)))
        cleaned.append(_tight(candidate, mask))
    return _box_nms(cleaned, unchanged, mode.box_nms)


def _tight(candidate: Candidate, mask: NDArray[np.bool_]) -> Candidate:
    y0, x0, y1, x1 = boxes_of(torch.from_numpy(mask)[None])[0].tolist()
    return Candidate(
        box=Box(y0, x0, y1, x1).shift(candidate.box.y0, candidate.box.x0),
        mask=mask[y0:y1, x0:x1],
        predicted_iou=candidate.predicted_iou,
        stability=candidate.stability,
        point=candidate.point,
        crop=candidate.crop,
    )


@torch.inference_mode()
def _best_masks(
    model: Sam,
    embedding: Tensor,
    crop: Crop,
    points: NDArray[np.float64],
    foreground: NDArray[np.float32],
    mode: ProposalMode,
) -> list[Candidate]:
    logits, ious = _decode_points(model, embedding, crop, points)
    best = ious.argmax(dim=1)
    chosen = torch.arange(len(best), device=best.device)
    predicted_iou = ious[chosen, best].cpu().numpy()
    visible = logits[chosen, best, : foreground.shape[0], : foreground.shape[1]]
    stability = stability_scores(visible).cpu().numpy()
    found = []
    for k, cells in enumerate(visible.cpu().numpy()):
        inside = cells > 0
        if (
            predicted_iou[k] < mode.min_predicted_iou
            or stability[k] < mode.min_stability
            or not inside.any()
            or foreground[inside].mean() < mode.min_foreground
        ):
            continue
        box, mask = _plane_mask(cells, crop)
        if mask.any():
            y, x = points[k].tolist()
            candidate = Candidate(
                box,
                mask,
                float(predicted_iou[k]),
                float(stability[k]),
                (y, x),
                crop.index,
            )
            found.append(_tight(candidate, mask))
    return found


def _plane_mask(
    cells: NDArray[np.float32], crop: Crop
) -> tuple[Box, NDArray[np.bool_]]:
    """Bring logits to plane pixels, where they are positive and nowhere else.

    Bilinear like `Sam.upscale`, in one step instead of two: for thousands of small
    objects whole crops would have to be interpolated.
    """
    rows, columns = (np.flatnonzero((cells > 0).any(axis=axis)) for axis in (1, 0))
    # one cell more on each side: interpolation reaches half way to it
    edges = [rows[0] - 1, columns[0] - 1, rows[-1] + 2, columns[-1] + 2]
    ((y0, x0, y1, x1),) = crop.boxes_to_plane(np.array(edges) * _CELL)
    limit = crop.box
    box = Box(
        max(int(np.floor(y0)), limit.y0),
        max(int(np.floor(x0)), limit.x0),
        min(int(np.ceil(y1)), limit.y1),
        min(int(np.ceil(x1)), limit.x1),
    )
    centres = np.zeros((max(box.shape), 2))
    centres[: box.height, 0] = np.arange(box.y0, box.y1)
    centres[: box.width, 1] = np.arange(box.x0, box.x1)
    places = (crop.to_input(centres) + 0.5) / _CELL - 0.5
    upscaled = _interpolate(cells, places[: box.height, 0], axis=0)
    upscaled = _interpolate(upscaled, places[: box.width, 1], axis=1)
    return box, upscaled > 0


def _interpolate(
    values: NDArray[np.float32], places: NDArray[np.float64], axis: int
) -> NDArray[np.float32]:
    """Interpolate along one axis; beyond the ends the end values hold."""
    last = values.shape[axis] - 1
    places = places.clip(0, last)
    start = np.minimum(places.astype(np.int64), max(last - 1, 0))
    weight = (places - start).astype(np.float32)
    weight = weight.reshape(-1, 1) if axis == 0 else weight
    lower = values.take(start, axis)
    upper = values.take(np.minimum(start + 1, last), axis)
    between: NDArray[np.float32] = lower + (upper - lower) * weight
    return between
