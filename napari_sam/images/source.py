"""An image of any size, in memory or on disk, read region by region."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_sam.errors import InputError
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_ALPHA_FREE = {1: 1, 2: 1, 3: 3, 4: 3}


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

    Raises
    ------
    InputError
        If the axes do not describe the array, or if its pixels are none or not
        real numbers.

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

    def __post_init__(self) -> None:
        self._check_axes()
        self._check_pixels()
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

    def _checked_box(self, box: Box | None, plane: tuple[int, int]) -> Box:
        n_frames, n_slices = self.shape[:2]
        if not (0 <= plane[0] < n_frames and 0 <= plane[1] < n_slices):
            raise InputError(
                f"plane (frame, slice) = {tuple(plane)} of {self.name}, which has "
                f"{n_frames} frames and {n_slices} slices; count from 0"
            )
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
