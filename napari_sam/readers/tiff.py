"""TIFF in all its dialects: BigTIFF, OME-TIFF, ImageJ, whole slides, pyramids.

Contiguous uncompressed pixels are memory-mapped; all other files are decoded tile
by tile, or strip by strip, through tifffile's Zarr store. A file that ends too
early is refused when it is opened: tifffile would return zeros for what is lost.
"""

from __future__ import annotations

import re
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr

from napari_sam.errors import FormatError
from napari_sam.readers.stored import (
    BROKEN,
    FileArray,
    Images,
    Stored,
    level_sizes_um,
    micrometres,
)

if TYPE_CHECKING:
    from pathlib import Path

MAX_TAG_PIXEL_UM = 20.0
"""Resolution tags coarser than this are for printing, no pixel size (ours).

72 to 1200 dots per inch, as many programs write them unasked, are 353 to 21 um.
"""

_MAIN_IMAGE_FIRST = ("avs", "bif", "lsm", "ndpi", "philips", "qpi", "scn", "svs")
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}


def tiff_images(path: Path) -> Images:
    """List the images of a TIFF: each series of pages of equal shape.

    Labels, thumbnails and macro images of whole slides are left out.

    Raises
    ------
    FormatError
        If the file is damaged.
    """
    try:
        tif = tifffile.TiffFile(path)
        # The array of a series needs the file as long as it lives; closed here and
        # not by the collector, it costs no ResourceWarning.
        weakref.finalize(tif, tif.filehandle.close)
        series = tif.series
    except BROKEN as error:
        raise _damaged(path, error) from error
    if not series:
        raise FormatError(f"{path} is a TIFF without images; get a fresh copy")
    n_images = 1 if series[0].kind in _MAIN_IMAGE_FIRST else len(series)
    return {str(i): partial(_stored, path, tif, i) for i in range(n_images)}


def _stored(path: Path, tif: tifffile.TiffFile, index: int) -> Stored:
    series = tif.series[index]
    try:
        for level in series.levels:
            _check(path, level)
    except FormatError:
        raise
    except BROKEN as error:
        raise _damaged(path, error) from error
    shapes = tuple(tuple(level.shape) for level in series.levels)
    size_um, z_step_um, channel_names = _scale(tif, index)

    def load(level: int) -> FileArray:
        chosen = series.levels[level]
        offset = chosen.dataoffset
        if offset is None or not chosen.keyframe.is_memmappable:
            array = zarr.open_array(chosen.aszarr(level=0), mode="r")
            return FileArray(array, path)
        file = chosen.keyframe.parent  # of an OME-TIFF, it may be another file
        dtype = np.dtype(chosen.dtype).newbyteorder(file.byteorder)
        pixels = np.memmap(file.filehandle.path, dtype, "r", offset, chosen.shape)
        return FileArray(pixels, path)

    return Stored(
        series.axes,
        shapes,
        load,
        level_sizes_um(series.axes, shapes, size_um),
        z_step_um,
        channel_names,
    )


def _check(path: Path, series: tifffile.TiffPageSeries) -> None:
    """Refuse a file that lacks pixels, or the codec for them."""
    for page in (series.pages[0], series.pages[-1]):
        if page is None:
            continue  # a plane that an OME-TIFF does not have
        size = page.parent.filehandle.size
        ends = np.add(page.dataoffsets, page.databytecounts)
        if page is series.pages[0] and series.dataoffset is not None:
            ends = np.append(ends, series.dataoffset + series.nbytes)
        if len(ends) == 0 or ends.max() > size:
            raise FormatError(
                f"{path} is truncated: its pixels do not fit in {size} bytes; get a "
                "fresh copy"
            )
    codec = series.keyframe.compression
    try:
        tifffile.TIFF.DECOMPRESSORS[codec]
    except KeyError as error:
        raise FormatError(
            f"{path} is compressed with {getattr(codec, 'name', codec)}, which needs "
            "the package imagecodecs; type: pip install imagecodecs"
        ) from error


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path} begins like a TIFF but cannot be read as one ({error}); the file is "
        "damaged, get a fresh copy"
    )


def _scale(
    tif: tifffile.TiffFile, index: int
) -> tuple[tuple[float, float] | None, float | None, tuple[str, ...]]:
    """Find (y, x) pixel size, z step and channel names in the metadata."""
    tags = tif.series[index].keyframe.tags
    if tif.is_ome and tif.ome_metadata:
        size, step, names = _ome_scale(tif.ome_metadata, index)
        return size or _tag_size(tags), step, names
    if tif.is_imagej and tif.imagej_metadata:
        size, step = _imagej_scale(tif.imagej_metadata, tags)
        return size or _tag_size(tags), step, ()
    if tif.is_svs:
        mpp = re.search(r"\bMPP *= *([\d.]+)", tif.pages.first.description)
        length = micrometres(mpp[1]) if mpp else None
        return (length, length) if length else None, None, ()
    return _tag_size(tags), None, ()


def _ome_scale(
    xml: str, index: int
) -> tuple[tuple[float, float] | None, float | None, tuple[str, ...]]:
    try:
        images = ElementTree.fromstring(xml).findall("{*}Image")
    except ElementTree.ParseError:
        return None, None, ()
    pixels = images[index].find("{*}Pixels") if index < len(images) else None
    if pixels is None:
        return None, None, ()
    z, y, x = (
        micrometres(
            pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit")
        )
        for axis in "ZYX"
    )
    channels = pixels.findall("{*}Channel")
    names = [c.get("Name") or f"channel {i}" for i, c in enumerate(channels)]
    named = any(c.get("Name") for c in channels)
    return (y, x) if y and x else None, z, tuple(names) if named else ()


def _imagej_scale(
    metadata: dict[str, Any], tags: tifffile.TiffTags
) -> tuple[tuple[float, float] | None, float | None]:
    unit = str(metadata.get("unit", "pixel"))
    y = _tag_length(tags, "YResolution", str(metadata.get("yunit", unit)))
    x = _tag_length(tags, "XResolution", unit)
    step = micrometres(metadata.get("spacing"), str(metadata.get("zunit", unit)))
    return (y, x) if y and x else None, step


def _tag_size(tags: tifffile.TiffTags) -> tuple[float, float] | None:
    tag = tags.get("ResolutionUnit")
    unit = _RESOLUTION_UNITS.get(int(tag.value) if tag else 1, "pixel")
    y, x = (_tag_length(tags, f"{axis}Resolution", unit) for axis in "YX")
    return (y, x) if y and x and max(y, x) <= MAX_TAG_PIXEL_UM else None


def _tag_length(tags: tifffile.TiffTags, name: str, unit: str) -> float | None:
    """Length of a pixel, from a tag that counts pixels per unit."""
    tag = tags.get(name)
    if tag is None or not tag.value[0]:
        return None
    per_unit, units = tag.value
    return micrometres(units / per_unit, unit)
