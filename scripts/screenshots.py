"""Make every picture of the window in README and docs: one command.

    python scripts/screenshots.py                # into docs/images
    python scripts/screenshots.py --only large   # one of them

Opens real windows, clicks with a real mouse, and takes what comes; without a screen it
starts itself again under Xvfb.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_sam.widgets.dock import SegmentAnything

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 1280, 800
PATIENCE_S = 300.0

# Nuclei of the histology section, (y, x), that are easy to see.
MIDDLE = 12  # a slice of the drawn volume, and nuclei in it
NUCLEI_OF_VOLUME = [(136, 201), (76, 172), (113, 238), (66, 62), (217, 37), (209, 160)]
NUCLEI = [(296, 209), (321, 239), (360, 189)]


def settle(seconds: float = 0.5) -> None:
    """Let the window draw."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def wait_for(what: str, is_done: Callable[[], bool]) -> None:
    """Run the event loop until something has happened; exit if it never does."""
    end = time.monotonic() + PATIENCE_S
    while not is_done():
        if time.monotonic() > end:
            sys.exit(f"waited {PATIENCE_S:.0f} s for {what}")
        settle(0.05)
    settle()


class Window:
    """A window with a sample and the dock, driven by mouse.

    Parameters
    ----------
    sample : str
        Key of a sample of the plugin.
    """

    def __init__(self, sample: str) -> None:
        from napari_sam.widgets.launch import open_demo
        from napari_sam.widgets.save_panel import SavePanel

        self.viewer: napari.Viewer
        self.dock: SegmentAnything
        self.viewer, self.dock = open_demo(sample)
        self.dock.panel(SavePanel).autosave.setChecked(False)
        self.viewer.window.resize(WIDTH, HEIGHT)
        wait_for("the model", lambda: self.dock.network.planes is not None)
        self.viewer.reset_view()
        settle()

    def look_at(self, centre: tuple[float, float], zoom: float) -> None:
        """Move the camera."""
        camera = self.viewer.scene.camera
        camera.center = (0, *centre)
        camera.zoom = zoom
        settle()

    def click(self, place: tuple[float, ...]) -> None:
        """Click at (..., y, x) of the image, with the left button."""
        from qtpy.QtCore import QPoint, Qt
        from qtpy.QtTest import QTest

        # the canvas has no public name yet
        canvas: Any = self.viewer.window._qt_viewer.canvas.native  # noqa: SLF001
        camera = self.viewer.scene.camera
        y, x = self.viewer.layers[0].data_to_world(place)[-2:]
        point = QPoint(
            round(canvas.width() / 2 + (x - camera.center[-1]) * camera.zoom),
            round(canvas.height() / 2 + (y - camera.center[-2]) * camera.zoom),
        )
        QTest.mouseMove(canvas, point)
        settle(0.1)
        QTest.mouseClick(
            canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, point
        )
        settle(0.2)

    def ask(self, place: tuple[float, ...]) -> None:
        """Click, and wait for the mask."""
        self.click(place)
        wait_for("a mask", lambda: bool(self.dock.session.masks))

    def find_objects(self) -> int:
        """Search what is in view; return how many candidates there are."""
        from napari_sam.widgets.automatic_panel import AutomaticPanel

        panel = self.dock.open_panel(AutomaticPanel)
        panel.find("view")
        wait_for("candidates", lambda: panel.form.run.text() != "Stop")
        wait_for("objects", lambda: panel.choice is not None and panel.choice.objects)
        wait_for("all of them", lambda: not self.dock.worker.is_busy)
        settle(2)
        return len(panel.choice.objects)

    def picture(self) -> Any:
        """The window as (height, width, 4) uint8."""
        settle()
        return self.viewer.screenshot(canvas_only=False, flash=False)

    def save(self, name: str) -> None:
        """Write a picture of the window."""
        from PIL import Image

        pixels = Image.fromarray(self.picture()).convert("RGB")
        # 256 colours: the repository keeps pictures, readers load them. Marks keep
        # theirs: the usual method made orange of the yellow one.
        few = pixels.quantize(256, Image.Quantize.MAXCOVERAGE)
        few.save(IMAGES / f"{name}.png", optimize=True)
        print(f"{name}.png", flush=True)

    def close(self) -> None:
        """Close the window."""
        self.viewer.close()
        settle()


