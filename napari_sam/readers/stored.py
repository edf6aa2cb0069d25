"""What is known of an image on disk before its first pixel is read.

Every format is brought to this form; all that follows, from the choice of a level
to overrides by the user, is then written once, in `napari_sam.readers`.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from napari_sam.errors import FileError, FormatError, InputError
from napari_sam.images.source import block_length, chunk_lengths

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = (
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What libraries raise at a damaged file; TypeError stays, it would be our fault."""

_PREFIXES = {
    "pico": 1e-6,
    "nano": 1e-3,
    "micro": 1.0,
    "milli": 1e3,
    "centi": 1e4,
    "": 1e6,
}
_UM = {
    **{f"{prefix}meter": factor for prefix, factor in _PREFIXES.items()},
    **{f"{prefix[:1]}m": f for prefix, f in _PREFIXES.items() if prefix != "micro"},
    "um": 1.0,
    "micron": 1.0,
    "angstrom": 1e-4,
    "å": 1e-4,
    "inch": 25400.0,
    "in": 25400.0,
}


@dataclass(frozen=True, slots=True)
class Stored:
    """One image of a file with its resolution levels, the largest first.

    Parameters
    ----------
    axes : str
        The file's own letters, one for each axis; "?" for one without a name,
        "" if it names none.
    shapes : tuple of tuple of int
        Shape of each level.
    load : callable
        Opens the array of a level, without reading it.
    pixel_sizes_um : tuple of (float, float)
        (y, x) pixel size of each level, in micrometres; empty if not known.
    z_step_um : float, optional
        Distance of two slices, in micrometres.
    channel_names : tuple of str
        Empty if not known.
    """

    axes: str
    shapes: tuple[tuple[int, ...], ...]
    load: Callable[[int], Any]
    pixel_sizes_um: tuple[tuple[float, float], ...] = ()
    z_step_um: float | None = None
    channel_names: tuple[str, ...] = ()


Images: TypeAlias = Mapping[str, Callable[[], Stored]]
"""The images of a file by name; each is opened when it is chosen."""


@dataclass(frozen=True, slots=True)
class FileArray:
    """An array on disk, read in part and brought to the machine's byte order.

    Parameters
    ----------
    array : array
        Anything that can be sliced.
    path : Path
        Its file, for messages.
    """

    array: Any
    path: Path

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return tuple(self.array.shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of what is decoded at a time."""
        return chunk_lengths(self.array)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of one pixel."""
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype.newbyteorder("=")

    def __getitem__(self, index: Any, /) -> np.ndarray[Any, Any]:
        """Read a region.

        Raises
        ------
        FormatError
            If it cannot be decoded.
        FileError
            If the file cannot be read at the moment: its disk or share is gone.
        """
        try:
            return np.asarray(self.array[index]).astype(self.dtype, copy=False)
        except BROKEN as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise FileError(
                    error.errno, f"cannot be read ({error.strerror})", str(self.path)
                ) from error
            raise FormatError(
                f"{self.path} cannot be decoded at {index} ({error}); the file is "
                "damaged, get a fresh copy"
            ) from error


def known_axes(axes: str, shape: Sequence[int], name: str) -> str:
    """Translate the axes of a file to letters of TZCYXS.

    A single axis of another kind (pages, positions, angles) becomes z, or time if
    there is a z axis. Without any name, a last axis of 3 or 4 is colour.

    Parameters
    ----------
    axes : str
        As in `Stored`.
    shape : sequence of int
        Length of each axis.
    name : str
        Name of the image, for messages.

    Raises
    ------
    InputError
        If there is more than one way to name the axes.

    Examples
    --------
    >>> known_axes("", (5, 64, 64), ""), known_axes("IYX", (5, 64, 64), "")
    ('ZYX', 'ZYX')
    """
    if not axes.strip("?"):
        plane = "YXS" if len(shape) > 2 and shape[-1] in (3, 4) else "YX"
        axes = (plane if len(shape) < 5 else "TZCYX").rjust(len(shape), "?")
    unknown = [letter for letter in axes if letter not in "TZCYXS"]
    free = [letter for letter in "ZT" if letter not in axes]
    if len(axes) == len(shape) and len(unknown) <= min(1, len(free)):
        return axes.replace(unknown[0], free[0]) if unknown else axes
    raise InputError(
        f"the {len(shape)} axes of {name}, of shape {tuple(shape)}, have no names that "
        "are known; give one letter of TZCYXS for each, such as axes="
        f"{'TZCYX'[-len(shape) :]!r}"
    )


def plane_shape(axes: str, shape: Sequence[int]) -> tuple[int, int]:
    """Pick (height, width) out of the shape of an array."""
    return shape[axes.index("Y")], shape[axes.index("X")]


def level_sizes_um(
    axes: str, shapes: Sequence[Sequence[int]], size_um: tuple[float, float] | None
) -> tuple[tuple[float, float], ...]:
    """Pixel size of each level where the file gives that of the first only.

    Examples
    --------
    >>> level_sizes_um("YX", [(2001, 2000), (1000, 1000)], (0.5, 0.5))
    ((0.5, 0.5), (1.0, 1.0))
    """
    if size_um is None or not {"Y", "X"} <= set(axes):
        return ()
    full = plane_shape(axes, shapes[0])
    sizes = []
    for shape in shapes:
        y, x = map(block_length, full, plane_shape(axes, shape))
        sizes.append((size_um[0] * y, size_um[1] * x))
    return tuple(sizes)


def micrometres(value: Any, unit: str | None = None) -> float | None:
    """Convert a length as files write it; None if it is none or has no unit.

    Parameters
    ----------
    value : float or str or None
        The length.
    unit : str, optional
        Its unit, in any of the usual spellings. Default: micrometres.

    Examples
    --------
    >>> micrometres("250", "nm"), micrometres(1, "µm"), micrometres(3, "pixel")
    (0.25, 1.0, None)
    """
    unit = (unit or "um").strip().lower().replace("\\u00b5", "u")
    for sign in ("\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"):
        unit = unit.replace(sign, "u")
    unit = unit.replace("metre", "meter")
    factor = _UM.get(unit) or _UM.get(unit.removesuffix("s"))
    try:
        length = float(value) * (factor or 0)
    except (TypeError, ValueError):
        return None
    return length if 0 < length < math.inf else None


def pixel_size_um(scale: Any, units: Any) -> tuple[float, ...] | None:
    """Read the (z,) y, x pixel size in micrometres off the scale of a layer.

    Parameters
    ----------
    scale : sequence of float
        Of the layer.
    units : sequence of unit, or None
        Of the layer; pint's, or their names.

    Returns
    -------
    tuple of float or None
        None where y or x have no unit of length.
    """
    sizes = [
        micrometres(size, str(unit))
        for size, unit in zip(scale, units or (), strict=False)
    ][-3:]
    if len(sizes) < 2 or None in sizes[-2:]:
        return None
    return tuple(size for size in sizes if size is not None)
