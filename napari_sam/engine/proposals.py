"""Objects of one crop by way of the proposal head (mode "proposals"; ours).

The head sees every object at once, but coarsely and without telling neighbours
apart for certain. Its peaks become point prompts: one question for each object, well
placed, instead of a thousand on a grid. The decoder answers in a window around each
prompt: most of its work grows with the area that it looks at, and a cell does not
need the whole crop. Where an answer reaches the edge of its window the whole crop is
asked.

Candidates may still overlap; `napari_sam.stitch` resolves that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import h_maxima

from napari_sam.engine.jobs import device_errors
from napari_sam.engine.predict import decode_points, decoder_batch
from napari_sam.errors import InputError
from napari_sam.masks import Candidate, stability_scores
from napari_sam.model.config import ConvConfig
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.model import PreparedEmbedding, Sam
    from napari_sam.tiling import Crop

# Logits and maps have a quarter of the input's resolution, the embedding a 16th.
_CELL = 4
_PATCH = 16

# Of our own network, which is trained on parts of a frame of 256 px and more.
_DEFAULT_WINDOW = 384

# Further peaks in a mask that count against it; more say nothing new.
_MAX_CROWD = 3


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
    crowding : float, default 0.1
        How much less a mask is worth for each further peak that it holds, up to
        three: a mask over several peaks is more likely a group than an object.
    window : int, optional
        Side of the part of the crop that answers a prompt first, in input pixels.
        Default: 384 for our own network, which is trained on such parts; the
        whole crop for others.
    batch : int, optional
        Points decoded at once; without influence on the result. Default: what is
        fast on the device.
    min_predicted_iou : float, default 0.3
        Masks of which the model expects less are dropped.
    min_stability : float, default 0.2
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
    crowding: float = 0.1
    window: int | None = None
    batch: int | None = None
    min_predicted_iou: float = 0.3
    min_stability: float = 0.2
    min_foreground: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.foreground < 1:
            raise InputError(f"foreground {self.foreground}; give a value from 0 to 1")
        if min(self.smoothing, self.min_prominence) < 0:
            raise InputError(
                f"smoothing {self.smoothing}, min_prominence {self.min_prominence}; "
                "neither may be negative"
            )
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch {self.batch}; use 1 or more")
        if self.window is not None and self.window < 3 * _PATCH:
            raise InputError(f"window {self.window} px; use {3 * _PATCH} px or more")


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
        prepared = _prepare(model, embedding)
    peaks = find_peaks(maps, mode)
    points = crop.to_plane((peaks + 0.5) * _CELL - 0.5)
    found: dict[int, Candidate | None] = {}
    size = model.config.embedding_size
    whole = Box(0, 0, size, size)
    views = list(_views(peaks, maps.shape[1:], _window(model, mode), whole))
    while views:
        view, members = views.pop(0)
        part = prepared if view == whole else prepared.window(*view.slices)
        n = mode.batch or decoder_batch(part)
        beyond: list[int] = []
        for batch in (members[i : i + n] for i in range(0, len(members), n)):
            logits, ious = _decode(model, part, crop, points[batch])
            answers = _best_answers(logits, ious, view, peaks, mode)
            for k, answer in zip(batch, answers, strict=True):
                if answer.reaches_edge(maps.shape[1:]):
                    beyond.append(k)
                else:
                    found[k] = _candidate(answer, crop, points[k], maps[0], mode)
            yield
        if beyond:
            views.append((whole, beyond))
    return [each for _, each in sorted(found.items()) if each is not None]


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


class _Answer(NamedTuple):
    """Best mask of one prompt: logits over a region of the map, and scores."""

    region: Box
    logits: NDArray[np.float32]
    predicted_iou: float
    penalty: float

    def reaches_edge(self, shape: tuple[int, ...]) -> bool:
        """Whether the mask touches an edge of its region inside the map."""
        inside, region = self.logits > 0, self.region
        return bool(
            (region.y0 > 0 and inside[0].any())
            or (region.x0 > 0 and inside[:, 0].any())
            or (region.y1 < shape[0] and inside[-1].any())
            or (region.x1 < shape[1] and inside[:, -1].any())
        )


def _window(model: Sam, mode: ProposalMode) -> int:
    """Return the side of a window, in patches of the embedding."""
    if mode.window is not None:
        return mode.window // _PATCH
    if isinstance(model.config.encoder, ConvConfig):
        return _DEFAULT_WINDOW // _PATCH
    return model.config.embedding_size


def _views(
    peaks: NDArray[np.int64], shape: tuple[int, ...], window: int, whole: Box
) -> Iterator[tuple[Box, list[int]]]:
    """Yield parts of the embedding, and the peaks that each answers for.

    Peaks of one block, a third of a window wide, share the window around it, so
    that they can be decoded together; each has a third of a window on every side.
    """
    if window >= whole.height:
        yield whole, list(range(len(peaks)))
        return
    block = window // 3
    margin = (window - block) // 2
    # no window lies beyond what the crop fills of the frame
    last = [max(-(-n * _CELL // _PATCH), window) - window for n in shape]
    starts = (peaks * _CELL // _PATCH // block * block - margin).clip(0, last)
    members: dict[tuple[int, int], list[int]] = {}
    for k, (row, column) in enumerate(starts.tolist()):
        members.setdefault((row, column), []).append(k)
    for (row, column), numbers in members.items():
        yield Box(row, column, row + window, column + window), numbers


def _autocast(model: Sam) -> torch.autocast:
    is_bfloat16 = model.precision == "bfloat16"
    return torch.autocast(model.device.type, torch.bfloat16, enabled=is_bfloat16)


def _prepare(model: Sam, embedding: Tensor) -> PreparedEmbedding:
    with _autocast(model):
        return model.prepare(embedding)


def _decode(
    model: Sam, part: PreparedEmbedding, crop: Crop, points: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Decode points on a part of the embedding: logits (N, 3, h, w), IoU (N, 3)."""
    with _autocast(model):
        logits, ious = decode_points(model, part, crop, points)
    return logits.cpu().numpy(), ious.cpu().numpy()


