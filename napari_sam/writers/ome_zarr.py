"""Labels -> OME-Zarr 0.5: a pyramid with colours and properties of the objects.

Specification: https://ngff.openmicroscopy.org/0.5/, "labels". A level halves the one
before by taking every second pixel of every second row, so ids stay ids. Chunks are
kept in shards, which this one writer fills one after the other; a slide of labels is
then some hundred files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from napari_sam.errors import FormatError, InputError
from napari_sam.tiling import Box
from napari_sam.writers.atomic import atomic, checked_path
from napari_sam.writers.colours import colours_of
from napari_sam.writers.objects import (
    Objects,
    label_source,
    objects_of,
    read_ids,
    stack_axes,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from napari_sam.images import ImageSource

ENDINGS = (".zarr",)

_CHUNK, _SHARD = 512, 2048
_SMALLEST_LEVEL = 512


def save_ome_zarr(
    labels: Any,
    path: str | os.PathLike[str],
    *,
    pixel_size_um: float | Sequence[float] | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Save labels as OME-Zarr 0.5.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids, 0 is background; read shard by shard.
    path : path
        A folder that ends in .zarr; or ``IMAGE.zarr/labels/NAME`` beside the pixels of
        an OME-Zarr 0.5 image, in whose list of labels it is entered.
    pixel_size_um : float, or sequence of float, optional
        In micrometres: one number, or (y, x), or (z, y, x). Default: what the labels
        know.
    notes : mapping of str to JSON values, optional
        Kept in the attributes under ``napari_sam``.
    overwrite : bool
        Replace an existing folder.

    Returns
    -------
    Path
        Where the folder is: uint32, or uint64 where an id needs it, with area and
        centroid of each object, in pixels, and a colour.

    Raises
    ------
    InputError
        If the labels are none, or an id is above 2^63 - 1.
    FormatError
        If the image beside which labels are to be written is no OME-Zarr 0.5.
    FileError
        If the folder exists already or cannot be written.
    """
    path = Path(path).expanduser()
    image = _image_of(path)
    if image is None:
        path = checked_path(path, ENDINGS, "labels as OME-Zarr")
    labels = label_source(labels, pixel_size_um)
    if image is not None:
        path.parent.mkdir(exist_ok=True)
    with atomic(path, overwrite=overwrite) as part:
        group = zarr.create_group(part, zarr_format=3)
        objects = _write_levels(labels, group)
        label_facts = _image_label(objects)
        if image is not None:
            label_facts["source"] = {"image": "../../"}
        group.attrs["ome"] = {
            "version": "0.5",
            "multiscales": [_multiscale(labels, len(list(group.arrays())))],
            "image-label": label_facts,
        }
        if notes:
            group.attrs["napari_sam"] = dict(notes)
    if image is not None:
        _enter(path)
    return path


def _image_of(path: Path) -> Path | None:
    """Find the image that labels of this path belong to; None if to none."""
    image = path.parent.parent
    if path.parent.name != "labels" or not any(
        (image / mark).exists() for mark in ("zarr.json", ".zgroup")
    ):
        return None
    facts: Any = zarr.open_group(image, mode="r").attrs.get("ome", {})
    if facts.get("version") != "0.5" or "multiscales" not in facts:
        raise FormatError(
            f"{image} is no image of OME-Zarr 0.5, so that labels of 0.5 cannot stand "
            "in it; give a .zarr folder elsewhere"
        )
    return image


def _enter(path: Path) -> None:
    """Add labels to the list in the group that holds them."""
    group = zarr.open_group(path.parent, mode="a", zarr_format=3)
    facts: Any = dict(group.attrs).get("ome", {})
    names = [name for name in facts.get("labels", []) if name != path.name]
    group.attrs["ome"] = {"version": "0.5", **facts, "labels": [*names, path.name]}


