"""Points, boxes and masks that say which object is meant.

`network` brings torch and is not imported here, so that a window can take prompts
before torch is there.
"""

from napari_sam.prompts.files import PROMPT_ENDINGS, read_prompts
from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.regions import LabelsAs, prompts_from_labels
from napari_sam.prompts.table import COLUMNS, parse_box, parse_point, write_prompts

__all__ = [
    "COLUMNS",
    "PROMPT_ENDINGS",
    "LabelsAs",
    "Prompts",
    "parse_box",
    "parse_point",
    "prompts_from_labels",
    "read_prompts",
    "write_prompts",
]
