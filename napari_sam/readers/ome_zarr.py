"""Zarr 2 and 3, and OME-Zarr 0.1 to 0.5 in them.

A plain array, a group of arrays, an OME-Zarr image with its resolution levels, a
collection of images as bioformats2raw writes it, a well and a plate are told
apart by their attributes. OME-Zarr 0.5 keeps these under the key ``ome``; apart
from this key and the version of Zarr, it is 0.4 to a reader (specification at
https://ngff.openmicroscopy.org/0.5/, "Metadata").
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import zarr

from napari_sam.errors import FormatError
from napari_sam.readers.stored import BROKEN, FileArray, Images, Stored, micrometres

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

Node: TypeAlias = "zarr.Group | zarr.Array[Any]"


def zarr_images(path: Path) -> Images:
    """List the images of a Zarr folder.

    Parameters
    ----------
    path : Path
        An array, an image, a well, a plate, or any other group.

    Returns
    -------
    mapping
        The name of an image is its path inside the folder; labels, which belong
        to an image, are not listed.

    Raises
    ------
    FormatError
        If the metadata are damaged, or if there is no image.
    """
    members: list[str] = []
    try:
        node: Node = zarr.open(path, mode="r")
        if isinstance(node, zarr.Group):
            names, members = _image_names(node), sorted(node)
        else:
            names = [""]
    except (*BROKEN, TypeError) as error:
        raise _damaged(path, error) from error
    if not names:
        raise FormatError(
            f"{path} is a Zarr group without images; give the path of an image inside "
            f"one of its members, which are {members or 'none'}"
        )
    return {name or "0": partial(_stored, path, node, name) for name in names}


def _image_names(group: zarr.Group) -> list[str]:
    """Find the images of a group, as paths relative to it."""
    attributes = _ome(group)
    if "multiscales" in attributes:
        return [""]
    if "plate" in attributes:
        members = [str(well["path"]) for well in attributes["plate"]["wells"]]
    elif "well" in attributes:
        members = [str(image["path"]) for image in attributes["well"]["images"]]
    elif "bioformats2raw.layout" in attributes:
        inner = group.get("OME")
        series = _ome(inner).get("series") if isinstance(inner, zarr.Group) else None
        members = series or sorted(filter(str.isdecimal, group), key=int)
    elif "labels" in attributes:
        members = [str(path) for path in attributes["labels"]]
    else:
        return sorted(name for name, _ in group.arrays())
    names = []
    for member in members:
        inner = group.get(member)  # a well that was planned may not be there
        if isinstance(inner, zarr.Group):
            names += [f"{member}/{name}".rstrip("/") for name in _image_names(inner)]
    return names


def _stored(path: Path, node: Node, name: str) -> Stored:
    try:
        member = node[name] if isinstance(node, zarr.Group) and name else node
        if isinstance(member, zarr.Array):
            shape = tuple(member.shape)
            return Stored(
                _array_axes(member), (shape,), lambda _: FileArray(member, path)
            )
        return _multiscale(path, member)
    except (*BROKEN, TypeError) as error:
        raise _damaged(path, error) from error


def _multiscale(path: Path, group: zarr.Group) -> Stored:
    attributes = _ome(group)
    image = attributes["multiscales"][0]
    levels = [_array_at(group, dataset["path"]) for dataset in image["datasets"]]
    # 0.1 and 0.2 name no axes, they have all five in this order; 0.3 names them only
    named = image.get("axes", "tczyx")
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in named]
    letters = _letters([axis["name"] for axis in axes])
    steps = [_steps_um(axes, image, dataset) for dataset in image["datasets"]]
    sizes = [(step.get("Y"), step.get("X")) for step in steps]
    channels = attributes.get("omero", {}).get("channels", ())
    labels = [channel.get("label") for channel in channels]
    return Stored(
        letters,
        tuple(tuple(level.shape) for level in levels),
        lambda level: FileArray(levels[level], path),
        tuple((y, x) for y, x in sizes if y and x) if all(map(all, sizes)) else (),
        steps[0].get("Z"),
        tuple(f"{label}" for label in labels) if all(labels) else (),
    )


def _array_at(group: zarr.Group, path: str) -> zarr.Array[Any]:
    member = group[path]
    if isinstance(member, zarr.Array):
        return member
    raise KeyError(f"{path} is a group and not an array")


def _steps_um(
    axes: Sequence[Mapping[str, Any]],
    image: Mapping[str, Any],
    dataset: Mapping[str, Any],
) -> dict[str, float]:
    """Distance of two pixels along each axis with a unit of length, by letter."""
    scale = np.ones(len(axes))
    for owner in (dataset, image):
        for transformation in owner.get("coordinateTransformations", ()):
            if transformation["type"] == "scale":
                scale = scale * transformation["scale"]
    letters = _letters([axis["name"] for axis in axes])
    steps = {}
    for letter, axis, factor in zip(letters, axes, scale.tolist(), strict=True):
        step = micrometres(factor, axis["unit"]) if "unit" in axis else None
        if step is not None:
            steps[letter] = step
    return steps


def _array_axes(array: zarr.Array[Any]) -> str:
    """Axes by name: of Zarr 3 itself, or as xarray writes them into Zarr 2."""
    names = getattr(array.metadata, "dimension_names", None)
    attributes: dict[str, Any] = dict(array.attrs)
    return _letters(names or attributes.get("_ARRAY_DIMENSIONS", ()))


def _letters(names: Sequence[str | None]) -> str:
    """First letters of names such as x, channel or time; "?" for all others."""
    letters = [(name or "?")[0].upper() for name in names]
    return "".join(letter if letter in "TZCYXS" else "?" for letter in letters)


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    attributes: dict[str, Any] = dict(group.attrs)
    inner = attributes.get("ome")
    return inner if isinstance(inner, dict) else attributes


def _damaged(path: Path, error: Exception) -> FormatError:
    return FormatError(
        f"{path} is not a Zarr that can be read ({type(error).__name__}: {error}); "
        "its metadata are damaged or incomplete, get a fresh copy"
    )
