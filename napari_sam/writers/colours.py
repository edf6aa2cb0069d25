"""A colour for each object id, the same in every format and every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.color import hsv2rgb

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_GOLDEN = (5**0.5 - 1) / 2  # steps of it spread evenly over the circle of hues


def colours_of(ids: ArrayLike) -> NDArray[np.uint8]:
    """Choose a colour for each object id.

    Parameters
    ----------
    ids : (n,) integer array
        Object ids.

    Returns
    -------
    (n, 3) uint8 array
        RGB, bright and strong; ids that follow each other differ in hue.

    Examples
    --------
    >>> colours_of([1, 2]).max(axis=1).tolist()
    [255, 255]
    """
    hues = np.asarray(ids, dtype=np.float64) * _GOLDEN % 1
    hsv = np.stack([hues, np.full_like(hues, 0.65), np.ones_like(hues)], axis=-1)
    colours: NDArray[np.uint8] = np.round(255 * hsv2rgb(hsv)).astype(np.uint8)
    return colours
