"""The pixels of a crop as the encoder sees them, and what is known from them.

They are read from the coarsest resolution level that still shows as much as the crop
asks for, so that a crop of a fourth of the scale reads a sixteenth of the pixels. A
level's pixel is taken to be the mean of its block of full pixels; where a level holds
every n-th pixel instead, what is seen is off by less than half an input pixel.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from napari_sam.cache import SEAL_BYTES
from napari_sam.images import read_rgb
from napari_sam.images.background import block_means, contrast
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.images import ImageSource, Intensity
    from napari_sam.tiling import Crop


class CropPixels(NamedTuple):
    """What the encoder sees of a crop.

    Attributes
    ----------
    crop : Crop
    pixels : (1, 3, h, w) uint8 tensor
        Input pixels, without padding.
    seal : bytes
        Digest of the pixels that were read; says nothing if it was not asked for.
    contrast : float
        From `napari_sam.images.background.contrast`, of the pixels that were read.
    """

    crop: Crop
    pixels: Tensor
    seal: bytes
    contrast: float


def read_crop(
    source: ImageSource,
    intensity: Intensity,
    plane: tuple[int, int],
    crop: Crop,
    *,
    band: int,
    is_sealed: bool,
) -> CropPixels:
    """Read a crop; band by band, as it may be large.

    Resampling is that of the reference with PIL: bilinear, smoothed where it shrinks.
    Rows first, then columns, in 8 bit: so bands change nothing.

    Parameters
    ----------
    source : ImageSource
        The image.
    intensity : Intensity
        How pixels become 8-bit RGB.
    plane : tuple of int
        (frame, slice).
    crop : Crop
        What to read.
    band : int
        Rows read at once, a multiple of 8.
    is_sealed : bool
        Whether a digest of the pixels is wanted.
    """
    smaller = source.level(source.level_for(crop.scale))
    (height, width), (y, x) = crop.input_shape, source.blocks(smaller)
    # edges of the crop in pixels of the level, and the whole pixels around them
    y0, x0, y1, x1 = crop.box.y0 / y, crop.box.x0 / x, crop.box.y1 / y, crop.box.x1 / x
    around = Box(math.floor(y0), math.floor(x0), math.ceil(y1), math.ceil(x1))
    digest = hashlib.blake2b(digest_size=SEAL_BYTES)
    bands, means = [], []
    inside = around.clip(smaller.plane_shape)
    for first in range(inside.y0, inside.y1, band):
        part = Box(first, inside.x0, min(first + band, inside.y1), inside.x1)
        rgb = np.ascontiguousarray(read_rgb(smaller, intensity, part, plane))
        if is_sealed:
            digest.update(rgb.data)
        means.append(block_means(rgb))
        rgb = _lengthened(rgb, around.width, axis=1)
        bands.append(_resampled(rgb, (x0 - around.x0, x1 - around.x0), width, axis=1))
    rgb = _lengthened(np.concatenate(bands), around.height, axis=0)
    rgb = _resampled(rgb, (y0 - around.y0, y1 - around.y0), height, axis=0)
    pixels = torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))
    return CropPixels(crop, pixels[None], digest.digest(), contrast(means))


def _lengthened(rgb: NDArray[np.uint8], length: int, axis: int) -> NDArray[np.uint8]:
    """Repeat the last pixel where a level was rounded down and lacks a part of it."""
    lack = length - rgb.shape[axis]
    if not lack:
        return rgb
    before = [(0, 0)] * rgb.ndim
    before[axis] = (0, lack)
    return np.pad(rgb, before, mode="edge")


def _resampled(
    rgb: NDArray[np.uint8], span: tuple[float, float], length: int, axis: int
) -> NDArray[np.uint8]:
    """Bring what lies between two edges to a length, along one axis of (h, w, 3)."""
    whole = rgb.shape[axis]
    shape = (length, rgb.shape[1]) if axis == 0 else (rgb.shape[0], length)
    if span != (0.0, float(whole)):
        start, stop = span
        height, width = rgb.shape[:2]
        edges = (0, start, width, stop) if axis == 0 else (start, 0, stop, height)
        picture = Image.fromarray(rgb).resize(
            shape[::-1], Image.Resampling.BILINEAR, box=edges
        )
        return np.asarray(picture)
    if whole == length:
        return rgb
    # the same to 1 in 255, and two to three times as fast
    pixels = torch.from_numpy(rgb).permute(2, 0, 1)[None]
    resampled = functional.interpolate(pixels, shape, mode="bilinear", antialias=True)
    found: NDArray[np.uint8] = resampled[0].permute(1, 2, 0).numpy()
    return found