def _best_answers(
    logits: NDArray[np.float32],
    ious: NDArray[np.float32],
    view: Box,
    peaks: NDArray[np.int64],
    mode: ProposalMode,
) -> list[_Answer]:
    """Choose among the three masks of each prompt, with an eye on other peaks."""
    ratio = _PATCH // _CELL
    region = Box(*(ratio * n for n in (view.y0, view.x0, view.y1, view.x1)))
    places = peaks - [region.y0, region.x0]
    places = places[((places >= 0) & (places < region.shape)).all(axis=1)]
    held = (logits[:, :, places[:, 0], places[:, 1]] > 0).sum(axis=2)
    # one peak is its own
    penalties = mode.crowding * (held - 1).clip(0, _MAX_CROWD)
    best = (ious - penalties).argmax(axis=1)
    return [
        _Answer(region, logits[i, k], float(ious[i, k]), float(penalties[i, k]))
        for i, k in enumerate(best.tolist())
    ]


def _candidate(
    answer: _Answer,
    crop: Crop,
    point: NDArray[np.float64],
    foreground: NDArray[np.float32],
    mode: ProposalMode,
) -> Candidate | None:
    """Return the answer in plane pixels, unless it is too poor."""
    visible = answer.region.clip(foreground.shape)
    logits = answer.logits[: visible.height, : visible.width]
    inside = logits > 0
    stability = float(stability_scores(torch.from_numpy(logits)))
    if (
        answer.predicted_iou < mode.min_predicted_iou
        or stability < mode.min_stability
        or not inside.any()
        or foreground[visible.slices][inside].mean() < mode.min_foreground
    ):
        return None
    box, mask = _plane_mask(answer, inside, crop)
    y, x = point.tolist()
    candidate = Candidate(
        box=box,
        mask=mask,
        predicted_iou=answer.predicted_iou,
        stability=stability,
        point=(y, x),
        crop=crop.index,
        penalty=answer.penalty,
    )
    return candidate.with_mask(mask) if mask.any() else None


def _plane_mask(
    answer: _Answer, inside: NDArray[np.bool_], crop: Crop
) -> tuple[Box, NDArray[np.bool_]]:
    """Bring a mask to plane pixels, around its positive logits and nowhere else.

    Bilinear like `Sam.upscale`, in one step instead of two: for thousands of small
    objects whole crops would have to be interpolated.
    """
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(0))
    # one cell more on each side: interpolation reaches half way to it
    first = np.array([rows[0] - 1, columns[0] - 1, rows[-1] + 2, columns[-1] + 2])
    offset = np.array([answer.region.y0, answer.region.x0])
    edges = crop.boxes_to_plane((first + np.tile(offset, 2)) * _CELL)[0]
    y0, x0 = np.floor(edges[:2]).astype(int).tolist()
    y1, x1 = np.ceil(edges[2:]).astype(int).tolist()
    box = Box(
        max(y0, crop.box.y0),
        max(x0, crop.box.x0),
        min(y1, crop.box.y1),
        min(x1, crop.box.x1),
    )
    centres = np.zeros((max(box.shape), 2))
    centres[: box.height, 0] = np.arange(box.y0, box.y1)
    centres[: box.width, 1] = np.arange(box.x0, box.x1)
    places = (crop.to_input(centres) + 0.5) / _CELL - 0.5 - offset
    upscaled = _interpolate(answer.logits, places[: box.height, 0], axis=0)
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
