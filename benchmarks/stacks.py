"""Stacks: quality against ground truth, cost of a slice, memory of long stacks.

    python -m benchmarks.stacks quality SHARED/data --output stacks.json
    python -m benchmarks.stacks quality SHARED/data --only chloroplasts --crop 1024
    python -m benchmarks.stacks quality SHARED/data --only embryo --figures planes
    python -m benchmarks.stacks cost
    python -m benchmarks.stacks memory --slices 64 256

``quality`` prints every figure with its floor. Objects of a volume are clicked where
they are deepest, in their middle slice; each correction is a click, or a mark that the
object has ended, in the slice with the most wrong pixels, where the larger error is
deepest: negative on what is too much, positive on what was missed; with
``--correction box`` it is a box around the object in that slice. Automatic labels
are found plane by plane and linked. Beside each stands what is reached with planes
of the ground truth, whose ids differ from slice to slice: that measures linking alone.
``--figures planes`` compares slices alone with three directions (`three_planes`) on the
column of the embryo in which three nuclei stand on each other, and
with ``--whole`` on all of it.

``cost`` follows objects through a drawn stack: one that is not embedded yet, the same
again with the embeddings of the cache, and others in slices that are still open, as
with all objects of a slice or with corrections. Calls, and CPU time of a slice against
that of the network's answer to its prompt: mask, box and point with the embedding there
(`Sam.place`, `Sam.prepare` with the mask, `Sam.decode`).

``memory`` segments and links drawn volumes of 1024 x 1024 px, as ``napari-sam segment
--link z`` does, each in a process of its own, so that its peak memory is its own. The
network is made up (it knows the discs), so that a long stack takes minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from skimage.draw import disk

from benchmarks.process import peak_mib
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.automatic import segment
from napari_sam.engine.files import plan_outputs
from napari_sam.engine.jobs import run
from napari_sam.engine.propagate import Propagation, propagate_in
from napari_sam.engine.stack_planes import StackPlanes, open_stack
from napari_sam.engine.three_planes import segment_three_planes
from napari_sam.engine.volume import segment_stack
from napari_sam.images import ImageSource, Intensity, find_intensity, read_rgb
from napari_sam.link import link_frames, link_slices
from napari_sam.masks import Candidate
from napari_sam.model import Sam
from napari_sam.model.config import ProposalConfig, SamConfig, ViTConfig
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from napari_sam.training.metrics import iou, mean_segmentation_accuracy, overlaps
from napari_sam.training.protocol import deepest_point
from napari_sam.weights.load import load_model

Labels = NDArray[np.integer[Any]]


class Stack(NamedTuple):
    """A stack with ground truth, and the floors of its figures."""

    folder: str
    axes: Literal["ZYX", "TYX"]
    floors: dict[str, float]
    same: dict[int, int] = {}  # noqa: RUF012 - ids of one object, as seen in the image


STACKS = {
    "embryo": Stack(
        "mouse_embryo_nuclei3d",
        "ZYX",
        {"one click": 0.7, "two corrections": 0.8, "automatic AP50": 0.7},
    ),
    "chloroplasts": Stack("chloroplast_em3d", "ZYX", {}),
    "t98g": Stack("usiigaci_timelapse", "TYX", {"true planes, links": 0.95}),
    # its ids were linked by overlap alone: a bud (4) that its mother takes along as she
    # turns, half its width in one frame, was given a new one (5)
    "yeast": Stack("baby_yeast_timelapse", "TYX", {"true planes, links": 0.95}, {5: 4}),
}


# Of the embryo: three nuclei on each other.
COLUMN = (slice(None), slice(44, 76), slice(58, 90))


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
    correction: str = "click",
) -> None:
    """Click or box once more, or mark a slice without the object, where it is worst."""
    wrong = (found ^ truth).sum((1, 2))
    i = int(wrong.argmax())
    if not wrong[i]:
        return
    if not truth[i].any():
        # mark the slice nearest to the object, not the one farthest out
        inside = np.flatnonzero(truth.any((1, 2)))
        ends.add(int(inside[0] - 1 if i < inside[0] else inside[-1] + 1))
        return
    if correction == "box":
        y, x = np.nonzero(truth[i])
        prompts[i] = Prompts(boxes=[y.min(), x.min(), y.max() + 1, x.max() + 1])
        return
    missed, extra = truth[i] & ~found[i], found[i] & ~truth[i]
    is_missed = bool(missed.sum() >= extra.sum())
    points, positive = [deepest(missed if is_missed else extra)], [is_missed]
    old = prompts.get(i)
    if isinstance(old, Prompts):
        points = [*old.points.tolist(), *points]
        positive = [*old.positive.tolist(), *positive]
    prompts[i] = Prompts(points, positive)


def some_objects(truth: Labels, most: int, whole: Labels | None = None) -> list[int]:
    """Ids of objects, at most so many, spread evenly over all.

    Of a part of a stack those of which less than half is there are left out.
    """
    given, n_voxels = np.unique(truth[truth > 0], return_counts=True)
    n_whole = n_voxels if whole is None else np.bincount(whole.ravel())[given]
    ids = given[2 * n_voxels >= n_whole].tolist()
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(most, len(ids))).round())
    return [ids[int(i)] for i in chosen]


def clicks(
    planes: StackPlanes,
    truth: Labels,
    n_corrections: int,
    ids: list[int],
    correction: str,
) -> list[list[float]]:
    """3D IoU of each object after one click and after each correction."""
    rows = []
    for number in ids:
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
                propagate_in(planes, prompts, ends=ends, previous=found),
                progress=False,
            )
            volume = volume_of(found, truth.shape)
            scores.append(iou(mask, volume))
            corrected(prompts, volume, mask, ends, correction)
        rows.append(scores)
        print(f"  object {number}: {[round(s, 3) for s in scores]}", flush=True)
    return rows


def one_mask(planes: StackPlanes, truth: Labels, ids: list[int]) -> list[float]:
    """3D IoU of each object, given its true mask in the middle slice."""
    scores = []
    for number in ids:
        mask = truth == number
        slices = np.flatnonzero(mask.any((1, 2)))
        middle = int(slices[len(slices) // 2])
        plane = mask[middle]
        whole = Candidate(Box.whole((plane.shape[0], plane.shape[1])), plane)
        found = run(
            propagate_in(planes, {middle: whole.with_mask(plane)}),
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


def quality(options: argparse.Namespace) -> dict[str, Any]:
    """Print all figures of the stacks."""
    figures = set(options.figures)
    model = None if figures == {"links"} else load_model(options.model)
    report: dict[str, Any] = {}
    for name, stack in STACKS.items():
        if options.only and name not in options.only:
            continue
        (path,) = (options.data / stack.folder / "images").glob("*.tif")
        pixels = tifffile.imread(path)
        truth = tifffile.imread(options.data / stack.folder / "labels" / path.name)
        for given, one in stack.same.items():
            truth[truth == given] = one
        image = ImageSource(pixels, stack.axes, name=name)
        intensity = find_intensity(image)  # of the whole, also for a part
        part = (slice(None), *(slice(options.crop),) * 2)
        if "planes" in figures and not options.whole:
            part = COLUMN
        ids = some_objects(truth[part], options.most, truth)
        pixels, truth = pixels[part], truth[part]
        image = ImageSource(pixels, stack.axes, name=name)
        print(f"{name}: {' x '.join(map(str, pixels.shape))}, {stack.axes}", flush=True)
        report[name] = {}
        truth = truth.astype(np.int64)
        for what, value in _figures(image, truth, ids, intensity, model, options):
            floor = stack.floors.get(what)
            mark = "" if floor is None else f"   floor {floor:g}"
            print(f"  {what:<28}{value:8.3f}{mark}", flush=True)
            report[name][what] = value
    return report


def _figures(
    image: ImageSource,
    truth: Labels,
    ids: list[int],
    intensity: Intensity,
    model: Sam | None,
    options: argparse.Namespace,
) -> Iterator[tuple[str, float]]:
    is_time, figures = "T" in image.axes, set(options.figures)
    gray = np.stack(
        [read_rgb(image, intensity, plane=(0, z)).mean(-1) for z in range(len(truth))]
        if not is_time
        else [np.zeros(truth.shape[1:])]
    )
    link: Callable[[Labels], Labels] = (
        (lambda planes: link_frames(planes)[0])
        if is_time
        else (lambda planes: link_slices(planes, gray=gray))
    )
    if "links" in figures:
        start = time.perf_counter()
        found = link(per_plane(truth))
        linked = accuracy(truth, found) | link_accuracy(truth, found)
        yield "true planes, links", linked["correct"]
        yield "true planes, mSA", linked["msa"]
        yield "true planes, AP50", linked["ap50"]
        yield "true planes, seconds", time.perf_counter() - start
    if model is None:
        return
    cache = EmbeddingCache(options.cache)
    if "automatic" in figures:
        start = time.perf_counter()
        job = segment(image, model, cache=cache, intensity=intensity)
        automatic = accuracy(truth, link(np.asarray(run(job, progress=False))))
        yield "automatic mSA", automatic["msa"]
        yield "automatic AP50", automatic["ap50"]
        yield "automatic, objects", automatic["objects"]
        yield "automatic, seconds", time.perf_counter() - start
    if "planes" in figures:
        fused = run(
            segment_three_planes(
                image, model, intensity=intensity, spacing=(1.0, 1.0, 1.0)
            ),
            progress=False,
        )
        three = accuracy(truth, fused.labels())
        yield "three planes, mSA", three["msa"]
        yield "three planes, AP50", three["ap50"]
        yield "three planes, objects", three["objects"]
        yield "three planes, uncertain", float((fused.uncertainty() > 0).mean())
    if "clicks" not in figures:
        return
    start = time.perf_counter()
    opened = open_stack(
        image, model, along="t" if is_time else "z", cache=cache, intensity=intensity
    )
    rows = np.array(clicks(opened, truth, 2, ids, options.correction)).mean(axis=0)
    yield from zip(
        ("one click", "one correction", "two corrections"), rows.tolist(), strict=True
    )
    yield "one true mask", float(np.mean(one_mask(opened, truth, ids)))
    yield "clicks, seconds", time.perf_counter() - start


def drawn_volume(n_slices: int, side: int = 1024) -> Iterator[NDArray[np.uint8]]:
    """Draw slices with 25 bright discs that drift, on noise."""
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid(*[np.arange(5) * side / 5 + side / 10] * 2), -1)
    places = places.reshape(-1, 2)
    drift = rng.normal(0, 0.05, places.shape)
    for z in range(n_slices):
        slice_ = rng.normal(30, 4, (side, side))
        for y, x in places + drift * (z % 64):
            rows, columns = disk((y, x), 20, shape=slice_.shape)
            slice_[rows, columns] += 120
        yield slice_.clip(0, 255).astype(np.uint8)


class Prepared(NamedTuple):
    """Stands for a prepared embedding: which part of the frame is asked."""

    source: torch.Tensor
    size: tuple[int, int]
    origins: Any = ((0, 0),)
    details: None = None

    def windows(self, corners: Any, side: int) -> "Prepared":
        """Return other parts of the frame."""
        if self.size == (side, side):
            return self
        return Prepared(self.source, (side, side), corners)


class MadeUp(Sam):
    """Finds the discs of `drawn_volume` where they are drawn, without looking."""

    def __init__(self) -> None:
        super().__init__(
            SamConfig(
                "made-up",
                ViTConfig(32, 1, 2, ()),
                embed_dim=32,
                decoder_heads=4,
                decoder_mlp_dim=64,
                proposal=ProposalConfig((16, 8, 8)),
            )
        )
        self.eval()
        cells = torch.arange(256) * 4 + 1.5
        off = ((cells - 102.4) / 204.8).round().clamp(0, 4) * 204.8 + 102.4 - cells
        self.far = torch.hypot(off[:, None], off[None])  # px from the nearest disc

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode nothing."""
        return torch.zeros(len(pixels), 32, 64, 64)

    def prepare(self, embedding: torch.Tensor, **_others: Any) -> Any:
        """Prepare nothing."""
        return Prepared(embedding, (64, 64))

    def propose(self, _embedding: Any, *_others: Any) -> torch.Tensor:
        """Return the maps of the discs."""
        inside = self.far < 20
        centre = torch.where(inside, self.far / 20, 1.0)
        border = torch.where(inside, 1 - (20 - self.far) / 20, 1.0)
        return torch.stack([inside.float(), centre, border])[None]

    def decode(self, embedding: Any, **prompts: Any) -> Any:
        """Return the disc under the first point, three times."""
        points = prompts["points"][:, 0]
        cells = torch.arange(256) * 4 + 1.5
        middle = ((points - 102.4) / 204.8).round().clamp(0, 4) * 204.8 + 102.4
        height, width = (4 * n for n in embedding.size)
        origins = np.resize(embedding.origins, (len(points), 2)) * 4
        found = []
        for (x, y), (top, left) in zip(middle, origins.tolist(), strict=True):
            rows, columns = cells[top : top + height], cells[left : left + width]
            far = torch.hypot((rows - y)[:, None], (columns - x)[None])
            found.append((20 - far).clamp(-8, 8))
        n = 3 if prompts.get("multimask", True) else 1
        logits = torch.stack(found)[:, None].repeat(1, n, 1, 1)
        return logits, torch.full((len(points), n), 0.9)


