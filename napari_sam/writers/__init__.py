"""Results -> files; `napari_sam.writers.formats` lists what labels can become."""

from napari_sam.writers.measurements import measure, measure_objects, save_measurements
from napari_sam.writers.overlay import draw_overlay, save_overlay
from napari_sam.writers.tiff import save_labels

__all__ = [
    "draw_overlay",
    "measure",
    "measure_objects",
    "save_labels",
    "save_measurements",
    "save_overlay",
]
