"""Logits of a crop to masks in pixels of the plane, in their box alone, and back.

A crop at a small scale shows more of the plane than memory should hold as numbers:
masks are enlarged band by band, and only where they are.
"""

from __future__ import annotations

import math
from functools import reduce
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from napari_sam.masks import boxes_of
from napari_sam.model.affinity import CELL
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.tiling import Crop

_BAND = 256  # rows enlarged at once

# Weights of the four logits around a block of `CELL` by `CELL` pixels, (4, 16).
_FRACTION = (np.arange(CELL) + 0.5) / CELL
_LINEAR = np.stack([1 - _FRACTION, _FRACTION])
_BILINEAR = np.kron(_LINEAR, _LINEAR).astype(np.float32)
_CORNERS = tuple(product(range(2), repeat=2))

# Logits of a given mask: sure inside and outside, undecided at the border (ours; the
# decoder's own answers reach about +-15).
_SURE = 8.0


def input_logits(
    logits: Tensor, input_shape: tuple[int, int], floor: float
) -> tuple[tuple[int, int], Tensor]:
    """Bring logits to the pixels of the input frame, where they exceed a floor.

    The values are those of `Sam.upscale`; most objects are small, and what lies
    around them need not be interpolated.

    Parameters
    ----------
    logits : (m, m) tensor
        From the decoder, of the whole frame.
    input_shape : tuple of int
        `Crop.input_shape`: beyond lies padding.
    floor : float
        Pixels that are left out are not above it.

    Returns
    -------
    origin : tuple of int
        First row and column of the part, in pixels of the frame.
    part : (h, w) tensor
    """
    # a cell more in each direction: interpolation reaches as far
    seen = logits[*(slice(-(-n // CELL) + 1) for n in input_shape)]
    y0, x0, y1, x1 = boxes_of((seen > floor)[None])[0].tolist()
    y0, x0 = max(y0 - 1, 0), max(x0 - 1, 0)
    # mask by mask: three channels at once take torch three times as long (measured)
    part = functional.interpolate(
        seen[None, None, y0 : y1 + 1, x0 : x1 + 1],
        scale_factor=CELL,
        mode="bilinear",
        align_corners=False,
    )[0, 0]
    first = CELL * y0, CELL * x0
    height, width = (n - start for n, start in zip(input_shape, first, strict=True))
    return first, part[:height, :width]


class Drawn(NamedTuple):
    """A mask in pixels of the plane.

    Attributes
    ----------
    box : Box
        The smallest around the mask, in plane pixels; one pixel if it is empty.
    mask : (height, width) array of bool, over `box`
    stability : float
        From `stability_scores`.
    """

    box: Box
    mask: NDArray[np.bool_]
    stability: float


def unscaled_mask(logits: NDArray[np.float32], crop: Crop) -> Drawn:
    """Cut enlarged logits at 0, without enlarging what is on one side anyway.

    A bilinear value lies between those of the four logits around it, so only where
    they stand on two sides of a level (-1, 0 or 1) it has to be computed.

    Parameters
    ----------
    logits : (m, m) array
        From the decoder, of the whole frame.
    crop : Crop
        That was asked, at scale 1: pixels of its frame are pixels of the plane.

    Returns
    -------
    Drawn
        As `input_logits` and `plane_mask` give it.
    """
    input_shape = crop.input_shape
    # a cell more in each direction: interpolation reaches as far
    seen = logits[*(slice(-(-n // CELL) + 1) for n in input_shape)]
    held = extent(seen > -1)
    rows = np.arange(held.y0 - 1, held.y1 + 1).clip(0, seen.shape[0] - 1)
    columns = np.arange(held.x0 - 1, held.x1 + 1).clip(0, seen.shape[1] - 1)
    around = seen.take(rows, 0).take(columns, 1)
    # levels that each logit exceeds, then the fewest and most of a block's corners
    side = reduce(np.add, [(around > level).view(np.int8) for level in (-1, 0, 1)])
    sides = [side[i : i - 1 or None, j : j - 1 or None] for i, j in _CORNERS]
    fewest, most = reduce(np.minimum, sides), reduce(np.maximum, sides)
    y, x = np.divmod(np.flatnonzero(fewest < most), most.shape[1])
    corners = np.stack([around[y + i, x + j] for i, j in _CORNERS], axis=1)
    values = corners @ _BILINEAR  # of the pixels of these blocks
    fewest[y, x] = 0  # so that they are counted once

    # Blocks lie between cells, so the first begins half a cell before the first cell,
    # and those at the border are partly outside.
    first = CELL * held.y0 - CELL // 2, CELL * held.x0 - CELL // 2
    spans, n_inside = zip(
        *map(_on_frame, first, fewest.shape, input_shape), strict=True
    )
    n_rows, n_columns = (each.sum(axis=1, dtype=np.float32) for each in n_inside)
    if not all(each.all() for each in n_inside):
        outside = ~(n_inside[0][y, :, None] & n_inside[1][x, None, :])
        values[outside.reshape(values.shape)] = -np.inf
    inner, outer = (
        float(n_rows @ (fewest > n) @ n_columns) + np.count_nonzero(values > level)
        for n, level in ((2, 1), (0, -1))
    )
    # four pixels of a row are written as one number of four bytes
    blocks = np.repeat((fewest > 1).astype(np.uint32) * 0x01010101, CELL, axis=0)
    by_row = blocks.reshape(-1, CELL, blocks.shape[1])
    by_row[y, :, x] = (values > 0).view(np.uint32)
    mask = blocks.view(bool)[spans]
    if not mask.size:  # what is above -1 lies beyond the frame
        mask = np.zeros((1, 1), bool)
    here = extent(mask)
    y0, x0 = (max(start, 0) for start in first)
    box = here.shift(y0 + crop.box.y0, x0 + crop.box.x0)
    return Drawn(box, mask[here.slices], inner / max(outer, 1))


def _on_frame(
    first: int, n_blocks: int, length: int
) -> tuple[slice, NDArray[np.bool_]]:
    """Tell which pixels of blocks lie on the frame: a slice, and (n_blocks, CELL)."""
    pixels = np.arange(first, first + CELL * n_blocks).reshape(n_blocks, CELL)
    return slice(max(-first, 0), length - first), (pixels >= 0) & (pixels < length)


def plane_logits(logits: Tensor, crop: Crop, floor: float = -1.0) -> tuple[Box, Tensor]:
    """Bring logits to the pixels of the plane, where they exceed a floor.

    Parameters
    ----------
    logits : (m, m) tensor
        From the decoder, of the whole frame.
    crop : Crop
        That was asked.
    floor : float, default -1
        Pixels that are left out are not above it; the default is what stability
        scores ask for.

    Returns
    -------
    box : Box
        In plane pixels.
    part : (height, width) tensor, over `box`
    """
    (y0, x0), part = input_logits(logits, crop.input_shape, floor)
    rows = _pixels(y0, y0 + part.shape[0], crop.scale[0], crop.box.height)
    columns = _pixels(x0, x0 + part.shape[1], crop.scale[1], crop.box.width)
    part = _sampled(part, rows, crop.scale[0], y0, axis=0)
    part = _sampled(part, columns, crop.scale[1], x0, axis=1)
    box = Box(rows.start, columns.start, rows.stop, columns.stop)
    return box.shift(crop.box.y0, crop.box.x0), part


def plane_mask(
    logits: Tensor, crop: Crop, origin: tuple[int, int] = (0, 0)
) -> tuple[Box, NDArray[np.bool_]]:
    """Cut logits at 0 and bring the mask to the pixels of the plane.

    Bilinear, as in the reference.

    Parameters
    ----------
    logits : (h, w) tensor
        In the input frame of the crop, without padding; beyond this part of it there
        is none above 0.
    crop : Crop
        Where the frame lies.
    origin : tuple of int
        First row and column of the part, in pixels of the frame.

    Returns
    -------
    box : Box
        The smallest around the mask, in plane pixels; one pixel if it is empty.
    mask : (height, width) array of bool, over `box`
    """
    inside = _above_zero(logits)
    held = extent(inside).shift(*origin)
    if crop.scale == (1.0, 1.0):
        at_origin = held.shift(-origin[0], -origin[1])
        return held.shift(crop.box.y0, crop.box.x0), inside[at_origin.slices]
    rows = _pixels(held.y0, held.y1, crop.scale[0], crop.box.height)
    columns = _pixels(held.x0, held.x1, crop.scale[1], crop.box.width)
    mask = np.empty((len(rows), len(columns)), bool)
    for first in range(0, len(rows), _BAND):
        some = rows[first : first + _BAND]
        band = _sampled(logits, some, crop.scale[0], origin[0], axis=0)
        band = _sampled(band, columns, crop.scale[1], origin[1], axis=1)
        mask[first : first + _BAND] = _above_zero(band)
    here = extent(mask)
    box = here.shift(rows.start + crop.box.y0, columns.start + crop.box.x0)
    return box, mask[here.slices]


def _above_zero(logits: Tensor) -> NDArray[np.bool_]:
    """Tell on the host where logits are above 0."""
    if logits.device.type == "cpu":  # numpy compares in a fraction of torch's time
        above: NDArray[np.bool_] = logits.numpy() > 0
        return above
    return (logits > 0).cpu().numpy()


def over_one_box(
    found: Sequence[tuple[Box, NDArray[np.bool_]]],
) -> tuple[Box, NDArray[np.bool_]]:
    """Bring masks to the smallest box that holds them all.

    Parameters
    ----------
    found : sequence of (Box, (h, w) array of bool)
        From `plane_mask`.

    Returns
    -------
    box : Box
        That of the first if all are empty.
    masks : (K, height, width) array of bool
    """
    boxes = [box for box, mask in found if mask.any()] or [found[0][0]]
    y0, x0 = min(box.y0 for box in boxes), min(box.x0 for box in boxes)
    y1, x1 = max(box.y1 for box in boxes), max(box.x1 for box in boxes)
    masks = np.zeros((len(found), y1 - y0, x1 - x0), bool)
    for joined, (box, mask) in zip(masks, found, strict=True):
        if mask.any():
            joined[box.shift(-y0, -x0).slices] = mask
    return Box(y0, x0, y1, x1), masks


def mask_logits(
    box: Box, mask: NDArray[np.bool_], crop: Crop, size: int, frame: int
) -> NDArray[np.float32]:
    """Write a mask of the plane as a mask prompt of a crop.

    Parameters
    ----------
    box : Box
        Where the mask lies, in plane pixels.
    mask : (h, w) array of bool
    crop : Crop
        The crop that shall answer.
    size : int
        Side of the mask prompt, in its own pixels.
    frame : int
        Side of the input frame, in input pixels.

    Returns
    -------
    (size, size) float32 array
        Logits: +-8, linear through 0 over the pixels at the border.
    """
    # centres of the prompt's pixels, in the input frame and in the box
    centres = (np.arange(size) + 0.5) * frame / size - 0.5
    places = crop.to_plane(np.stack([centres, centres], axis=1)) - (box.y0, box.x0)
    touched = (places > -1) & (places < box.shape)
    soft = np.zeros((size, size), np.float32)
    near = [places[touched[:, axis], axis] for axis in range(2)]
    soft[np.ix_(*touched.T)] = ndimage.map_coordinates(
        mask.astype(np.float32), np.meshgrid(*near, indexing="ij"), order=1, cval=0.0
    )
    logits: NDArray[np.float32] = (2 * soft - 1) * np.float32(_SURE)
    return logits


def extent(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box around a mask; its first pixel if it is empty.

    Parameters
    ----------
    mask : (h, w) array of bool
    """
    return Box.around(mask) or Box(0, 0, 1, 1)


def _pixels(start: int, stop: int, scale: float, length: int) -> range:
    """Pixels whose value can depend on the frame's `start` to `stop`."""
    if scale == 1:
        return range(start, max(start + 1, stop))
    first = min(max(0, math.floor((start - 1) / scale)), length - 1)
    return range(first, max(first + 1, min(length, math.ceil((stop + 1) / scale))))


def _sampled(
    values: Tensor, pixels: range, scale: float, first: int, axis: int
) -> Tensor:
    """Interpolate (h, w), which begin at `first`, at the centres of pixels."""
    if scale == 1:
        return values.narrow(axis, pixels.start - first, len(pixels))
    places = torch.arange(pixels.start, pixels.stop, dtype=torch.float64)
    places = (places + 0.5) * scale - 0.5 - first
    places = places.clamp(0, values.shape[axis] - 1)
    before = places.floor().long()
    after = (before + 1).clamp(max=values.shape[axis] - 1)
    shape = [1, 1]
    shape[axis] = len(pixels)
    weight = (places - before).to(values.dtype).reshape(shape).to(values.device)
    lower = values.index_select(axis, before.to(values.device))
    return lower.lerp(values.index_select(axis, after.to(values.device)), weight)
