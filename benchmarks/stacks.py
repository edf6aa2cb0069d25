"""Stacks against their ground truth: one click, two corrections, automatic, tracks.

Objects of a volume are clicked where they are deepest, in their middle slice; each
correction is a click, or a mark that the object has ended, in the slice with the most
wrong pixels: in a slice without prompts at the deepest place of the object, else at
that of the larger error. With ``--perfect`` the network is left out: planes of the
ground truth with ids that differ from slice to slice are linked, which measures
linking alone.

    python -m benchmarks.stacks DATA --clicks --automatic --perfect --output stacks.json

DATA is a folder with ``images/NAME.tif`` and ``labels/NAME.tif``, (Z, H, W) or, with
``--time``, (T, H, W).
"""

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.automatic import segment
from napari_sam.engine.embed import default_grid
from napari_sam.engine.jobs import run
from napari_sam.engine.propagate import PropagateConfig, Propagation, propagate
from napari_sam.images import ImageSource
from napari_sam.link import link_frames, link_slices
from napari_sam.masks import Candidate
from napari_sam.model import Sam
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from napari_sam.training.metrics import iou, mean_segmentation_accuracy, overlaps
from napari_sam.training.protocol import deepest_point
from napari_sam.weights import load_model

Labels = NDArray[np.integer[Any]]


