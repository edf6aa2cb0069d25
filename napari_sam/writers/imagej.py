"""Objects -> a zip of ImageJ regions of interest, for the ROI Manager.

Outlines run along the borders of pixels, in whole numbers, as those of ImageJ's own
wand do. An object in one piece becomes a traced outline; one with holes or of several
pieces, or beyond the range of ImageJ's 16-bit numbers, a composite.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.errors import InputError
from napari_sam.writers.atomic import atomic, checked_path
from napari_sam.writers.borders import trace
from napari_sam.writers.colours import colours_of
from napari_sam.writers.objects import label_source, windows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from roifile import ImagejRoi

    from napari_sam.images import ImageSource
    from napari_sam.writers.borders import Polygon

ENDINGS = (".zip",)

_MAX_COORDINATE = 2**15 - 1
"""ImageJ reads larger ones too, other programs do not."""


def save_imagej_rois(
    labels: Any, path: str | os.PathLike[str], *, overwrite: bool = False
) -> Path:
    """Save all objects as regions of interest of ImageJ.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids, 0 is background; read window by window.
    path : path
        Where to write, ending in .zip.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is. A region is named by its object id; in a stack
        ``17_t1_z2`` is object 17 in the first frame and second slice, and stands at
        that position of the stack.

    Raises
    ------
    InputError
        If the labels are none, or roifile is not installed.
    FileError
        If the file exists already or cannot be written.
    """
    try:
        import roifile  # noqa: F401
    except ImportError as error:
        raise InputError(
            "ImageJ regions need the package roifile; type: pip install roifile"
        ) from error
    path = checked_path(path, ENDINGS, "ImageJ regions")
    labels = label_source(labels)
    with (
        atomic(path, overwrite=overwrite) as part,
        zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for roi in _rois(labels):
            archive.writestr(f"{roi.name}.roi", roi.tobytes())
    return path


def _rois(labels: ImageSource) -> Iterator[ImagejRoi]:
    n_frames, n_slices = labels.shape[:2]
    for window in windows(labels):
        outlines = trace(window.numbers, window.box.y0, window.box.x0)
        colours = colours_of(window.ids).tolist()
        frame, z = window.plane
        for number, colour, polygons in zip(
            window.ids.tolist(), colours, outlines, strict=True
        ):
            roi = _roi(polygons)
            roi.name = str(number)
            roi.stroke_color = bytes([255, *colour])
            if n_frames > 1 or n_slices > 1:
                roi.name += f"_t{frame + 1}_z{z + 1}"
            if n_frames > 1 and n_slices > 1:
                roi.t_position, roi.z_position = frame + 1, z + 1
            elif n_frames > 1 or n_slices > 1:
                roi.position = frame + z + 1  # a plain stack counts its planes
            yield roi


def _roi(polygons: list[Polygon]) -> ImagejRoi:
    from roifile import ROI_TYPE, ImagejRoi

    rings = [ring for polygon in polygons for ring in polygon]
    corners = np.concatenate(rings)
    (top, left), (bottom, right) = corners.min(axis=0), corners.max(axis=0)
    roi = ImagejRoi(
        top=int(top), left=int(left), bottom=int(bottom), right=int(right), version=227
    )
    if len(rings) == 1 and corners.max() <= _MAX_COORDINATE:
        roi.roitype = ROI_TYPE.TRACED
        roi.n_coordinates = len(corners)
        roi.integer_coordinates = (corners - (top, left))[:, ::-1].astype(np.int32)
        return roi
    roi.roitype = ROI_TYPE.RECT  # with a path: a composite
    path = np.concatenate([_path(ring) for ring in rings])
    roi.multi_coordinates, roi.shape_roi_size = path, len(path)
    return roi


def _path(ring: Any) -> Any:
    """Write a ring as java.awt.geom.PathIterator does: 0 move, 1 line, 4 close."""
    steps = np.ones((len(ring), 3), np.float32)
    steps[0, 0] = 0
    steps[:, 1:] = ring[:, ::-1]
    return np.append(steps.ravel(), np.float32(4))