def _write_levels(labels: ImageSource, group: zarr.Group) -> Objects:
    """Write all levels of the pyramid; return the objects of all planes together."""
    lengths = dict(zip("TZYX", labels.shape, strict=True))
    axes = stack_axes(labels)
    shape = tuple(lengths[axis] for axis in axes)
    level = _create(group, 0, shape, axes, _id_type(labels))
    parts = []
    planes = np.ndindex(*level.shape[:-2])
    for plane, at in zip(labels.plane_indices(), planes, strict=True):
        for box in _shards(labels.plane_shape):
            ids = read_ids(labels, box, plane)
            level[(*at, *box.slices)] = ids.astype(level.dtype)
            parts.append(objects_of(ids, box.y0, box.x0))
    while max(level.shape[-2:]) > _SMALLEST_LEVEL:
        level = _halved(level, group, axes)
    return Objects.merged(parts)


def _id_type(labels: ImageSource) -> np.dtype[Any]:
    """Choose 32 bits if they hold all ids: viewers are made for them."""
    if labels.array.dtype.itemsize <= 4:
        return np.dtype(np.uint32)
    most = max(
        int(read_ids(labels, box, plane).max())
        for plane in labels.plane_indices()
        for box in _shards(labels.plane_shape)
    )
    if most >= 2**63:
        raise InputError(
            f"object id {most} does not fit in 63 bits; relabel the objects"
        )
    return np.dtype(np.uint32 if most < 2**32 else np.uint64)


def _halved(level: zarr.Array[Any], group: zarr.Group, axes: str) -> zarr.Array[Any]:
    height, width = (-(-n // 2) for n in level.shape[-2:])
    number = len(list(group.arrays()))
    shape = (*level.shape[:-2], height, width)
    half = _create(group, number, shape, axes, level.dtype)
    for plane in np.ndindex(*level.shape[:-2]):
        for box in _shards((height, width)):
            rows = slice(2 * box.y0, 2 * box.y1, 2)
            columns = slice(2 * box.x0, 2 * box.x1, 2)
            half[(*plane, *box.slices)] = level[(*plane, rows, columns)]
    return half


def _create(
    group: zarr.Group,
    number: int,
    shape: tuple[int, ...],
    axes: str,
    dtype: np.dtype[Any],
) -> zarr.Array[Any]:
    plane, ones = shape[-2:], [1] * len(shape[:-2])
    chunk = [min(_CHUNK, n) for n in plane]
    shard = [-(-min(_SHARD, n) // c) * c for n, c in zip(plane, chunk, strict=True)]
    return group.create_array(
        str(number),
        shape=shape,
        dtype=dtype,
        chunks=(*ones, *chunk),
        shards=(*ones, *shard) if shard != chunk else None,
        dimension_names=list(axes.lower()),
    )


def _shards(shape: tuple[int, int]) -> Iterator[Box]:
    for y0 in range(0, shape[0], _SHARD):
        for x0 in range(0, shape[1], _SHARD):
            yield Box(y0, x0, y0 + _SHARD, x0 + _SHARD).clip(shape)


def _multiscale(labels: ImageSource, n_levels: int) -> dict[str, Any]:
    y, x = labels.pixel_size_um or (None, None)
    known = {"T": None, "Z": labels.z_step_um, "Y": y, "X": x}
    letters = stack_axes(labels)
    axes = []
    for letter in letters:
        axis = {"name": letter.lower(), "type": "time" if letter == "T" else "space"}
        axes.append(axis | ({"unit": "micrometer"} if known[letter] else {}))
    datasets = []
    for level in range(n_levels):
        factors = {"Y": 2.0**level, "X": 2.0**level}
        scale = [(known[a] or 1.0) * factors.get(a, 1.0) for a in letters]
        transformation = {"type": "scale", "scale": scale}
        datasets.append(
            {"path": str(level), "coordinateTransformations": [transformation]}
        )
    return {"name": labels.name, "axes": axes, "datasets": datasets, "type": "nearest"}


def _image_label(objects: Objects) -> dict[str, Any]:
    ids, areas = objects.ids.tolist(), objects.areas.tolist()
    centroids = np.round(objects.sums / objects.areas[:, None], 2).tolist()
    rgb = colours_of(objects.ids).tolist()
    return {
        "version": "0.5",
        "colors": [
            {"label-value": number, "rgba": [*colour, 255]}
            for number, colour in zip(ids, rgb, strict=True)
        ],
        "properties": [
            {"label-value": number, "area": area, "y": y, "x": x}
            for number, area, (y, x) in zip(ids, areas, centroids, strict=True)
        ],
    }
