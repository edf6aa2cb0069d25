"""Images of any size, and their pixels as 8-bit RGB."""

from napari_sam.images.intensity import (
    PERCENTILES,
    Intensity,
    find_intensity,
    read_rgb,
    to_uint8_rgb,
)
from napari_sam.images.source import ImageSource, PixelArray, fitting_levels

__all__ = [
    "PERCENTILES",
    "ImageSource",
    "Intensity",
    "PixelArray",
    "find_intensity",
    "fitting_levels",
    "read_rgb",
    "to_uint8_rgb",
]
