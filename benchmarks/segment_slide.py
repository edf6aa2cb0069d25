"""Segment mosaics of two sizes: memory, time, what the encoder leaves, seams.

A mosaic is a tiled BigTIFF of real pictures, turned and mirrored at random (seeded):
the immunohistochemistry of scikit-image, or the pictures of a folder. Each step runs
in a process of its own, so that its peak memory is its own.

    python -m benchmarks.segment_slide segment --sides 2048 4096
    python -m benchmarks.segment_slide stitch --sides 8192 20480
    python -m benchmarks.segment_slide seams --sides 1792

``segment`` is the whole command with the default model. ``stitch`` leaves the network
out: crops see made-up discs, 12 px in radius and 32 px apart, and what is measured is
the graph, the competition and the writing of labels. ``seams`` compares a plane in
several crops with its middle in a single one: AP at IoU 0.9 of the objects there.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage import data
from skimage.draw import disk

from napari_sam import load_model, open_image, run
from napari_sam.engine.automatic import AutomaticConfig, segment, stitch_views
from napari_sam.engine.batch import segment_file
from napari_sam.engine.files import ImageOptions, OpenedFile, Outputs, plan_outputs
from napari_sam.engine.results import write_results
from napari_sam.engine.spool import Spool
from napari_sam.images import Intensity
from napari_sam.masks import Candidate
from napari_sam.model import Sam
from napari_sam.stitch import Views
from napari_sam.tiling import Box, CropGrid
from napari_sam.training.metrics import overlaps

TILE = 512
HALO = 128
SPACING, RADIUS = 32, 12


def pictures(folder: Path | None) -> list[NDArray[np.uint8]]:
    """Return 8-bit RGB pictures; mirror those that are smaller than a tile."""
    if folder is None:
        return [data.immunohistochemistry()[:TILE, :TILE]]
    found = []
    for path in sorted(folder.iterdir()):
        pixels = open_image(path).read()
        if pixels.dtype == np.uint8:
            rgb = np.atleast_3d(pixels)[..., :3]
            rgb = np.broadcast_to(rgb, (*rgb.shape[:2], 3))
            missing = [(0, max(0, TILE - n)) for n in rgb.shape[:2]]
            found.append(np.pad(rgb, [*missing, (0, 0)], "symmetric"))
    if not found:
        sys.exit(f"{folder} holds no 8-bit pictures; give another folder")
    return found


def mosaic(path: Path, side: int, folder: Path | None = None) -> None:
    """Write a square mosaic as BigTIFF, tile by tile."""
    found = pictures(folder)
    rng = np.random.default_rng(0)

    def tiles() -> Iterator[NDArray[np.uint8]]:
        n = -(-side // TILE)
        for _ in range(n * n):
            picture = found[rng.integers(len(found))]
            y, x = (int(rng.integers(m - TILE + 1)) for m in picture.shape[:2])
            tile = np.rot90(picture[y : y + TILE, x : x + TILE], rng.integers(4))
            yield np.ascontiguousarray(tile[::-1] if rng.random() < 0.5 else tile)

    tifffile.imwrite(
        path,
        tiles(),
        bigtiff=True,
        shape=(side, side, 3),
        dtype=np.uint8,
        tile=(TILE, TILE),
        photometric="rgb",
        compression="zlib",
    )


class Clock:
    """Seconds that are spent in some methods of the network."""

    def __init__(self, model: Sam) -> None:
        self.seconds: dict[str, float] = {}
        for name in ("encode", "prepare", "decode", "propose"):
            setattr(model, name, self._timed(name, getattr(model, name)))

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        self.seconds[name] = 0.0

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.process_time()
            result = method(*arguments, **options)
            self.seconds[name] += time.process_time() - start
            return result

        return timed


def segment_one(side: int, folder: Path | None, out: Path) -> dict[str, Any]:
    """Segment a mosaic; times are CPU seconds of this process."""
    image = out / f"mosaic{side}.tif"
    (to,) = plan_outputs([image], out)
    model = load_model(device="cpu")
    clock = Clock(model)
    start, cpu = time.perf_counter(), time.process_time()
    report = run(segment_file(image, to, model, weights="default"))
    total = time.process_time() - cpu
    network = sum(clock.seconds.values())
    return {
        "crops": len(CropGrid((side, side))),
        "objects": report.n_objects,
        "wall_s": time.perf_counter() - start,
        "cpu_s": total,
        **{f"{name}_s": seconds for name, seconds in clock.seconds.items()},
        "other_s": total - network,
        "other_per_encoder": (total - network) / clock.seconds["encode"],
    }


def stitch_one(side: int, folder: Path | None, out: Path) -> dict[str, Any]:
    """Stitch and write made-up discs; no network."""
    grid = CropGrid((side, side))
    spool = Spool(out / f"crops{side}")
    for crop in grid:
        spool.write(crop.index, Views.of(crop.index, _discs(crop.box)).to_bytes())
    spool = Spool(out / f"crops{side}", range(len(grid)))
    start = time.perf_counter()
    painting = stitch_views(spool, grid, AutomaticConfig())
    stitched = time.perf_counter()
    source = open_image(np.broadcast_to(np.uint8(0), (side, side)))
    opened = OpenedFile(source, ImageOptions(), Intensity((0,), ((0, 1),)), grid)
    write_results(opened, [painting], grid, Outputs(out / f"discs{side}.labels.tif"))
    return {
        "crops": len(grid),
        "objects": len(painting),
        "expected": (side // SPACING) ** 2,
        "stitch_s": stitched - start,
        "write_s": time.perf_counter() - stitched,
    }


def _discs(box: Box) -> list[Candidate]:
    """Return what a perfect network sees of a lattice of discs."""
    found = []
    rows, columns = disk((RADIUS, RADIUS), RADIUS)
    full = np.zeros((2 * RADIUS + 1,) * 2, bool)
    full[rows, columns] = True
    first = SPACING // 2
    rows_of, columns_of = (
        range(first + max(0, (a - RADIUS - first) // SPACING) * SPACING, b, SPACING)
        for a, b in ((box.y0, box.y1 + RADIUS), (box.x0, box.x1 + RADIUS))
    )
    for y in rows_of:
        for x in columns_of:
            whole = Box(y - RADIUS, x - RADIUS, y + RADIUS + 1, x + RADIUS + 1)
            seen = whole.intersection(box)
            if seen is None:
                continue
            mask = full[seen.shift(-whole.y0, -whole.x0).slices]
            if mask.any():
                found.append(Candidate(seen, mask).with_mask(mask))
    return found


def seams_one(side: int, folder: Path | None, out: Path) -> dict[str, Any]:
    """Compare the middle of a plane in several crops with the same in one."""
    image = out / f"mosaic{side}.tif"
    model = load_model(device="cpu")
    pixels = open_image(image).read()
    start = (side - 1024) // 2
    middle = np.s_[start : start + 1024, start : start + 1024]
    config = AutomaticConfig(skip_background=False)
    tiled = run(segment(pixels, model, config=config)).labels[middle]
    whole = run(segment(np.ascontiguousarray(pixels[middle]), model, config=config))
    both = overlaps(whole.labels, tiled)
    pairs = both.match(0.9)
    n_found, n_wrong = _inside(tiled, both.found_ids, both.found[pairs])
    _, n_missed = _inside(whole.labels, both.truth_ids, both.truth[pairs])
    return {
        "crops": len(CropGrid((side, side))),
        "objects": n_found,
        "ap90": (n_found - n_wrong) / max(1, n_found + n_missed),
    }


def _inside(
    labels: NDArray[Any], ids: NDArray[np.int64], matched: NDArray[np.int64]
) -> tuple[int, int]:
    """Count objects that the edge of the middle does not cut; those unmatched."""
    rim = np.ones(labels.shape, bool)
    rim[HALO:-HALO, HALO:-HALO] = False
    is_inside = ~np.isin(ids, labels[rim])
    is_matched = np.isin(np.arange(len(ids)), matched)
    return int(is_inside.sum()), int((is_inside & ~is_matched).sum())


def main() -> None:
    """Run a step for each size, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--folder", type=Path, help="pictures for the mosaic")
    parser.add_argument("--out", type=Path, help="where to keep the files")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        facts = STEPS[arguments.step](arguments.one, arguments.folder, arguments.out)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"side": arguments.one, **facts, "peak_mib": peak}))
        return
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        for side in arguments.sides:
            if arguments.step != "stitch" and not (out / f"mosaic{side}.tif").exists():
                mosaic(out / f"mosaic{side}.tif", side, arguments.folder)
            command = [sys.executable, "-m", "benchmarks.segment_slide"]
            command += [arguments.step, "--one", str(side), "--out", str(out)]
            subprocess.run(command, check=True, env=os.environ)


STEPS = {"segment": segment_one, "stitch": stitch_one, "seams": seams_one}

if __name__ == "__main__":
    main()
