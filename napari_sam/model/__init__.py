"""The network: plain torch, parameter names as in the published checkpoints."""

from napari_sam.model.config import VARIANTS, SamConfig
from napari_sam.model.mask_decoder import PreparedEmbedding
from napari_sam.model.sam import Sam, channels_last

__all__ = ["VARIANTS", "PreparedEmbedding", "Sam", "SamConfig", "channels_last"]
