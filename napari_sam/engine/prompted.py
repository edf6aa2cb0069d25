"""The objects of an image file that prompts point at, as a label file."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.batch import Report
from napari_sam.engine.complete import complete_many
from napari_sam.engine.files import ImageOptions, check_free, open_file, open_source
from napari_sam.engine.jobs import Job, Step, job, with_step
from napari_sam.engine.predict import Predictor
from napari_sam.engine.records import made_by, record_of_prompts
from napari_sam.engine.results import without_overlay, write_labels
from napari_sam.errors import InputError, NapariSamWarning
from napari_sam.masks import Candidate
from napari_sam.prompts import (
    PROMPT_ENDINGS,
    LabelsAs,
    Prompts,
    prompts_from_labels,
    read_prompts,
)
from napari_sam.readers import open_image

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.files import Outputs
    from napari_sam.engine.predict import Prediction
    from napari_sam.model import Sam
    from napari_sam.tiling import Crop

# Objects asked for at once: their logits, 0.8 MB each, wait for each other's views.
_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the prompts of one object.

    Parameters
    ----------
    object_id : int
        Its number in the labels.
    found : Candidate or None
        Its mask and scores; None if it could not be asked for.
    problem : str
        Why it could not, or what is odd about the prompts; empty if all is well.
    is_completed : bool
        Whether the first view was not enough.
    """

    object_id: int
    found: Candidate | None
    problem: str = ""
    is_completed: bool = False


@dataclass(frozen=True, slots=True)
class Predicted:
    """What became of an image and its prompts.

    Parameters
    ----------
    report : Report
        The image.
    answers : tuple of Answer
        One for each object, in the order of the prompts.
    """

    report: Report
    answers: tuple[Answer, ...]


@job
def predict_file(  # noqa: PLR0913 - an image, its prompts, a model, and how
    path: Path,
    prompts: Sequence[Prompts],
    outputs: Outputs,
    model: Sam,
    options: ImageOptions | None = None,
    *,
    complete: bool = True,
    cache: EmbeddingCache | None = None,
) -> Job[Predicted]:
    """Find the objects of an image file that prompts point at, and write them.

    Only the crops that are needed are encoded. An object whose prompts lie outside the
    image does not stop the others.

    Parameters
    ----------
    path, outputs, model, options
        As in `segment_file`; of a stack, one plane has to be chosen.
    prompts : sequence of Prompts
        One for each object; `Prompts.object_id`, or else the place in this
        sequence, is its id in the labels.
    complete : bool, default True
        Finish objects that the first view cuts, or shows too large or too small.
    cache : EmbeddingCache, optional
        Where embeddings are looked for and kept.

    Yields
    ------
    Step
        As `predict_objects`.

    Returns
    -------
    Predicted

    Raises
    ------
    InputError
        If there are no prompts, if two have one id, or if all lie outside; if the
        image has several planes and none is chosen.

    Warns
    -----
    NapariSamWarning
        If an object got no pixel.
    """
    start = time.perf_counter()
    check_free(outputs)
    _object_ids(prompts)
    opened = open_file(path, model, options or ImageOptions())
    if len(opened.planes) > 1:
        raise InputError(
            f"{path} has {len(opened.planes)} planes, and prompts belong to one; "
            "choose it: frame,slice, counted from 0"
        )
    outputs = without_overlay(opened, outputs)
    embedding = opened.embedding(model, opened.planes[0], cache)
    predictor = Predictor(model, embedding)
    answers = yield from predict_objects(predictor, prompts, complete=complete)
    found = {each.object_id: each.found for each in answers if each.found is not None}
    if not found:
        raise InputError(
            "; ".join(sorted({each.problem for each in answers})[:3])
            + "; no object is left"
        )
    labels = paint(found, opened.source.plane_shape)
    ids = sorted(found)
    scores = {
        "object": np.array(ids),
        "predicted_iou": np.array([found[n].predicted_iou for n in ids]),
        "stability": np.array([found[n].stability for n in ids]),
    }
    asked = dict(zip(_object_ids(prompts), prompts, strict=True))
    records = [
        record_of_prompts(asked[n], n).model_copy(
            update=made_by(model)
            | {"predicted_iou": found[n].predicted_iou, "stability": found[n].stability}
        )
        for n in ids
    ]
    write_labels(opened, labels, outputs, scores, records)
    n_objects = int(np.count_nonzero(np.unique(labels)))
    seconds = time.perf_counter() - start
    return Predicted(Report(path, n_objects, seconds, outputs), tuple(answers))


