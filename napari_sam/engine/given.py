"""Objects from prompts that were not clicked: of a file, or of a layer.

Each object is a `Draft` of its own on the plane it lies on. One alone can become the
draft of the session; many are asked for crop by crop, by a job, and kept as one step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.complete import complete_many
from napari_sam.engine.draft import Draft, Shape, read_shape, resolve
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.records import ObjectRecord, asked_with, made_by
from napari_sam.engine.request import PredictRequest, ShownMask
from napari_sam.labels import paint_free
from napari_sam.prompts import read_prompts
from napari_sam.prompts.drawn import POINT, is_drawn, read_drawn
from napari_sam.prompts.table import TABLE_ENDINGS, read_drawn_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.engine.draft import Question
    from napari_sam.engine.planes import Planes
    from napari_sam.engine.request import PlaneView
    from napari_sam.labels import LabelEdit, LabelTarget, PlaneIndex
    from napari_sam.prompts.drawn import Drawn
    from napari_sam.prompts.prompt import Prompts

# Objects asked for at once: a click waits for them, and a bar moves after them (ours).
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """Prompts of one object.

    Parameters
    ----------
    index : tuple of int or None
        Its plane.
    draft : Draft
    """

    index: PlaneIndex
    draft: Draft


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """An object that was asked for.

    Parameters
    ----------
    given : Given
    shown : ShownMask
        The best mask.
    crop : tuple of int
        y0, x0, y1, x1 of the crop that answered.
    """

    given: Given
    shown: ShownMask
    crop: tuple[int, int, int, int]


def read_given(path: Path, index: PlaneIndex) -> list[Given]:
    """Read prompts from a file.

    Parameters
    ----------
    path : Path
        Points or shapes saved by napari, which know their planes, or what
        `read_prompts` reads, which lies on the plane that is looked at.
    index : tuple of int or None
        That plane.

    Returns
    -------
    list of Given
        One for each object.

    Raises
    ------
    MissingFileError, FileError, FormatError
        If the file cannot be read.
    """
    if is_drawn(path):
        return given_by(read_drawn(path), index)
    if path.suffix.lower() in TABLE_ENDINGS:
        return given_by(read_drawn_table(path), index)
    return [Given(index, _draft_of(each)) for each in read_prompts(path)]


def given_by(drawn: Drawn, index: PlaneIndex) -> list[Given]:
    """Return the objects that points or shapes of napari mean.

    What has one number in ``objects`` is an object. Without numbers each shape is one;
    points of which only the signs are known, as of those that are clicked with, are
    one on each plane; else each point is an object of its own.

    Parameters
    ----------
    drawn : Drawn
    index : tuple of int or None
        A plane; which axes are its rows and columns, and where the others lie that
        the points do not have.

    Returns
    -------
    list of Given
    """
    members: dict[tuple[PlaneIndex, int], list[int]] = {}
    for number, kind in enumerate(drawn.kinds):
        if drawn.objects is not None:
            owner = drawn.objects[number]
        elif kind == POINT and drawn.positive is not None:
            owner = -1
        else:
            owner = number
        place = _plane_of(drawn.corners[number], index)
        members.setdefault((place, owner), []).append(number)
    found = []
    for (place, _), own in members.items():
        flat = {i: _on_plane(drawn.corners[i], index) for i in own}
        points = [i for i in own if drawn.kinds[i] == POINT]
        signs = [drawn.positive is None or drawn.positive[i] for i in points]
        shapes = [read_shape(drawn.kinds[i], flat[i]) for i in own if i not in points]
        draft = Draft(shapes=tuple(shapes))
        if points:
            draft = draft.with_points(np.concatenate([flat[i] for i in points]), signs)
        found.append(Given(place, draft))
    return found


@job
def ask_for(
    planes: Planes,
    given: Sequence[Given],
    views: Sequence[PlaneView],
    *,
    complete: bool = True,
) -> Job[list[Answered]]:
    """Ask for many objects, plane by plane and crop by crop.

    Parameters
    ----------
    planes : Planes
    given : sequence of Given
    views : sequence of PlaneView
        Of the planes that they lie on; objects of other planes are left out.
    complete : bool, default True
        Look again at objects that their crop cuts, or shows too small.

    Yields
    ------
    Step
        After each group of objects.

    Returns
    -------
    list of Answered
        Without those that lie beside their plane, or got no pixel.

    Raises
    ------
    DeviceError
        If the device runs out of memory.
    InputError
        If the image cannot be used.
    """
    found: list[Answered] = []
    n_done = 0
    for view in views:
        predictor = planes.predictor(view)
        asked: list[tuple[int, Given, Question]] = []
        for each in given:
            if each.index == view.index:
                questions = resolve(each.draft, view.shape)
                n_done += not questions
                for one in questions:
                    crop = predictor.crop_for(one.prompts)
                    asked.append((crop.index, each, one))
        asked.sort(key=lambda each: each[0])  # so no crop is encoded twice
        for first in range(0, len(asked), _AT_ONCE):
            group = asked[first : first + _AT_ONCE]
            wanted = tuple(one for *_, one in group)
            result = planes.answer(PredictRequest(0, view, wanted))
            answers = list(result.predictions)
            if complete:
                inner = complete_many(predictor, [x.prompts for x in wanted], answers)
                answers = yield from inner
            for (_, each, _), answer in zip(group, answers, strict=True):
                box = answer.crop.box
                shown = ShownMask.of(answer)
                if shown.box.area:
                    corners = (box.y0, box.x0, box.y1, box.x1)
                    found.append(Answered(each, shown, corners))
            n_done += len(group)
            yield Step(n_done, len(given), "ask for objects")
    return found


def edits_of(
    answered: Iterable[Answered], target: LabelTarget, planes: Planes
) -> tuple[list[LabelEdit], list[ObjectRecord]]:
    """Return what makes objects of answers; pixels of other objects are left alone.

    Where two of them claim a pixel, the one with the higher predicted IoU has it.

    Parameters
    ----------
    answered : iterable of Answered
    target : LabelTarget
        The labels as they are now.
    planes : Planes
        Who answered.

    Returns
    -------
    edits : list of LabelEdit
    records : list of ObjectRecord
        Of the objects that have a pixel.
    """
    by_plane: dict[PlaneIndex, list[Answered]] = {}
    for each in answered:
        by_plane.setdefault(each.given.index, []).append(each)
    edits: list[LabelEdit] = []
    records: list[ObjectRecord] = []
    first_id = target.fresh_ids(1)[0]
    network = made_by(planes.model)
    for index, members in by_plane.items():
        best_first = sorted(members, key=lambda x: -x.shown.predicted_iou)
        number = first_id + len(records)
        masks = [(each.shown.box, each.shown.mask) for each in best_first]
        more, has_pixels = paint_free(target, index, masks, number)
        edits += more
        left = [x for x, has in zip(best_first, has_pixels, strict=True) if has]
        records += [
            _record(each, number + i).model_copy(update=network)
            for i, each in enumerate(left)
        ]
    return edits, records


def _record(each: Answered, number: int) -> ObjectRecord:
    draft = each.given.draft
    return ObjectRecord(
        object_id=number,
        index=each.given.index,
        **asked_with(draft),
        crop=each.crop,
        predicted_iou=each.shown.predicted_iou,
        stability=each.shown.stability,
    )


def _draft_of(prompts: Prompts) -> Draft:
    draft = Draft().with_points(prompts.points, prompts.positive)
    boxes = tuple(Shape.of_box(box) for box in prompts.boxes.tolist())
    return replace(draft, shapes=boxes)


def _plane_of(corners: NDArray[np.float64], index: PlaneIndex) -> PlaneIndex:
    """Return the plane that corners lie on; axes that they lack stay as they are."""
    missing = len(index) - corners.shape[1]
    return tuple(
        each
        if each is None or axis < missing
        else int(np.floor(corners[0, axis - missing] + 0.5))
        for axis, each in enumerate(index)
    )


def _on_plane(corners: NDArray[np.float64], index: PlaneIndex) -> NDArray[np.float32]:
    missing = len(index) - corners.shape[1]
    seen = [axis - missing for axis, each in enumerate(index) if each is None]
    return corners[:, seen].astype(np.float32)
