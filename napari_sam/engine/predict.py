"""From prompts to masks: which crop answers, which of three masks is the best.

Prompts go to the crop in which they lie most central. Where that crop does not hold
all of them, a crop is made around them, at a smaller scale if it has to be. A click
on an embedded crop costs one call of the decoder and nothing of the encoder.

A mask is where the logit is above 0, at the resolution of the plane.

Our own network is asked in a window around the prompts (`napari_sam.engine.windows`),
as it was trained: a click takes half the CPU time, the first on a crop a ninth, and
one click hits a little better. Where an answer reaches the edge of its window a larger
one is asked, in the end the crop.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from napari_sam.engine.box_level import fill_boxes
from napari_sam.engine.cores import cut_evenly, side_by_side
from napari_sam.engine.enlarge import (
    Drawn,
    extent,
    input_logits,
    over_one_box,
    plane_mask,
    unscaled_mask,
)
from napari_sam.engine.fingerprint import encoder_digest
from napari_sam.engine.jobs import device_errors
from napari_sam.engine.windows import (
    PATCH,
    prepare_windows,
    reach_edge,
    window_side,
)
from napari_sam.errors import InputError, NapariSamWarning
from napari_sam.masks import stability_scores
from napari_sam.model import Sam
from napari_sam.model.affinity import CELL
from napari_sam.prompts import Prompts
from napari_sam.prompts.network import alike, points_to_input, to_input
from napari_sam.tiling import Box, Crop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.model import PreparedEmbedding
    from napari_sam.model.affinity import Details

T = TypeVar("T")

# Crops of which a predictor keeps what prompts share: about 6 MB of details each, 20 MB
# with what prompts without a mask share.
_KEPT_CROPS = 2

# A window has at least so many times the extent of what prompts speak of (ours).
_ROOM = 2

# Logit of what lies beyond a window: surely not the object.
_BEYOND = -10.0

# Cells of embeddings decoded at once. On a CPU more than four whole crops no longer
# fit its caches: eight take half as long again for each object (measured).
_CPU_CELLS, _GPU_CELLS = 4 * 64**2, 32 * 64**2
_MAX_CPU_BATCH = 16


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The masks that the model offers for one object.

    Parameters
    ----------
    masks : (K, h, w) array of bool
        One or three masks, over `box`.
    predicted_iou : (K,) float32 array
        The model's own estimate of each mask's IoU with the object.
    stability : (K,) float32 array
        Stability score of each mask, 0 to 1.
    box : Box
        The region that the masks cover, in plane pixels; outside they are empty.
    best : int
        The mask with the highest predicted IoU.
    logits : (K, m, m) float32 array
        Output of the decoder, to be given back as `Prompts.mask`.
    crop : Crop
        The crop that answered; `logits` speak of it and of no other.
    """

    masks: NDArray[np.bool_]
    predicted_iou: NDArray[np.float32]
    stability: NDArray[np.float32]
    box: Box
    best: int
    logits: NDArray[np.float32]
    crop: Crop

    def plane_mask(
        self, shape: tuple[int, int], index: int | None = None
    ) -> NDArray[np.bool_]:
        """Return a mask over the whole plane.

        Parameters
        ----------
        shape : tuple of int
            (height, width) of the plane, in pixels.
        index : int, optional
            Which of the masks. Default: the best.

        Returns
        -------
        (height, width) array of bool
        """
        plane = np.zeros(shape, bool)
        plane[self.box.slices] = self.masks[self.best if index is None else index]
        return plane


@dataclass(slots=True, eq=False)
class _Shared:
    """What prompts on a whole crop share; the last, those without a mask."""

    embedding: Tensor
    placed: Tensor  # in the frame
    details: Details | None
    prepared: PreparedEmbedding | None = None


