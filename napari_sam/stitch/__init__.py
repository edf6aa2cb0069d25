"""What overlapping crops see -> the objects of one plane.

Crops see the overlap of their halos twice. Which views are one object is found by one
graph over the whole plane (`graph`); each object is taken from the crop that sees it
whole, or put together (`objects`); objects that still overlap compete (`compete`);
what is left gets its id and is drawn, region by region (`painting`).

Nothing depends on the order of crops or candidates, nor on how the work was divided:
ties are broken by position. Merging crop by crop into a label image was rejected,
since then the first crop wins. The views of a plane may lie on disk: memory holds
columns of numbers, and the masks of a few crops.
"""

from napari_sam.stitch.compete import MIN_VISIBLE
from napari_sam.stitch.few import (
    PlaneObject,
    compete,
    merge_views,
    without_duplicates,
)
from napari_sam.stitch.graph import MIN_AGREEMENT
from napari_sam.stitch.objects import Objects
from napari_sam.stitch.painting import Painting, stitch
from napari_sam.stitch.seams import find_seams
from napari_sam.stitch.views import Views

__all__ = [
    "MIN_AGREEMENT",
    "MIN_VISIBLE",
    "Objects",
    "Painting",
    "PlaneObject",
    "Views",
    "compete",
    "find_seams",
    "merge_views",
    "stitch",
    "without_duplicates",
]
