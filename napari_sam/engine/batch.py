"""Image files to label files: what the command line does for each image.

`plan_outputs` decides every name before the first image is opened, so that a clash of
names is found at the start and not after hours. `segment_file` and `predict_file` are
jobs on one image; whoever calls them decides what a failure of one image means for
the others.
"""

from __future__ import annotations

import errno
import re
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.engine.automatic import segment
from napari_sam.engine.embed import open_plane
from napari_sam.engine.jobs import Job, Step, job
from napari_sam.engine.predict import Predictor
from napari_sam.errors import FileError, InputError, NapariSamWarning
from napari_sam.images import find_intensity, read_rgb
from napari_sam.readers import open_image
from napari_sam.tiling import CropGrid
from napari_sam.writers import measure, save_labels, save_measurements, save_overlay

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.engine.predict import Prediction
    from napari_sam.images import ImageSource, Intensity
    from napari_sam.model import Sam
    from napari_sam.prompts import Prompts

_ENDINGS = re.compile(r"(\.ome)?\.[A-Za-z0-9]+$")
_LABEL_ENDINGS = (".tif", ".tiff")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How an image file is opened, and which plane of it is used.

    Parameters
    ----------
    image : str, optional
        Which image of a file with several.
    level : int, default 0
        Resolution level; 0 is the largest.
    axes : str, optional
        One letter of TZCYXS for each axis, where the file does not say.
    channels : tuple of int or str
        Channels to use, by number or name; empty takes all.
    invert : bool, default False
        Exchange dark and bright.
    plane : tuple of int, optional
        (frame, slice); needed where there are several.
    pixel_size_um : float, optional
        Pixel size in micrometres, where the file does not say.
    diameter : float, optional
        Typical diameter of the objects, in pixels: the plane is scaled so that they
        have a good size for the network. Default: the rule of `CropGrid`.
    """

    image: str | None = None
    level: int = 0
    axes: str | None = None
    channels: tuple[int | str, ...] = ()
    invert: bool = False
    plane: tuple[int, int] | None = None
    pixel_size_um: float | None = None
    diameter: float | None = None


@dataclass(frozen=True, slots=True)
class Outputs:
    """What is written for one image.

    Parameters
    ----------
    labels : Path
        Object ids, OME-TIFF.
    overlay : Path, optional
        Picture with outlines, PNG.
    measurements : Path, optional
        One line for each object, CSV.
    overwrite : bool, default False
        Replace files that exist.
    """

    labels: Path
    overlay: Path | None = None
    measurements: Path | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one image.

    Parameters
    ----------
    image : Path
        The file.
    n_objects : int
        How many objects the labels hold.
    seconds : float
        From opening the image to the last file written.
    outputs : Outputs
        The files.
    """

    image: Path
    n_objects: int
    seconds: float
    outputs: Outputs


def plan_outputs(
    images: Sequence[Path],
    output: Path,
    overlay: bool = False,
    measurements: bool = False,
    overwrite: bool = False,
) -> list[Outputs]:
    """Name the files of each image; nothing is opened or written.

    Parameters
    ----------
    images : sequence of Path
        The image files.
    output : Path
        A file that ends in .tif, for one image; else a folder, for
        ``NAME.labels.tif``, ``NAME.overlay.png`` and ``NAME.csv``.
    overlay, measurements, overwrite : bool
        As in `Outputs`.

    Returns
    -------
    list of Outputs
        In the order of the images.

    Raises
    ------
    InputError
        If two images would be written to one file, or several to a file name.

    Examples
    --------
    >>> from pathlib import Path
    >>> plan_outputs([Path("in/a.ome.tif")], Path("out"))[0].labels.as_posix()
    'out/a.labels.tif'
    """
    if output.suffix.lower() in _LABEL_ENDINGS:
        if len(images) != 1:
            raise InputError(
                f"{len(images)} images and one file {output}; give a folder for output"
            )
        stems = [output.with_name(_ENDINGS.sub("", output.name))]
        labels = [output]
    else:
        stems = [output / _ENDINGS.sub("", image.name) for image in images]
        labels = [stem.with_name(f"{stem.name}.labels.tif") for stem in stems]
    for i, path in enumerate(labels):
        if path in labels[:i]:
            raise InputError(
                f"{images[labels.index(path)]} and {images[i]} would both be written "
                f"to {path}; give them to two calls with two folders"
            )
    return [
        Outputs(
            path,
            stem.with_name(f"{stem.name}.overlay.png") if overlay else None,
            stem.with_name(f"{stem.name}.csv") if measurements else None,
            overwrite,
        )
        for stem, path in zip(stems, labels, strict=True)
    ]


