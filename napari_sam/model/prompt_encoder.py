"""Prompt encoder of SAM (Kirillov et al. 2023, appendix A, "Prompt encoder").

Points and box corners become sparse tokens: a random Fourier position encoding
(Tancik et al. 2020) plus a learned vector of their kind. A mask becomes a dense
embedding. Coordinates are (x, y) in the input frame; integer = pixel centre.
Parameter names are those of the published checkpoints.
"""

import math

import torch
from torch import Tensor, nn

from napari_sam.model.layers import LayerNorm2d


class PositionEmbeddingRandom(nn.Module):
    """Sines and cosines of random projections of a position.

    Parameters
    ----------
    num_pos_feats : int
        Number of projections; half of the channels.
    finest : float, default 1.0
        Standard deviations of the projections, which begin at the 1 of the published
        weights, end here, in equal ratios. Two positions look alike up to about a
        ninth of the frame over the standard deviation, so with 1 alone a small
        object and its neighbour are hard to tell apart.
    """

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, num_pos_feats: int, finest: float = 1.0) -> None:
        super().__init__()
        deviations = torch.logspace(0, math.log10(finest), num_pos_feats)
        self.register_buffer(
            "positional_encoding_gaussian_matrix",
            torch.randn(2, num_pos_feats) * deviations,
        )

    def forward(self, unit: Tensor) -> Tensor:
        """Encode (..., 2) positions (x, y), 0 to 1 over the frame, to (..., 2 * F)."""
        # A product in bfloat16 would lose the fraction of a turn.
        with torch.autocast(unit.device.type, enabled=False):
            angles = (2 * unit - 1) @ self.positional_encoding_gaussian_matrix
        angles = 2 * math.pi * angles
        return torch.cat([torch.sin(angles), torch.cos(angles)], dim=-1)

    def grid(self, size: int) -> Tensor:
        """Encode the centres of ``size`` x ``size`` cells, (1, 2 * F, size, size)."""
        matrix = self.positional_encoding_gaussian_matrix
        centres = (torch.arange(size, device=matrix.device) + 0.5) / size
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        encoded: Tensor = self(torch.stack([x, y], dim=-1).to(matrix.dtype))
        return encoded.permute(2, 0, 1)[None]


class PromptEncoder(nn.Module):
    """Turn points, boxes and masks into tokens and a dense embedding.

    Parameters
    ----------
    embed_dim : int
        Channels of the tokens.
    image_size : int
        Side of the input frame, in pixels.
    mask_in_chans : int
        Hidden channels of the convolutions on a mask.
    finest_position : float, default 1.0
        See `PositionEmbeddingRandom`.
    """

    def __init__(
        self,
        embed_dim: int,
        image_size: int,
        mask_in_chans: int,
        finest_position: float = 1.0,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.image_size = image_size
        self.pe_layer = PositionEmbeddingRandom(embed_dim // 2, finest_position)
        # In this order: negative point, positive point, first corner, second corner.
        self.point_embeddings = nn.ModuleList(
            nn.Embedding(1, embed_dim) for _ in range(4)
        )
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        hidden = mask_in_chans // 4
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, hidden, kernel_size=2, stride=2),
            LayerNorm2d(hidden),
            nn.GELU(),
            nn.Conv2d(hidden, mask_in_chans, kernel_size=2, stride=2),
            LayerNorm2d(mask_in_chans),
            nn.GELU(),
            nn.Conv2d(mask_in_chans, embed_dim, kernel_size=1),
        )
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def dense_pe(self) -> Tensor:
        """Return the position encoding of every embedding cell, (1, C, e, e)."""
        return self.pe_layer.grid(self.image_size // 16)

    def sparse(
        self, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None
    ) -> Tensor:
        """Encode points and boxes.

        Parameters
        ----------
        points : (N, P, 2) float32 tensor or None
            Input frame, (x, y), pixels.
        labels : (N, P) tensor or None
            1 positive, 0 negative, -1 not a point (padding).
        boxes : (N, 4) float32 tensor or None
            Input frame, (x0, y0, x1, y1), pixels.

        Returns
        -------
        (N, T, C) float32 tensor
            One token a point and two a box; without a box one padding token is
            appended, as in the published decoder's training.
        """
        tokens = []
        if points is not None and labels is not None:
            if boxes is None:
                padding = points.new_zeros(len(points), 1, 2)
                points = torch.cat([points, padding], dim=1)
                labels = torch.cat([labels, labels.new_full((len(labels), 1), -1)], 1)
            tokens.append(self._points(points, labels))
        if boxes is not None:
            tokens.append(self._boxes(boxes))
        return torch.cat(tokens, dim=1)

    def dense(self, masks: Tensor | None, size: tuple[int, int]) -> Tensor:
        """Encode mask prompts, or say that there are none.

        Parameters
        ----------
        masks : (N, 1, 4 * H, 4 * W) float32 tensor or None
            Logits of an earlier answer.
        size : tuple of int
            Height and width of the embedding, in cells.

        Returns
        -------
        (N, C, H, W) float32 tensor
            Without masks N is 1, the same for all prompts.
        """
        if masks is not None:
            encoded: Tensor = self.mask_downscaling(masks)
            return encoded
        return self.no_mask_embed.weight[:, :, None, None].expand(1, -1, *size)

    def _points(self, points: Tensor, labels: Tensor) -> Tensor:
        # The centre of pixel 0 lies half a pixel inside the frame.
        encoded: Tensor = self.pe_layer((points + 0.5) / self.image_size)
        negative, positive = self._kinds()[:2]
        kind = labels[..., None]
        encoded = torch.where(kind == -1, torch.zeros_like(encoded), encoded)
        padding = self.not_a_point_embed.weight
        encoded = encoded + (kind == -1) * padding + (kind == 0) * negative
        encoded += (kind == 1) * positive
        return encoded

    def _boxes(self, boxes: Tensor) -> Tensor:
        corners = boxes.reshape(-1, 2, 2)
        encoded: Tensor = self.pe_layer((corners + 0.5) / self.image_size)
        return encoded + self._kinds()[2:]

    def _kinds(self) -> Tensor:
        """Return the learned vectors of the four kinds of prompt, (4, C)."""
        return torch.cat(list(self.point_embeddings.parameters()))
