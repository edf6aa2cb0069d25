"""Automatic masks of Segment Anything in one crop (mode "grid").

A regular grid of points is asked, and what is certain and stable is kept: Kirillov
et al. 2023, appendix B; reference `automatic_mask_generator.py` (Apache-2.0), whose
masks these are for a plane of one crop. Candidates may still overlap;
`napari_sam.stitch` resolves that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sam.engine.cores import cut_evenly, side_by_side
from napari_sam.engine.enlarge import Drawn, extent, plane_logits, unscaled_mask
from napari_sam.engine.jobs import device_errors
from napari_sam.engine.predict import decode_points, decoder_batch
from napari_sam.errors import InputError
from napari_sam.masks import (
    Candidate,
    box_nms,
    boxes_of,
    remove_small,
    stability_scores,
)
from napari_sam.tiling import Box, Crop

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.model import PreparedEmbedding, Sam

# Distance, in plane pixels, at which a mask counts as touching the border of its
# crop: the reference's value.
_BORDER_TOLERANCE = 20

# Pixels of masks that a GPU enlarges at once: 1 GiB of logits.
_GPU_PIXELS = 2**28


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
    crop_layers : int, default 0
        Layers of smaller crops that are asked, too, for small objects: the first has
        2 x 2 crops, the next 4 x 4. Each of them is encoded.
    crop_overlap : float, default 512 / 1500
        Overlap of neighbours in the first layer, as a part of the shorter side; in
        each further layer half of it.
    crop_points_factor : int, default 1
        In each layer the points along a side are divided by it once more.
    crop_nms : float, default 0.7
        Of two masks of different crops whose boxes have a larger IoU that of the
        larger crop is dropped.

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
    crop_layers: int = 0
    crop_overlap: float = 512 / 1500
    crop_points_factor: int = 1
    crop_nms: float = 0.7

    def __post_init__(self) -> None:
        if self.points_per_side < 1 or (self.batch is not None and self.batch < 1):
            raise InputError(
                f"{self.points_per_side} points per side in batches of {self.batch}; "
                "both must be 1 or more"
            )
        if self.crop_layers < 0 or self.crop_points_factor < 1:
            raise InputError(
                f"{self.crop_layers} layers of crops, points divided by "
                f"{self.crop_points_factor}; give 0 or more, and 1 or more"
            )
        if not 0 <= self.crop_overlap < 1:
            raise InputError(
                f"an overlap of {self.crop_overlap} of the shorter side; give 0 or "
                "more and less than 1"
            )


def grid_candidates(
    model: Sam, embed: Callable[[Crop], Tensor], crop: Crop, plane: Box, mode: GridMode
) -> Generator[None, None, list[Candidate]]:
    """Ask at a regular grid of points.

    Parameters
    ----------
    model : Sam
        The network.
    embed : callable
        Returns the embedding of a crop, (1, C, e, e); such as `PlaneEmbedding.of`.
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
    scores: list[float] = []
    for part, n in [(crop, mode.points_per_side), *smaller_crops(crop, model, mode)]:
        seen = yield from _of_crop(model, embed(part), part, plane, mode, n)
        found += [replace(each, crop=crop.index) for each in seen]
        scores += [1 / part.box.area] * len(seen)
    if mode.crop_layers:
        found = best_of_boxes(found, scores, mode.crop_nms)
    if mode.min_area > 0:
        found = _without_small_parts(found, mode)
    return found


def smaller_crops(crop: Crop, model: Sam, mode: GridMode) -> list[tuple[Crop, int]]:
    """Return the crops of all layers inside a crop, and their points per side.

    Parameters
    ----------
    crop : Crop
        The whole of what is seen.
    model : Sam
        Of whose input each crop fills the longer side.
    mode : GridMode
        How many layers.
    """
    found = []
    (height, width), size = crop.box.shape, model.config.image_size
    for layer in range(1, mode.crop_layers + 1):
        n = 2**layer
        overlap = int(mode.crop_overlap * min(height, width) * (2 / n))
        sides = [math.ceil((overlap * (n - 1) + side) / n) for side in (height, width)]
        # down the columns, as the reference does: of equal masks the first stays
        for column, row in product(range(n), repeat=2):
            y0, x0 = row * (sides[0] - overlap), column * (sides[1] - overlap)
            box = Box(y0, x0, y0 + sides[0], x0 + sides[1]).clip((height, width))
            box = box.shift(crop.box.y0, crop.box.x0)
            scale = size / max(box.shape)
            shape = int(box.height * scale + 0.5), int(box.width * scale + 0.5)
            n_points = mode.points_per_side // mode.crop_points_factor**layer
            found.append((Crop(-1, -1, -1, box, box, shape), max(n_points, 1)))
    return found