@job
def segment_file(
    path: Path, outputs: Outputs, model: Sam, options: ImageOptions | None = None
) -> Job[Report]:
    """Find all objects of an image file and write them.

    Parameters
    ----------
    path : Path
        The image file.
    outputs : Outputs
        From `plan_outputs`.
    model : Sam
        From `load_model`.
    options : ImageOptions, optional
        How the file is opened.

    Yields
    ------
    Step
        As in `segment`.

    Returns
    -------
    Report

    Raises
    ------
    InputError, FormatError, FileError
        If the image cannot be used, or the files cannot be written.
    DeviceError
        If the device runs out of memory.
    """
    start = time.perf_counter()
    _check_free(outputs)
    opened = open_file(path, model, options or ImageOptions())
    labels = yield from segment(
        opened.source,
        model,
        grid=opened.grid,
        plane=opened.plane,
        intensity=opened.intensity,
    )
    n_objects = write(opened, labels, outputs)
    return Report(path, n_objects, time.perf_counter() - start, outputs)


@job
def predict_file(
    path: Path,
    prompts: Sequence[Prompts],
    outputs: Outputs,
    model: Sam,
    options: ImageOptions | None = None,
) -> Job[Report]:
    """Find the objects of an image file that prompts point at, and write them.

    Only the crops that the prompts lie in are encoded. Where two objects claim a
    pixel, it goes to the one with the higher predicted IoU.

    Parameters
    ----------
    path, outputs, model, options
        As in `segment_file`.
    prompts : sequence of Prompts
        One for each object; `Prompts.object_id`, or else the place in this
        sequence, is its id in the labels.

    Yields
    ------
    Step
        After each object.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        If there are no prompts, if two have one id, or if one lies outside.

    Warns
    -----
    NapariSamWarning
        If an object got no pixel, or a box leaves the plane.
    """
    start = time.perf_counter()
    _check_free(outputs)
    ids = _object_ids(prompts)
    opened = open_file(path, model, options or ImageOptions())
    embedding = open_plane(
        opened.source,
        model,
        grid=opened.grid,
        plane=opened.plane,
        intensity=opened.intensity,
    )
    predictor = Predictor(model, embedding)
    found: dict[int, Prediction] = {}
    for number, each in zip(ids, prompts, strict=True):
        found[number] = predictor.predict(each)
        yield Step(len(found), len(prompts), "predict", found[number])
    labels = paint(found, opened.source.plane_shape)
    scores = {
        "predicted_iou": {n: float(p.predicted_iou[p.best]) for n, p in found.items()},
        "stability": {n: float(p.stability[p.best]) for n, p in found.items()},
    }
    n_objects = write(opened, labels, outputs, scores)
    return Report(path, n_objects, time.perf_counter() - start, outputs)


