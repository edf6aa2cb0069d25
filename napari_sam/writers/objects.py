"""Objects of labels of any size, without reading the labels as a whole.

A first pass finds the box of each object, region by region. A second one goes from
tile to tile and reads, for all objects that begin in a tile, one window that holds
them whole. So every format gets objects that no border cuts, and memory depends on
the largest object and not on the size of the image. To work chunk by chunk and merge
the parts afterwards was rejected: outlines, hulls and run lengths have no cheap merge.

Both passes count in runs, stretches of a row with one id, which are some hundred
times fewer than pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sam.errors import InputError
from napari_sam.images import ImageSource
from napari_sam.images.scale import sizes_um
from napari_sam.images.source import chunk_lengths
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

TILE = 1024
"""Side of the tiles; a window is up to twice as wide, a larger object has its own."""

_REGION_PIXELS = 2**22
_AXES = {2: "YX", 3: "ZYX", 4: "TZYX"}


class Runs(NamedTuple):
    """Stretches of rows with one object id, in order of rows and columns.

    Each field is an (n_runs,) integer array; ``stops`` are half open.
    """

    ids: NDArray[Any]
    rows: NDArray[np.intp]
    starts: NDArray[np.intp]
    stops: NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Objects:
    """The objects of one plane.

    Parameters
    ----------
    ids : (n,) int64 array
        Object ids, rising.
    boxes : (n, 4) int64 array
        ``y0, x0, y1, x1``, half open, in plane pixels.
    areas : (n,) int64 array
        Number of pixels.
    sums : (n, 2) float64 array
        Sums of y and of x over the pixels.
    """

    ids: NDArray[np.int64]
    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    sums: NDArray[np.float64]

    @classmethod
    def merged(cls, parts: Sequence[Objects]) -> Objects:
        """Join what several regions hold; an object may be in more than one."""
        found = np.concatenate([part.ids for part in parts])
        order = np.argsort(found, kind="stable")
        ids, first = np.unique(found[order], return_index=True)
        if not len(ids):
            return parts[0]
        boxes = np.concatenate([part.boxes for part in parts])[order]
        areas = np.concatenate([part.areas for part in parts])[order]
        sums = np.concatenate([part.sums for part in parts])[order]
        low = np.minimum.reduceat(boxes[:, :2], first)
        high = np.maximum.reduceat(boxes[:, 2:], first)
        return cls(
            ids,
            np.concatenate([low, high], axis=1),
            np.add.reduceat(areas, first),
            np.add.reduceat(sums, first),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A region that holds some objects whole, and of others nothing.

    Parameters
    ----------
    plane : tuple of int
        (frame, slice), counted from 0.
    box : Box
        The region, in plane pixels.
    ids : (n,) int64 array
        Object ids, rising.
    numbers : (h, w) int32 array
        ``i + 1`` where object ``ids[i]`` is, else 0.
    """

    plane: tuple[int, int]
    box: Box
    ids: NDArray[np.int64]
    numbers: NDArray[np.int32]


def label_source(
    labels: Any, pixel_size_um: float | Sequence[float] | None = None
) -> ImageSource:
    """Bring labels to one form.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids, 0 is background. The axes of an array are YX, ZYX or TZYX.
    pixel_size_um : float, or sequence of float, optional
        In micrometres: one number, or (y, x), or (z, y, x). Default: what the
        source knows.

    Returns
    -------
    ImageSource
        Without channels.

    Raises
    ------
    InputError
        If these are no labels.
    """
    source = labels if isinstance(labels, ImageSource) else _from_array(labels)
    if np.dtype(source.array.dtype).kind not in "bui" or source.n_channels > 1:
        raise InputError(
            f"{source.name} has {source.n_channels} channels of "
            f"{source.array.dtype}; labels have one, of integers, the object ids"
        )
    if pixel_size_um is None:
        return source
    sizes = sizes_um(pixel_size_um)
    size, step = (sizes["Y"], sizes["X"]), sizes.get("Z", source.z_step_um)
    return replace(source, pixel_size_um=size, z_step_um=step)