class Predictor:
    """Answers prompts on one plane.

    Parameters
    ----------
    model : Sam
        The network that decodes.
    embedding : PlaneEmbedding
        From `embed`, or from `open_plane` to encode crops on demand.

    Raises
    ------
    InputError
        If the embedding comes from another encoder, or is none.
    """

    def __init__(self, model: Sam, embedding: PlaneEmbedding) -> None:
        if not isinstance(model, Sam):
            raise InputError(f"model {model!r}; give what load_model returns")
        if not hasattr(embedding, "grid"):
            raise InputError(
                f"an embedding of type {type(embedding).__name__}; give what "
                "run(embed(image, model)) or open_plane(image, model) returns"
            )
        if model is not embedding.model and (
            encoder_digest(model) != encoder_digest(embedding.model)
        ):
            raise InputError(
                f"the embedding was made by {embedding.model.name!r}, whose encoder is "
                f"not that of {model.name!r}; embed the plane with this model"
            )
        self.model = model
        self.embedding = embedding
        self._shared: OrderedDict[Crop, _Shared] = OrderedDict()

    def predict(
        self,
        prompts: Prompts,
        *,
        multimask: bool | None = None,
        crop: Crop | None = None,
    ) -> Prediction:
        """Find one object.

        Parameters
        ----------
        prompts : Prompts
            Points, box and mask of the object.
        multimask : bool, optional
            Three masks instead of one. Default: three for a single point, which
            may mean a part as well as the whole; one for more prompts (Kirillov
            et al. 2023, section 3, "Resolving ambiguity").
        crop : Crop, optional
            The crop that shall answer; with a mask prompt that of the earlier
            answer. Default: the one in which the prompts lie most central.

        Returns
        -------
        Prediction

        Raises
        ------
        InputError
            If there is no prompt, or one lies outside the plane.
        DeviceError
            If the device runs out of memory.

        Warns
        -----
        NapariSamWarning
            If a box leaves the plane; the part inside counts.
        """
        return self.predict_many([prompts], multimask=multimask, crop=crop)[0]

    def predict_many(
        self,
        prompts: Sequence[Prompts],
        *,
        multimask: bool | None = None,
        crop: Crop | None = None,
    ) -> list[Prediction]:
        """Find several objects; those of one crop share calls of the decoder.

        Parameters
        ----------
        prompts : sequence of Prompts
            One for each object.
        multimask, crop
            As in `predict`, for all objects.

        Returns
        -------
        list of Prediction
            In the order of the prompts.
        """
        if isinstance(prompts, Prompts):
            raise InputError("one Prompts; give a list of them, or use predict")
        checked = [self._checked(each) for each in prompts]
        by_crop: dict[Crop, list[int]] = {}
        for i, each in enumerate(checked):
            place = self.crop_for(each) if crop is None else crop
            by_crop.setdefault(place, []).append(i)
        answers: dict[int, Prediction] = {}
        for place, members in by_crop.items():
            asked = [checked[i] for i in members]
            found = self._ask(asked, place, multimask, partial(self.answer, crop=place))
            answers |= dict(zip(members, found, strict=True))
        return [answers[i] for i in range(len(checked))]

    def crop_for(self, prompts: Prompts) -> Crop:
        """Choose the crop that answers.

        Parameters
        ----------
        prompts : Prompts
            Prompts of one object, inside the plane.

        Returns
        -------
        Crop
            Of the grid, or made around the positive prompts if the one in which
            they lie most central does not hold them all.
        """
        height, width = self.embedding.grid.shape
        y, x = prompts.centre
        central = self.embedding.grid.crop_at(
            min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        )
        region = needed(prompts).clip((height, width))
        if central.box.contains(region):
            return central
        return self.embedding.crop_around(region)

    def _checked(self, prompts: Prompts) -> Prompts:
        if not isinstance(prompts, Prompts):
            raise InputError(
                f"prompts of type {type(prompts).__name__}; give Prompts(points=[[y, x"
                "]]), or Prompts(boxes=[y0, x0, y1, x1])"
            )
        shape, size = self.embedding.grid.shape, self.model.config.mask_size
        if prompts.is_empty:
            raise InputError(
                "neither a point nor a box was given; give one (a mask alone is not "
                "enough)"
            )
        if prompts.mask is not None and prompts.mask.shape != (size, size):
            raise InputError(
                f"mask of shape {prompts.mask.shape}; give the logits of an earlier "
                f"answer, ({size}, {size})"
            )
        reports = prompts.out_of_bounds(shape)
        if not reports:
            return prompts
        boxes = prompts.boxes.clip(0, np.array([*shape, *shape], np.float32))
        box_is_lost = (boxes[:, 2:] <= boxes[:, :2]).any()
        points = Prompts(prompts.points, prompts.positive)
        if box_is_lost or points.out_of_bounds(shape):
            raise InputError(f"{'; '.join(reports)}; give prompts inside the plane")
        warnings.warn(
            f"{reports[0]}; the part inside counts", NapariSamWarning, stacklevel=5
        )
        return _with(prompts, boxes=boxes)

    def decode(
        self, prompts: Sequence[Prompts], crop: Crop, multimask: bool | None = None
    ) -> list[tuple[Tensor, Tensor]]:
        """Ask the decoder about several objects of one crop.

        Parameters
        ----------
        prompts : sequence of Prompts
            One for each object, inside the plane.
        crop, multimask
            As in `predict`.

        Returns
        -------
        list of (logits, predicted_iou)
            Tensors (K, m, m) and (K,) on the model's device, in the order of the
            prompts.
        """
        return self._ask(
            prompts,
            crop,
            multimask,
            lambda logits, predicted_iou: (logits, predicted_iou),
        )

    def _ask(
        self,
        prompts: Sequence[Prompts],
        crop: Crop,
        multimask: bool | None,
        finish: Callable[[Tensor, Tensor], T],
    ) -> list[T]:
        """Ask the decoder; return what is made of the answer to each of the prompts."""
        seen = [_seen(each, crop) for each in prompts]
        found: dict[int, T] = {}
        whole, device = self.model.config.embedding_size, self.model.device
        for group in alike(seen):
            sides = {i: self._side(seen[i], crop) for i in group}
            has_masks = seen[group[0]].mask is not None
            while sides:
                side = min(sides.values())
                members = [i for i in sides if sides[i] == side]
                most = decoder_batch((side, side), device)
                batches = [members[p] for p in cut_evenly(len(members), most, device)]
                ask = partial(
                    self._decode,
                    source=self._share(crop, has_masks=has_masks)
                    if side == whole
                    else self.embedding.of(crop),
                    crop=crop,
                    multimask=multimask,
                    side=side,
                    finish=finish,
                )
                asked = [[seen[i] for i in batch] for batch in batches]
                answered = side_by_side(ask, asked, device)
                for batch, answers in zip(batches, answered, strict=True):
                    for i, answer in zip(batch, answers, strict=True):
                        if answer is None:
                            sides[i] = min(2 * side, whole)
                        else:
                            del sides[i]
                            found[i] = answer
        return [found[i] for i in range(len(seen))]

    def _side(self, prompts: Prompts, crop: Crop) -> int:
        """Return the side of the window to ask first, in cells."""
        whole, side = self.model.config.embedding_size, window_side(self.model)
        if prompts.has_box and prompts.mask is None:
            return whole  # hits better (IoU 0.005 on nuclei)
        y0, x0, y1, x1 = _around(prompts, crop).tolist()
        while side < whole and PATCH * side < _ROOM * max(y1 - y0, x1 - x0):
            side *= 2
        return min(side, whole)

    @torch.inference_mode()
    def _decode(
        self,
        prompts: Sequence[Prompts],
        source: Tensor | _Shared,
        crop: Crop,
        multimask: bool | None,
        side: int,
        finish: Callable[[Tensor, Tensor], T],
    ) -> list[T | None]:
        """Decode a batch of objects whose prompts are alike, in windows of a side.

        The source is the embedding of the crop, or, for windows that are the whole
        crop, what prompts on it share. Several threads may be here at once.

        Returns
        -------
        list
            What `finish` makes of logits (K, m, m), of the whole frame, and predicted
            IoU (K,); None where an answer would go on beyond its window.
        """
        first = prompts[0]
        if multimask is None:
            multimask = first.n_points == 1 and not first.has_box and first.mask is None
        with device_errors():
            points, labels, boxes, masks = to_input(prompts, crop, self.model.device)
            if not isinstance(source, _Shared):
                corners = [_corner(each, crop, side) for each in prompts]
                if masks is not None:
                    masks = _cut(masks, corners, side)
                prepared, shifts = prepare_windows(
                    self.model, source, corners, side, masks=masks
                )
                points = points if points is None else points + shifts[:, None]
                boxes = boxes if boxes is None else boxes + shifts.repeat(1, 2)
            elif masks is None and source.prepared is not None:
                prepared = source.prepared
            else:
                prepared = self.model.prepare(
                    source.placed, masks=masks, details=source.details
                )
            logits, predicted_iou = self.model.decode(
                prepared,
                points=points,
                labels=labels,
                boxes=boxes,
                multimask=multimask,
            )
            is_cut = np.zeros(len(prompts), bool)
            if not isinstance(source, _Shared):
                origins = np.array(corners) * (PATCH // CELL)
                shape = [-(-n // CELL) for n in crop.input_shape]
                inside = (logits > 0).any(dim=1).cpu().numpy()
                is_cut = reach_edge(inside, origins, shape)
                logits = _on_frame(logits, origins, self.model.config.mask_size)
            # published weights answer as published; an earlier mask has its size
            if boxes is not None and masks is None and self.model.has_votes:
                edges = np.concatenate([each.boxes for each in prompts])
                logits = fill_boxes(logits, torch.from_numpy(edges), crop)
        return [
            None if is_cut[i] else finish(logits[i], predicted_iou[i])
            for i in range(len(prompts))
        ]

    @torch.inference_mode()
    def _share(self, crop: Crop, *, has_masks: bool) -> _Shared:
        """Return what prompts on a whole crop share, kept of the last few crops."""
        embedding = self.embedding.of(crop)
        kept = self._shared.pop(crop, None)
        with device_errors():
            if kept is None or kept.embedding is not embedding:
                placed = self.model.place(embedding)
                kept = _Shared(embedding, placed, self.model.details(placed))
            if kept.prepared is None and not has_masks:
                kept.prepared = self.model.prepare(kept.placed, details=kept.details)
        self._shared[crop] = kept
        while len(self._shared) > _KEPT_CROPS:
            self._shared.popitem(last=False)
        return kept

    @torch.inference_mode()
    def answer(self, logits: Tensor, predicted_iou: Tensor, crop: Crop) -> Prediction:
        """Bring the masks of one object to the plane.

        Parameters
        ----------
        logits : (K, m, m) tensor
            From `decode`.
        predicted_iou : (K,) tensor
            From `decode`.
        crop : Crop
            The crop that was asked.
        """
        with device_errors():
            host = logits.cpu().numpy()
            if crop.scale == (1.0, 1.0):
                found = [unscaled_mask(each, crop) for each in host]
            else:
                found = [_scaled_mask(each, crop) for each in logits]
        box, masks = over_one_box([(each.box, each.mask) for each in found])
        return Prediction(
            masks=masks,
            predicted_iou=predicted_iou.cpu().numpy(),
            stability=np.array([each.stability for each in found], np.float32),
            box=box,
            best=int(predicted_iou.argmax()),
            logits=host,
            crop=crop,
        )


def _scaled_mask(logits: Tensor, crop: Crop) -> Drawn:
    """Bring one mask, (m, m), to a plane whose pixels are not those of the frame."""
    # the stability score asks how much of the frame lies above -1
    origin, part = input_logits(logits, crop.input_shape, -1.0)
    box, mask = plane_mask(part, crop, origin)
    return Drawn(box, mask, float(stability_scores(part)))


def _around(prompts: Prompts, crop: Crop) -> NDArray[np.float64]:
    """Return what prompts speak of, (y0, x0, y1, x1), in pixels of the frame."""
    boxes = crop.boxes_to_input(prompts.boxes)
    ends = [crop.to_input(prompts.points), boxes[:, :2], boxes[:, 2:]]
    if prompts.mask is not None and (prompts.mask > 0).any():
        held = extent(prompts.mask > 0)
        ends.append(CELL * np.array([[held.y0, held.x0], [held.y1, held.x1]]))
    places = np.concatenate(ends)
    return np.concatenate([places.min(axis=0), places.max(axis=0)])


def _corner(prompts: Prompts, crop: Crop, side: int) -> tuple[int, int]:
    """Return the first row and column of a window around prompts, in cells."""
    y0, x0, y1, x1 = _around(prompts, crop).tolist()
    row, column = (
        min(max(int((first + last) / 2 // PATCH) - side // 2, 0), max(n - side, 0))
        for first, last, n in zip(
            (y0, x0), (y1, x1), (-(-n // PATCH) for n in crop.input_shape), strict=True
        )
    )
    return row, column


def _cut(masks: Tensor, corners: Sequence[tuple[int, int]], side: int) -> Tensor:
    """Cut a window out of each of (N, 1, m, m) logits; corners and side in cells."""
    n = PATCH // CELL
    parts = [
        mask[None, :, n * row : n * (row + side), n * column : n * (column + side)]
        for mask, (row, column) in zip(masks, corners, strict=True)
    ]
    return torch.cat(parts)


def _on_frame(logits: Tensor, origins: NDArray[np.int64], size: int) -> Tensor:
    """Put windows (N, K, h, w) of logits where they belong, (N, K, size, size)."""
    frame = logits.new_full((*logits.shape[:2], size, size), _BEYOND)
    height, width = logits.shape[2:]
    for i, (y, x) in enumerate(origins.tolist()):
        frame[i, :, y : y + height, x : x + width] = logits[i]
    return frame


def needed(prompts: Prompts) -> Box:
    """Return the pixels that a crop must hold to answer.

    Parameters
    ----------
    prompts : Prompts
        Prompts of one object.

    Returns
    -------
    Box
        Around all positive points and the box; without either around all points.
        Plane pixels, not clipped.
    """
    points = prompts.points
    if prompts.positive.any() or prompts.has_box:
        points = points[prompts.positive]
    # a point lies in the pixel whose centre is nearest
    first = np.concatenate([np.floor(points + 0.5), np.floor(prompts.boxes[:, :2])])
    last = np.concatenate([np.floor(points + 1.5), np.ceil(prompts.boxes[:, 2:])])
    (y0, x0), (y1, x1) = first.min(axis=0).tolist(), last.max(axis=0).tolist()
    return Box(int(y0), int(x0), int(y1), int(x1))


def decoder_batch(size: Sequence[int], device: torch.device) -> int:
    """Return how many prompts are best decoded at once.

    Parameters
    ----------
    size : sequence of two int
        Rows and columns of the embedding, or of the part that is looked at, in cells.
    device : torch.device
        Where it lies.

    Returns
    -------
    int
        Without influence on the answers.
    """
    n_cells = size[0] * size[1]
    if device.type == "cpu":
        # of small windows as many as have the cells of one crop
        most = max(_MAX_CPU_BATCH, 64**2 // n_cells)
        return min(max(1, _CPU_CELLS // n_cells), most)
    return max(1, _GPU_CELLS // n_cells)


@torch.inference_mode()
def decode_points(
    model: Sam,
    embedding: PreparedEmbedding,
    crop: Crop,
    points: NDArray[np.float64],
    worth: float | None = None,
    shifts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Ask for the object at each of many single points.

    Parameters
    ----------
    model : Sam
        The network that decodes.
    embedding : PreparedEmbedding
        Of the crop, or a window of it of (h, w) cells.
    crop : Crop
        Where the crop lies.
    points : (N, 2) array, (y, x), plane pixels
    worth : float, optional
        As for `Sam.decode`.
    shifts : (N, 2) tensor, (x, y), input pixels, optional
        By how much the embedding of each point was moved in the frame.

    Returns
    -------
    logits : (N, 3, 4 * h, 4 * w) tensor
    predicted_iou : (N, 3) tensor

    Raises
    ------
    DeviceError
        If the device runs out of memory.
    """
    inputs, labels = points_to_input(points, crop, model.device)
    if shifts is not None:
        inputs = inputs + shifts[:, None]
    with device_errors():
        return model.decode(
            embedding, points=inputs, labels=labels, multimask=True, worth=worth
        )


def _seen(prompts: Prompts, crop: Crop) -> Prompts:
    """Leave out what the crop does not show: negative points, the rest of a box."""
    y0, x0, y1, x1 = crop.box.y0, crop.box.x0, crop.box.y1, crop.box.x1
    edges = np.array([[y0, x0], [y1, x1]])
    low, high = prompts.points >= edges[0] - 0.5, prompts.points <= edges[1] - 0.5
    inside = low.all(1) & high.all(1)
    boxes = np.clip(prompts.boxes, [y0, x0, y0, x0], [y1, x1, y1, x1])
    if inside.all() and (boxes == prompts.boxes).all():
        return prompts
    if prompts.positive[~inside].any() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise InputError(
            f"a positive point of {prompts.points.tolist()} or box of "
            f"{prompts.boxes.tolist()} lies outside the crop {crop.box}; let the crop "
            "be chosen, or move the prompt"
        )
    return _with(prompts, boxes=boxes, keep=inside)


def _with(
    prompts: Prompts,
    *,
    boxes: NDArray[np.float32] | None = None,
    keep: NDArray[np.bool_] | None = None,
) -> Prompts:
    chosen = slice(None) if keep is None else keep
    return Prompts(
        prompts.points[chosen],
        prompts.positive[chosen],
        prompts.boxes if boxes is None else boxes,
        prompts.mask,
        prompts.object_id,
    )
