"""Labels of an image -> files, tables and pictures, never a whole image in memory."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.engine.automatic import object_table
from napari_sam.engine.records import MOST_NOTED, ObjectRecord, as_notes
from napari_sam.errors import FormatError, NapariSamWarning
from napari_sam.images import ImageSource, read_rgb
from napari_sam.images.scale import stack_size_um
from napari_sam.stitch import Painting, find_seams
from napari_sam.tiling import Box
from napari_sam.writers.atomic import make_folder
from napari_sam.writers.formats import save_by_name
from napari_sam.writers.measurements import measure_objects, save_measurements
from napari_sam.writers.overlay import save_overlay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_sam.engine.files import OpenedFile, Outputs
    from napari_sam.tiling import CropGrid

MAX_OVERLAY_PIXELS = 10**8
"""An overlay is a picture of the whole plane, made in memory (ours)."""

# What is read at a time where a format asks for one chunk after the other.
_CHUNK = 1024

# Side of the parts of a damaged picture that are tried one by one.
_PART = 256


class LabelStack:
    """Labels of one or several planes, drawn where they are read.

    Parameters
    ----------
    paintings : sequence of Painting
        The planes, in order.
    lengths : tuple of int
        Lengths of the axes before rows and columns; () for a single plane.
    """

    def __init__(self, paintings: Sequence[Painting], lengths: tuple[int, ...]) -> None:
        self.paintings = paintings
        self.lengths = lengths
        self.dtype = np.dtype(np.uint32)
        counts = np.cumsum([1, *(len(painting) for painting in paintings)])
        self.first_ids: list[int] = counts[:-1].tolist()
        self.n_objects = int(counts[-1]) - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return (*self.lengths, *self.paintings[0].shape)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Shape of what is best read at a time."""
        return (*(1 for _ in self.lengths), _CHUNK, _CHUNK)

    def __getitem__(self, index: Any, /) -> NDArray[np.uint32]:
        """Draw a region of one plane: an integer for each axis, then slices."""
        place = index if isinstance(index, tuple) else (index,)
        n_axes = len(self.lengths)
        number = (
            int(np.ravel_multi_index(place[:n_axes], self.lengths)) if n_axes else 0
        )
        cuts = [*place[n_axes:], slice(None), slice(None)][:2]
        (y0, y1, _), (x0, x1, _) = (
            cut.indices(n) for cut, n in zip(cuts, self.shape[-2:], strict=True)
        )
        painting = self.paintings[number]
        return painting.labels(Box(y0, x0, y1, x1), self.first_ids[number])


def write_results(
    opened: OpenedFile,
    paintings: Sequence[Painting],
    grid: CropGrid,
    outputs: Outputs,
    made_by: Mapping[str, str | None],
) -> int:
    """Write the labels of an image, and what else `Outputs` names.

    Parameters
    ----------
    opened : OpenedFile
        The image.
    paintings : sequence of Painting
        One for each plane that was used.
    grid : CropGrid
        How planes were cut.
    outputs : Outputs
        The files; those that exist are replaced.
    made_by : mapping of str to str or None
        From `records.made_by`; the labels say which weights have found the objects.

    Returns
    -------
    int
        Number of objects.
    """
    source = opened.source
    axes = "".join(
        axis for axis in "TZ" if axis in source.axes and opened.plane is None
    )
    lengths = dict(zip("TZYX", source.shape, strict=True))
    stack = LabelStack(paintings, tuple(lengths[axis] for axis in axes))
    scores = [
        object_table(painting, plane, first)
        for painting, plane, first in zip(
            paintings, opened.planes, stack.first_ids, strict=True
        )
    ]
    write_labels(
        opened,
        stack,
        replace(outputs, overwrite=True),
        _joined(scores),
        _records(stack, grid, made_by),
    )
    if outputs.seams is not None:
        tables = [
            _with_plane(find_seams(painting, grid, first), plane)
            for painting, first, plane in zip(
                paintings, stack.first_ids, opened.planes, strict=True
            )
        ]
        save_measurements(_joined(tables), outputs.seams, overwrite=True)
    return stack.n_objects


