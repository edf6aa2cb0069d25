"""An image of any size, in memory or on disk, read region by region."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_sam.errors import InputError
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_ALPHA_FREE = {1: 1, 2: 1, 3: 3, 4: 3}

# A scale of 0.2501 may read a level of a quarter: scales are rounded so that crops have
# whole pixels, and a hundredth of a pixel in a pixel is not seen (ours).
_LEVEL_SLACK = 1.01


class PixelArray(Protocol):
    """What an array must offer: numpy, zarr, dask and others do."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""

    @property
    def dtype(self) -> Any:
        """Type of one pixel, as numpy dtype."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read a region given by integers and slices."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageSource:
    """An image, in memory or on disk, with its axes and its scale.

    Parameters
    ----------
    array : array of bool, integers or floats
        Anything that can be sliced.
    axes : str
        One letter for each axis of the array: T time, Z slice, C channel, Y row,
        X column, S colour sample (gray, gray + alpha, RGB or RGBA).
    pixel_size_um : tuple of float, optional
        (y, x) size of a pixel, in micrometres.
    z_step_um : float, optional
        Distance of two slices, in micrometres.
    name : str
        What to call the image in messages.
    channel_names : tuple of str
        One for each channel, or none at all.
    path : Path, optional
        The file that the image was read from.
    levels : tuple of array
        The image at lower resolutions, the largest first: arrays with the same axes,
        each pixel the mean of a block of pixels of `array`.

    Raises
    ------
    InputError
        If the axes do not describe the array, if its pixels are none or not real
        numbers, or if a level differs in more than its height and width.

    Examples
    --------
    >>> source = ImageSource(np.zeros((5, 2, 64, 48), np.uint16), axes="TCYX")
    >>> source.shape, source.n_channels
    ((5, 1, 64, 48), 2)
    >>> source.read(Box(0, 0, 10, 20), plane=(3, 0)).shape
    (10, 20, 2)
    """

    array: PixelArray
    axes: str = "YX"
    pixel_size_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    name: str = "image"
    channel_names: tuple[str, ...] = ()
    path: Path | None = None
    levels: tuple[PixelArray, ...] = ()

    def __post_init__(self) -> None:
        self._check_axes()
        self._check_pixels()
        if len(fitting_levels(self.array, self.levels, self.axes)) < len(self.levels):
            shapes = [tuple(each.shape) for each in self.levels]
            raise InputError(
                f"levels of shapes {shapes} for {self.name} of shape "
                f"{tuple(self.array.shape)}; give smaller and smaller ones that differ "
                "in height and width only"
            )
        if self.channel_names and len(self.channel_names) != self.n_channels:
            raise InputError(
                f"{len(self.channel_names)} channel names for {self.n_channels} "
                f"channels of {self.name}; give one for each, or none"
            )
        for size in (*(self.pixel_size_um or ()), self.z_step_um):
            if size is not None and not 0 < size < math.inf:
                raise InputError(
                    f"pixel size {size} um of {self.name}; give a number above 0"
                )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frames, slices, height, width); 1 for an axis that is not there."""
        return self._length("T"), self._length("Z"), *self.plane_shape

    @property
    def plane_shape(self) -> tuple[int, int]:
        """(height, width) of a plane, in pixels."""
        return self._length("Y"), self._length("X")

    @property
    def is_rgb(self) -> bool:
        """Whether a pixel is one colour, and not a set of channels."""
        return self._length("S") >= 3

    @property
    def n_channels(self) -> int:
        """Number of channels or colour samples; alpha does not count."""
        return self._length("C") * _ALPHA_FREE[self._length("S")]

    def plane_indices(self) -> Iterator[tuple[int, int]]:
        """Iterate over the (frame, slice) of each plane, frame by frame."""
        n_frames, n_slices = self.shape[:2]
        return ((t, z) for t in range(n_frames) for z in range(n_slices))

    def level(self, number: int) -> ImageSource:
        """Return the image at a lower resolution; 0 is the image itself.

        Raises
        ------
        InputError
            If there is no such level.
        """
        if not 0 <= number <= len(self.levels):
            raise InputError(
                f"level {number} of {self.name}; its levels are 0 to {len(self.levels)}"
            )
        if number == 0:
            return self
        smaller = replace(self, array=self.levels[number - 1], levels=())
        size = self.pixel_size_um
        if size is not None:
            y, x = self.blocks(smaller)
            size = size[0] * y, size[1] * x
        return replace(smaller, levels=self.levels[number:], pixel_size_um=size)

    def level_for(self, scale: tuple[float, float]) -> int:
        """Return the level with the fewest pixels that suffice for a scale.

        Parameters
        ----------
        scale : tuple of float
            Wanted pixels per pixel of this image, (y, x).

        Examples
        --------
        >>> levels = [np.zeros((n, n), np.uint8) for n in (400, 200, 100)]
        >>> source = ImageSource(levels[0], levels=tuple(levels[1:]))
        >>> [source.level_for((scale, scale)) for scale in (1.0, 0.5, 0.3, 0.25)]
        [0, 1, 1, 2]
        """
        for number in range(len(self.levels), 0, -1):
            blocks = self.blocks(self.level(number))
            sides = (n * s for n, s in zip(blocks, scale, strict=True))
            if max(sides) <= _LEVEL_SLACK:
                return number
        return 0

    def blocks(self, smaller: ImageSource) -> tuple[float, float]:
        """Return how many pixels of this image one pixel of a level covers, (y, x)."""
        height, width = smaller.plane_shape
        return (
            block_length(self.plane_shape[0], height),
            block_length(self.plane_shape[1], width),
        )

    def read(
        self,
        box: Box | None = None,
        plane: tuple[int, int] = (0, 0),
        *,
        channels: Sequence[int] | None = None,
    ) -> NDArray[Any]:
        """Read a region of one plane, and nothing else.

        Parameters
        ----------
        box : Box, optional
            Region, in plane pixels. Default: the whole plane.
        plane : tuple of int
            (frame, slice), counted from 0.
        channels : sequence of int, optional
            Channels to read, in this order. Default: all.

        Returns
        -------
        (h, w) or (h, w, channels) array of the image's own type
            Without channel axis only if the image has none and no channels are
            chosen. Alpha is left out.

        Raises
        ------
        InputError
            If the region, the plane or a channel is not in the image.
        """
        box = self._checked_box(box, plane)
        wanted = range(self.n_channels) if channels is None else channels
        numbers = [self._checked(c) for c in wanted]
        if "C" in self.axes:
            return np.stack([self._slice(box, plane, c) for c in numbers], axis=-1)
        pixels = self._slice(box, plane, None)
        if "S" not in self.axes:
            if channels is None:
                return pixels
            pixels = pixels[..., None]
        return pixels[..., numbers]

    def at(self, plane: tuple[int | None, int | None]) -> ImageSource:
        """Return one frame, one slice or one plane, without reading it.

        Parameters
        ----------
        plane : tuple of int or None
            (frame, slice), counted from 0; None keeps all of them.

        Returns
        -------
        ImageSource
            Without the axes that a number was given for.

        Raises
        ------
        InputError
            If there is no such frame or slice.

        Examples
        --------
        >>> source = ImageSource(np.zeros((5, 2, 64, 48), np.uint16), axes="TZYX")
        >>> source.at((3, None)).axes, source.at((3, 1)).axes
        ('ZYX', 'YX')
        """
        frame, number = plane
        self._check_plane((frame or 0, number or 0))
        chosen = {"T": frame, "Z": number}
        places = [chosen.get(axis) for axis in self.axes]
        return replace(
            self,
            array=_Part(self.array, places),
            axes="".join(axis for axis in self.axes if chosen.get(axis) is None),
            levels=tuple(_Part(level, places) for level in self.levels),
            z_step_um=self.z_step_um if number is None else None,
        )

    def channel_numbers(self, channels: Sequence[int | str]) -> tuple[int, ...]:
        """Translate names and numbers of channels to numbers.

        Parameters
        ----------
        channels : sequence of int or str
            Numbers count from 0; names are those of `channel_names`.

        Raises
        ------
        InputError
            If the image has no such channel.
        """
        numbers = []
        for channel in channels:
            if isinstance(channel, str):
                if channel not in self.channel_names:
                    raise InputError(
                        f"no channel {channel!r} in {self.name}; its channels are "
                        f"{list(self.channel_names) or 'without names'}"
                    )
                numbers.append(self.channel_names.index(channel))
            else:
                numbers.append(self._checked(channel))
        return tuple(numbers)

    def _length(self, axis: str) -> int:
        at = self.axes.find(axis)
        return 1 if at < 0 else int(self.array.shape[at])

    def _checked(self, channel: int) -> int:
        if not 0 <= channel < self.n_channels:
            raise InputError(
                f"channel {channel} of {self.name}, which has {self.n_channels}; "
                "count from 0"
            )
        return int(channel)

    def _check_plane(self, plane: tuple[int, int]) -> None:
        n_frames, n_slices = self.shape[:2]
        if not (0 <= plane[0] < n_frames and 0 <= plane[1] < n_slices):
            raise InputError(
                f"plane (frame, slice) = {tuple(plane)} of {self.name}, which has "
                f"{n_frames} frames and {n_slices} slices; count from 0"
            )

    def _checked_box(self, box: Box | None, plane: tuple[int, int]) -> Box:
        self._check_plane(plane)
        whole = Box.whole(self.plane_shape)
        if box is not None and not whole.contains(box):
            raise InputError(
                f"{box} leaves the plane of {whole.height} x {whole.width} px of "
                f"{self.name}; clip it first"
            )
        return whole if box is None else box

    def _slice(
        self, box: Box, plane: tuple[int, int], channel: int | None
    ) -> NDArray[Any]:
        index: dict[str, int | slice | None] = {
            "T": plane[0],
            "Z": plane[1],
            "C": channel,
            "Y": box.slices[0],
            "X": box.slices[1],
            "S": slice(None),
        }
        pixels = np.asarray(self.array[tuple(index[axis] for axis in self.axes)])
        kept = [axis for axis in self.axes if axis in "YXS"]
        return pixels.transpose([kept.index(a) for a in "YXS" if a in kept])

    def _check_axes(self) -> None:
        shape = tuple(self.array.shape)
        if len(self.axes) != len(shape) or not {"Y", "X"} <= set(self.axes):
            raise InputError(
                f"axes {self.axes!r} for an array of shape {shape}; give one letter "
                "of TZCYXS for each axis, Y and X among them"
            )
        if len(set(self.axes)) < len(self.axes) or not set(self.axes) <= set("TZCYXS"):
            raise InputError(
                f"axes {self.axes!r}; use each letter of TZCYXS at most once"
            )
        if 0 in shape:
            raise InputError(f"{self.name} of shape {shape} has no pixels")
        if {"C", "S"} <= set(self.axes) or self._length("S") not in _ALPHA_FREE:
            raise InputError(
                f"axes {self.axes!r} for an array of shape {shape}; S stands for 1 to "
                "4 colour samples in an image without C, use C for channels"
            )

    def _check_pixels(self) -> None:
        if np.dtype(self.array.dtype).kind not in "buif":
            raise InputError(
                f"{self.name} has pixels of type {self.array.dtype}; give booleans, "
                "integers or floats"
            )