def first_click() -> None:
    """One click and its mask; then the animation of three objects."""
    from PIL import Image

    from napari_sam.widgets.prompt_panel import PromptPanel

    window = Window("histology")
    window.look_at((330, 225), 3.2)
    panel = window.dock.panel(PromptPanel)
    frames = [window.picture()]
    for number, place in enumerate(NUCLEI):
        window.ask(place)
        frames.append(window.picture())
        if number == 0:
            window.save("first-click")
        panel.keep()
        frames.append(window.picture())
    window.close()
    small = [
        Image.fromarray(frame)
        .convert("RGB")
        .resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.LANCZOS)
        .quantize(96, dither=Image.Dither.NONE)
        for frame in frames
    ]
    small[0].save(
        IMAGES / "click.gif",
        save_all=True,
        append_images=small[1:],
        duration=[900, *[1000, 700] * len(NUCLEI)],
        loop=0,
        optimize=True,
    )
    print("click.gif", flush=True)


def automatic() -> None:
    """All objects in view, then the review of those that are kept."""
    from napari_sam.widgets.automatic_panel import AutomaticPanel
    from napari_sam.widgets.model_panel import ModelPanel
    from napari_sam.widgets.prompt_panel import PromptPanel
    from napari_sam.widgets.review_panel import ReviewPanel

    window = Window("histology")
    for kind in (ModelPanel, PromptPanel):
        window.dock.headers[kind.title].setChecked(False)
    n_found = window.find_objects()
    window.save("automatic")
    window.dock.panel(AutomaticPanel).commit("all")
    window.dock.headers[AutomaticPanel.title].setChecked(False)
    review = window.dock.open_panel(ReviewPanel)
    wait_for("the table", lambda: len(review.form.table.rows) == n_found)
    review.form.view.selectRow(0)
    settle(1)
    window.save("review")
    window.close()


def large() -> None:
    """Objects on the mosaic of 20,480 px a side."""
    from napari_sam.widgets.prompt_panel import PromptPanel

    window = Window("mosaic")
    window.look_at((10_496, 10_496), 0.9)
    window.find_objects()
    window.dock.headers[PromptPanel.title].setChecked(False)
    window.save("large")
    window.close()


def stack() -> None:
    """A nucleus followed through a volume, and all of a slice in 3D."""
    from napari_sam.widgets.model_panel import ModelPanel
    from napari_sam.widgets.prompt_panel import PromptPanel
    from napari_sam.widgets.stack_panel import StackPanel

    window = Window("volume")
    viewer, dock = window.viewer, window.dock
    for kind in (ModelPanel, PromptPanel):
        dock.headers[kind.title].setChecked(False)
    viewer.dims.set_current_step(0, MIDDLE)
    panel = dock.open_panel(StackPanel)
    settle(1)
    window.ask((MIDDLE, *NUCLEI_OF_VOLUME[0]))
    panel.follow("current")
    wait_for("the object", lambda: panel.form.follow.text() != "Stop")
    window.save("stack")
    for place in NUCLEI_OF_VOLUME[1:]:
        window.ask((MIDDLE, *place))
        dock.session.commit()
    panel.follow("all")
    wait_for("all objects", lambda: panel.form.follow.text() != "Stop")
    viewer.dims.ndisplay = 3
    viewer.layers[0].visible = False
    viewer.reset_view()
    viewer.scene.camera.angles = (-15, 35, 145)
    settle(2)
    window.save("stack-3d")
    window.close()


SCENES: dict[str, Callable[[], None]] = {
    "first-click": first_click,
    "automatic": automatic,
    "large": large,
    "stack": stack,
}


def main() -> None:
    """Make the pictures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=SCENES, action="append")
    wanted = parser.parse_args().only or list(SCENES)
    if sys.platform == "linux" and "SCREENSHOTS_UNDER_XVFB" not in os.environ:
        xvfb = shutil.which("xvfb-run") or sys.exit(
            "as root: sh scripts/gui_packages.sh"
        )
        environment = {
            "SCREENSHOTS_UNDER_XVFB": "1",
            "QT_QPA_PLATFORM": "xcb",
            "LIBGL_ALWAYS_SOFTWARE": "1",
            # no session of the user is offered in a picture
            "XDG_DATA_HOME": tempfile.mkdtemp(),
        }
        screen = f"-screen 0 {WIDTH + 320}x{HEIGHT + 200}x24"
        command = [xvfb, "-a", "-s", screen, sys.executable, *sys.argv]
        os.execve(xvfb, command, os.environ | environment)
    IMAGES.mkdir(exist_ok=True)
    for name in wanted:
        SCENES[name]()


if __name__ == "__main__":
    main()
