"""What can be done to committed objects of the plane: each one step to be undone."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from scipy import ndimage

from napari_sam.engine.records import ObjectRecord
from napari_sam.errors import InputError
from napari_sam.labels import (
    LabelEdit,
    filled,
    merged,
    smoothed,
    split_at_points,
    split_by_line,
    without,
    without_islands,
)
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from napari_sam.engine.request import PlaneView
    from napari_sam.engine.session import Session
    from napari_sam.labels import LabelTarget, PlaneIndex

Repair: TypeAlias = Literal["smooth", "fill", "islands"]

_MARGIN = 8  # pixels around an object that smoothing may reach (4 sigma)
_MOST_NAMED = 8  # ids in a sentence
_MOST_PARTS = 16  # of an object that a line cuts; more are a slip of the hand
_REPAIRS: dict[Repair, tuple[str, Callable[..., NDArray[np.uint32]]]] = {
    "smooth": ("smooth", smoothed),
    "fill": ("fill the holes of", filled),
    "islands": ("remove the islands of", without_islands),
}


def delete(session: Session, ids: Sequence[int]) -> None:
    """Delete objects of the plane, each in its own box: they may lie far apart.

    Raises
    ------
    InputError
        If the plane has none of them.
    """
    boxes = _boxes(session, ids)
    view, labels = session.view, session.labels
    if view is None or labels is None:
        return
    edits = []
    for number, box in boxes.items():
        old = labels.read(view.index, box)
        edits.append(LabelEdit(view.index, box, old, without(old, [number])))
    session.edit_labels(
        f"delete {_named(sorted(boxes))}", edits, _forgotten(session, view.index, boxes)
    )


def merge(session: Session, ids: Sequence[int]) -> int:
    """Unite objects of the plane; the first id stays.

    Returns
    -------
    int
        Id of the united object.

    Raises
    ------
    InputError
        If there are fewer than two, or one is not on the plane.
    """
    unique = list(dict.fromkeys(ids))
    if len(unique) < 2:
        raise InputError("one object alone cannot be united; choose two or more")
    for each in unique:
        _box(session, [each])
    box = _box(session, unique)
    into = unique[0]
    change = f"merge {_named(unique)}"
    _edit(session, change, box, lambda x: merged(x, unique, into), unique[1:])
    return into


def split(session: Session, object_id: int) -> None:
    """Split an object at the positive points of the draft, or along its lines.

    The prompts have served then and are dropped.

    Raises
    ------
    InputError
        If they do not part the object.
    """
    box = _box(session, [object_id])
    labels, draft = session.labels, session.draft
    if labels is None:
        return
    lines = [each for each in draft.shapes if each.kind == "line"]
    corner = (box.y0, box.x0)
    if lines:
        fresh = labels.fresh_ids(_MOST_PARTS - 1)

        def change(region: NDArray[np.uint32]) -> NDArray[np.uint32]:
            return split_by_line(region, object_id, lines[0].corners - corner, fresh)

    else:
        points = draft.points[draft.positive] - corner
        fresh = labels.fresh_ids(max(0, len(points) - 1))

        def change(region: NDArray[np.uint32]) -> NDArray[np.uint32]:
            return split_at_points(region, object_id, points, fresh)

    _edit(session, f"split object {object_id}", box, change, use_prompts=True)


def repair(session: Session, object_id: int, how: Repair) -> bool:
    """Smooth an object, fill its holes or remove its islands.

    Returns
    -------
    bool
        False if there was nothing to change.
    """
    box = _box(session, [object_id])
    view = session.view
    if view is None:
        return False
    wide = Box(
        box.y0 - _MARGIN, box.x0 - _MARGIN, box.y1 + _MARGIN, box.x1 + _MARGIN
    ).clip(view.shape)
    words, change = _REPAIRS[how]
    what = f"{words} object {object_id}"
    return _edit(session, what, wide, lambda x: change(x, object_id))


def repaint(
    session: Session, view: PlaneView, box: Box, pixels: NDArray[np.uint32]
) -> bool:
    """Replace the labels of a box by what a person has painted.

    Parameters
    ----------
    session : Session
    view : PlaneView
        The plane that was painted; it need not be the one that is looked at.
    box : Box
        In plane pixels.
    pixels : (h, w) uint32 array

    Returns
    -------
    bool
        False if nothing has changed.
    """
    labels = session.labels
    if labels is None:
        return False
    before = labels.read(view.index, box)
    changed = before != pixels
    if not changed.any():
        return False
    ids = {*before[changed].tolist(), *pixels[changed].tolist()} - {0}
    records: list[tuple[int, ObjectRecord | None]] = []
    for number in sorted(ids):
        old = session.records.get(number)
        old = old or ObjectRecord(object_id=number, index=view.index)
        new = old.model_copy(update={"hand_edits": old.hand_edits + 1})
        records.append((number, new))
    edit = LabelEdit(view.index, box, before, pixels)
    session.edit_labels(f"paint {_named(sorted(ids))}", [edit], records)
    return True


def _edit(
    session: Session,
    what: str,
    box: Box,
    change: Callable[[NDArray[np.uint32]], NDArray[np.uint32]],
    gone: Sequence[int] = (),
    *,
    use_prompts: bool = False,
) -> bool:
    view, labels = session.view, session.labels
    if view is None or labels is None:
        return False
    before = labels.read(view.index, box)
    edit = LabelEdit(view.index, box, before, change(before))
    if not edit.n_changed:
        return False
    uses = [view.index] if use_prompts else []
    session.edit_labels(what, [edit], _forgotten(session, view.index, gone), uses)
    return True


def _forgotten(
    session: Session, index: PlaneIndex, gone: Iterable[int]
) -> list[tuple[int, ObjectRecord | None]]:
    """Return what is left of the records of objects that a plane has lost."""
    return [
        (each, _elsewhere(session.records[each], index))
        for each in gone
        if each in session.records
    ]


def _elsewhere(record: ObjectRecord, index: PlaneIndex) -> ObjectRecord | None:
    """Return what is left of a record without a plane; None if that is nothing."""
    if record.along is None:
        return None
    at = index[record.along]
    left = record if at is None else record.without_mark(at)
    return left if left.slices else None


def _box(session: Session, ids: Sequence[int]) -> Box:
    """Return a box around objects of the plane, those that are there."""
    return reduce(Box.union, _boxes(session, ids).values())


def _boxes(session: Session, ids: Sequence[int]) -> dict[int, Box]:
    """Find objects of the plane, those that are there, by their ids; one at least."""
    view, labels = session.view, session.labels
    if view is None or labels is None:
        raise InputError("there are no objects yet; keep one first")
    if len(ids) == 1 or hasattr(labels, "boxes"):  # a store knows where they lie
        asked = {each: labels.box_of(view.index, each) for each in ids}
        found = {each: box for each, box in asked.items() if box is not None}
    else:
        found = _search(labels, view.index, ids)
    if not found:
        raise InputError(f"no {_named(ids)} on this plane; choose another")
    return found


def _search(
    labels: LabelTarget, index: PlaneIndex, ids: Sequence[int]
) -> dict[int, Box]:
    """Find many objects in one pass over the plane."""
    sides = [n for n, each in zip(labels.shape, index, strict=True) if each is None]
    plane = labels.read(index, Box(0, 0, *sides))
    wanted = np.unique(np.asarray(ids, np.uint32))
    numbers = np.where(np.isin(plane, wanted), np.searchsorted(wanted, plane) + 1, 0)
    regions = ndimage.find_objects(numbers)
    return {
        number: Box(at[0].start, at[1].start, at[0].stop, at[1].stop)
        for number, at in zip(wanted.tolist(), regions, strict=False)
        if at is not None
    }


def _named(ids: Sequence[int]) -> str:
    if len(ids) > _MOST_NAMED:
        return f"{len(ids)} objects"
    noun = "object" if len(ids) == 1 else "objects"
    return f"{noun} {', '.join(map(str, ids))}"
