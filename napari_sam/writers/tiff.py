"""Labels -> OME-TIFF, tile by tile.

Tiles are cut from one band of rows at a time, so labels may be larger than memory
and live in Zarr or Dask. They are compressed by zlib, which every reader of TIFF
knows; labels shrink to a few percent.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tifffile

from napari_sam.errors import InputError
from napari_sam.images import ImageSource
from napari_sam.images.scale import sizes_um, stack_size_um
from napari_sam.tiling import Box
from napari_sam.writers.atomic import atomic
from napari_sam.writers.objects import label_source, read_ids, stack_axes

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_TILE = 512
_BIGTIFF_BYTES = 2**32 - 2**25
"""From here on offsets may not fit in 32 bits; compressed files are rarely so long."""


def save_labels(  # noqa: PLR0913 - what a label file can hold
    labels: Any,
    path: str | os.PathLike[str],
    *,
    axes: str | None = None,
    pixel_size_um: float | Sequence[float] | None = None,
    dtype: Literal["uint16", "uint32"] = "uint32",
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save labels as OME-TIFF: tiled, compressed, with the pixel size.

    Parameters
    ----------
    labels : array of bool or integers, or ImageSource
        Object ids, 0 is background; numpy, or anything that can be sliced. A source
        knows its axes and its pixel size.
    path : path
        Where to write, ending in .tif, .tiff, .ome.tif or .ome.tiff.
    axes : str, optional
        One letter of TZCYX for each axis, the last two "YX". Default: "YX", "ZYX"
        or "TZYX", by the number of axes.
    pixel_size_um : float, or sequence of float, optional
        In micrometres: one number, or (y, x), or (z, y, x).
    dtype : {"uint32", "uint16"}
        Type in the file; some programs read no more than 16 bits.
    notes : mapping of str to JSON values, optional
        Kept in the file as a map annotation; `readers.notes.read_notes` reads them.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is.

    Raises
    ------
    InputError
        If an id does not fit, or the axes, the pixel size or the name do not.
    FileError
        If the file exists already or cannot be written.

    Notes
    -----
    The file appears under its name when it is complete, never before.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"labels in {path.name}; give a name that ends in .tif")
    if isinstance(labels, ImageSource):
        source = label_source(labels, pixel_size_um)
        labels, axes = _Stack(source), stack_axes(source)
        pixel_size_um = stack_size_um(source)
    elif isinstance(labels, list | tuple):
        labels = np.asarray(labels)
    shape = tuple(int(n) for n in labels.shape)
    if getattr(labels.dtype, "kind", None) not in ("b", "u", "i"):
        raise InputError(
            f"labels of type {labels.dtype}; give integers, the object ids"
        )
    axes = _checked_axes(axes, shape)
    tile = (_tile_side(shape[-2]), _tile_side(shape[-1]))
    with atomic(path, overwrite=overwrite) as part:
        tifffile.imwrite(
            part,
            _tiles(labels, shape, tile, np.dtype(dtype)),
            bigtiff=math.prod(shape) * np.dtype(dtype).itemsize >= _BIGTIFF_BYTES,
            shape=shape,
            dtype=dtype,
            tile=tile,
            **_ome(path, axes, sizes_um(pixel_size_um), notes),
        )
    return path


def save_scores(
    scores: NDArray[np.floating[Any]],
    path: Path,
    *,
    pixel_size_um: Sequence[float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save a number for each pixel of a plane or a volume as float32 OME-TIFF.

    Parameters
    ----------
    scores : (Y, X) or (Z, Y, X) array of floats
    path : Path
        Ending in .tif.
    pixel_size_um : sequence of float, optional
        (y, x) or (z, y, x), in micrometres.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is.

    Raises
    ------
    InputError
        If the array has other axes, or the pixel size does not fit.
    FileError
        If the file exists already or cannot be written.
    """
    how = _ome(path, _checked_axes(None, scores.shape), sizes_um(pixel_size_um))
    with atomic(path, overwrite=overwrite) as part:
        tifffile.imwrite(part, scores.astype(np.float32), **how)
    return path


def _ome(
    path: Path,
    axes: str,
    sizes: dict[str, float],
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return how tifffile writes a compressed OME-TIFF with these metadata."""
    metadata: dict[str, Any] = {"axes": axes, "Name": path.name.split(".")[0]}
    for axis, size in sizes.items():
        metadata[f"PhysicalSize{axis}"] = size
        metadata[f"PhysicalSize{axis}Unit"] = "µm"
    if notes:
        # TIFF keeps text of 7 bits, which JSON can be
        pairs = {f"napari_sam.{key}": json.dumps(value) for key, value in notes.items()}
        metadata["MapAnnotation"] = {"Namespace": "napari_sam", **pairs}
    return {
        "ome": True,
        "compression": "zlib",
        "photometric": "minisblack",
        "resolution": (1e4 / sizes["X"], 1e4 / sizes["Y"]) if sizes else None,
        "resolutionunit": "CENTIMETER" if sizes else None,
        "metadata": metadata,
    }


class _Stack:
    """A source as an array of planes that is read row by row."""

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self._axes = stack_axes(source)
        self.dtype = source.array.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        lengths = dict(zip("TZYX", self._source.shape, strict=True))
        return tuple(lengths[axis] for axis in self._axes)

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        *plane, rows = index
        at = dict(zip(self._axes, plane, strict=False))
        height, width = self._source.plane_shape
        box = Box(rows.start, 0, min(rows.stop, height), width)
        return read_ids(self._source, box, (at.get("T", 0), at.get("Z", 0)))


def _tiles(
    labels: Any, shape: tuple[int, ...], tile: tuple[int, int], dtype: np.dtype[Any]
) -> Iterator[NDArray[Any]]:
    """Cut planes into tiles, row by row; tiles at the edge are filled up with 0."""
    height, width = tile
    for plane in np.ndindex(*shape[:-2]):
        for y in range(0, shape[-2], height):
            band = np.asarray(labels[(*plane, slice(y, y + height))])
            least, most = int(band.min()), int(band.max())
            if least < 0 or most > np.iinfo(dtype).max:
                raise InputError(
                    f"object ids from {least} to {most} do not fit in {dtype}; relabel "
                    "the objects, or save as "
                    + ("uint32" if most < 2**32 else "OME-Zarr, which holds 64 bits")
                )
            for x in range(0, shape[-1], width):
                cut = band[:, x : x + width].astype(dtype)
                missing = [(0, n - m) for n, m in zip(tile, cut.shape, strict=True)]
                yield np.pad(cut, missing)


def _tile_side(length: int) -> int:
    return min(_TILE, -(-length // 16) * 16)  # TIFF: a multiple of 16


def _checked_axes(axes: str | None, shape: tuple[int, ...]) -> str:
    default = {2: "YX", 3: "ZYX", 4: "TZYX"}.get(len(shape), "")
    axes = default if axes is None else axes.upper()
    if (
        len(axes) != len(shape)
        or not axes.endswith("YX")
        or not set(axes) <= set("TZCYX")
        or len(set(axes)) < len(axes)
    ):
        raise InputError(
            f"axes {axes!r} for labels of shape {shape}; give one letter of TZCYX for "
            "each axis, the last two YX"
        )
    if 0 in shape:
        raise InputError(f"labels of shape {shape} have no pixels")
    return axes