def image_source(image: Any, labels: ImageSource) -> ImageSource:
    """Bring the image of labels to one form, and check that it has their size.

    Parameters
    ----------
    image : ImageSource, or array
        An array has the axes of the labels, and may have channels as its last one.
    labels : ImageSource
        From `label_source`.

    Raises
    ------
    InputError
        If the image has another number or size of planes.
    """
    if isinstance(image, ImageSource):
        source = image
    else:
        has_channels = len(image.shape) > len(labels.axes)
        source = ImageSource(image, axes=labels.axes + "C" * has_channels)
    if source.shape != labels.shape:
        raise InputError(
            f"{source.name} has (frames, slices, height, width) = {source.shape}, "
            f"{labels.name} has {labels.shape}; give the image of these labels"
        )
    return source


def stack_axes(labels: ImageSource) -> str:
    """Name the axes of labels without channels: YX, ZYX, TYX or TZYX."""
    return "".join(axis for axis in "TZ" if axis in labels.axes) + "YX"


def one_plane(labels: ImageSource, what: str) -> ImageSource:
    """Refuse a stack where a format holds one plane.

    Parameters
    ----------
    labels : ImageSource
        From `label_source`.
    what : str
        The format, for the message.
    """
    n_frames, n_slices = labels.shape[:2]
    if n_frames * n_slices > 1:
        raise InputError(
            f"{labels.name} has {n_frames} frames and {n_slices} slices, and {what} "
            "holds one plane; choose a plane, or another format"
        )
    return labels


def read_ids(
    labels: ImageSource, box: Box | None = None, plane: tuple[int, int] = (0, 0)
) -> NDArray[Any]:
    """Read the object ids of a region of one plane.

    Parameters
    ----------
    labels : ImageSource
        From `label_source`.
    box, plane
        As in `ImageSource.read`.

    Returns
    -------
    (h, w) integer array
        Booleans become 0 and 1.

    Raises
    ------
    InputError
        If an id is negative.
    """
    ids = labels.read(box, plane)
    ids = ids[..., 0] if ids.ndim == 3 else ids
    if ids.dtype == np.bool_:
        return ids.view(np.uint8)
    if ids.dtype.kind == "i" and ids.min(initial=0) < 0:
        raise InputError(
            f"object id {ids.min()} in {labels.name}; ids count from 1, 0 is background"
        )
    return ids


def find_runs(ids: NDArray[Any]) -> Runs:
    """Cut the rows of a region into runs of one object id; background is left out.

    Parameters
    ----------
    ids : (h, w) integer array

    Examples
    --------
    >>> find_runs(np.array([[0, 7, 7, 5], [5, 0, 0, 0]])).starts.tolist()
    [1, 3, 0]
    """
    changes = np.ones((ids.shape[0], ids.shape[1] + 1), bool)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=changes[:, 1:-1])
    rows, columns = np.nonzero(changes)
    is_start = columns < ids.shape[1]
    rows, starts = rows[is_start], columns[is_start]
    stops = columns[np.flatnonzero(is_start) + 1]
    found = ids[rows, starts]
    kept = found > 0
    return Runs(found[kept], rows[kept], starts[kept], stops[kept])


def find_objects(labels: ImageSource, plane: tuple[int, int] = (0, 0)) -> Objects:
    """Find all objects of a plane, reading it region by region.

    Parameters
    ----------
    labels : ImageSource
        From `label_source`.
    plane : tuple of int
        (frame, slice), counted from 0.
    """
    return Objects.merged(
        [
            objects_of(read_ids(labels, region, plane), region.y0, region.x0)
            for region in regions(labels)
        ]
    )


