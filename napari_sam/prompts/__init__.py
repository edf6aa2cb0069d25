"""Points, boxes and masks that say which object is meant."""

from napari_sam.prompts.network import PromptTensors, alike, to_input
from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.table import (
    COLUMNS,
    parse_box,
    parse_point,
    read_prompts,
    write_prompts,
)

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
