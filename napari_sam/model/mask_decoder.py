"""Mask decoder of SAM (Kirillov et al. 2023, appendix A, "Lightweight mask decoder").

A transformer updates tokens (one for the predicted IoU, four for masks, then the
prompts) and the embedding in both directions; the mask tokens become small filters
on the upscaled embedding. Mask 0 answers unambiguous prompts; masks 1 to 3 are the
three answers to an ambiguous one. Parameter names are those of the published
checkpoints.

The function is the paper's, the order of its products is not: a handful of tokens
meets thousands of places, so whatever is linear on the side of the places is carried
over to the tokens, and what all prompts on one embedding share is computed once
(`MaskDecoder.prepare`). That halves the arithmetic of a prompt, for training, too.

Places may be kept in bfloat16; the tokens, which are few, never are: what they are
multiplied with is turned into the type of the places where the two meet.

B embeddings (1, or N), N prompts, T tokens, h attention heads of width d, S = H * W
places, C channels, H and W height and width of the embedding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.errors import InputError
from napari_sam.model.affinity import Affinity, Details, Quality, Seeds
from napari_sam.model.layers import LayerNorm2d, MLPBlock, infers_on_cpu

# Places that a CPU works on at once (one whole crop), and of those the ones that it
# upscales at once: what is in between then stays in its caches, in memory that is
# used again. 64 prompts at once take twice as long (measured).
CPU_PLACES, CPU_DRAWN = 64**2, 1024

# Prompts on one embedding whose tokens a CPU takes through the transformer together,
# for reading the weights takes longer than a few rows of products with them.
CPU_TOGETHER = 4


class FirstLook(NamedTuple):
    """Projections of the places for the first round, (B, h, S, d) each.

    Attributes
    ----------
    keys, values : tensor
        For the look of the tokens at the places.
    queries : tensor
        For the look of the places at the tokens.
    """

    keys: Tensor
    values: Tensor
    queries: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class PreparedEmbedding:
    """What all prompts on an embedding share; made by `MaskDecoder.prepare`.

    Attributes
    ----------
    size : tuple of int
        Height and width, in cells.
    source : (B, S, C) tensor
        The embedding with the dense prompt.
    position : (1 or B, S, C) tensor
        Position encoding of the places.
    details : Details or None
        What the proposal head knows.
    first : FirstLook or None
        What of the first round does not depend on prompts.
    """

    size: tuple[int, int]
    source: Tensor
    position: Tensor
    details: Details | None
    first: FirstLook | None

    def of(self, which: slice | Tensor) -> "PreparedEmbedding":
        """Return what belongs to some of the prompts, by their index."""
        if len(self.source) == 1:
            return self
        details = self.details
        if details is not None and len(details.edges) > 1:
            votes = None if details.votes is None else details.votes[which]
            details = Details(details.edges[which], votes)
        return PreparedEmbedding(
            self.size,
            self.source[which],
            self.position if len(self.position) == 1 else self.position[which],
            details,
            self.first and FirstLook(*(x[which] for x in self.first)),
        )

    def windows(
        self, corners: Sequence[tuple[int, int]], side: int
    ) -> "PreparedEmbedding":
        """Cut one square out for each of several prompts.

        Parameters
        ----------
        corners : sequence of tuple of int
            First row and column of each square, in cells.
        side : int
            Its side, in cells.

        Returns
        -------
        PreparedEmbedding
            B is the number of corners; the whole if that is one square of this side.
        """
        if self.size == (side, side):
            return self

        def cut(x: Tensor, places: int) -> Tensor:
            """Cut one of the tensors, whose dimension ``places`` is S."""
            grid = x.unflatten(places, self.size)
            parts = [
                grid.narrow(places, row, side).narrow(places + 1, column, side)
                for row, column in corners
            ]
            return torch.cat(parts).flatten(places, places + 1)

        details = self.details
        if details is not None:
            details = details.windows(corners, side, self.size)
        return PreparedEmbedding(
            (side, side),
            cut(self.source, 1),
            cut(self.position, 1),
            details,
            self.first and FirstLook(*(cut(x, 2) for x in self.first)),
        )


class MaskDecoder(nn.Module):
    """Predict masks and their quality from an embedding and prompts.

    Parameters
    ----------
    dim, depth, num_heads, mlp_dim : int
        Sizes of the two-way transformer.
    has_votes : bool, default False
        Whether votes of the proposal head help to tell what belongs together (ours).
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        num_heads: int,
        mlp_dim: int,
        *,
        has_votes: bool = False,
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(dim, depth, num_heads, mlp_dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(4, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(dim, dim, dim // 8) for _ in range(4)
        )
        self.iou_prediction_head = MLP(dim, dim, 4)
        self.affinity = Affinity(dim) if has_votes else None
        self.quality = Quality() if has_votes else None

    def prepare(
        self,
        source: Tensor,
        position: Tensor,
        details: Details | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        is_shared: bool = True,
    ) -> PreparedEmbedding:
        """Compute what does not depend on the sparse prompts.

        Parameters
        ----------
        source : (B, C, H, W) tensor
            Embedding plus dense prompt.
        position : (1, C, H, W) tensor
            Position encoding of the cells.
        details : Details, optional
            What the proposal head knows (ours).
        dtype : torch.dtype
            Of places, and of all products with them.
        is_shared : bool, default True
            Whether each embedding is asked by several prompts. For one alone it is
            cheaper to carry the first round over to the tokens, too.

        Returns
        -------
        PreparedEmbedding
        """
        first = self.transformer.layers[0]
        assert isinstance(first, TwoWayBlock)  # noqa: S101 - for the type checker
        look, answer = first.cross_attn_token_to_image, first.cross_attn_image_to_token
        size = (source.shape[2], source.shape[3])
        source, position = (x.flatten(2).mT.contiguous() for x in (source, position))
        if details is not None:
            details = Details(details.edges.to(dtype), details.votes)
        projections = None
        if is_shared:
            placed = source + position
            # head by head, or each product would copy them into that order
            projections = FirstLook(
                keys=look.split(look.k_proj(placed).to(dtype)).contiguous(),
                values=look.split(look.v_proj(source).to(dtype)).contiguous(),
                queries=answer.split(answer.q_proj(placed).to(dtype)).contiguous(),
            )
        return PreparedEmbedding(
            size, source.to(dtype), position.to(dtype), details, projections
        )

    def forward(
        self,
        prepared: PreparedEmbedding,
        sparse: Tensor,
        *,
        answers: range,
        seeds: Seeds | None = None,
        worth: float | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts.

        Parameters
        ----------
        prepared : PreparedEmbedding
            Of one embedding for all prompts, or of one each.
        sparse : (N, T, C) tensor
        answers : range
            Which of the four masks to return; K is their number.
        seeds : Seeds, optional
            The same prompts as places; needed by weights with votes.
        worth : float, optional
            Prompts of which no mask has a higher predicted IoU are not drawn, where
            that can be known before.

        Returns
        -------
        logits : (N, K, 4 * H, 4 * W) tensor
            Minus infinity for prompts that are not drawn.
        predicted_iou : (N, K) tensor
        """
        n, step = len(sparse), max(1, CPU_PLACES // prepared.source.shape[1])
        if len(prepared.source) == 1:
            step *= CPU_TOGETHER
        if not infers_on_cpu(sparse) or n <= step:
            return self._decode(prepared, sparse, answers, seeds, worth)
        height, width = prepared.size
        logits = sparse.new_empty(n, len(answers), 4 * height, 4 * width)
        predicted_iou = sparse.new_empty(n, len(answers))
        for first in range(0, n, step):
            part = slice(first, first + step)
            logits[part], predicted_iou[part] = self._decode(
                prepared.of(part), sparse[part], answers, _of(seeds, part), worth
            )
        return logits, predicted_iou

    def _decode(
        self,
        prepared: PreparedEmbedding,
        sparse: Tensor,
        answers: range,
        seeds: Seeds | None,
        worth: float | None,
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts, all at once."""
        tokens, images = self.attend(prepared, sparse, answers)
        # Thresholds decide on the third digit of the predicted IoU.
        with torch.autocast(tokens.device.type, enabled=False):
            predicted_iou = self.iou_prediction_head(tokens[:, 0].float())
        predicted_iou = predicted_iou[:, list(answers)]
        if worth is None or self.quality is not None:
            logits = self.draw(prepared, tokens, images, answers=answers, seeds=seeds)
            if self.quality is not None:
                predicted_iou = predicted_iou + self.quality(logits)
            return logits, predicted_iou
        is_worth = (predicted_iou > worth).any(dim=1)
        keep = is_worth.nonzero()[:, 0]
        height, width = prepared.size
        shape = (len(sparse), len(answers), 4 * height, 4 * width)
        logits = predicted_iou.new_full(shape, -math.inf)
        if len(keep):
            kept = is_worth.split([len(image) for image in images])
            logits[keep] = self.draw(
                prepared.of(keep),
                tokens[keep],
                [image[is_kept] for image, is_kept in zip(images, kept, strict=True)],
                answers=answers,
                seeds=_of(seeds, keep),
            ).to(logits.dtype)
        return logits, predicted_iou

    def attend(
        self, prepared: PreparedEmbedding, sparse: Tensor, answers: range
    ) -> tuple[Tensor, list[Tensor]]:
        """Let tokens and places look at each other.

        Returns
        -------
        tokens : (N, 1 + K, C) tensor
            First that of the predicted IoU, then those of the masks.
        images : list of (n, S, C) tensor
            Of all N prompts, so many at a time as a CPU works on at once.
        """
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
        wanted = [0, *(1 + i for i in answers)]
        n, step = len(sparse), max(1, CPU_PLACES // prepared.source.shape[1])
        step = step if infers_on_cpu(sparse) else n
        parts = [slice(first, first + step) for first in range(0, n, step)]
        attended: tuple[Tensor, list[Tensor]] = self.transformer(
            prepared, tokens, wanted, parts
        )
        return attended

    def draw(
        self,
        prepared: PreparedEmbedding,
        tokens: Tensor,
        images: list[Tensor],
        *,
        answers: range,
        seeds: Seeds | None = None,
    ) -> Tensor:
        """Turn what `attend` returned into logits, (N, K, 4 * H, 4 * W)."""
        of_masks = tokens[:, 1:]
        filters = torch.stack(
            [
                self.output_hypernetworks_mlps[i](of_masks[:, k])
                for k, i in enumerate(answers)
            ],
            dim=1,
        )
        logits = self._masks(images, filters)
        details = prepared.details
        if details is not None:
            logits = logits + _products(filters, details.edges)
        logits = _rows_and_columns(logits, prepared.size)
        if self.affinity is not None and details is not None:
            if details.votes is None or seeds is None:
                raise InputError(
                    "weights with votes were asked without votes or without the "
                    "places of the prompts; give both"
                )
            logits = logits + self.affinity(details.votes, seeds, of_masks)
        return logits

    def _masks(self, images: list[Tensor], filters: Tensor) -> Tensor:
        """Upscale places (n, S, C) four times and filter them, (N, K, 16 * S).

        A transposed convolution whose stride is its kernel is a product for each place,
        so places stay rows of a matrix until the few masks are put in order.
        """
        first, norm, activate, second, _ = self.output_upscaling
        assert isinstance(norm, LayerNorm2d)  # noqa: S101 - for the type checker
        to_first, to_second = (_as_product(x, images[0].dtype) for x in (first, second))

        def drawn(places: Tensor, rows: Tensor) -> Tensor:
            x = norm.of_last(_each_quarter(places, *to_first))  # n, S, 4, C / 4
            x = activate(_each_quarter(activate(x), *to_second))  # n, S, 4, 4, C / 8
            return _products(rows, x.flatten(1, 3))

        found, start = [], 0
        for image in images:
            rows = filters[start : start + len(image)]
            start += len(image)
            if not infers_on_cpu(image):
                found.append(drawn(image, rows))
            elif len(image):
                places = image.split(max(1, CPU_DRAWN // len(image)), dim=1)
                found.append(torch.cat([drawn(x, rows) for x in places], dim=2))
        return torch.cat(found)


def _of(seeds: Seeds | None, which: slice | Tensor) -> Seeds | None:
    """Return some of the prompts."""
    return seeds and Seeds(*(x[which] for x in seeds))


def _products(rows: Tensor, places: Tensor) -> Tensor:
    """Return rows (N, R, C) times places (1 or N, S, C): (N, R, S)."""
    rows = rows.to(places.dtype)
    if len(places) == 1:  # the rows of all prompts are one long list
        all_at_once = F.linear(rows.flatten(0, 1), places[0])
        each: Tensor = all_at_once.unflatten(0, rows.shape[:2])
        return each
    if not infers_on_cpu(rows) or rows.dtype == torch.float32:
        return rows @ places.mT
    # A batched product in bfloat16 would turn the places round first, which takes a
    # CPU longer than the product itself.
    return torch.stack([F.linear(a, b) for a, b in zip(rows, places, strict=True)])


def _rows_and_columns(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Put (N, K, 16 * S) in order: (N, K, 4 * H, 4 * W)."""
    height, width = size
    # row: cell, half, half of the half; column likewise
    parts = logits.unflatten(2, (height, width, 2, 2, 2, 2))
    if not infers_on_cpu(logits):
        ordered: Tensor = parts.permute(0, 1, 2, 4, 6, 3, 5, 7)
        return ordered.flatten(5, 7).flatten(2, 4)
    # The same in a quarter of the time: runs of two numbers are slow to copy.
    found = logits.new_empty(*logits.shape[:2], 4 * height, 4 * width)
    grid = found.unflatten(3, (width, 2, 2)).unflatten(2, (height, 2, 2))
    for a, b, c, d in product(range(2), repeat=4):
        grid[:, :, :, a, c, :, b, d] = parts[..., a, b, c, d]
    return found


def places_first(detail: Tensor) -> Tensor:
    """Take (B, C, 4 * H, 4 * W) apart, as `_rows_and_columns` joins: (B, 16 * S, C)."""
    parts = detail.unflatten(3, (-1, 2, 2)).unflatten(2, (-1, 2, 2))
    places: Tensor = parts.permute(0, 2, 5, 3, 6, 4, 7, 1).flatten(1, 6)
    return places.contiguous()


def _as_product(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return weights (4 * C', C) and bias (4 * C') of a transposed convolution."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    rows = weight.permute(2, 3, 1, 0).flatten(0, 2)
    return rows.to(dtype), bias.repeat(4).to(dtype)


def _each_quarter(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Apply a transposed convolution of 2 x 2 to places (..., C): (..., 4, C')."""
    quarters: Tensor = F.linear(x, weight, bias).unflatten(-1, (4, -1))
    return quarters


class TwoWayTransformer(nn.Module):
    """Tokens attend to themselves and to the image, and the image to the tokens."""

    def __init__(self, dim: int, depth: int, num_heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(dim, num_heads, mlp_dim, is_first=index == 0)
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(
        self,
        prepared: PreparedEmbedding,
        tokens: Tensor,
        wanted: list[int],
        parts: list[slice],
    ) -> tuple[Tensor, list[Tensor]]:
        """Update tokens and places.

        Parameters
        ----------
        prepared : PreparedEmbedding
        tokens : (N, T, C) tensor
        wanted : list of int
            Tokens to return.
        parts : list of slice
            Prompts whose places are worked on at once.

        Returns
        -------
        tokens : (N, len(wanted), C) tensor
        images : list of (n, S, C) tensor, one for each part
        """
        queries, shares = tokens, [prepared.of(part) for part in parts]
        images = [share.source for share in shares]
        for layer in self.layers:
            queries, images = layer(queries, images, tokens, prepared, shares, parts)
        queries, tokens = queries[:, wanted], tokens[:, wanted]
        placed = [x + share.position for x, share in zip(images, shares, strict=True)]
        attended = self.final_attn_token_to_image.look(
            queries + tokens, placed, images, parts
        )
        return self.norm_final_attn(queries + attended), images


class TwoWayBlock(nn.Module):
    """One round: self attention, token to image, MLP, image to token."""

    def __init__(
        self, dim: int, num_heads: int, mlp_dim: int, *, is_first: bool
    ) -> None:
        super().__init__()
        self.self_attn = Attention(dim, num_heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, num_heads, downsample=2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLPBlock(dim, mlp_dim, nn.ReLU)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, num_heads, downsample=2)
        self.is_first = is_first

    def forward(
        self,
        queries: Tensor,
        images: list[Tensor],
        query_pe: Tensor,
        prepared: PreparedEmbedding,
        shares: list[PreparedEmbedding],
        parts: list[slice],
    ) -> tuple[Tensor, list[Tensor]]:
        """Update queries (N, T, C) and the places (n, S, C) of each part of them."""
        look, answer = self.cross_attn_token_to_image, self.cross_attn_image_to_token
        if self.is_first:
            # The tokens are their own position encoding here.
            queries = self.norm1(self.self_attn(queries, queries, queries))
        else:
            q = queries + query_pe
            queries = self.norm1(queries + self.self_attn(q, q, queries))
        first = prepared.first if self.is_first else None
        if first is not None:
            attended = look.look_prepared(queries + query_pe, first.keys, first.values)
        else:
            placed = [
                x + share.position for x, share in zip(images, shares, strict=True)
            ]
            attended = look.look(queries + query_pe, placed, images, parts)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        tokens = queries + query_pe
        if first is not None:
            weights = answer.weights_prepared(first.queries, tokens)
            each = [weights[part] for part in parts]
        else:
            each = answer.weights(placed, tokens, parts)
        seen = answer.seen(queries).to(images[0].dtype)
        return queries, [
            self.norm4(_added(image, weights, seen[part]))
            for image, weights, part in zip(images, each, parts, strict=True)
        ]


def _added(image: Tensor, weights: Tensor, seen: Tensor) -> Tensor:
    """Add to places (1 or n, S, C) rows (n, R, C) by weights (n, R, S)."""
    if len(seen) == 1:  # in half of the time
        return torch.addmm(image[0], weights[0].T, seen[0])[None]
    there: Tensor = torch.baddbmm(image.expand(len(seen), -1, -1), weights.mT, seen)
    return there


def _each_head(tokens: Tensor, weights: Tensor) -> Tensor:
    """Multiply (N, h, T, d) with one matrix for each head, (h, d, C): (N, h, T, C).

    A plain product would copy the matrices for each of the prompts.
    """
    found: Tensor = torch.einsum("nhtd,hdc->nhtc", tokens, weights)
    return found


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than its outer one.

    Between tokens and image (``downsample`` above 1), queries and keys begin with one
    common projection, so that a prompt looks at its own place from the first step of
    a training (ours; it matters for random weights only).
    """

    def __init__(self, dim: int, num_heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.num_heads = num_heads
        self.scale = (inner // num_heads) ** -0.5
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)
        if downsample > 1:
            nn.init.orthogonal_(self.q_proj.weight, gain=2.0)
            self.k_proj.load_state_dict(self.q_proj.state_dict())

    def split(self, x: Tensor) -> Tensor:
        """Split (N, T, h * d) into heads, (N, h, T, d)."""
        heads: Tensor = x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from (N, T, C) queries to (N, T, C) keys and values; few tokens."""
        q, k, v = (
            self.split(projection(x))
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        attended = torch.softmax(q @ k.mT * self.scale, dim=-1) @ v
        return self._join(attended)

    def look_prepared(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attend from tokens (N, T, C) to places whose projections are there.

        ``keys`` and ``values`` are (B, h, S, d). Returns (N, T, C).
        """
        q = self.split(self.q_proj(tokens) * self.scale).to(keys.dtype)
        if len(keys) == 1:  # the tokens of all prompts are one long list
            n, t = tokens.shape[:2]
            q = q.transpose(0, 1).flatten(1, 2)[None]  # 1, h, N * T, d
            attended = torch.softmax(q @ keys.mT, dim=-1) @ values
            attended = attended[0].unflatten(1, (n, t)).transpose(0, 1)
        else:
            attended = torch.softmax(q @ keys.mT, dim=-1) @ values
        return self._join(attended)

    def look(
        self,
        tokens: Tensor,
        placed: list[Tensor],
        images: list[Tensor],
        parts: list[slice],
    ) -> Tensor:
        """Attend from tokens (N, T, C) to places (n, S, C), with and without position.

        Projections of the places are carried over to the tokens. The bias of the keys
        adds the same to all weights of a token and falls out of the softmax; that of
        the values passes through, for the weights sum to one.
        """
        q = self.split(self.q_proj(tokens) * self.scale)  # N, h, T, d
        rows = _each_head(q, self._per_head(self.k_proj)).flatten(1, 2)  # N, h * T, C
        seen = torch.cat(
            [
                torch.softmax(_products(rows[part], x), dim=-1) @ image
                for part, x, image in zip(parts, placed, images, strict=True)
            ]
        )
        seen = seen.unflatten(1, q.shape[1:3]).to(tokens.dtype)  # N, h, T, C
        attended = _each_head(seen, self._per_head(self.v_proj).mT)
        return self._join(attended + self.v_proj.bias.view(self.num_heads, 1, -1))

    def weights_prepared(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """Return how places, (B, h, S, d), attend to tokens: (N, h * T, S)."""
        k = self.split(self.k_proj(tokens) * self.scale).to(queries.dtype)
        if len(queries) == 1:
            n, t = tokens.shape[:2]
            logits = k.transpose(0, 1).flatten(1, 2) @ queries[0].mT  # h, N * T, S
            logits = logits.unflatten(1, (n, t)).transpose(0, 1)
        else:
            logits = k @ queries.mT
        return torch.softmax(logits, dim=2).flatten(1, 2)

    def weights(
        self, placed: list[Tensor], tokens: Tensor, parts: list[slice]
    ) -> list[Tensor]:
        """Return how places, (n, S, C), attend to tokens: (n, h * T, S) each."""
        k = self.split(self.k_proj(tokens) * self.scale)  # N, h, T, d
        rows = _each_head(k, self._per_head(self.q_proj)).flatten(1, 2)  # N, h * T, C
        # The bias of the queries tells the tokens apart.
        constant = _each_head(k, self.q_proj.bias.view(self.num_heads, -1, 1))
        constant = constant.to(placed[0].dtype)
        found = []
        for part, x in zip(parts, placed, strict=True):
            logits = _products(rows[part], x).unflatten(1, k.shape[1:3])
            logits = logits + constant[part]
            found.append(torch.softmax(logits, dim=2).flatten(1, 2))
        return found

    def seen(self, tokens: Tensor) -> Tensor:
        """Return what is seen of tokens (N, T, C) by each head: (N, h * T, C)."""
        v = self.split(self.v_proj(tokens))  # N, h, T, d
        out = self.out_proj.weight.unflatten(1, (self.num_heads, -1))  # C, h, d
        # The weights of a head sum to one, so the bias can be added to what is seen.
        rows = _each_head(v, out.permute(1, 2, 0)) + self.out_proj.bias / self.num_heads
        return rows.flatten(1, 2)

    def _per_head(self, layer: nn.Linear) -> Tensor:
        """Return the weights of each head, (h, d, C)."""
        heads: Tensor = layer.weight.unflatten(0, (self.num_heads, -1))
        return heads

    def _join(self, attended: Tensor) -> Tensor:
        """Join heads, (N, h, T, d), and project them to (N, T, C)."""
        joined = attended.transpose(1, 2).flatten(2).to(self.out_proj.weight.dtype)
        out: Tensor = self.out_proj(joined)
        return out


class MLP(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, in_dim: int, hidden_dim: int, out_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Linear(in_dim, hidden_dim),
                nn.Linear(hidden_dim, hidden_dim),
                nn.Linear(hidden_dim, out_dim),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in_dim) to (..., out_dim)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out
