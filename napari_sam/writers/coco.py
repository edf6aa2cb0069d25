"""Objects -> run lengths in JSON: COCO for training, SA-1B as Segment Anything has it.

A mask is stored as lengths of runs down the columns of the whole plane, background
first, packed into text (format: cocodataset.org, "Data format"; packing:
`rleToString` of pycocotools). The runs of all objects of a window are found and
packed at once; a mask of the whole plane is never made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sam.errors import InputError
from napari_sam.writers.atomic import checked_path
from napari_sam.writers.json_file import save_json
from napari_sam.writers.objects import (
    find_runs,
    image_source,
    label_source,
    objects_of,
    one_plane,
    windows,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.images import ImageSource
    from napari_sam.writers.objects import Window

ENDINGS = (".json",)

_MAX_PIXELS = 2**32 - 1
"""pycocotools counts pixels of a plane in 32 bits."""


def save_coco(
    labels: Any,
    path: str | os.PathLike[str],
    *,
    image: Any = None,
    overwrite: bool = False,
) -> Path:
    """Save all objects as COCO annotations with run lengths.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids, 0 is background; read window by window.
    path : path
        Where to write, ending in .json.
    image : ImageSource or array, optional
        The image of the labels, for its file name.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is. Each plane of a stack is an image of its own, with its
        ``frame`` and ``slice``. ``object_id`` of an annotation is the object id; in
        a single plane, so is its ``id``, which in a stack counts from 1.

    Raises
    ------
    InputError
        If the labels are none, or a plane has more than 2^32 - 1 pixels.
    FileError
        If the file exists already or cannot be written.
    """
    path = checked_path(path, ENDINGS, "COCO annotations")
    labels = _checked(label_source(labels))
    name = _image_name(labels, image)
    height, width = labels.plane_shape
    n_slices = labels.shape[1]
    images = [
        {
            "id": t * n_slices + z + 1,
            "file_name": name,
            "height": height,
            "width": width,
            "frame": t,
            "slice": z,
        }
        for t, z in labels.plane_indices()
    ]
    head = {
        "info": {"description": labels.name, "contributor": "napari_sam"},
        "licenses": [],
        "categories": [{"id": 1, "name": "object", "supercategory": "object"}],
        "images": images,
    }

    def annotations() -> Iterator[dict[str, Any]]:
        for count, found in enumerate(_annotations(labels), start=1):
            t, z = found.plane
            yield {
                "id": found.number if len(images) == 1 else count,
                "image_id": t * n_slices + z + 1,
                "category_id": 1,
                "iscrowd": 0,
                "object_id": found.number,
                **found.shape,
            }

    return save_json(path, head, "annotations", annotations(), overwrite=overwrite)


def save_sa1b(
    labels: Any,
    path: str | os.PathLike[str],
    *,
    image: Any = None,
    overwrite: bool = False,
) -> Path:
    """Save the objects of one plane as the data set SA-1B has them.

    Parameters
    ----------
    labels : ImageSource, or array of bool or integers
        Object ids of one plane, 0 is background; read window by window.
    path : path
        Where to write, ending in .json.
    image : ImageSource or array, optional
        The image of the labels, for its file name.
    overwrite : bool
        Replace an existing file.

    Returns
    -------
    Path
        Where the file is. ``id`` of an annotation is the object id. What the data
        set says of the prompt and of the scores of a mask is left out: labels do not
        hold it.

    Raises
    ------
    InputError
        If the labels are none, or a stack, or have more than 2^32 - 1 pixels.
    FileError
        If the file exists already or cannot be written.
    """
    path = checked_path(path, ENDINGS, "SA-1B annotations")
    labels = _checked(one_plane(label_source(labels), "SA-1B"))
    height, width = labels.plane_shape
    about = {
        "image_id": 1,
        "width": width,
        "height": height,
        "file_name": _image_name(labels, image),
    }
    records = ({"id": found.number, **found.shape} for found in _annotations(labels))
    head = {"image": about}
    return save_json(path, head, "annotations", records, overwrite=overwrite)


class _Annotation(NamedTuple):
    number: int
    plane: tuple[int, int]
    shape: dict[str, Any]


def _annotations(labels: ImageSource) -> Iterator[_Annotation]:
    for window in windows(labels):
        packed = _packed_runs(window, labels.plane_shape)
        found = objects_of(window.numbers, window.box.y0, window.box.x0)
        numbers = window.ids.tolist()
        boxes, areas = found.boxes.tolist(), found.areas.tolist()
        for i, number in enumerate(numbers):
            y0, x0, y1, x1 = boxes[i]
            shape = {
                "area": areas[i],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": {"size": [*labels.plane_shape], "counts": packed[i]},
            }
            yield _Annotation(number, window.plane, shape)


def _packed_runs(window: Window, plane_shape: tuple[int, int]) -> list[str]:
    """Write each object of a window as packed run lengths of the whole plane."""
    height, width = plane_shape
    runs = find_runs(window.numbers.T)
    order = np.argsort(runs.ids, kind="stable")
    owners = runs.ids[order]
    first = (runs.rows[order] + window.box.x0) * height + window.box.y0
    starts, stops = first + runs.starts[order], first + runs.stops[order]
    # a run that ends at the lower edge may go on at the upper edge
    goes_on = (starts[1:] == stops[:-1]) & (owners[1:] == owners[:-1])
    owners, starts = (x[np.append(True, ~goes_on)] for x in (owners, starts))
    stops = stops[np.append(~goes_on, True)]
    bounds = np.searchsorted(owners, np.arange(1, len(window.ids) + 2))
    gaps = starts - np.append(0, stops[:-1])
    gaps[bounds[:-1]] = starts[bounds[:-1]]  # each object counts from the first pixel
    counts = np.stack([gaps, stops - starts], axis=1)
    after = height * width - stops[bounds[1:] - 1]
    return [
        _packed(np.append(counts[begin:end], rest if rest else []).astype(np.int64))
        for begin, end, rest in zip(bounds[:-1], bounds[1:], after, strict=True)
    ]


def _packed(counts: NDArray[np.int64]) -> str:
    """Pack run lengths into text, 5 bits a letter, the lowest first."""
    values = counts.copy()
    values[3:] -= counts[1:-2]  # from the third on, what changed since the last but one
    n_letters = np.ones(len(values), np.int64)
    for n in range(1, 8):
        n_letters += (values < -(2 ** (5 * n - 1))) | (values >= 2 ** (5 * n - 1))
    shifts = 5 * np.arange(n_letters.max(initial=1))
    letters = (values[:, None] >> shifts) & 31
    place = np.arange(len(shifts))
    letters[place < n_letters[:, None] - 1] |= 32  # more to come
    used = place < n_letters[:, None]
    text: bytes = (letters[used] + 48).astype(np.uint8).tobytes()
    return text.decode("ascii")


def _checked(labels: ImageSource) -> ImageSource:
    height, width = labels.plane_shape
    if height * width > _MAX_PIXELS:
        raise InputError(
            f"{labels.name} has planes of {height} x {width} px, and run lengths are "
            f"read with numbers up to {_MAX_PIXELS}; choose another format"
        )
    return labels


def _image_name(labels: ImageSource, image: Any) -> str:
    source = labels if image is None else image_source(image, labels)
    return source.name if source.path is None else source.path.name
