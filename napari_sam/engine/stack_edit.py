"""Objects of a stack on their way: followed in the worker, drawn as they come.

worker    follow(planes, stack, followed, ...) yields what it finds
here      StackEdit.take(value)     slices are drawn as they come
here      StackEdit.finish()        one step of the session's history
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.propagate import Propagation, SliceResult, propagate_in
from napari_sam.engine.records import ObjectRecord, SliceMark
from napari_sam.engine.request import PredictRequest, ShownMask
from napari_sam.engine.stack_objects import candidate_of, erased
from napari_sam.labels import LabelEdit, painted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_sam.engine.follow import PropagateConfig
    from napari_sam.engine.planes import Planes
    from napari_sam.engine.request import StackView
    from napari_sam.engine.stack_objects import Followed, StackObjects
    from napari_sam.labels import LabelTarget
    from napari_sam.masks import Candidate
    from napari_sam.prompts import Prompts


class Found(NamedTuple):
    """A piece of an object: one slice, or, at its end, all that is known of it."""

    object_id: int
    what: SliceResult | Propagation


@job
def follow(
    planes: Planes,
    stack: StackView,
    followed: Sequence[Followed],
    within: tuple[int, int],
    config: PropagateConfig | None = None,
) -> Job[None]:
    """Follow objects through a stack, in the worker.

    Parameters
    ----------
    planes : Planes
        The network, and where embeddings are kept.
    stack : StackView
    followed : sequence of Followed
    within : tuple of int
        First slice, and the one after the last.
    config : PropagateConfig, optional
        Thresholds.

    Yields
    ------
    Step
        Its value is a `Found`.

    Raises
    ------
    InputError
        If no slice of the range has a mask or prompts of an object.
    DeviceError
        If the device runs out of memory.
    """
    n = within[1] - within[0]
    for number, each in enumerate(followed):
        total, before = n * len(followed), n * number
        given: dict[int, Prompts | Candidate] = {**each.forbidden, **each.masks}
        for i, question in each.questions.items():
            asked = PredictRequest(0, stack.plane(i), (question,))
            (prediction,) = planes.answer(asked).predictions
            mask = ShownMask.of(prediction, None)
            if mask.mask.any():
                given[i] = candidate_of(mask)
        steps = propagate_in(
            planes.stack(stack),
            given,
            within=within,
            ends=each.ends,
            config=config,
            previous=each.previous,
        )
        with closing(steps):
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    found = Found(each.object_id, end.value)
                    yield Step(before + n, total, "propagate", found)
                    break
                found = Found(each.object_id, step.value)  # type: ignore[arg-type]
                yield Step(before + step.done, total, "propagate", found)


class StackEdit:
    """Slices of objects, drawn as they come and kept as one step.

    Parameters
    ----------
    objects : StackObjects
    stack, followed, within
        As in `follow`.
    by : hashable
        As in `StackObjects.recall`.
    made_by : mapping
        ``model`` and ``model_sha256`` of the records.
    """

    def __init__(
        self,
        objects: StackObjects,
        stack: StackView,
        followed: Sequence[Followed],
        within: tuple[int, int],
        by: object,
        made_by: Mapping[str, str | None],
    ) -> None:
        self._objects = objects
        self._session = objects.session
        self._labels = objects.session.labels
        self._stack = stack
        self._followed = {each.object_id: each for each in followed}
        self._within = within
        self._by = by
        self._made_by = dict(made_by)
        self._slices: dict[int, dict[int, SliceResult]] = {}
        self._whole: dict[int, Propagation] = {}
        self._drawn: list[LabelEdit] = []

    def take(self, found: Found) -> None:
        """Draw a slice, or note that an object is through."""
        object_id, what = found
        slices = self._slices.setdefault(object_id, {})
        if isinstance(what, SliceResult):
            slices[what.index] = what
            self._draw(object_id, what.index, what.found)
            return
        self._whole[object_id] = what
        for i in [i for i in slices if i not in what.slices]:
            del slices[i]  # beyond the end, which is known only now
            self._erase(object_id, i)
        for i, each in what.slices.items():
            if i not in slices:  # taken over from before
                slices[i] = each
                self._draw(object_id, i, each.found)

    def marks(self, object_id: int) -> tuple[SliceMark, ...]:
        """Return what is known of an object by now."""
        each = self._followed[object_id]
        return self._record(each).slices

    def finish(self) -> list[int]:
        """Keep what has been drawn, as one step.

        Returns
        -------
        list of int
            Ids of the objects; empty if nothing was found.
        """
        labels = self._labels
        if labels is None or not self._slices or self._session.labels is not labels:
            return []  # of other labels: pixels stay there, without an undo
        for number, whole in self._whole.items():
            self._erase_old(number, whole)
        kept = [_taken_back(labels, edit) for edit in reversed(self._drawn)][::-1]
        ids = list(self._slices)
        records = [(n, self._record(self._followed[n])) for n in ids]
        uses = [index for n in ids for index in self._followed[n].uses]
        names = f"object {ids[0]}" if len(ids) == 1 else f"{len(ids)} objects"
        self._session.edit_labels(f"follow {names}", kept, records, uses)
        for number, whole in self._whole.items():
            followed = self._followed[number]
            self._objects.remember(self._stack, followed, self._by, whole)
        self._session.committed.emit(ids)
        return ids

    def _draw(self, object_id: int, i: int, found: Candidate) -> None:
        if self._labels is None:
            return
        index = self._stack.index(i)
        old = self._labels.box_of(index, object_id)
        box = found.box if old is None else found.box.union(old)
        before = self._labels.read(index, box)
        overwrite = self._session.state.on_overlap == "overwrite"
        after = painted(before, found.within(box), object_id, overwrite=overwrite)
        self._show(LabelEdit(index, box, before, after))

    def _erase_old(self, object_id: int, whole: Propagation) -> None:
        """Take away what an earlier run found where the object is no longer."""
        if self._labels is None:
            return
        first, last = self._within
        for mark in self._objects.marks(self._stack, object_id):
            if first <= mark.at < last and mark.at not in whole.slices:
                self._erase(object_id, mark.at)

    def _erase(self, object_id: int, i: int) -> None:
        if self._labels is not None:
            edit = erased(self._labels, self._stack.index(i), object_id)
            if edit is not None:
                self._show(edit)

    def _show(self, edit: LabelEdit) -> None:
        if self._labels is not None and edit.n_changed:
            self._labels.draw([edit])
            self._drawn.append(edit)

    def _record(self, each: Followed) -> ObjectRecord:
        """Return the record of an object with what has been found by now."""
        number, (first, last) = each.object_id, self._within
        before = {m.at: m for m in self._objects.marks(self._stack, number)}
        whole = self._whole.get(number)
        marks = dict(before)
        if whole is not None:
            marks = {at: m for at, m in before.items() if not first <= at < last}
        marks |= {at: SliceMark(at=at, state="end") for at in each.ends}
        for i, found in self._slices.get(number, {}).items():
            marks[i] = _mark_of(found, each.previous, before.get(i))
        for stop in [] if whole is None else whole.stops:
            inside = 0 <= stop.index < self._stack.n and first <= stop.index < last
            if inside and stop.index not in marks:
                marks[stop.index] = SliceMark(
                    at=stop.index, state="stopped", reason=stop.reason
                )
        update: dict[str, object] = {
            "along": self._stack.axis,
            "slices": tuple(marks[at] for at in sorted(marks)),
            **self._made_by,
        }
        if self._stack.position(each.record.index) is None:
            # seen along another axis: its prompts belong to other planes
            index = self._stack.index(min(each.masks, default=self._stack.here))
            update |= {"index": index, "points": (), "positive": (), "shapes": ()}
        return each.record.model_copy(update=update)


def _mark_of(
    found: SliceResult, previous: Propagation | None, before: SliceMark | None
) -> SliceMark:
    """Return the mark of a slice; one that did not change stays checked."""
    old = None if previous is None else previous.slices.get(found.index)
    score: float | None = round(found.found.predicted_iou, 4)
    if found.state == "bridged" or np.isnan(found.found.predicted_iou):
        score = None
    return SliceMark(
        at=found.index,
        state=found.state,
        is_suspicious=found.is_suspicious,
        is_checked=before is not None and before.is_checked and old is found,
        predicted_iou=score,
    )


def _taken_back(labels: LabelTarget, edit: LabelEdit) -> LabelEdit:
    """Take a drawn edit back; return it without pixels that were changed since."""
    now = labels.read(edit.index, edit.box)
    ours = (now == edit.after) & (edit.before != edit.after)
    then = np.where(ours, edit.before, now).astype(np.uint32)
    labels.draw([LabelEdit(edit.index, edit.box, now, then)])
    after = np.where(ours, edit.after, edit.before).astype(np.uint32)
    return LabelEdit(edit.index, edit.box, edit.before, after)
