"""How cost grows: with prompts, objects, slices, pixels, workers, and kept crops.

    python -m benchmarks.growth --output growth.json --plot growth.svg

Each curve is seconds of this process (or gigabytes) against a number; the exponent is
the slope between the last two points on logarithmic axes: 1 is linear, 2 is quadratic.
Where the weights do not matter the network is a small one with random weights, so that
all of it takes some minutes.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.mosaic import squares, write_mosaic
from benchmarks.process import peak_mib
from napari_sam import load_model, open_image, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.batch import segment_file
from napari_sam.engine.cluster import open_cluster
from napari_sam.engine.embed import open_plane
from napari_sam.engine.export import export
from napari_sam.engine.files import plan_outputs
from napari_sam.engine.predict import Predictor
from napari_sam.labels.edit import ArrayLabels, LabelEdit
from napari_sam.link import link_slices
from napari_sam.masks import Candidate, box_nms
from napari_sam.model import Sam, SamConfig
from napari_sam.model.config import ConvConfig
from napari_sam.prompts import Prompts
from napari_sam.stitch import Views, stitch
from napari_sam.tiling import Box, CropGrid

STEP = 20  # pixels between objects
DISC = np.hypot(*(np.mgrid[:STEP, :STEP] - STEP / 2)) < STEP / 2.5


Values = dict[str, float]
"""What one measurement says, by the name of the curve that it belongs to."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds, or gigabytes, against a number."""

    name: str
    numbers: list[int]
    values: list[float]

    @property
    def exponent(self) -> float:
        """Slope between the last two points, on logarithmic axes."""
        (a, b), (s, t) = self.numbers[-2:], self.values[-2:]
        return math.log(t / s) / math.log(b / a)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that this process computes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def small_network() -> Sam:
    """Return a network of crops of 1024 px that encodes one in 30 ms."""
    torch.manual_seed(0)
    encoder = ConvConfig((8, 8, 8, 8), (0, 0, 0, 0))
    config = SamConfig(
        "small", encoder, embed_dim=32, decoder_heads=4, decoder_mlp_dim=64
    )
    return Sam(config).eval()


def prompts(n: int) -> Values:
    """Points on one embedded crop, to masks in the plane."""
    model = small_network()
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024), np.uint8)
    predictor = Predictor(model, open_plane(image, model))
    points = np.random.default_rng(1).uniform(0, 1023, (n, 2))
    predictor.predict(Prompts(points=points[:1]))
    many = [Prompts(points=[point]) for point in points]

    def work() -> None:
        # 32 at a time: who keeps a thousand masks of a crop needs the memory
        for first in range(0, n, 32):
            predictor.predict_many(many[first : first + 32])

    return {"prompts": seconds(work)}


def nms(n: int) -> Values:
    """Boxes of neighbours in a plane, in one call."""
    side = math.ceil(math.sqrt(n))
    y, x = np.mgrid[:side, :side].reshape(2, -1)[:, :n] * STEP
    boxes = torch.from_numpy(np.stack([y, x, y + STEP + 5, x + STEP + 5], axis=1))
    scores = torch.rand(n, generator=torch.Generator().manual_seed(0))
    return {"nms": seconds(lambda: box_nms(boxes, scores, 0.7))}


def commit_and_undo(n: int) -> Values:
    """Objects written into labels one by one, then taken back."""
    side = math.ceil(math.sqrt(n))
    target = ArrayLabels(np.zeros((side * STEP, side * STEP), np.uint32))
    done: list[LabelEdit] = []

    def commit() -> None:
        for i in range(n):
            y, x = (STEP * each for each in divmod(i, side))
            box = Box(y, x, y + STEP, x + STEP)
            before = target.read((None, None), box)
            (number,) = target.fresh_ids(1)
            after = np.where(DISC, np.uint32(number), before)
            done.append(LabelEdit((None, None), box, before, after))
            target.write(done[-1:])

    def undo() -> None:
        for edit in reversed(done):
            target.undo([edit])

    return {"commit": seconds(commit), "undo": seconds(undo)}


