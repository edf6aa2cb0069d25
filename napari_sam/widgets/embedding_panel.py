"""Embedding a whole plane beforehand, so that no click has to wait.

What is in view comes first: when the camera moves, the rest is sorted again. Crops that
are embedded stay on disk, and are found again tomorrow.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QCheckBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam.widgets.activity import Activity
from napari_sam.widgets.controls import show_value
from napari_sam.widgets.geometry import visible_box
from napari_sam.widgets.plane_layers import CROP_COLOURS, EmbeddingOverlay
from napari_sam.widgets.turns import in_turns

if TYPE_CHECKING:
    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.engine.jobs import Job, Step
    from napari_sam.engine.request import PlaneView
    from napari_sam.widgets.panel import DockParts
    from napari_sam.widgets.workers import Task

_SETTLED_MS = 400  # after the last move of the camera
_LOOK_MS = 150  # a crop takes the encoder longer
_DRAWN_MS = 100  # a panel that has just been opened needs a moment to be drawn
_RESTS = "Rests. Clicks are answered meanwhile; go on when you like."


class _Opened(NamedTuple):
    """A plane, and the numbers of its crops that are missing or were skipped."""

    embedding: PlaneEmbedding
    missing: list[int]
    skipped: list[int]

    @classmethod
    def of(cls, embedding: PlaneEmbedding) -> _Opened:
        """Look which crops are there; for the worker's thread."""
        missing = [crop.index for crop in embedding.missing()]
        return cls(embedding, missing, embedding.skipped())


