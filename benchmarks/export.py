"""Seconds and memory of an export, against the number of objects and of pixels.

Labels of squares of 1024 x 1024 px with 1024 discs each are made in zarr, and every
format exports each of them in a forked process of its own. Seconds are those that the
process computes, so that a busy machine matters little; memory is the most that it
held, less what it held before. Linear is: seconds per thousand objects stay; flat is:
memory stays, but for what grows with the number of objects (tables).

    python -m benchmarks.export --sides 1 2 4 --formats coco geojson --output times.json
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from skimage.draw import disk

from benchmarks.process import peak_mib
from napari_sam.readers import open_image
from napari_sam.writers.formats import FORMATS

SQUARE, STEP = 1024, 32


def make_labels(path: Path, side: int) -> None:
    """Write labels of ``side x side`` squares, each disc with an id of its own."""
    rng = np.random.default_rng(0)
    square = np.zeros((SQUARE, SQUARE), np.uint32)
    centres = np.arange(STEP // 2, SQUARE, STEP)
    places = [(y, x) for y in centres for x in centres]
    for number, (y, x) in enumerate(places, start=1):
        centre = (y + rng.uniform(-2, 2), x + rng.uniform(-2, 2))
        square[disk(centre, rng.uniform(6, 13), shape=square.shape)] = number
    shape = (side * SQUARE + STEP // 2, side * SQUARE + STEP // 2)
    labels = zarr.create_array(
        path, shape=shape, dtype=np.uint32, chunks=(512, 512), fill_value=0
    )
    for k, (row, column) in enumerate(np.ndindex(side, side)):
        y, x = row * SQUARE + STEP // 2, column * SQUARE + STEP // 2
        ids = np.where(square > 0, square + np.uint32(k * len(places)), 0)
        labels[y : y + SQUARE, x : x + SQUARE] = ids  # discs lie across chunk borders


def measure(labels: Path, name: str) -> dict[str, float]:
    """Export in this process, which must have done nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        each = FORMATS[name]
        each.write(np.ones((8, 8), int), Path(folder) / f"warm{each.ending}")
        before = peak_mib()
        start = time.process_time()
        source = open_image(labels, pixel_size_um=0.5)
        each.write(source, Path(folder) / f"labels{each.ending}")
        seconds = time.process_time() - start
    return {"seconds": seconds, "more_mib": peak_mib() - before}


def run_all(sides: list[int], formats: list[str]) -> list[dict[str, Any]]:
    """Measure each format on each size, each in a fresh process."""
    records = []
    # a fork has all imports done; this process itself never uses zarr, whose threads
    # a fork would lack
    context = multiprocessing.get_context("fork")

    def apart(function: Callable[..., Any], *arguments: Any) -> Any:
        with context.Pool(1) as pool:
            return pool.apply(function, arguments)

    with tempfile.TemporaryDirectory() as folder:
        for side in sides:
            labels = Path(folder) / f"{side}.zarr"
            apart(make_labels, labels, side)
            n_objects = (SQUARE // STEP * side) ** 2
            for name in formats:
                found = apart(measure, labels, name)
                per_1000 = 1000 * found["seconds"] / n_objects
                records.append({"format": name, "objects": n_objects, **found})
                print(
                    f"{name:9} {side * SQUARE:6} px {n_objects:7} objects "
                    f"{found['seconds']:7.2f} s {per_1000:6.3f} s per 1000 "
                    f"{found['more_mib']:+7.0f} MiB",
                    flush=True,
                )
    return records


def main() -> None:
    """Read the arguments, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--formats", nargs="+", default=list(FORMATS))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    records = run_all(given.sides, given.formats)
    if given.output:
        given.output.write_text(json.dumps(records, indent=1))


if __name__ == "__main__":
    main()
