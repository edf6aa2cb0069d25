"""How cost grows: with prompts, objects, slices, crops in the store, and pixels.

    python -m benchmarks.growth --output growth.json --plot growth.svg

Each curve is seconds of this process against a number; the exponent is the slope
between the last two points on logarithmic axes: 1 is linear, 2 is quadratic.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from napari_sam import load_model, open_image, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import open_plane
from napari_sam.engine.export import export
from napari_sam.engine.predict import Predictor
from napari_sam.labels.edit import ArrayLabels, LabelEdit
from napari_sam.link import link_slices
from napari_sam.masks import Candidate, box_nms
from napari_sam.prompts import Prompts
from napari_sam.stitch import Views, stitch
from napari_sam.tiling import Box, CropGrid

STEP = 20  # pixels between objects
DISC = np.hypot(*(np.mgrid[:STEP, :STEP] - STEP / 2)) < STEP / 2.5


@dataclass(frozen=True, slots=True)
class Curve:
    """Seconds against a number."""

    name: str
    numbers: list[int]
    seconds: list[float]

    @property
    def exponent(self) -> float:
        """Slope between the last two points, on logarithmic axes."""
        (a, b), (s, t) = self.numbers[-2:], self.seconds[-2:]
        return math.log(t / s) / math.log(b / a)


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that this process computes."""
    start = time.process_time()
    work()
    return time.process_time() - start


def prompts(n: int) -> float:
    """Points on one embedded crop of the default model, to masks in the plane."""
    model = load_model(device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024), np.uint8)
    predictor = Predictor(model, open_plane(image, model))
    points = np.random.default_rng(1).uniform(0, 1024, (n, 2))
    predictor.predict(Prompts(points=points[:1]))
    many = [Prompts(points=[point]) for point in points]
    return seconds(lambda: predictor.predict_many(many))


def nms(n: int) -> float:
    """Boxes of neighbours in a plane, in one call."""
    side = math.ceil(math.sqrt(n))
    y, x = np.mgrid[:side, :side].reshape(2, -1)[:, :n] * STEP
    boxes = torch.from_numpy(np.stack([y, x, y + STEP + 5, x + STEP + 5], axis=1))
    scores = torch.rand(n, generator=torch.Generator().manual_seed(0))
    return seconds(lambda: box_nms(boxes, scores, 0.7))


def commit_and_undo(n: int) -> float:
    """Objects written into labels one by one, then taken back."""
    side = math.ceil(math.sqrt(n))
    target = ArrayLabels(np.zeros((side * STEP, side * STEP), np.uint32))

    def work() -> None:
        done = []
        for i in range(n):
            y, x = (STEP * each for each in divmod(i, side))
            box = Box(y, x, y + STEP, x + STEP)
            before = target.read((None, None), box)
            (number,) = target.fresh_ids(1)
            after = np.where(DISC, np.uint32(number), before)
            done.append(LabelEdit((None, None), box, before, after))
            target.write(done[-1:])
        for edit in reversed(done):
            target.undo([edit])

    return seconds(work)


def stitching(n: int) -> float:
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
    return seconds(lambda: stitch(views, grid).labels())