class EmbeddingPanel(QWidget):
    """Embed the plane that is looked at; see which crops are done.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Embed the plane"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self.overlay = EmbeddingOverlay(parts.viewer)
        self._task: Task | None = None
        self._embedding: PlaneEmbedding | None = None
        self._activity = Activity("Embed the plane")
        self._begun = (0.0, 0)  # when, and how many crops were done then
        self._known: tuple[object, int] = (None, 0)  # a view, and its embedded crops
        self._shown: list[int] = []  # crops that are shown as being in hand
        self._make_controls()
        self._looking = QTimer(self)
        self._looking.setInterval(_LOOK_MS)
        self._looking.timeout.connect(self._look_at_work)
        parts.bridge.count_embedded = self.count_embedded
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLED_MS)
        self._settled.timeout.connect(self._prefer)
        viewer = parts.viewer
        # napari 0.9 has moved the camera
        self._camera = (
            viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
        )
        self._camera.events.center.connect(self._camera_moved)
        parts.session.view_changed.connect(self._view_changed)
        parts.network.loaded.connect(self.stop)
        self._drawn = QTimer(self)
        self._drawn.setSingleShot(True)
        self._drawn.setInterval(_DRAWN_MS)
        self._drawn.timeout.connect(self._prepare)
        parts.bridge.image_changed.connect(self._image_changed)
        self._show(None)

    def start(self) -> None:
        """Embed all crops of the plane that are missing."""
        view, planes = self._parts.session.view, self._parts.network.planes
        if view is None:
            show_warning("Nothing to embed: open an image, and show it in 2D.")
            return
        self.stop()
        if planes is None:
            self.status.setText("Begins as soon as the model is loaded ...")
            self._parts.network.when_loaded(self.start)
            return
        self.status.setText("Opening the plane ...")

        def open_plane() -> _Opened:
            planes.keep_on_disk()
            return _Opened.of(planes.open(view))

        self._parts.worker.call(open_plane, lambda found: self._begin(view, found))

    def stop(self, *_: object) -> None:
        """Stop after the crop in hand; what is embedded stays."""
        if self._task is not None:
            self._parts.worker.cancel(self._task)
        self._task, self._embedding = None, None
        self.overlay.clear()
        self._show(None)

    def count_embedded(self, view: PlaneView) -> int:
        """Return how many crops of a view are known to be embedded."""
        key, n_crops = self._known
        return n_crops if key == view.embedding_key else 0

    def close_panel(self) -> None:
        """Stop, and listen no more."""
        self._camera.events.center.disconnect(self._camera_moved)
        self._parts.session.view_changed.disconnect(self._view_changed)
        self._parts.network.loaded.disconnect(self.stop)
        self._parts.bridge.image_changed.disconnect(self._image_changed)
        self._drawn.stop()
        self.stop()
        self.overlay.close()

    def showEvent(self, event: object) -> None:
        """Make the layer of crops once the panel is drawn."""
        super().showEvent(event)
        self._drawn.start()

    def _prepare(self) -> None:
        if self._parts.bridge.image is not None:
            self.overlay.prepare(self._parts.bridge.image)

    def _image_changed(self, _image: object) -> None:
        self.overlay.close()  # it lies over the other image
        if self.isVisible():
            self._drawn.start()

    def _view_changed(self, view: PlaneView | None) -> None:
        """Say that embeddings are of another plane, or of another contrast."""
        was_running, was_embedded = self._task is not None, self._embedding is not None
        self.stop()
        if was_embedded:
            self.status.setText(
                ""
                if view is None
                else "The plane or its contrast has changed; embed it for fast clicks "
                "here."
            )
        if was_running:
            show_warning(
                "Embedding has stopped, because another plane or contrast is shown; "
                "what is embedded stays. Show it again and embed once more to go on."
            )

    def _make_controls(self) -> None:
        self.run = QPushButton("Embed this plane")
        self.run.setToolTip(
            "Encode the whole plane now, beginning with what is in view; then every "
            "click is fast. It is kept on disk for the next time."
        )
        self.run.clicked.connect(self._run_or_stop)
        self.pause = QPushButton("Pause")
        self.pause.setCheckable(True)
        self.pause.setToolTip("Let the encoder rest after the crop in hand.")
        self.pause.toggled.connect(self._pause)
        self.show_crops = QCheckBox("Show which crops are done")
        self.show_crops.setChecked(True)
        self.show_crops.setToolTip("Lay the crops over the image, in these colours.")
        self.legend = QLabel(
            " ".join(
                f"<span style='white-space: nowrap'><font color='{colour}'>&#9632;"
                f"</font>&nbsp;{mark.replace(' ', '&nbsp;')}</span>"
                for mark, colour in CROP_COLOURS.items()
            )
        )
        self.legend.setTextFormat(Qt.TextFormat.RichText)
        self.legend.setWordWrap(True)
        self.skip = QCheckBox("Leave out empty background")
        self.skip.setChecked(True)
        self.skip.setToolTip(
            "Crops that show nothing are not encoded, unless you click into one."
        )
        self.show_crops.toggled.connect(self._show_overlay)
        self.progress = QProgressBar()
        self.progress.setFormat("%v of %m crops")
        self.status = QLabel()
        self.status.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.run, 1)
        line.addWidget(self.pause)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(line)
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        layout.addWidget(self.skip)
        layout.addWidget(self.show_crops)
        layout.addWidget(self.legend)

    def _run_or_stop(self) -> None:
        if self._task is None:
            self.start()
        else:
            self.stop()
            self.status.setText("Stopped; what is embedded stays.")

    def _begin(self, view: PlaneView, found: _Opened) -> None:
        self.stop()  # a second click began it already
        image = self._parts.bridge.image
        if image is None or view is not self._parts.session.view:
            self.status.setText("Stopped: the image or the plane has changed.")
            return
        self._embedding = found.embedding
        self.overlay.show(found.embedding.grid, image)
        n_known = self._show_known(found)
        in_turns(self._show_overlay)
        self._known = view.embedding_key, n_known
        self._begun = time.monotonic(), n_known
        self._fill()

    def _show_known(self, found: _Opened) -> int:
        """Show which crops are there; return how many need not be encoded."""
        empty = set(found.skipped) if self.skip.isChecked() else set()
        everything = set(range(len(found.embedding.grid)))
        done = everything - set(found.missing) - set(found.skipped)
        self.overlay.mark(done, "embedded")
        self.overlay.mark(empty, "empty")
        return len(done) + len(empty)

    def _fill(self) -> None:
        embedding = self._embedding
        if embedding is None:
            return
        self._prefer()
        self._show(len(embedding.grid))
        show_value(self.progress, self._begun[1])
        self._activity.begin()
        self.status.setText("Encoding the first crop ...")
        skip = self.skip.isChecked()
        self._looking.start()
        self._task = self._parts.worker.start(
            "embed",
            lambda: _fill(embedding, skip_background=skip),
            on_step=self._step,
            on_done=self._done,
            on_error=self._failed,
        )

    def _step(self, step: Step) -> None:
        became: Any = step.value or {}
        for mark, crops in became.items():
            self.overlay.mark(crops, mark)
            if mark == "embedded":
                self._known = self._known[0], self._known[1] + len(crops)
        self._activity.show(step.done, step.total)
        show_value(self.progress, step.done, step.total)
        begun, n_before = self._begun
        if self.pause.isChecked():  # the crop that was in hand
            self.status.setText(_RESTS)
        elif step.done > n_before:
            each = (time.monotonic() - begun) / (step.done - n_before)
            self.status.setText(f"{_duration(each * (step.total - step.done))} left")

    def _done(self, _result: object) -> None:
        self._task = None
        self._show(None, "The plane is embedded.")
        self.status.setText("The plane is embedded; clicks do not wait any more.")

    def _failed(self, error: Exception) -> None:
        self._task = None
        if (embedding := self._embedding) is not None:
            failed = self._in_hand()

            def show(found: _Opened) -> None:
                if embedding is self._embedding:
                    self._show_known(found)  # some were written before the error
                    self.overlay.mark(set(failed) & set(found.missing), "failed")

            self._parts.worker.call(lambda: _Opened.of(embedding), show)
        self._show(None)
        self.status.setText(
            "Stopped by an error; what was embedded stays. Embed once more to go on."
        )
        self._parts.worker.failed.emit(error)

    def _pause(self, checked: bool) -> None:
        if self._task is not None:
            self._parts.worker.pause(self._task, paused=checked)
            self.status.setText(
                "Rests after the crop in hand." if checked else "Goes on ..."
            )
            # a rest says nothing about how long a crop takes
            self._begun = time.monotonic(), self.progress.value()
        self.pause.setText("Go on" if checked else "Pause")

    def _camera_moved(self, _event: object = None) -> None:
        if self._task is not None:
            self._settled.start()

    def _prefer(self) -> None:
        """Let what is in view come first, from now on."""
        image, view = self._parts.bridge.image, self._parts.session.view
        if image is not None and view is not None and self._embedding is not None:
            self._embedding.prefer(visible=visible_box(image, view))

    def _show_overlay(self, _checked: object = None) -> None:
        if self.overlay.layer is not None:
            self.overlay.layer.visible = self.show_crops.isChecked()

    def _in_hand(self) -> list[int]:
        embedding = self._embedding
        return [] if embedding is None else [crop.index for crop in embedding.in_hand]

    def _look_at_work(self) -> None:
        """Show which crop is encoded now."""
        crops = self._in_hand()
        if self._task is not None and crops != self._shown:
            self._shown = crops
            self.overlay.mark(crops, "in hand")

    def _show(self, n_crops: int | None, told: str = "") -> None:
        running = n_crops is not None
        if not running:
            self._activity.end(told)
            self._looking.stop()
        self.run.setText("Stop" if running else "Embed this plane")
        self.pause.setEnabled(running)
        self.pause.setChecked(False)
        self.progress.setVisible(running)
        if n_crops is not None:
            show_value(self.progress, 0, n_crops)


def _fill(embedding: PlaneEmbedding, *, skip_background: bool) -> Job[None]:
    """Fill a plane; steps tell what became of their crops, by their numbers."""
    for step in embedding.fill(batch=1, skip_background=skip_background):
        became: dict[str, list[int]] = {}
        for crop in step.value if isinstance(step.value, list) else ():
            is_empty = skip_background and embedding.state(crop) == "skipped"
            mark = "empty" if is_empty else "embedded"
            became.setdefault(mark, []).append(crop.index)
        yield replace(step, value=became)


def _duration(seconds: float) -> str:
    """Write a time for people.

    Examples
    --------
    >>> _duration(42.3), _duration(150), _duration(9000)
    ('42 s', '3 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
