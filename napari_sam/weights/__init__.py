"""Weights: which exist, how they come onto this machine, how a network gets them.

`table` knows facts and imports nothing heavy, so that a command can list the weights
at once; `download` brings files here and proves them; `recognise` tells the network
from the names and shapes of parameters; `load` joins these; `device` chooses where
and how precisely to compute. Names resolve on first use for the same reason.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_sam.weights.device import pick_device, pick_precision
    from napari_sam.weights.download import fetch
    from napari_sam.weights.load import load_model, save_weights
    from napari_sam.weights.recognise import recognise
    from napari_sam.weights.table import WeightFile, WeightSpec, list_models

__all__ = [
    "WeightFile",
    "WeightSpec",
    "fetch",
    "list_models",
    "load_model",
    "pick_device",
    "pick_precision",
    "recognise",
    "save_weights",
]

_HOMES = {
    "WeightFile": "table",
    "WeightSpec": "table",
    "fetch": "download",
    "list_models": "table",
    "load_model": "load",
    "pick_device": "device",
    "pick_precision": "device",
    "recognise": "recognise",
    "save_weights": "load",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
