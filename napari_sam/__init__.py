"""Segment Anything for microscopy.

The names in ``__all__`` are the public ones. Each is imported on first use, so that
``import napari_sam`` loads neither torch nor zarr and has no effect on the process.

Examples
--------
>>> import napari_sam as ns
>>> ns.CropGrid((1500, 900)).core
768
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.automatic import segment
    from napari_sam.engine.embed import embed
    from napari_sam.engine.jobs import run
    from napari_sam.engine.predict import Predictor
    from napari_sam.engine.propagate import propagate
    from napari_sam.engine.session import Session
    from napari_sam.errors import NapariSamError
    from napari_sam.prompts import Prompts
    from napari_sam.readers import open_image
    from napari_sam.tiling import CropGrid
    from napari_sam.training.loop import train
    from napari_sam.weights.load import load_model
    from napari_sam.weights.table import list_models
    from napari_sam.writers.tiff import save_labels

__version__ = "0.1.0"

__all__ = [
    "CropGrid",
    "EmbeddingCache",
    "NapariSamError",
    "Predictor",
    "Prompts",
    "Session",
    "embed",
    "list_models",
    "load_model",
    "open_image",
    "propagate",
    "run",
    "save_labels",
    "segment",
    "train",
]

_MODULES = {
    "CropGrid": "napari_sam.tiling",
    "EmbeddingCache": "napari_sam.cache",
    "NapariSamError": "napari_sam.errors",
    "Predictor": "napari_sam.engine.predict",
    "Prompts": "napari_sam.prompts",
    "Session": "napari_sam.engine.session",
    "embed": "napari_sam.engine.embed",
    "list_models": "napari_sam.weights.table",
    "load_model": "napari_sam.weights.load",
    "open_image": "napari_sam.readers",
    "propagate": "napari_sam.engine.propagate",
    "run": "napari_sam.engine.jobs",
    "save_labels": "napari_sam.writers.tiff",
    "segment": "napari_sam.engine.automatic",
    "train": "napari_sam.training.loop",
}

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # the next access is a plain one
    return value


def __dir__() -> list[str]:
    """List the public names too, though they are not loaded yet."""
    return sorted({*globals(), *__all__})
