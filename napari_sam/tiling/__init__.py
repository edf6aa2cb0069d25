"""The geometry that everybody shares: boxes, crops and the grid of crops."""

from napari_sam.tiling.advice import ScaleAdvice, advise_scale
from napari_sam.tiling.box import Box
from napari_sam.tiling.grid import (
    CELLS,
    MAX_UPSCALE,
    TARGET_DIAMETER,
    Crop,
    CropGrid,
)
from napari_sam.tiling.need import Need

__all__ = [
    "CELLS",
    "MAX_UPSCALE",
    "TARGET_DIAMETER",
    "Box",
    "Crop",
    "CropGrid",
    "Need",
    "ScaleAdvice",
    "advise_scale",
]
