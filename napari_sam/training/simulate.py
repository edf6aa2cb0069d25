"""Prompts drawn from ground truth, as in SAM's training.

First a random point or a noised box; then points from the region where the last
answer is wrong, together with its logits; two rounds give no new point (Kirillov et
al. 2023, appendix A, "Training algorithm").

Everything is drawn for N objects at once. Coordinates are (x, y), in pixels of the
window the masks are of; ``cell`` is the side of a mask's pixel in window pixels.
"""

import torch
from torch import Generator, Tensor

from napari_sam.masks import boundary_depth

BOX_NOISE = 0.1  # standard deviation, in sides of the box; appendix A
BOX_NOISE_MAX = 20.0  # pixels; appendix A


def random_points(weights: Tensor, cell: float, generator: Generator) -> Tensor:
    """Draw one point for each object with the given weights.

    Parameters
    ----------
    weights : (N, h, w) float32 tensor
        At least 0, with a positive sum for each object.
    cell : float
        Side of a pixel of ``weights``, in window pixels.
    generator : torch.Generator

    Returns
    -------
    (N, 2) float32 tensor
        (x, y), uniform inside the chosen pixel.
    """
    width = weights.shape[-1]
    index = torch.multinomial(weights.flatten(1), 1, generator=generator)[:, 0]
    corner = torch.stack([index % width, index // width], dim=1).float()
    inside = torch.rand(corner.shape, generator=generator)
    # Pixel centres are integers, so the window begins at -0.5.
    return (corner + inside) * cell - 0.5


def depth_weights(regions: Tensor) -> Tensor:
    """Return weights that draw points as people click: away from the boundary.

    Parameters
    ----------
    regions : (N, h, w) bool tensor

    Returns
    -------
    (N, h, w) float32 tensor
        0 outside; inside the fourth power of the distance to the boundary, as a share
        of the greatest one, so that half of the clicks into a disc fall into the
        inner 26 % of its radius (ours). The border of the array counts as boundary.
    """
    weights = torch.zeros(regions.shape)
    for region, out in zip(regions.numpy(), weights, strict=True):
        if region.any():
            depth = boundary_depth(region)
            out.copy_(torch.from_numpy((depth / depth.max()) ** 4))
    return weights


def boxes_of(masks: Tensor, cell: float) -> Tensor:
    """Return the tight box of each object, (N, 4) (x0, y0, x1, y1), half-open edges.

    Parameters
    ----------
    masks : (N, h, w) bool tensor
        None empty.
    cell : float
        Side of a mask pixel, in window pixels.
    """
    height, width = masks.shape[-2:]
    rows, columns = masks.any(dim=2), masks.any(dim=1)
    y = torch.arange(height).expand_as(rows)
    x = torch.arange(width).expand_as(columns)
    y0 = torch.where(rows, y, height).amin(dim=1)
    x0 = torch.where(columns, x, width).amin(dim=1)
    y1 = torch.where(rows, y + 1, 0).amax(dim=1)
    x1 = torch.where(columns, x + 1, 0).amax(dim=1)
    return torch.stack([x0, y0, x1, y1], dim=1).float() * cell - 0.5


def noised_boxes(
    boxes: Tensor, generator: Generator, *, careful: bool = False
) -> Tensor:
    """Move each corner of (N, 4) boxes by normal noise, as the paper does.

    The standard deviation is a tenth of the side, and no edge moves by more than
    20 pixels. With ``careful`` each box has its own, up to a tenth: who draws with care
    shall not get an answer that distrusts the edges (ours).
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.randn(boxes.shape, generator=generator) * BOX_NOISE * sides
    if careful:
        noise = noise * torch.rand(len(boxes), 1, generator=generator)
    limit = torch.minimum(sides / 2 - 0.5, torch.tensor(BOX_NOISE_MAX)).clamp(min=0)
    return boxes + torch.maximum(torch.minimum(noise, limit), -limit)


def error_points(
    logits: Tensor,
    target: Tensor,
    cell: float,
    generator: Generator,
    *,
    careful: bool = False,
) -> tuple[Tensor, Tensor]:
    """Draw the next point from where the answer is wrong.

    Parameters
    ----------
    logits : (N, h, w) float32 tensor
        The last answer.
    target : (N, h, w) bool tensor
    cell : float
        Side of a mask pixel, in window pixels.
    generator : torch.Generator
    careful : bool, default False
        Draw with `depth_weights`.

    Returns
    -------
    points : (N, 2) float32 tensor
        (x, y); inside the object where the answer is right everywhere.
    labels : (N,) int64 tensor
        1 where the object was missed, 0 where background was taken.
    """
    wrong = (logits > 0) != target
    is_right = ~wrong.flatten(1).any(dim=1)
    wrong = torch.where(is_right[:, None, None], target, wrong)
    weights = depth_weights(wrong) if careful else wrong.float()
    points = random_points(weights, cell, generator)
    cells = ((points + 0.5) / cell).long()
    row = cells[:, 1].clamp(max=target.shape[1] - 1)
    column = cells[:, 0].clamp(max=target.shape[2] - 1)
    labels = target[torch.arange(len(target)), row, column].long()
    return points, labels
