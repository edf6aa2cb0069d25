"""Candidates on their way to becoming objects: marked, rejected, committed.

What the user points at is remembered as a place and not as an object, because moving a
threshold makes other objects of the same candidates: the object that lies at the place
is the one that was meant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sam.engine.records import ObjectRecord
from napari_sam.labels import outline, paint_free
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam.engine.candidates import Candidates
    from napari_sam.engine.thresholds import Thresholds
    from napari_sam.labels import LabelEdit, LabelTarget, PlaneIndex
    from napari_sam.stitch import PlaneObject


class Choice:
    """Which candidates become objects of one plane.

    Parameters
    ----------
    candidates : Candidates
        From `find_candidates`, also while it is still running.
    target : LabelTarget or None
        The labels; objects keep off what is labelled already. None until there are
        labels; then nothing can be committed.
    index : tuple of int or None
        Where the plane lies in the labels.

    Attributes
    ----------
    thresholds : Thresholds
        At first those of `segment`.
    """

    def __init__(
        self,
        candidates: Candidates,
        target: LabelTarget | None,
        index: PlaneIndex,
    ) -> None:
        self.candidates = candidates
        self.target = target
        self.index = index
        self.thresholds = candidates.default_thresholds()
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

    def toggle(self, y: float, x: float) -> PlaneObject | None:
        """Mark the object at a place, or take its marks away.

        Returns
        -------
        PlaneObject or None
            The object; None if there is none.
        """
        each = self.object_at(y, x)
        if each is None:
            return None
        if self.is_marked(each):
            self.marked = [place for place in self.marked if not _holds(each, place)]
        else:
            self.marked.append((round(y), round(x)))
        return each

    def reject_marked(self) -> list[PlaneObject]:
        """Drop the marked objects; return them."""
        dropped = [each for each in self.objects if self.is_marked(each)]
        self.objects = [each for each in self.objects if not self.is_marked(each)]
        self.rejected += self.marked
        self.marked = []
        return dropped

    def picture(
        self,
        box: Box,
        objects: Sequence[PlaneObject] | None = None,
        *,
        width: int | None = None,
    ) -> NDArray[np.uint8]:
        """Draw the objects of a box: 1 where one is, 2 where a marked one is.

        Parameters
        ----------
        box : Box
            In plane pixels.
        objects : sequence of PlaneObject, optional
            From `select`. Default: those that were taken.
        width : int, optional
            Of outlines, in pixels. Default: objects are filled.

        Returns
        -------
        (h, w) uint8 array
        """
        pixels = np.zeros(box.shape, np.uint8)
        for each in self.objects if objects is None else objects:
            shared = each.candidate.box.intersection(box)
            if shared is not None:
                mask = each.candidate.mask
                mask = mask if width is None else outline(mask, width)
                own = shared.shift(-each.candidate.box.y0, -each.candidate.box.x0)
                part = pixels[shared.shift(-box.y0, -box.x0).slices]
                part[mask[own.slices]] = 2 if self.is_marked(each) else 1
        return pixels

    def chosen(self, which: Literal["all", "marked"] = "all") -> list[PlaneObject]:
        """Return all objects, or those that were clicked on."""
        return [each for each in self.objects if which == "all" or self.is_marked(each)]

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
        chosen = self.chosen(which)
        if not chosen or self.target is None:
            return [], []
        if first_id is None:
            first_id = self.target.fresh_ids(1)[0]
        masks = [(each.candidate.box, each.candidate.mask) for each in chosen]
        edits, has_pixels = paint_free(self.target, self.index, masks, first_id)
        left = [x for x, has in zip(chosen, has_pixels, strict=True) if has]
        records = [self._record(first_id + i, each) for i, each in enumerate(left)]
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
        if self.target is None:
            return np.zeros(box.shape, bool)
        return self.target.read(self.index, box) > 0


def _holds(each: PlaneObject, place: tuple[int, int]) -> bool:
    pixel = Box(place[0], place[1], place[0] + 1, place[1] + 1)
    return bool(each.candidate.within(pixel)[0, 0])


def _holds_any(each: PlaneObject, places: Sequence[tuple[int, int]]) -> bool:
    return any(_holds(each, place) for place in places)
