"""Changes of grey values and colours that microscopy images differ by.

Each is drawn with its own probability; ranges are ours, chosen by eye so that every
object stays visible to a person.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


def augment_intensity(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Change grey values and colours.

    Parameters
    ----------
    pixels : (3, H, W) float32 tensor
        0 to 255.
    rng : numpy.random.Generator

    Returns
    -------
    (3, H, W) float32 tensor
        0 to 255.
    """
    x = pixels / 255
    if not torch.equal(x[0], x[1]):
        x = _change_colours(x, rng)
    if rng.random() < 0.5:
        x = x.clamp(min=1e-4) ** float(np.exp(rng.uniform(-0.6, 0.6)))
    if rng.random() < 0.15:
        x = 1 - x
    if rng.random() < 0.15:
        x = x * _shading(x.shape[1:], rng)
    if rng.random() < 0.5:
        low = rng.uniform(0, 0.3)
        x = low + x * rng.uniform(0.5, 1.0 - low)
    if rng.random() < 0.25:
        x = _blur(x, float(rng.uniform(0.4, 2.0)))
    if rng.random() < 0.4:
        x = x + _noise(x, rng)
    return x.clamp(0, 1) * 255


def _change_colours(x: Tensor, rng: np.random.Generator) -> Tensor:
    choice = rng.random()
    if choice < 0.2:
        weights = torch.from_numpy(rng.dirichlet(np.ones(3))).float()
        return torch.einsum("c,chw->hw", weights, x).expand(3, -1, -1)
    if choice < 0.3:
        x = x[torch.from_numpy(rng.permutation(3))]
    if rng.random() < 0.6:
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, (3, 1, 1))).float()
        offset = torch.from_numpy(rng.uniform(-0.1, 0.1, (3, 1, 1))).float()
        x = (x * gain + offset).clamp(0, 1)
    return x


def _shading(shape: torch.Size, rng: np.random.Generator) -> Tensor:
    """Return a smooth field of gains, (H, W)."""
    coarse = torch.from_numpy(rng.uniform(0.5, 1.2, (1, 1, 3, 3))).float()
    field = F.interpolate(coarse, tuple(shape), mode="bicubic", align_corners=False)
    return field[0, 0].clamp(0.3, 1.3)


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = int(3 * sigma) + 1
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1)
    padded = F.pad(x[:, None], (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3))[:, 0]


def _noise(x: Tensor, rng: np.random.Generator) -> Tensor:
    """Return noise of a camera, coarse where the image was magnified."""
    grain = int(rng.choice([1, 1, 2, 4]))
    height, width = x.shape[1:]
    shape = (1, 1, -(-height // grain), -(-width // grain))
    noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
    if grain > 1:
        noise = F.interpolate(noise, (height, width), mode="bilinear")
    sigma = float(rng.uniform(0.01, 0.08))
    if rng.random() < 0.5:
        return sigma * noise[0] * x.clamp(0, 1).sqrt()
    return sigma * noise[0]
