"""Labels of single planes of a session to objects of its stack, as one step.

worker    link_stack(labels, stack, within, records) reads, links and draws anew
here      session.edit_labels(...) with what it returns

An object keeps the lowest id that its cross-sections had, so that one that was followed
or named before stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.records import ObjectRecord, SliceMark
from napari_sam.errors import InputError
from napari_sam.images import find_intensity, read_rgb
from napari_sam.labels import LabelEdit, PackedEdits
from napari_sam.link import SliceLinker, TrackLinker
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from napari_sam.engine.request import StackView
    from napari_sam.labels import LabelTarget, PlaneIndex

    Labels = NDArray[np.integer]


@dataclass(frozen=True, slots=True, eq=False)
class LinkEdit:
    """What linking changes; nothing has been written yet.

    Parameters
    ----------
    n_objects : int
        In the stack, as linked.
    edits : PackedEdits
    records : list of (int, ObjectRecord or None)
        As `Session.edit_labels` takes them.
    """

    n_objects: int
    edits: PackedEdits
    records: list[tuple[int, ObjectRecord | None]]


@job
def link_stack(
    labels: LabelTarget,
    stack: StackView,
    within: tuple[int, int],
    records: Mapping[int, ObjectRecord],
) -> Job[LinkEdit]:
    """Link the objects of all planes of a stack.

    Parameters
    ----------
    labels : LabelTarget
        Read twice, plane by plane; a few planes are held at a time, and what changes
        compressed, to be taken back.
    stack : StackView
        Along z, cross-sections become bodies; along t, objects become tracks.
    within : tuple of int
        First slice, and the one after the last.
    records : mapping of int to ObjectRecord
        How objects were made.

    Yields
    ------
    Step
        After each plane, both times.

    Returns
    -------
    LinkEdit

    Raises
    ------
    InputError
        If no plane has an object.
    """
    first, last = within
    n = last - first
    whole = Box.whole(stack.view.shape)

    def read(i: int) -> Labels:
        return labels.read(stack.index(first + i), whole)

    intensity = stack.view.intensity or find_intensity(stack.source)

    def gray(i: int) -> NDArray[np.float64]:
        rgb = read_rgb(stack.source, intensity, plane=stack.plane(first + i).plane)
        light: NDArray[np.float64] = rgb.mean(axis=-1)
        return light

    draw = yield from _linked(read, gray, n, stack.along)
    planes: dict[int, list[int]] = {}  # of each object
    had: dict[int, set[int]] = {}
    drawn = PackedEdits()
    for i in range(n):
        before, after = read(i), draw(i)
        pairs = np.unique(np.stack([after, before])[:, after > 0], axis=1)
        for number, old in pairs.T.tolist():
            had.setdefault(number, set()).add(old)
            if i not in planes.setdefault(number, [])[-1:]:
                planes[number].append(i)
        drawn.append(_edit(stack.index(first + i), before, after))
        yield Step(n + i + 1, 2 * n, "link")
    if not planes:
        raise InputError(
            "no slice has an object; find all objects of all planes first, then link "
            "them"
        )
    names = _names(had, labels)
    edits = PackedEdits()
    for edit in drawn:
        named = replace(edit, after=names[edit.after])
        if named.n_changed:
            edits.append(named)
    ids = {int(names[number]): [first + i for i in at] for number, at in planes.items()}
    gone = set().union(*had.values()) - ids.keys() - {0}
    return LinkEdit(len(ids), edits, _records(ids, gone, stack, records))


def _linked(
    read: Callable[[int], Labels],
    gray: Callable[[int], NDArray[np.float64]],
    n: int,
    along: str,
) -> Job[Callable[[int], Labels]]:
    """Return what draws a plane with the numbers of linked objects, from 1."""
    if along == "t":
        frames = TrackLinker()
        for i in range(n):
            frames.add([read(i)])
            yield Step(i + 1, 2 * n, "link")
        tracks = frames.solve()
        return lambda i: tracks.plane(read(i), i)
    slices = SliceLinker()
    for i in range(n):
        slices.add(read(i), gray(i))
        yield Step(i + 1, 2 * n, "link")
    bodies = slices.solve()
    return lambda i: bodies.plane(i, read)


def _edit(index: PlaneIndex, before: Labels, after: Labels) -> LabelEdit:
    """Leave out the rim of a plane that has no object."""
    box = Box.around((before > 0) | (after > 0)) or Box(0, 0, 0, 0)
    old, new = (each[box.slices].astype(np.uint32) for each in (before, after))
    return LabelEdit(index, box, old, new)


def _names(had: Mapping[int, set[int]], labels: LabelTarget) -> NDArray[np.uint32]:
    """Return the id of each object: the lowest of its old ones, each taken once."""
    names = np.zeros(max(had) + 1, np.uint32)
    taken: set[int] = set()
    nameless = []
    for number in sorted(had):
        free = sorted(had[number] - taken - {0})
        if free:
            names[number] = free[0]
            taken.add(free[0])
        else:
            nameless.append(number)
    names[nameless] = labels.fresh_ids(len(nameless)) if nameless else []
    return names


def _records(
    ids: Mapping[int, list[int]],
    gone: Iterable[int],
    stack: StackView,
    records: Mapping[int, ObjectRecord],
) -> list[tuple[int, ObjectRecord | None]]:
    """Note in which slices objects are; what the user made there stays known."""
    changed: list[tuple[int, ObjectRecord | None]] = []
    for number, at in sorted(ids.items()):
        record = records.get(number)
        if record is None or stack.position(record.index) is None:
            record = ObjectRecord(object_id=number, index=stack.index(at[0]))
        known = {mark.at: mark for mark in record.slices}
        if record.along != stack.axis:
            known = {}
        marks = [known.get(i, SliceMark(at=i, state="computed")) for i in at]
        update = {"along": stack.axis, "slices": tuple(marks)}
        changed.append((number, record.model_copy(update=update)))
    for number in sorted(gone):
        record = records.get(number)
        if record is not None and stack.position(record.index) is not None:
            changed.append((number, None))
    return changed