class Counted:
    """Counts calls of a network, and the CPU time of its answers."""

    def __init__(self, model: Sam) -> None:
        self.calls = dict.fromkeys(("encode", "place", "prepare", "decode"), 0)
        self.answers_s = 0.0
        for name in self.calls:
            setattr(model, name, self._counted(name, getattr(model, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls[name] += 1
            start = time.process_time()
            found = call(*arguments, **options)
            if name in ("place", "decode") or options.get("masks") is not None:
                self.answers_s += time.process_time() - start
            return found

        return counted


def cost(options: argparse.Namespace) -> dict[str, Any]:
    """Follow objects through a drawn stack; count and time."""
    volume = np.stack(list(drawn_volume(options.slices[0])))
    image, cache = ImageSource(volume, "ZYX"), EmbeddingCache()
    model, middle = load_model(options.model), len(volume) // 2
    intensity = find_intensity(image)
    report: dict[str, Any] = {}

    def follow(what: str, planes: StackPlanes, *places: tuple[int, int]) -> None:
        counted = Counted(model)
        start = time.process_time()
        n = 0
        for place in places:
            prompts = {middle: Prompts([place])}
            n += len(run(propagate_in(planes, prompts), progress=False).slices)
        ms = 1e3 * (time.process_time() - start) / n
        answers_ms = 1e3 * counted.answers_s / n
        report[what] = {"slices": n} | counted.calls
        report[what] |= {"ms": ms, "answer ms": answers_ms, "ratio": ms / answers_ms}
        print(what, {k: round(v, 2) for k, v in report[what].items()}, flush=True)
        for name in counted.calls:
            delattr(model, name)

    first, again = (
        open_stack(image, model, cache=cache, intensity=intensity) for _ in range(2)
    )
    follow("not embedded", first, (512, 512))
    follow("embedded", again, (512, 512))
    follow("other objects", again, (512, 717), (307, 512), (717, 307))
    return report


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of the whole command, by number of slices."""
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in options.slices:
            path = Path(folder) / f"drawn{n}.tif"
            tifffile.imwrite(
                path,
                drawn_volume(n),
                shape=(n, 1024, 1024),
                dtype=np.uint8,
                metadata={"axes": "ZYX"},
                photometric="minisblack",
                # a file that is not compressed is mapped, and pages of it that are
                # read count as memory of the process
                compression="zlib",
            )
            command = [sys.executable, "-m", "benchmarks.stacks", "one", str(path)]
            ended = subprocess.run(command, check=True, stdout=subprocess.PIPE)
            report[str(n)] = json.loads(ended.stdout.splitlines()[-1])
            print(n, "slices:", report[str(n)], flush=True)
    peaks = [facts["peak_mib"] for facts in report.values()]
    print(f"largest over smallest peak: {max(peaks) / min(peaks):.3f}")
    return report


def one(options: argparse.Namespace) -> None:
    """Segment and link one file; print time and peak memory."""
    start = time.perf_counter()
    (outputs,) = plan_outputs([options.path], options.path.parent)
    report = run(segment_stack(options.path, outputs, MadeUp()), progress=False)
    facts = {
        "objects": report.n_objects,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_mib": round(peak_mib()),
    }
    print(json.dumps(facts))


def main() -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for what, function in (
        ("quality", quality),
        ("cost", cost),
        ("memory", memory),
        ("one", one),
    ):
        command = commands.add_parser(what, help=function.__doc__)
        command.set_defaults(function=function)
        if what in ("quality", "cost"):
            command.add_argument("--model", help="default: the weights of the package")
        if what == "quality":
            command.add_argument("data", type=Path, help="folder of the annotated data")
            command.add_argument("--only", nargs="+", choices=STACKS)
            command.add_argument(
                "--most", type=int, default=12, help="objects clicked in each stack"
            )
            command.add_argument(
                "--figures",
                nargs="+",
                choices=("links", "automatic", "clicks", "planes"),
                default=["links", "automatic", "clicks"],
                help="default: all but three planes; links does without the network",
            )
            command.add_argument(
                "--correction", choices=("click", "box"), default="click"
            )
            command.add_argument(
                "--whole", action="store_true", help="three planes of the whole stack"
            )
            command.add_argument(
                "--crop", type=int, help="only so many first rows and columns"
            )
            command.add_argument(
                "--cache", type=Path, help="folder of embeddings; default: in memory"
            )
        if what in ("cost", "memory"):
            default = [16] if what == "cost" else [64, 256]
            command.add_argument("--slices", nargs="+", type=int, default=default)
        if what == "one":
            command.add_argument("path", type=Path)
        else:
            command.add_argument("--output", type=Path)
    options = parser.parse_args()
    report = options.function(options)
    if report is not None and options.output is not None:
        options.output.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
