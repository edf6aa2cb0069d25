"""Crops that show nothing, which need no encoder.

The encoder sees 8-bit pixels, so the question is asked of those. Means of 8 x 8 px are
compared: noise averages out, while an object of 8 px or more that a person could see
does not. The whole range of the means counts, not their spread, so a single faint
object keeps its crop; uneven light or dirt keeps it, too. When in doubt a crop is
encoded: a lost second is better than a lost object.

Noise relative to its own level was rejected as criterion: a crop full of fine texture
looks like strong noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MIN_CONTRAST = 2.0
"""Gray levels of 255 by which blocks differ if there is something (ours).

A step of 2 is hardly seen on a screen. Of 6183 windows of 128 px with a labelled
object, from microscopes of many kinds, the faintest had 12; of 1388 empty windows 6 %
had less than 2 (benchmarks/background.py). `tests/test_background.py` has noise and
faint discs.
"""

_BLOCK = 8


def contrast(bands: Sequence[NDArray[np.float32]]) -> float:
    """Return by how many gray levels the blocks of a picture differ.

    Parameters
    ----------
    bands : sequence of (rows, columns, 3) float32 array
        From `block_means`, of one picture.

    Returns
    -------
    float
        0 to 255: the largest block minus the smallest, of the channel where this is
        most.

    Examples
    --------
    >>> picture = np.full((64, 64, 3), 7, np.uint8)
    >>> picture[20:40, 20:40] = 9
    >>> contrast([block_means(picture)])
    2.0
    """
    return float(np.ptp(np.concatenate(bands), axis=(0, 1)).max())


def block_means(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean of each block of 8 x 8 px.

    Parameters
    ----------
    rgb : (h, w, 3) uint8 array
        From `read_rgb`, or a band of it.

    Returns
    -------
    (h // 8, w // 8, 3) float32 array, at least (1, 1, 3)
        Rows and columns that fill no block count with the last.
    """
    # whole numbers, rows first: so it reads the picture once and in order
    sums = _sums(_sums(rgb, np.uint16).swapaxes(0, 1), np.uint32).swapaxes(0, 1)
    rows, columns = (_lengths(n) for n in rgb.shape[:2])
    sizes = rows[:, None, None] * columns[:, None]
    means: NDArray[np.float32] = np.divide(sums, sizes, dtype=np.float32)
    return means


def _sums(pixels: NDArray[np.unsignedinteger], dtype: type) -> NDArray[Any]:
    """Add up the rows of each block; the last block takes what is left."""
    n = max(len(pixels) // _BLOCK, 1)
    whole = pixels[: n * _BLOCK]
    sums: NDArray[Any] = whole.reshape(n, -1, *pixels.shape[1:]).sum(1, dtype)
    sums[-1] += pixels[n * _BLOCK :].sum(0, dtype)
    return sums


def _lengths(n: int) -> NDArray[np.float32]:
    starts = np.arange(max(n // _BLOCK, 1)) * _BLOCK
    return np.diff(starts, append=n).astype(np.float32)
