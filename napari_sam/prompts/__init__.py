"""Points, boxes and masks that say which object is meant.

`network` brings torch; its names resolve on first use, so that a window can take
prompts before torch is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from napari_sam.prompts.files import PROMPT_ENDINGS, read_prompts
from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.regions import LabelsAs, prompts_from_labels
from napari_sam.prompts.table import COLUMNS, parse_box, parse_point, write_prompts

if TYPE_CHECKING:
    from napari_sam.prompts.network import (
        PromptTensors,
        alike,
        points_to_input,
        to_input,
    )

__all__ = [
    "COLUMNS",
    "PROMPT_ENDINGS",
    "LabelsAs",
    "PromptTensors",
    "Prompts",
    "alike",
    "parse_box",
    "parse_point",
    "points_to_input",
    "prompts_from_labels",
    "read_prompts",
    "to_input",
    "write_prompts",
]

_OF_THE_NETWORK = ("PromptTensors", "alike", "points_to_input", "to_input")


def __getattr__(name: str) -> object:
    if name not in _OF_THE_NETWORK:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.network"), name)
