"""Which objects deserve a second look, and what the second look said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_sam.engine.records import ObjectRecord, State
    from napari_sam.labels import LabelTarget, PlaneIndex
    from napari_sam.tiling import CropGrid


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """One object in the queue.

    Parameters
    ----------
    object_id : int
    index : tuple of int or None
        Its plane.
    box : Box
        Where it lies, in plane pixels.
    area : int
        In pixels.
    predicted_iou, stability : float, optional
        As committed; None for an object painted by hand.
    touches_seam : bool
        Whether it lies in the cores of several crops, so that it may have been put
        together from parts.
    state : {"new", "accepted", "rejected"}
    """

    object_id: int
    index: PlaneIndex
    box: Box
    area: int
    predicted_iou: float | None = None
    stability: float | None = None
    touches_seam: bool = False
    state: State = "new"

    @property
    def doubt(self) -> float:
        """How much a look is needed, 0 to 1: 1 - predicted IoU x stability (ours).

        An object on a seam is trusted a tenth less; one painted by hand wholly.
        """
        if self.predicted_iou is None or self.stability is None:
            return 0.0
        trust = self.predicted_iou * self.stability * (0.9 if self.touches_seam else 1)
        return float(np.clip(1 - trust, 0, 1))


def review_rows(
    target: LabelTarget,
    index: PlaneIndex,
    records: Mapping[int, ObjectRecord],
    grid: CropGrid | None = None,
) -> list[ReviewRow]:
    """List the objects of a plane.

    Parameters
    ----------
    target : LabelTarget
        The labels.
    index : tuple of int or None
        The plane.
    records : mapping of int to ObjectRecord
        What is known of them; an object need not have a record.
    grid : CropGrid, optional
        The crops, to find seams. Default: there are none.

    Returns
    -------
    list of ReviewRow
        By object id.
    """
    rows = []
    for object_id, (box, area) in sorted(_objects(target, index).items()):
        record = records.get(object_id)
        rows.append(
            ReviewRow(
                object_id,
                tuple(index),
                box,
                area,
                predicted_iou=record.predicted_iou if record else None,
                stability=record.stability if record else None,
                touches_seam=grid is not None and crosses_seam(box, grid),
                state=record.state if record else "new",
            )
        )
    return rows


def crosses_seam(box: Box, grid: CropGrid) -> bool:
    """Whether a box lies in the cores of more than one crop."""
    return not any(crop.core.contains(box) for crop in grid.crops_touching(box))


def _objects(target: LabelTarget, index: PlaneIndex) -> dict[int, tuple[Box, int]]:
    """Find box and area of each object."""
    boxes = getattr(target, "boxes", None)
    if boxes is not None:
        found = {}
        for object_id in boxes(index):
            box = target.box_of(index, object_id)
            if box is not None:
                pixels = target.read(index, box) == object_id
                found[object_id] = (box, int(np.count_nonzero(pixels)))
        return found
    sides = [n for n, each in zip(target.shape, index, strict=True) if each is None]
    plane = target.read(index, Box(0, 0, *sides))
    ids, places = np.unique(plane, return_inverse=True)
    places = places.reshape(plane.shape)
    areas = np.bincount(places.ravel())
    regions = ndimage.find_objects(places + 1)
    return {
        number: (Box(rows.start, columns.start, rows.stop, columns.stop), int(area))
        for number, (rows, columns), area in zip(
            ids.tolist(), regions, areas, strict=True
        )
        if number > 0
    }
