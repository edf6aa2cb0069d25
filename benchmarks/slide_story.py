"""A slide from end to end: segmented by one command, killed twice, exported.

A made-up mosaic (`benchmarks.mosaic`) is segmented with ``napari-sam segment``. At a
third of its crops the command gets Ctrl-C, at two thirds SIGKILL; each time the same
command goes on. Then the labels are exported to all formats. Printed are, as lines of
JSON, time, CPU time and peak memory of each command, how many crops were worked on
twice, and sizes of files; pictures of doubtful and of ordinary places on borders
between crops are drawn, to be looked at.

    python -m benchmarks.slide_story OUT --side 20000 --folder data/nuclei
    python -m benchmarks.slide_story OUT --side 4096 --compare

With ``--compare`` the slide is segmented once more without a disturbance, and the
labels must be equal. What is there already in the folder is used again: after a
failure the same command goes on.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.mosaic import squares, write_mosaic
from benchmarks.process import peak_mib
from napari_sam import open_image
from napari_sam.images import find_intensity, read_rgb
from napari_sam.tiling import Box, CropGrid
from napari_sam.writers.formats import FORMATS
from napari_sam.writers.overlay import save_overlay

COMMAND = [sys.executable, "-c", "from napari_sam.cli import main; main()"]
PICTURE = 512


def main() -> None:
    """Tell the story."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for image and results")
    parser.add_argument("--side", type=int, default=20_000, help="pixels")
    parser.add_argument("--folder", type=Path, help="pictures; default: scikit-image's")
    parser.add_argument("--pattern", default="*", help="which files of the folder")
    parser.add_argument("--model", default="default", help="name or file of weights")
    parser.add_argument("--compare", action="store_true", help="segment once more")
    parser.add_argument("--only", choices=("segment", "export", "pictures"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    image = arguments.out / f"slide{arguments.side}.tif"
    if not image.exists():
        choices = squares(arguments.folder, arguments.pattern)
        start = time.perf_counter()
        write_mosaic(image, arguments.side, choices)
        report("mosaic", squares=len(choices), wall_s=time.perf_counter() - start)
    if arguments.only in (None, "segment"):
        segment_with_kills(image, arguments.out / "labels", arguments.model)
    labels = arguments.out / "labels" / f"{image.stem}.labels.tif"
    if arguments.compare:
        compare(image, labels, arguments.out / "again", arguments.model)
    if arguments.only in (None, "export"):
        export(image, labels, arguments.out / "exports")
    if arguments.only in (None, "pictures"):
        draw_seams(image, labels, arguments.out / "pictures")


def report(what: str, **facts: Any) -> None:
    """Print one line of JSON."""
    rounded = {k: round(v, 2) if isinstance(v, float) else v for k, v in facts.items()}
    print(json.dumps({"what": what, **rounded}), flush=True)


def segment_with_kills(image: Path, out: Path, model: str) -> None:
    """Segment; interrupt at a third, kill at two thirds, go on each time."""
    n_crops = len(CropGrid(open_image(image).plane_shape))
    manifest = out / f"{image.stem}.manifest.jsonl"
    stops = [(n_crops // 3, signal.SIGINT), (2 * n_crops // 3, signal.SIGKILL)]
    stops = [stop for stop in stops if stop[0] > n_records(manifest)]
    command = ["segment", str(image), "-o", str(out), "--model", model]
    command += ["--measurements", "--seams", "--json"]
    for at, how in [*stops, (n_crops + 1, None)]:
        before = n_records(manifest)
        facts = measured(command, manifest, at, how)
        report("segment", crops=n_crops, begun_with=before, **facts)
        if how is None and facts["exit"]:
            sys.exit("segment failed")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    places = [line["crop"] for line in lines if "crop" in line]
    states = {line["crop"]: line["state"] for line in lines if "crop" in line}
    counts = {s: list(states.values()).count(s) for s in sorted(set(states.values()))}
    report("manifest", **counts, worked_on_twice=len(places) - len(set(places)))


def n_records(manifest: Path) -> int:
    """Count the crops of a manifest."""
    if not manifest.exists():
        return 0
    return sum(b'"crop"' in line for line in manifest.read_bytes().splitlines())


def measured(
    arguments: list[str],
    manifest: Path | None = None,
    at: int = 0,
    how: signal.Signals | None = None,
) -> dict[str, Any]:
    """Run a command to its end, or to its signal at so many crops."""
    start, cpu_before = time.perf_counter(), sum(os.times()[2:4])  # of children
    child = subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL)
    peak = 0.0
    while child.poll() is None:
        with suppress(ValueError):  # it has just ended
            peak = peak_mib(child.pid)
        if how is not None and manifest is not None and n_records(manifest) >= at:
            child.send_signal(how)
            how = None
        time.sleep(0.2)
    return {
        "exit": child.returncode,
        "wall_s": time.perf_counter() - start,
        "cpu_s": sum(os.times()[2:4]) - cpu_before,
        "peak_mib": peak,
    }


def compare(image: Path, labels: Path, out: Path, model: str) -> None:
    """Segment without a disturbance; labels have to be equal."""
    facts = measured(["segment", str(image), "-o", str(out), "--model", model])
    first, second = (open_image(p) for p in (labels, out / labels.name))
    height, width = first.plane_shape
    bands = (Box(y, 0, min(y + 1024, height), width) for y in range(0, height, 1024))
    n_other = sum(int((first.read(b) != second.read(b)).sum()) for b in bands)
    report("undisturbed", different_pixels=n_other, **facts)


def export(image: Path, labels: Path, out: Path) -> None:
    """Export to every format, one command each."""
    for name in FORMATS:
        command = ["export", str(labels), "--to", name, "-o", str(out)]
        command += ["--image", str(image), "--overwrite"]
        facts = measured(command)
        ending = FORMATS[name].ending
        files = [p for p in out.rglob("*") if p.is_file() and ending in str(p)]
        size = sum(path.stat().st_size for path in files) / 2**20
        report("export", format=name, mib=size, **facts)


def draw_seams(image: Path, labels: Path, out: Path) -> None:
    """Draw the most doubtful places on borders, and some others."""
    out.mkdir(parents=True, exist_ok=True)
    source, ids = open_image(image), open_image(labels)
    intensity = find_intensity(source)
    grid = CropGrid(source.plane_shape)
    rows = sorted({crop.core.y0 for crop in grid} - {0})
    columns = sorted({crop.core.x0 for crop in grid} - {0})
    table = labels.with_name(labels.name.replace(".labels.tif", ".seams.csv"))
    with table.open(newline="") as file:
        seams = list(csv.DictReader(file))
    agreements = np.array([float(row["agreement"]) for row in seams])
    report(
        "seams",
        objects=len(seams),
        seen_once=int((agreements == 0).sum()),
        below_09=int(((agreements > 0) & (agreements < 0.9)).sum()),
        median_of_others=float(np.median(agreements[agreements > 0]))
        if (agreements > 0).any()
        else 0.0,
    )
    rng = np.random.default_rng(0)
    doubtful = rng.permutation(np.flatnonzero(agreements < 0.9))[:4]
    others = rng.permutation(np.flatnonzero(agreements >= 0.9))[:4]
    for kind, chosen in (("doubtful", doubtful), ("ordinary", others)):
        for number, i in enumerate(chosen.tolist()):
            y, x = (int(float(seams[i][axis])) for axis in "yx")
            y0, x0 = (
                min(max(v - PICTURE // 2, 0), n - PICTURE)
                for v, n in zip((y, x), source.plane_shape, strict=True)
            )
            box = Box(y0, x0, y0 + PICTURE, x0 + PICTURE)
            path = out / f"{kind}{number}.png"
            rgb = read_rgb(source, intensity, box)
            save_overlay(rgb, ids.read(box), path, overwrite=True)
            draw_borders(path, box, rows, columns)


def draw_borders(path: Path, box: Box, rows: list[int], columns: list[int]) -> None:
    """Draw the borders between cores into a picture, in yellow."""
    picture = Image.open(path).convert("RGB")
    zoom = picture.width / box.width
    pen = ImageDraw.Draw(picture)
    for y in rows:
        if box.y0 <= y < box.y1:
            at = (y - box.y0) * zoom
            pen.line([(0, at), (picture.width, at)], fill=(255, 255, 0))
    for x in columns:
        if box.x0 <= x < box.x1:
            at = (x - box.x0) * zoom
            pen.line([(at, 0), (at, picture.height)], fill=(255, 255, 0))
    picture.save(path)


if __name__ == "__main__":
    main()
