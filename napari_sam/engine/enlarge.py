"""Logits of a crop to masks in pixels of the plane, in their box alone.

A crop at a small scale shows more of the plane than memory should hold as numbers:
masks are enlarged band by band, and only where they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from napari_sam.masks import boxes_of
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.tiling import Crop

_BAND = 256  # rows enlarged at once


def plane_masks(logits: Tensor, crop: Crop) -> tuple[Box, NDArray[np.bool_]]:
    """Cut logits at 0 and bring the masks to the pixels of the plane.

    Bilinear, as in the reference.

    Parameters
    ----------
    logits : (K, h, w) tensor
        In the input frame of the crop, without padding: `Crop.input_shape`.
    crop : Crop
        Where the frame lies.

    Returns
    -------
    box : Box
        The smallest around all masks, in plane pixels; one pixel if they are empty.
    masks : (K, height, width) array of bool, over `box`
    """
    y0, x0, y1, x1 = boxes_of((logits > 0).any(dim=0, keepdim=True))[0].tolist()
    rows = _pixels(y0, y1, crop.scale[0], crop.box.height)
    columns = _pixels(x0, x1, crop.scale[1], crop.box.width)
    masks = np.empty((len(logits), len(rows), len(columns)), bool)
    for first in range(0, len(rows), _BAND):
        band = _sampled(logits, rows[first : first + _BAND], crop.scale[0], axis=1)
        band = _sampled(band, columns, crop.scale[1], axis=2)
        masks[:, first : first + _BAND] = (band > 0).cpu().numpy()
    inside = extent(np.logical_or.reduce(masks))
    here = inside.shift(rows.start + crop.box.y0, columns.start + crop.box.x0)
    return here, masks[:, *inside.slices]


def extent(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box around a mask; its first pixel if it is empty.

    Parameters
    ----------
    mask : (h, w) array of bool
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return Box(0, 0, 1, 1)
    return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)


def _pixels(start: int, stop: int, scale: float, length: int) -> range:
    """Pixels whose value can depend on the frame's `start` to `stop`."""
    first = min(max(0, math.floor((start - 1) / scale)), length - 1)
    return range(first, max(first + 1, min(length, math.ceil((stop + 1) / scale))))


def _sampled(values: Tensor, pixels: range, scale: float, axis: int) -> Tensor:
    """Interpolate (K, h, w) at the centres of pixels along one axis."""
    places = torch.arange(pixels.start, pixels.stop, dtype=torch.float64)
    places = ((places + 0.5) * scale - 0.5).clamp(0, values.shape[axis] - 1)
    before = places.floor().long()
    after = (before + 1).clamp(max=values.shape[axis] - 1)
    if scale == 1:
        return values.index_select(axis, before.to(values.device))
    shape = [1, 1, 1]
    shape[axis] = len(pixels)
    weight = (places - before).to(values.dtype).reshape(shape).to(values.device)
    first = values.index_select(axis, before.to(values.device))
    return first.lerp(values.index_select(axis, after.to(values.device)), weight)
