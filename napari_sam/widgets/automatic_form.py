"""All objects at once: what to search, which candidates count, what to keep.

The panel shows and asks; it neither searches nor touches a layer. Settings above the
button act on the next search, thresholds below it on what has been found, at once.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QLabel,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QLabeledDoubleSlider

from napari_sam.engine.thresholds import Search, Thresholds
from napari_sam.widgets.controls import button, show_value

Extent: TypeAlias = Literal["view", "plane", "stack"]

_RUN = "Search; candidates appear as they are found."
_MAX_AREA = 10**9
_SETTLED_MS = 120  # a slider that is being dragged asks a few times a second


class AutomaticForm(QWidget):
    """Find all objects of the view, the plane or the whole image.

    Signals
    -------
    run_asked : str
        Extent to search: "view", "plane" or "stack".
    stop_asked : no argument
    thresholds_changed : Thresholds
        Shortly after the last change.
    commit_asked : str
        "all" or "marked".
    mode_changed : no argument
        The user has chosen another mode.
    reject_asked, discard_asked : no argument
        Reject the marked candidates; drop all candidates.
    """

    run_asked = Signal(str)
    stop_asked = Signal()
    thresholds_changed = Signal(object)
    commit_asked = Signal(str)
    mode_changed = Signal()
    reject_asked = Signal()
    discard_asked = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._has_head = True
        self._settled = QTimer(self)
        self._settled.setSingleShot(True)
        self._settled.setInterval(_SETTLED_MS)
        self._settled.timeout.connect(self._tell_thresholds)
        self._make_search()
        self._make_thresholds()
        self._make_keep()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self._search)
        layout.addWidget(self._filter)
        layout.addWidget(self._keep)
        layout.addStretch(1)
        self.set_search(Search())
        self.show_progress(None)
        self.show_found(None)

    def search(self) -> Search:
        """Return mode and settings of the next search."""
        return Search(
            self.mode.currentData(), self.foreground.value(), self.density.currentData()
        )

    def set_search(self, search: Search) -> None:
        """Show settings."""
        mode = search.mode or ("proposals" if self._has_head else "grid")
        self.mode.setCurrentIndex(self.mode.findData(mode))
        self.foreground.setValue(search.foreground)
        self.density.setCurrentIndex(self.density.findData(search.points_per_side))
        self._use_mode()

    def thresholds(self) -> Thresholds:
        """Return which candidates count."""
        largest = self.max_area.value()
        return Thresholds(
            min_predicted_iou=self.predicted_iou.value(),
            min_stability=self.stability.value(),
            min_area=min(self.min_area.value(), largest or _MAX_AREA),
            max_area=largest or None,
            drop_at_border=self.drop_at_border.isChecked(),
        )

    def set_thresholds(self, thresholds: Thresholds) -> None:
        """Show thresholds, without telling anybody."""
        self.predicted_iou.setValue(thresholds.min_predicted_iou)
        self.stability.setValue(thresholds.min_stability)
        self.min_area.setValue(thresholds.min_area)
        self.max_area.setValue(thresholds.max_area or 0)
        self.drop_at_border.setChecked(thresholds.drop_at_border)
        self._settled.stop()  # what has just been shown is no wish of the user

    def set_model(self, *, has_head: bool) -> None:
        """Offer the mode of the proposal head only where the weights have one."""
        self._has_head = has_head
        item = self.mode.model().item(self.mode.findData("proposals"))
        item.setEnabled(has_head)
        item.setToolTip("" if has_head else "these weights have no proposal head")
        if not has_head:
            self.mode.setCurrentIndex(self.mode.findData("grid"))

    def show_progress(
        self, done: int | None, total: int = 0, unit: str | None = None
    ) -> None:
        """Show how far a search is.

        Parameters
        ----------
        done : int or None
            None when no search is running.
        total : int
            0 while it is not known.
        unit : str, optional
            What is counted, from now on.
        """
        running = done is not None
        if unit is not None:
            self.progress.setFormat(f"%v of %m {unit}")
        self.progress.setVisible(running)
        self.run.setText("Stop" if running else "Find objects")
        self.run.setToolTip("Stop; what has been found stays." if running else _RUN)
        self._settings.setEnabled(not running)
        if done is not None:
            show_value(self.progress, done, total)

    def show_found(self, n_objects: int | None, n_marked: int = 0) -> None:
        """Show how many candidates count; None when there was no search."""
        self._keep.setEnabled(bool(n_objects))
        if n_objects is None:
            is_running = self.progress.isVisibleTo(self)
            self.count.setText("Searching ..." if is_running else "No candidates.")
        else:
            noun = "candidate" if n_objects == 1 else "candidates"
            marked = f", {n_marked} marked" if n_marked else ""
            self.count.setText(f"<b>{n_objects}</b> {noun}{marked}")
        self.commit_marked.setEnabled(n_marked > 0)
        self.reject_marked.setEnabled(n_marked > 0)

    def _make_search(self) -> None:
        self._search = QGroupBox("Search")
        self._settings = QWidget()
        form = QFormLayout(self._settings)
        form.setContentsMargins(0, 0, 0, 0)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.extent = QComboBox()
        for text, extent in (
            ("What is in view", "view"),
            ("This plane", "plane"),
            ("All planes", "stack"),
        ):
            self.extent.addItem(text, extent)
        self.extent.setToolTip(
            "Where to look. What is in view is the quickest way to try settings. All "
            "planes: what passes the thresholds below becomes objects at once."
        )
        self.mode = QComboBox()
        self.mode.addItem("Proposals (fast)", "proposals")
        self.mode.addItem("Grid of points", "grid")
        self.mode.setToolTip(
            "Proposals: the network points at each object itself. Grid of points: "
            "asks at regular places, as Segment Anything does; slower, for any weights."
        )
        self.foreground = _slider(
            "How sure the network must be that a place is part of an object at all. "
            "Lower finds fainter objects."
        )
        self.foreground.setRange(0.05, 0.95)
        self.density = QComboBox()
        for name, n in (("coarse", 16), ("usual", 32), ("fine", 64)):
            self.density.addItem(f"{name} ({n} x {n})", n)
        self.density.setToolTip(
            "Points asked in each crop. Finer finds smaller objects."
        )
        self.run = button("Find objects", _RUN)
        self.run.clicked.connect(self._run_or_stop)
        self.progress = QProgressBar()
        for label, widget in (
            ("Where", self.extent),
            ("How", self.mode),
            ("Foreground", self.foreground),
            ("Points", self.density),
        ):
            form.addRow(label, widget)
        self._form = form
        self.mode.currentIndexChanged.connect(self._use_mode)
        self.mode.activated.connect(lambda: self.mode_changed.emit())
        layout = QVBoxLayout(self._search)
        layout.addWidget(self._settings)
        layout.addWidget(self.run)
        layout.addWidget(self.progress)

    def _make_thresholds(self) -> None:
        self._filter = QGroupBox("Which candidates count")
        form = QFormLayout(self._filter)
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.predicted_iou = _slider(
            "The network's own estimate of how good a mask is. Acts at once, without "
            "searching again."
        )
        self.stability = _slider(
            "How little a mask changes with its threshold: low where the border is "
            "blurred."
        )
        self.min_area, self.max_area = QSpinBox(), QSpinBox()
        for box, tip in (
            (self.min_area, "Smaller objects do not count."),
            (self.max_area, "Larger objects do not count; 0 is no limit."),
        ):
            box.setRange(0, _MAX_AREA)
            box.setSuffix(" px")
            box.setToolTip(tip)
            box.valueChanged.connect(self._changed)
        self.max_area.setSpecialValueText("no limit")
        self.min_area.setMinimum(1)
        self.drop_at_border = QCheckBox("Not at the border of the image")
        self.drop_at_border.setToolTip("Leave out objects that the image cuts off.")
        self.drop_at_border.toggled.connect(self._changed)
        for slider in (self.predicted_iou, self.stability):
            slider.valueChanged.connect(self._changed)
        form.addRow("Predicted IoU", self.predicted_iou)
        form.addRow("Stability", self.stability)
        form.addRow("Smallest", self.min_area)
        form.addRow("Largest", self.max_area)
        form.addRow(self.drop_at_border)

    def _make_keep(self) -> None:
        self._keep = QGroupBox("Keep")
        self.count = QLabel()
        self.count.setTextFormat(Qt.TextFormat.RichText)
        hint = QLabel("Click candidates in the image to mark them.")
        hint.setWordWrap(True)
        self.commit_all = button(
            "Keep all", "Make objects of all candidates. Undo takes all of them back."
        )
        self.commit_marked = button(
            "Keep marked", "Make objects of the marked candidates only."
        )
        self.reject_marked = button(
            "Drop marked", "Drop the marked candidates; they do not come back."
        )
        self.discard = button("Drop all", "Drop all candidates.")
        self.commit_all.clicked.connect(lambda: self.commit_asked.emit("all"))
        self.commit_marked.clicked.connect(lambda: self.commit_asked.emit("marked"))
        self.reject_marked.clicked.connect(self.reject_asked)
        self.discard.clicked.connect(self.discard_asked)
        layout = QGridLayout(self._keep)
        layout.addWidget(self.count, 0, 0, 1, 2)
        layout.addWidget(hint, 1, 0, 1, 2)
        layout.addWidget(self.commit_all, 2, 0)
        layout.addWidget(self.discard, 2, 1)
        layout.addWidget(self.commit_marked, 3, 0)
        layout.addWidget(self.reject_marked, 3, 1)

    def _use_mode(self) -> None:
        """Show the settings of the mode."""
        is_grid = self.mode.currentData() == "grid"
        for widget, shown in ((self.foreground, not is_grid), (self.density, is_grid)):
            self._form.setRowVisible(widget, shown)

    def _run_or_stop(self) -> None:
        if self.progress.isVisibleTo(self):
            self.stop_asked.emit()
        else:
            self.run_asked.emit(self.extent.currentData())

    def _changed(self) -> None:
        self._settled.start()

    def _tell_thresholds(self) -> None:
        self.thresholds_changed.emit(self.thresholds())


def _slider(tip: str) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(0, 1)
    slider.setSingleStep(0.01)
    slider.setDecimals(2)
    slider.setToolTip(tip)
    return slider
