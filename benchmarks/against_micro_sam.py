"""Embed a large image, and open it again: this package and micro-sam side by side.

    python -m benchmarks.against_micro_sam --python ENVIRONMENT/bin/python --side 4096

ENVIRONMENT has torch and micro-sam (`pip install torch==2.13.0 micro-sam`, or
micro-sam without its dependencies and those that ``import micro_sam.util`` asks for).
Both get the same made-up image (`benchmarks.mosaic`), the same random weights of a
ViT-B in float32, tiles of 768 px with a halo of 128 px, and a folder on the same disk.
Each step is a process of its own. Printed are wall clock, CPU time, peak memory, crops,
bytes on disk; then, opened again, the time to the answer to one click. For the default
model of this package, which is smaller, give ``--also-default``.

Where torchvision is missing, as its build is tied to one of torch, the two functions
of it that micro-sam needs are given here, with PIL as torchvision does it.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TILE, HALO = 768, 128


def main() -> None:
    """Run each step in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="python of an environment with micro-sam")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--also-default", action="store_true")
    parser.add_argument("--out", type=Path, help="where to keep the files")
    parser.add_argument("--inner", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner is not None:
        STEPS[arguments.inner](arguments.out, arguments.side, arguments.weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        prepare(out, arguments.side)
        for store in ("micro.zarr", "store_vit_b", "store_default"):
            shutil.rmtree(out / store, ignore_errors=True)
        steps = [(sys.executable, each, "vit_b.pth") for each in ("embed", "reopen")]
        if arguments.python:
            micro = ("micro_embed", "micro_reopen")
            steps += [(arguments.python, each, "vit_b.pth") for each in micro]
        if arguments.also_default:
            steps += [(sys.executable, each, "default") for each in ("embed", "reopen")]
        for python, step, weights in steps:
            command = [python, "-m", "benchmarks.against_micro_sam", "--inner", step]
            command += ["--out", str(out), "--side", str(arguments.side)]
            subprocess.run([*command, "--weights", weights], check=True)


def prepare(out: Path, side: int) -> None:
    """Make image and weights."""
    import torch

    from benchmarks.mosaic import squares, write_mosaic
    from napari_sam.model import VARIANTS, Sam

    if not (out / f"slide{side}.tif").exists():
        write_mosaic(out / f"slide{side}.tif", side, squares(None))
    if not (out / "vit_b.pth").exists():
        torch.manual_seed(0)
        torch.save(Sam(VARIANTS["vit_b"]).state_dict(), out / "vit_b.pth")


def embed(out: Path, side: int, weights: str) -> None:
    """Embed with this package."""
    from napari_sam import run
    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.embed import open_plane

    model = _ours(out, weights)
    start = Clock()
    store = out / f"store_{Path(weights).stem}"
    embedding = open_plane(out / f"slide{side}.tif", model, cache=EmbeddingCache(store))
    run(embedding.fill())
    start.report(f"napari_sam embed {weights}", len(embedding.grid), store)


def reopen(out: Path, side: int, weights: str) -> None:
    """Open what `embed` stored, and click."""
    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.embed import open_plane
    from napari_sam.engine.predict import Predictor
    from napari_sam.prompts import Prompts

    model = _ours(out, weights)
    start = Clock()
    store = out / f"store_{Path(weights).stem}"
    embedding = open_plane(out / f"slide{side}.tif", model, cache=EmbeddingCache(store))
    Predictor(model, embedding).predict(Prompts(points=[[side // 2, side // 2]]))
    start.report(f"napari_sam reopen and click {weights}", len(embedding.grid), store)


def micro_embed(out: Path, side: int, weights: str) -> None:
    """Embed with micro-sam."""
    _give_torchvision()
    import tifffile
    from micro_sam import util

    predictor = util.get_sam_model("vit_b", "cpu", out / weights)
    image = tifffile.imread(out / f"slide{side}.tif")
    start = Clock()
    found = util.precompute_image_embeddings(
        predictor,
        image,
        save_path=out / "micro.zarr",
        ndim=2,
        tile_shape=(TILE, TILE),
        halo=(HALO, HALO),
        verbose=False,
    )
    n_crops = len(list(found["features"].array_keys()))
    start.report("micro-sam embed", n_crops, out / "micro.zarr")


def micro_reopen(out: Path, side: int, weights: str) -> None:
    """Open what `micro_embed` stored, and click."""
    _give_torchvision()
    import numpy as np
    import tifffile
    from micro_sam import util
    from micro_sam.prompt_based_segmentation import segment_from_points

    predictor = util.get_sam_model("vit_b", "cpu", out / weights)
    start = Clock()
    image = tifffile.imread(out / f"slide{side}.tif")
    found = util.precompute_image_embeddings(
        predictor,
        image,
        save_path=out / "micro.zarr",
        lazy_loading=True,
        ndim=2,
        tile_shape=(TILE, TILE),
        halo=(HALO, HALO),
        verbose=False,
    )
    point = np.array([[side // 2, side // 2]])
    segment_from_points(predictor, point, np.array([1]), image_embeddings=found)
    n_crops = len(list(found["features"].array_keys()))
    start.report("micro-sam reopen and click", n_crops, out / "micro.zarr")


def _ours(out: Path, weights: str):
    from napari_sam import load_model

    name = str(out / weights) if weights.endswith(".pth") else weights
    return load_model(name, device="cpu", precision="float32")


class Clock:
    """Wall clock and CPU time since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def report(self, what: str, n_crops: int, store: Path) -> None:
        """Print a line of JSON."""
        size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        facts = {
            "what": what,
            "wall_s": round(time.perf_counter() - self.wall, 2),
            "cpu_s": round(time.process_time() - self.cpu, 2),
            "peak_mib": round(peak),
            "crops": n_crops,
            "stored_mib": round(size / 2**20, 1),
        }
        print(json.dumps(facts), flush=True)


def _give_torchvision() -> None:
    """Stand in for torchvision, if it is not there."""
    from importlib.util import find_spec

    if find_spec("torchvision") is not None:
        return
    from PIL import Image

    class Part(types.ModuleType):
        """A module from which any class can be imported; none does anything."""

        __path__: list[str] = []  # noqa: RUF012 - as import expects it

        def __getattr__(self, name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    names = ("", ".ops", ".ops.boxes", ".ops.misc", ".datasets", ".utils")
    for name in (*names, ".transforms", ".transforms.functional"):
        sys.modules[f"torchvision{name}"] = Part(f"torchvision{name}")
    functional = sys.modules["torchvision.transforms.functional"]
    functional.to_pil_image = Image.fromarray  # type: ignore[attr-defined]
    functional.resize = lambda picture, size: picture.resize(  # type: ignore[attr-defined]
        size[::-1], Image.Resampling.BILINEAR
    )


STEPS = {
    "embed": embed,
    "reopen": reopen,
    "micro_embed": micro_embed,
    "micro_reopen": micro_reopen,
}

if __name__ == "__main__":
    main()
