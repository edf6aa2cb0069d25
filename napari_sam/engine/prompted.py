"""The objects of an image file that prompts point at, as a label file."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.batch import Report
from napari_sam.engine.embed import open_plane
from napari_sam.engine.files import ImageOptions, check_free, open_file, write
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.predict import Predictor
from napari_sam.errors import InputError, NapariSamWarning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.engine.files import Outputs
    from napari_sam.engine.predict import Prediction
    from napari_sam.model import Sam
    from napari_sam.prompts import Prompts


@job
def predict_file(
    path: Path,
    prompts: Sequence[Prompts],
    outputs: Outputs,
    model: Sam,
    options: ImageOptions | None = None,
) -> Job[Report]:
    """Find the objects of an image file that prompts point at, and write them.

    Only the crops that the prompts lie in are encoded.

    Parameters
    ----------
    path, outputs, model, options
        As in `segment_file`; of a stack, one plane has to be chosen.
    prompts : sequence of Prompts
        One for each object; `Prompts.object_id`, or else the place in this
        sequence, is its id in the labels.

    Yields
    ------
    Step
        After each object.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If there are no prompts, if two have one id, or if one lies outside; if the
        image has several planes and none is chosen.

    Warns
    -----
    NapariSamWarning
        If an object got no pixel, or a box leaves the plane.
    """
    start = time.perf_counter()
    check_free(outputs)
    ids = _object_ids(prompts)
    opened = open_file(path, model, options or ImageOptions())
    if len(opened.planes) > 1:
        raise InputError(
            f"{path} has {len(opened.planes)} planes, and prompts belong to one; "
            "choose it: frame,slice, counted from 0"
        )
    embedding = open_plane(
        opened.source,
        model,
        grid=opened.grid,
        plane=opened.planes[0],
        intensity=opened.intensity,
    )
    predictor = Predictor(model, embedding)
    found: dict[int, Prediction] = {}
    for number, each in zip(ids, prompts, strict=True):
        found[number] = predictor.predict(each)
        yield Step(len(found), len(prompts), "predict", found[number])
    labels = paint_predictions(found, opened.source.plane_shape)
    scores = {
        "predicted_iou": {n: float(p.predicted_iou[p.best]) for n, p in found.items()},
        "stability": {n: float(p.stability[p.best]) for n, p in found.items()},
    }
    write(opened, labels, outputs, scores)
    n_objects = np.count_nonzero(np.unique(labels))
    return Report(path, int(n_objects), time.perf_counter() - start, outputs)


def paint_predictions(
    predictions: Mapping[int, Prediction], shape: tuple[int, int]
) -> NDArray[np.uint32]:
    """Put the best mask of each object on a plane.

    A pixel that several objects claim goes to the one with the higher predicted IoU,
    also where that one lies inside a larger one.

    Parameters
    ----------
    predictions : mapping of int to Prediction
        By object id.
    shape : tuple of int
        (height, width) of the plane, in pixels.

    Returns
    -------
    (height, width) uint32 array

    Warns
    -----
    NapariSamWarning
        If an object has no pixel, or none that is left to it.
    """
    labels = np.zeros(shape, np.uint32)
    certainty = {n: float(p.predicted_iou[p.best]) for n, p in predictions.items()}
    for number in sorted(predictions, key=lambda n: (certainty[n], -n)):
        prediction = predictions[number]
        mask = prediction.masks[prediction.best]
        labels[prediction.box.slices][mask] = number
    lost = sorted(set(predictions) - set(np.unique(labels).tolist()))
    if lost:
        warnings.warn(
            f"objects {lost} got no pixel: empty, or covered by others",
            NapariSamWarning,
            stacklevel=2,
        )
    return labels


def _object_ids(prompts: Sequence[Prompts]) -> list[int]:
    ids = [each.object_id or place for place, each in enumerate(prompts, start=1)]
    if not ids:
        raise InputError("no prompts; give points, boxes or a table of both")
    twice = sorted({number for number in ids if ids.count(number) > 1})
    if twice:
        raise InputError(f"prompts of two objects have the id {twice}; ids are unique")
    return ids
