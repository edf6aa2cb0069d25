"""Measure the table of speeds: ours against its peers, side by side.

Each part takes turns with its peer in one process, on the same weights; the ratio is
the median of the rounds. Random weights are fine for speed. What needs a GPU is
measured where there is one, and said to be missing elsewhere.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.encoder_decoder import measure, networks, synchronise
from benchmarks.process import CLOCKS
from napari_sam import load_model, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import open_plane
from napari_sam.engine.grid_masks import GridMode, grid_candidates
from napari_sam.engine.jobs import Step, with_step
from napari_sam.engine.predict import Predictor
from napari_sam.masks import mask_iou
from napari_sam.model import VARIANTS, Sam
from napari_sam.model.config import TinyViTConfig
from napari_sam.model.tiny_vit import TinyViT
from napari_sam.prompts import Prompts
from napari_sam.tiling import Box
from tests.engine import test_automatic_parity as blobs
from tests.model.test_tiny_vit import renamed, trunk
from tests.reference import load, randomise, reference_sam

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from napari_sam.masks import Candidate

SIZE = 1024
PRECISIONS = ("float32", "bfloat16")
_STEP = Step(0, 1, "search")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes
    ----------
    what, against : str
        What was measured, and what with.
    must, aim : float
        Targets: ratios to be reached, or, where `unit` is seconds, not exceeded.
    unit : str
        ``x`` (peer over ours), ``s``, ``1/s`` or ``ms``.
    measured : float or None
        None where it could not be measured here; `note` says why.
    note : str
        Times behind a ratio, difference of the answers.
    """

    what: str
    against: str
    must: float
    aim: float
    unit: str
    measured: float | None
    note: str = ""

    @property
    def is_reached(self) -> bool | None:
        """Whether what must be is; None if it was not measured."""
        if self.measured is None:
            return None
        if self.unit in ("s", "ms"):
            return self.measured <= self.must
        return self.measured >= self.must


@dataclass(frozen=True, slots=True)
class Setting:
    """How to measure: rounds, clock (``wall`` or ``cpu``), Python of micro-sam."""

    rounds: int = 3
    clock: str = "wall"
    micro_sam: str | None = None


def ratio(
    ours: Callable[[], Tensor], theirs: Callable[[], Tensor], how: Setting
) -> tuple[float, str]:
    """Return how many times faster ours is, and the times and difference in words."""
    found = measure("", ours, theirs, rounds=how.rounds, clock=CLOCKS[how.clock])
    own, other = (
        1e3 * statistics.median(times) for times in (found.ours_s, found.reference_s)
    )
    note = f"{own:.1f} against {other:.1f} ms, difference {found.difference:.1e}"
    return found.ratio, note


def encoder(how: Setting) -> Iterator[Row]:
    """ViT-B: speed and memory."""
    ours, reference = networks("vit_b", device="cpu", precision="float32")
    x = torch.randn(1, 3, SIZE, SIZE)
    targets = {"float32": (1.5, 1.8), "bfloat16": (2.8, 3.6)}
    for precision, (must, aim) in targets.items():
        ours.precision = precision
        found = ratio(lambda: ours.encode(x), lambda: reference.image_encoder(x), how)
        name = f"ViT-B encoder {precision}"
        yield Row(name, "segment-anything float32", must, aim, "x", *found)
    ours_mib, theirs_mib = (
        float(_fresh(f"benchmarks.peak_memory {who}")) for who in ("ours", "reference")
    )
    note = f"{ours_mib:.0f} against {theirs_mib:.0f} MiB above the weights, float32"
    yield Row(
        "ViT-B encoder, transient memory",
        "segment-anything float32",
        8,
        12,
        "x",
        theirs_mib / ours_mib,
        note,
    )


