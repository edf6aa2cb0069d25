"""The size of a pixel, as people give it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.images import ImageSource


def sizes_um(pixel_size_um: float | Sequence[float] | None) -> dict[str, float]:
    """Bring a pixel size to one length for each axis.

    Parameters
    ----------
    pixel_size_um : float, or sequence of float, or None
        In micrometres: one number, or (y, x), or (z, y, x).

    Returns
    -------
    dict of str to float
        By letter; empty for None.

    Raises
    ------
    InputError
        If it is something else, or not above 0.

    Examples
    --------
    >>> sizes_um(0.5), sizes_um((2, 0.5, 0.5))
    ({'Y': 0.5, 'X': 0.5}, {'Z': 2.0, 'Y': 0.5, 'X': 0.5})
    """
    if pixel_size_um is None:
        return {}
    given = [float(size) for size in np.ravel(pixel_size_um)]
    sizes = given * 2 if len(given) == 1 else given
    if len(sizes) not in (2, 3) or not all(0 < size < math.inf for size in sizes):
        raise InputError(
            f"pixel_size_um={pixel_size_um}; give one number above 0, or (y, x), or "
            "(z, y, x)"
        )
    return dict(zip("ZYX"[-len(sizes) :], sizes, strict=True))


def stack_size_um(source: ImageSource) -> tuple[float, ...] | None:
    """Tell the pixel size of an image, (y, x) or (z, y, x); None if not known.

    Examples
    --------
    >>> from napari_sam.images import ImageSource
    >>> stack = np.zeros((3, 8, 8), np.uint8)
    >>> stack_size_um(ImageSource(stack, "ZYX", pixel_size_um=(0.5, 0.5), z_step_um=2))
    (2, 0.5, 0.5)
    """
    if source.pixel_size_um is None or source.z_step_um is None:
        return source.pixel_size_um
    return (source.z_step_um, *source.pixel_size_um)
