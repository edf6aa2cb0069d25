"""Import, dock, embedding and reopening: this package and micro-sam side by side.

    python -m benchmarks.against_micro_sam --python ENVIRONMENT/bin/python --side 4096

ENVIRONMENT has micro-sam and this repository's torch (`pip install torch==2.13.0
micro-sam`). Each step is a process of its own, on one thread unless ``--threads`` says
otherwise, and prints a line of JSON: wall clock, CPU time of the process, peak memory.

``embed`` gives both the same made-up image (`benchmarks.mosaic`), the same random
weights of a ViT-B in float32, tiles of 768 px with a halo of 128 px, and a folder on
the same disk; ``--precision bfloat16`` lets ours compute as it does by itself on a CPU
that multiplies in bfloat16. It also says how much of the time is not the encoder's, for
each crop (exact on one thread). ``reopen`` opens what ``embed`` stored and answers one
click. With ``--also-default`` the default model of this package, which is smaller, has
its turn too.

``import`` imports what embedding and prompting need. ``dock`` opens the dock in a
window of napari that shows an image; it needs napari with Qt in both environments, and
a display (`xvfb-run -a -s "-screen 0 1600x1000x24" python -m ...`).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.process import peak_mib

if TYPE_CHECKING:
    from collections.abc import Callable

TILE, HALO = 768, 128
PARTS = ("import", "dock", "embed", "reopen")


def main() -> None:
    """Run each step in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", help=f"of {PARTS}; default: the last two")
    parser.add_argument("--python", help="python of an environment with micro-sam")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", default="float32", help="of this package")
    parser.add_argument("--also-default", action="store_true")
    parser.add_argument("--out", type=Path, help="where to keep the files")
    parser.add_argument("--inner", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="vit_b.pth", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inner is not None:
        os.environ["NAPARI_SAM_PRECISION"] = given.precision
        STEPS[given.inner](given.out, given.side, given.weights)
        return
    parts = given.parts or ["embed", "reopen"]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {sorted(unknown)}; the parts are {', '.join(PARTS)}")
    with tempfile.TemporaryDirectory() as folder:
        out = given.out or Path(folder)
        out.mkdir(parents=True, exist_ok=True)
        if "embed" in parts:
            for store in ("micro.zarr", "store_vit_b", "store_default"):
                shutil.rmtree(out / store, ignore_errors=True)
        if {"embed", "reopen"} & set(parts):
            prepare(out, given.side)
        steps = [(sys.executable, part, "vit_b.pth") for part in parts]
        if given.python:
            steps += [(given.python, f"micro_{part}", "vit_b.pth") for part in parts]
        if given.also_default:
            slow = [part for part in parts if part in ("embed", "reopen")]
            steps += [(sys.executable, part, "default") for part in slow]
        for python, step, weights in steps:
            command = [python, "-m", "benchmarks.against_micro_sam", "--inner", step]
            command += ["--out", str(out), "--side", str(given.side)]
            command += ["--precision", given.precision]
            run_alone([*command, "--weights", weights], given.threads)


def run_alone(command: list[str], threads: int) -> None:
    """Run a process that computes on so many threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    limits = dict.fromkeys(names, str(threads))
    subprocess.run(command, check=True, env=os.environ | limits)


def prepare(out: Path, side: int) -> None:
    """Make image and weights."""
    from benchmarks.mosaic import squares, write_mosaic

    if not (out / f"slide{side}.tif").exists():
        write_mosaic(out / f"slide{side}.tif", side, squares(None))
    write_random_weights(out / "vit_b.pth")


def write_random_weights(path: Path) -> None:
    """Write a ViT-B in SAM's layout that nothing was taught, unless it is there."""
    import torch

    from napari_sam.model import VARIANTS, Sam

    if not path.exists():
        torch.manual_seed(0)
        torch.save(Sam(VARIANTS["vit_b"]).state_dict(), path)


def import_(_out: Path, _side: int, _weights: str) -> None:
    """Import this package, then what loads a model, embeds and predicts."""
    clock = Clock()
    import napari_sam

    clock.report("napari_sam import")
    for name in napari_sam.__all__:
        getattr(napari_sam, name)
    clock.report("napari_sam import of all that is public")


def micro_import(_out: Path, _side: int, _weights: str) -> None:
    """Import what loads a model, embeds and predicts."""
    mend_torchvision()  # loads torch, whose time counts for both
    import torch  # noqa: F401

    clock = Clock()
    import micro_sam.util

    clock.report("micro-sam import of micro_sam.util, torch was loaded before")
    import micro_sam.automatic_segmentation
    import micro_sam.multi_dimensional_segmentation
    import micro_sam.prompt_based_segmentation  # noqa: F401

    clock.report("micro-sam import of all of this, torch was loaded before")


def dock(_out: Path, _side: int, _weights: str) -> None:
    """Open the dock of this package."""
    viewer, clock = _window()
    from napari_sam.widgets.dock import SegmentAnything

    _show(viewer, SegmentAnything(viewer))
    clock.report("napari_sam dock")


def micro_dock(_out: Path, _side: int, _weights: str) -> None:
    """Open the 2D annotator of micro-sam."""
    mend_torchvision()
    viewer, clock = _window()
    from micro_sam.sam_annotator.annotator_2d import Annotator2d

    _show(viewer, Annotator2d(viewer))
    clock.report("micro-sam dock, torch was loaded before")


def _window() -> tuple[Any, Clock]:
    import napari
    import numpy as np
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    viewer.add_image(np.zeros((512, 512), np.uint8))
    for _ in range(20):
        QApplication.processEvents()
    return viewer, Clock()


def _show(viewer: Any, widget: Any) -> None:
    from qtpy.QtWidgets import QApplication

    viewer.window.add_dock_widget(widget, name="dock")
    QApplication.processEvents()


def embed(out: Path, side: int, weights: str) -> None:
    """Embed with this package."""
    from napari_sam import run
    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.embed import open_plane

    model = load_ours(out / weights if weights.endswith(".pth") else weights)
    store = out / f"store_{Path(weights).stem}"
    clock = Clock()
    model.encode = clock.apart(model.encode)
    embedding = open_plane(out / f"slide{side}.tif", model, cache=EmbeddingCache(store))
    run(embedding.fill(), progress=False)
    clock.report(f"napari_sam embed {weights}", len(embedding.grid), store)


def reopen(out: Path, side: int, weights: str) -> None:
    """Open what `embed` stored, and click."""
    from napari_sam.cache import EmbeddingCache
    from napari_sam.engine.embed import open_plane
    from napari_sam.engine.predict import Predictor
    from napari_sam.prompts import Prompts

    model = load_ours(out / weights if weights.endswith(".pth") else weights)
    store = out / f"store_{Path(weights).stem}"
    clock = Clock()
    model.encode = clock.apart(model.encode)
    embedding = open_plane(out / f"slide{side}.tif", model, cache=EmbeddingCache(store))
    Predictor(model, embedding).predict(Prompts(points=[[side // 2, side // 2]]))
    clock.report(f"napari_sam reopen and click {weights}", len(embedding.grid), store)


def micro_embed(out: Path, side: int, weights: str) -> None:
    """Embed with micro-sam."""
    predictor = load_theirs(out / weights)
    store = out / "micro.zarr"
    clock = Clock()
    _their_embeddings(predictor, clock, out, side, lazy_loading=False)
    clock.report("micro-sam embed", clock.n_calls, store)


def micro_reopen(out: Path, side: int, weights: str) -> None:
    """Open what `micro_embed` stored, and click."""
    import numpy as np

    predictor = load_theirs(out / weights)
    from micro_sam.prompt_based_segmentation import segment_from_points

    clock = Clock()
    found = _their_embeddings(predictor, clock, out, side, lazy_loading=True)
    point = np.array([[side // 2, side // 2]])
    segment_from_points(predictor, point, np.array([1]), image_embeddings=found)
    n_crops = len(list(found["features"].array_keys()))
    clock.report("micro-sam reopen and click", n_crops, out / "micro.zarr")


def _their_embeddings(
    predictor: Any, clock: Clock, out: Path, side: int, *, lazy_loading: bool
) -> Any:
    import tifffile
    from micro_sam import util

    encoder = predictor.model.image_encoder
    encoder.forward = clock.apart(encoder.forward)
    return util.precompute_image_embeddings(
        predictor,
        tifffile.imread(out / f"slide{side}.tif"),
        save_path=out / "micro.zarr",
        lazy_loading=lazy_loading,
        ndim=2,
        tile_shape=(TILE, TILE),
        halo=(HALO, HALO),
        verbose=False,
    )


def load_ours(weights: str | Path) -> Any:
    """Return weights as a network of this package, on the CPU, in float32 at first."""
    from napari_sam import load_model

    precision = os.environ.get("NAPARI_SAM_PRECISION", "float32")
    return load_model(str(weights), device="cpu", precision=precision)


def load_theirs(weights: Path) -> Any:
    """Return weights of a ViT-B as micro-sam's predictor on the CPU."""
    mend_torchvision()
    from micro_sam import util

    return util.get_sam_model("vit_b", "cpu", weights)


class Clock:
    """Wall clock and CPU time since it was made.

    Attributes
    ----------
    n_calls : int
        Of the function that is timed apart.
    apart_s : float
        CPU time of its threads.
    """

    def __init__(self) -> None:
        self.n_calls, self.apart_s = 0, 0.0
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def apart(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is counted and timed, for an encoder."""

        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.thread_time()
            found = function(*arguments, **options)
            self.apart_s += time.thread_time() - start
            self.n_calls += len(arguments[0])
            return found

        return timed

    def report(self, what: str, n_crops: int = 0, store: Path | None = None) -> None:
        """Print a line of JSON."""
        cpu_s = time.process_time() - self.cpu
        facts = {
            "what": what,
            "wall_s": round(time.perf_counter() - self.wall, 3),
            "cpu_s": round(cpu_s, 3),
            "peak_mib": round(peak_mib()),
        }
        if store is not None:
            files = [path.stat() for path in store.rglob("*") if path.is_file()]
            facts["crops"] = n_crops
            facts["encoder_s"] = round(self.apart_s, 3)
            facts["rest_s_per_crop"] = round((cpu_s - self.apart_s) / n_crops, 3)
            facts["stored_mib"] = round(sum(f.st_size for f in files) / 2**20, 1)
        print(json.dumps(facts), flush=True)


def mend_torchvision() -> None:
    """Let a torchvision be imported that was built for another build of torch.

    It then lacks its operators in C++, of which micro-sam asks for one: the suppression
    of boxes, which is given here. Where torchvision is whole, nothing is done.
    """
    try:
        import torchvision
    except RuntimeError:
        pass
    else:
        return
    import torch

    for name in [each for each in sys.modules if each.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou) -> Tensor")
    library.impl("nms", _suppress, "CPU")
    _kept.append(library)  # an operator lives as long as its library
    import torchvision.extension

    torchvision.extension._has_ops = lambda: True  # noqa: SLF001


_kept: list[Any] = []


def _suppress(boxes: Any, scores: Any, most: float) -> Any:
    """Keep the best box of each pile, best first; (N, 4) x0, y0, x1, y1."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    order, kept = scores.argsort(descending=True, stable=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        low = boxes[order, :2].maximum(boxes[best, :2])
        high = boxes[order, 2:].minimum(boxes[best, 2:])
        common = (high - low).clamp(min=0).prod(1)
        order = order[common <= most * (areas[order] + areas[best] - common)]
    return order.new_tensor([int(each) for each in kept])


STEPS: dict[str, Callable[[Path, int, str], None]] = {
    "import": import_,
    "dock": dock,
    "embed": embed,
    "reopen": reopen,
    "micro_import": micro_import,
    "micro_dock": micro_dock,
    "micro_embed": micro_embed,
    "micro_reopen": micro_reopen,
}

if __name__ == "__main__":
    main()
