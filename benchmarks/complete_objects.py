"""Compare finished objects with what a crop around the true object answers.

Images of a folder (``images/`` and ``labels/`` with equal names) are put side by side
in a mosaic, so that the borders of crops run through objects. Each chosen object is
asked for with a point in its middle: the quick answer and the finished one are
compared, by IoU, with the answer of the crop centred on the true object, and all with
the annotation. Objects that the quick crop cuts are listed apart.

How much a network's answer depends on the place of the crop alone sets the limit, so
the same is asked of a crop moved by 40 pixels. With ``--enlarge 6`` cells become larger
than a crop, as at a high magnification.

    python -m benchmarks.complete_objects data/nuclei --side 3 --objects 40
"""

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.transform import resize

from napari_sam import load_model, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.complete import complete
from napari_sam.engine.embed import open_plane
from napari_sam.engine.predict import Prediction, Predictor
from napari_sam.masks import Candidate
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from napari_sam.training.protocol import Target, deepest_point, find_targets

Mosaic = tuple[NDArray[np.uint8], NDArray[np.uint32]]

_MOVED = 40
_MIN_SIDE = 200  # a mosaic is cut to its smallest image
_MIN_AREA = 60  # smaller objects are a matter of single pixels


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", help="weights; default: those of the package")
    parser.add_argument("--side", type=int, default=3, help="images along each side")
    parser.add_argument("--enlarge", type=float, default=1, help="factor before use")
    parser.add_argument("--objects", type=int, default=40, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    image, labels = mosaic(given.folder, given.side, given.enlarge, rng)
    model = load_model(given.model)
    predictor = Predictor(model, open_plane(image, model, cache=EmbeddingCache()))
    targets = [each for each in find_targets(labels) if each.area >= _MIN_AREA]
    rng.shuffle(targets)
    rows: dict[bool, list[list[float]]] = {False: [], True: []}
    for target in targets:
        is_cut = not _crop_of(predictor, target).contains(target.box)
        if len(rows[is_cut]) < given.objects:
            rows[is_cut].append(measure(predictor, target))
        if min(map(len, rows.values())) == given.objects:
            break
    print(f"{given.folder.name}, {image.shape[0]} x {image.shape[1]} px, {model.name}")
    for is_cut, values in rows.items():
        kind = "cut by the quick crop" if is_cut else "whole in the quick crop"
        print(f"\n{len(values)} objects {kind}")
        if values:
            print_table(np.array(values))


def mosaic(folder: Path, side: int, factor: float, rng: random.Random) -> Mosaic:
    """Put images side by side; repeat them if there are too few."""
    pairs = list(_pairs(folder, side**2, factor, rng))
    if not pairs:
        sys.exit(f"{folder}: no gray images of {_MIN_SIDE} px or more in images/*.tif")
    height = min(image.shape[0] for image, _ in pairs)
    width = min(image.shape[1] for image, _ in pairs)
    image = np.zeros((side * height, side * width), np.uint8)
    labels = np.zeros(image.shape, np.uint32)
    n_objects = 0
    for i in range(side**2):
        part, ids = (each[:height, :width] for each in pairs[i % len(pairs)])
        row, column = divmod(i, side)
        place = Box(0, 0, height, width).shift(row * height, column * width).slices
        image[place] = part
        labels[place] = np.where(ids > 0, ids + n_objects, 0)
        n_objects += int(ids.max())
    return image, labels


def _pairs(folder: Path, n: int, factor: float, rng: random.Random) -> Iterator[Mosaic]:
    paths = sorted((folder / "images").glob("*.tif"))
    rng.shuffle(paths)
    for path in paths:
        image = tifffile.imread(path)
        labels = tifffile.imread(folder / "labels" / path.name)
        if image.ndim != 2 or min(image.shape) < _MIN_SIDE:
            continue
        low, high = np.percentile(image, (0.5, 99.5))
        image = np.clip((image - low) / max(high - low, 1), 0, 1)
        shape = tuple(int(length * factor) for length in image.shape)
        image = resize(image, shape, order=1, anti_aliasing=factor < 1)
        labels = resize(
            labels, shape, order=0, preserve_range=True, anti_aliasing=False
        )
        yield (255 * image).astype(np.uint8), labels.astype(np.uint32)
        n -= 1
        if n == 0:
            return


def measure(predictor: Predictor, target: Target) -> list[float]:
    """IoU of all pairs of answers that the table names."""
    prompts = _middle(target)
    truth = Candidate(target.box, target.mask)
    embedding = predictor.embedding
    own = predictor.predict(prompts, crop=embedding.crop_around(target.box))
    quick = predictor.predict(prompts)
    whole = run(complete(predictor, prompts, quick), progress=False)
    region = target.box.shift(_MOVED, _MOVED).union(target.box)
    moved = predictor.predict(prompts, crop=embedding.crop_around(region))
    reference, first, finished, other = map(_best, (own, quick, whole, moved))
    return [
        first.iou(reference),
        finished.iou(reference),
        other.iou(reference),
        first.iou(truth),
        finished.iou(truth),
        reference.iou(truth),
    ]


def print_table(values: NDArray[np.float64]) -> None:
    """One line for each pair of answers."""
    names = (
        "quick, own crop",
        "finished, own crop",
        "own crop moved, own crop",
        "quick, annotation",
        "finished, annotation",
        "own crop, annotation",
    )
    print(f"{'IoU of':<28}{'mean':>8}{'median':>8}{'>= 0.95':>9}")
    for name, column in zip(names, values.T, strict=True):
        share = (column >= 0.95).mean()
        print(f"{name:<28}{column.mean():>8.3f}{np.median(column):>8.3f}{share:>9.0%}")


def _middle(target: Target) -> Prompts:
    _, y, x = deepest_point(target.mask)
    return Prompts(points=[(y + target.box.y0, x + target.box.x0)])


def _crop_of(predictor: Predictor, target: Target) -> Box:
    return predictor.crop_for(_middle(target)).box


def _best(prediction: Prediction) -> Candidate:
    return Candidate(prediction.box, prediction.masks[prediction.best])


if __name__ == "__main__":
    main()
