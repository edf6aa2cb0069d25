"""Points, boxes and masks that say which object is meant.

`network` brings torch; its names resolve on first use, so that a window can take
prompts before torch is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.table import (
    COLUMNS,
    parse_box,
    parse_point,
    read_prompts,
    write_prompts,
)

if TYPE_CHECKING:
    from napari_sam.prompts.network import PromptTensors, alike, to_input

__all__ = [
    "COLUMNS",
    "PromptTensors",
    "Prompts",
    "alike",
    "parse_box",
    "parse_point",
    "read_prompts",
    "to_input",
    "write_prompts",
]

_OF_THE_NETWORK = ("PromptTensors", "alike", "to_input")


def __getattr__(name: str) -> object:
    if name not in _OF_THE_NETWORK:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.network"), name)
