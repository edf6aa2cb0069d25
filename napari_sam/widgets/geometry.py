"""Where napari's layers and the planes of a session meet.

Points, shapes and labels get the transform of the image, so their data coordinates are
its pixels: scale, translation, rotation, shear and affine need no arithmetic of ours,
and a click lands where it is seen by construction. What is left is which two axes are
looked at, and where on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from napari.utils.transforms import Affine

from napari_sam.engine.request import PlaneView, StackView
from napari_sam.images import ImageSource, Intensity, fitting_levels
from napari_sam.prompts.drawn import Drawn
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.components import Dims
    from napari.layers import Image, Layer
    from numpy.typing import NDArray

    from napari_sam.labels import PlaneIndex

TRANSFORM = ("scale", "translate", "rotate", "shear", "affine")
"""Attributes of a layer that say where it lies in the world."""


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """A plane cut out of an array along any of its axes, read when asked for.

    Parameters
    ----------
    array : array
        Anything that can be sliced.
    index : tuple of int or None
        The plane; None for its rows and columns.
    """

    array: Any
    index: PlaneIndex

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width), and colour samples if there are any."""
        sizes = self.array.shape
        kept = [i for i, each in enumerate(self.index) if each is None]
        return tuple(sizes[i] for i in kept) + tuple(sizes[len(self.index) :])

    @property
    def dtype(self) -> Any:
        """Type of one pixel."""
        return self.array.dtype

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        """Read a region given by slices."""
        parts = iter(key)
        full = tuple(next(parts) if each is None else each for each in self.index)
        return np.asarray(self.array[full + tuple(parts)])


@dataclass(frozen=True, slots=True, eq=False)
class SlabStack:
    """The planes of an array along one more axis, (n, height, width), read lazily.

    Parameters
    ----------
    array : array
        Anything that can be sliced.
    index : tuple of int or None
        One of the planes; None for its rows and columns.
    axis : int
        The axis that leads from plane to plane.
    """

    array: Any
    index: PlaneIndex
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, height, width), and colour samples if there are any."""
        n = int(self.array.shape[self.axis])
        return n, *Slab(self.array, self.index).shape

    @property
    def dtype(self) -> Any:
        """Type of one pixel."""
        return self.array.dtype

    def __getitem__(self, key: tuple[Any, ...]) -> Any:
        """Read a region of one plane."""
        index = (*self.index[: self.axis], int(key[0]), *self.index[self.axis + 1 :])
        return Slab(self.array, index)[key[1:]]


def full_array(layer: Layer) -> Any:
    """Return the data of a layer at full resolution."""
    return layer.data[0] if layer.multiscale else layer.data


def spatial_shape(layer: Layer) -> tuple[int, ...]:
    """Return the lengths of the axes of a layer, without colour samples."""
    return tuple(int(n) for n in full_array(layer).shape[: layer.ndim])


def plane_index(layer: Layer, dims: Dims) -> PlaneIndex | None:
    """Return which plane of a layer is displayed.

    Returns
    -------
    tuple of int or None
        Integers for the axes with a slider, None for the two that are seen. Or None
        alone: the display is 3D, or shows another axis, or a place beside the layer.
    """
    missing = dims.ndim - layer.ndim
    displayed = {axis - missing for axis in dims.displayed}
    if len(displayed) != 2 or min(displayed) < 0:
        return None
    at = np.asarray(layer.world_to_data(dims.point))
    index: list[int | None] = []
    for axis, length in enumerate(spatial_shape(layer)):
        if axis in displayed:
            index.append(None)
            continue
        place = int(np.floor(at[axis] + 0.5))
        if not 0 <= place < length:
            return None
        index.append(place)
    return tuple(index)


def plane_view(
    layer: Image, index: PlaneIndex, image_key: object, scale: float | None = None
) -> PlaneView:
    """Return the view of a plane of an image layer.

    Up to four axes, the last two of them seen, are the (t, z, y, x) of an image;
    anything else is a plane of its own.

    Parameters
    ----------
    layer : Image
    index : tuple of int or None
        From `plane_index`.
    image_key, scale
        Become those of the view.
    """
    array = full_array(layer)
    colour = "S" if layer.rgb else ""
    place = tuple(each for each in index if each is not None)
    if len(index) <= 4 and index[-2:] == (None, None):
        axes = "TZYX"[-len(index) :] + colour
        t, z = (0, 0, *place)[-2:]
        smaller = tuple(layer.data[1:]) if layer.multiscale else ()
        levels = fitting_levels(array, smaller, axes)
        source = ImageSource(array, axes, name=layer.name, levels=levels)
    else:
        source = ImageSource(Slab(array, index), "YX" + colour, name=layer.name)
        t, z = 0, 0
    return PlaneView(source, (t, z), intensity_of(layer), index, image_key, scale)


def stack_axes(view: PlaneView) -> list[int]:
    """Return the axes of the labels that lead from a plane to others, the last first.

    Examples
    --------
    >>> stack_axes(PlaneView(None, index=(3, 5, None, None)))
    [1, 0]
    """
    return [i for i, each in enumerate(view.index) if each is not None][::-1]


def stack_view(layer: Image, view: PlaneView, axis: int) -> StackView:
    """Return the planes behind and before the one that is looked at.

    Parameters
    ----------
    layer : Image
        The image.
    view : PlaneView
        From `plane_view`.
    axis : int
        Of `stack_axes`.
    """
    array, index = full_array(layer), view.index
    n_sliders = len(index) - 2
    if n_sliders <= 2 and index[-2:] == (None, None):
        t, z = view.plane
        if axis == n_sliders - 1:
            return StackView(view.source, "z", t, view, axis)
        return StackView(view.source, "t", z, view, axis)
    colour = "S" if layer.rgb else ""
    rows = SlabStack(array, index, axis)
    source = ImageSource(rows, "ZYX" + colour, name=layer.name)
    return StackView(source, "z", 0, view, axis)


def intensity_of(layer: Image) -> Intensity:
    """Return how a layer's pixels become 8-bit RGB: as they are seen.

    Contrast limits are the window of the encoder, so what cannot be seen is not
    segmented either. napari has one pair of them also for colours.
    """
    low, high = (float(v) for v in layer.contrast_limits)
    channels = (0, 1, 2) if layer.rgb else (0,)
    return Intensity(channels, ((low, high),) * len(channels))


def transform_of(
    layer: Layer, offset: NDArray[np.float64] | None = None
) -> dict[str, Any]:
    """Return the transform of a layer, for another layer.

    Parameters
    ----------
    layer : Layer
    offset : (ndim,) array, optional
        Where the other layer begins, in data coordinates. Default: at the origin.

    Returns
    -------
    dict
        Arguments of ``add_labels`` and others.
    """
    found: dict[str, Any] = {name: getattr(layer, name) for name in TRANSFORM}
    found["affine"] = np.asarray(layer.affine)
    # napari warns where layers of one window have other units
    found["units"] = layer.units
    if offset is not None:
        inner = Affine(
            scale=layer.scale,
            translate=layer.translate,
            rotate=layer.rotate,
            shear=layer.shear,
        )
        found["translate"] = np.asarray(inner(offset))
    return found


def drawn_of(layer: Layer, image: Image, dims: Dims) -> Drawn:
    """Return points or shapes of a layer as pixels of an image.

    Parameters
    ----------
    layer : Points or Shapes
        Wherever it lies in the world; axes that it lacks are where the sliders are.
    image : Image
    dims : Dims
    """
    to_world = _matrix(layer.data_to_world, layer.ndim)
    to_image = _matrix(image.world_to_data, image.ndim)
    missing = image.ndim - layer.ndim

    def moved(corners: NDArray[Any]) -> NDArray[np.float64]:
        world = to_world(np.asarray(corners, np.float64))
        if missing > 0:
            here = np.asarray(dims.point, np.float64)[-image.ndim :][:missing]
            world = np.concatenate(
                [np.broadcast_to(here, (len(world), missing)), world], axis=1
            )
        return to_image(world[:, -image.ndim :])

    if isinstance(layer, Points):
        features = {name: list(layer.features[name]) for name in layer.features}
        return Drawn.of_points(moved(layer.data), features)
    corners = tuple(moved(each) for each in layer.data)
    return Drawn(tuple(str(each) for each in layer.shape_type), corners)


def _matrix(
    convert: Callable[[Any], Any], n: int
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return an affine map of napari, which takes one point, for many points."""
    origin = np.asarray(convert(np.zeros(n)), np.float64)
    steps = [np.asarray(convert(each), np.float64) - origin for each in np.eye(n)]
    return lambda points: points @ np.stack(steps) + origin


