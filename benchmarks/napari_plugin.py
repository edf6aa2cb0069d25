"""How the plugin feels: what a person waits for, in milliseconds.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/napari_plugin.py

Prints one line for each figure: opening the dock; a click on an embedded crop, from the
mouse event to the mask on the layer; the longest time that the window does not react
while a crop is encoded and while objects are searched; committing an object to labels
of 20,000 x 20,000 px, and taking it back.
"""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_sam.engine.label_store import LabelStore
from napari_sam.labels import LabelEdit
from napari_sam.samples import histology, mosaic
from napari_sam.tiling import Box
from napari_sam.widgets.automatic_panel import AutomaticPanel
from napari_sam.widgets.dock import SegmentAnything
from napari_sam.widgets.stored_labels import StoreTarget, store_layer

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 300.0
N_CLICKS = 15
N_COMMITS = 20
PLANE = (None, None)


class Pulse:
    """A timer in the event loop that notices when the loop stands still."""

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setInterval(2)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def reset(self) -> None:
        """Forget what was measured."""
        self._last = time.perf_counter()
        self.longest_ms = 0.0

    def _beat(self) -> None:
        now = time.perf_counter()
        self.longest_ms = max(self.longest_ms, 1e3 * (now - self._last))
        self._last = now


def wait_for(is_done: Callable[[], bool]) -> None:
    """Run the event loop until something has happened."""
    end = time.monotonic() + PATIENCE_S
    while not is_done() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.0005)


def rest(seconds: float) -> None:
    """Run the event loop for a while."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end)


def say(what: str, milliseconds: list[float]) -> None:
    """Print median and largest of a figure."""
    middle, largest = statistics.median(milliseconds), max(milliseconds)
    print(f"{what:<58}{middle:9.1f} ms   at most {largest:9.1f} ms", flush=True)


def click(dock: SegmentAnything, place: tuple[float, float]) -> float:
    """Time from a new point on the prompt layer to the mask, in milliseconds."""
    dock.session.reject()
    rest(0.2)
    start = time.perf_counter()
    prompts: Any = dock.bridge.prompts
    prompts.points.add(np.array([place]))
    wait_for(lambda: bool(dock.session.masks))
    return 1e3 * (time.perf_counter() - start)


def measure_opening(viewer: napari.Viewer) -> tuple[SegmentAnything, Pulse]:
    """Open the dock beside the histology section; load the model."""
    viewer.add_image(histology(), rgb=True)
    rest(1)
    start = time.perf_counter()
    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock, name="Segment Anything")
    QApplication.processEvents()
    say("open the dock", [1e3 * (time.perf_counter() - start)])
    pulse = Pulse()
    wait_for(lambda: dock.network.planes is not None)
    say("longest stillness while torch and the model are loaded", [pulse.longest_ms])
    return dock, pulse


def measure_objects(dock: SegmentAnything, pulse: Pulse) -> None:
    """Click; search everything."""
    pulse.reset()
    say("first click, the crop is encoded", [click(dock, (222, 340))])
    say("longest stillness meanwhile", [pulse.longest_ms])
    rng = np.random.default_rng(0)
    places = rng.uniform(60, 450, (N_CLICKS, 2))
    say(
        "click on an embedded crop, to the mask",
        [click(dock, (y, x)) for y, x in places],
    )
    dock.session.reject()

    panel = dock.panel(AutomaticPanel)
    pulse.reset()
    start = time.perf_counter()
    panel.find("plane")
    wait_for(lambda: panel._task is None)  # noqa: SLF001
    rest(1)
    say("all objects of the section", [1e3 * (time.perf_counter() - start)])
    say("longest stillness meanwhile", [pulse.longest_ms])
    start = time.perf_counter()
    n_objects = panel.commit("all")
    say(f"commit {n_objects} objects at once", [1e3 * (time.perf_counter() - start)])


def measure_large(viewer: napari.Viewer) -> None:
    """Commit objects to labels as large as the mosaic, and take them back."""
    rng = np.random.default_rng(0)
    viewer.add_image(mosaic(), rgb=True, multiscale=True)
    layer = store_layer(LabelStore.create((20_000, 20_000)))
    viewer.add_layer(layer)
    scene = viewer.scene if hasattr(viewer, "scene") else viewer
    scene.camera.center, scene.camera.zoom = (0, 10_000, 10_000), 1.0
    rest(1)
    target = StoreTarget(layer)
    grid = np.mgrid[-60:60, -60:60]
    disc = (grid**2).sum(axis=0) < 58**2
    commits, undos = [], []
    for number in range(1, N_COMMITS + 1):
        y, x = rng.integers(9_700, 10_200, 2).tolist()
        box = Box(y, x, y + 120, x + 120)
        before = target.read(PLANE, box)
        after = np.where(disc & (before == 0), number, before).astype(np.uint32)
        edit = LabelEdit(PLANE, box, before, after)
        for times, act in ((commits, target.write), (undos, target.undo)):
            start = time.perf_counter()
            act([edit])
            QApplication.processEvents()
            times.append(1e3 * (time.perf_counter() - start))
        target.redo([edit])
    say("commit an object of 116 px to labels of 20,000 x 20,000", commits[2:])
    say("undo it", undos[2:])


def main() -> None:
    """Measure everything, one after the other."""
    viewer = napari.Viewer(show=True)
    dock, pulse = measure_opening(viewer)
    measure_objects(dock, pulse)
    dock.close_dock()
    viewer.layers.clear()
    measure_large(viewer)
    viewer.close()


if __name__ == "__main__":
    main()
