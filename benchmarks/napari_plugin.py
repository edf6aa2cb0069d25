"""How the plugin feels: what a person waits for, in milliseconds.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/napari_plugin.py
    ... --only clicks      # or search, embed, several, large: a part of it

Prints one line for each figure: opening the dock; a click on an embedded crop, from the
mouse event to the mask on the layer; the longest time that the window does not react
while a crop is encoded and while objects are searched; keeping an object in labels of
20,480 x 20,480 px, and taking it back. Software OpenGL draws a frame in 30 to 50 ms.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_sam.samples import histology, mosaic

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_sam.widgets.dock import SegmentAnything

PATIENCE_S = 300.0
PARTS = ["clicks", "search", "embed", "several", "large"]
N_CLICKS = 15
N_HOVERS = 30
N_COMMITS = 20


class Pulse:
    """A timer in the event loop that notices when the loop stands still.

    Attributes
    ----------
    longest_ms : float
        By the clock.
    computed_ms : float
        Longest time between two beats in which the window's own thread computed.
    """

    def __init__(self) -> None:
        self.longest_ms = self.computed_ms = 0.0
        self._computed = time.thread_time()
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.setInterval(2)
        self._timer.timeout.connect(self._beat)
        self._timer.start()

    def reset(self) -> None:
        """Forget what was measured."""
        self._last, self._computed = time.perf_counter(), time.thread_time()
        self.longest_ms = self.computed_ms = 0.0

    def say(self) -> None:
        """Print what was measured."""
        say("longest stillness meanwhile", [self.longest_ms])
        say("  computed in the window's thread", [self.computed_ms])

    def _beat(self) -> None:
        now, computed = time.perf_counter(), time.thread_time()
        self.longest_ms = max(self.longest_ms, 1e3 * (now - self._last))
        self.computed_ms = max(self.computed_ms, 1e3 * (computed - self._computed))
        self._last, self._computed = now, computed


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


def timed(act: Callable[[], object]) -> tuple[float, float]:
    """Do something in the window, and let it react.

    Returns
    -------
    tuple of float
        Milliseconds by the clock, and those in which this thread computed: on a busy
        machine the second says more.
    """
    start, computed = time.perf_counter(), time.thread_time()
    act()
    QApplication.processEvents()
    return 1e3 * (time.perf_counter() - start), 1e3 * (time.thread_time() - computed)


def say_both(what: str, times: list[tuple[float, float]]) -> None:
    """Print both times of `timed`."""
    say(what, [wall for wall, _ in times])
    say("  of it computed in the window's thread", [computed for _, computed in times])


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
    """Open the dock beside the histology section, imports included; load the model."""
    viewer.add_image(histology(), rgb=True)
    rest(1)
    start = time.perf_counter()
    from napari_sam.widgets.dock import SegmentAnything

    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock, name="Segment Anything")
    QApplication.processEvents()
    say("open the dock", [1e3 * (time.perf_counter() - start)])
    wait_for(lambda: getattr(dock.bridge.prompts, "tool", None) == "points")
    say("  and until it takes clicks", [1e3 * (time.perf_counter() - start)])
    from napari_sam.widgets.save_panel import SavePanel

    dock.panel(SavePanel).autosave.setChecked(False)
    pulse = Pulse()
    wait_for(lambda: dock.network.planes is not None)
    say("longest stillness while torch and the model are loaded", [pulse.longest_ms])
    return dock, pulse


def measure_clicks(dock: SegmentAnything, pulse: Pulse) -> None:
    """Click on a crop that is not embedded yet, then on one that is."""
    pulse.reset()
    say("first click, the crop is encoded", [click(dock, (222, 340))])
    pulse.say()
    rng = np.random.default_rng(0)
    places = rng.uniform(60, 450, (N_CLICKS, 2))
    say(
        "click on an embedded crop, to the mask",
        [click(dock, (y, x)) for y, x in places],
    )
    dock.session.reject()
    rest(0.5)
    start = time.perf_counter()
    for y, x in rng.uniform(60, 450, (N_HOVERS, 2)):
        dock.session.peek((y, x))
        wait_for(lambda: not dock.session.is_waiting)
        QApplication.processEvents()
    rate = N_HOVERS / (time.perf_counter() - start)
    print(f"{'masks under a moving mouse':<58}{rate:9.1f} per second", flush=True)
    dock.session.peek(None)
    rest(0.5)


def measure_search(dock: SegmentAnything, pulse: Pulse) -> None:
    """Search everything, and keep it."""
    from napari_sam.widgets.automatic_panel import AutomaticPanel

    panel = dock.open_panel(AutomaticPanel)
    rest(0.5)  # the layer of candidates is made once the panel is drawn
    pulse.reset()
    start = time.perf_counter()
    say_both("start a search", [timed(lambda: panel.find("plane"))])
    pulse.say()
    pulse.reset()
    wait_for(lambda: panel._task is None)  # noqa: SLF001
    wait_for(lambda: bool(panel.choice.objects))
    rest(0.5)
    say("all objects of the image", [1e3 * (time.perf_counter() - start)])
    pulse.say()
    n_objects = len(panel.choice.objects)
    pulse.reset()
    start = time.perf_counter()
    panel.commit("all")
    wait_for(lambda: panel.choice is None)
    rest(0.3)
    say(
        f"keep {n_objects} objects at once", [1e3 * (time.perf_counter() - start - 0.3)]
    )
    pulse.say()


def measure_embedding(dock: SegmentAnything, pulse: Pulse) -> None:
    """Embed a plane, look at its crops, and let them go."""
    from napari_sam.widgets.embedding_panel import EmbeddingPanel

    panel = dock.open_panel(EmbeddingPanel)
    rest(1)
    pulse.reset()
    start = time.perf_counter()
    panel.start()
    wait_for(lambda: panel._embedding is not None)  # noqa: SLF001
    rest(0.3)
    say("start to embed a plane", [1e3 * (time.perf_counter() - start - 0.3)])
    pulse.say()
    pulse.reset()
    wait_for(lambda: panel._task is None)  # noqa: SLF001
    rest(0.3)
    say("all crops embedded", [1e3 * (time.perf_counter() - start - 0.3)])
    pulse.say()
    pulse.reset()
    panel.stop()
    rest(0.5)
    print("their overlay goes", flush=True)
    pulse.say()


def measure_large(viewer: napari.Viewer, dock: SegmentAnything) -> None:
    """Keep objects in labels as large as the mosaic, and take them back."""
    from napari_sam.widgets.prompt_panel import PromptPanel

    image = viewer.add_image(mosaic(), rgb=True, multiscale=True)
    dock.bridge.choose_image(image)
    scene = viewer.scene if hasattr(viewer, "scene") else viewer
    scene.camera.center, scene.camera.zoom = (0, 10_500, 10_500), 1.0
    rest(1)
    dock.network.completes = False
    panel = dock.panel(PromptPanel)
    rng = np.random.default_rng(0)
    keeps: list[tuple[float, float]] = []
    undos: list[tuple[float, float]] = []
    for _ in range(N_COMMITS):
        y, x = rng.integers(10_300, 10_700, 2).tolist()
        click(dock, (y, x))
        rest(0.1)
        if not any(each.box.area for each in dock.session.masks):
            continue
        for times, act in ((keeps, panel.keep), (undos, dock.session.undo)):
            times.append(timed(act))
            rest(0.2)
    say_both("keep an object in labels of 20,480 x 20,480", keeps[1:])
    say_both("take it back", undos[1:])


def main() -> None:
    """Measure everything, one after the other, or the parts that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append")
    wanted = parser.parse_args().only or PARTS
    viewer = napari.Viewer(show=True)
    dock, pulse = measure_opening(viewer)
    if "clicks" in wanted:
        measure_clicks(dock, pulse)
    if "search" in wanted:
        measure_search(dock, pulse)
    if "embed" in wanted or "several" in wanted:
        # four crops, and as many objects as a field of view has
        several = np.asarray(mosaic()[0][9_000:10_536, 9_000:10_536])
        dock.bridge.choose_image(viewer.add_image(several, rgb=True))
        rest(1)
        print(f"on {several.shape[0]} x {several.shape[1]} px:")
    if "embed" in wanted:
        measure_embedding(dock, pulse)
    if "several" in wanted:
        measure_search(dock, pulse)
    if "large" in wanted:
        measure_large(viewer, dock)
    dock.close_dock()
    viewer.close()


if __name__ == "__main__":
    main()