def paint(
    predictions: Mapping[int, Prediction], shape: tuple[int, int]
) -> NDArray[np.uint32]:
    """Put the best mask of each object on a plane; the more certain one on top.

    Parameters
    ----------
    predictions : mapping of int to Prediction
        By object id.
    shape : tuple of int
        (height, width) of the plane, in pixels.

    Returns
    -------
    (height, width) uint32 array

    Warns
    -----
    NapariSamWarning
        If an object has no pixel, or none that is left to it.
    """
    labels = np.zeros(shape, np.uint32)
    certainty = {n: float(p.predicted_iou[p.best]) for n, p in predictions.items()}
    for number in sorted(predictions, key=lambda n: (certainty[n], -n)):
        prediction = predictions[number]
        mask = prediction.masks[prediction.best]
        labels[prediction.box.slices][mask] = number
    lost = sorted(set(predictions) - set(np.unique(labels).tolist()))
    if lost:
        warnings.warn(
            f"objects {lost} got no pixel: empty, or covered by others",
            NapariSamWarning,
            stacklevel=2,
        )
    return labels


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """One plane of an image file, ready for the engine."""

    source: ImageSource
    plane: tuple[int, int]
    intensity: Intensity
    grid: CropGrid | None


def open_file(path: Path, model: Sam, options: ImageOptions) -> OpenedFile:
    """Open one plane of an image file.

    Raises
    ------
    InputError
        If the image has several planes and none is chosen.
    """
    source = open_image(
        path,
        image=options.image,
        level=options.level,
        axes=options.axes,
        pixel_size_um=options.pixel_size_um,
    )
    n_frames, n_slices = source.shape[:2]
    if options.plane is None and n_frames * n_slices > 1:
        raise InputError(
            f"{path} has {n_frames} frames and {n_slices} slices; choose one plane: "
            "frame,slice, counted from 0"
        )
    grid = None
    if options.diameter is not None:
        size = model.config.image_size
        grid = CropGrid.for_diameter(
            source.plane_shape, options.diameter, size=size, halo=size // 8
        )
    intensity = find_intensity(
        source, channels=options.channels or None, invert=options.invert
    )
    return OpenedFile(source, options.plane or (0, 0), intensity, grid)


def write(
    opened: OpenedFile,
    labels: NDArray[np.uint32],
    outputs: Outputs,
    scores: Mapping[str, Mapping[int, float]] | None = None,
) -> int:
    """Write what `Outputs` names; make its folders; return the number of objects.

    Parameters
    ----------
    opened : OpenedFile
        The plane that was segmented.
    labels : (h, w) uint32 array
        Object ids.
    outputs : Outputs
        The files.
    scores : mapping of str to mapping of int to float, optional
        More columns of the measurements, by object id.
    """
    source, overwrite = opened.source, outputs.overwrite
    size_um = source.pixel_size_um
    _make_folder(outputs.labels.parent)
    save_labels(labels, outputs.labels, pixel_size_um=size_um, overwrite=overwrite)
    if outputs.overlay is not None:
        rgb = read_rgb(source, opened.intensity, plane=opened.plane)
        save_overlay(
            rgb, labels, outputs.overlay, pixel_size_um=size_um, overwrite=overwrite
        )
    if outputs.measurements is not None:
        table = measure(
            labels,
            source.read(plane=opened.plane),
            channel_names=source.channel_names,
            pixel_size_um=size_um,
            extra=scores,
        )
        save_measurements(table, outputs.measurements, overwrite=overwrite)
    return int(np.count_nonzero(np.unique(labels)))


def _check_free(outputs: Outputs) -> None:
    """Refuse before the work, not after it, to replace a file."""
    paths = (outputs.labels, outputs.overlay, outputs.measurements)
    for path in paths:
        if path is not None and path.exists() and not outputs.overwrite:
            raise FileError(
                errno.EEXIST,
                "exists already; give another name, or overwrite",
                str(path),
            )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(error.errno, "cannot make the folder", str(folder)) from error


def _object_ids(prompts: Sequence[Prompts]) -> list[int]:
    ids = [each.object_id or place for place, each in enumerate(prompts, start=1)]
    if not ids:
        raise InputError("no prompts; give points, boxes or a table of both")
    twice = sorted({number for number in ids if ids.count(number) > 1})
    if twice:
        raise InputError(f"prompts of two objects have the id {twice}; ids are unique")
    return ids
