"""Objects of a stack in a session: what is followed, what comes back, what is known.

    user      prompts in some slices, or an object of the labels
    here      StackObjects.current(stack), .all_here(stack) -> what to follow, frozen
    worker    follow(planes, stack, followed, ...) yields what it finds
    here      StackEdit.take(value)     slices are drawn as they come
    here      StackEdit.finish()        one step of the session's history

What the user has made in a slice, with prompts or the brush, is obeyed as it is in the
labels; what was computed may be computed anew. Which is which is kept in the records of
the session, so that undo and saved sessions know it, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.draft import resolve
from napari_sam.engine.records import ObjectRecord, SliceMark, only_difference
from napari_sam.errors import InputError
from napari_sam.labels import LabelEdit, painted
from napari_sam.masks import Candidate
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_sam.engine.draft import Draft, Question
    from napari_sam.engine.propagate import Propagation
    from napari_sam.engine.request import ShownMask, StackView
    from napari_sam.engine.session import Session
    from napari_sam.labels import LabelTarget, PlaneIndex


@dataclass(frozen=True, slots=True, eq=False)
class Followed:
    """An object that is to be followed, and all that is known of it.

    Parameters
    ----------
    record : ObjectRecord
        How it was made so far.
    masks : dict of int to Candidate
        By slice: what the user has made.
    questions : dict of int to Question
        By slice: prompts of other slices that are still to be asked.
    forbidden : dict of int to Prompts
        By slice: negative points alone.
    ends : frozenset of int
        Slices that the user has marked to be without the object.
    uses : tuple of PlaneIndex
        Planes whose prompts become the object.
    previous : Propagation, optional
        What was found before, with the same thresholds.
    """

    record: ObjectRecord
    masks: dict[int, Candidate]
    questions: dict[int, Question] = field(default_factory=dict)
    forbidden: dict[int, Prompts] = field(default_factory=dict)
    ends: frozenset[int] = frozenset()
    uses: tuple[PlaneIndex, ...] = ()
    previous: Propagation | None = None

    @property
    def object_id(self) -> int:
        """Id of the object in the labels."""
        return self.record.object_id


class StackObjects:
    """What a session knows of the objects of its stack.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._previous: dict[tuple[object, ...], Propagation] = {}

    def current(
        self, stack: StackView, within: tuple[int, int], object_id: int = 0
    ) -> tuple[Followed, ...]:
        """Return what to follow: the prompts in this stack, or an object of it.

        Prompts on the plane that is looked at come first: the masks that are shown
        there are taken as they are. Prompts of other slices belong to the same
        object.

        Parameters
        ----------
        stack : StackView
        within : tuple of int
            First slice, and the one after the last.
        object_id : int
            The object that is meant if nothing is pointed at here.

        Returns
        -------
        tuple of Followed
            Several only if several shapes are drawn here.

        Raises
        ------
        InputError
            If there is nothing to follow, or the answer is still to come.
        """
        session, labels = self._session, self._labels()
        drafts = {}
        for index, draft in session.drafts_by_plane().items():
            i = stack.position(index)
            if i is not None and i in range(*within):
                drafts[i] = draft
        here = drafts.get(stack.here)
        starts = {i: d for i, d in drafts.items() if resolve(d, stack.view.shape)}
        if stack.here in starts and (session.is_waiting or not session.masks):
            raise InputError("the mask of this slice is still to come; wait a moment")
        if here is not None and len(session.masks) > 1:
            ids = labels.fresh_ids(len(session.masks))
            return tuple(
                Followed(
                    record,
                    {stack.here: self._kept(stack, shown, record.object_id)},
                    uses=(stack.view.index,),
                )
                for record, shown in zip(
                    session.preview_records(ids), session.masks, strict=True
                )
            )
        if here is not None and stack.here in starts:
            owner = here.object_id
        elif object_id and self._is_here(stack, object_id):
            owner = object_id
        elif starts:
            nearest = min(starts, key=lambda i: abs(i - stack.here))
            owner = starts[nearest].object_id
        else:
            raise InputError(
                "nothing to follow: point at an object in this slice, or choose one "
                "that has been kept (its label in the Labels layer)"
            )
        return (self._prompted(stack, within, owner, drafts),)

    def all_here(
        self, stack: StackView, within: tuple[int, int]
    ) -> tuple[Followed, ...]:
        """Return every object of the plane that is looked at.

        Parameters
        ----------
        stack, within
            As in `current`.

        Raises
        ------
        InputError
            If the plane has no object.
        """
        labels = self._labels()
        plane = labels.read(stack.view.index, Box.whole(stack.view.shape))
        ids = np.unique(plane[plane > 0]).tolist()
        if not ids:
            raise InputError(
                "this slice has no objects; find or keep some first, then follow them"
            )
        return tuple(self._prompted(stack, within, each, {}) for each in ids)

    def marks(self, stack: StackView, object_id: int) -> tuple[SliceMark, ...]:
        """Return what is known of an object in the slices of a stack."""
        record = self._session.records.get(object_id)
        if record is None or record.along != stack.axis:
            return ()
        in_line = record.index == stack.view.index or (
            only_difference(record.index, stack.view.index) == stack.axis
        )
        return record.slices if in_line else ()

    def check(self, stack: StackView, object_id: int, *, checked: bool) -> None:
        """Note that the user has looked at the slice, or take that back.

        Raises
        ------
        InputError
            If nothing is known of the object in this slice.
        """
        record = self._session.records.get(object_id)
        mark = next(
            (m for m in self.marks(stack, object_id) if m.at == stack.here), None
        )
        if record is None or mark is None:
            raise InputError(
                f"nothing is known of object {object_id} in slice {stack.here}; follow "
                "it first"
            )
        mark = mark.model_copy(update={"is_checked": checked})
        word = "checked" if checked else "not checked"
        self._session.edit_labels(
            f"mark slice {stack.here} of object {object_id} as {word}",
            [],
            [(object_id, record.with_marks([mark]))],
        )

    def end_here(self, stack: StackView, object_id: int) -> None:
        """Note that this slice is without the object: it and what lies beyond go.

        Between two slices that the user has made, only this one goes.

        Raises
        ------
        InputError
            If the object has not been followed in this stack, or nothing would be
            left of it.
        """
        labels = self._labels()
        marks = self.marks(stack, object_id)
        here = stack.here
        made = [m.at for m in marks if m.state == "prompted" and m.at != here]
        if not made:
            raise InputError(
                f"object {object_id} has no other slice with prompts that could stay; "
                "follow it first, or delete it"
            )
        gone = [here]
        if all(at < here for at in made):
            gone += [m.at for m in marks if m.at > here]
        elif all(at > here for at in made):
            gone += [m.at for m in marks if m.at < here]
        edits = [
            edit
            for at in sorted(gone)
            if (edit := erased(labels, stack.index(at), object_id)) is not None
        ]
        record = self._session.records[object_id]
        for at in gone:
            record = record.without_mark(at)
        record = record.with_marks([SliceMark(at=here, state="end")])
        self._session.edit_labels(
            f"end object {object_id} at slice {here}", edits, [(object_id, record)]
        )

    def delete(self, stack: StackView, object_id: int) -> None:
        """Delete an object in all slices that it is known in.

        Raises
        ------
        InputError
            If the object has not been followed in this stack.
        """
        labels = self._labels()
        marks = self.marks(stack, object_id)
        if not marks:
            raise InputError(f"object {object_id} has not been followed in this stack")
        edits = [
            edit
            for mark in marks
            if (edit := erased(labels, stack.index(mark.at), object_id)) is not None
        ]
        self._session.edit_labels(
            f"delete object {object_id} in all slices", edits, [(object_id, None)]
        )

    def recall(
        self, stack: StackView, followed: Sequence[Followed], by: object
    ) -> tuple[Followed, ...]:
        """Add what was found before with the same network and thresholds.

        Parameters
        ----------
        stack, followed
            As in `follow`.
        by : hashable
            Network and thresholds.
        """
        return tuple(
            replace(each, previous=self._previous.get(_place(stack, each, by)))
            for each in followed
        )

    def remember(
        self, stack: StackView, each: Followed, by: object, found: Propagation
    ) -> None:
        """Keep what was found for the next time.

        Parameters
        ----------
        stack, by
            As in `recall`.
        each : Followed
            The object.
        found : Propagation
        """
        self._previous[_place(stack, each, by)] = found

    @property
    def session(self) -> Session:
        """The session."""
        return self._session

    def _labels(self) -> LabelTarget:
        if self._session.labels is None:
            raise InputError("no labels are chosen; choose a Labels layer in the panel")
        return self._session.labels

    def _is_here(self, stack: StackView, object_id: int) -> bool:
        if self.marks(stack, object_id):
            return True
        return self._labels().box_of(stack.view.index, object_id) is not None

    def _prompted(
        self,
        stack: StackView,
        within: tuple[int, int],
        owner: int | None,
        drafts: Mapping[int, Draft],
    ) -> Followed:
        """Put together what is known of an object; None is a new one."""
        session, labels = self._session, self._labels()
        object_id = labels.fresh_ids(1)[0] if owner is None else owner
        masks, ends = self._made(stack, within, owner or 0)
        questions: dict[int, Question] = {}
        forbidden: dict[int, Prompts] = {}
        uses: list[PlaneIndex] = []
        record = session.records.get(object_id)
        for i, draft in sorted(drafts.items()):
            asked = resolve(draft, stack.view.shape)
            if asked and draft.object_id != owner:
                continue  # of another object
            uses.append(stack.index(i))
            if not asked:
                points = draft.points[~draft.positive]
                forbidden[i] = Prompts(points, [False] * len(points))
            elif i == stack.here:
                masks[i] = self._kept(stack, session.masks[0], object_id)
                (record,) = session.preview_records([object_id])
            else:
                questions[i] = asked[0]
        if not masks and not questions:
            raise InputError(
                f"no slice of the range has prompts or a mask of object {object_id}; "
                "point at it in this slice"
            )
        if record is None:
            first = min([*masks, *questions])
            record = ObjectRecord(object_id=object_id, index=stack.index(first))
        followed = Followed(record, masks, questions, forbidden, frozenset(ends))
        return replace(followed, uses=tuple(uses))

    def _made(
        self, stack: StackView, within: tuple[int, int], object_id: int
    ) -> tuple[dict[int, Candidate], set[int]]:
        """Return what the user has made of an object: masks by slice, and its ends."""
        masks: dict[int, Candidate] = {}
        ends: set[int] = set()
        if not object_id:
            return masks, ends
        labels = self._labels()
        marks = {mark.at: mark for mark in self.marks(stack, object_id)}
        made = {at for at, m in marks.items() if m.state in ("prompted", "end")}
        if stack.here not in marks or not made:
            made.add(stack.here)  # nobody computed it, or the user goes on from there
        for at in sorted(made & set(range(*within))):
            mask = mask_of(labels, stack.index(at), object_id)
            if mask is not None:
                masks[at] = replace(
                    mask, predicted_iou=self._score(stack, object_id, at)
                )
            elif at in marks:
                ends.add(at)
        if not masks:
            mask = mask_of(labels, stack.view.index, object_id)
            masks = {} if mask is None else {stack.here: mask}
        return masks, ends

    def _score(self, stack: StackView, object_id: int, at: int) -> float:
        """Return the network's estimate of a slice of the labels; NaN if not known."""
        record = self._session.records.get(object_id)
        mark = next((m for m in self.marks(stack, object_id) if m.at == at), None)
        score = None if mark is None else mark.predicted_iou
        if score is None and record is not None and record.index == stack.index(at):
            score = record.predicted_iou
        return float("nan") if score is None else score

    def _kept(self, stack: StackView, shown: ShownMask, object_id: int) -> Candidate:
        """Return a mask as it will be in the labels."""
        overwrite = self._session.state.on_overlap == "overwrite"
        before = self._labels().read(stack.view.index, shown.box)
        after = painted(before, shown.mask, object_id, overwrite=overwrite)
        kept = candidate_of(shown).with_mask(after == object_id)
        if not kept.area:
            raise InputError(
                "the object would have no pixel: its mask is empty, or other objects "
                "cover it; move the prompts, or choose to overwrite"
            )
        return kept


