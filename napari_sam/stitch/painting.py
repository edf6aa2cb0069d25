"""The stitched plane: objects with final ids, drawn region by region on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.stitch.compete import MIN_VISIBLE, by_crop, settle
from napari_sam.stitch.graph import MIN_AGREEMENT, find_groups, rank_views
from napari_sam.stitch.objects import Objects, make_objects
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from napari_sam.stitch.views import Views
    from napari_sam.tiling import CropGrid


@dataclass(frozen=True, slots=True, eq=False)
class Painting:
    """All objects of a plane; none overlaps with another.

    Parameters
    ----------
    objects : Objects
        Object ``i`` has the id ``i + 1``: ids follow the first pixels, row by row.
    shape : tuple of int
        (height, width) of the plane, in pixels.
    """

    objects: Objects
    shape: tuple[int, int]
    _order: NDArray[np.int64] = field(init=False, repr=False)
    _starts: NDArray[np.int64] = field(init=False, repr=False)
    _extents: NDArray[np.int32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = ("_order", "_starts", "_extents")
        for name, value in zip(names, by_crop(self.objects), strict=True):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.objects)

    def labels(
        self, region: Box | None = None, first_id: int = 1
    ) -> NDArray[np.uint32]:
        """Draw a region.

        Parameters
        ----------
        region : Box, optional
            In plane pixels. Default: the whole plane.
        first_id : int
            Id of the first object of the plane.

        Returns
        -------
        (h, w) uint32 array
            Object ids; 0 is background.
        """
        region = Box.whole(self.shape) if region is None else region
        drawn = np.zeros(region.shape, np.uint32)
        for i in self._touching(region):
            shared = self.objects.box(i).intersection(region)
            if shared is not None:
                part = drawn[shared.shift(-region.y0, -region.x0).slices]
                part[self.objects.within(i, shared)] = first_id + i
        return drawn

    def _touching(self, region: Box) -> Iterator[int]:
        """Iterate over objects whose boxes reach into a region, crop by crop."""
        edges = (region.y0, region.x0), (region.y1, region.x1)
        for n in np.flatnonzero(_overlap(self._extents, *edges)).tolist():
            members = self._order[self._starts[n] : self._starts[n + 1]]
            yield from members[_overlap(self.objects.boxes[members], *edges)].tolist()


def stitch(  # noqa: PLR0913 - what crops see, and what is wanted of it
    views: Mapping[int, Views],
    grid: CropGrid,
    *,
    min_agreement: float = MIN_AGREEMENT,
    min_visible: float = MIN_VISIBLE,
    min_area: int = 1,
    max_area: int | None = None,
    drop_at_border: bool = False,
) -> Painting:
    """Make the objects of a plane of what its crops see.

    Parameters
    ----------
    views : mapping of int to Views
        By number of the crop; masks of one crop do not overlap. It may be a folder:
        masks are asked for when they are needed, mostly those of neighbours.
    grid : CropGrid
        The crops.
    min_agreement : float
        IoU in the overlap from which two views are one object.
    min_visible : float
        An object of which better ones leave a smaller share is dropped.
    min_area : int
        An object of which fewer pixels are left is dropped.
    max_area : int, optional
        An object with more pixels is dropped, and hides no others.
    drop_at_border : bool
        Drop objects that touch the border of the plane, likewise.

    Returns
    -------
    Painting
    """
    nodes = rank_views(views)
    groups = find_groups(nodes, views, grid, min_agreement)
    objects = make_objects(nodes, groups, views, grid).in_draw_order()
    is_wanted = np.ones(len(objects), bool)
    if max_area is not None:
        is_wanted &= objects.areas <= max_area
    if drop_at_border:
        ends = objects.boxes[:, :2] == 0, objects.boxes[:, 2:] == grid.shape
        is_wanted &= ~np.concatenate(ends, axis=1).any(axis=1)
    objects = objects.take(np.flatnonzero(is_wanted))
    kept = np.flatnonzero(settle(objects, min_visible, min_area))
    first_pixels = objects.first_columns[kept], objects.boxes[kept, 0]
    return Painting(objects.take(kept[np.lexsort(first_pixels)]), grid.shape)


def _overlap(
    boxes: NDArray[np.int32], start: tuple[int, int], end: tuple[int, int]
) -> NDArray[np.bool_]:
    """Whether boxes overlap with one that is given by its corners."""
    return np.asarray(((boxes[:, :2] < end) & (boxes[:, 2:] > start)).all(axis=1))
