"""ViT image encoder of SAM (Kirillov et al. 2023, appendix A).

A plain vision transformer after ViTDet: windows of 14 x 14 patches and four blocks
that attend globally, then a neck of two convolutions to 256 channels. Parameter
names are those of the published checkpoints (facebookresearch/segment-anything,
Apache-2.0).
"""

import torch
from torch import Tensor, nn

from napari_sam.model.config import ViTConfig
from napari_sam.model.layers import (
    MLP_ROWS,
    LayerNorm2d,
    MLPBlock,
    RelPosAttention,
    infers_on_cpu,
)


class ImageEncoderViT(nn.Module):
    """Turn a normalised crop into its embedding.

    Parameters
    ----------
    config : ViTConfig
        Sizes.
    image_size : int
        Side of the square input, in pixels.
    out_chans : int
        Channels of the embedding.
    """

    def __init__(self, config: ViTConfig, image_size: int, out_chans: int) -> None:
        super().__init__()
        side = image_size // config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.embed_dim))
        self.blocks = nn.ModuleList(
            Block(config, side, is_global=index in config.global_attn_indexes)
            for index in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.embed_dim, out_chans, kernel_size=1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, kernel_size=3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Encode (B, 3, S, S) to (B, out_chans, S / 16, S / 16)."""
        # First and last layers make a fifth of the error of bfloat16 and one percent
        # of the arithmetic, so a CPU computes them in float32.
        with torch.autocast("cpu", enabled=False):
            x = (self.patch_embed(x) + self.pos_embed).contiguous()  # B, H, W, C
        for block in self.blocks:
            x = block(x)
        with torch.autocast("cpu", enabled=False):
            embedding: Tensor = self.neck(x.permute(0, 3, 1, 2))
        return embedding


class PatchEmbed(nn.Module):
    """Project patches of pixels to tokens."""

    def __init__(self, patch_size: int, embed_dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, S, S) to (B, H, W, C)."""
        tokens: Tensor = self.proj(x)
        return tokens.permute(0, 2, 3, 1)


class Block(nn.Module):
    """Transformer block: attention and MLP, each after a normalisation.

    Parameters
    ----------
    config : ViTConfig
        Sizes.
    side : int
        Side of the token grid.
    is_global : bool
        Attend over the whole grid rather than inside windows.
    """

    def __init__(self, config: ViTConfig, side: int, *, is_global: bool) -> None:
        super().__init__()
        self.window_size = 0 if is_global else config.window_size
        span = self.window_size or side
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.attn = RelPosAttention(config.embed_dim, config.num_heads, (span, span))
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=1e-6)
        self.mlp = MLPBlock(
            config.embed_dim, int(config.embed_dim * config.mlp_ratio), nn.GELU
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map contiguous (B, H, W, C) to the same; a CPU that infers, in place."""
        if not infers_on_cpu(x):
            x = x + self.attn(self.norm1(x), self.window_size)
            out: Tensor = x + self.mlp(self.norm2(x))
            return out
        # One row of windows, or some tokens, at a time: fresh memory costs time, too.
        for band in x.split(self.window_size or x.shape[1], dim=1):
            band += self.attn(self.norm1(band), self.window_size)
        for rows in x.view(-1, x.shape[-1]).split(MLP_ROWS):
            rows += self.mlp(self.norm2(rows))
        return x
