"""The pixels of an image as the encoder eats them: 8-bit RGB.

`Intensity` is found once for the whole image and then used for every crop,
plane and run, so that neighbouring crops agree: limits found crop by crop would
make an empty crop look full of noise. 8-bit RGB keeps its values, as the
published weights expect.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.errors import FormatError, InputError, NapariSamWarning
from napari_sam.images.source import chunk_lengths
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_sam.images.source import ImageSource

PERCENTILES = (0.1, 99.9)
"""Percentages of pixels below the limits (ours).

One hot pixel must not darken everything, as it would with 100; and nuclei may
cover as little as 0.15 % of a fluorescence plane (measured on BBBC038), so that
99 would make all of them flat white. `tests/test_images.py` has both cases.
"""

_BLOCK_PIXELS = 256 * 256
_MIN_BLOCKS, _MAX_BLOCKS = 64, 256
_SAMPLE_PIXELS = _MIN_BLOCKS * _BLOCK_PIXELS


@dataclass(frozen=True, slots=True)
class Intensity:
    """How the pixels of an image become 8-bit RGB.

    One channel becomes gray, two magenta and green, three red, green and blue;
    of more channels the mean becomes gray.

    Parameters
    ----------
    channels : tuple of int
        Channels that are used, in this order.
    limits : tuple of (float, float)
        For each of them the pixel values that become 0 and 255; what lies
        outside saturates, and a pixel that is not a number becomes 0.
    invert : bool
        Exchange dark and bright at the end.

    Raises
    ------
    InputError
        If there is no channel, or not one rising pair of limits for each.
    """

    channels: tuple[int, ...]
    limits: tuple[tuple[float, float], ...]
    invert: bool = False

    def __post_init__(self) -> None:
        if not self.channels or len(self.limits) != len(self.channels):
            raise InputError(
                f"{len(self.limits)} pairs of limits for {len(self.channels)} "
                "channels; choose at least one channel and give a pair for each"
            )
        for low, high in self.limits:
            if not 0 < high - low < math.inf:
                raise InputError(
                    f"contrast limits ({low}, {high}); give two numbers, the lower "
                    "one first"
                )


def find_intensity(
    source: ImageSource,
    *,
    channels: Sequence[int | str] | None = None,
    limits: Sequence[tuple[float, float]] | None = None,
    percentiles: tuple[float, float] = PERCENTILES,
    invert: bool = False,
) -> Intensity:
    """Find contrast limits that hold for the whole image.

    Limits come from all pixels of a small image and from a random sample of
    blocks, the same in each run, of a large one. Each pixel has the same chance
    to be drawn, and the number of blocks read does not grow with the image.
    Colours share one pair of limits, so that their balance stays.

    Parameters
    ----------
    source : ImageSource
        The image.
    channels : sequence of int or str, optional
        Channels to use, by number or name. Default: all.
    limits : sequence of (float, float), optional
        Limits to use instead: one pair for all channels, or one for each.
    percentiles : tuple of float
        Percentage of pixels below the lower and below the upper limit.
    invert : bool
        Exchange dark and bright, for example for dark objects in brightfield.

    Returns
    -------
    Intensity

    Raises
    ------
    InputError
        If a channel does not exist, if the percentiles do not rise, if the limits
        do not fit, or if a channel holds no finite number.
    FormatError
        If nothing that is looked at can be decoded.

    Warns
    -----
    NapariSamWarning
        If a channel is constant, or holds values that are not finite, or if parts of
        the image cannot be decoded.
    """
    numbers = (
        tuple(range(source.n_channels))
        if channels is None
        else source.channel_numbers(channels)
    )
    if limits is not None:
        pairs = tuple((float(low), float(high)) for low, high in limits)
        return Intensity(
            numbers, pairs * len(numbers) if len(pairs) == 1 else pairs, invert
        )
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise InputError(
            f"percentiles {percentiles}; give two percentages, the lower one first"
        )
    return Intensity(numbers, _find_limits(source, numbers, percentiles), invert)


def read_rgb(
    source: ImageSource,
    intensity: Intensity,
    box: Box | None = None,
    plane: tuple[int, int] = (0, 0),
) -> NDArray[np.uint8]:
    """Read a region as 8-bit RGB; channels that are not used are not read.

    Parameters
    ----------
    source : ImageSource
        The image.
    intensity : Intensity
        From `find_intensity`.
    box : Box, optional
        Region, in plane pixels. Default: the whole plane.
    plane : tuple of int
        (frame, slice), counted from 0.

    Returns
    -------
    (h, w, 3) uint8 array
    """
    pixels = source.read(box, plane, channels=intensity.channels)
    return _mix(pixels, intensity)


def to_uint8_rgb(pixels: NDArray[Any], intensity: Intensity) -> NDArray[np.uint8]:
    """Make 8-bit RGB from pixels.

    Parameters
    ----------
    pixels : (h, w) or (h, w, channels) array
        Pixels with all channels of the image, as from `ImageSource.read`.
    intensity : Intensity
        Limits, choice of channels, inversion.

    Returns
    -------
    (h, w, 3) uint8 array

    Raises
    ------
    InputError
        If the pixels have another number of axes, or lack a channel.

    Examples
    --------
    >>> to_uint8_rgb(np.array([[100, 600, 1100]]), Intensity((0,), ((100, 1100),)))[0]
    array([[  0,   0,   0],
           [128, 128, 128],
           [255, 255, 255]], dtype=uint8)
    """
    if pixels.ndim not in (2, 3):
        raise InputError(
            f"pixels of shape {pixels.shape}; give (h, w) or (h, w, channels)"
        )
    pixels = np.atleast_3d(pixels)
    if max(intensity.channels) >= pixels.shape[2]:
        raise InputError(
            f"channels {intensity.channels} of pixels with {pixels.shape[2]} channels; "
            "give the pixels of all channels"
        )
    return _mix(pixels[..., list(intensity.channels)], intensity)


def _mix(pixels: NDArray[Any], intensity: Intensity) -> NDArray[np.uint8]:
    planes = [
        _to_uint8(pixels[..., i], low, high)
        for i, (low, high) in enumerate(intensity.limits)
    ]
    if len(planes) == 1:
        planes = planes * 3
    elif len(planes) == 2:
        planes = [planes[0], planes[1], planes[0]]
    elif len(planes) > 3:
        mean = np.stack(planes).mean(axis=0)
        planes = [_rounded(mean)] * 3
    rgb = np.stack(planes, axis=-1)
    return 255 - rgb if intensity.invert else rgb


def _to_uint8(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    if pixels.dtype == np.uint8 and (low, high) == (0, 255):
        return pixels
    values = pixels.astype(np.result_type(pixels.dtype, np.float32))
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        values -= low
        values /= high - low
        values *= 255
    np.nan_to_num(values, copy=False, nan=0.0, posinf=255.0, neginf=0.0)
    np.clip(values, 0, 255, out=values)
    return _rounded(values)


def _rounded(values: NDArray[Any]) -> NDArray[np.uint8]:
    # halves up: numpy's own rounding would send 127.5 and 128.5 to the same gray
    return np.floor(values + 0.5).astype(np.uint8)


def _find_limits(
    source: ImageSource,
    channels: tuple[int, ...],
    percentiles: tuple[float, float],
) -> tuple[tuple[float, float], ...]:
    dtype = np.dtype(source.array.dtype)
    if dtype == np.bool_:
        return ((0.0, 1.0),) * len(channels)
    if source.is_rgb and dtype == np.uint8:
        return ((0.0, 255.0),) * len(channels)
    sample = _sample(source, channels)
    if source.is_rgb:
        return (_limits(sample, percentiles, source.name),) * len(channels)
    return tuple(
        _limits(sample[:, i], percentiles, f"channel {c} of {source.name}")
        for i, c in enumerate(channels)
    )


def _sample(source: ImageSource, channels: tuple[int, ...]) -> NDArray[Any]:
    """Read pixels of each channel, (n, channels); a damaged block is left out."""
    blocks: list[NDArray[Any]] = []
    damage: list[FormatError] = []
    for plane, box in _sample_blocks(source):
        try:
            pixels = source.read(box, plane, channels=channels)
        except FormatError as error:
            damage.append(error)
        else:
            blocks.append(pixels.reshape(-1, len(channels)))
    if not blocks:
        raise damage[0]
    if damage:
        n_blocks = len(blocks) + len(damage)
        warnings.warn(
            f"{len(damage)} of {n_blocks} parts of {source.name} that were looked at "
            f"for contrast limits are left out: {damage[0]}",
            NapariSamWarning,
            stacklevel=4,
        )
    return np.concatenate(blocks)


def _limits(
    sample: NDArray[Any], percentiles: tuple[float, float], name: str
) -> tuple[float, float]:
    values = sample[np.isfinite(sample)].astype(np.float64)
    if values.size == 0:
        raise InputError(f"{name} holds no finite number; give contrast limits")
    if values.size < sample.size:
        warnings.warn(
            f"{sample.size - values.size} of {sample.size} pixels of {name} are not "
            "finite; they become black (NaN) or saturate",
            NapariSamWarning,
            stacklevel=5,
        )
    low, high = (float(q) for q in np.percentile(values, percentiles))
    if low == high:
        # objects that cover less than the saturated share must not vanish
        low, high = float(values.min()), float(values.max())
    if low == high:
        warnings.warn(
            f"{name} is constant ({low:g}); it becomes black",
            NapariSamWarning,
            stacklevel=5,
        )
        high = max(low + 1, float(np.nextafter(low, math.inf)))
    return low, high


def _sample_blocks(source: ImageSource) -> Iterator[tuple[tuple[int, int], Box]]:
    """Choose blocks so that each pixel of the image has the same chance."""
    n_frames, n_slices, height, width = source.shape
    block_h, block_w = _block_shape(source)
    rows, cols = math.ceil(height / block_h), math.ceil(width / block_w)
    n_blocks = n_frames * n_slices * rows * cols
    wanted = min(max(_SAMPLE_PIXELS // (block_h * block_w), _MIN_BLOCKS), _MAX_BLOCKS)
    if n_blocks <= wanted:
        chosen = np.arange(n_blocks)
    else:
        # one at random from each of equal parts: spread over planes and rows
        jitter = np.random.default_rng(0).random(wanted)
        parts = (np.arange(wanted) + jitter) * (n_blocks / wanted)
        chosen = np.unique(parts.astype(np.int64))
    places = np.unravel_index(chosen, (n_frames, n_slices, rows, cols))
    for t, z, row, col in zip(*(p.tolist() for p in places), strict=True):
        y0, x0 = row * block_h, col * block_w
        box = Box(y0, x0, y0 + block_h, x0 + block_w).clip((height, width))
        yield (t, z), box


def _block_shape(source: ImageSource) -> tuple[int, int]:
    """About 256 x 256 px, but long and flat in a file stored by rows."""
    chunk, (height, width) = chunk_lengths(source.array), source.plane_shape
    chunk_h = min(int(chunk[source.axes.index("Y")]), height)
    chunk_w = min(int(chunk[source.axes.index("X")]), width)
    return (
        min(chunk_h, _BLOCK_PIXELS // min(chunk_w, 256)),
        min(chunk_w, _BLOCK_PIXELS // min(chunk_h, 256)),
    )
