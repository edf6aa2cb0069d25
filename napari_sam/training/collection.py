"""Annotated images on disk: which file belongs to which labels.

A collection is a folder with ``images/`` and ``labels/`` whose files have equal names
(their suffix may differ), or a folder with an ``index.csv`` and one such folder for
each dataset it names.
"""

from __future__ import annotations

import csv
import errno
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_sam.errors import FormatError, InputError, MissingFileError
from napari_sam.readers import open_image

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_sam.images import ImageSource

SUFFIXES = (".tif", ".tiff", ".png", ".zarr")
COLUMNS = ("dataset", "name", "modality", "split")
"""Columns that an ``index.csv`` must have; ``complete``, or else ``labels``, is read
if it is there: whether every object of the image is labelled."""

# Words in the column `labels` that tell of objects left unlabelled.
_PARTIAL_WORDS = ("partial", "silver")


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image file and its labels.

    Attributes
    ----------
    name, dataset, modality : str
        For people and for groups in tables; the modality may be empty.
    path, labels_path : Path
        Files of equal height and width, and equal number of planes.
    is_complete : bool
        Whether every object is labelled, so that false positives can be counted.
    """

    name: str
    dataset: str
    modality: str
    path: Path
    labels_path: Path
    is_complete: bool = True


def list_images(
    folder: Path,
    *,
    split: str | None = None,
    datasets: Collection[str] = (),
    partial: Collection[str] = (),
) -> list[AnnotatedImage]:
    """List the annotated images of a collection.

    Parameters
    ----------
    folder : Path
        Collection; see the header of this module.
    split : str, optional
        Only images of this split of the index; a folder without index has none, and
        all its images are listed.
    datasets : collection of str, optional
        Only images of these datasets. Default: all.
    partial : collection of str, optional
        Datasets with objects that are not labelled, whatever the index says.

    Returns
    -------
    list of AnnotatedImage
        In the order of the index, or by name.

    Raises
    ------
    MissingFileError
        If there is no such folder.
    FormatError
        If the folder is no collection, a file or a column is missing.
    InputError
        If no image is of this split and these datasets.
    """
    if not folder.is_dir():
        raise MissingFileError(
            errno.ENOENT, "no such folder; check its name", str(folder)
        )
    index = folder / "index.csv"
    if index.is_file():
        images = _from_index(index, split)
    else:
        images = _from_folder(folder, folder.resolve().name, "")
    images = [
        replace(each, is_complete=False) if each.dataset in partial else each
        for each in images
    ]
    chosen = [i for i in images if not datasets or i.dataset in datasets]
    if not chosen:
        raise InputError(
            f"no image of {folder} has split {split!r} and is of the datasets "
            f"{sorted(datasets) or 'named in it'}; there are "
            f"{sorted({i.dataset for i in images})}"
        )
    return chosen


def open_annotated(image: AnnotatedImage) -> tuple[ImageSource, ImageSource]:
    """Open an image and its labels, whose planes belong together in their order.

    Raises
    ------
    FormatError
        If they differ in the number or the size of their planes.
    """
    source, truth = open_image(image.path), open_image(image.labels_path)
    n_planes, n_truth = (len(list(each.plane_indices())) for each in (source, truth))
    if source.plane_shape != truth.plane_shape or n_planes != n_truth:
        raise FormatError(
            f"{image.path} has {n_planes} planes of {source.plane_shape} px, its "
            f"labels {n_truth} of {truth.plane_shape}; they must be equal"
        )
    return source, truth


def read_labels(truth: ImageSource, plane: tuple[int, int]) -> NDArray[np.integer[Any]]:
    """Read the object ids of a plane, (H, W).

    Raises
    ------
    FormatError
        If they are no integers from 0, one for each pixel.
    """
    labels = truth.read(plane=plane)
    if labels.ndim != 2 or labels.dtype.kind not in "ui" or labels.min() < 0:
        raise FormatError(
            f"{truth.path} has planes of shape {labels.shape} and type "
            f"{labels.dtype}; expected one integer from 0 for each pixel"
        )
    return labels


def _from_index(index: Path, split: str | None) -> list[AnnotatedImage]:
    with index.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
        if missing:
            raise FormatError(
                f"{index} lacks the columns {missing}; expected {', '.join(COLUMNS)}"
            )
        rows = [row for row in reader if split in (None, row["split"])]
    images = []
    for row in rows:
        folder = index.parent / row["dataset"]
        images.append(
            AnnotatedImage(
                name=row["name"],
                dataset=row["dataset"],
                modality=row["modality"],
                path=_find(folder / "images", row["name"]),
                labels_path=_find(folder / "labels", row["name"]),
                is_complete=_is_complete(index, row),
            )
        )
    return images


def _is_complete(index: Path, row: dict[str, str]) -> bool:
    """Read the column for it; without one, or without a word in it, guess."""
    said = (row.get("complete") or "").strip().lower()
    if said not in ("", "yes", "no"):
        raise FormatError(
            f"{index} says {said!r} in the column complete of {row['name']}; write yes "
            "or no"
        )
    how = (row.get("labels") or "").lower()
    return said == "yes" if said else not any(word in how for word in _PARTIAL_WORDS)


def _from_folder(folder: Path, dataset: str, modality: str) -> list[AnnotatedImage]:
    found = sorted(
        path
        for path in (folder / "images").glob("*")
        if path.suffix.lower() in SUFFIXES
    )
    if not found:
        raise FormatError(
            f"{folder} holds no annotated images; expected images/ and labels/ with "
            f"files of the same names ({', '.join(SUFFIXES)}), or an index.csv"
        )
    return [
        AnnotatedImage(
            name=path.stem,
            dataset=dataset,
            modality=modality,
            path=path,
            labels_path=_find(folder / "labels", path.stem),
        )
        for path in found
    ]


def _find(folder: Path, stem: str) -> Path:
    for suffix in SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if path.exists():
            return path
    raise FormatError(
        f"{folder} has no file {stem} with one of the suffixes {', '.join(SUFFIXES)}; "
        "an image and its labels have the same name"
    )