def _of_crop(
    model: Sam, embedding: Tensor, crop: Crop, plane: Box, mode: GridMode, n: int
) -> Generator[None, None, list[Candidate]]:
    """Ask one crop at n by n points; best first."""
    found: list[Candidate] = []
    points = _grid_points(crop, n)
    with torch.inference_mode(), device_errors():
        prepared = model.prepare(embedding)
    size = mode.batch or decoder_batch(prepared.size, model.device)
    batches = [points[part] for part in cut_evenly(len(points), size, model.device)]

    def ask(batch: NDArray[np.float64]) -> list[Candidate]:
        return _certain_masks(model, prepared, crop, batch, mode)

    for each in side_by_side(ask, batches, model.device):
        found += each
        yield
    if mode.drop_at_borders:
        found = [c for c in found if not touches_border(c.box, crop.box, plane)]
    return best_of_boxes(found, [c.predicted_iou for c in found], mode.box_nms)


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
        drawn = _drawn(model, logits[certain], crop, mode.min_stability)
    found = []
    for each, k, score in zip(drawn, owner, ious[certain].tolist(), strict=True):
        if each.stability >= mode.min_stability and each.mask.any():
            y, x = points[k].tolist()
            found.append(
                Candidate(
                    box=each.box,
                    mask=each.mask.copy(),
                    predicted_iou=score,
                    stability=each.stability,
                    point=(y, x),
                    crop=crop.index,
                )
            )
    return found


def _drawn(model: Sam, logits: Tensor, crop: Crop, min_stability: float) -> list[Drawn]:
    """Bring masks, (N, m, m), to the plane; unstable ones need not be drawn."""
    if logits.device.type != "cpu":
        return drawn_at_once(model, logits, crop, min_stability)
    if crop.scale == (1.0, 1.0):
        return [unscaled_mask(each, crop) for each in logits.numpy()]
    found = []
    for each in logits:
        box, part = plane_logits(each, crop)
        mask = part.numpy() > 0
        here = extent(mask)
        stability = float(stability_scores(part))
        box = here.shift(box.y0, box.x0)
        found.append(Drawn(box, mask[here.slices], stability))
    return found


def drawn_at_once(
    model: Sam, logits: Tensor, crop: Crop, min_stability: float
) -> list[Drawn]:
    """Bring masks to the plane on a GPU, which waits for its host three times.

    Parameters
    ----------
    model : Sam
        The network.
    logits : (N, m, m) tensor
        From the decoder.
    crop : Crop
        That was asked.
    min_stability : float
        Masks with a lower score are left empty.

    Returns
    -------
    list of Drawn
    """
    height, width = crop.box.shape
    step = max(1, _GPU_PIXELS // (height * width))
    found: list[Drawn] = []
    for some in logits.split(step):
        large = model.upscale(some[:, None], crop.input_shape, crop.box.shape)[:, 0]
        masks, stability = large > 0, stability_scores(large)
        boxes = boxes_of(masks).tolist()
        scores = stability.tolist()
        inside = [
            Box(*box) if score >= min_stability and box[2] > 0 else Box(0, 0, 1, 1)
            for box, score in zip(boxes, scores, strict=True)
        ]
        parts = [
            mask[box.slices].flatten() for mask, box in zip(masks, inside, strict=True)
        ]
        flat = torch.cat(parts).cpu().numpy()  # all at once
        ends = np.cumsum([part.numel() for part in parts])[:-1]
        found += [
            Drawn(box.shift(crop.box.y0, crop.box.x0), part.reshape(box.shape), score)
            for box, part, score in zip(
                inside, np.split(flat, ends), scores, strict=True
            )
        ]
    return found


def touches_border(box: Box, crop: Box, plane: Box) -> bool:
    """Whether a box ends near a border of its crop, but not near one of the plane."""

    def near(a: int, b: int) -> bool:
        return abs(a - b) <= _BORDER_TOLERANCE

    # the reference measures from the last pixel to the end of the crop
    ends = {"y0": box.y0, "x0": box.x0, "y1": box.y1 - 1, "x1": box.x1 - 1}
    return any(
        near(end, getattr(crop, side)) and not near(end, getattr(plane, side))
        for side, end in ends.items()
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
    return best_of_boxes(cleaned, unchanged, max(mode.box_nms, mode.crop_nms))
