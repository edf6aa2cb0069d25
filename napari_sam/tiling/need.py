"""Which crops are wanted first: those that a person is looking at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam.tiling.box import Box
    from napari_sam.tiling.grid import Crop


@dataclass(frozen=True, slots=True)
class Need:
    """What a person looks at and clicks on; without either, grid order.

    Parameters
    ----------
    point : tuple of float, optional
        (y, x) of the prompt, in plane pixels.
    visible : Box, optional
        Part of the plane on the screen.

    Examples
    --------
    >>> from napari_sam.tiling import Box, CropGrid
    >>> grid = CropGrid((300, 300), size=128, halo=16)
    >>> need = Need(point=(10, 290), visible=Box(0, 100, 120, 300))
    >>> [crop.index for crop in sorted(grid, key=need.rank)]
    [2, 1, 5, 4, 0, 3, 8, 7, 6]
    """

    point: tuple[float, float] | None = None
    visible: Box | None = None

    def rank(self, crop: Crop) -> tuple[bool, bool, float, float, int]:
        """Return a key to sort crops by, the most wanted first.

        First the crop that answers for the point, then those whose core is visible,
        then the others by their distance from what is visible; among equals those
        close to the point.
        """
        near = self.point
        if near is None and self.visible is not None:
            near = _middle(self.visible)
        y, x = _middle(crop.core)
        distance = 0.0 if near is None else (y - near[0]) ** 2 + (x - near[1]) ** 2
        is_other = self.point is not None and not _holds(crop.core, self.point)
        is_hidden, gap = False, 0.0
        if self.visible is not None:
            is_hidden = crop.core.intersection(self.visible) is None
            gap = _gap(crop.core, self.visible)
        return is_other, is_hidden, gap, distance, crop.index


def _middle(box: Box) -> tuple[float, float]:
    return (box.y0 + box.y1 - 1) / 2, (box.x0 + box.x1 - 1) / 2


def _holds(box: Box, point: tuple[float, float]) -> bool:
    y, x = point[0] + 0.5, point[1] + 0.5
    return box.y0 <= y < box.y1 and box.x0 <= x < box.x1


def _gap(box: Box, other: Box) -> float:
    """Squared distance of two boxes; 0 if they touch or overlap."""
    dy = max(box.y0 - other.y1, other.y0 - box.y1, 0)
    dx = max(box.x0 - other.x1, other.x0 - box.x1, 0)
    return float(dy * dy + dx * dx)