def slices(n: int) -> float:
    """Link so many slices of a hundred objects each, which drift."""
    side = 10 * STEP
    plane = np.zeros((side, side), np.uint32)
    for i in range(100):
        y, x = (STEP * each for each in divmod(i, 10))
        plane[y : y + STEP, x : x + STEP] = np.where(DISC, i + 1, 0)
    stack = np.stack([np.roll(plane, (z // 8) % STEP, axis=0) for z in range(n)])
    return seconds(lambda: link_slices(stack))


def export_labels(n: int) -> float:
    """Objects of a plane written as polygons (GeoJSON) and measured (CSV)."""
    side = math.ceil(math.sqrt(n))
    ids = np.arange(1, side * side + 1, dtype=np.uint32).reshape(side, side)
    labels = np.kron(ids, DISC.astype(np.uint32))
    with tempfile.TemporaryDirectory() as folder:
        plan = {"geojson": Path(folder) / "a.geojson", "csv": Path(folder) / "a.csv"}
        return seconds(lambda: run(export(open_image(labels), plan)))


def store(n: int) -> float:
    """Open a store of crops and look one up."""
    with tempfile.TemporaryDirectory() as folder:
        entry = EmbeddingCache(Path(folder)).entry({"x": 1}, n, (1, 2, 2))
        entry.write(0, np.ones((1, 2, 2)), bytes([1] * 16))
        marks = Path(folder) / entry.name / "seals"
        seal = (marks / "c.0.0").read_bytes()
        for i in range(1, n):
            (marks / f"c.{i}.0").write_bytes(seal)

        def work() -> None:
            again = EmbeddingCache(Path(folder)).entry({"x": 1}, n, (1, 2, 2))
            again.done()
            again.read(0)

        return seconds(work)


def pixels(side: int) -> float:
    """Read, normalise and store a plane of side x side, all but the encoder."""
    model = load_model(device="cpu")
    values = torch.randn(1, *model.embedding_shape)
    model.encode = lambda x: values.expand(len(x), -1, -1, -1)  # type: ignore[method-assign]
    # every row is the same, in the memory of one: the largest would be 2 GB
    row = np.random.default_rng(0).integers(0, 4000, side, np.uint16)
    image = np.broadcast_to(row, (side, side))
    with tempfile.TemporaryDirectory() as folder:
        plane = open_plane(image, model, cache=EmbeddingCache(Path(folder)))
        return seconds(lambda: run(plane.fill()))


CURVES: dict[str, tuple[Callable[[int], float], list[int]]] = {
    "prompts": (prompts, [1, 4, 16, 64, 256, 1024]),
    "nms": (nms, [10, 100, 1000, 10_000, 100_000]),
    "commit-and-undo": (commit_and_undo, [10, 100, 1000, 10_000, 100_000]),
    "stitch": (stitching, [10, 100, 1000, 10_000, 100_000]),
    "export": (export_labels, [10, 100, 1000, 10_000, 100_000]),
    "slices": (slices, [4, 16, 64, 256, 1024]),
    "store": (store, [1, 10, 100, 1000, 10_000, 50_000]),
    "pixels": (pixels, [1024, 2048, 4096, 8192, 16_384, 32_768]),
}


def plot(curves: list[Curve]) -> str:
    """Draw curves as SVG on logarithmic axes; dotted lines are linear growth."""
    width, height, left, top, per_decade = 640, 420, 60, 20, 72
    colours = (
        "#0072b2", "#d55e00", "#009e73", "#cc79a7",
        "#56b4e9", "#e69f00", "#b8a800", "#666666",
    )  # fmt: skip
    shapes = []
    names: list[tuple[float, str, str]] = []

    def place(number: float, value: float) -> tuple[float, float]:
        x = left + per_decade * math.log10(number)
        return x, top + 40 - per_decade * (math.log10(max(value, 1e-5)) - 2) * 0.7

    for decade in range(6):
        x, y = place(10**decade, 1e-3)
        shapes.append(
            f'<text x="{x:.0f}" y="{height - 8}" text-anchor="middle">1e{decade}</text>'
        )
    for decade in range(-4, 3):
        _, y = place(1, 10.0**decade)
        shapes.append(
            f'<line x1="{left}" x2="{width - 150}" y1="{y:.0f}" y2="{y:.0f}"/>'
        )
        shapes.append(f'<text x="8" y="{y + 4:.0f}">1e{decade} s</text>')
    for colour, curve in zip(colours, curves, strict=False):
        points = [
            place(*pair) for pair in zip(curve.numbers, curve.seconds, strict=True)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        style = f'fill="none" stroke="{colour}" stroke-width="2"'
        shapes.append(f'<polyline points="{path}" {style}/>')
        names.append((points[-1][1], f"{curve.name} ({curve.exponent:.1f})", colour))
    free = 0.0  # names stand in a column, each as near to its curve as there is room
    for y, name, colour in sorted(names):
        free = max(y, free + 16)
        shapes.append(
            f'<text x="{width - 140}" y="{free + 4:.0f}" fill="{colour}">{name}</text>'
        )
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" stroke-width="1">'
        "<style>line {stroke: #ccc}</style>"
        f'<rect width="{width}" height="{height}" fill="white"/>'
    )
    return head + "\n".join(shapes) + "</svg>\n"


def main() -> None:
    """Measure the curves asked for, print, save, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("curves", nargs="*", default=list(CURVES))
    parser.add_argument("--most", type=int, help="leave out larger numbers")
    parser.add_argument("--output", type=Path, help="JSON to write")
    parser.add_argument("--plot", type=Path, help="SVG to draw")
    given = parser.parse_args()
    torch.set_num_threads(1)  # a thread that waits for another counts as computing
    found = []
    for name in given.curves:
        measured, numbers = CURVES[name]
        numbers = [n for n in numbers if n <= (given.most or n)]
        measured(numbers[0])  # loads what is needed once
        curve = Curve(name, numbers, [measured(n) for n in numbers])
        found.append(curve)
        times = ", ".join(
            f"{n}: {s:.3g} s" for n, s in zip(numbers, curve.seconds, strict=True)
        )
        print(f"{name}: {times}; exponent {curve.exponent:.2f}", flush=True)
        if given.output:
            record = {each.name: [each.numbers, each.seconds] for each in found}
            given.output.write_text(json.dumps(record, indent=1) + "\n")
        if given.plot:
            given.plot.write_text(plot(found))


if __name__ == "__main__":
    main()
