"""Polygons -> pixels, by shapely: what lies inside at the centre of a pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

if TYPE_CHECKING:
    from numpy.typing import NDArray


def paint(canvas: NDArray[Any], shape: shapely.Geometry, value: int) -> None:
    """Set all pixels inside a shape in (x, y), which must still be 0."""
    x0, y0, x1, y1 = (int(edge) for edge in shape.bounds)
    y, x = np.mgrid[y0:y1, x0:x1]
    inside = shapely.contains_xy(shape, x + 0.5, y + 0.5)
    region = canvas[y0:y1, x0:x1]
    assert not region[inside].any(), "two objects overlap"
    region[inside] = value


def even_odd(rings: list[Any]) -> shapely.Geometry:
    """What lies inside an odd number of rings of (x, y)."""
    shape = shapely.Polygon()
    for ring in rings:
        shape = shape.symmetric_difference(shapely.Polygon(ring))
    return shape
