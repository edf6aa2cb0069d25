"""The main job on a real image, in one command and without a download.

The image is the immunohistochemistry section that comes with scikit-image; the mosaic,
nine mirrored copies of it, needs several crops.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.automatic import segment
from napari_sam.engine.embed import embed
from napari_sam.engine.jobs import run
from napari_sam.engine.predict import Predictor
from napari_sam.prompts import Prompts
from napari_sam.samples import Mosaic, histology
from napari_sam.writers.measurements import columns_of, measure, save_measurements
from napari_sam.writers.overlay import save_overlay
from napari_sam.writers.tiff import save_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.model import Sam

_COPIES = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """What one image cost, and what was found in it.

    Parameters
    ----------
    n_crops : int
        Crops that were encoded.
    encoder_s : float
        Seconds for all of them.
    objects_s : float
        Seconds for all objects of the embedded image, without prompts.
    click_s : float
        Seconds from one point prompt to its masks.
    n_objects : int
        Objects found.
    """

    n_crops: int
    encoder_s: float
    objects_s: float
    click_s: float
    n_objects: int


def demo_images() -> dict[str, NDArray[np.uint8]]:
    """Return the image that comes with scikit-image, and the mosaic made from it.

    Returns
    -------
    dict of str to (h, w, 3) uint8 array
        RGB, by name.
    """
    image = histology()
    return {"ihc": image, "mosaic": np.asarray(Mosaic(image, _COPIES))}


def run_demo(
    model: Sam, output: Path, images: Mapping[str, NDArray[np.uint8]] | None = None
) -> Iterator[str]:
    """Segment images; write pictures, labels and measurements.

    Parameters
    ----------
    model : Sam
        From `load_model`.
    output : Path
        Folder; it is made, and files in it are replaced. Each image gets ``NAME.png``,
        ``NAME.labels.tif``, ``NAME.overlay.png`` and ``NAME.csv``.
    images : mapping of str to (h, w, 3) uint8 array, optional
        RGB images by name. Default: those of `demo_images`.

    Yields
    ------
    str
        A line of the summary, when it is known.
    """
    output.mkdir(parents=True, exist_ok=True)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    yield (
        f"model   {model.name}, {millions:.1f} million parameters, on {model.device}, "
        f"{model.precision}"
    )
    for name, plane in (demo_images() if images is None else images).items():
        timing = segment_into(plane, model, output, name)
        yield (
            f"{name:<6}  {plane.shape[0]} x {plane.shape[1]} px, crops: "
            f"{timing.n_crops}, encoder {timing.encoder_s:.2f} s, all objects "
            f"{timing.objects_s:.2f} s, one click {timing.click_s:.3f} s, objects "
            f"found: {timing.n_objects}"
        )
    yield f"files   {output}: NAME.overlay.png, NAME.labels.tif, NAME.csv, NAME.png"


def segment_into(
    image: NDArray[np.uint8], model: Sam, folder: Path, name: str
) -> Timing:
    """Segment one image, write its files, and say what it cost.

    Parameters
    ----------
    image : (h, w, 3) uint8 array
        RGB.
    model : Sam
        From `load_model`.
    folder : Path
        Where the files go; it exists.
    name : str
        First part of their names.
    """
    started = time.perf_counter()
    cache = EmbeddingCache()
    embedding = run(embed(image, model, cache=cache))
    encoded = time.perf_counter()
    objects = run(segment(image, model, cache=cache))
    found = time.perf_counter()
    centre = [image.shape[0] // 2, image.shape[1] // 2]
    Predictor(model, embedding).predict(Prompts(points=[centre]))
    clicked = time.perf_counter()

    Image.fromarray(image).save(folder / f"{name}.png")
    save_labels(objects.labels, folder / f"{name}.labels.tif", overwrite=True)
    save_overlay(image, objects.labels, folder / f"{name}.overlay.png", overwrite=True)
    table = measure(objects.labels, image, channel_names=("red", "green", "blue"))
    table |= columns_of(objects.scores(), table["object"])
    save_measurements(table, folder / f"{name}.csv", overwrite=True)
    return Timing(
        n_crops=len(embedding.grid),
        encoder_s=encoded - started,
        objects_s=found - encoded,
        click_s=clicked - found,
        n_objects=objects.n_objects,
    )