def to_layer(points: NDArray[Any], index: PlaneIndex) -> NDArray[np.float64]:
    """Move points of a plane, (N, 2), to the coordinates of its layer, (N, ndim)."""
    full = np.empty((len(points), len(index)), np.float64)
    seen = [i for i, each in enumerate(index) if each is None]
    for axis, place in enumerate(index):
        full[:, axis] = points[:, seen.index(axis)] if place is None else place
    return full


def to_plane(points: NDArray[Any], index: PlaneIndex) -> NDArray[np.float32]:
    """Move points of a layer, (N, ndim), to its plane, (N, 2); undoes `to_layer`."""
    seen = [i for i, each in enumerate(index) if each is None]
    return np.asarray(points, np.float32).reshape(-1, len(index))[:, seen]


def visible_box(layer: Image, view: PlaneView) -> Box | None:
    """Return the part of a plane that is on the screen; None if none of it is.

    Parameters
    ----------
    layer : Image
        The image that the plane is a part of.
    view : PlaneView
    """
    corners = np.asarray(layer.corner_pixels, np.float64)
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors)[layer.data_level]
    y, x = (i for i, each in enumerate(view.index) if each is None)
    (y0, y1), (x0, x1) = corners[:, y], corners[:, x]
    box = Box(int(y0), int(x0), int(np.ceil(y1)) + 1, int(np.ceil(x1)) + 1)
    seen = box.clip(view.shape)
    return seen if seen.area else None


def folder_of(layer: Layer) -> str:
    """Return the folder of a layer's file; empty if there is none."""
    folder = Path(layer.source.path or "").parent
    return str(folder) if layer.source.path and folder.is_dir() else ""