def objects_of(ids: NDArray[Any], y0: int = 0, x0: int = 0) -> Objects:
    """Find the objects, or parts of them, in a region.

    Parameters
    ----------
    ids : (h, w) integer array
        Object ids.
    y0, x0 : int
        Where the region begins, in plane pixels.
    """
    runs = find_runs(ids)
    lengths = runs.stops - runs.starts
    rows, starts = runs.rows + y0, runs.starts + x0
    return Objects.merged(
        [
            Objects(
                runs.ids.astype(np.int64),
                np.stack([rows, starts, rows + 1, starts + lengths], axis=1),
                lengths.astype(np.int64),
                np.stack(
                    [rows * lengths, (starts + (lengths - 1) / 2) * lengths], axis=1
                ).astype(np.float64),
            )
        ]
    )


def windows(labels: ImageSource) -> Iterator[Window]:
    """Read all objects window by window, each object of a plane once and whole.

    Parameters
    ----------
    labels : ImageSource
        From `label_source`.

    Yields
    ------
    Window
        Plane by plane; within a plane, in order of rows and columns of tiles.
    """
    for plane in labels.plane_indices():
        yield from _windows(labels, plane)


def _windows(labels: ImageSource, plane: tuple[int, int]) -> Iterator[Window]:
    objects = find_objects(labels, plane)
    tiles = objects.boxes[:, :2] // TILE
    sides = objects.boxes[:, 2:] - objects.boxes[:, :2]
    alone = np.where((sides > TILE).any(axis=1), objects.ids, 0)
    order = np.lexsort((alone, tiles[:, 1], tiles[:, 0]))
    keys = np.stack([tiles[:, 0], tiles[:, 1], alone], axis=1)[order]
    ends = np.flatnonzero(np.any(np.diff(keys, axis=0), axis=1)) + 1
    for group in np.split(order, ends):
        if len(group):
            members = np.sort(group)
            low = objects.boxes[members, :2].min(axis=0).tolist()
            high = objects.boxes[members, 2:].max(axis=0).tolist()
            box, ids = Box(*low, *high), objects.ids[members]
            numbers = _numbered(read_ids(labels, box, plane), ids)
            yield Window(plane, box, ids, numbers)


def regions(labels: ImageSource) -> Iterator[Box]:
    """Cut a plane into regions of some million pixels and of whole chunks."""
    height, width = labels.plane_shape
    chunk_h, chunk_w = _chunk_shape(labels)
    step_x = min(-(-2 * TILE // chunk_w) * chunk_w, width)
    step_y = max(_REGION_PIXELS // step_x // chunk_h, 1) * chunk_h
    for y0 in range(0, height, step_y):
        for x0 in range(0, width, step_x):
            yield Box(y0, x0, y0 + step_y, x0 + step_x).clip((height, width))


def _from_array(labels: Any) -> ImageSource:
    axes = _AXES.get(len(getattr(labels, "shape", ())))
    if axes is None:
        raise InputError(
            f"labels of shape {getattr(labels, 'shape', None)}; give an array with the "
            "axes YX, ZYX or TZYX"
        )
    return ImageSource(labels, axes=axes, name="labels")


def _chunk_shape(labels: ImageSource) -> tuple[int, int]:
    """Tell which (height, width) is decoded at a time; rows where nothing is."""
    array: Any = labels.array
    while hasattr(array, "array"):  # of a file, or a part of another
        array = array.array
    if isinstance(array, np.ndarray):  # in memory, or mapped
        return 1, labels.plane_shape[1]
    chunks = chunk_lengths(labels.array)
    return chunks[labels.axes.index("Y")], chunks[labels.axes.index("X")]


def _numbered(region: NDArray[Any], ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """Replace ids by their place in a rising list, from 1, and all others by 0."""
    runs = find_runs(region)
    found = runs.ids.astype(np.int64)
    places = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
    places = np.where(ids[places] == found, places + 1, 0).astype(np.int32)
    # a run adds its number where it starts and takes it off where it ends
    steps = np.zeros(region.size + 1, np.int32)
    first = runs.rows * region.shape[1]
    steps[first + runs.starts] += places
    steps[first + runs.stops] -= places
    numbers: NDArray[np.int32] = np.cumsum(steps[:-1], dtype=np.int32)
    return numbers.reshape(region.shape)
