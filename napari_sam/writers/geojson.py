"""Objects -> GeoJSON polygons, as QuPath reads and writes them.

QuPath measures in pixels from the upper left corner of the image, so that pixel
(r, c) covers r to r + 1 and c to c + 1, which is what `trace` gives. A feature has an
``objectType``, a ``classification`` and named ``measurements``; its geometry says in
``plane`` which frame and slice it lies in (QuPath 0.5, `QuPathTypeAdapters`).
"""

from __future__ import annotations

import math
import uuid
from typing import TYPE_CHECKING, Any

from napari_sam.writers.atomic import checked_path
from napari_sam.writers.borders import trace
from napari_sam.writers.json_file import save_json
from napari_sam.writers.measurements import measure_window
from napari_sam.writers.objects import image_source, label_source, windows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from napari_sam.images import ImageSource
    from napari_sam.writers.borders import Polygon

ENDINGS = (".geojson", ".json")


def save_geojson(
    labels: Any,
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | Sequence[float] | None = None,
    image: Any = None,
    overwrite: bool = False,
) -> Path:
    """Save the outlines and measurements of all objects as GeoJSON.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids, 0 is background; read window by window.
    path : path
        Where to write, ending in .geojson or .json.
    pixel_size_um : float, or sequence of float, optional
        In micrometres: one number, or (y, x), or (z, y, x); adds measurements in
        micrometres. Coordinates are always pixels.
    image : ImageSource or array, optional
        The image of the labels; adds its intensities to the measurements.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is: a FeatureCollection of one detection for each object of
        each plane. Property ``name`` is the object id as text, ``object_id`` is the
        number.

    Raises
    ------
    InputError
        If the labels are none, or the image is another's.
    FileError
        If the file exists already or cannot be written.
    """
    path = checked_path(path, ENDINGS, "outlines")
    labels = label_source(labels, pixel_size_um)
    image = None if image is None else image_source(image, labels)
    features = _features(labels, image)
    head = {"type": "FeatureCollection"}
    return save_json(path, head, "features", features, overwrite=overwrite)


def _features(
    labels: ImageSource, image: ImageSource | None
) -> Iterator[dict[str, Any]]:
    for window in windows(labels):
        table = measure_window(window, labels, image)
        numbers = table.pop("object").tolist()
        columns = {name: values.tolist() for name, values in table.items()}
        outlines = trace(window.numbers, window.box.y0, window.box.x0)
        for i, (number, polygons) in enumerate(zip(numbers, outlines, strict=True)):
            measured = {name: values[i] for name, values in columns.items()}
            yield _feature(number, window.plane, polygons, measured)


def _feature(
    number: int,
    plane: tuple[int, int],
    polygons: list[Polygon],
    measured: dict[str, float],
) -> dict[str, Any]:
    rings = [[_closed(ring) for ring in polygon] for polygon in polygons]
    frame, z = plane
    return {
        "type": "Feature",
        # QuPath takes no other ids; the same object gets the same one in each run
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"napari_sam {number} {plane}")),
        "geometry": {
            "type": "Polygon" if len(rings) == 1 else "MultiPolygon",
            "coordinates": rings[0] if len(rings) == 1 else rings,
            "plane": {"c": -1, "z": z, "t": frame},  # -1: of all channels
        },
        "properties": {
            "objectType": "detection",
            "name": str(number),
            "object_id": number,
            "classification": {"name": "object", "color": [255, 221, 0]},
            "measurements": {k: v for k, v in measured.items() if math.isfinite(v)},
        },
    }


def _closed(ring: Any) -> list[list[int]]:
    points: list[list[int]] = ring[:, ::-1].tolist()
    return [*points, points[0]]
