"""Convolutional image encoder of the bundled default model (ours).

Dense 3 x 3 convolutions in channels-last bfloat16 reach the highest arithmetic rate
of all layers on a CPU, and their batch normalisation folds away, so a residual
network of them gives the most quality per CPU second. It has no position embedding
and no attention: a crop's border does not change what is seen in its middle, and the
network can be trained on windows smaller than the 1024 px of inference.

Rejected: depthwise convolutions (bound by memory, a tenth of the rate), attention at
stride 32 (learned too slowly from few images).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.model.config import ConvConfig
from napari_sam.model.layers import LayerNorm2d


class ConvEncoder(nn.Module):
    """Turn a normalised crop into its embedding.

    Parameters
    ----------
    config : ConvConfig
        Sizes.
    out_chans : int
        Channels of the embedding.
    """

    def __init__(self, config: ConvConfig, out_chans: int) -> None:
        super().__init__()
        first = config.widths[0]
        self.stem = nn.Sequential(
            ConvNorm(3, first // 2, stride=2), ConvNorm(first // 2, first, stride=2)
        )
        self.stages = nn.ModuleList()
        previous = first
        for index, (width, depth) in enumerate(
            zip(config.widths, config.depths, strict=True)
        ):
            layers: list[nn.Module] = []
            if index:
                layers.append(ConvNorm(previous, width, stride=2))
            layers.extend(ResidualBlock(width) for _ in range(depth))
            self.stages.append(nn.Sequential(*layers))
            previous = width
        self.lateral = nn.Conv2d(config.widths[2], out_chans, kernel_size=1)
        self.coarse = nn.Conv2d(config.widths[3], out_chans, kernel_size=1)
        self.neck = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 3, S, S) to (B, out_chans, S / 16, S / 16); S a multiple of 32."""
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for stage in self.stages[:3]:
            x = stage(x)
        coarse = self.coarse(self.stages[3](x))
        fused = self.lateral(x) + F.interpolate(
            coarse, scale_factor=2.0, mode="bilinear", align_corners=False
        )
        embedding: Tensor = self.neck(fused)
        return embedding


class ConvNorm(nn.Sequential):
    """Convolution of 3 x 3, batch normalisation, ReLU."""

    def __init__(self, in_chans: int, out_chans: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(in_chans, out_chans, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(out_chans),
            nn.ReLU(),
        )


class ResidualBlock(nn.Module):
    """Two convolutions around which the input is added (He et al. 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = ConvNorm(width, width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        # The block starts as the identity, which steadies the first steps.
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same."""
        return F.relu(x + self.norm(self.second(self.first(x))))