@job
def predict_objects(
    predictor: Predictor, prompts: Sequence[Prompts], *, complete: bool = True
) -> Job[list[Answer]]:
    """Find many objects, crop by crop.

    Of each object only the best mask is kept, in its box, so that memory does not
    grow with the image.

    Parameters
    ----------
    predictor : Predictor
        Of the plane.
    prompts : sequence of Prompts
        As in `predict_file`.
    complete : bool, default True
        As in `predict_file`.

    Yields
    ------
    Step
        After each group of objects; its value is the list of `Answer`.

    Returns
    -------
    list of Answer
        In the order of the prompts. Prompts that cannot be used have a problem and
        no mask.

    Raises
    ------
    InputError
        If there are no prompts, or two have one id.
    DeviceError
        If the device runs out of memory.
    """
    ids = _object_ids(prompts)
    shape = predictor.embedding.grid.shape
    problems = ["; ".join(each.out_of_bounds(shape)) for each in prompts]
    answers: dict[int, Answer] = {}
    by_crop: dict[Crop, list[int]] = {}
    for i, each in enumerate(prompts):
        if _is_usable(each, shape):
            by_crop.setdefault(predictor.crop_for(each), []).append(i)
        else:
            problem = problems[i] or "neither a point nor a box"
            answers[i] = Answer(ids[i], None, problem)
    for crop, members in by_crop.items():
        for first in range(0, len(members), _AT_ONCE):
            group = members[first : first + _AT_ONCE]
            asked = [prompts[i] for i in group]
            with warnings.catch_warnings():
                # told in the answers, object by object
                warnings.simplefilter("ignore", NapariSamWarning)
                quick = predictor.predict_many(asked, crop=crop)
            whole = quick
            if complete:
                done = Step(len(answers), len(prompts), "complete")
                whole = yield from with_step(
                    done, complete_many(predictor, asked, quick)
                )
            new = [
                Answer(ids[i], _best(b), problems[i], is_completed=b is not a)
                for i, a, b in zip(group, quick, whole, strict=True)
            ]
            answers.update(zip(group, new, strict=True))
            yield Step(len(answers), len(prompts), "predict", new)
    return [answers[i] for i in range(len(prompts))]


def prompts_for(
    image: Path,
    file: Path,
    options: ImageOptions,
    *,
    unit: str = "px",
    labels_as: LabelsAs = "points",
) -> list[Prompts]:
    """Read the prompts for an image from a file of any kind.

    Parameters
    ----------
    image : Path
        The image, which says how large a pixel is.
    file : Path
        What `read_prompts` reads, or an image of labels that `open_image` reads; of
        a stack of labels the plane that was chosen for the image.
    options : ImageOptions
        How the image is opened.
    unit : str
        ``px``, or ``um`` if the numbers in the file are micrometres.
    labels_as : str
        What becomes of labels; see `prompts_from_labels`.

    Returns
    -------
    list of Prompts

    Raises
    ------
    InputError
        If the unit is another word, or the image does not know its pixel size.
    FormatError, FileError
        If the file cannot be read.
    """
    if unit not in ("px", "um"):
        raise InputError(f"unit {unit!r}; use px or um")
    if file.suffix.lower() not in PROMPT_ENDINGS:
        labels = open_image(file)
        planes = list(labels.plane_indices())
        plane = options.plane if options.plane in planes else planes[0]
        return prompts_from_labels(labels.read(plane=plane), labels_as)
    if unit == "px":
        return read_prompts(file)
    source = open_source(image, options)
    if source.pixel_size_um is None:
        raise InputError(
            f"{image} does not say how large a pixel is; give the pixel size in "
            "micrometres"
        )
    return read_prompts(file, pixel_size_um=source.pixel_size_um)


def paint(
    objects: Mapping[int, Candidate], shape: tuple[int, int]
) -> NDArray[np.uint32]:
    """Put the masks of objects on a plane.

    A pixel that several objects claim goes to the one with the higher predicted IoU,
    also where that one lies inside a larger one.

    Parameters
    ----------
    objects : mapping of int to Candidate
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
    for number in sorted(objects, key=lambda n: (objects[n].predicted_iou, -n)):
        each = objects[number]
        labels[each.box.slices][each.mask] = number
    lost = sorted(set(objects) - set(np.unique(labels).tolist()))
    if lost:
        warnings.warn(
            f"objects {lost} got no pixel: empty, or covered by others",
            NapariSamWarning,
            stacklevel=2,
        )
    return labels


def _best(prediction: Prediction) -> Candidate:
    best = prediction.best
    whole = Candidate(
        prediction.box,
        prediction.masks[best],
        float(prediction.predicted_iou[best]),
        float(prediction.stability[best]),
    )
    # a copy of what is needed lets the other masks go
    cut = whole.with_mask(whole.mask)
    return cut.with_mask(cut.mask.copy())


def _is_usable(prompts: Prompts, shape: tuple[int, int]) -> bool:
    """Whether all points and a part of the box lie in the plane."""
    if prompts.is_empty or Prompts(prompts.points).out_of_bounds(shape):
        return False
    boxes = np.clip(prompts.boxes, 0, [*shape, *shape])
    return bool((boxes[:, 2:] > boxes[:, :2]).all())


def _object_ids(prompts: Sequence[Prompts]) -> list[int]:
    ids = [each.object_id or place for place, each in enumerate(prompts, start=1)]
    if not ids:
        raise InputError("no prompts; give points, boxes or a table of both")
    unique, counts = np.unique(ids, return_counts=True)
    twice = unique[counts > 1].tolist()
    if twice:
        raise InputError(f"prompts of two objects have the id {twice}; ids are unique")
    return ids
