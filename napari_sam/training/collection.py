"""Annotated images on disk: which file belongs to which labels.

A collection is

- a folder with ``images/`` and ``labels/`` (or ``masks/``), whose files have equal
  names up to the ending and a mark of the labels, such as NAME.labels.tif (`_MARKS`);
- or a folder of images beside labels that have a mark;
- or a folder with an ``index.csv`` and, for each dataset it names, one of the first
  kind.
"""

from __future__ import annotations

import csv
import errno
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_sam.errors import (
    FormatError,
    InputError,
    MissingFileError,
    NapariSamWarning,
)
from napari_sam.prompts.imagej import labels_from_rois
from napari_sam.readers import IMAGE_ENDINGS, open_image

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.images import ImageSource

# What names of labels have more than those of their images, the first counts most:
# ours, and what Cellpose reads and writes. Its own images are called NAME_img.
_MARKS = (".labels", "_masks", "_cp_masks", ".rois", "_rois")
_IMAGE_MARK = "_img"

# Regions of the ROI Manager of ImageJ, which are filled.
_ROIS = ".zip"

# Formats that change pixels, so that numbers of objects do not survive.
_LOSSY = (".jpg", ".jpeg", ".webp")

# More connected pieces than this for each id: hardly ids of single objects (ours).
_MOST_PIECES = 5
# And smaller ones than this on average, in pixels, are hardly objects (ours).
_LEAST_AREA = 4

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
    images = _from_index(index, split) if index.is_file() else _from_folder(folder)
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
    source = open_image(image.path)
    if image.labels_path.suffix.lower() == _ROIS:
        filled = labels_from_rois(image.labels_path, source.plane_shape)
        truth = replace(open_image(filled), path=image.labels_path)
    else:
        truth = open_image(image.labels_path)
    n_planes, n_truth = (len(list(each.plane_indices())) for each in (source, truth))
    if source.plane_shape != truth.plane_shape or n_planes != n_truth:
        raise FormatError(
            f"{image.path} has {n_planes} planes of {source.plane_shape} px, its "
            f"labels {n_truth} of {truth.plane_shape}; they must be equal"
        )
    return source, truth


def read_labels(truth: ImageSource, plane: tuple[int, int]) -> NDArray[np.int64]:
    """Read the object ids of a plane.

    Parameters
    ----------
    truth : ImageSource
        Whole numbers, as integers or as floats; or colours, of which each stands for
        an object and black for the background.
    plane : tuple of int
        (frame, slice).

    Returns
    -------
    (H, W) int64 array
        0 is background; a colour is 65536 red + 256 green + blue.

    Raises
    ------
    FormatError
        If they are no whole numbers from 0, one for each pixel.

    Warns
    -----
    NapariSamWarning
        If they hardly tell single objects.
    """
    pixels = truth.read(plane=plane)
    if "S" in truth.axes and pixels.dtype == np.uint8:
        pixels = pixels @ np.array([65536, 256, 1][-pixels.shape[-1] :])
    with np.errstate(invalid="ignore"):  # of NaN; it is not equal to its number
        ids = pixels.astype(np.int64)
    if ids.ndim != 2 or ids.min() < 0 or (ids != pixels).any():
        raise FormatError(
            f"{truth.path} has planes of shape {pixels.shape} and type "
            f"{pixels.dtype}, from {pixels.min()} to {pixels.max()}; expected one "
            "integer from 0 for each pixel: 0 for background, another for each object"
        )
    n_ids, n_pieces = np.count_nonzero(np.unique(ids)), ndimage.label(ids)[1]
    if n_pieces > _MOST_PIECES * n_ids:
        _warn(
            f"{truth.path} has {n_pieces} pieces and {n_ids} numbers, so that several "
            "pieces are taken for one object; if they are several, give each a number "
            "of its own, for example with skimage.measure.label"
        )
    elif (area := np.count_nonzero(ids)) < _LEAST_AREA * n_ids:
        _warn(
            f"{truth.path} has {n_ids} objects of {area / n_ids:.0f} px on average; is "
            "it a picture, or points, instead of labels?"
        )
    return ids


