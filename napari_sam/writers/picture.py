"""Outlines of a plane of any size as PNG: read in bands, shrunk as it is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from napari_sam.images import find_intensity, read_rgb
from napari_sam.tiling import Box
from napari_sam.writers.atomic import checked_path
from napari_sam.writers.objects import image_source, label_source, one_plane, read_ids
from napari_sam.writers.overlay import MAX_SIDE, save_overlay

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.images import ImageSource

ENDINGS = (".png",)

_BAND_PIXELS = 2**22


def save_outlines(
    labels: Any,
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | Sequence[float] | None = None,
    image: Any = None,
    overwrite: bool = False,
) -> Path:
    """Save a picture of the outlines of one plane.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids of one plane, 0 is background.
    path : path
        Where to write, ending in .png.
    pixel_size_um : float, or sequence of float, optional
        In micrometres: one number, or (y, x); draws a scale bar. Default: what the
        labels know.
    image : ImageSource or array, optional
        The image to draw on. Default: black.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the picture is. A plane that is larger than `MAX_SIDE` is shrunk.

    Raises
    ------
    InputError
        If the labels are none, or a stack, or the image is another's.
    FileError
        If the file exists already or cannot be written.
    """
    path = checked_path(path, ENDINGS, "outlines")
    labels = one_plane(label_source(labels, pixel_size_um), "PNG")
    factor = math.ceil(max(labels.plane_shape) / MAX_SIDE)
    ids = np.concatenate(
        [
            _middles(read_ids(labels, band), factor)
            for band in _bands(labels.plane_shape, factor)
        ]
    )
    if image is None:
        rgb = np.zeros((*ids.shape, 3), np.uint8)
    else:
        rgb = _shrunk(image_source(image, labels), factor)
    size = labels.pixel_size_um and tuple(factor * s for s in labels.pixel_size_um)
    return save_overlay(rgb, ids, path, pixel_size_um=size, overwrite=overwrite)


def _middles(ids: NDArray[np.uint32], factor: int) -> NDArray[np.uint32]:
    """Return the pixel in the middle of each block."""
    y, x = (min(factor, n) // 2 for n in ids.shape)
    return ids[y::factor, x::factor].copy()  # a view would keep all pixels


def _shrunk(image: ImageSource, factor: int) -> Any:
    intensity = find_intensity(image)
    parts = []
    for band in _bands(image.plane_shape, factor):
        rgb = read_rgb(image, intensity, band)
        parts.append(np.asarray(Image.fromarray(rgb).reduce(factor)))
    return np.concatenate(parts)


def _bands(shape: tuple[int, int], factor: int) -> Iterator[Box]:
    """Cut a plane into bands of whole blocks; what is left at the ends is dropped.

    A side shorter than a block is one block.
    """
    height, width = (max(n // factor * factor, min(n, factor)) for n in shape)
    step = max(_BAND_PIXELS // width // factor, 1) * factor
    for y0 in range(0, height, step):
        yield Box(y0, 0, min(y0 + step, height), width)
