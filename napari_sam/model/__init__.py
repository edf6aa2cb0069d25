"""The network: plain torch, parameter names as in the published checkpoints."""

from napari_sam.model.config import VARIANTS, SamConfig
from napari_sam.model.sam import Sam, channels_last

__all__ = ["VARIANTS", "Sam", "SamConfig", "channels_last"]
