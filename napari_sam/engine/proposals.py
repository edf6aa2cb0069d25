"""Objects of one crop by way of the proposal head (mode "proposals"; ours).

The head sees every object at once, but coarsely and without telling neighbours
apart for certain. Its peaks become point prompts: one question for each object, well
placed, instead of a thousand on a grid. The decoder answers in a window around each
prompt: most of its work grows with the area that it looks at, and a cell does not
need the whole crop. The prompt lies in the middle of its window, wherever it lies in
the crop, and of our own network the window lies in the middle of the frame, so that
another crop is asked the same: what is decoded depends on where it is said to lie.
Where an answer reaches the edge of its window a larger one is asked, at last the crop.

Candidates may still overlap; `napari_sam.stitch` resolves that.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from functools import partial
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from scipy import ndimage

from napari_sam.engine.cores import cut_evenly, side_by_side
from napari_sam.engine.jobs import device_errors
from napari_sam.engine.predict import decode_points, decoder_batch
from napari_sam.engine.votes import find_meetings
from napari_sam.engine.windows import (
    PATCH,
    prepare_windows,
    reach_edge,
    window_side,
)
from napari_sam.errors import InputError
from napari_sam.masks import Candidate, stability_scores
from napari_sam.model.affinity import CELL
from napari_sam.model.proposal_head import ProposalHead
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.model import PreparedEmbedding, Sam
    from napari_sam.model.affinity import Details
    from napari_sam.tiling import Crop

# Difference of predicted IoU at which the worse of two masks counts 1 / e as much in
# their mean (ours). Of tiled against untiled, AP at IoU 0.9 rises from 0.82 to 0.91
# (144 nuclei) and from 0.84 to 0.88 (115 T98G cells), at an equal quality of either;
# 0.01 gives 0.92 and 0.89, but 0.007 less mSA on an image from outside.
_CLOSE = 0.005

# Rounds of `_flooded` between two looks at whether anything still changes.
_ROUNDS = 8

# Size of an object (root of its area, as it is voted for) below which half of the usual
# window is enough to begin with, in sides of that window: 48 px.
_SMALL = 3 / 16

# How far from its peak an object may reach: so many of its sizes (root of its area, as
# it is voted for) and input px more (ours). A disc reaches 0.56, an ellipse of four to
# one 1.13.
_REACH, _REACH_PX = 1.0, 16

# Further peaks in a mask that count against it; more say nothing new.
_MAX_CROWD = 3


@dataclass(frozen=True, slots=True)
class ProposalMode:
    """One prompt for each object that the proposal head sees (ours).

    Parameters
    ----------
    foreground : float, default 0.5
        Foreground probability from which a place may be part of an object.
    min_share : float, default 0.4
        Share of an object's places that must vote for one centre; for weights with
        votes (the default model's; see `napari_sam.engine.votes`).
    smoothing : float, default 0.7
        Standard deviation, in map cells of 4 input pixels, by which the map of
        centres is smoothed before its peaks are taken; for weights without votes.
    min_prominence : float, default 0.05
        How far a peak must rise above the way to any higher one, 0 to 1; likewise.
    crowding : float, default 0.1
        How much less a mask is worth for each further peak that it holds, up to
        three: a mask over several peaks is more likely a group than an object.
    window : int, optional
        Side of the part of the crop that answers a prompt first, in input pixels.
        Default: 256 for our own network, which is trained on such parts, and 128 for
        objects of less than 48 px; the whole crop for others.
    batch : int, optional
        Points decoded at once; without influence on the result. Default: what is
        fast on the device.
    min_predicted_iou : float, default 0.35
        Masks of which the model expects less are dropped.
    min_stability : float, default 0.2
        Masks with a lower stability score are dropped.
    min_foreground : float, default 0.5
        Masks whose mean foreground probability is lower are dropped.

    Raises
    ------
    InputError
        If a number is out of range.
    """

    foreground: float = 0.5
    min_share: float = 0.4
    smoothing: float = 0.7
    min_prominence: float = 0.05
    crowding: float = 0.1
    window: int | None = None
    batch: int | None = None
    min_predicted_iou: float = 0.35
    min_stability: float = 0.2
    min_foreground: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.foreground < 1:
            raise InputError(f"foreground {self.foreground}; give a value from 0 to 1")
        if min(self.smoothing, self.min_prominence, self.min_share) < 0:
            raise InputError(
                f"smoothing {self.smoothing}, min_prominence {self.min_prominence}, "
                f"min_share {self.min_share}; none may be negative"
            )
        if self.batch is not None and self.batch < 1:
            raise InputError(f"batch {self.batch}; use 1 or more")
        if self.window is not None and self.window < 3 * PATCH:
            raise InputError(f"window {self.window} px; use {3 * PATCH} px or more")


def proposal_candidates(
    model: Sam, embedding: Tensor, crop: Crop, mode: ProposalMode
) -> Generator[None, None, list[Candidate]]:
    """Ask once for each peak of the proposal head.

    Parameters
    ----------
    model : Sam
        A network with a proposal head.
    embedding : (1, C', e, e) tensor
        Embedding of the crop, as `Sam.encode` returns it.
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
    height, width = (-(-n // CELL) for n in crop.input_shape)
    with torch.inference_mode(), device_errors():
        proposed, windows = _Windows.of(model, embedding)
        maps = proposed[0, :, :height, :width].cpu().numpy()
    votes = None if windows.details is None else windows.details.votes
    sizes = None
    if votes is None:
        peaks = find_peaks(maps, mode)
    else:
        seen = votes[0, :3, :height, :width].float().cpu().numpy()
        peaks = find_meetings(maps[0] > mode.foreground, seen, mode.min_share)
        sizes = seen[2, peaks[:, 0], peaks[:, 1]]
    points = crop.to_plane((peaks + 0.5) * CELL - 0.5)
    frame = _Frame.of(crop, maps[0])
    found: dict[int, Candidate | None] = {}
    whole = model.config.embedding_size
    first = _first_sides(model, mode, sizes, len(peaks))

    def ask(batch: list[int], side: int) -> tuple[list[bool], list[Candidate | None]]:
        corners = _corners(peaks[batch], maps.shape[1:], side)
        part, shifts = windows.prepare(corners, side)
        logits, ious = decode_points(model, part, crop, points[batch], shifts=shifts)
        answers = _Answers.best(logits, ious, corners, peaks, maps.shape[1:], mode)
        is_cut = reach_edge(answers.logits > 0, answers.origins, maps.shape[1:])
        return is_cut.tolist(), [
            None if is_cut[i] else answers.candidate(i, points[k], frame, mode)
            for i, k in enumerate(batch)
        ]

    is_asked = ~_are_far(crop, peaks, sizes)
    beyond: list[int] = []
    for side in sorted({*first.tolist(), _window(model, mode), whole}):
        asked = sorted([*beyond, *np.flatnonzero(is_asked & (first == side)).tolist()])
        beyond = []
        if not asked:
            continue
        windows.share(side)
        n = mode.batch or decoder_batch((side, side), model.device)
        batches = [asked[part] for part in cut_evenly(len(asked), n, model.device)]
        answered = side_by_side(partial(ask, side=side), batches, model.device)
        for batch, (is_cut, candidates) in zip(batches, answered, strict=True):
            found |= dict(zip(batch, candidates, strict=True))
            beyond += [k for k, cut in zip(batch, is_cut, strict=True) if cut]
            yield
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
    seed = rimmed - np.float32(max(mode.min_prominence, 1e-6))
    tops = (_flooded(seed, rimmed) == seed)[1:-1, 1:-1] & inside
    regions, n_regions = ndimage.label(tops, np.ones((3, 3)))
    y, x = np.nonzero(regions)
    numbers = regions[y, x]
    # highest first, then the first from the top: its region's place
    order = np.lexsort((x, y, -landscape[y, x], numbers))
    first = order[np.searchsorted(numbers[order], np.arange(1, n_regions + 1))]
    places = np.stack([y, x], axis=1)[first]
    return places[np.lexsort(places.T[::-1])]


def _flooded(
    seed: NDArray[np.float32], ground: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Let a seed spread to neighbours as far as the ground is high.

    The geodesic dilation of `skimage.morphology.reconstruction`, in whole rows: the
    sorting of all pixels there takes longer than the few dozen rounds here.
    """
    level = np.minimum(seed, ground)
    while True:
        before = level
        for _ in range(_ROUNDS):
            rows = level.copy()
            np.maximum(rows[1:], level[:-1], out=rows[1:])
            np.maximum(rows[:-1], level[1:], out=rows[:-1])
            level = rows.copy()
            np.maximum(level[:, 1:], rows[:, :-1], out=level[:, 1:])
            np.maximum(level[:, :-1], rows[:, 1:], out=level[:, :-1])
            np.minimum(level, ground, out=level)
        if np.array_equal(level, before):
            return level


@dataclass(frozen=True, slots=True, eq=False)
class _Answers:
    """Best mask of each of N prompts, over its part of the map.

    Attributes
    ----------
    origins : (N, 2) int64 array
        First row and column of each part, map cells.
    logits : (N, h, w) float32 array
    predicted_iou, stability, penalties : (N,) array
    """

    origins: NDArray[np.int64]
    logits: NDArray[np.float32]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    penalties: NDArray[np.float64]

    @classmethod
    def best(
        cls,
        logits: Tensor,
        ious: Tensor,
        corners: NDArray[np.int64],
        peaks: NDArray[np.int64],
        shape: tuple[int, ...],
        mode: ProposalMode,
    ) -> Self:
        """Choose among the three masks of each prompt, with an eye on other peaks.

        Masks that are worth nearly the same are mixed by `_CLOSE`: another crop, or
        another kind of rounding, would choose another one of them.
        """
        origins = corners * (PATCH // CELL)
        y, x = np.moveaxis(peaks - origins[:, None], 2, 0)  # (N, P) each
        height, width = logits.shape[2:]
        is_seen = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        at = torch.from_numpy(y.clip(0, height - 1) * width + x.clip(0, width - 1))
        at = at[:, None].expand(-1, logits.shape[1], -1).to(logits.device)
        values = logits.flatten(2).gather(2, at).cpu().numpy()
        held = ((values > 0) & is_seen[:, None]).sum(axis=2)
        # one peak is its own
        penalties = mode.crowding * (held - 1).clip(0, _MAX_CROWD)
        scores = ious.cpu().numpy()
        worth = scores - penalties
        best = worth.argmax(axis=1)
        rows = np.arange(len(best))
        shares = torch.softmax(torch.from_numpy(worth / _CLOSE), 1).to(logits)
        chosen = (shares[:, :, None, None] * logits).sum(1).cpu().numpy()
        seen = chosen
        beyond = np.flatnonzero((origins + chosen.shape[1:] > shape).any(axis=1))
        if len(beyond):  # padding of the frame is no part of a mask
            seen = chosen.copy()
            for i in beyond.tolist():
                y1, x1 = shape - origins[i]
                seen[i, y1:] = seen[i, :, x1:] = -np.inf
        stability = stability_scores(torch.from_numpy(seen)).numpy()
        return cls(
            origins, chosen, scores[rows, best], stability, penalties[rows, best]
        )

    def candidate(
        self, i: int, point: NDArray[np.float64], frame: _Frame, mode: ProposalMode
    ) -> Candidate | None:
        """Return one answer in plane pixels, unless it is too poor."""
        predicted_iou, stability = (
            float(self.predicted_iou[i]),
            float(self.stability[i]),
        )
        if predicted_iou < mode.min_predicted_iou or stability < mode.min_stability:
            return None
        y0, x0 = self.origins[i].tolist()
        foreground = frame.foreground[y0:, x0:][: self.logits.shape[1]]
        foreground = foreground[:, : self.logits.shape[2]]
        logits = self.logits[i, : foreground.shape[0], : foreground.shape[1]]
        inside = logits > 0
        if not inside.any() or foreground[inside].mean() < mode.min_foreground:
            return None
        box, mask = frame.plane_mask(self.logits[i], inside, (y0, x0))
        y, x = point.tolist()
        candidate = Candidate(
            box=box,
            mask=mask,
            predicted_iou=predicted_iou,
            stability=stability,
            point=(y, x),
            crop=frame.crop,
            penalty=float(self.penalties[i]),
        )
        return candidate.with_mask(mask) if mask.any() else None


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    """How the maps of a crop lie in the plane.

    Attributes
    ----------
    crop : int
        Number of the crop.
    box : Box
        The crop, plane pixels.
    foreground : (h, w) float32 array
        The first map.
    rows, columns : (H,), (W,) float64 array
        Where the rows and columns of the plane in `box` lie, map cells.
    """

    crop: int
    box: Box
    foreground: NDArray[np.float32]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]

    @classmethod
    def of(cls, crop: Crop, foreground: NDArray[np.float32]) -> Self:
        """Find out where each row and column lies."""
        box = crop.box
        centres = np.zeros((max(box.shape), 2))
        centres[: box.height, 0] = np.arange(box.y0, box.y1)
        centres[: box.width, 1] = np.arange(box.x0, box.x1)
        rows, columns = ((crop.to_input(centres) + 0.5) / CELL - 0.5).T
        return cls(
            crop.index, box, foreground, rows[: box.height], columns[: box.width]
        )

    def plane_mask(
        self,
        logits: NDArray[np.float32],
        inside: NDArray[np.bool_],
        origin: tuple[int, int],
    ) -> tuple[Box, NDArray[np.bool_]]:
        """Bring a mask to plane pixels, around its positive logits and nowhere else.

        Bilinear like `Sam.upscale`, in one step instead of two: for thousands of small
        objects whole crops would have to be interpolated.
        """
        values, spans = logits, []
        for axis, places in enumerate((self.rows, self.columns)):
            held = np.flatnonzero(inside.any(axis=1 - axis))
            # one cell more on each side: interpolation reaches as far
            first, last = max(int(held[0]) - 1, 0), int(held[-1]) + 2
            around = np.array([held[0] - 1, held[-1] + 1]) + origin[axis]
            start, stop = np.searchsorted(places, around).tolist()
            values = values[first:last] if axis == 0 else values[:, first:last]
            offset = origin[axis] + first
            values = _interpolate(values, places[start:stop] - offset, axis)
            spans.append((start, stop))
        (y0, y1), (x0, x1) = spans
        return Box(y0, x0, y1, x1).shift(self.box.y0, self.box.x0), values > 0


def _window(model: Sam, mode: ProposalMode) -> int:
    """Return the side of a window, in patches of the embedding."""
    if mode.window is not None:
        return min(mode.window // PATCH, model.config.embedding_size)
    return window_side(model)


def _first_sides(
    model: Sam, mode: ProposalMode, sizes: NDArray[np.float32] | None, n: int
) -> NDArray[np.int64]:
    """Return in how large a window each prompt is asked first, (N,), in patches.

    Small objects are asked in a window of half the side, for a quarter of the work.
    """
    usual = _window(model, mode)
    sides = np.full(n, usual)
    if sizes is not None and mode.window is None:
        sides[sizes < _SMALL * PATCH * usual] = usual // 2
    return sides


def _are_far(
    crop: Crop, peaks: NDArray[np.int64], sizes: NDArray[np.float32] | None
) -> NDArray[np.bool_]:
    """Tell which objects a crop need not answer for, (N,).

    What lies too far from the core to reach into it is left to the crop next door,
    which sees more of what is around it.
    """
    if sizes is None:
        return np.zeros(len(peaks), bool)
    y0, x0, y1, x1 = crop.boxes_to_input([astuple(crop.core)])[0]
    places = (peaks + 0.5) * CELL
    beside = np.maximum((y0, x0) - places, places - (y1, x1)).clip(0)
    return np.asarray(np.hypot(*beside.T) > _REACH * sizes + _REACH_PX)


def _corners(
    peaks: NDArray[np.int64], shape: tuple[int, ...], side: int
) -> NDArray[np.int64]:
    """Return the first row and column of the window of each peak, in patches.

    The peak's patch is in the middle, unless the window would leave the map.
    """
    last = [max(-(-n * CELL // PATCH) - side, 0) for n in shape]
    return (peaks * CELL // PATCH - side // 2).clip(0, last)


@dataclass(slots=True, eq=False)
class _Windows:
    """Parts of a crop, ready to be decoded.

    Attributes
    ----------
    model : Sam
    embedding, placed : (1, C', e, e), (1, C, e, e) tensor
        The crop, before and after it was placed in the frame.
    details : Details or None
        What the proposal head knows of it.
    whole : PreparedEmbedding, optional
        Of the crop; made by `share`.
    """

    model: Sam
    embedding: Tensor
    placed: Tensor
    details: Details | None
    whole: PreparedEmbedding | None = None

    @classmethod
    def of(cls, model: Sam, embedding: Tensor) -> tuple[Tensor, Self]:
        """Return the head's maps of a crop, too; its features serve both."""
        placed, head = model.place(embedding), model.proposal_head
        features = head.features(placed) if isinstance(head, ProposalHead) else None
        maps = model.propose(placed, features)
        details = model.details(placed, features=features)
        return maps, cls(model, embedding, placed, details)

    @torch.inference_mode()
    def share(self, side: int) -> None:
        """Make what windows of a side share, before several threads ask for them."""
        if self.whole is None and not self._are_moved(side):
            with device_errors():
                self.whole = self.model.prepare(self.placed, details=self.details)

    def _are_moved(self, side: int) -> bool:
        """Whether windows of a side are placed in the middle of the frame."""
        return side < self.embedding.shape[-1] and self.placed is not self.embedding

    @torch.inference_mode()
    def prepare(
        self, corners: NDArray[np.int64], side: int
    ) -> tuple[PreparedEmbedding, Tensor | None]:
        """Cut out windows, and place each in the middle of the frame if possible.

        Parameters
        ----------
        corners : (N, 2) int64 array
            First row and column of each, in cells.
        side : int
            In cells; `share` was called for it.

        Returns
        -------
        prepared : PreparedEmbedding
        shifts : (N, 2) float32 tensor or None
            By how much each was moved in the frame, (x, y), pixels.
        """
        places = [(row, column) for row, column in corners.tolist()]
        with device_errors():
            if self.whole is not None and not self._are_moved(side):
                return self.whole.windows(places, side), None
            return prepare_windows(
                self.model, self.embedding, places, side, details=self.details
            )


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