def write_labels(
    opened: OpenedFile,
    labels: Any,
    outputs: Outputs,
    scores: Mapping[str, NDArray[Any]],
    records: Iterable[ObjectRecord] = (),
) -> None:
    """Write labels, and the overlay and measurements that `Outputs` names.

    Parameters
    ----------
    opened : OpenedFile
        The image.
    labels : array
        Object ids of the planes that were used, with the axes that they have in the
        image; read region by region.
    outputs : Outputs
        The files; its folder is made.
    scores : mapping of str to (N,) array
        ``object``, rising ids; ``predicted_iou`` and ``stability`` become columns of
        the measurements.
    records : iterable of ObjectRecord
        How the objects were made; the labels carry it. Default: not known.
    """
    source, overwrite = opened.source, outputs.overwrite
    n_axes = len(labels.shape) - 2
    axes = "".join(axis for axis in "TZ" if axis in source.axes and n_axes)
    ids = ImageSource(
        labels,
        axes=f"{axes}YX",
        pixel_size_um=source.pixel_size_um,
        z_step_um=source.z_step_um if "Z" in axes else None,
        name=f"labels of {source.name}",
    )
    make_folder(outputs.labels.parent)
    save_by_name(ids, outputs.labels, notes=as_notes(records), overwrite=overwrite)
    if outputs.measurements is not None:
        table = _measurements(opened, ids, scores)
        save_measurements(table, outputs.measurements, overwrite=overwrite)
    if outputs.overlay is not None:
        save_overlay(
            _picture(opened),
            ids.read(),
            outputs.overlay,
            pixel_size_um=stack_size_um(source),
            overwrite=overwrite,
        )


def _picture(opened: OpenedFile) -> NDArray[np.uint8]:
    """Read the first plane as RGB; parts that cannot be decoded are black."""
    source, (plane, *_) = opened.source, opened.planes
    with suppress(FormatError):
        return read_rgb(source, opened.intensity, plane=plane)
    height, width = source.plane_shape
    rgb = np.zeros((height, width, 3), np.uint8)
    for y, x in product(range(0, height, _PART), range(0, width, _PART)):
        box = Box(y, x, y + _PART, x + _PART).clip((height, width))
        with suppress(FormatError):
            rgb[box.slices] = read_rgb(source, opened.intensity, box, plane)
    return rgb


def _records(
    stack: LabelStack, grid: CropGrid, made_by: Mapping[str, str | None]
) -> Iterator[ObjectRecord]:
    """Say of each object how it was made; of too many nothing, for want of memory."""
    if stack.n_objects > MOST_NOTED:
        return
    for number, painting in enumerate(stack.paintings):
        place = np.unravel_index(number, stack.lengths) if stack.lengths else ()
        index = (*(int(each) for each in place), None, None)
        objects = painting.objects
        for i, (iou, stability, _, y, x) in enumerate(objects.scores.tolist()):
            crop = grid[int(objects.crops[i])].box
            has_point = not np.isnan(y)
            yield ObjectRecord(
                object_id=stack.first_ids[number] + i,
                index=index,
                points=((y, x),) if has_point else (),
                positive=(True,) if has_point else (),
                crop=(crop.y0, crop.x0, crop.y1, crop.x1),
                predicted_iou=iou,
                stability=stability,
                **made_by,
            )


def without_overlay(opened: OpenedFile, outputs: Outputs) -> Outputs:
    """Leave out an overlay that cannot be drawn; labels are worth having without.

    Warns
    -----
    NapariSamWarning
        If the image has several planes, or one that is too large.
    """
    height, width = opened.source.plane_shape
    if len(opened.planes) > 1:
        n_planes = len(opened.planes)
        why = f"{n_planes} planes, and an overlay shows one; choose a plane"
    elif height * width > MAX_OVERLAY_PIXELS:
        why = (
            f"{height} x {width} px, and an overlay has at most {MAX_OVERLAY_PIXELS} "
            "px; open image and labels in napari, or choose a smaller resolution level"
        )
    else:
        return outputs
    if outputs.overlay is not None:
        warnings.warn(
            f"no overlay of {opened.source.name}: it has {why}",
            NapariSamWarning,
            stacklevel=2,
        )
    return replace(outputs, overlay=None)


def _measurements(
    opened: OpenedFile, labels: ImageSource, scores: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Measure all objects, and add the scores of the network."""
    source = opened.source
    if opened.plane is not None:
        source = source.at(opened.plane)
    table = measure_objects(labels, source)
    places = np.searchsorted(scores["object"], table["object"])
    for name in ("predicted_iou", "stability"):
        table[name] = scores[name][places]
    return table


def _with_plane(
    table: dict[str, NDArray[Any]], plane: tuple[int, int]
) -> dict[str, NDArray[Any]]:
    n = len(table["object"])
    where = {"frame": np.full(n, plane[0]), "slice": np.full(n, plane[1])}
    return {"object": table["object"], **where, **table}


def _joined(tables: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([t[name] for t in tables]) for name in tables[0]}
