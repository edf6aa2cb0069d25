"""Regions of interest of ImageJ, a ``.roi`` file or the zip of the ROI Manager.

ImageJ counts from the upper left corner of the plane, in whole numbers unless a
region was drawn at a finer zoom.
"""

from __future__ import annotations

import warnings
import zipfile
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.errors import FormatError, InputError, NapariSamWarning, file_errors
from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.regions import prompts_from_outline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from roifile import ImagejRoi


def read_imagej_rois(
    path: Path, per_unit: tuple[float, float] = (1.0, 1.0)
) -> list[Prompts]:
    """Read prompts from regions of interest of ImageJ.

    A rectangle gives a box; an oval, polygon, freehand or traced outline its box and
    a point inside; each point of a point selection is an object.

    Parameters
    ----------
    path : Path
        File that ends in .roi or .zip.
    per_unit : tuple of float
        (y, x) pixels in one unit of the file's numbers; ImageJ always writes pixels.

    Returns
    -------
    list of Prompts
        In the order of the file. `Prompts.object_id` is the name of the region where
        all are named by different numbers, as our export does, or counts from 1.

    Raises
    ------
    MissingFileError, FileError
        If the file cannot be read.
    FormatError
        If it holds no regions, or one without an area; names the region.
    InputError
        If the package roifile is not installed.

    Warns
    -----
    NapariSamWarning
        If there are lines, which show no object.
    """
    found: list[tuple[str, Prompts]] = []
    n_lines = 0
    for region in _regions(path):
        try:
            prompts = list(_prompts(region, np.array(per_unit)))
        except InputError as error:
            raise FormatError(f"{path}, region {region.name!r}: {error}") from error
        n_lines += not prompts
        found += [(region.name or "", each) for each in prompts]
    if n_lines:
        warnings.warn(
            f"{n_lines} regions of {path} are neither points nor areas; they are left "
            "out",
            NapariSamWarning,
            stacklevel=2,
        )
    names = [name for name, _ in found]
    by_name = len(set(names)) == len(names) and all(
        name.isdecimal() and int(name) > 0 for name in names
    )
    return [
        Prompts(p.points, p.positive, p.boxes, object_id=int(name) if by_name else i)
        for i, (name, p) in enumerate(found, start=1)
    ]


def labels_from_rois(path: Path, shape: tuple[int, int]) -> NDArray[np.int32]:
    """Fill the regions of interest of ImageJ, each with a number of its own.

    Parameters
    ----------
    path : Path
        File that ends in .roi or .zip.
    shape : tuple of int
        Height and width of the plane.

    Returns
    -------
    (H, W) int32 array
        1, 2, ... in the order of the file, where a pixel's centre is inside; of two
        regions the later one has it. 0 is background.

    Raises
    ------
    MissingFileError, FileError, FormatError, InputError
        As of `read_imagej_rois`.

    Warns
    -----
    NapariSamWarning
        If there are points or lines.
    """
    from skimage.draw import polygon2mask  # slow to import

    labels = np.zeros(shape, np.int32)
    regions = _regions(path)
    areas = [region for region in regions if _is_area(region)]
    for number, region in enumerate(areas, start=1):
        rings = [ring[:, ::-1] for ring in region.coordinates(multi=True)]
        corners = np.concatenate(rings)
        first = np.floor(corners.min(axis=0)).astype(int).clip(0)
        last = np.ceil(corners.max(axis=0)).astype(int).clip(0)
        part = labels[first[0] : last[0], first[1] : last[1]]
        inside = np.zeros(part.shape, bool)
        for ring in rings if part.size else ():
            inside ^= polygon2mask(part.shape, ring - first - 0.5)
        part[inside] = number
    if n_others := len(regions) - len(areas):
        warnings.warn(
            f"{n_others} regions of {path} are points or lines; they are left out",
            NapariSamWarning,
            stacklevel=2,
        )
    return labels


def _regions(path: Path) -> list[ImagejRoi]:
    try:
        import roifile
    except ImportError as error:
        raise InputError(
            "ImageJ regions need the package roifile; type: pip install roifile"
        ) from error
    try:
        with file_errors(path):
            regions = roifile.ImagejRoi.fromfile(path)
    except (ValueError, IndexError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"{path} holds no regions of ImageJ ({error}); save them from the ROI "
            "Manager again"
        ) from error
    return regions if isinstance(regions, list) else [regions]


def _is_area(region: ImagejRoi) -> bool:
    from roifile import ROI_TYPE

    return region.composite or region.roitype in (
        ROI_TYPE.POLYGON,
        ROI_TYPE.FREEHAND,
        ROI_TYPE.TRACED,
        ROI_TYPE.RECT,
        ROI_TYPE.OVAL,
    )


def _prompts(region: ImagejRoi, per_unit: NDArray[np.float64]) -> Iterator[Prompts]:
    from roifile import ROI_TYPE

    kind = region.roitype
    top_left = np.array([region.top, region.left]) * per_unit
    bottom_right = np.array([region.bottom, region.right]) * per_unit
    box = [*top_left, *bottom_right]
    if kind == ROI_TYPE.POINT:
        for point in np.asarray(region.coordinates())[:, ::-1] * per_unit:
            # whole numbers name the pixel, others lie in it: its centre is meant
            yield Prompts([np.floor(point)])
    elif region.composite or kind in (
        ROI_TYPE.POLYGON,
        ROI_TYPE.FREEHAND,
        ROI_TYPE.TRACED,
    ):
        rings = region.coordinates(multi=True)
        yield prompts_from_outline([ring[:, ::-1] * per_unit for ring in rings])
    elif kind == ROI_TYPE.RECT:
        yield Prompts(boxes=box)
    elif kind == ROI_TYPE.OVAL:
        yield Prompts([(top_left + bottom_right - 1) / 2], boxes=box)
