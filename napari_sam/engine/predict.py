"""From prompts to masks: which crop answers, which of three masks is the best.

Prompts go to the crop in which they lie most central. Where that crop does not hold
all of them, a crop is made around them, at a smaller scale if it has to be. A click
on an embedded crop costs one call of the decoder and nothing of the encoder.

A mask is where the logit is above 0, at the resolution of the plane.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sam.engine.fingerprint import encoder_digest
from napari_sam.engine.jobs import device_errors
from napari_sam.errors import InputError, NapariSamWarning
from napari_sam.masks import boxes_of, stability_scores
from napari_sam.prompts import Prompts, alike, to_input
from napari_sam.tiling import Box, Crop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.model import Sam

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
        If the embedding comes from another encoder.
    """

    def __init__(self, model: Sam, embedding: PlaneEmbedding) -> None:
        if model is not embedding.model and (
            encoder_digest(model) != encoder_digest(embedding.model)
        ):
            raise InputError(
                f"the embedding was made by {embedding.model.name!r}, whose encoder is "
                f"not that of {model.name!r}; embed the plane with this model"
            )
        self.model = model
        self.embedding = embedding

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
        checked = [self._checked(each) for each in prompts]
        by_crop: dict[Crop, list[int]] = {}
        for i, each in enumerate(checked):
            place = self.crop_for(each) if crop is None else crop
            by_crop.setdefault(place, []).append(i)
        answers: dict[int, Prediction] = {}
        for place, members in by_crop.items():
            seen = [_seen(checked[i], place) for i in members]
            for group in alike(seen):
                found = self._decode([seen[i] for i in group], place, multimask)
                answers.update(zip((members[i] for i in group), found, strict=True))
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
        region = _extent(prompts).clip((height, width))
        if central.box.contains(region):
            return central
        return self.embedding.crop_around(region)

    def _checked(self, prompts: Prompts) -> Prompts:
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

    def _decode(
        self, prompts: Sequence[Prompts], crop: Crop, multimask: bool | None
    ) -> list[Prediction]:
        """Decode objects whose prompts are alike, in batches."""
        first = prompts[0]
        if multimask is None:
            multimask = first.n_points == 1 and not first.has_box and first.mask is None
        size = decoder_batch(self.embedding.of(crop))
        found: list[Prediction] = []
        for i in range(0, len(prompts), size):
            found += self._decode_batch(prompts[i : i + size], crop, multimask)
        return found

    @torch.inference_mode()
    def _decode_batch(
        self, prompts: Sequence[Prompts], crop: Crop, multimask: bool
    ) -> list[Prediction]:
        embedding = self.embedding.of(crop)
        with device_errors():
            points, labels, boxes, masks = to_input(prompts, crop, self.model.device)
            logits, predicted_iou = self.model.decode(
                embedding,
                points=points,
                labels=labels,
                boxes=boxes,
                masks=masks,
                multimask=multimask,
            )
            full = self.model.upscale(logits, crop.input_shape, crop.box.shape)
            stability = stability_scores(full).cpu().numpy()
            found = full > 0
            regions = boxes_of(found.any(dim=1)).tolist()
        ious = predicted_iou.cpu().numpy()
        predictions = []
        for i, (y0, x0, y1, x1) in enumerate(regions):
            # an empty mask still needs a place: one pixel of the crop
            region = Box(y0, x0, max(y1, y0 + 1), max(x1, x0 + 1))
            predictions.append(
                Prediction(
                    masks=found[i][:, *region.slices].cpu().numpy(),
                    predicted_iou=ious[i],
                    stability=stability[i],
                    box=region.shift(crop.box.y0, crop.box.x0),
                    best=int(ious[i].argmax()),
                    logits=logits[i].cpu().numpy(),
                    crop=crop,
                )
            )
        return predictions


def decoder_batch(embedding: Tensor) -> int:
    """Return how many prompts are best decoded at once on an embedding.

    Parameters
    ----------
    embedding : (1, C, h, w) tensor
        Of a crop, or a part of it.

    Returns
    -------
    int
        Without influence on the answers.
    """
    n_cells = embedding.shape[-2] * embedding.shape[-1]
    if embedding.device.type == "cpu":
        return min(max(1, _CPU_CELLS // n_cells), _MAX_CPU_BATCH)
    return max(1, _GPU_CELLS // n_cells)


@torch.inference_mode()
def decode_points(
    model: Sam,
    embedding: Tensor,
    crop: Crop,
    points: NDArray[np.float64],
    origin: tuple[int, int] = (0, 0),
) -> tuple[Tensor, Tensor]:
    """Ask for the object at each of many single points.

    Parameters
    ----------
    model : Sam
        The network that decodes.
    embedding : (1, C, h, w) tensor
        Embedding of the crop, or a part of it.
    crop : Crop
        Where the crop lies.
    points : (N, 2) array, (y, x), plane pixels
    origin : tuple of int
        Row and column of the part's first cell in the whole embedding.

    Returns
    -------
    logits : (N, 3, 4 * h, 4 * w) tensor
    predicted_iou : (N, 3) tensor

    Raises
    ------
    DeviceError
        If the device runs out of memory.
    """
    prompts = [Prompts(points=[point]) for point in points]
    tensors = to_input(prompts, crop, model.device)
    with device_errors():
        return model.decode(
            embedding,
            points=tensors.points,
            labels=tensors.labels,
            multimask=True,
            origin=origin,
        )


def _extent(prompts: Prompts) -> Box:
    """Return the pixels that all positive prompts need; without one, all prompts."""
    points = prompts.points
    if prompts.positive.any() or prompts.has_box:
        points = points[prompts.positive]
    # a point lies in the pixel whose centre is nearest
    first = np.concatenate([np.floor(points + 0.5), np.floor(prompts.boxes[:, :2])])
    last = np.concatenate([np.floor(points + 1.5), np.ceil(prompts.boxes[:, 2:])])
    (y0, x0), (y1, x1) = first.min(axis=0).tolist(), last.max(axis=0).tolist()
    return Box(int(y0), int(x0), int(y1), int(x1))


def _seen(prompts: Prompts, crop: Crop) -> Prompts:
    """Leave out negative points beside the crop, which say nothing about it."""
    y0, x0, y1, x1 = crop.box.y0, crop.box.x0, crop.box.y1, crop.box.x1
    edges = np.array([[y0, x0], [y1, x1]]) - 0.5
    inside = (prompts.points >= edges[0]).all(1) & (prompts.points <= edges[1]).all(1)
    if inside.all():
        return prompts
    if prompts.positive[~inside].any():
        raise InputError(
            f"a positive point of {prompts.points.tolist()} lies outside the crop "
            f"{crop.box}; let the crop be chosen, or move the point"
        )
    return _with(prompts, keep=inside)


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
