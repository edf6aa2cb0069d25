"""Results -> files: labels as OME-TIFF, measurements as CSV, pictures as PNG."""

from napari_sam.writers.measurements import measure, save_measurements
from napari_sam.writers.overlay import draw_overlay, save_overlay
from napari_sam.writers.tiff import save_labels

__all__ = [
    "draw_overlay",
    "measure",
    "save_labels",
    "save_measurements",
    "save_overlay",
]
