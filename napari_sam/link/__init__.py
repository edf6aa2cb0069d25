"""Objects of single planes to objects of stacks: along z, and along time.

Only label planes and numbers go in and out, a few planes at a time; what is kept of a
plane is a row for each object and each pair of objects that share pixels.
"""

from napari_sam.link.shapes import shape_between
from napari_sam.link.slices import LinkConfig, LinkedSlices, SliceLinker, link_slices
from napari_sam.link.tracks import (
    Track,
    TrackConfig,
    TrackedFrames,
    TrackLinker,
    link_frames,
)

__all__ = [
    "LinkConfig",
    "LinkedSlices",
    "SliceLinker",
    "Track",
    "TrackConfig",
    "TrackLinker",
    "TrackedFrames",
    "link_frames",
    "link_slices",
    "shape_between",
]
