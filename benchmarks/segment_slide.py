"""Segment made-up slides of several sizes: memory, time, and what is not the network.

Each size runs in a process of its own, so that its peak memory is its own. Slides are
those of `benchmarks.mosaic`.

    python -m benchmarks.segment_slide segment --sides 2048 4096
    python -m benchmarks.segment_slide stitch --sides 8192 20480

``segment`` is the whole command with the default model. Its times are CPU seconds of
the process: those of the encoder, of the rest of the network (proposal head, what all
prompts of a crop share, mask decoder), and of everything else (reading, normalising,
peaks, masks to pixels, competition, stitching, writing); ``other_per_encoder`` is the
last by the first. ``stitch`` leaves the network out: crops see made-up discs, 12 px in
radius and 32 px apart, and what is measured is the graph, the competition and the
writing of labels. How far the answers of crops agree is measured by `benchmarks.seams`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from skimage.draw import disk

from benchmarks.mosaic import squares, write_mosaic
from benchmarks.process import peak_mib
from benchmarks.shares import EVERYTHING_ELSE, Shares
from napari_sam import load_model, open_image, run
from napari_sam.engine.automatic import AutomaticConfig, stitch_views
from napari_sam.engine.batch import segment_file
from napari_sam.engine.files import ImageOptions, OpenedFile, Outputs, plan_outputs
from napari_sam.engine.results import write_results
from napari_sam.engine.spool import Spool
from napari_sam.images import Intensity
from napari_sam.masks import Candidate
from napari_sam.model.proposal_head import ProposalHead
from napari_sam.stitch import Views
from napari_sam.tiling import Box, CropGrid

SPACING, RADIUS = 32, 12


def segment_one(side: int, weights: str, out: Path) -> dict[str, Any]:
    """Segment a mosaic; times are CPU seconds of this process."""
    image = out / f"mosaic{side}.tif"
    (to,) = plan_outputs([image], out)
    model = load_model(weights, device="cpu")
    shares = Shares()
    shares.watch(model, "encode", "encoder")
    for name in ("prepare", "decode", "propose", "details"):
        shares.watch(model, name, "rest of network")
    if isinstance(model.proposal_head, ProposalHead):
        shares.watch(model.proposal_head, "features", "rest of network")
    n_objects = 0

    def work() -> None:
        nonlocal n_objects
        n_objects = run(segment_file(image, to, model, weights=weights)).n_objects

    start = time.perf_counter()
    seconds = shares.of(work)
    encoder, other = seconds["encoder"], seconds[EVERYTHING_ELSE]
    return {
        "crops": len(CropGrid((side, side))),
        "objects": n_objects,
        "wall_s": time.perf_counter() - start,
        "cpu_s": sum(seconds.values()),
        "encoder_s": encoder,
        "rest_of_network_s": seconds["rest of network"],
        "other_s": other,
        "other_per_encoder": other / encoder,
    }


def stitch_one(side: int, weights: str, out: Path) -> dict[str, Any]:
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
    to = Outputs(out / f"discs{side}.labels.tif")
    write_results(opened, [painting], grid, to, made_by={})
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


def main() -> None:
    """Run a step for each size, in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--folder", type=Path, help="pictures for the mosaic")
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--out", type=Path, help="where to keep the files")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one is not None:
        facts = STEPS[arguments.step](arguments.one, arguments.weights, arguments.out)
        print(json.dumps({"side": arguments.one, **facts, "peak_mib": peak_mib()}))
        return
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        for side in arguments.sides:
            if arguments.step != "stitch" and not (out / f"mosaic{side}.tif").exists():
                write_mosaic(out / f"mosaic{side}.tif", side, squares(arguments.folder))
            command = [sys.executable, "-m", "benchmarks.segment_slide"]
            command += [arguments.step, "--one", str(side), "--out", str(out)]
            command += ["--weights", arguments.weights]
            subprocess.run(command, check=True, env=os.environ)


STEPS = {"segment": segment_one, "stitch": stitch_one}

if __name__ == "__main__":
    main()