def deepest(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return (y, x) of the pixel farthest from the outline."""
    _, y, x = deepest_point(mask)
    return y, x


def volume_of(found: Propagation, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Paint an object into an empty stack."""
    return np.stack([found.mask(i, (shape[1], shape[2])) for i in range(shape[0])])


def corrected(
    prompts: dict[int, Prompts | Candidate],
    found: NDArray[np.bool_],
    truth: NDArray[np.bool_],
    ends: set[int],
) -> None:
    """Click once more, or mark a slice without the object, where it is worst."""
    wrong = (found ^ truth).sum((1, 2))
    i = int(wrong.argmax())
    if not wrong[i]:
        return
    if not truth[i].any():
        # mark the slice nearest to the object, not the one farthest out
        inside = np.flatnonzero(truth.any((1, 2)))
        ends.add(int(inside[0] - 1 if i < inside[0] else inside[-1] + 1))
        return
    missed, extra = truth[i] & ~found[i], found[i] & ~truth[i]
    is_missed = missed.sum() >= extra.sum()
    point = deepest(missed if is_missed else extra)
    old = prompts.get(i)
    prompts[i] = Prompts([deepest(truth[i])])
    if isinstance(old, Prompts):
        points, positive = old.points.tolist(), old.positive.tolist()
        prompts[i] = Prompts([*points, point], [*positive, bool(is_missed)])


def clicks(
    image: ImageSource, truth: Labels, model: Sam, n_corrections: int
) -> list[list[float]]:
    """3D IoU of each object after one click and after each correction."""
    along = "z" if "Z" in image.axes else "t"
    cache, rows = EmbeddingCache(), []
    config = PropagateConfig()
    for number in np.unique(truth[truth > 0]).tolist():
        mask = truth == number
        slices = np.flatnonzero(mask.any((1, 2)))
        middle = int(slices[len(slices) // 2])
        prompts: dict[int, Prompts | Candidate] = {
            middle: Prompts([deepest(mask[middle])])
        }
        ends: set[int] = set()
        found, scores = None, []
        for _ in range(1 + n_corrections):
            found = run(
                propagate(
                    image,
                    model,
                    prompts,
                    along="t" if along == "t" else "z",
                    ends=ends,
                    cache=cache,
                    config=config,
                    previous=found,
                ),
                progress=False,
            )
            volume = volume_of(found, truth.shape)
            scores.append(iou(mask, volume))
            corrected(prompts, volume, mask, ends)
        rows.append(scores)
        print(number, [round(s, 3) for s in scores], flush=True)
    return rows


def one_mask(image: ImageSource, truth: Labels, model: Sam) -> list[float]:
    """3D IoU of each object, given its true mask in the middle slice."""
    cache, scores = EmbeddingCache(), []
    for number in np.unique(truth[truth > 0]).tolist():
        mask = truth == number
        slices = np.flatnonzero(mask.any((1, 2)))
        middle = int(slices[len(slices) // 2])
        plane = mask[middle]
        whole = Candidate(Box.whole((plane.shape[0], plane.shape[1])), plane)
        found = run(
            propagate(
                image,
                model,
                {middle: whole.with_mask(plane)},
                along="z" if "Z" in image.axes else "t",
                cache=cache,
            ),
            progress=False,
        )
        scores.append(iou(mask, volume_of(found, truth.shape)))
    return scores


def accuracy(truth: Labels, found: Labels) -> dict[str, float]:
    """MSA and AP at an IoU of 0.5, over voxels."""
    return {
        "msa": mean_segmentation_accuracy(truth, found),
        "ap50": overlaps(truth, found).accuracy(0.5),
        "objects": float(len(np.unique(found)) - 1),
    }


def per_plane(truth: Labels) -> Labels:
    """Give the ids of every plane anew, so that they tell nothing."""
    rng = np.random.default_rng(0)
    planes = []
    for plane in truth:
        new = 1 + rng.permutation(int(truth.max()) + 1)
        new[0] = 0
        planes.append(new[plane])
    return np.stack(planes)


def link_accuracy(truth: Labels, found: Labels) -> dict[str, float]:
    """Correct links, of the true ones and of all that are true or found."""
    true, ours = (_links(truth, each) for each in (truth, found))
    return {
        "recall": len(true & ours) / max(len(true), 1),
        "correct": len(true & ours) / max(len(true | ours), 1),
        "links": float(len(true)),
    }


def _links(truth: Labels, tracks: Labels) -> set[tuple[int, int, int, int]]:
    """Links of tracks, as (frame, true id) of both ends."""
    found = set()
    for number in np.unique(tracks[tracks > 0]):
        frames = np.flatnonzero((tracks == number).any((1, 2))).tolist()
        ids = [int(truth[t][tracks[t] == number][0]) for t in frames]
        ends = list(zip(frames, ids, strict=True))
        found |= {(*a, *b) for a, b in pairwise(ends)}
    return found


def main() -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--time", action="store_true", help="the stack is a movie")
    parser.add_argument("--clicks", action="store_true")
    parser.add_argument("--automatic", action="store_true")
    parser.add_argument("--perfect", action="store_true")
    parser.add_argument("--corrections", type=int, default=2)
    parser.add_argument("--model")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {}
    for path in sorted((options.data / "images").glob("*.tif")):
        truth = tifffile.imread(options.data / "labels" / path.name).astype(np.int64)
        axes = "TYX" if options.time else "ZYX"
        image = ImageSource(tifffile.imread(path), axes, name=path.stem)
        report[path.stem] = _measured(image, truth, options)
        print(path.stem, json.dumps(report[path.stem], indent=1))
    if options.output is not None:
        options.output.write_text(json.dumps(report, indent=1))


def _measured(
    image: ImageSource, truth: Labels, options: argparse.Namespace
) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    link = (lambda s: link_frames(s)[0]) if options.time else link_slices
    if options.perfect:
        start = time.perf_counter()
        found = link(per_plane(truth))
        entry["linking alone"] = accuracy(truth, found) | link_accuracy(truth, found)
        entry["linking alone"]["seconds"] = time.perf_counter() - start
    if not (options.clicks or options.automatic):
        return entry
    model = load_model(options.model)
    entry["crops"] = len(default_grid(image, model)) * len(truth)
    if options.automatic:
        start = time.perf_counter()
        planes = np.asarray(run(segment(image, model)))
        entry["automatic"] = accuracy(truth, link(planes))
        entry["automatic"]["seconds"] = time.perf_counter() - start
    if options.clicks:
        start = time.perf_counter()
        scores = np.array(clicks(image, truth, model, options.corrections))
        entry["clicks"] = scores.mean(axis=0).tolist()
        entry["one true mask"] = float(np.mean(one_mask(image, truth, model)))
        entry["clicks seconds"] = time.perf_counter() - start
    return entry


if __name__ == "__main__":
    main()
