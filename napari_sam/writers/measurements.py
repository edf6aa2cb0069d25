"""Objects -> a table of measurements, and the table -> CSV.

A table is a dictionary of columns of equal length, one row an object. Columns in
micrometres end in ``_um`` or ``_um2``; all others are in pixels. The values are
those of scikit-image's `regionprops_table`, the names need no manual.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from skimage.measure import regionprops_table
from skimage.segmentation import relabel_sequential

from napari_sam.errors import InputError
from napari_sam.writers.atomic import atomic
from napari_sam.writers.scale import sizes_um

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

Table: TypeAlias = "dict[str, NDArray[Any]]"

_COLUMNS = {
    "label": "object",
    "centroid-0": "y",
    "centroid-1": "x",
    "bbox-0": "y0",
    "bbox-1": "x0",
    "bbox-2": "y1",
    "bbox-3": "x1",
    "area": "area",
    "equivalent_diameter_area": "equivalent_diameter",
    "axis_major_length": "major_axis",
    "axis_minor_length": "minor_axis",
    "perimeter": "perimeter",
    "eccentricity": "eccentricity",
    "solidity": "solidity",
}
_LENGTHS = ("equivalent_diameter", "major_axis", "minor_axis", "perimeter")
_INTENSITIES = ("intensity_mean", "intensity_min", "intensity_max", "intensity_std")


def measure(
    labels: ArrayLike,
    image: ArrayLike | None = None,
    *,
    channel_names: Sequence[str] = (),
    pixel_size_um: float | Sequence[float] | None = None,
    extra: Mapping[str, Mapping[int, float]] | None = None,
) -> Table:
    """Measure every object of a plane.

    Parameters
    ----------
    labels : (h, w) integer array
        Object ids; 0 is background.
    image : (h, w) or (h, w, channels) array, optional
        Pixels as they were measured, not the 8-bit ones that the encoder sees.
    channel_names : sequence of str
        One for each channel. Default: none for one channel, else 0, 1, ...
    pixel_size_um : float or sequence of float, optional
        Pixel size in micrometres, one number or (y, x); adds the area and, if pixels
        are square, all lengths in micrometres.
    extra : mapping of str to mapping of int to float, optional
        More columns, such as ``{"predicted_iou": {1: 0.93, 2: 0.88}}``, by object
        id. An object without a value gets NaN.

    Returns
    -------
    dict of str to (n_objects,) array
        ``object`` is the id; ``y, x`` the centroid; ``y0, x0, y1, x1`` the bounding
        box, half open; then size and shape, and ``intensity_mean``, ``_min``,
        ``_max`` and ``_std`` of each channel.

    Raises
    ------
    InputError
        If labels, image, channel names and pixel size do not fit together.

    Examples
    --------
    >>> labels = np.zeros((9, 9), np.uint32)
    >>> labels[2:5, 3:7] = 4
    >>> table = measure(labels, pixel_size_um=0.5)
    >>> [table[name].tolist() for name in ("object", "y", "x", "area", "area_um2")]
    [[4], [3.0], [4.5], [12], [3.0]]
    """
    labels = np.asarray(labels)
    pixels = None if image is None else np.atleast_3d(np.asarray(image))
    size = sizes_um(pixel_size_um)
    _check(labels, pixels, channel_names)
    # regionprops keeps a list as long as the largest id
    ids = relabel_sequential(labels.astype(np.int64))[0]
    wanted = dict.fromkeys(name.split("-")[0] for name in _COLUMNS)
    found = regionprops_table(ids, properties=tuple(wanted))
    table: Table = {name: found[theirs] for theirs, name in _COLUMNS.items()}
    table["object"] = np.unique(labels[labels > 0]).astype(np.int64)
    table["area"] = table["area"].astype(np.int64)
    if size:
        table["area_um2"] = table["area"] * size["Y"] * size["X"]
    if size and math.isclose(size["Y"], size["X"], rel_tol=1e-3):
        table |= {f"{name}_um": table[name] * size["X"] for name in _LENGTHS}
    if pixels is not None:
        table |= _intensities(ids, pixels, channel_names)
    for name, values in (extra or {}).items():
        column = [values.get(number, math.nan) for number in table["object"].tolist()]
        table[name] = np.array(column, dtype=np.float64)
    return table


def save_measurements(
    table: Mapping[str, ArrayLike],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Save a table as CSV: a header, then a row for each object.

    Parameters
    ----------
    table : mapping of str to (n_objects,) array
        From `measure`.
    path : path
        Where to write, ending in .csv.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is. Numbers have up to six significant digits, whole ones
        all of theirs; NaN is an empty cell.

    Raises
    ------
    InputError
        If columns differ in length, or the name does not end in .csv.
    FileError
        If the file exists already or cannot be written.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() != ".csv":
        raise InputError(f"measurements in {path.name}; give a name that ends in .csv")
    columns = [np.asarray(column) for column in table.values()]
    if len({column.shape for column in columns}) > 1:
        lengths = {name: len(np.asarray(c)) for name, c in table.items()}
        raise InputError(f"columns of lengths {lengths}; give one value per object")
    with (
        atomic(path, overwrite=overwrite) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(table)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        writer.writerows([_cell(value) for value in row] for row in rows)
    return path


def _intensities(
    ids: NDArray[np.int64], pixels: NDArray[Any], channel_names: Sequence[str]
) -> Table:
    n_channels = pixels.shape[2]
    names = channel_names or (range(n_channels) if n_channels > 1 else ())
    endings = [f"_{name}" for name in names] or [""]
    table: Table = {}
    for channel, ending in enumerate(endings):
        found = regionprops_table(ids, pixels[..., channel], properties=_INTENSITIES)
        table |= {f"{name}{ending}": found[name] for name in _INTENSITIES}
    return table


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _check(
    labels: NDArray[Any], pixels: NDArray[Any] | None, channel_names: Sequence[str]
) -> None:
    if labels.ndim != 2 or labels.size == 0 or labels.dtype.kind not in "bui":
        raise InputError(
            f"labels of shape {labels.shape}, {labels.dtype}; give the integers of one "
            "plane, (h, w)"
        )
    if labels.min(initial=0) < 0:
        raise InputError(f"object id {labels.min()}; ids count from 1, 0 is background")
    if pixels is not None and pixels.shape[:2] != labels.shape:
        raise InputError(
            f"image of {pixels.shape[:2]} px with labels of {labels.shape} px; give "
            "the same plane of both"
        )
    n_channels = 0 if pixels is None else pixels.shape[2]
    if channel_names and len(channel_names) != n_channels:
        raise InputError(
            f"{len(channel_names)} channel names for {n_channels} channels; give one "
            "for each, or none"
        )
