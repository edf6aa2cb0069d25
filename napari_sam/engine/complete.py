"""Objects that their crop shows badly: cut by its border, too large, or too small.

`Predictor.predict` answers at once, from the crop in which the prompts lie most
central. `complete` looks again where that is not enough. As long as the mask ends at
a border beyond which the plane goes on, the next crop lies around the mask and its
continuation, at a smaller scale if it has to; then the object is in the middle of its
crop, whole, and one mask with one edge.

The prompts go along. A point can mean a part or a whole, and the new view would have
to guess again, so of its masks the one is taken that agrees best with the earlier
mask, where both can be seen. Giving the earlier mask to the decoder as a prompt was
rejected: masks came out worse (measured), as it repeats the half that it was shown.
So was the joining of masks from neighbouring crops of the grid: each has an edge of
its own, and an object of several thousand pixels takes dozens of them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import ndimage

from napari_sam.engine.enlarge import extent
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.predict import needed
from napari_sam.masks import mask_iou
from napari_sam.tiling import MAX_UPSCALE, TARGET_DIAMETER, Box, Crop, CropGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.engine.predict import Prediction, Predictor
    from napari_sam.prompts import Prompts

# Input pixels along a mask below which it has no shape: four cells of the decoder's
# logits (ours). Such an object is looked at from nearer.
_SMALL = 16

# Input pixels from a border of the crop within which a mask is not believed to end:
# four cells of the embedding, which see little of what is beyond (ours). For 39 objects
# cut by their crop, IoU with a crop of their own is 0.96, and with 32 px 0.94.
_NEAR = 64

# A view at another scale is worth an encoding from this ratio on (ours).
_RATIO = 1.25

# IoU with the earlier mask within which two masks agree with it equally: edges differ
# as much between two scales (ours).
_TOLERANCE = 0.1

# A cut object's next view is at least a third wider, most often two to four times;
# ten end a search that goes astray, as on background.
_MAX_VIEWS = 10


@job
def complete(
    predictor: Predictor, prompts: Prompts, prediction: Prediction
) -> Job[Prediction]:
    """Finish an object whose mask the crop cut, or showed too large or too small.

    Parameters
    ----------
    predictor : Predictor
        That gave the prediction.
    prompts : Prompts
        To which it was the answer.
    prediction : Prediction
        The quick answer; its `Prediction.best` is finished.

    Yields
    ------
    Step
        After each further view; its value maps 0 to the better `Prediction`.

    Returns
    -------
    Prediction
        The one given if it is good enough, else one with a single mask.

    Raises
    ------
    DeviceError
        If the device runs out of memory.
    """
    (finished,) = yield from complete_many(predictor, [prompts], [prediction])
    return finished


@job
def complete_many(
    predictor: Predictor,
    prompts: Sequence[Prompts],
    predictions: Sequence[Prediction],
) -> Job[list[Prediction]]:
    """Finish several objects; those that need one crop share calls of the decoder.

    Parameters
    ----------
    predictor, prompts, predictions
        As in `complete`, one for each object.

    Yields
    ------
    Step
        After each crop; its value maps places in `prompts` to better predictions.

    Returns
    -------
    list of Prediction
        In the order of the prompts.
    """
    grid, found = predictor.embedding.grid, list(predictions)
    unsure = set(range(len(found)))
    for _ in range(_MAX_VIEWS):
        by_crop: dict[Crop, list[int]] = {}
        for i in sorted(unsure):
            crop = better_crop(predictor.embedding, prompts[i], found[i])
            if crop is not None:
                by_crop.setdefault(crop, []).append(i)
        unsure = set()
        for crop, members in by_crop.items():
            asked = [prompts[i] for i in members]
            better = {}
            decoded = predictor.decode(asked, crop)
            for i, (logits, ious) in zip(members, decoded, strict=True):
                k = _same_object(found[i], logits, ious, crop, grid.size)
                new = predictor.answer(logits[k : k + 1], ious[k : k + 1], crop)
                if _is_no_worse(new, found[i], grid):
                    better[i] = found[i] = new
            unsure |= better.keys()
            yield Step(0, 0, "complete", better)
    return found


def better_crop(
    embedding: PlaneEmbedding, prompts: Prompts, prediction: Prediction
) -> Crop | None:
    """Choose the crop that shows an object better than the one that answered.

    Parameters
    ----------
    embedding : PlaneEmbedding
        Of the plane.
    prompts : Prompts
        Those of the object; the new crop holds them, too.
    prediction : Prediction
        What was found with them.

    Returns
    -------
    Crop or None
        None if the object is whole and of a good size.
    """
    grid, crop = embedding.grid, prediction.crop
    seen = _Seen.of(prediction, grid)
    if seen is None:
        return None
    region = seen.continued().union(needed(prompts)).clip(grid.shape)
    around = embedding.crop_around(region)
    if seen.is_cut or seen.is_near:
        return around if around.box != crop.box else None
    if min(crop.scale) > _RATIO * grid.zoom:
        return None  # seen from near already
    if max(seen.box.shape) * min(crop.scale) < _SMALL:
        around = _from_nearer(grid, region, max(seen.box.shape))
    wider, nearer = crop.scale[0] / around.scale[0], around.scale[0] / crop.scale[0]
    return around if max(wider, nearer) > _RATIO else None


class _Seen(NamedTuple):
    """Where the best mask lies, by the cells of its logits.

    Attributes
    ----------
    box : Box
        Around its largest part, in plane pixels; specks elsewhere do not count.
    cut : tuple of bool
        Whether it ends at the border of the crop, and the plane goes on there: top,
        left, bottom, right.
    is_near : bool
        Whether it ends within `_NEAR` of such a border.
    """

    box: Box
    cut: tuple[bool, ...]
    is_near: bool

    @classmethod
    def of(cls, prediction: Prediction, grid: CropGrid) -> _Seen | None:
        """Look at a prediction; None if its mask is empty."""
        crop, logits = prediction.crop, prediction.logits[prediction.best]
        cell = grid.size / len(logits)
        n_rows, n_columns = (math.ceil(n / cell) for n in crop.input_shape)
        parts, n_parts = ndimage.label(logits[:n_rows, :n_columns] > 0)
        if not n_parts:
            return None
        largest = np.bincount(parts[parts > 0]).argmax()
        part = extent(parts == largest)
        edges = (part.y0, part.x0, part.y1, part.x1)
        y0, x0, y1, x1 = crop.boxes_to_plane(np.multiply(edges, cell))[0].tolist()
        box = Box(int(y0), int(x0), math.ceil(y1), math.ceil(x1)).clip(grid.shape)
        before = (edges[0], edges[1], n_rows - edges[2], n_columns - edges[3])
        goes_on = (
            crop.box.y0 > 0,
            crop.box.x0 > 0,
            crop.box.y1 < grid.shape[0],
            crop.box.x1 < grid.shape[1],
        )
        rims = [n for n, is_inner in zip(before, goes_on, strict=True) if is_inner]
        near = _NEAR * grid.size / 1024
        return cls(
            box,
            cut=tuple(
                n == 0 and is_inner for n, is_inner in zip(before, goes_on, strict=True)
            ),
            is_near=min(rims, default=math.inf) * cell <= near,
        )

    @property
    def is_cut(self) -> bool:
        return any(self.cut)

    def continued(self) -> Box:
        """Extend the box beyond each cut by as much as can be seen before it."""
        (height, width), box = self.box.shape, self.box
        top, left, bottom, right = self.cut
        y0, x0 = box.y0 - top * height, box.x0 - left * width
        return Box(y0, x0, box.y1 + bottom * height, box.x1 + right * width)


def _from_nearer(grid: CropGrid, region: Box, longest: int) -> Crop:
    """Return a crop of a finer grid, which neighbours share; scales are powers of 2."""
    zoom = 2.0 ** math.floor(math.log2(TARGET_DIAMETER / longest))
    finer = replace(grid, scale=max(grid.zoom, min(zoom, MAX_UPSCALE)))
    y, x = (region.y0 + region.y1 - 1) / 2, (region.x0 + region.x1 - 1) / 2
    crop = finer.crop_at(y, x)
    if not crop.box.contains(region):
        crop = grid.crop_at(y, x)  # prompts far apart: stay with the wider view
    return replace(crop, index=-1)  # it has no place in the grid of the plane


def _same_object(
    earlier: Prediction, logits: Tensor, ious: Tensor, crop: Crop, size: int
) -> int:
    """Return which of K masks is the one that an earlier view showed a part of.

    Masks are compared in the cells that both crops show. Several can agree there and
    differ beyond; among them the model's own estimate decides.
    """
    before = earlier.logits[earlier.best]
    cell = size / len(before)
    centres = (np.arange(len(before)) + 0.5) * cell - 0.5
    places = earlier.crop.to_input(crop.to_plane(np.stack([centres, centres], axis=1)))
    cells = np.floor((places + 0.5) / cell).astype(int)
    rows, columns = (
        (places > -0.5) & (places < np.subtract(earlier.crop.input_shape, 0.5))
    ).T
    expected = before[np.ix_(cells[rows, 0], cells[columns, 1])] > 0
    masks = logits.cpu().numpy()[:, rows][:, :, columns] > 0
    agreement = np.array([mask_iou(mask, expected) for mask in masks])
    agrees = agreement >= agreement.max() - _TOLERANCE
    return int(np.where(agrees, ious.cpu().numpy(), -np.inf).argmax())


def _is_no_worse(new: Prediction, old: Prediction, grid: CropGrid) -> bool:
    """Whether a view may replace another: not an empty one, nor a cut for a whole."""
    after, before = _Seen.of(new, grid), _Seen.of(old, grid)
    if after is None:
        return False
    return before is None or before.is_cut or not after.is_cut
