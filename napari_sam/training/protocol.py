"""A simulated annotator that clicks and draws boxes, and what the answers are worth.

The protocol of SAM (Kirillov et al. 2023, section 7.1 and appendix D.1): the first
click is the point of the object farthest from its boundary; each next one is the
point farthest from the boundary of the error regions, missed object (positive) or
taken background (negative), and comes with the logits of the answer it corrects. The
border of the image counts as boundary. Of several masks the one of the highest
predicted IoU is taken; the best by truth, the oracle, is told beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_sam.errors import InputError
from napari_sam.masks import boundary_depth
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from napari_sam.training.metrics import iou

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.engine.predict import Prediction, Predictor

Mask = NDArray[np.bool_]
Scores = dict[str, NDArray[np.float64]]
"""IoU of each object, by the name of what was asked."""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """One true object.

    Attributes
    ----------
    object_id : int
        Number in the labels.
    box : Box
        Tight box in plane pixels.
    mask : bool array of the shape of ``box``
        The object's pixels.
    """

    object_id: int
    box: Box
    mask: Mask

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.mask))


def find_targets(labels: NDArray[np.integer]) -> list[Target]:
    """Cut every object out of a plane of labels, in the order of their ids.

    Parameters
    ----------
    labels : (H, W) array of int
        Object ids, 0 is background.
    """
    ids, index = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
    regions = ndimage.find_objects(index[:-1].reshape(labels.shape))
    targets = []
    for object_id, (rows, cols) in zip(ids[1:].tolist(), regions, strict=True):
        box = Box(rows.start, cols.start, rows.stop, cols.stop)
        targets.append(Target(object_id, box, labels[rows, cols] == object_id))
    return targets


def deepest_point(region: Mask) -> tuple[float, int, int]:
    """Find the pixel of a region farthest from its boundary.

    Parameters
    ----------
    region : (h, w) bool array
        What lies beyond the array does not belong to the region.

    Returns
    -------
    (depth, y, x)
        Distance to the nearest pixel outside, in pixels, 0 if the region is empty;
        the first such pixel in reading order.
    """
    depth = boundary_depth(region)
    y, x = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float(depth[y, x]), int(y), int(x)


def correct(target: Target, answer: Mask, box: Box) -> tuple[int, int, bool] | None:
    """Choose the click that corrects an answer most.

    Parameters
    ----------
    target : Target
        The true object.
    answer : bool array of the shape of ``box``
        What the model took for the object; nothing outside the box.
    box : Box
        Region of the plane that the answer covers, in pixels.

    Returns
    -------
    (y, x, is_positive) or None
        In plane pixels; None if the answer is right in every pixel.
    """
    region, truth, found = _side_by_side(target, answer, box)
    missed, missed_y, missed_x = deepest_point(truth & ~found)
    taken, taken_y, taken_x = deepest_point(found & ~truth)
    if missed == taken == 0:
        return None
    y, x = (missed_y, missed_x) if missed >= taken else (taken_y, taken_x)
    return region.y0 + y, region.x0 + x, missed >= taken


def score_clicks(
    predictor: Predictor, targets: Sequence[Target], n_clicks: int
) -> Scores:
    """Click on every object and correct the answers.

    Parameters
    ----------
    predictor : Predictor
        Model and embedding of the plane.
    targets : sequence of Target
        Objects of that plane.
    n_clicks : int
        Clicks for each object, 1 or more.

    Returns
    -------
    dict of str to (N,) float64 array
        IoU after each click, ``"click_1"`` ..., and ``"oracle_1"``, the best of the
        masks that the first click gave. An object that is right in every pixel is
        left alone: it keeps its IoU of 1.

    Raises
    ------
    InputError
        If there is no click.
    """
    if n_clicks < 1:
        raise InputError(f"{n_clicks} clicks; an annotator needs one or more")
    prompts = [_first_click(target) for target in targets]
    scores: Scores = {}
    current = np.zeros(len(targets))
    active = list(range(len(targets)))
    for click in range(1, n_clicks + 1):
        answers = predictor.predict_many([prompts[i] for i in active])
        if click == 1:
            scores["oracle_1"] = _oracle(targets, answers)
        open_objects = []
        for i, answer in zip(active, answers, strict=True):
            mask = answer.masks[answer.best]
            current[i] = _score(targets[i], mask, answer.box)
            correction = correct(targets[i], mask, answer.box)
            if correction is not None:
                prompts[i] = _add_click(prompts[i], correction, answer, predictor)
                open_objects.append(i)
        active = open_objects
        scores[f"click_{click}"] = current.copy()
    return scores


def score_boxes(predictor: Predictor, targets: Sequence[Target]) -> Scores:
    """Draw the tight box of every object.

    Parameters
    ----------
    predictor : Predictor
        Model and embedding of the plane.
    targets : sequence of Target
        Objects of that plane.

    Returns
    -------
    dict of str to (N,) float64 array
        ``"box"``: IoU of each object.
    """
    answers = predictor.predict_many(
        [Prompts(boxes=[t.box.y0, t.box.x0, t.box.y1, t.box.x1]) for t in targets]
    )
    best = [
        _score(target, answer.masks[answer.best], answer.box)
        for target, answer in zip(targets, answers, strict=True)
    ]
    return {"box": np.array(best)}


def _first_click(target: Target) -> Prompts:
    _, y, x = deepest_point(target.mask)
    return Prompts(points=[(target.box.y0 + y, target.box.x0 + x)])


def _add_click(
    prompts: Prompts,
    click: tuple[int, int, bool],
    answer: Prediction,
    predictor: Predictor,
) -> Prompts:
    y, x, is_positive = click
    more = Prompts(
        points=[*prompts.points.tolist(), (y, x)],
        positive=[*prompts.positive.tolist(), is_positive],
    )
    # logits speak of the crop they come from; a click may move on to another one
    if predictor.crop_for(more) != answer.crop:
        return more
    return Prompts(more.points, more.positive, mask=answer.logits[answer.best])


def _oracle(
    targets: Sequence[Target], answers: Sequence[Prediction]
) -> NDArray[np.float64]:
    best = [
        max(_score(target, mask, answer.box) for mask in answer.masks)
        for target, answer in zip(targets, answers, strict=True)
    ]
    return np.array(best)


def _score(target: Target, answer: Mask, box: Box) -> float:
    _, truth, found = _side_by_side(target, answer, box)
    return iou(truth, found)


def _side_by_side(target: Target, answer: Mask, box: Box) -> tuple[Box, Mask, Mask]:
    """Region around object and answer, and both masks in it."""
    held = Box.around(answer) or Box(0, 0, 0, 0)
    box, answer = held.shift(box.y0, box.x0), answer[held.slices]
    region = target.box.union(box)
    truth, found = np.zeros((2, *region.shape), bool)
    truth[target.box.shift(-region.y0, -region.x0).slices] = target.mask
    if box.area:  # an empty one may lie elsewhere
        found[box.shift(-region.y0, -region.x0).slices] = answer
    return region, truth, found
