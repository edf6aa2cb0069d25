"""TinyViT image encoder, as MobileSAM puts it in front of SAM's decoder.

The first stage is convolutional, the other three attend inside windows, with one
learned bias for each distance (dy, dx) between two tokens; a depthwise convolution
after the attention lets neighbouring windows see each other. Against TinyViT as
published, the merge before the last stage keeps the resolution, so that the
embedding has one token for each 16 pixels, and a neck brings it to SAM's width.

Between blocks a map is (B, C, H, W) in channels-last memory, so that each change to
(B, H, W, C) for the attention is a view and not a copy.

Sources: Wu et al. 2022 (TinyViT, arXiv:2207.10666), Zhang et al. 2023 (MobileSAM,
arXiv:2306.14289); parameter names are those of ``mobile_sam.pt``, whose reference is
``mobile_sam/modeling/tiny_vit_sam.py`` (Apache-2.0).
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.model.config import TinyViTConfig
from napari_sam.model.layers import (
    MLP_ROWS,
    TILE,
    LayerNorm2d,
    infers_on_cpu,
    window_partition,
    window_unpartition,
)

# Rows of the finest map that a CPU takes through a block at once: what is in between
# then stays in its caches.
BAND = 32

N_CLASSES = 1000  # width of the ImageNet classifier that the checkpoints still carry


class TinyViT(nn.Module):
    """Image encoder of MobileSAM: (B, 3, S, S) image to (B, out_chans, S/16, S/16).

    Parameters
    ----------
    config : TinyViTConfig
        Width, depth, heads and window of each of the four stages.
    out_chans : int, default 256
        Channels of the embedding.
    """

    def __init__(self, config: TinyViTConfig, out_chans: int = 256) -> None:
        super().__init__()
        dims = config.embed_dims
        self.patch_embed = PatchEmbed(dims[0])
        self.layers = nn.ModuleList(_stages(config))
        # The image classifier is never called; without its parameters the published
        # checkpoints would not load with strict=True.
        self.norm_head = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], N_CLASSES)
        self.neck = nn.Sequential(
            nn.Conv2d(dims[-1], out_chans, 1, bias=False),
            LayerNorm2d(out_chans),
            nn.Conv2d(out_chans, out_chans, 3, padding=1, bias=False),
            LayerNorm2d(out_chans),
        )
        self.apply(_init_linear)

    def forward(self, x: Tensor) -> Tensor:
        """Encode normalised images.

        Parameters
        ----------
        x : (B, 3, H, W) float tensor
            Normalised and padded images; height and width are multiples of 16.

        Returns
        -------
        (B, out_chans, H/16, W/16) float tensor
            The embedding.
        """
        # Depthwise convolutions in this layout take a little over half the time.
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.patch_embed(x)  # (B, C0, H/4, W/4)
        for stage in self.layers:
            x = stage(x)  # (B, C1, H/8, W/8), then (.., H/16, W/16) three times
        embedding: Tensor = self.neck(x)
        return embedding


class ConvNorm(nn.Module):
    """Convolution without bias, then batch normalisation.

    Parameters
    ----------
    in_chans, out_chans : int
        Channels before and after.
    kernel : int, default 1
        Side of the kernel; padding keeps the size at stride 1.
    stride : int, default 1
        Step of the convolution, in pixels.
    groups : int, default 1
        Groups of channels; ``in_chans`` makes it depthwise.
    """

    def __init__(
        self,
        in_chans: int,
        out_chans: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.c = nn.Conv2d(
            in_chans,
            out_chans,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        self.bn = nn.BatchNorm2d(out_chans)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_chans, H, W) to (B, out_chans, H/stride, W/stride)."""
        if self.bn.training:
            normed: Tensor = self.bn(self.c(x))
            return normed
        return self.folded(x)(x)

    def folded(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the convolution that does it all, for maps of the type of ``x``.

        With fixed statistics the normalisation is a scale and a shift of each channel.
        Folded into the weights it saves a pass over the whole map.
        """
        mean = self.bn.get_buffer("running_mean")
        var = self.bn.get_buffer("running_var")
        scale = self.bn.weight * torch.rsqrt(var + self.bn.eps)
        shift = self.bn.bias - mean * scale
        weight = self.c.weight * scale[:, None, None, None]
        dtype = _product_dtype(x)
        weight, shift = weight.to(dtype), shift.to(dtype)
        if self.c.kernel_size == (1, 1):  # a product, without a copy of the map
            return partial(_mix, weight=weight[:, :, 0, 0], bias=shift)
        return partial(
            F.conv2d,
            weight=weight,
            bias=shift,
            stride=self.c.stride,
            padding=self.c.padding,
            groups=self.c.groups,
        )


def _mix(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Mix the channels of (B, C, H, W)."""
    return F.linear(x.permute(0, 2, 3, 1), weight, bias).permute(0, 3, 1, 2)


def _gelu(x: Tensor) -> Tensor:
    """GELU of (B, C, H, W) in channels-last memory.

    Seen as (B, H, W, C), or torch takes twice as long.
    """
    return F.gelu(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the type that products with ``x`` are computed in."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


class PatchEmbed(nn.Module):
    """Two strided convolutions: (B, 3, H, W) to (B, dim, H/4, W/4)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.seq = nn.Sequential(
            ConvNorm(3, dim // 2, 3, stride=2),
            nn.GELU(),
            ConvNorm(dim // 2, dim, 3, stride=2),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3, H, W) to (B, dim, H/4, W/4)."""
        first, _, second = self.seq
        patches: Tensor = second(_gelu(first(x)))
        return patches


class MBConv(nn.Module):
    """Inverted bottleneck of the first stage: widen, depthwise 3x3, narrow, add.

    Parameters
    ----------
    dim : int
        Channels of input and output.
    expand : float
        Width inside, as a multiple of ``dim``.
    """

    def __init__(self, dim: int, expand: float) -> None:
        super().__init__()
        hidden = int(dim * expand)
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)
        nn.init.zeros_(self.conv3.bn.weight)  # a fresh block is the identity

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to the same shape."""
        height = x.shape[2]
        convs = self.conv1, self.conv2, self.conv3
        if not infers_on_cpu(x) or height <= BAND or self.training:
            return _bottleneck(x, *convs)
        folded = [conv.folded(x) for conv in convs]  # once for all bands
        bands = []
        for first in range(0, height, BAND):
            # a row more on each side, which the depthwise convolution looks at
            start, stop = max(first - 1, 0), min(first + BAND + 1, height)
            band = _bottleneck(x[:, :, start:stop], *folded)
            bands.append(band[:, :, first - start :][:, :, : min(BAND, height - first)])
        return torch.cat(bands, dim=2)


def _bottleneck(
    x: Tensor,
    widen: Callable[[Tensor], Tensor],
    look: Callable[[Tensor], Tensor],
    narrow: Callable[[Tensor], Tensor],
) -> Tensor:
    """Compute an `MBConv` by its three convolutions."""
    y = _gelu(look(_gelu(widen(x))))
    return _gelu(x + narrow(y))


class PatchMerging(nn.Module):
    """Step between two stages: change the width and, at stride 2, halve the size.

    Parameters
    ----------
    dim, out_dim : int
        Channels before and after.
    stride : int
        2, or 1 where the resolution stays.
    """

    def __init__(self, dim: int, out_dim: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(dim, out_dim)
        self.conv2 = ConvNorm(out_dim, out_dim, 3, stride=stride, groups=out_dim)
        self.conv3 = ConvNorm(out_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to (B, out_dim, H/stride, W/stride)."""
        x = _gelu(self.conv1(x))
        x = _gelu(self.conv2(x))
        merged: Tensor = self.conv3(x)
        return merged


class WindowAttention(nn.Module):
    """Self-attention of the tokens of one window, normalised before.

    Parameters
    ----------
    dim : int
        Channels; ``dim // num_heads`` for each head.
    num_heads : int
        Attention heads.
    window : int
        Side of the window, in tokens.
    """

    bias_index: Tensor

    def __init__(self, dim: int, num_heads: int, window: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.window = window
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        # One bias for each |dy|, |dx|, in row-major order.
        self.attention_biases = nn.Parameter(torch.zeros(num_heads, window * window))
        self.register_buffer("bias_index", _distances(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each window of (B, H, W, C).

        Windows reach over the right and bottom border; as in SAM what is there takes
        part, as zeros before the normalisation, so the projection of its bias is all
        that is ever needed of it.
        """
        qkv = self.qkv(self.norm(x))
        beyond = self.qkv(self.norm.bias).to(qkv.dtype)
        windows, padded = window_partition(qkv, self.window, beyond)
        # Channels of the projection are ordered by head, then query, key, value.
        heads = windows.flatten(1, 2).unflatten(2, (self.num_heads, -1))
        query, key, value = heads.transpose(1, 2).chunk(3, dim=-1)  # (n, heads, N, d)
        bias = self.attention_biases[:, self.bias_index]  # (heads, N, N)
        if infers_on_cpu(query):
            mixed = _attend_in_groups(query, key, value, bias)
        else:
            mixed = F.scaled_dot_product_attention(
                query, key, value, attn_mask=bias.to(query.dtype)
            ).transpose(1, 2)
        mixed = mixed.reshape(*windows.shape[:3], -1)
        size = x.shape[1], x.shape[2]
        out: Tensor = self.proj(window_unpartition(mixed, self.window, padded, size))
        return out


class NormMLP(nn.Module):
    """Normalisation, two linear layers with GELU between; the input is added."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., dim) to the same shape, and add what was there."""
        dtype = _product_dtype(x)  # once for all parts
        weights = [
            parameter.to(dtype)
            for layer in (self.fc1, self.fc2)
            for parameter in (layer.weight, layer.bias)
        ]
        if not infers_on_cpu(x):
            return x + self._map(x, *weights)
        rows = x.flatten(0, -2)
        found = torch.empty_like(rows)
        for part, place in zip(
            rows.split(MLP_ROWS), found.split(MLP_ROWS), strict=True
        ):
            torch.add(part, self._map(part, *weights), out=place)
        return found.view(x.shape)

    def _map(self, x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        return F.linear(F.gelu(F.linear(self.norm(x), w1, b1)), w2, b2)


def _attend_in_groups(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor
) -> Tensor:
    """Attend in so many windows at a time that their weights stay in the cache.

    ``query``, ``key``, ``value`` are (n, heads, N, d), ``bias`` is (heads, N, N); the
    softmax is taken in float32. Returns (n, N, heads, d).
    """
    step = max(1, TILE // bias.numel())
    query = query * query.shape[-1] ** -0.5
    mixed = query.new_empty(query.transpose(1, 2).shape)
    for q, k, v, place in zip(
        *(x.split(step) for x in (query, key, value, mixed)), strict=True
    ):
        weights = torch.softmax((q @ k.mT).float().add_(bias), dim=-1)
        place.copy_((weights.to(v.dtype) @ v).transpose(1, 2))
    return mixed


class AttentionBlock(nn.Module):
    """Windowed attention, depthwise 3x3 convolution, MLP.

    Parameters
    ----------
    dim : int
        Channels.
    num_heads : int
        Attention heads.
    window : int
        Side of a window, in tokens.
    mlp_ratio : float
        Width inside the MLP, as a multiple of ``dim``.
    """

    def __init__(self, dim: int, num_heads: int, window: int, mlp_ratio: float) -> None:
        super().__init__()
        self.attn = WindowAttention(dim, num_heads, window)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.mlp = NormMLP(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, H, W) to the same shape."""
        x = x.permute(0, 2, 3, 1)  # (B, H, W, C)
        x = x + self.attn(x)
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        out: Tensor = self.mlp(x)
        return out.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Blocks of one resolution, then the merge that leads to the next stage.

    Parameters
    ----------
    blocks : sequence of Module
        Blocks that keep the shape.
    downsample : Module
        The merge; ``nn.Identity()`` after the last stage.
    """

    def __init__(self, blocks: Sequence[nn.Module], downsample: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the input of the next stage."""
        out: Tensor = self.downsample(self.blocks(x))
        return out


def _stages(config: TinyViTConfig) -> list[Stage]:
    """Make the stages; each ends with the merge into the width of the next."""
    dims = config.embed_dims
    last = len(dims) - 1
    stages = []
    for i, dim in enumerate(dims):
        blocks: list[nn.Module] = [
            MBConv(dim, config.mbconv_expand)
            if i == 0
            else AttentionBlock(
                dim, config.num_heads[i], config.window_sizes[i], config.mlp_ratio
            )
            for _ in range(config.depths[i])
        ]
        merge: nn.Module = nn.Identity()
        if i < last:
            merge = PatchMerging(dim, dims[i + 1], stride=1 if i == last - 1 else 2)
        stages.append(Stage(blocks, merge))
    return stages


def _distances(window: int) -> Tensor:
    """Index |dy| * window + |dx| of each pair of tokens, (window**2, window**2)."""
    y, x = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    y, x = y.flatten(), x.flatten()
    return (y[:, None] - y).abs() * window + (x[:, None] - x).abs()


def _init_linear(module: nn.Module) -> None:
    """Draw linear layers from a normal distribution of width 0.02, as TinyViT does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
