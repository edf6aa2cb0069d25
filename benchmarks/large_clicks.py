"""Clicks in images that are far too large to be encoded at once.

    python -m benchmarks.large_clicks first --side 30000
    python -m benchmarks.large_clicks reopen --side 20000

``first`` clicks into a made-up BigTIFF (`benchmarks.mosaic`) of which nothing is
embedded, then a second and a third time into the same crop, and compares with the
encoder and the decoder alone. ``reopen`` opens an image of which every crop is stored,
in a process of its own, and clicks. There the crops are filled in with random numbers
in place of the encoder's, as encoding takes many minutes: what is on disk has the same
format, and reading it takes the same time; the store is in the files' cache then, as it
is after embedding.

Times are in milliseconds with the model in memory and warm: wall clock, or with
``--clock cpu`` the time of all threads of the process, for a machine that is busy with
other work. ``open`` ends when a click can be asked: file opened, contrast limits found,
pixels fingerprinted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.mosaic import squares, write_mosaic
from benchmarks.process import CLOCKS
from napari_sam import load_model, run
from napari_sam.cache import EmbeddingCache
from napari_sam.engine.embed import PlaneEmbedding, open_plane
from napari_sam.engine.predict import Predictor
from napari_sam.model import Sam
from napari_sam.prompts import Prompts

ROUNDS = 5

clock = CLOCKS["wall"]


def main() -> None:
    """Make the image if need be, and run a step in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("first", "reopen"))
    parser.add_argument("--side", type=int, default=30_000)
    parser.add_argument("--folder", type=Path, help="pictures; default: scikit-image's")
    parser.add_argument("--weights", default="default", help="name or file")
    parser.add_argument("--out", type=Path, help="where to keep image and store")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--inner", choices=STEPS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    global clock
    clock = CLOCKS[arguments.clock]
    if arguments.inner is not None:
        STEPS[arguments.inner](arguments.out, arguments.side, arguments.weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        image = out / f"slide{arguments.side}.tif"
        if not image.exists():
            write_mosaic(image, arguments.side, squares(arguments.folder))
        for step in ("first",) if arguments.step == "first" else ("fill", "reopen"):
            command = [sys.executable, "-m", "benchmarks.large_clicks", arguments.step]
            command += ["--inner", step, "--out", str(out)]
            command += ["--side", str(arguments.side), "--weights", arguments.weights]
            command += ["--clock", arguments.clock]
            subprocess.run(command, check=True)


def first(out: Path, side: int, weights: str) -> None:
    """Click three times; then time encoder and decoder alone."""
    model = warm(weights)
    image = out / f"slide{side}.tif"
    facts: dict[str, Any] = {"what": "first", "side": side}
    with tempfile.TemporaryDirectory(dir=out) as store:
        with timed(facts, "open_ms"):
            embedding = open_plane(image, model, cache=EmbeddingCache(store))
        predictor = Predictor(model, embedding)
        crop = embedding.grid[len(embedding.grid) // 2]
        y, x = crop.box.y0 + crop.box.height // 2, crop.box.x0 + crop.box.width // 2
        for number, name in enumerate(("first", "second", "third")):
            point = [[y + 40 * number, x + 30 * number]]
            with timed(facts, f"{name}_click_ms"):
                predictor.predict(Prompts(points=point))
        add_network(facts, model, embedding)
    facts["first_click_minus_encoder_ms"] = (
        facts["first_click_ms"] - facts["encoder_ms"]
    )
    facts["second_click_minus_decoder_ms"] = (
        facts["second_click_ms"] - facts["decoder_ms"]
    )
    show(facts)


def fill(out: Path, side: int, weights: str) -> None:
    """Store random numbers for every crop."""
    model = load_model(weights, device="cpu")
    rng = torch.Generator().manual_seed(0)
    some = torch.randn(4, *model.embedding_shape, generator=rng)
    model.encode = lambda x: some[torch.randint(4, (len(x),), generator=rng)]  # type: ignore[method-assign]
    embedding = open_plane(
        out / f"slide{side}.tif", model, cache=EmbeddingCache(out / "store")
    )
    facts: dict[str, Any] = {"what": "fill", "crops": len(embedding.grid)}
    with timed(facts, "everything_but_encoder_ms"):
        run(embedding.fill())
    facts["ms_per_crop"] = facts["everything_but_encoder_ms"] / facts["crops"]
    show(facts)


def reopen(out: Path, side: int, weights: str) -> None:
    """Open an embedded image and click."""
    model = warm(weights)
    encoded = count_encoded(model)
    facts: dict[str, Any] = {"what": "reopen", "side": side}
    with timed(facts, "open_ms"):
        cache = EmbeddingCache(out / "store")
        embedding = open_plane(out / f"slide{side}.tif", model, cache=cache)
    n_missing = len(embedding.missing())
    with timed(facts, "first_click_ms"):
        point = [[side // 2 + 7, side // 2 + 9]]
        Predictor(model, embedding).predict(Prompts(points=point))
    facts |= {"missing": n_missing, "encoded": encoded()}
    facts["open_and_click_ms"] = facts["open_ms"] + facts["first_click_ms"]
    show(facts)


def warm(weights: str) -> Sam:
    """Load a model and let it encode and decode once."""
    model = load_model(weights, device="cpu")
    size = model.config.image_size
    noise = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    embedding = open_plane(noise, model)
    Predictor(model, embedding).predict(Prompts(points=[[size // 2, size // 2]]))
    return model


def count_encoded(model: Sam) -> Callable[[], int]:
    """Count the crops that are encoded from now on."""
    counts, encode = [0], model.encode

    def counted(x: torch.Tensor) -> torch.Tensor:
        counts[0] += len(x)
        return encode(x)

    model.encode = counted  # type: ignore[method-assign]
    return lambda: counts[0]


@torch.inference_mode()
def add_network(facts: dict[str, Any], model: Sam, embedding: PlaneEmbedding) -> None:
    """Time the encoder, and the decoder on a prepared embedding; medians."""
    size = model.config.image_size
    crop = torch.rand(1, 3, size, size)
    prepared = model.prepare(embedding.of(embedding.grid[len(embedding.grid) // 2]))
    point, label = torch.tensor([[[size / 2, size / 2]]]), torch.ones(1, 1)
    facts["encoder_ms"] = median(lambda: model.encode(crop))
    facts["prepare_ms"] = median(
        lambda: model.prepare(embedding.of(embedding.grid[len(embedding.grid) // 2]))
    )
    facts["decoder_ms"] = median(
        lambda: model.decode(prepared, points=point, labels=label)
    )


def median(work: Callable[[], Any]) -> float:
    """Return the median of a few runs, in milliseconds."""
    times = []
    for _ in range(ROUNDS):
        start = clock()
        work()
        times.append(1e3 * (clock() - start))
    return float(np.median(times))


@contextmanager
def timed(facts: dict[str, Any], name: str) -> Iterator[None]:
    """Put the milliseconds of a block among the facts."""
    start = clock()
    yield
    facts[name] = 1e3 * (clock() - start)


def show(facts: dict[str, Any]) -> None:
    """Print a line of JSON."""
    rounded = {k: round(v, 1) if isinstance(v, float) else v for k, v in facts.items()}
    print(json.dumps(rounded), flush=True)


STEPS = {"first": first, "fill": fill, "reopen": reopen}

if __name__ == "__main__":
    main()
