"""Mask decoder of SAM (Kirillov et al. 2023, appendix A, "Lightweight mask decoder").

A transformer updates tokens (one for the predicted IoU, four for masks, then the
prompts) and the embedding in both directions; the mask tokens become small filters
on the upscaled embedding. Mask 0 answers unambiguous prompts; masks 1 to 3 are the
three answers to an ambiguous one. Parameter names are those of the published
checkpoints.

N prompts, T tokens, C channels, H and W height and width of the embedding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_sam.model.layers import LayerNorm2d, MLPBlock


class MaskDecoder(nn.Module):
    """Predict masks and their quality from an embedding and prompts.

    Parameters
    ----------
    dim, depth, num_heads, mlp_dim : int
        Sizes of the two-way transformer.
    """

    def __init__(self, dim: int, depth: int, num_heads: int, mlp_dim: int) -> None:
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

    def forward(
        self,
        embedding: Tensor,
        position: Tensor,
        sparse: Tensor,
        dense: Tensor,
        *,
        answers: range,
    ) -> tuple[Tensor, Tensor]:
        """Decode prompts.

        Parameters
        ----------
        embedding : (1 or N, C, H, W) tensor
            One for all prompts, or one each.
        position : (1, C, H, W) tensor
            Position encoding of the cells.
        sparse : (N, T, C) tensor
        dense : (N, C, H, W) tensor
        answers : range
            Which of the four masks to return; K is their number.

        Returns
        -------
        logits : (N, K, 4 * H, 4 * W) tensor
        predicted_iou : (N, K) tensor
        """
        n = len(sparse)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(n, -1, -1), sparse], dim=1)
        source = embedding + dense
        tokens, image = self.transformer(
            source.flatten(2).transpose(1, 2),
            position.flatten(2).transpose(1, 2),
            tokens,
        )
        image = image.transpose(1, 2).reshape(source.shape)
        upscaled = self.output_upscaling(image)  # N, C/8, 4H, 4W
        filters = torch.stack(
            [self.output_hypernetworks_mlps[i](tokens[:, 1 + i]) for i in answers],
            dim=1,
        )
        logits = (filters @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
        predicted_iou = self.iou_prediction_head(tokens[:, 0])
        return logits, predicted_iou[:, list(answers)]


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
        self, image: Tensor, position: Tensor, tokens: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (N, T, C) and image (N, H * W, C); position (1, H * W, C)."""
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, position)
        attended = self.final_attn_token_to_image(
            queries + tokens, keys + position, keys
        )
        return self.norm_final_attn(queries + attended), keys


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
        self, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update queries (N, T, C) and keys (N, H * W, C)."""
        if self.is_first:
            # The tokens are their own position encoding here.
            queries = self.self_attn(queries, queries, queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q, q, queries)
        queries = self.norm1(queries)

        q, k = queries + query_pe, keys + key_pe
        queries = self.norm2(queries + self.cross_attn_token_to_image(q, k, keys))
        queries = self.norm3(queries + self.mlp(queries))

        q = queries + query_pe
        keys = self.norm4(keys + self.cross_attn_image_to_token(k, q, queries))
        return queries, keys


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
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)
        if downsample > 1:
            nn.init.orthogonal_(self.q_proj.weight, gain=2.0)
            self.k_proj.load_state_dict(self.q_proj.state_dict())

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from (N, T, C) queries to (N, S, C) keys and values."""
        q, k, v = (
            projection(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        if torch.is_grad_enabled():
            # A few tokens against many cells: on a CPU the backward pass of the fused
            # kernel takes seven times as long in bfloat16 (measured).
            weights = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
            attended = weights @ v
        else:
            attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
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
