"""Candidates on their way to becoming objects: marked, rejected, committed.

What the user points at is remembered as a place and not as an object, because moving a
threshold makes other objects of the same candidates: the object that lies at the place
is the one that was meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sam.engine.records import ObjectRecord
from napari_sam.labels import LabelEdit
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam.engine.candidates import Candidates
    from napari_sam.engine.thresholds import Thresholds
    from napari_sam.labels import LabelTarget, PlaneIndex
    from napari_sam.stitch import PlaneObject


# Pixels up to which objects are written at once; the fewer writes, the fewer refreshes.
_ONE_EDIT = 4096 * 4096


class Choice:
    """Which candidates become objects of one plane.

    Parameters
    ----------
    candidates : Candidates
        From `find_candidates`, also while it is still running.
    target : LabelTarget
        The labels; objects keep off what is labelled already.
    index : tuple of int or None
        Where the plane lies in the labels.
    thresholds : Thresholds, optional
        Default: those of `segment`.
    """

    def __init__(
        self,
        candidates: Candidates,
        target: LabelTarget,
        index: PlaneIndex,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.candidates = candidates
        self.target = target
        self.index = index
        self.thresholds = thresholds or candidates.default_thresholds()
        self.marked: list[tuple[int, int]] = []
        self.rejected: list[tuple[int, int]] = []
        self.objects: list[PlaneObject] = []

    def select(self, thresholds: Thresholds) -> list[PlaneObject]:
        """Return the objects that pass; changes nothing, so any thread may ask."""
        found = self.candidates.objects(thresholds, occupied=self._is_labelled)
        return [each for each in found if not _holds_any(each, self.rejected)]

    def take(self, thresholds: Thresholds, objects: list[PlaneObject]) -> None:
        """Go on with what `select` has found."""
        self.thresholds, self.objects = thresholds, objects

    def update(self, thresholds: Thresholds | None = None) -> None:
        """Choose again, after more candidates or with other thresholds."""
        thresholds = self.thresholds if thresholds is None else thresholds
        self.take(thresholds, self.select(thresholds))

    def object_at(self, y: float, x: float) -> PlaneObject | None:
        """Return the object at a place of the plane, in pixels."""
        place = round(y), round(x)
        return next((each for each in self.objects if _holds(each, place)), None)

    def is_marked(self, each: PlaneObject) -> bool:
        """Whether the user has clicked on an object."""
        return _holds_any(each, self.marked)

    def toggle(self, y: float, x: float) -> bool:
        """Mark the object at a place, or take its marks away.

        Returns
        -------
        bool
            Whether there is an object.
        """
        each = self.object_at(y, x)
        if each is None:
            return False
        if self.is_marked(each):
            self.marked = [place for place in self.marked if not _holds(each, place)]
        else:
            self.marked.append((round(y), round(x)))
        return True

    def reject_marked(self) -> int:
        """Drop the marked objects; return how many."""
        n_before = len(self.objects)
        self.objects = [each for each in self.objects if not self.is_marked(each)]
        self.rejected += self.marked
        self.marked = []
        return n_before - len(self.objects)

    def labels_of(self, box: Box) -> NDArray[np.uint32]:
        """Paint the objects of a box: object ``i`` of `objects` is ``i + 1``."""
        labels = np.zeros(box.shape, np.uint32)
        for number, each in enumerate(self.objects, 1):
            shared = each.candidate.box.intersection(box)
            if shared is not None:
                part = labels[shared.shift(-box.y0, -box.x0).slices]
                part[each.candidate.within(shared)] = number
        return labels

    def edits(
        self, which: Literal["all", "marked"] = "all", first_id: int | None = None
    ) -> tuple[list[LabelEdit], list[ObjectRecord]]:
        """Return what commits objects, each with an id of its own.

        Parameters
        ----------
        which : {"all", "marked"}
            All objects, or those that were clicked on.
        first_id : int, optional
            Ids count up from here. Default: from the first free one.

        Returns
        -------
        edits : list of LabelEdit
            One for all objects together, where they lie close enough.
        records : list of ObjectRecord
            How they were made.
        """
        chosen = [
            each for each in self.objects if which == "all" or self.is_marked(each)
        ]
        if not chosen:
            return [], []
        if first_id is None:
            first_id = self.target.fresh_ids(1)[0]
        region = chosen[0].candidate.box
        for each in chosen:
            region = region.union(each.candidate.box)
        groups = [chosen] if region.area <= _ONE_EDIT else [[each] for each in chosen]
        edits: list[LabelEdit] = []
        records: list[ObjectRecord] = []
        for group in groups:
            box = region if len(groups) == 1 else group[0].candidate.box
            before = self.target.read(self.index, box)
            after = before.copy()
            for each in group:
                number = first_id + len(records)
                place = each.candidate.box.shift(-box.y0, -box.x0).slices
                part = after[place]
                part[each.candidate.mask & (before[place] == 0)] = number
                records.append(self._record(number, each))
            edits.append(LabelEdit(self.index, box, before, after))
        return edits, records

    def _record(self, number: int, each: PlaneObject) -> ObjectRecord:
        point = each.candidate.point
        return ObjectRecord(
            object_id=number,
            index=tuple(self.index),
            points=() if point is None else (point,),
            positive=() if point is None else (True,),
            predicted_iou=each.candidate.predicted_iou,
            stability=each.candidate.stability,
        )

    def _is_labelled(self, box: Box) -> NDArray[np.bool_]:
        return self.target.read(self.index, box) > 0


def _holds(each: PlaneObject, place: tuple[int, int]) -> bool:
    pixel = Box(place[0], place[1], place[0] + 1, place[1] + 1)
    return bool(each.candidate.within(pixel)[0, 0])


def _holds_any(each: PlaneObject, places: Sequence[tuple[int, int]]) -> bool:
    return any(_holds(each, place) for place in places)
