"""Objects -> a table of measurements, and the table -> CSV or Parquet.

A table is a dictionary of columns of equal length, one row an object. Columns in
micrometres end in ``_um`` or ``_um2``; all others are in pixels. The values are
those of scikit-image's `regionprops_table`, the names need no manual.
"""

from __future__ import annotations

import csv
import math
import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from skimage.measure import regionprops_table
from skimage.segmentation import relabel_sequential

from napari_sam.errors import FormatError, InputError, NapariSamWarning
from napari_sam.images.scale import sizes_um, stack_size_um
from napari_sam.writers.atomic import atomic, checked_path
from napari_sam.writers.objects import image_source, label_source, windows

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from napari_sam.images import ImageSource
    from napari_sam.writers.objects import Window

Table: TypeAlias = "dict[str, NDArray[Any]]"

ENDINGS = (".csv", ".parquet")

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
    return table


def measure_objects(
    labels: Any,
    image: Any = None,
    *,
    pixel_size_um: float | Sequence[float] | None = None,
) -> Table:
    """Measure every object of labels of any size, window by window.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids, 0 is background; the axes of an array are YX, ZYX or TZYX.
    image : ImageSource or array, optional
        The image of the labels.
    pixel_size_um : float, or sequence of float, optional
        In micrometres: one number, or (y, x), or (z, y, x). Default: what the labels
        know.

    Returns
    -------
    dict of str to (n_objects,) array
        As from `measure`, sorted by plane and object. A stack is measured plane by
        plane, and has the columns ``frame`` and ``slice``. Intensities are NaN near
        pixels that cannot be decoded.

    Raises
    ------
    InputError
        If the labels are none, or the image is another's.

    Warns
    -----
    NapariSamWarning
        If some pixels of the image cannot be decoded.
    """
    labels = label_source(labels, pixel_size_um)
    image = None if image is None else image_source(image, labels)
    none = np.zeros((1, 1), np.uint8)
    pixels = None if image is None else _nothing_of(image)
    columns = _measure_source(none, pixels, labels, image)  # with no row
    tables = [{**columns, "frame": columns["object"], "slice": columns["object"]}]
    for window in windows(labels):
        table = measure_window(window, labels, image)
        n_objects = len(table["object"])
        for name, number in zip(("frame", "slice"), window.plane, strict=True):
            table[name] = np.full(n_objects, number)
        tables.append(table)
    whole = {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
    order = np.lexsort((whole["object"], whole["slice"], whole["frame"]))
    where = {name: whole.pop(name) for name in ("frame", "slice")}
    if len(list(labels.plane_indices())) > 1:
        whole = {"object": whole["object"], **where, **whole}
    return {name: column[order] for name, column in whole.items()}


def measure_window(
    window: Window, labels: ImageSource, image: ImageSource | None
) -> Table:
    """Measure the objects of a window.

    Parameters
    ----------
    window : Window
        From `napari_sam.writers.objects.windows`.
    labels : ImageSource
        The labels that it was cut from, for their pixel size.
    image : ImageSource, optional
        The image of the labels.

    Returns
    -------
    dict of str to (n_objects,) array
        As from `measure`, in plane pixels, in the order of `Window.ids`.
    """
    pixels = None if image is None else _read(image, window)
    table = _measure_source(window.numbers, pixels, labels, image)
    table["object"] = window.ids
    for axis, start in (("y", window.box.y0), ("x", window.box.x0)):
        for name in (axis, f"{axis}0", f"{axis}1"):
            table[name] = table[name] + start
    return table


def _nothing_of(image: ImageSource) -> NDArray[Any]:
    return np.zeros((1, 1, image.n_channels), image.array.dtype)


def _read(image: ImageSource, window: Window) -> NDArray[Any]:
    """Read the pixels of a window; NaN if they cannot be decoded."""
    try:
        return image.read(window.box, window.plane)
    except FormatError as error:
        warnings.warn(
            f"objects without intensities: {error}", NapariSamWarning, stacklevel=2
        )
        return np.full((*window.box.shape, image.n_channels), np.nan)


def _measure_source(
    ids: NDArray[Any],
    pixels: NDArray[Any] | None,
    labels: ImageSource,
    image: ImageSource | None,
) -> Table:
    names = () if image is None else image.channel_names
    return measure(
        ids, pixels, channel_names=names, pixel_size_um=stack_size_um(labels)
    )


def columns_of(
    facts: Mapping[str, Mapping[int, Any]], ids: ArrayLike
) -> dict[str, NDArray[Any]]:
    """Return what is known of objects as columns of a table.

    Parameters
    ----------
    facts : mapping of str to mapping of int to number or str
        By column and object id.
    ids : (n,) array
        Object of each row.

    Returns
    -------
    dict of str to (n,) array
        An object of which nothing is known has NaN, or an empty text.

    Examples
    --------
    >>> facts = {"state": {2: "accepted"}, "stability": {2: 0.5}}
    >>> {name: column.tolist() for name, column in columns_of(facts, [1, 2]).items()}
    {'state': ['', 'accepted'], 'stability': [nan, 0.5]}
    """
    found = {}
    for name, values in facts.items():
        is_text = any(isinstance(each, str) for each in values.values())
        missing = "" if is_text else math.nan
        column = [values.get(number, missing) for number in np.asarray(ids).tolist()]
        found[name] = np.array(column, np.str_ if is_text else np.float64)
    return found


def save_measurements(
    table: Mapping[str, ArrayLike],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> Path:
    """Save a table, a row for each object.

    Parameters
    ----------
    table : mapping of str to (n_objects,) array
        From `measure`.
    path : path
        Where to write, ending in .csv, or in .parquet, which needs pyarrow.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is. In CSV, numbers have up to six significant digits, from
        1000 on ten, whole ones all of theirs; NaN is an empty cell.

    Raises
    ------
    InputError
        If columns differ in length, the name ends otherwise, or pyarrow is missing.
    FileError
        If the file exists already or cannot be written.
    """
    path = checked_path(path, ENDINGS, "measurements")
    columns = [np.asarray(column) for column in table.values()]
    if len({column.shape for column in columns}) > 1:
        lengths = {name: len(np.asarray(c)) for name, c in table.items()}
        raise InputError(f"columns of lengths {lengths}; give one value per object")
    if path.suffix.lower() == ".parquet":
        return _save_parquet(dict(zip(table, columns, strict=True)), path, overwrite)
    with (
        atomic(path, overwrite=overwrite) as part,
        part.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(table)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        writer.writerows([_cell(value) for value in row] for row in rows)
    return path


def _save_parquet(table: Table, path: Path, overwrite: bool) -> Path:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs the package pyarrow; type: pip install pyarrow, or save CSV"
        ) from error
    with atomic(path, overwrite=overwrite) as part:
        parquet.write_table(pyarrow.table(table), part)
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
        if math.isnan(value):
            return ""
        # a centroid far out on a slide needs more than six digits
        return f"{value:.6g}" if abs(value) < 1000 else f"{value:.10g}"
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