def _warn(message: str) -> None:
    warnings.warn(message, NapariSamWarning, stacklevel=3)


def _from_index(index: Path, split: str | None) -> list[AnnotatedImage]:
    with index.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
        if missing:
            raise FormatError(
                f"{index} lacks the columns {missing}; expected {', '.join(COLUMNS)}"
            )
        rows = [row for row in reader if split in (None, row["split"])]
    names = {row["dataset"] for row in rows}
    folders = {name: _read_folder(index.parent / name) for name in names}
    return [
        folders[row["dataset"]].annotated(
            row["name"],
            dataset=row["dataset"],
            modality=row["modality"],
            is_complete=_is_complete(index, row),
        )
        for row in rows
    ]


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


@dataclass(frozen=True, slots=True)
class _Folder:
    """Images and labels of a folder, by the name that they share."""

    path: Path
    images: dict[str, Path]
    labels: dict[str, Path]

    def annotated(self, name: str, **fields: Any) -> AnnotatedImage:
        for kind, files in (("image", self.images), ("labels", self.labels)):
            if name not in files:
                raise FormatError(
                    f"{self.path} has no {kind} {name}; an image and its labels have "
                    "the same name, up to the ending"
                )
        labels = self.labels[name]
        if labels.suffix.lower() in _LOSSY:
            raise FormatError(
                f"{labels} may have lost the numbers of its objects, for JPEG and WebP "
                "change pixels; save labels as TIFF or PNG"
            )
        return AnnotatedImage(
            name=name, path=self.images[name], labels_path=labels, **fields
        )


def _from_folder(path: Path) -> list[AnnotatedImage]:
    folder = _read_folder(path)
    names = sorted(folder.images.keys() & folder.labels.keys())
    if not names:
        raise FormatError(
            f"{path} holds no images with labels; expected images/ and labels/ with "
            "files of the same names, or NAME.tif beside NAME.labels.tif or "
            "NAME_masks.tif, or an index.csv"
        )
    if without := sorted(folder.images.keys() - folder.labels.keys()):
        some = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        _warn(f"{path}: {len(without)} images without labels are left out: {some}")
    dataset = path.resolve().name
    return [folder.annotated(name, dataset=dataset, modality="") for name in names]


def _read_folder(path: Path) -> _Folder:
    endings = (*IMAGE_ENDINGS, _ROIS)
    if (path / "images").is_dir():
        named = _by_stem(path / "labels", endings) or _by_stem(path / "masks", endings)
        return _Folder(path, _by_stem(path / "images"), _unmarked(named) | named)
    labels = _unmarked(_by_stem(path, endings))
    # what else lies there may be pictures or tables that were made of images
    images = {
        stem.removesuffix(_IMAGE_MARK): file for stem, file in _by_stem(path).items()
    }
    return _Folder(path, {n: f for n, f in images.items() if n in labels}, labels)


def _by_stem(folder: Path, endings: tuple[str, ...] = IMAGE_ENDINGS) -> dict[str, Path]:
    """Return files of a folder by name; of two with one name that with exact pixels."""
    files = [
        path
        for path in (sorted(folder.iterdir()) if folder.is_dir() else ())
        if path.suffix.lower() in endings and not path.name.startswith(".")
    ]
    # the last counts
    files.sort(key=lambda path: path.suffix.lower() not in (*_LOSSY, _ROIS))
    return {path.stem.removesuffix(".ome"): path for path in files}


def _unmarked(named: dict[str, Path]) -> dict[str, Path]:
    return {
        stem.removesuffix(mark): path
        for mark in reversed(_MARKS)  # the last counts
        for stem, path in named.items()
        if stem.endswith(mark)
    }
