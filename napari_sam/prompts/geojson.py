"""Points and polygons of GeoJSON, as QuPath writes them, as prompts.

Coordinates are x, y from the upper left corner of the plane, so that the centre of
the first pixel lies at 0.5, 0.5.
"""

from __future__ import annotations

import json
import warnings
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.errors import FormatError, InputError, NapariSamWarning, file_errors
from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.regions import prompts_from_outline

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_POINTS = {"Point": 0, "MultiPoint": 1}
_AREAS = ("Polygon", "MultiPolygon")


def read_geojson(
    path: Path, per_unit: tuple[float, float] = (1.0, 1.0)
) -> list[Prompts]:
    """Read prompts from a GeoJSON file.

    A polygon gives its box and a point inside; a point, or each of a MultiPoint, is an
    object. Features with the same number in the property ``object_id`` are one object,
    and with ``"positive": false`` their points are negative. Those without a number
    are objects of their own, and get the lowest numbers that are free.

    Parameters
    ----------
    path : Path
        A FeatureCollection, a list of features, a feature or a geometry.
    per_unit : tuple of float
        (y, x) pixels in one unit of the file's numbers.

    Returns
    -------
    list of Prompts
        In the order in which the objects appear; `Prompts.object_id` is set.

    Raises
    ------
    MissingFileError, FileError
        If the file cannot be read.
    FormatError
        If it is no GeoJSON; names the feature.

    Warns
    -----
    NapariSamWarning
        If there are lines, which show no object.
    """
    try:
        with file_errors(path):
            content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise FormatError(f"{path} is no JSON: {error}; export it again") from error
    features = list(_features(content, path))
    given = [properties.get("object_id") for _, properties in features]
    taken = {number for number in given if isinstance(number, int | float)}
    free = (number for number in count(1) if number not in taken)
    objects: dict[int, Prompts] = {}
    n_lines = 0
    for i, (geometry, properties) in enumerate(features, start=1):
        try:
            if geometry.get("type") not in (*_POINTS, *_AREAS):
                n_lines += 1
                continue
            for each in _prompts(geometry, properties, per_unit):
                own = properties.get("object_id")
                number = next(free) if own is None else own
                objects[number] = _joined(objects.get(number), each, number)
        except KeyError as error:
            raise FormatError(f"{path}, feature {i} has no {error}") from error
        except (TypeError, ValueError, IndexError) as error:
            raise FormatError(f"{path}, feature {i}: {error}") from error
    if n_lines:
        warnings.warn(
            f"{n_lines} features of {path} are neither points nor polygons and are "
            "left out",
            NapariSamWarning,
            stacklevel=2,
        )
    return list(objects.values())


def _features(
    content: Any, path: Path
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    if isinstance(content, dict) and content.get("type") == "FeatureCollection":
        content = content.get("features")
    for feature in content if isinstance(content, list) else [content]:
        if not isinstance(feature, dict) or "type" not in feature:
            raise FormatError(
                f"{path} holds no GeoJSON; expected a FeatureCollection or a list of "
                "features, as QuPath exports them"
            )
        is_feature = feature["type"] == "Feature"
        geometry = (feature.get("geometry") if is_feature else feature) or {}
        properties = feature.get("properties") or {}
        for name, each in (("geometry", geometry), ("properties", properties)):
            if not isinstance(each, dict):
                raise FormatError(
                    f"{path}: the {name} of a feature is {json.dumps(each)[:40]}; "
                    "expected an object in braces, as QuPath exports it"
                )
        yield geometry, properties


def _prompts(
    geometry: dict[str, Any],
    properties: dict[str, Any],
    per_unit: tuple[float, float],
) -> Iterator[Prompts]:
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind in _POINTS:
        for point in coordinates if kind == "MultiPoint" else [coordinates]:
            centre = _corners([point], per_unit) - 0.5
            yield Prompts(centre, [properties.get("positive", True)])
    else:
        polygons = coordinates if kind == "MultiPolygon" else [coordinates]
        rings = [_corners(ring, per_unit) for polygon in polygons for ring in polygon]
        yield prompts_from_outline(rings)


def _corners(
    coordinates: list[Any], per_unit: tuple[float, float]
) -> NDArray[np.float64]:
    pairs = np.array([pair[:2] for pair in coordinates], np.float64)
    corners: NDArray[np.float64] = pairs[:, ::-1] * per_unit
    return corners


def _joined(first: Prompts | None, more: Prompts, number: int) -> Prompts:
    """Put the prompts of one object together."""
    if first is None:
        return Prompts(more.points, more.positive, more.boxes, object_id=number)
    if first.has_box and more.has_box:
        raise InputError(
            f"a second polygon for object {number}; give it a number of its own"
        )
    return Prompts(
        np.concatenate([first.points, more.points]),
        np.concatenate([first.positive, more.positive]),
        np.concatenate([first.boxes, more.boxes]),
        object_id=number,
    )
