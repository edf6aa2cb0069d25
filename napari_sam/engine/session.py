"""The state of one annotation: what is looked at, pointed at, shown and committed.

    user      set_points, set_shapes, open_object      the draft changes
    session   request(PredictRequest)                  frozen, with the next number
    worker    Planes.answer(request) -> PredictResult  another thread, no shared state
    session   receive(result)                          an old number is dropped
    session   preview(masks)
    session   complete_wanted(CompleteRequest)         where a crop may cut an object
    worker    Planes.complete(wanted)
    session   receive_whole(wanted, found)             an old number is dropped
    user      commit                                   a LabelEdit into the labels

No window, no thread and no torch in here: `request` is a signal, and whoever listens
brings the answer to `receive`. A session lives in one thread.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np
from psygnal import Signal, SignalGroupDescriptor
from pydantic import BaseModel, ConfigDict

from napari_sam.engine.draft import (
    Draft,
    Feedback,
    PlaneMask,
    Question,
    Shape,
    polygon_area,
    resolve,
)
from napari_sam.engine.history import History, Step
from napari_sam.engine.records import ObjectRecord, asked_with
from napari_sam.engine.request import (
    CompleteRequest,
    PlaneView,
    PredictRequest,
    PredictResult,
    ShownMask,
)
from napari_sam.errors import InputError
from napari_sam.labels import (
    LabelEdit,
    LabelTarget,
    PlaneIndex,
    covered,
    painted,
)
from napari_sam.prompts.prompt import Prompts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import ArrayLike

    from napari_sam.engine.predict import Prediction

OnOverlap: TypeAlias = Literal["keep", "overwrite", "ask"]


class SessionState(BaseModel):
    """What the user has set; every change is a signal of `events`.

    Parameters
    ----------
    positive : bool
        Kind of the next point.
    on_overlap : {"keep", "overwrite", "ask"}
        What happens to pixels of other objects when one is committed.
    diameter : int
        Of a typical object, in plane pixels; 0 where nothing was said.
    """

    model_config = ConfigDict(validate_assignment=True, extra="forbid")
    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    positive: bool = True
    on_overlap: OnOverlap = "keep"
    diameter: int = 0


class Session:
    """One annotation, from the first click to the last undo.

    Parameters
    ----------
    view : PlaneView, optional
        The plane that is looked at.
    labels : LabelTarget, optional
        Where objects are committed to.

    Signals
    -------
    view_changed : PlaneView or None
    draft_changed : Draft
        After a click, an undo, a change of the plane.
    request : PredictRequest
        Somebody should answer, and call `receive`.
    complete_wanted : CompleteRequest
        Somebody may look again at what is shown, and call `receive_whole`.
    preview : tuple of ShownMask
        One for each object that is asked for; empty if there is nothing to show.
    committed : list of int
        Ids of new or changed objects.
    labels_changed : sequence of LabelEdit
        Also after undo and redo; empty if what changed is not known.
    records_changed, history_changed : no argument
    view_wanted : PlaneView
        Undo changes another plane; whoever shows planes should show this one.
    labels_wanted : LabelTarget
        Undo changes other labels; whoever chooses labels should choose these.
    """

    view_changed = Signal(object)
    draft_changed = Signal(object)
    request = Signal(object)
    complete_wanted = Signal(object)
    preview = Signal(tuple)
    committed = Signal(list)
    labels_changed = Signal(object)
    records_changed = Signal()
    history_changed = Signal()
    view_wanted = Signal(object)
    labels_wanted = Signal(object)

    def __init__(
        self, view: PlaneView | None = None, labels: LabelTarget | None = None
    ) -> None:
        self.state = SessionState()
        self.history = History()
        self.records: dict[int, ObjectRecord] = {}
        self.masks: tuple[ShownMask, ...] = ()
        self._view = view
        self._labels = labels
        self._drafts: dict[tuple[object, PlaneIndex], Draft] = {}
        self._generation = 0
        self._answer: PredictResult | None = None
        self._asked: Draft | None = None  # the draft that the answer belongs to
        self._choice: int | None = None
        self._open_questions = False
        self._request: PredictRequest | None = None
        # what was made whole: by number of the question, and of the answer
        self._whole: dict[tuple[int, int], Prediction] = {}

    @property
    def view(self) -> PlaneView | None:
        """The plane that is looked at."""
        return self._view

    @property
    def labels(self) -> LabelTarget | None:
        """Where objects are committed to."""
        return self._labels

    @property
    def draft(self) -> Draft:
        """The prompts on this plane that are not committed yet."""
        if self._view is None:
            return Draft()
        return self._drafts.get(self._view.place, Draft())

    def drafts_by_plane(self) -> dict[PlaneIndex, Draft]:
        """Return the prompts of all planes of the image that are not committed yet."""
        if self._view is None:
            return {}
        key = self._view.image_key
        return {index: each for (of, index), each in self._drafts.items() if of == key}

    def restore(
        self,
        drafts: Mapping[PlaneIndex, Draft],
        records: Mapping[int, ObjectRecord],
    ) -> None:
        """Go on with what was saved; the history begins anew.

        Raises
        ------
        InputError
            If there is no image.
        """
        if self._view is None:
            raise InputError("no image to go on with; open the image first")
        key = self._view.image_key
        others = {at: each for at, each in self._drafts.items() if at[0] != key}
        self._drafts = others | {(key, index): each for index, each in drafts.items()}
        self.records = dict(records)
        self.history = History()
        self.history_changed.emit()
        self.records_changed.emit()
        self.set_view(self._view)

    @property
    def is_waiting(self) -> bool:
        """Whether an answer is still to come."""
        return self._answer is None and self._open_questions

    def set_view(self, view: PlaneView | None) -> None:
        """Look at another plane, or at the same one with another intensity.

        Prompts of a plane stay there and are asked again on return.
        """
        self._view = view
        self.view_changed.emit(view)
        self.draft_changed.emit(self.draft)
        self.ask()

    def set_labels(
        self,
        labels: LabelTarget | None,
        records: Mapping[int, ObjectRecord] | None = None,
    ) -> None:
        """Commit to other labels.

        Parameters
        ----------
        labels : LabelTarget or None
        records : mapping of int to ObjectRecord, optional
            How their objects were made.
        """
        self._labels = labels
        self.records = dict(records or {})
        self.records_changed.emit()

    def set_points(self, points: ArrayLike, positive: ArrayLike) -> None:
        """Replace the points of the draft.

        Where points were only added, the answer so far is refined. A point that was
        moved or removed must not live on in it, so the network begins anew.

        Parameters
        ----------
        points : (N, 2) array, (y, x), plane pixels
        positive : (N,) array of bool
        """
        old = self.draft
        new = old.with_points(points, positive)
        if new.extends(old):
            new = replace(new, feedback=self._feedback() or old.feedback)
        if len(new.points) != len(old.points):
            added = len(new.points) > len(old.points)
            what = "add a point" if added else "remove a point"
        else:
            what = "change a point"
        self._change(what, new)

    def set_shapes(self, shapes: Iterable[Shape]) -> None:
        """Replace the shapes of the draft; several are several objects."""
        new = replace(self.draft, shapes=tuple(shapes), feedback=None)
        self._change("change the shapes", new)

    def open_object(self, object_id: int) -> None:
        """Take an object of the labels up again, to refine it.

        Its pixels stay until the new mask is committed. Prompts that were not
        committed are dropped.

        Raises
        ------
        InputError
            If the plane has no such object.
        """
        view, labels = self._ready()
        box = labels.box_of(view.index, object_id)
        if object_id < 1 or box is None:
            raise InputError(f"no object {object_id} on this plane; choose another")
        mask = labels.read(view.index, box) == object_id
        record = self.records.get(object_id)
        draft = Draft(object_id=object_id, start=PlaneMask(box, mask))
        if record is not None and record.index == view.index:
            draft = draft.with_points(record.points, record.positive)
        self._change(f"open object {object_id}", draft)

    def ask_again(self, object_id: int) -> None:
        """Ask for an object with the prompts that made it, and nothing else.

        So another network answers as it would have answered then. The pixels stay
        until the new mask is committed.

        Raises
        ------
        InputError
            If the object has no prompts, or was made on another plane.
        """
        view, _ = self._ready()
        record = self.records.get(object_id)
        if record is None or not (record.points or record.shapes):
            raise InputError(
                f"object {object_id} was not made from prompts; open it again instead"
            )
        if record.index != view.index:
            raise InputError(
                f"object {object_id} was made on plane {record.index}; go there first"
            )
        shapes = [
            Shape(each.kind, np.array(each.corners, np.float32))
            for each in record.shapes
        ]
        draft = Draft(object_id=object_id, shapes=tuple(shapes))
        draft = draft.with_points(record.points, record.positive)
        self._change(f"ask for object {object_id} again", draft)

    def point_at(self, draft: Draft) -> None:
        """Replace the draft by prompts from elsewhere: of a file, or of a layer."""
        self._change("load prompts", draft)

    def reject(self) -> None:
        """Drop the prompts that are not committed; labels do not change."""
        if not self.draft.is_empty:
            self._change("reject the prompts", Draft())

    def choose(self, answer: int) -> None:
        """Show another of the answers to an ambiguous click.

        Parameters
        ----------
        answer : int
            From 0; a number without answer changes nothing.
        """
        if self.masks and answer < self.masks[0].n_answers:
            self._choice = answer
            self._show()
            self._want_whole()

    def choose_next(self, step: int) -> None:
        """Show the answer after this one, or before it; after the last the first."""
        if self.masks:
            n_answers = self.masks[0].n_answers
            self.choose((self.masks[0].answer + step) % n_answers)

    @property
    def scores(self) -> tuple[tuple[float, float], ...]:
        """Predicted IoU and stability of each answer, where one object is shown."""
        if self._answer is None or len(self._answer.predictions) != 1:
            return ()
        found = self._answer.predictions[0]
        pairs = zip(found.predicted_iou.tolist(), found.stability.tolist(), strict=True)
        return tuple(pairs)

    def typical_diameter(self) -> float | None:
        """Return the size of what is drawn, or else of what is shown.

        Returns
        -------
        float or None
            Diameter of a disc of the same area, in plane pixels; of several objects
            their median. None if nothing is there.
        """
        areas = [
            float(np.ptp(corners, axis=0).prod())
            if each.kind == "box"
            else polygon_area(corners)
            for each in self.draft.shapes
            for corners in [each.corners]
            if each.kind != "line"
        ]
        if not areas:
            areas = [float(np.count_nonzero(each.mask)) for each in self.masks]
        sizes = [2 * math.sqrt(area / math.pi) for area in areas if area > 0]
        return float(np.median(sizes)) if sizes else None

    def ask(self) -> None:
        """Ask for the masks of the draft again, for example with another network."""
        self._generation += 1
        self._answer, self._asked, self._choice = None, None, None
        self._whole.clear()
        questions = self._questions()
        self._open_questions = bool(questions)
        if not questions or self._view is None:
            self._show()
            return
        self._request = PredictRequest(self._generation, self._view, questions)
        self.request.emit(self._request)

    def peek(self, point: tuple[float, float] | None) -> None:
        """Show what a click would give, where nothing is pointed at yet.

        Parameters
        ----------
        point : tuple of float or None
            (y, x), plane pixels; None shows nothing.
        """
        if self._view is None or not self.draft.is_empty:
            return
        if point is None:
            self.ask()
            return
        self._generation += 1
        self._answer, self._open_questions = None, True
        self._request = None  # what is under the mouse is not looked at twice
        self._whole.clear()
        questions = (Question(Prompts(points=[point])),)
        self.request.emit(PredictRequest(self._generation, self._view, questions))

    def receive(self, result: PredictResult) -> bool:
        """Take an answer.

        Returns
        -------
        bool
            False if it was stale and has been dropped.
        """
        if result.generation != self._generation:
            return False
        self._answer, self._asked = result, self.draft
        self._show()
        self._want_whole()
        return True

    def receive_whole(
        self, wanted: CompleteRequest, found: Mapping[int, Prediction]
    ) -> bool:
        """Take objects that were looked at again.

        Parameters
        ----------
        wanted : CompleteRequest
        found : mapping of int to Prediction
            By number of the question; those that were whole already are not in it.

        Returns
        -------
        bool
            False if they were stale and have been dropped.
        """
        if wanted.request.generation != self._generation:
            return False
        for number, whole in found.items():
            self._whole[number, wanted.predictions[number].best] = whole
        self._show()
        return True

    def overlap(self) -> dict[int, int]:
        """Count the pixels of committed objects that the preview covers, by id."""
        view, labels = self._ready()
        found: dict[int, int] = {}
        for shown in self.masks:
            region = labels.read(view.index, shown.box)
            for each, n in covered(region, shown.mask, self.draft.object_id).items():
                found[each] = found.get(each, 0) + n
        return found

    def commit(self, *, overwrite: bool | None = None) -> list[int]:
        """Make the masks shown objects of the labels.

        Parameters
        ----------
        overwrite : bool, optional
            Whether pixels of other objects are taken. Default: as the state says;
            "ask" counts as no.

        Returns
        -------
        list of int
            Ids of the objects; empty if there was nothing to commit.

        Raises
        ------
        InputError
            If there are no labels, or the objects would have no pixel.
        """
        view, labels = self._ready()
        result, draft = self._answer, self.draft
        if result is None or not self.masks or draft.is_empty:
            return []
        if overwrite is None:
            overwrite = self.state.on_overlap == "overwrite"
        ids = self._ids(labels, draft)
        edits: list[LabelEdit] = []
        made: list[int] = []
        for number, shown in zip(ids, self.masks, strict=True):
            edit = _object_edit(labels, view, shown, number, edits, overwrite=overwrite)
            if (edit.after == number).any():
                edits.append(edit)
                made.append(number)
        if not made:
            raise InputError(
                "the object would have no pixel: its mask is empty, or other objects "
                "cover it; move the prompts, or choose to overwrite"
            )
        records = [
            (each.object_id, self.records.get(each.object_id), each)
            for each in self.preview_records(ids)
            if each.object_id in made
        ]
        word = "object" if len(made) == 1 else "objects"
        what = f"commit {word} {', '.join(map(str, made))}"
        self._edit(what, edits, records, after=Draft())
        self.committed.emit(made)
        return made

    def preview_records(self, ids: Sequence[int]) -> list[ObjectRecord]:
        """Return how the masks shown were made, if they became objects.

        Parameters
        ----------
        ids : sequence of int
            One for each of `masks`.
        """
        result, draft = self._answer, self.draft
        if result is None:
            return []
        return [
            self._record(n, i, question.given or draft, result)
            for i, (n, question) in enumerate(zip(ids, self._questions(), strict=True))
        ]

    def assign(self, object_id: int) -> None:
        """Let the prompts of this plane be those of an object of other planes.

        Raises
        ------
        InputError
            If there are no prompts.
        """
        if self.draft.is_empty:
            raise InputError("no prompts here; point at the object first")
        draft = replace(self.draft, object_id=object_id)
        self._change(f"give the prompts to object {object_id}", draft)

    def edit_labels(
        self,
        what: str,
        edits: Sequence[LabelEdit],
        records: Sequence[tuple[int, ObjectRecord | None]] = (),
        uses: Collection[PlaneIndex] = (),
    ) -> None:
        """Change labels as one step that can be undone: merge, split, a whole run.

        Parameters
        ----------
        what : str
            For people: "merge objects 2, 3".
        edits : sequence of LabelEdit
        records : sequence of (int, ObjectRecord or None)
            New records of objects; None removes one.
        uses : collection of PlaneIndex
            Planes of the image whose prompts have become objects.
        """
        changes = [(n, self.records.get(n), new) for n, new in records]
        key = None if self._view is None else self._view.image_key
        used = {(key, index): self._drafts.get((key, index)) for index in uses}
        drafts = {place: draft for place, draft in used.items() if draft is not None}
        after = self.draft
        if self._view is not None and drafts.pop(self._view.place, None) is not None:
            after = Draft()
        self._edit(what, edits, changes, after, drafts)

    def note_hand_edit(self, object_ids: Iterable[int]) -> None:
        """Note that the user has painted; the pixels are in the labels already.

        A stroke in the 3D display lies on no plane and is not noted.
        """
        view, labels = self._view, self._labels
        if view is None or labels is None:
            return
        changes = []
        for number in object_ids:
            old = self.records.get(number)
            new = old or ObjectRecord(object_id=number, index=view.index)
            new = new.made_at(view.index)
            new = new.model_copy(update={"hand_edits": new.hand_edits + 1})
            changes.append((number, old, new))
        step = Step(
            "paint",
            view,
            self.draft,
            self.draft,
            labels,
            (),
            tuple(changes),
            changes_pixels=True,
        )
        self._push(step)
        self._set_records((n, new) for n, _, new in changes)
        self.labels_changed.emit(())

    def undo(self) -> str | None:
        """Take back the last step, whatever it was.

        Returns
        -------
        str or None
            What was taken back; None if there was nothing.
        """
        step = self.history.back()
        if step is None:
            return None
        self._return_to(step)
        if step.target is not None and step.changes_pixels:
            step.target.undo(step.edits)
        if step.target is self._labels:  # other labels have records of their own
            self._set_records((n, before) for n, before, _ in step.records)
        self._drafts |= step.used
        self._restore(step, step.before)
        return step.what

    def redo(self) -> str | None:
        """Make the step again that was taken back last.

        Returns
        -------
        str or None
            What was made again; None if there was nothing.
        """
        step = self.history.forward()
        if step is None:
            return None
        self._return_to(step)
        if step.target is not None and step.changes_pixels:
            step.target.redo(step.edits)
        if step.target is self._labels:
            self._set_records((n, after) for n, _, after in step.records)
        for place in step.used:
            self._drafts.pop(place, None)
        self._restore(step, step.after)
        return step.what

    def _ready(self) -> tuple[PlaneView, LabelTarget]:
        if self._view is None:
            raise InputError("no image is chosen; open one and choose it in the panel")
        if self._labels is None:
            raise InputError("no labels are chosen; choose a Labels layer in the panel")
        return self._view, self._labels

    def _questions(self) -> tuple[Question, ...]:
        if self._view is None:
            return ()
        return resolve(self.draft, self._view.shape)

    def _feedback(self) -> Feedback | None:
        """Return the chosen logits, if they answer the draft as it is."""
        if self._answer is None or self._asked is not self.draft or not self.masks:
            return None
        if len(self._answer.predictions) != 1:
            return None
        prediction, k = self._seen(0)
        # a copy lets the other masks go
        return Feedback(prediction.logits[k].copy(), prediction.crop)

    def _change(self, what: str, draft: Draft) -> None:
        if self._view is None:
            return
        step = Step(what, self._view, self.draft, draft)
        self._push(step)
        self._put(draft)

    def _put(self, draft: Draft) -> None:
        if self._view is None:
            return
        if draft.is_empty:
            self._drafts.pop(self._view.place, None)
        else:
            self._drafts[self._view.place] = draft
        self.draft_changed.emit(draft)
        self.ask()

    def _edit(
        self,
        what: str,
        edits: Sequence[LabelEdit],
        records: Sequence[tuple[int, ObjectRecord | None, ObjectRecord | None]],
        after: Draft,
        used: dict[tuple[object, PlaneIndex], Draft] | None = None,
    ) -> None:
        view, labels = self._ready()
        if edits:
            labels.write(edits)
        step = Step(
            what,
            view,
            self.draft,
            after,
            labels,
            edits,
            tuple(records),
            used or {},
            changes_pixels=bool(edits),  # a verdict of a review has none
        )
        self._push(step)
        self._set_records((n, new) for n, _, new in records)
        for place in step.used:
            self._drafts.pop(place, None)
        if after is not self.draft:
            self._put(after)
        self.labels_changed.emit(step.edits)

    def _push(self, step: Step) -> None:
        self.history.push(step)
        self.history_changed.emit()

    def _return_to(self, step: Step) -> None:
        """Show the plane of a step, and choose its labels."""
        if self._view is None or self._view.place != step.view.place:
            self.view_wanted.emit(step.view)
        if step.target is not None and step.target is not self._labels:
            self.labels_wanted.emit(step.target)

    def _restore(self, step: Step, draft: Draft) -> None:
        """Put the prompts of a step back."""
        if self._view is not None and self._view.place == step.view.place:
            self._put(draft)
        elif draft.is_empty:
            self._drafts.pop(step.view.place, None)
        else:
            self._drafts[step.view.place] = draft
        if step.changes_pixels:
            self.labels_changed.emit(step.edits)
        self.history_changed.emit()

    def _set_records(self, changes: Iterable[tuple[int, ObjectRecord | None]]) -> None:
        changed = False
        for number, record in changes:
            changed = True
            if record is None:
                self.records.pop(number, None)
            else:
                self.records[number] = record
        if changed:
            self.records_changed.emit()

    def _show(self) -> None:
        predictions = () if self._answer is None else self._answer.predictions
        self.masks = tuple(
            ShownMask.of(each, k, self._whole.get((i, k)))
            for i, each in enumerate(predictions)
            for k in [self._chosen(each)]
        )
        self.preview.emit(self.masks)

    def _chosen(self, prediction: Prediction) -> int:
        """Return the answer that is shown, by its number."""
        if self._choice is None or self._choice >= len(prediction.masks):
            return prediction.best
        return self._choice

    def _seen(self, number: int) -> tuple[Prediction, int]:
        """Return the prediction that is shown for a question, and which mask of it."""
        if self._answer is None:
            raise InputError("nothing is shown; point at an object first")
        prediction = self._answer.predictions[number]
        k = self._chosen(prediction)
        whole = self._whole.get((number, k))
        return (prediction, k) if whole is None else (whole, whole.best)

    def _want_whole(self) -> None:
        """Ask for a second look at what is shown, unless it has been looked at."""
        if self._answer is None or self._request is None:
            return
        shown = [
            replace(each, best=self._chosen(each)) for each in self._answer.predictions
        ]
        if not all((i, each.best) in self._whole for i, each in enumerate(shown)):
            self.complete_wanted.emit(CompleteRequest(self._request, tuple(shown)))

    def _ids(self, labels: LabelTarget, draft: Draft) -> list[int]:
        if draft.object_id is None:
            return labels.fresh_ids(len(self.masks))
        return [draft.object_id, *labels.fresh_ids(len(self.masks) - 1)]

    def _record(
        self, number: int, i: int, draft: Draft, result: PredictResult
    ) -> ObjectRecord:
        shown, crop = self.masks[i], self._seen(i)[0].crop.box
        old = self.records.get(number)
        # an object of a stack that is corrected in one slice stays in the others
        noted = None if old is None else old.made_at(result.view.index)
        if noted is old:  # another place: what was known does not hold there
            noted = None
        return ObjectRecord(
            object_id=number,
            index=result.view.index,
            **asked_with(draft),
            crop=(crop.y0, crop.x0, crop.y1, crop.x1),
            model=result.model,
            model_sha256=result.model_sha256,
            predicted_iou=shown.predicted_iou,
            stability=shown.stability,
            hand_edits=0 if old is None else old.hand_edits,
            along=None if noted is None else noted.along,
            slices=() if noted is None else noted.slices,
        )


def _object_edit(
    labels: LabelTarget,
    view: PlaneView,
    shown: ShownMask,
    object_id: int,
    earlier: Sequence[LabelEdit],
    *,
    overwrite: bool,
) -> LabelEdit:
    """Return the edit that makes a mask an object, on top of earlier edits."""
    old = labels.box_of(view.index, object_id)
    box = shown.box if old is None else shown.box.union(old)
    before = labels.read(view.index, box)
    for edit in earlier:
        shared = edit.box.intersection(box)
        if shared is not None:
            here = shared.shift(-box.y0, -box.x0).slices
            there = shared.shift(-edit.box.y0, -edit.box.x0).slices
            before[here] = edit.after[there]
    mask = np.zeros(box.shape, bool)
    mask[shown.box.shift(-box.y0, -box.x0).slices] = shown.mask
    after = painted(before, mask, object_id, overwrite=overwrite)
    return LabelEdit(view.index, box, before, after)
