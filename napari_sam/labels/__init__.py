"""Label pixels: changes that can be undone, and operations on objects."""

from napari_sam.labels.edit import (
    ArrayLabels,
    LabelEdit,
    LabelTarget,
    PackedEdits,
    PlaneIndex,
    paint_free,
    region_of,
)
from napari_sam.labels.objects import (
    covered,
    filled,
    line_pixels,
    merged,
    outline,
    painted,
    smoothed,
    split_at_points,
    split_by_line,
    without,
    without_islands,
)

__all__ = [
    "ArrayLabels",
    "LabelEdit",
    "LabelTarget",
    "PackedEdits",
    "PlaneIndex",
    "covered",
    "filled",
    "line_pixels",
    "merged",
    "outline",
    "paint_free",
    "painted",
    "region_of",
    "smoothed",
    "split_at_points",
    "split_by_line",
    "without",
    "without_islands",
]
