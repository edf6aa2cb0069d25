"""How much an answer depends on where the borders of crops lie.

Places of a made-up slide are segmented twice: alone, in a single crop, and as the
middle of a larger part that four crops share. Objects within the halo of the edge are
left out. Given is AP, the share of objects that are there in both, TP / (TP + FP + FN),
at several IoU; 1 is what a person expects. For comparison the network is asked once
more in a single crop that begins a few pixels further: nothing is stitched there, so
that this is the part of the network, and a stitched plane cannot do better. Last, a
square of 256 input px is repeated until it fills a crop, and two of its copies are
compared: they show the same amid the same, so that only their place in the frame of the
network tells them apart.

    python -m benchmarks.seams --folder data/nuclei --places 3
    python -m benchmarks.seams --weights runs/last.safetensors --scale 2
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mosaic import squares, write_mosaic
from napari_sam import load_model, open_image, run
from napari_sam.engine.automatic import AutomaticConfig, segment
from napari_sam.images import ImageSource, Intensity, find_intensity, read_rgb
from napari_sam.model import Sam
from napari_sam.tiling import Box, CropGrid
from napari_sam.training.metrics import overlaps
from napari_sam.writers.overlay import save_overlay

THRESHOLDS = (0.5, 0.75, 0.9)
SHIFTS = (1, 8, 32, 64, 100, 384)


class Comparison:
    """Counts of objects that are, and are not, in both of two label images."""

    def __init__(self) -> None:
        self.n_both = dict.fromkeys(THRESHOLDS, 0)
        self.n_either = dict.fromkeys(THRESHOLDS, 0)
        self.ious: list[float] = []

    def add(self, first: NDArray[Any], second: NDArray[Any], rim: int) -> None:
        """Compare two label images of one place."""
        both = overlaps(first, second)
        inside = np.zeros(first.shape, bool)
        inside[rim:-rim, rim:-rim] = True
        # what lies in the middle of one has its partner wherever that reaches
        is_first = ~np.isin(both.truth_ids, first[~inside])
        is_second = ~np.isin(both.found_ids, second[~inside])
        for threshold in THRESHOLDS:
            pairs = both.match(threshold)
            i, j = both.truth[pairs], both.found[pairs]
            counts = is_first[i] | is_second[j]
            n_both = int(counts.sum())
            alone_1 = is_first & ~np.isin(np.arange(len(is_first)), i)
            alone_2 = is_second & ~np.isin(np.arange(len(is_second)), j)
            self.n_both[threshold] += n_both
            self.n_either[threshold] += n_both + int(alone_1.sum() + alone_2.sum())
        best = both.match(0.5)
        self.ious += both.iou[best].tolist()

    def facts(self) -> dict[str, float]:
        """Return AP at each threshold and how many objects were compared."""
        return {
            "objects": self.n_either[0.5],
            **{
                f"ap{int(100 * t)}": round(self.n_both[t] / max(1, self.n_either[t]), 3)
                for t in THRESHOLDS
            },
            "median_iou": round(float(np.median(self.ious or [0])), 3),
        }


class Slide:
    """A slide, and how a part of it is segmented."""

    def __init__(self, path: Path, model: Sam, scale: float) -> None:
        self.source = open_image(path)
        self.model = model
        self.scale = scale
        self.intensity: Intensity = find_intensity(self.source)

    def labels(self, box: Box, repeats: int = 1) -> NDArray[Any]:
        """Segment a part, side by side with itself, as if it were the whole image."""
        part = self.source.read(box)
        part = np.tile(part, (repeats, repeats, 1)[: part.ndim])
        axes = "YXS" if part.ndim == 3 else "YX"
        size = self.model.config.image_size
        grid = CropGrid(part.shape[:2], size, size // 8, self.scale)
        config = AutomaticConfig(skip_background=False)
        source = ImageSource(part, axes)
        work = segment(
            source, self.model, grid=grid, intensity=self.intensity, config=config
        )
        return run(work).labels


def compare(
    slide: Slide, places: int, shifts: tuple[int, ...], odd: int, out: Path | None
) -> None:
    """Print a line for stitching and one for each shift."""
    size = slide.model.config.image_size
    side, halo = int(size / slide.scale), int(size / 8 / slide.scale)
    start = side // 2 - halo
    wide = 2 * side - 2 * halo - odd  # two crops along each side
    rng = np.random.default_rng(1)
    whole_side = slide.source.plane_shape[0]
    comparisons = {"stitched": Comparison()} | {
        f"moved {n}": Comparison() for n in shifts
    }
    comparisons["elsewhere in the frame"] = Comparison()
    seconds = time.perf_counter()
    for number in range(places):
        y, x = rng.integers(0, whole_side - wide + 1, 2).tolist()
        around = Box(y, x, y + wide, x + wide)
        middle = Box(y + start, x + start, y + start + side, x + start + side)
        whole = slide.labels(middle)
        tiled = slide.labels(around)[start : start + side, start : start + side]
        comparisons["stitched"].add(whole, tiled, halo)
        if out is not None:
            draw(slide, middle, whole, out / f"place{number}_whole.png")
            draw(slide, middle, tiled, out / f"place{number}_tiled.png")
        for n in shifts:
            moved = slide.labels(middle.shift(n, n))
            seen = np.s_[n:, n:], np.s_[: side - n, : side - n]
            comparisons[f"moved {n}"].add(whole[seen[0]], moved[seen[1]], halo)
        # copies 1 and 2 of 4, with half a copy around them; the halo lies outside
        square = Box(y, x, y + side // 4, x + side // 4)
        copies = slide.labels(square, repeats=4)
        first, second = (slice(n, n + side // 2) for n in (side // 8, 3 * side // 8))
        comparisons["elsewhere in the frame"].add(
            copies[first, first], copies[second, second], side // 64
        )
    seconds = time.perf_counter() - seconds
    for name, comparison in comparisons.items():
        print(json.dumps({"what": name, **comparison.facts()}))
    print(f"{seconds:.0f} s")


def draw(slide: Slide, box: Box, labels: NDArray[Any], path: Path) -> None:
    """Save a picture of outlines, to be looked at."""
    save_overlay(
        read_rgb(slide.source, slide.intensity, box), labels, path, overwrite=True
    )
    Image.open(path).verify()


def main() -> None:
    """Make a slide and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="pictures; default: scikit-image's")
    parser.add_argument("--pattern", default="*", help="which files of the folder")
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--scale", type=float, default=1.0, help="input px per px")
    parser.add_argument("--places", type=int, default=2)
    parser.add_argument("--shifts", type=int, nargs="*", default=SHIFTS)
    parser.add_argument(
        "--odd", type=int, default=0, help="pixels that the last crops lack"
    )
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--out", type=Path, help="folder for pictures")
    arguments = parser.parse_args()
    model = load_model(arguments.weights, device="cpu", precision=arguments.precision)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.tif"
        write_mosaic(path, 4096, squares(arguments.folder, arguments.pattern))
        slide = Slide(path, model, arguments.scale)
        shifts = tuple(arguments.shifts)
        compare(slide, arguments.places, shifts, arguments.odd, arguments.out)


if __name__ == "__main__":
    main()