def stitching(n: int) -> Values:
    """Objects of a plane that one, two or four crops see, joined and painted."""
    side = max(math.ceil(math.sqrt(n)) * STEP, 64)
    grid = CropGrid((side, side), size=1024, halo=128)
    views = {}
    for crop in grid:
        # objects that lie whole in the crop
        first = (-(-crop.box.y0 // STEP), -(-crop.box.x0 // STEP))
        last = (crop.box.y1 // STEP, crop.box.x1 // STEP)
        boxes = [
            Box(STEP * i, STEP * j, STEP * (i + 1), STEP * (j + 1))
            for i in range(first[0], last[0])
            for j in range(first[1], last[1])
        ]
        found = [Candidate(box, DISC, crop=crop.index) for box in boxes]
        views[crop.index] = Views.of(crop.index, found)
    return {"stitch": seconds(lambda: stitch(views, grid).labels())}


def slices(n: int) -> Values:
    """Link so many slices of a hundred objects each, which drift."""
    side = 10 * STEP
    plane = np.zeros((side, side), np.uint32)
    for i in range(100):
        y, x = (STEP * each for each in divmod(i, 10))
        plane[y : y + STEP, x : x + STEP] = np.where(DISC, i + 1, 0)
    stack = np.stack([np.roll(plane, (z // 8) % STEP, axis=0) for z in range(n)])
    return {"slices": seconds(lambda: link_slices(stack))}


def export_labels(n: int) -> Values:
    """Objects of a plane written as polygons (GeoJSON) and measured (CSV)."""
    side = math.ceil(math.sqrt(n))
    ids = np.arange(1, side * side + 1, dtype=np.uint32).reshape(side, side)
    labels = np.kron(ids, DISC.astype(np.uint32))
    with tempfile.TemporaryDirectory() as folder:
        plan = {"geojson": Path(folder) / "a.geojson", "csv": Path(folder) / "a.csv"}
        return {"export": seconds(lambda: run(export(open_image(labels), plan)))}


def store(n: int) -> Values:
    """Open a store of crops, look one up, and read all to verify them."""
    with tempfile.TemporaryDirectory() as folder:
        entry = EmbeddingCache(Path(folder)).entry({"x": 1}, n, (1, 2, 2))
        entry.write(0, np.ones((1, 2, 2)), bytes([1] * 16))
        # the other crops are the first one once more, under their own names
        for first in list((Path(folder) / entry.name).rglob("c.0.0*")):
            for i in range(1, n):
                os.link(first, first.with_name(first.name.replace("0", str(i), 1)))
        caches: list[EmbeddingCache] = []

        def open_store() -> None:
            caches.append(EmbeddingCache(Path(folder)))
            again = caches[-1].entry({"x": 1}, n, (1, 2, 2))
            if not again.done().all():
                sys.exit("the store was not filled: its layout has changed")

        def look_up() -> None:
            caches[-1].entry({"x": 1}, n, (1, 2, 2)).read(n // 2)

        def verify() -> None:
            if caches[-1].verify():
                sys.exit("the store was not filled: its layout has changed")

        parts = {"open": open_store, "look up": look_up, "verify": verify}
        return {f"store: {name}": seconds(work) for name, work in parts.items()}


def pixels(side: int) -> Values:
    """Read, normalise, encode (small network) and store a plane of side x side.

    In a process of its own, whose largest memory counts.
    """
    code = f"from benchmarks.growth import fill_store; fill_store({side})"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    found: Values = json.loads(done.stdout.splitlines()[-1])
    return found


def fill_store(side: int) -> None:
    """Do the work of `pixels` and print seconds and gigabytes."""
    torch.set_num_threads(1)
    model = small_network()
    # every row is the same, in the memory of one: the largest would be 2 GB
    row = np.random.default_rng(0).integers(0, 4000, side, np.uint16)
    image = np.broadcast_to(row, (side, side))
    with tempfile.TemporaryDirectory() as folder:
        plane = open_plane(image, model, cache=EmbeddingCache(Path(folder)))
        spent = seconds(lambda: run(plane.fill()))
    print(json.dumps({"pixels": spent, "memory (GB)": peak_mib() / 1024}))


def workers(n: int, side: int = 2048) -> Values:
    """Segment a mosaic with the default model in so many processes; wall seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mosaic.tif"
        write_mosaic(path, side, squares(None))
        model = load_model(device="cpu")
        (to,) = plan_outputs([path], Path(folder) / "out")
        start = time.perf_counter()
        with open_cluster(n_workers=n, device="cpu") as cluster:
            ready = time.perf_counter()
            run(segment_file(path, to, model, workers=cluster), progress=False)
            done = time.perf_counter()
        return {"workers: start": ready - start, "workers: segment": done - ready}


Measure = Callable[[int], Values]
CURVES: dict[str, tuple[Measure, list[int]]] = {
    "prompts": (prompts, [1, 4, 16, 64, 256, 1024]),
    "nms": (nms, [10, 100, 1000, 10_000, 100_000]),
    "commit-and-undo": (commit_and_undo, [10, 100, 1000, 10_000, 100_000]),
    "stitch": (stitching, [10, 100, 1000, 10_000, 100_000]),
    "export": (export_labels, [10, 100, 1000, 10_000, 100_000]),
    "slices": (slices, [4, 16, 64, 256, 1024]),
    "store": (store, [1, 10, 100, 1000, 10_000, 50_000]),
    "pixels": (pixels, [1024, 2048, 4096, 8192, 16_384, 32_768]),
    "workers": (workers, [1, 2]),
}

# Of one panel of the plot, in pixels.
WIDTH, HEIGHT, LEFT, TOP, DECADE = 640, 420, 60, 20, 72
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7",
    "#56b4e9", "#e69f00", "#b8a800", "#666666",
)  # fmt: skip


def panel(curves: list[Curve]) -> str:
    """Draw curves on logarithmic axes."""
    shapes = []
    names: list[tuple[float, str, str]] = []

    def place(number: float, value: float) -> tuple[float, float]:
        x = LEFT + DECADE * math.log10(number)
        return x, TOP + 40 - DECADE * (math.log10(max(value, 1e-5)) - 2) * 0.7

    for decade in range(6):
        x, _ = place(10**decade, 1e-3)
        shapes.append(
            f'<text x="{x:.0f}" y="{HEIGHT - 8}" text-anchor="middle">1e{decade}</text>'
        )
    for decade in range(-4, 3):
        _, y = place(1, 10.0**decade)
        shapes.append(
            f'<line x1="{LEFT}" x2="{WIDTH - 150}" y1="{y:.0f}" y2="{y:.0f}"/>'
        )
        shapes.append(f'<text x="8" y="{y + 4:.0f}">1e{decade} s</text>')
    for colour, curve in zip(COLOURS, curves, strict=False):
        points = [
            place(*pair) for pair in zip(curve.numbers, curve.values, strict=True)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f'fill="none" stroke="{colour}" stroke-width="2"'
        shapes.append(f'<polyline points="{path}" {style}/>')
        names.append((points[-1][1], f"{curve.name} ({curve.exponent:.1f})", colour))
    free = 0.0  # names stand in a column, each as near to its curve as there is room
    for y, name, colour in sorted(names):
        free = max(y, free + 16)
        shapes.append(
            f'<text x="{WIDTH - 140}" y="{free + 4:.0f}" fill="{colour}">{name}</text>'
        )
    return "\n".join(shapes)


def plot(curves: list[Curve]) -> str:
    """Draw two panels as SVG: of objects and prompts, and of crops and pixels."""
    # two workers instead of one are no curve
    curves = [each for each in curves if not each.name.startswith("workers")]
    panels: list[list[Curve]] = [[], []]
    for each in curves:
        panels[each.name.startswith(("store", "pixels", "memory"))].append(each)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12" stroke-width="1">'
        "<style>line {stroke: #ccc}</style>"
        f'<rect width="{2 * WIDTH}" height="{HEIGHT}" fill="white"/>'
    )
    drawn = [
        f'<g transform="translate({WIDTH * i})">{panel(each)}</g>'
        for i, each in enumerate(panels)
    ]
    return head + "\n".join(drawn) + "</svg>\n"


def main() -> None:
    """Measure the curves asked for, print, save, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("curves", nargs="*", default=list(CURVES))
    parser.add_argument("--most", type=int, help="leave out larger numbers")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="SVG to draw")
    given = parser.parse_args()
    torch.set_num_threads(1)  # a thread that waits for another counts as computing
    found: list[Curve] = []
    for name in given.curves:
        measure, numbers = CURVES[name]
        numbers = [n for n in numbers if n <= (given.most or n)]
        measure(numbers[0])  # loads what is needed once
        values = [measure(n) for n in numbers]
        for part in values[0]:
            curve = Curve(part, numbers, [each[part] for each in values])
            found.append(curve)
            pairs = zip(numbers, curve.values, strict=True)
            listed = ", ".join(f"{n}: {value:.3g}" for n, value in pairs)
            print(f"{part}: {listed}; exponent {curve.exponent:.2f}", flush=True)
        if given.output:
            record = {"load": os.getloadavg(), "curves": [asdict(c) for c in found]}
            given.output.write_text(json.dumps(record, indent=1) + "\n")
        if given.plot:
            given.plot.write_text(plot(found))


if __name__ == "__main__":
    main()