def tiny_vit(how: Setting) -> Iterator[Row]:
    """TinyViT's trunk against timm's."""
    torch.manual_seed(0)
    theirs = load("timm").create_model("tiny_vit_5m_224", num_classes=1000)
    theirs.stages[3].downsample.conv2.conv.stride = (1, 1)  # as MobileSAM has it
    randomise(theirs)
    theirs.eval()
    ours = TinyViT(TinyViTConfig()).eval()
    state = {renamed(name): value for name, value in theirs.state_dict().items()}
    ours.load_state_dict(state, strict=False)
    x = torch.randn(1, 3, SIZE, SIZE)

    def own(precision: str) -> Tensor:
        last = x.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return trunk(ours, last)

    for precision, must, aim in (("float32", 1.75, 2.2), ("bfloat16", 3.4, 4.5)):
        found = ratio(partial(own, precision), lambda: theirs.forward_features(x), how)
        name = f"TinyViT encoder {precision}"
        yield Row(name, "timm float32", must, aim, "x", *found)


def drawing_blobs(precision: str = "float32") -> tuple[Sam, Any]:
    """Networks with the decoder of SAM, hardly an encoder, and masks like objects.

    Random weights would draw over the whole crop, which no object does.
    """
    torch.manual_seed(0)
    config = replace(blobs.CONFIG, image_size=SIZE, decoder_mlp_dim=2048)
    reference = reference_sam(config)
    with torch.no_grad():
        blobs.set_blob_weights(reference)
    ours = Sam(config).eval()
    ours.load_state_dict(reference.state_dict(), strict=True)
    ours.precision = precision
    return ours, reference


