"""Layers that several parts of the network share.

B batch, H and W height and width in tokens, C channels, N tokens, h attention heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Largest bias made at once, in numbers. That of a ViT-B at 1024 px would have two
# hundred million; a few rows of the grid at a time give the same result in half the
# time on a CPU, because the memory is used again instead of asked for anew.
CPU_BIAS, GPU_BIAS = 2**22, 2**28


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of a (B, C, H, W) tensor."""

    def __init__(self, num_channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each pixel over its channels; (B, C, H, W) to the same."""
        x = x.permute(0, 2, 3, 1)  # B, H, W, C: a view where x is channels-last
        x = F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class LocalGroupNorm(nn.Module):
    """Group normalisation whose statistics are those of the surroundings (ours).

    Group normalisation (Wu and He 2018) of a whole frame would make the answer at one
    place depend on what lies a thousand pixels away, on padding, and on the size of
    the window that a training saw. Here mean and variance are taken around each place,
    over `REACH` squares of `SQUARE` pixels of the input, and change smoothly from
    square to square, so that it hardly matters where a crop begins. What is no larger
    than a training window has one mean and variance.

    Parameters
    ----------
    channels : int
        In groups of `GROUP`, or all in one if there are fewer.
    stride : int
        Pixels of the input per pixel of what is normalised.
    """

    SQUARE = 64
    REACH = 5
    WINDOW = 256
    GROUP = 16

    def __init__(self, channels: int, stride: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.n_groups = max(channels // self.GROUP, 1)
        self.stride = stride
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same."""
        height, width = (extent * self.stride for extent in x.shape[-2:])
        if max(height, width) <= self.WINDOW:
            return F.group_norm(x, self.n_groups, self.weight, self.bias, self.eps)
        squares = (
            max(round(height / self.SQUARE), 1),
            max(round(width / self.SQUARE), 1),
        )
        mean = self._around(F.adaptive_avg_pool2d(x.float(), squares))
        power = self._around(F.adaptive_avg_pool2d(x.float().square(), squares))
        deviation = (power - mean.square()).clamp(min=0).add(self.eps).sqrt()
        scale = self.weight[:, None, None] / deviation
        shift = self.bias[:, None, None] - mean * scale
        return torch.addcmul(_spread(shift, x), x, _spread(scale, x))

    def _around(self, moments: Tensor) -> Tensor:
        """Average moments of squares, (B, C, r, c), over group and surroundings."""
        grouped = moments.unflatten(1, (self.n_groups, -1)).mean(2)
        around = F.avg_pool2d(
            grouped,
            self.REACH,
            stride=1,
            padding=self.REACH // 2,
            count_include_pad=False,
        )
        return around.repeat_interleave(moments.shape[1] // self.n_groups, dim=1)


def _spread(coarse: Tensor, x: Tensor) -> Tensor:
    """Interpolate (B, C, r, c) to the size and type of ``x``, channels-last."""
    # Four times as fast as in the other layout (measured).
    coarse = coarse.to(x.dtype).contiguous(memory_format=torch.channels_last)
    return F.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)


class MLPBlock(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(
        self, embedding_dim: int, mlp_dim: int, act: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.lin1 = nn.Linear(embedding_dim, mlp_dim)
        self.lin2 = nn.Linear(mlp_dim, embedding_dim)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        out: Tensor = self.lin2(self.act(self.lin1(x)))
        return out


class RelPosAttention(nn.Module):
    """Self attention over a grid of tokens with decomposed relative positions.

    To each logit the products of the query with one learned vector per vertical and
    one per horizontal offset are added (Li et al. 2022, "MViTv2", section 4.1).

    Parameters
    ----------
    dim, num_heads : int
        Channels and heads.
    input_size : tuple of int
        Height and width of the grid that the relative positions are made for.
    """

    def __init__(self, dim: int, num_heads: int, input_size: tuple[int, int]) -> None:
        super().__init__()
        self.num_heads = num_heads
        head_dim = dim // num_heads
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * input_size[0] - 1, head_dim))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * input_size[1] - 1, head_dim))

    def forward(self, x: Tensor) -> Tensor:
        """Attend within each (H, W) grid of (B, H, W, C)."""
        batch, height, width, dim = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each B, h, N, C/h
        by_row = relative_positions(self.rel_pos_h, height).to(q.dtype)  # H, H, C/h
        by_column = relative_positions(self.rel_pos_w, width).to(q.dtype)
        limit = GPU_BIAS if x.is_cuda else CPU_BIAS
        step = max(1, limit // (batch * self.num_heads * width * height * width))
        grid = q.unflatten(2, (height, width))  # B, h, H, W, C/h
        parts = [
            F.scaled_dot_product_attention(
                queries.flatten(2, 3),
                k,
                v,
                attn_mask=position_bias(queries, offsets, by_column),
            )
            for queries, offsets in zip(
                grid.split(step, dim=2), by_row.split(step), strict=True
            )
        ]
        out = torch.cat(parts, dim=2).transpose(1, 2).reshape(batch, height, width, dim)
        projected: Tensor = self.proj(out)
        return projected


def position_bias(queries: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Add to each logit what its relative position says.

    Parameters
    ----------
    queries : (B, h, R, W, C) tensor
        Of some rows of the grid.
    by_row : (R, H, C) tensor
        Vector of the vertical offset between each of these rows and each of all.
    by_column : (W, W, C) tensor
        Vector of each horizontal offset.

    Returns
    -------
    (B, h, R * W, H * W) tensor
    """
    vertical = torch.einsum("bnrwc,rkc->bnrwk", queries, by_row)
    horizontal = torch.einsum("bnrwc,wkc->bnrwk", queries, by_column)
    bias = vertical[..., :, None] + horizontal[..., None, :]  # B, h, R, W, H, W
    return bias.flatten(4, 5).flatten(2, 3)


def relative_positions(table: Tensor, size: int) -> Tensor:
    """Look up the vector of each offset between two positions on an axis.

    Parameters
    ----------
    table : (2 * L - 1, C) tensor
        Learned vectors for offsets from ``1 - L`` to ``L - 1``; interpolated
        linearly where ``L`` differs from ``size``.
    size : int
        Number of positions on the axis.

    Returns
    -------
    (size, size, C) tensor
        ``[i, k]`` is the vector of the offset ``i - k``.
    """
    if table.shape[0] != 2 * size - 1:
        table = F.interpolate(table.T[None], size=2 * size - 1, mode="linear")[0].T
    positions = torch.arange(size, device=table.device)
    return table[positions[:, None] - positions[None, :] + size - 1]


def window_partition(x: Tensor, window: int) -> tuple[Tensor, tuple[int, int]]:
    """Cut a grid into square windows, padding right and bottom with zeros.

    Parameters
    ----------
    x : (B, H, W, C) tensor
    window : int
        Side of a window, in tokens.

    Returns
    -------
    windows : (B * n_windows, window, window, C) tensor
    padded : tuple of int
        Height and width after padding.
    """
    batch, height, width, dim = x.shape
    pad_h, pad_w = -height % window, -width % window
    x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    rows, columns = (height + pad_h) // window, (width + pad_w) // window
    x = x.view(batch, rows, window, columns, window, dim).transpose(2, 3)
    return x.reshape(-1, window, window, dim), (height + pad_h, width + pad_w)


def window_unpartition(
    windows: Tensor, window: int, padded: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Undo `window_partition`; ``size`` is the (H, W) of the (B, H, W, C) result."""
    rows, columns = padded[0] // window, padded[1] // window
    x = windows.view(-1, rows, columns, window, window, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, *padded, windows.shape[-1])
    return x[:, : size[0], : size[1]].contiguous()