def candidate_of(shown: ShownMask) -> Candidate:
    """Return a mask of the preview as a mask to be followed."""
    return Candidate(shown.box, shown.mask, shown.predicted_iou, shown.stability)


def next_doubtful(marks: Iterable[SliceMark], here: int) -> int | None:
    """Return the next slice to look at, from the first one again after the last.

    Parameters
    ----------
    marks : iterable of SliceMark
    here : int
        The slice that is looked at.

    Returns
    -------
    int or None
        None if no slice is doubtful.
    """
    doubtful = sorted(each.at for each in marks if each.is_doubtful)
    beyond = [at for at in doubtful if at > here]
    return next(iter(beyond or doubtful), None)


def mask_of(labels: LabelTarget, index: PlaneIndex, object_id: int) -> Candidate | None:
    """Return an object of a plane of labels; None if it is not there."""
    box = labels.box_of(index, object_id)
    if box is None:
        return None
    return Candidate(box, labels.read(index, box) == object_id)


def erased(labels: LabelTarget, index: PlaneIndex, object_id: int) -> LabelEdit | None:
    """Return the edit that takes an object from a plane; None if it is not there."""
    box = labels.box_of(index, object_id)
    if box is None:
        return None
    before = labels.read(index, box)
    after = np.where(before == object_id, 0, before).astype(np.uint32)
    return LabelEdit(index, box, before, after)


def _place(stack: StackView, each: Followed, by: object) -> tuple[object, ...]:
    view = stack.view
    row = stack.index(0)
    return view.image_key, view.intensity, stack.axis, row, each.object_id, by