class _Part:
    """An array at fixed places of some of its axes, read where it is asked for."""

    def __init__(self, array: PixelArray, places: Sequence[int | None]) -> None:
        self.array = array
        self._places = places
        self.shape = self._left(array.shape)
        self.dtype = array.dtype
        self.chunks = self._left(chunk_lengths(array))

    def __getitem__(self, key: tuple[Any, ...], /) -> Any:
        left = iter(key)
        return self.array[tuple(next(left) if i is None else i for i in self._places)]

    def _left(self, lengths: Sequence[int]) -> tuple[int, ...]:
        pairs = zip(lengths, self._places, strict=True)
        return tuple(length for length, place in pairs if place is None)


def chunk_lengths(array: Any) -> tuple[int, ...]:
    """Return the shape of what is decoded at a time; of the array if it has no chunks.

    Parameters
    ----------
    array : array of numpy, zarr, dask or others
    """
    # dask's `chunks` lists every chunk; its `chunksize` is what others call chunks
    chunks = getattr(array, "chunksize", getattr(array, "chunks", None))
    return tuple(chunks or array.shape)


def block_length(full: int, part: int) -> float:
    """Return how many of `full` pixels one of the `part` pixels of a level covers.

    Levels are rounded to whole pixels but made by whole factors: 2001 px halved are
    1000 px of twice the size, not of 2.001 times.

    Examples
    --------
    >>> block_length(2001, 1000), block_length(2000, 1500)
    (2, 1.3333333333333333)
    """
    whole = round(full / part)
    return whole if abs(full / whole - part) < 1 else full / part


def fitting_levels(
    array: PixelArray, levels: Sequence[PixelArray], axes: str
) -> tuple[PixelArray, ...]:
    """Choose the levels that show every plane and channel of an image.

    Parameters
    ----------
    array : array
        The image at full resolution.
    levels : sequence of array
        The image at lower resolutions, the largest first. A pyramid over z has fewer
        slices there, which do not fit.
    axes : str
        As in `ImageSource`.
    """
    fitting: list[PixelArray] = []
    before = array
    for level in levels:
        if _is_level_of(before, level, axes):
            fitting.append(level)
            before = level
    return tuple(fitting)


def _is_level_of(array: PixelArray, level: PixelArray, axes: str) -> bool:
    if len(level.shape) != len(array.shape) or level.dtype != array.dtype:
        return False
    pairs = list(zip(axes, array.shape, level.shape, strict=True))
    return all(
        0 < part <= full if axis in "YX" else part == full for axis, full, part in pairs
    ) and any(part < full for _, full, part in pairs)
