"""Proposal head: a dense view of an embedding that finds every object (ours).

Three maps at a quarter of the input's resolution, each 0 to 1:

0. foreground probability;
1. centre distance: distance to the object's centroid over its largest value in the
   object, so 0 at the centre and 1 far from it; background 1;
2. boundary distance: one minus the distance to the object's boundary over its
   largest value in the object, so 0 deepest inside and 1 at the edge; background 1.

These are the definitions of the decoder in micro-sam (Archit et al. 2025, Methods,
"Automatic instance segmentation"), so that either head serves the same engine.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.model.config import ProposalConfig
from napari_sam.model.layers import LocalGroupNorm


class ProposalHead(nn.Module):
    """Convolutions with two up-samplings from the embedding.

    Parameters
    ----------
    config : ProposalConfig
        Sizes.
    in_chans : int
        Channels of the embedding.
    """

    def __init__(self, config: ProposalConfig, in_chans: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        previous = in_chans
        for index, width in enumerate(config.widths):
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(previous, width, 3, padding=1, bias=False),
                    LocalGroupNorm(width, stride=16 // 2**index),
                    nn.ReLU(),
                )
            )
            previous = width
        self.maps = nn.Conv2d(previous, 3, kernel_size=1)
        # Centre of the object here, (x, y), and the logarithm of its size.
        self.votes = nn.Conv2d(previous, 3, 3, padding=1) if config.has_votes else None

    def forward(self, embedding: Tensor) -> Tensor:
        """Map (B, C, e, e) to logits of the three maps, (B, 3, 4 * e, 4 * e)."""
        maps: Tensor = self.maps(self.features(embedding))
        return maps

    def features(self, embedding: Tensor) -> Tensor:
        """Map (B, C, e, e) to what the maps are read from, (B, C', 4 * e, 4 * e)."""
        x = embedding.contiguous(memory_format=torch.channels_last)
        for index, block in enumerate(self.blocks):
            if index:
                x = F.interpolate(
                    x, scale_factor=2.0, mode="bilinear", align_corners=False
                )
            x = block(x)
        return x
