"""Files and arrays of many kinds -> `ImageSource`, without reading pixels.

A file is recognised by what it holds, not by its name. Whatever can be read in
part stays on disk: tiles and strips of TIFF and chunks of Zarr are decoded when
a box touches them, contiguous pixels are memory-mapped. Only PNG and its like
are decoded at once, for these formats have no random access. Dask is not used:
the graph of a large image costs more time than the pixels of a crop.

Each format has one function that lists the images of a file by name and brings
the chosen one to the form of `napari_sam.readers.stored.Stored`.
"""

from __future__ import annotations

import importlib.util
import os
import re
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from napari_sam.errors import (
    FormatError,
    InputError,
    NapariSamWarning,
    file_errors,
)
from napari_sam.images import ImageSource, fitting_levels
from napari_sam.images.scale import sizes_um
from napari_sam.readers.stored import (
    BROKEN,
    FileArray,
    Images,
    Stored,
    known_axes,
    plane_shape,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["IMAGE_ENDINGS", "is_zarr", "list_images", "list_levels", "open_image"]

IMAGE_ENDINGS = (
    ".bif", ".bmp", ".btf", ".czi", ".ims", ".jpeg", ".jpg", ".lif", ".lsm", ".nd2",
    ".ndpi", ".npy", ".oib", ".oir", ".pgm", ".png", ".ppm", ".qptiff", ".scn", ".stk",
    ".svs", ".tf8", ".tif", ".tiff", ".vsi", ".webp", ".zarr",
)  # fmt: skip
"""By these a folder is searched for images; a file that is named may have any."""

_RASTER_FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP")
_PLAIN_MODES = ("L", "LA", "RGB", "RGBA", "I", "F")
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")


def open_image(
    source: Any,
    *,
    image: str | int | None = None,
    level: int = 0,
    axes: str | None = None,
    pixel_size_um: float | Sequence[float] | None = None,
    channel_names: Sequence[str] | None = None,
) -> ImageSource:
    """Open an image; its pixels are read later, box by box.

    Reads TIFF (BigTIFF, OME-TIFF, ImageJ; tiled, striped, pyramidal), Zarr 2 and
    3, OME-Zarr up to 0.5, PNG, JPEG, ``.npy``, and, if bioio is installed, the
    vendor formats it has readers for. An array of numpy, dask, zarr or xarray is
    taken as it is.

    Parameters
    ----------
    source : path, array or ImageSource
        What to open.
    image : str or int, optional
        Which image of a file with several; see `list_images`. Default: the first.
    level : int, default 0
        Resolution level; 0 is the largest, -1 the smallest.
    axes : str, optional
        One letter of TZCYXS (S: colour samples) for each axis. Default: as the
        file says; without a word of it, a last axis of 3 or 4 is colour, one
        further axis is z, and five axes are TZCYX.
    pixel_size_um : float, or sequence of float, optional
        Pixel size of this level in micrometres: one number, or (y, x), or
        (z, y, x). Default: as the file says.
    channel_names : sequence of str, optional
        Default: as the file says.

    Returns
    -------
    ImageSource

    Raises
    ------
    MissingFileError
        If there is no such file.
    FileError
        If the file cannot be read.
    FormatError
        If it is damaged, or of a format that is not known.
    InputError
        If it has no such image, level or axes, or if these cannot be guessed.

    Warns
    -----
    NapariSamWarning
        If the file holds several images and none was chosen.

    Examples
    --------
    >>> open_image(np.zeros((40, 30, 3), np.uint8), pixel_size_um=0.5).axes
    'YXS'
    """
    axes = axes.upper() if axes else None
    changes: dict[str, Any] = {}
    if isinstance(source, ImageSource):
        opened = source
        changes["axes"] = axes or source.axes
    elif isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        opened = _from_stored(path, _choose(path, image), level, axes)
        if image is not None:
            changes["name"] = f"{opened.name} {image}"
    else:
        opened = _from_array(source, axes)
    if pixel_size_um is not None:
        sizes = sizes_um(pixel_size_um)
        changes["pixel_size_um"] = (sizes["Y"], sizes["X"])
        changes["z_step_um"] = sizes.get("Z", opened.z_step_um)
    if channel_names is not None:
        changes["channel_names"] = tuple(channel_names)
    return replace(opened, **changes) if changes else opened


def is_zarr(path: Path) -> bool:
    """Whether a path is the folder of a Zarr, of any version."""
    return path.is_dir() and any((path / mark).exists() for mark in _ZARR_MARKS)


def list_images(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Name the images of a file: positions, wells and their fields, arrays.

    Parameters
    ----------
    path : path
        A file or a Zarr folder.

    Returns
    -------
    tuple of str
        Names that `open_image` takes as `image`: paths such as ``"A/1/0"`` in a
        Zarr, numbers in a TIFF.
    """
    return tuple(_images(Path(path).expanduser()))


def list_levels(
    path: str | os.PathLike[str], *, image: str | int | None = None
) -> tuple[tuple[int, int], ...]:
    """Tell the size of each resolution level of an image.

    Parameters
    ----------
    path : path
        A file or a Zarr folder.
    image : str or int, optional
        Which image of a file with several. Default: the first.

    Returns
    -------
    tuple of (int, int)
        (height, width) of the planes, in pixels, the largest first.
    """
    path = Path(path).expanduser()
    stored = _choose(path, image)
    axes = known_axes(stored.axes, stored.shapes[0], path.name)
    return tuple(plane_shape(axes, shape) for shape in stored.shapes)


def _images(path: Path) -> Images:
    """List the images of a file, by what its first bytes say."""
    # here, as they bring zarr, which a window should not be kept waiting for
    from napari_sam.readers.ome_zarr import zarr_images
    from napari_sam.readers.tiff import tiff_images

    with file_errors(path):
        if path.is_dir():
            if is_zarr(path):
                return zarr_images(path)
            raise FormatError(
                f"{path} is a folder and no Zarr; give a file, or the folder that "
                "holds zarr.json, .zgroup or .zarray"
            )
        with path.open("rb") as file:
            start = file.read(6)
    if not start:
        raise FormatError(f"{path} is empty, 0 bytes; get a fresh copy")
    if start[:4] in _TIFF_STARTS:
        return tiff_images(path)
    if start == b"\x93NUMPY":
        return {"0": lambda: _npy_image(path)}
    return _raster_images(path) or _bioio_images(path)


def _choose(path: Path, image: str | int | None) -> Stored:
    images = _images(path)
    names = list(images)
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    if image is None:
        if len(names) > 1:
            warnings.warn(
                f"{path} holds {len(names)} images ({listed}), of which the first is "
                "opened; choose one with image=",
                NapariSamWarning,
                stacklevel=3,
            )
        return images[names[0]]()
    if str(image) not in images:
        raise InputError(f"no image {str(image)!r} in {path}; it holds {listed}")
    return images[str(image)]()


def _from_stored(
    path: Path, stored: Stored, level: int, axes: str | None
) -> ImageSource:
    shapes = stored.shapes
    if not -len(shapes) <= level < len(shapes):
        raise InputError(
            f"level {level} of {path}; its levels are 0 to {len(shapes) - 1}, of "
            f"shapes {list(shapes)}"
        )
    axes = axes or known_axes(stored.axes, shapes[level], path.name)
    array = stored.load(level)
    smaller = [stored.load(i) for i in range(level % len(shapes) + 1, len(shapes))]
    opened = ImageSource(
        array,
        axes=axes,
        pixel_size_um=stored.pixel_sizes_um[level] if stored.pixel_sizes_um else None,
        z_step_um=stored.z_step_um,
        name=_stem(path),
        path=path,
        levels=fitting_levels(array, smaller, axes),
    )
    # names that do not fit, such as one for RGB, are no fault of the user
    names = stored.channel_names
    fit = "C" in axes and len(names) == opened.n_channels
    return replace(opened, channel_names=names) if fit else opened


def _from_array(array: Any, axes: str | None) -> ImageSource:
    try:
        shape, _ = tuple(array.shape), np.dtype(array.dtype)
    except (AttributeError, TypeError) as error:
        raise InputError(
            f"cannot open {type(array).__name__}; give a path, or an array of numpy, "
            "dask, zarr or xarray (numpy.asarray makes one of a list or a tensor)"
        ) from error
    if axes is None:
        dims = [str(name) for name in getattr(array, "dims", ())]  # of xarray
        names = "".join(name[0].upper() for name in dims)
        axes = known_axes(names if {"Y", "X"} <= set(names) else "", shape, "the array")
    return ImageSource(array, axes=axes)


def _npy_image(path: Path) -> Stored:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN as error:
        raise _undecoded(path, error) from error
    return Stored("", (array.shape,), lambda _: FileArray(array, path))


def _raster_images(path: Path) -> Images:
    """Recognise PNG, JPEG and their like; empty for other formats."""
    try:
        with Image.open(path, formats=_RASTER_FORMATS):
            return {"0": lambda: _raster_image(path)}
    except UnidentifiedImageError:
        return {}
    except (*BROKEN, SyntaxError, Image.DecompressionBombError) as error:
        raise _undecoded(path, error) from error


def _raster_image(path: Path) -> Stored:
    try:
        with Image.open(path, formats=_RASTER_FORMATS) as picture:
            if picture.mode == "1":
                pixels = np.asarray(picture.convert("L"))
            elif picture.mode in _PLAIN_MODES or picture.mode.startswith("I;16"):
                pixels = np.asarray(picture)
            else:  # palettes, CMYK and others
                pixels = np.asarray(picture.convert("RGB"))
    except (*BROKEN, SyntaxError) as error:
        raise _undecoded(path, error) from error
    axes = "YXS" if pixels.ndim == 3 else "YX"
    return Stored(axes, (pixels.shape,), lambda _: FileArray(pixels, path))


def _bioio_images(path: Path) -> Images:
    """List the scenes of a vendor format, if bioio and its reader are installed."""
    if importlib.util.find_spec("bioio") is None:
        raise FormatError(
            f"{path} is no TIFF, Zarr, PNG, JPEG or .npy; for vendor formats install "
            "bioio and its reader, such as pip install bioio bioio-czi, or convert "
            "the file to OME-TIFF"
        )
    import bioio
    from bioio_base.exceptions import UnsupportedFileFormatError

    try:
        scenes = bioio.BioImage(path).scenes
    except UnsupportedFileFormatError as error:
        raise FormatError(
            f"{path} is of a format that no installed reader of bioio knows; install "
            "the right one, such as bioio-czi, or convert the file to OME-TIFF"
        ) from error
    except BROKEN as error:
        raise _undecoded(path, error) from error
    return {scene: partial(_bioio_image, path, scene) for scene in scenes}


def _bioio_image(path: Path, scene: str) -> Stored:
    import bioio

    picture = bioio.BioImage(path)
    picture.set_scene(scene)
    array = picture.xarray_dask_data
    if "S" in array.dims and array.sizes["C"] == 1:
        array = array.squeeze("C")  # colour is one thing or the other
    sizes = picture.physical_pixel_sizes
    return Stored(
        "".join(str(name) for name in array.dims),
        (tuple(array.shape),),
        lambda _: FileArray(array.data, path),
        ((sizes.Y, sizes.X),) if sizes.Y and sizes.X else (),
        sizes.Z or None,
        tuple(str(name) for name in picture.channel_names or ()),
    )


def _undecoded(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path} cannot be decoded ({error}); if it opens elsewhere, convert it to "
        "TIFF, else get a fresh copy"
    )


def _stem(path: Path) -> str:
    """Name of a file without its endings, ``.ome.tif`` and ``.zarr`` among them."""
    return re.sub(r"(\.ome)?\.\w+$", "", path.name) or path.name
