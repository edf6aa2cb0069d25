"""Results -> files; `napari_sam.writers.formats` lists what labels can become.

Names are imported on first use: measurements need half of scipy, and a window that only
writes a session should not wait for it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam.writers.measurements import (
        measure,
        measure_objects,
        save_measurements,
    )
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

_MODULES = {
    "draw_overlay": "overlay",
    "measure": "measurements",
    "measure_objects": "measurements",
    "save_labels": "tiff",
    "save_measurements": "measurements",
    "save_overlay": "overlay",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
