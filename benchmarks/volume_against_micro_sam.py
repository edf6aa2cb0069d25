"""Through a stack: this package and micro-sam side by side, with the same weights.

    python -m benchmarks.volume_against_micro_sam IMAGE.tif LABELS.tif
        --python ENVIRONMENT/bin/python --slices 19 27

IMAGE is a stack of planes that fit in one crop, LABELS its true objects, ENVIRONMENT as
in `benchmarks.against_micro_sam`. Both get the same slices in 8 bit, enlarged to fill
the frame (by itself this package enlarges four times at most), and the same file of
weights, by default those of `benchmarks.bright_weights`, which draw what is bright
around the prompt: they know nothing of cells, so quality says how well each package
follows and links poor masks, not how good a trained model is. Their blocks pass on what
they get; ``--without-blocks`` leaves them out, where quality alone is asked for: the
answers are the same. Three steps, on one thread:

embed
    all slices, kept in a file (``precompute_image_embeddings``, ours `EmbeddingCache`)
one object
    each object that has three slices, from its true mask in the middle one
    (``segment_mask_in_volume`` as micro-sam's window sets it, ours `propagate`)
all objects
    a grid of points in each slice, then linked (``automatic_3d_segmentation`` with
    ``AutomaticMaskGenerator``, ours `segment` and `link_slices`), same thresholds

Printed for each: wall clock, CPU time, peak memory of the process so far, images
encoded, prompts decoded, quality against LABELS.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.against_micro_sam import load_ours, load_theirs, run_alone
from benchmarks.process import peak_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MIN_SLICES = 3  # of an object that is followed


def main() -> None:
    """Run each package in a process of its own, and compare what they found."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--python", help="python of an environment with micro-sam")
    parser.add_argument("--weights", type=Path, help="a ViT-B in SAM's layout")
    parser.add_argument("--slices", type=int, nargs=2, help="first, one after the last")
    parser.add_argument("--points-per-side", type=int, default=8)
    parser.add_argument("--without-blocks", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        volume, truth = _read(given.image, given.labels, given.slices)
        np.savez(out / "given.npz", volume=volume, truth=truth)
        weights = given.weights
        if weights is None:
            weights = out / "bright.pth"
            command = [sys.executable, "-m", "benchmarks.bright_weights", str(weights)]
            subprocess.run(command, check=True)
        for python, name in ((sys.executable, "ours"), (given.python, "theirs")):
            if python is None:
                continue
            module = "benchmarks.volume_against_micro_sam"
            code = f"import sys; from {module} import {name}; {name}(*sys.argv[1:])"
            command = [python, "-c", code, str(out), str(weights.absolute())]
            command += [str(given.points_per_side), str(given.without_blocks)]
            run_alone(command, given.threads)
            _judge(out / f"{name}.npz", truth)


def _read(
    image: Path, labels: Path, slices: tuple[int, int] | None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    import tifffile

    first, end = slices or (None, None)
    volume, truth = (tifffile.imread(each)[first:end] for each in (image, labels))
    low, high = np.percentile(volume, (1, 99.8))
    scaled = 255 * (volume.astype(float) - low) / (high - low)
    return scaled.clip(0, 255).astype(np.uint8), truth.astype(np.int64)


def some_masks(truth: NDArray[Any]) -> dict[int, int]:
    """Return the middle slice of each object that is followed."""
    found = {}
    for number in np.unique(truth[truth > 0]).tolist():
        slices = np.flatnonzero((truth == number).any((1, 2)))
        if len(slices) >= MIN_SLICES:
            found[number] = int(slices[len(slices) // 2])
    return found


class Counted:
    """Prints what a step has cost.

    Attributes
    ----------
    n_encoded, n_decoded : int
        Images and prompts since the last step.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self._begin()

    def _begin(self) -> None:
        self.n_encoded = self.n_decoded = 0
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def encoder(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return an encoder that counts its images."""

        def counted(images: Any, *others: Any, **options: Any) -> Any:
            self.n_encoded += len(images)
            return function(images, *others, **options)

        return counted

    def decoder(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a decoder that counts its prompts."""

        def counted(*arguments: Any, **options: Any) -> Any:
            found = function(*arguments, **options)
            self.n_decoded += len(found[1])  # the predicted IoUs of each prompt
            return found

        return counted

    def report(self, step: str) -> None:
        """Print a line of JSON, and begin anew."""
        facts = {
            "what": f"{self.who}: {step}",
            "wall_s": round(time.perf_counter() - self._wall, 2),
            "cpu_s": round(time.process_time() - self._cpu, 2),
            "peak_mib": round(peak_mib()),
            "encoded": self.n_encoded,
            "decoded": self.n_decoded,
        }
        print(json.dumps(facts), flush=True)
        self._begin()


def ours(out: str, weights: str, points_per_side: str, without_blocks: str) -> None:
    """Run this package."""
    from napari_sam import EmbeddingCache, propagate, run, segment
    from napari_sam.engine.automatic import AutomaticConfig
    from napari_sam.engine.embed import open_plane
    from napari_sam.engine.grid_masks import GridMode
    from napari_sam.images import ImageSource, Intensity
    from napari_sam.link import link_slices
    from napari_sam.masks import Candidate
    from napari_sam.tiling import Box, CropGrid

    volume, truth = np.load(f"{out}/given.npz").values()
    image, as_it_is = ImageSource(volume, "ZYX"), Intensity((0,), ((0, 255),))
    model = load_ours(weights)
    if without_blocks == "True":
        del model.image_encoder.blocks[:]
    shape = volume.shape[1:]
    seen: dict[str, Any] = {
        "cache": EmbeddingCache(Path(out) / "ours.zarr"),
        "grid": CropGrid(shape, scale=1024 / max(shape)),
        "intensity": as_it_is,
    }
    counted = Counted("napari_sam")
    model.encode = counted.encoder(model.encode)
    model.decode = counted.decoder(model.decode)

    for z in range(len(volume)):
        run(open_plane(image, model, plane=(0, z), **seen).fill(), progress=False)
    counted.report("embed")

    objects = {}
    for number, z in some_masks(truth).items():
        known = Candidate(Box.whole(shape), truth[z] == number)
        found = run(propagate(image, model, {z: known}, **seen), progress=False)
        objects[number] = np.stack([found.mask(i, shape) for i in range(len(volume))])
    counted.report("one object, one after the other")

    mode = GridMode(points_per_side=int(points_per_side))
    config = AutomaticConfig(mode="grid", grid=mode)
    planes = run(segment(image, model, config=config, **seen), progress=False)
    labels = link_slices(np.asarray(planes), gray=volume)
    counted.report("all objects")
    _keep(f"{out}/ours.npz", labels, objects)


def theirs(out: str, weights: str, points_per_side: str, without_blocks: str) -> None:
    """Run micro-sam."""
    predictor = load_theirs(Path(weights))
    from micro_sam.instance_segmentation import AutomaticMaskGenerator
    from micro_sam.multi_dimensional_segmentation import (
        automatic_3d_segmentation,
        segment_mask_in_volume,
    )
    from micro_sam.util import precompute_image_embeddings

    volume, truth = np.load(f"{out}/given.npz").values()
    counted = Counted("micro-sam")
    encoder, decoder = predictor.model.image_encoder, predictor.model.mask_decoder
    if without_blocks == "True":
        del encoder.blocks[:]
    encoder.forward = counted.encoder(encoder.forward)
    decoder.forward = counted.decoder(decoder.forward)

    store = f"{out}/theirs.zarr"
    embeddings = precompute_image_embeddings(
        predictor, volume, save_path=store, ndim=3, verbose=False
    )
    counted.report("embed")

    objects = {}
    for number, z in some_masks(truth).items():
        begun = np.zeros(volume.shape, np.uint8)
        begun[z] = truth[z] == number
        found, _ = segment_mask_in_volume(
            begun,
            predictor,
            embeddings,
            np.array([z]),
            stop_lower=False,
            stop_upper=False,
            iou_threshold=0.5,
            projection="single_point",
            box_extension=0.05,
        )
        objects[number] = found > 0
    counted.report("one object, one after the other")

    labels = automatic_3d_segmentation(
        volume,
        predictor,
        AutomaticMaskGenerator(predictor, points_per_side=int(points_per_side)),
        embedding_path=store,
        verbose=False,
    )
    counted.report("all objects")
    _keep(f"{out}/theirs.npz", labels, objects)


def _keep(path: str, labels: Any, objects: dict[int, NDArray[np.bool_]]) -> None:
    arrays: dict[str, Any] = {str(number): mask for number, mask in objects.items()}
    np.savez_compressed(path, labels=np.asarray(labels).astype(np.int64), **arrays)


def _judge(path: Path, truth: NDArray[Any]) -> None:
    """Print the quality of what a package found."""
    from benchmarks.stacks import accuracy
    from napari_sam.training.metrics import iou

    found = dict(np.load(path))
    labels = found.pop("labels")
    scores = {int(n): iou(truth == int(n), mask) for n, mask in found.items()}
    facts = {
        "mean_iou": round(float(np.mean(list(scores.values()))), 3),
        "each": {number: round(score, 2) for number, score in scores.items()},
        "true_objects": len(np.unique(truth)) - 1,
        **{name: round(value, 3) for name, value in accuracy(truth, labels).items()},
    }
    print(json.dumps({"what": f"{path.stem}: quality", **facts}), flush=True)


if __name__ == "__main__":
    main()
