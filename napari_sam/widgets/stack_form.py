"""Objects of a stack: which slices, when to stop, what is known of each slice.

The form shows and asks; it neither follows objects nor touches a layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_sam.widgets.controls import button, narrow, share_box, show_value
from napari_sam.widgets.keys import key_of
from napari_sam.widgets.slice_strip import COLOURS, SliceStrip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.engine.records import SliceMark

Direction: TypeAlias = Literal["both", "forwards", "backwards"]


@dataclass(frozen=True, slots=True)
class StackSettings:
    """Where an object is followed, and when it ends.

    Parameters
    ----------
    first, last : int
        Slices, both included.
    direction : {"both", "forwards", "backwards"}
        From the slice that is looked at.
    min_predicted_iou, min_overlap, min_contrast, max_gap, branches
        As of `napari_sam.engine.follow.PropagateConfig`.
    """

    first: int
    last: int
    direction: Direction = "both"
    min_predicted_iou: float = 0.5
    min_overlap: float = 0.3
    min_contrast: float = 0.1
    max_gap: int = 1
    branches: bool = False

    def within(self, here: int) -> tuple[int, int]:
        """Return the first slice, and the one after the last.

        Parameters
        ----------
        here : int
            The slice that is looked at; it always belongs to them.
        """
        first = min(here, here if self.direction == "forwards" else self.first)
        last = max(here, here if self.direction == "backwards" else self.last)
        return first, last + 1


class StackForm(QWidget):
    """Follow objects through the slices of a stack.

    Signals
    -------
    follow_asked : str
        "current" or "all".
    link_asked : no argument
        Link the labels of all slices.
    stop_asked : no argument
    axis_changed : int
        Another axis to go along, as given to `set_axes`.
    slice_chosen : int
    next_asked, end_asked, give_asked, delete_asked : no argument
        Next doubtful slice; this slice is without the object; the prompts belong to
        it; delete it in all slices.
    check_asked : bool
        This slice is right, or not any more.
    """

    follow_asked = Signal(str)
    link_asked = Signal()
    stop_asked = Signal()
    axis_changed = Signal(int)
    slice_chosen = Signal(int)
    next_asked = Signal()
    end_asked = Signal()
    give_asked = Signal()
    delete_asked = Signal()
    check_asked = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._n = 1
        self._make_range()
        self._make_rules()
        self._make_run()
        self._make_object()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        for each in (self._range, self._rules, self._run, self._object):
            layout.addWidget(each)
        self.note = QLabel("This image has one plane only.")
        self.note.setWordWrap(True)
        layout.addWidget(self.note)
        self.set_axes([])
        self.show_progress(None)

    def settings(self) -> StackSettings:
        """Return where to go, and when to stop."""
        return StackSettings(
            min(self.first.value(), self.last.value()),
            max(self.first.value(), self.last.value()),
            self.direction.currentData(),
            round(self.predicted_iou.value(), 2),
            round(self.overlap.value(), 2),
            round(self.contrast.value(), 2),
            self.gap.value(),
            self.branches.isChecked(),
        )

    def set_axes(self, axes: Sequence[tuple[int, str, int]]) -> None:
        """Offer axes to go along; the chosen one stays chosen, if it is offered.

        Parameters
        ----------
        axes : sequence of (int, str, int)
            Number, name and length of each; none if the image is a single plane.
        """
        chosen = self.axis.currentData()
        offered = [(self.axis.itemData(i)) for i in range(self.axis.count())]
        if offered != list(axes):
            self.axis.blockSignals(True)
            self.axis.clear()
            for each in axes:
                _number, name, n = each
                self.axis.addItem(f"{name} ({n})", each)
            kept = self.axis.findData(chosen)
            self.axis.setCurrentIndex(max(kept, 0 if axes else -1))
            self.axis.blockSignals(False)
            self._use_axis()
        self._form.setRowVisible(self.axis, len(axes) > 1)
        for each in (self._range, self._rules, self._run, self._object):
            each.setVisible(bool(axes))
        self.note.setVisible(not axes)

    def chosen_axis(self) -> int | None:
        """Return the axis to go along; None if there is none."""
        chosen = self.axis.currentData()
        return None if chosen is None else int(chosen[0])

    def show_progress(self, done: int | None, total: int = 0) -> None:
        """Show how far a run is; None ends it."""
        running = done is not None
        self.progress.setVisible(running)
        show_value(self.progress, done or 0, total)
        self.follow.setText("Stop" if running else f"Follow ({key_of('follow')})")
        self.follow_all.setEnabled(not running)
        self.link.setEnabled(not running)

    def show_object(
        self, object_id: int, marks: Sequence[SliceMark], here: int
    ) -> None:
        """Show what is known of an object.

        Parameters
        ----------
        object_id : int
            0 is none.
        marks : sequence of SliceMark
        here : int
            The slice that is looked at.
        """
        self.strip.show_marks(marks, self._n, here)
        found = [m for m in marks if m.state not in ("stopped", "end")]
        n_doubtful = sum(m.is_doubtful for m in marks)
        if not marks:
            text = "Point at an object and follow it."
            if object_id:
                text = f"Object {object_id} has not been followed yet."
        else:
            text = f"Object {object_id}: {len(found)} of {self._n} slices"
            text += f", {n_doubtful} worth a look" if n_doubtful else ""
        self.what.setText(text)
        mark = next((m for m in marks if m.at == here), None)
        self.about.setText(self.strip.text_of(here) if marks else "")
        self.next_doubtful.setEnabled(n_doubtful > 0)
        self.checked.setEnabled(mark is not None)
        self.checked.setChecked(mark is not None and mark.is_checked)
        for each in (self.end, self.delete, self.give):
            each.setEnabled(bool(marks))

    def _make_range(self) -> None:
        self._range = QWidget()
        self._form = form = QFormLayout(self._range)
        form.setContentsMargins(0, 0, 0, 0)
        # a dock of 300 px has no room for a name beside two numbers
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.axis = QComboBox()
        self.axis.setToolTip("The axis that objects are followed along.")
        self.axis.currentIndexChanged.connect(self._use_axis)
        self.first, self.last = narrow(QSpinBox()), narrow(QSpinBox())
        self.first.setToolTip("First slice, counted from 0.")
        self.last.setToolTip("Last slice, counted from 0.")
        line = QHBoxLayout()
        line.addWidget(self.first, 1)
        line.addWidget(QLabel("to"))
        line.addWidget(self.last, 1)
        everything = button("All", "All slices.")
        everything.clicked.connect(lambda: self._use_range(self._n))
        line.addWidget(everything)
        self.direction = QComboBox()
        for text, direction in (
            ("both ways", "both"),
            ("forwards only", "forwards"),
            ("backwards only", "backwards"),
        ):
            self.direction.addItem(text, direction)
        self.direction.setToolTip("From this slice; forwards is to higher numbers.")
        form.addRow("Along", self.axis)
        form.addRow("Slices", line)
        form.addRow("Direction", self.direction)

    def _make_rules(self) -> None:
        self._rules = QGroupBox("Where the object ends")
        form = QFormLayout(self._rules)
        form.setContentsMargins(6, 4, 6, 4)
        self.predicted_iou = share_box(
            0.5, "It ends where the network's own estimate of its mask is lower."
        )
        self.overlap = share_box(
            0.3, "It ends where it is less like its neighbour: 0 not at all, 1 equal."
        )
        self.contrast = share_box(
            0.1,
            "It ends where it stands out from its surroundings less than this, as "
            "share of how it does in its clearest slice; so do its pixels where it "
            "fades. Not along time. 0 never asks.",
        )
        self.gap = narrow(QSpinBox())
        self.gap.setRange(0, 20)
        self.gap.setValue(1)
        self.gap.setToolTip(
            "Slices in a row in which it may be missing; they get the shape between "
            "their neighbours, and are marked as worth a look."
        )
        self.branches = QCheckBox("Follow all parts if it splits")
        self.branches.setToolTip("For branching objects, such as tubes and vessels.")
        form.addRow("Predicted IoU below", self.predicted_iou)
        form.addRow("Overlap below", self.overlap)
        form.addRow("Contrast below", self.contrast)
        form.addRow("Bridge gaps up to", self.gap)
        form.addRow(self.branches)

    def _make_run(self) -> None:
        self._run = QWidget()
        layout = QGridLayout(self._run)
        layout.setContentsMargins(0, 0, 0, 0)
        self.follow = button(
            "",
            "Follow what you point at, or the object whose label is chosen, through "
            "the stack. Undo takes all slices back at once.",
        )
        self.follow_all = button(
            "All of this slice", "Follow every object of this slice, one by one."
        )
        self.link = button(
            "Link all slices",
            "Make one object of labels that belong together from slice to slice, or "
            "from frame to frame: after Find all objects in all planes. One undo takes "
            "it back.",
        )
        self.progress = QProgressBar()
        self.follow.clicked.connect(self._run_or_stop)
        self.follow_all.clicked.connect(lambda: self.follow_asked.emit("all"))
        self.link.clicked.connect(self.link_asked)
        layout.addWidget(self.follow, 0, 0)
        layout.addWidget(self.follow_all, 0, 1)
        layout.addWidget(self.link, 1, 0, 1, 2)
        layout.addWidget(self.progress, 2, 0, 1, 2)

    def _make_object(self) -> None:
        self._object = QWidget()
        self.what, self.about = QLabel(), QLabel()
        for label in (self.what, self.about):
            label.setWordWrap(True)
        self.strip = SliceStrip()
        self.strip.slice_chosen.connect(self.slice_chosen)
        legend = QLabel(
            " ".join(
                f'<span style="color:{COLOURS[kind]}">&#9632;</span>&nbsp;{name}'  # type: ignore[index]
                for kind, name in (
                    ("prompted", "yours"),
                    ("computed", "computed"),
                    ("doubtful", "look"),
                    ("stopped", "end"),
                )
            )
            + ' <span style="color:white">&#9632;</span>&nbsp;checked'
        )
        legend.setTextFormat(Qt.TextFormat.RichText)
        legend.setWordWrap(True)
        self.next_doubtful = button(
            f"Next ({key_of('next_doubtful')})",
            "Go to the next slice that is worth a look: bridged, in disagreement, or "
            "where the object was lost.",
        )
        self.checked = button("Checked", "This slice is right.")
        self.checked.setCheckable(True)
        self.end = button(
            "Ends here", "This slice is without the object: it goes from here on."
        )
        self.give = button(
            "Prompts are its",
            "The prompts in this slice are for this object, not for a new one; then "
            "follow it again.",
        )
        self.delete = button("Delete it", "Delete the object in all slices.")
        self.next_doubtful.clicked.connect(self.next_asked)
        self.checked.clicked.connect(self.check_asked)
        self.end.clicked.connect(self.end_asked)
        self.give.clicked.connect(self.give_asked)
        self.delete.clicked.connect(self.delete_asked)
        layout = QGridLayout(self._object)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(3)
        layout.addWidget(self.what, 0, 0, 1, 6)
        layout.addWidget(self.strip, 1, 0, 1, 6)
        layout.addWidget(legend, 2, 0, 1, 6)
        layout.addWidget(self.about, 3, 0, 1, 6)
        layout.addWidget(self.next_doubtful, 4, 0, 1, 2)
        layout.addWidget(self.checked, 4, 2, 1, 2)
        layout.addWidget(self.end, 4, 4, 1, 2)
        layout.addWidget(self.give, 5, 0, 1, 3)
        layout.addWidget(self.delete, 5, 3, 1, 3)

    def _use_axis(self, _index: int = 0) -> None:
        chosen = self.axis.currentData()
        self._use_range(1 if chosen is None else chosen[2])
        if chosen is not None:
            self.axis_changed.emit(chosen[0])

    def _use_range(self, n: int) -> None:
        self._n = n
        for box in (self.first, self.last):
            box.setRange(0, n - 1)
        self.first.setValue(0)
        self.last.setValue(n - 1)

    def _run_or_stop(self) -> None:
        if self.progress.isVisibleTo(self):
            self.stop_asked.emit()
        else:
            self.follow_asked.emit("current")