def prompts(how: Setting) -> Iterator[Row]:
    """Points on an embedded crop, from coordinates to masks in the plane."""
    ours, reference = drawing_blobs()
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    theirs = load("segment_anything").SamPredictor(reference)
    theirs.set_image(image)
    points = np.random.default_rng(1).uniform(8, SIZE - 8, (64, 2)).round()
    tensors = (torch.tensor(points)[:, None].flip(-1), torch.ones(64, 1))
    plane = open_plane(image, ours)

    def one() -> Tensor:
        _, scores, _ = theirs.predict(points[:1, ::-1], np.ones(1))
        return torch.from_numpy(scores)

    def many() -> Tensor:
        low: Tensor = theirs.predict_torch(*tensors)[2]
        return low

    for precision in PRECISIONS:
        ours.precision = precision
        predictor = Predictor(ours, plane)

        def click(predictor: Predictor = predictor) -> Tensor:
            found = predictor.predict(Prompts(points=points[:1]))
            return torch.from_numpy(found.predicted_iou)

        def clicks(predictor: Predictor = predictor) -> Tensor:
            found = predictor.predict_many([Prompts(points=[p]) for p in points])
            return torch.from_numpy(np.stack([each.logits for each in found]))

        must, aim = {"float32": (2.6, 4), "bfloat16": (5, 8)}[precision]
        found = ratio(click, one, replace(how, rounds=3 * how.rounds))
        name = f"one point prompt, {precision}"
        yield Row(name, "SamPredictor.predict", must, aim, "x", *found)
        must, aim = {"float32": (5, 6), "bfloat16": (8.5, 12)}[precision]
        found = ratio(clicks, many, replace(how, rounds=max(1, how.rounds // 3)))
        name = f"64 point prompts, {precision}"
        yield Row(name, "SamPredictor.predict_torch", must, aim, "x", *found)


def automatic(how: Setting) -> Iterator[Row]:
    """All masks of a crop from 16 x 16 points, by weights that draw blobs."""
    ours, reference = drawing_blobs()
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    mode = replace(blobs.MODE, points_per_side=16)
    plane = open_plane(image, ours)
    (crop,) = plane.grid
    generator = load("segment_anything").SamAutomaticMaskGenerator(
        reference,
        points_per_side=16,
        pred_iou_thresh=mode.min_predicted_iou,
        stability_score_thresh=mode.min_stability,
        box_nms_thresh=mode.box_nms,
    )
    clock = CLOCKS[how.clock]
    expected, theirs_s = _timed(lambda: generator.generate(image), clock)
    masks = [record["segmentation"] for record in expected]
    for precision, must, aim in (("float32", 5, 6), ("bfloat16", 11, 14)):
        ours.precision = precision
        embedding = plane.of(crop)

        def search(embedding: Tensor = embedding) -> list[Candidate]:
            whole = Box.whole((SIZE, SIZE))
            work = grid_candidates(ours, lambda _: embedding, crop, whole, mode)
            return run(with_step(_STEP, work), progress=False)

        found, ours_s = _timed(search, clock)
        agreed = sum(
            any(
                mask_iou(c.within(Box.whole((SIZE, SIZE))), mask) >= 0.99
                for mask in masks
            )
            for c in found
        )
        note = (
            f"{ours_s:.2f} against {theirs_s:.2f} s; {len(found)} against {len(masks)} "
            f"masks, {agreed} the same"
        )
        yield Row(
            f"automatic masks, 16 x 16 points, {precision}",
            "SamAutomaticMaskGenerator",
            must,
            aim,
            "x",
            theirs_s / ours_s,
            note,
        )


def around(how: Setting) -> Iterator[Row]:
    """What a crop costs beside its encoder: read, normalise, keep in the store."""
    model = load_model(device="cpu")
    side = 3 * SIZE
    values = torch.randn(1, *model.embedding_shape)
    model.encode = lambda x: values.expand(len(x), -1, -1, -1)  # type: ignore[method-assign]
    image = np.random.default_rng(0).integers(0, 4000, (side, side), np.uint16)
    with tempfile.TemporaryDirectory() as folder:
        plane = open_plane(image, model, cache=EmbeddingCache(Path(folder)))
        _, seconds = _timed(lambda: run(plane.fill()), CLOCKS[how.clock])
    each = seconds / len(plane.grid)
    note = f"{len(plane.grid)} crops of {side} x {side} px, 16 bit"
    yield Row(
        "everything but the encoder, per crop",
        "micro-sam 0.6 s",
        0.05,
        0.05,
        "s",
        each,
        note,
    )


def default_model(how: Setting) -> Iterator[Row]:
    """A click on a crop that was not encoded before."""
    model = load_model(device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE), np.uint8)

    def first_click() -> None:
        predictor = Predictor(model, open_plane(image, model))
        predictor.predict(Prompts(points=[(500, 500)]))

    first_click()
    seconds = [_timed(first_click, CLOCKS[how.clock])[1] for _ in range(how.rounds)]
    yield Row(
        "default model, encoder and one click",
        "",
        1.2,
        0.5,
        "s",
        statistics.median(seconds),
        model.precision,
    )


def imports(how: Setting) -> Iterator[Row]:
    """Import of the library, in fresh processes."""
    clock = {"wall": "perf_counter", "cpu": "process_time"}[how.clock]
    code = f"from time import {clock} as c; a = c(); import napari_sam; print(c() - a)"
    command = [sys.executable, "-c", code]
    seconds = [
        float(subprocess.run(command, check=True, capture_output=True).stdout)
        for _ in range(how.rounds)
    ]
    yield Row(
        "import napari_sam",
        "micro-sam 4.8 s",
        0.3,
        0.3,
        "s",
        statistics.median(seconds),
    )


def micro_sam(how: Setting) -> Iterator[Row]:
    """Embeddings of a plane, same ViT-B weights in float32, both with their store."""
    name = "embeddings of 2048 x 2048"
    found, note = None, "give --micro-sam PYTHON, of an environment that has it"
    if how.micro_sam is not None:
        module = (
            f"benchmarks.against_micro_sam embed --python {how.micro_sam} --side 2048 "
            f"--threads {torch.get_num_threads()}"
        )
        lines = [json.loads(each) for each in _fresh(module).splitlines()]
        clock = f"{how.clock}_s"
        ours, theirs = (
            next(each for each in lines if each["what"].startswith(start))
            for start in ("napari_sam embed", "micro-sam embed")
        )
        found = theirs[clock] / ours[clock]
        words = [
            f"{each[clock]:.1f} s, {each['crops']} crops, peak {each['peak_mib']} MiB, "
            f"{each['rest_s_per_crop']} s a crop beside the encoder"
            for each in (ours, theirs)
        ]
        note = " against ".join(words)
    yield Row(name, "micro-sam", 2.5, 3, "x", found, note)


def gpu(how: Setting) -> Iterator[Row]:
    """Rates of a GPU; the targets are those of an H200."""
    targets = {"vit_b": (400, 500), "vit_h": (70, 84), "vit_t": (800, 1500)}
    has_gpu = torch.cuda.is_available()
    note = torch.cuda.get_device_name() if has_gpu else "no CUDA device here"
    for name, (must, aim) in targets.items():
        rate = _crops_per_second(name, how.rounds) if has_gpu else None
        yield Row(f"GPU: {name} encoder bfloat16", "", must, aim, "1/s", rate, note)
        if name == "vit_b":
            found = _against_eager(how) if has_gpu else (None, note)
            peer = "segment-anything float32"
            yield Row("GPU: vit_b encoder, times the peer", peer, 10, 10, "x", *found)
            share = None if rate is None else 100 * _sweep_per_second() / rate
            what = "GPU: sweep, share of the encoder alone"
            yield Row(what, "", 80, 90, "%", share, note)
    click_ms = masks_ms = None
    if has_gpu:
        model = drawing_blobs("bfloat16")[0].cuda()
        image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        plane = open_plane(image, model)
        predictor, point = Predictor(model, plane), Prompts(points=[(500, 500)])
        (crop,) = plane.grid
        mode = GridMode(min_predicted_iou=-9.0, min_stability=0.0)

        def search() -> None:
            whole = Box.whole((SIZE, SIZE))
            work = grid_candidates(model, plane.of, crop, whole, mode)
            run(with_step(_STEP, work), progress=False)

        for _ in range(3):
            predictor.predict(point)
        click_ms, masks_ms = (
            1e3 * min(_timed(work, CLOCKS["wall"])[1] for _ in range(how.rounds))
            for work in (lambda: predictor.predict(point), search)
        )
    yield Row("GPU: point to mask on a cached crop", "", 3, 1, "ms", click_ms, note)
    yield Row("GPU: automatic masks, 1024 points", "", 120, 50, "ms", masks_ms, note)


def _crops_per_second(name: str, rounds: int, batch: int = 16) -> float:
    model = Sam(VARIANTS[name]).eval().cuda()
    model.precision = "bfloat16"
    x = torch.randn(batch, 3, SIZE, SIZE, device="cuda")
    model.encode(x)
    times = [_timed(lambda: model.encode(x), CLOCKS["wall"])[1] for _ in range(rounds)]
    return batch / min(times)


def _against_eager(how: Setting) -> tuple[float, str]:
    """How many times faster than the reference on a GPU, four crops at once."""
    ours, reference = networks("vit_b", device="cuda", precision="bfloat16")
    x = torch.randn(4, 3, SIZE, SIZE, device="cuda")
    return ratio(lambda: ours.encode(x), lambda: reference.image_encoder(x), how)


def _sweep_per_second(side: int = 8192) -> float:
    """Crops a second from pixels to the store, ViT-B in bfloat16."""
    model = Sam(VARIANTS["vit_b"]).eval().cuda()
    model.precision = "bfloat16"
    image = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        plane = open_plane(image, model, cache=EmbeddingCache(Path(folder)))
        plane.of(plane.grid[0])  # loads what is needed once
        n = len(plane.grid) - 1
        return n / _timed(lambda: run(plane.fill()), CLOCKS["wall"])[1]


def _timed(work: Callable[[], Any], clock: Callable[[], float]) -> tuple[Any, float]:
    synchronise()
    start = clock()
    result = work()
    synchronise()
    return result, clock() - start


def _fresh(module: str) -> str:
    """Run a module in a process that has done nothing else; return what it prints."""
    command = [sys.executable, "-m", *module.split()]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout


PARTS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "encoder": encoder,
    "tiny_vit": tiny_vit,
    "prompts": prompts,
    "automatic": automatic,
    "micro_sam": micro_sam,
    "around": around,
    "imports": imports,
    "default_model": default_model,
    "gpu": gpu,
}
