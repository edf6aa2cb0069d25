"""Layers that several parts of the network share.

B batch, H and W height and width in tokens, C channels, N tokens, h attention heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Largest bias made at once, in numbers. That of a ViT-B at 1024 px would have two
# hundred million; a few rows of the grid at a time give the same result.
CPU_BIAS, GPU_BIAS = 2**22, 2**28

# Logits that a CPU works on at once, in numbers: 2 MB, which stay in its cache. Asked
# for once and used again, they save the page faults of fresh memory, too.
TILE = 2**19

# Rows that a CPU takes through an MLP at once, for the same reason.
MLP_ROWS = 1024

# Heads of a whole grid whose queries, keys and values a CPU holds at once.
CPU_HEADS = 4


def infers_on_cpu(x: Tensor) -> bool:
    """Whether this is a CPU that answers and does not train.

    Small pieces, which stay in its cache, are faster there then, and sums may stay in
    float32 at little cost.
    """
    return x.device.type == "cpu" and not torch.is_grad_enabled()


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
        return self.of_last(x).permute(0, 3, 1, 2)

    def of_last(self, x: Tensor) -> Tensor:
        """Normalise each row over its channels; (..., C) to the same."""
        return F.layer_norm(x, x.shape[-1:], self.weight, self.bias, self.eps)


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

    def forward(self, x: Tensor, window: int = 0) -> Tensor:
        """Attend within (B, H, W, C), or within each window of so many tokens a side.

        Windows reach over the grid's right and bottom border; what is there counts as
        zeros before the projection. Such tokens are attended to and do not attend
        themselves, so of them nothing but the projection's bias is ever needed.
        """
        if window:
            qkv = self.qkv(x)
            height, width = x.shape[1:3]
            bias = self.qkv.bias.to(qkv.dtype)
            windows, padded = window_partition(qkv, window, bias)
            attended = window_unpartition(
                self._attend(windows), window, padded, (height, width)
            )
        elif not infers_on_cpu(x):
            attended = self._attend(self.qkv(x))
        else:
            attended = self._attend_by_heads(x)
        projected: Tensor = self.proj(attended)
        return projected

    def _attend_by_heads(self, x: Tensor) -> Tensor:
        """Project and attend for some heads at a time: (B, H, W, C) to the same."""
        parts = self.qkv.weight, self.qkv.bias
        weight, bias = (each.unflatten(0, (3, self.num_heads, -1)) for each in parts)
        steps = zip(weight.split(CPU_HEADS, 1), bias.split(CPU_HEADS, 1), strict=True)
        return torch.cat(
            [self._attend(F.linear(x, w.flatten(0, 2), b.flatten())) for w, b in steps],
            dim=-1,
        )

    def _attend(self, qkv: Tensor) -> Tensor:
        """Attend within each grid of (B, H, W, 3 * C): (B, H, W, C)."""
        height, width = qkv.shape[1:3]
        by_row = relative_positions(self.rel_pos_h, height)
        by_column = relative_positions(self.rel_pos_w, width)
        num_heads = qkv.shape[-1] // (3 * by_row.shape[-1])
        do = attend_in_tiles if infers_on_cpu(qkv) else attend
        return do(qkv, num_heads, by_row, by_column)


def attend(qkv: Tensor, num_heads: int, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attend with torch's own kernel, which can be differentiated.

    Parameters
    ----------
    qkv : (B, H, W, 3 * C) tensor
        Queries, keys and values, each C channels, head by head.
    num_heads : int
    by_row : (H, H, C / num_heads) tensor
        Vector of each vertical offset.
    by_column : (W, W, C / num_heads) tensor
        Vector of each horizontal offset.

    Returns
    -------
    (B, H, W, C) tensor
    """
    batch, height, width, _ = qkv.shape
    q, k, v = _heads(qkv, num_heads)  # each B, h, N, C / h
    by_row, by_column = by_row.to(q.dtype), by_column.to(q.dtype)
    limit = GPU_BIAS if qkv.is_cuda else CPU_BIAS
    step = max(1, limit // (batch * num_heads * width * height * width))
    grid = q.unflatten(2, (height, width))  # B, h, H, W, C / h
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
    out = torch.cat(parts, dim=2)
    return out.transpose(1, 2).reshape(batch, height, width, -1)


def attend_in_tiles(
    qkv: Tensor, num_heads: int, by_row: Tensor, by_column: Tensor
) -> Tensor:
    """Do the same as `attend` in little memory; fast on a CPU, no gradients.

    Logits are made tile by tile, in float32 whatever the products are computed in.

    Parameters
    ----------
    qkv, num_heads, by_row, by_column
        As for `attend`.

    Returns
    -------
    (B, H, W, C) tensor
    """
    batch, height, width, channels = qkv.shape
    n, channels = height * width, channels // 3
    q, k, v = (x.flatten(0, 1).contiguous() for x in _heads(qkv, num_heads))
    # In float32: a product per offset is little beside one per pair of tokens.
    grid = q.float().unflatten(1, (height, width))  # B * h, H, W, C / h
    vertical = torch.einsum("grwc,rkc->grwk", grid, by_row.float())
    horizontal = torch.einsum("grwc,wkc->grwk", grid, by_column.float())
    vertical, horizontal = vertical.flatten(1, 2), horizontal.flatten(1, 2)
    q = q * (channels // num_heads) ** -0.5
    out = torch.empty_like(q)
    groups = max(1, TILE // (n * n))  # several small grids, or part of a large one
    rows = max(1, min(n, TILE // n))
    logits = q.new_empty(min(groups, len(q)) * rows * n, dtype=torch.float32)
    products = (
        logits if q.dtype == logits.dtype else torch.empty_like(logits, dtype=q.dtype)
    )
    for g in range(0, len(q), groups):
        for r in range(0, n, rows):
            here = (slice(g, g + groups), slice(r, r + rows))
            tile = out[here]
            shape = (*tile.shape[:2], n)
            weights = logits[: math.prod(shape)].view(shape)
            torch.add(
                vertical[here][..., :, None],
                horizontal[here][..., None, :],
                out=weights.view(*shape[:2], height, width),
            )
            if products is logits:
                weights.baddbmm_(q[here], k[g : g + groups].mT)
                torch.softmax(weights, dim=-1, out=weights)
            else:
                low = products[: weights.numel()].view(shape)
                weights += torch.bmm(q[here], k[g : g + groups].mT, out=low)
                torch.softmax(weights, dim=-1, out=weights)
                weights = low.copy_(weights)
            torch.bmm(weights, v[g : g + groups], out=tile)
    joined: Tensor = out.unflatten(0, (batch, num_heads)).transpose(1, 2)
    return joined.reshape(batch, height, width, channels)


def _heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split (B, H, W, 3 * C) into queries, keys and values, (B, h, N, C / h) each."""
    parts = qkv.flatten(1, 2).unflatten(2, (3, num_heads, -1))
    q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


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


def window_partition(
    x: Tensor, window: int, padding: Tensor | None = None
) -> tuple[Tensor, tuple[int, int]]:
    """Cut a grid into square windows, padding right and bottom.

    Parameters
    ----------
    x : (B, H, W, C) tensor
    window : int
        Side of a window, in tokens.
    padding : (C,) tensor, optional
        What a token beyond the border is. Default: zeros.

    Returns
    -------
    windows : (B * n_windows, window, window, C) tensor
    padded : tuple of int
        Height and width after padding.
    """
    batch, height, width, dim = x.shape
    pad_h, pad_w = -height % window, -width % window
    padded = height + pad_h, width + pad_w
    rows, columns = padded[0] // window, padded[1] // window
    if infers_on_cpu(x) and (pad_h or pad_w):
        windows = x.new_empty(batch, rows, columns, window, window, dim)
        filling = 0.0 if padding is None else padding
        windows[:, -1, :, window - pad_h :] = filling
        windows[:, :, -1, :, window - pad_w :] = filling
        _spread_over(windows.transpose(2, 3), x, window)
        return windows.flatten(0, 2), padded
    if padding is None:
        x = F.pad(x, (0, 0, 0, pad_w, 0, pad_h))
    elif pad_h or pad_w:
        right = padding.expand(batch, height, pad_w, dim)
        x = torch.cat([x, right], dim=2)
        x = torch.cat([x, padding.expand(batch, pad_h, padded[1], dim)], dim=1)
    x = x.view(batch, rows, window, columns, window, dim).transpose(2, 3)
    return x.reshape(-1, window, window, dim), padded


def _spread_over(grid: Tensor, x: Tensor, window: int) -> None:
    """Write (B, H, W, C) into windows, (B, rows, window, columns, window, C).

    Whole windows and those that the border cuts are written apart, so that each number
    is copied once.
    """
    height, width = x.shape[1:3]
    for top, high in ((0, window), (height // window, height % window)):
        for left, wide in ((0, window), (width // window, width % window)):
            rows = height // window if high == window else 1
            columns = width // window if wide == window else 1
            if not (rows and high and columns and wide):
                continue
            part = x[:, top * window :, left * window :][
                :, : rows * high, : columns * wide
            ]
            part = part.unflatten(2, (columns, wide)).unflatten(1, (rows, high))
            here = grid[:, top : top + rows, :high, left : left + columns, :wide]
            here.copy_(part)


def window_unpartition(
    windows: Tensor, window: int, padded: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Undo `window_partition`; ``size`` is the (H, W) of the (B, H, W, C) result."""
    rows, columns = padded[0] // window, padded[1] // window
    x = windows.view(-1, rows, columns, window, window, windows.shape[-1])
    x = x.transpose(2, 3).reshape(-1, *padded, windows.shape[-1])
    return x[:, : size[0], : size[1]].contiguous()
