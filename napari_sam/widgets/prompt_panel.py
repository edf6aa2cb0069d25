"""Point at an object, see the mask, keep it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_sam.errors import NapariSamError
from napari_sam.widgets.ahead import Ahead
from napari_sam.widgets.keys import key_of, keys_of
from napari_sam.widgets.prompt_layers import NEGATIVE, POSITIVE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sam.engine.request import ShownMask
    from napari_sam.widgets.keys import Command
    from napari_sam.widgets.panel import DockParts
    from napari_sam.widgets.prompt_layers import Tool

_TOOLS: tuple[tuple[Tool, str, str], ...] = (
    ("points", "Points", "Click into an object; Shift-click beside it"),
    ("box", "Box", "Drag a box around an object; several boxes are several objects"),
    ("polygon", "Area", "Draw a polygon that roughly fills an object"),
    ("ellipse", "Ellipse", "Draw an ellipse that roughly fills an object"),
    ("scribble", "Line", "Drag a line inside an object"),
)
_OVERLAPS = (
    ("keep", "are kept", "Pixels of objects that exist are never taken"),
    ("overwrite", "are overwritten", "The newer object takes the pixels"),
    ("ask", "ask me", "Ask each time"),
)
_OUTLINE = 2
_FIRST_STEPS = {
    "points": "Click into an object.",
    "box": "Drag a box around an object.",
    "polygon": "Click around an object; double-click to end.",
    "ellipse": "Drag an ellipse over an object.",
    "scribble": "Drag a line inside an object.",
}


class PromptPanel(QWidget):
    """Tools, answers, and the buttons to keep or drop them.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Point and keep"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self._ahead = Ahead()  # what was kept before its mask was there
        parts.bridge.hold = self._ahead.hold
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(self._make_tools())
        self.sign = QPushButton()
        self.sign.setCheckable(True)
        self.sign.setToolTip(
            f"Kind of the next point ({key_of('other_kind')}); Shift-click places the "
            "other kind once"
        )
        self.sign.toggled.connect(self._set_sign)
        layout.addWidget(self.sign)
        layout.addLayout(self._make_answers())
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        layout.addWidget(self.hint)
        layout.addLayout(self._make_keep())
        layout.addLayout(self._make_options())
        session = parts.session
        session.preview.connect(self._show_answers)
        session.request.connect(self._show_waiting)
        session.history_changed.connect(self._show_history)
        session.committed.connect(self._show_kept)
        session.state.events.positive.connect(self._show_sign)
        session.state.events.on_overlap.connect(self._show_overlap)
        parts.bridge.image_changed.connect(self._set_style)
        parts.bridge.tool_changed.connect(self._show_tool)
        self._show_sign(session.state.positive)
        self._show_tool()
        self._show_answers(())
        self._show_history()

    def keep(self) -> None:
        """Make objects of the masks shown."""
        session, bridge = self._parts.session, self._parts.bridge
        if session.draft.is_empty:
            self.hint.setText("Nothing to keep yet. " + self._next_step())
            return
        if session.is_waiting:
            if self._ahead.draft is not session.draft:
                self._ahead.forget()
                self._ahead.begin(session.draft)
            else:
                self._ahead.keep_last()
            self.hint.setText("Kept as soon as the mask is there ...")
            return
        if not session.masks:
            self.hint.setText("Nothing to keep: no positive point or shape is there.")
            return
        bridge.need_labels()
        overwrite = None
        if session.state.on_overlap == "ask" and (found := session.overlap()):
            overwrite = self._ask(found)
            if overwrite is None:
                return
        session.commit(overwrite=overwrite)

    def reject(self) -> None:
        """Drop the prompts."""
        self._parts.session.reject()

    def use(self, tool: Tool) -> None:
        """Choose what a click does."""
        if self._parts.bridge.prompts is not None:
            self._parts.bridge.prompts.use(tool)
        self._show_tool()

    def next_tool(self) -> None:
        """Switch between points and boxes; from anything else to points."""
        self.use("box" if self.tools["points"].isChecked() else "points")

    def other_kind(self) -> None:
        """Turn the selected points into the other kind; without any, the next one."""
        prompts = self._parts.bridge.prompts
        if prompts is None or not prompts.flip_selected():
            state = self._parts.session.state
            state.positive = not state.positive

    def _make_tools(self) -> QHBoxLayout:
        layout = QHBoxLayout()
        layout.setSpacing(2)
        self._group = QButtonGroup(self)
        self.tools: dict[Tool, QPushButton] = {}
        for tool, text, tip in _TOOLS:
            button = QPushButton(text)
            button.setMinimumWidth(10)
            button.setToolTip(tip)
            button.setCheckable(True)
            button.clicked.connect(lambda _=False, tool=tool: self.use(tool))
            self._group.addButton(button)
            self.tools[tool] = button
            layout.addWidget(button, 1)
        return layout

    def _show_kept(self, ids: list[int]) -> None:
        """Say what became of the masks, and what comes next."""
        what = f"Object {ids[0]}" if len(ids) == 1 else f"{len(ids)} objects"
        self.hint.setText(f"{what} kept. {self._next_step()}")

    def _show_tool(self, _tool: str = "") -> None:
        """Show which tool is in use; none is while another layer is selected."""
        prompts = self._parts.bridge.prompts
        tool = "look" if prompts is None else prompts.tool
        self._group.setExclusive(False)
        for name, button in self.tools.items():
            button.setChecked(name == tool)
            button.setEnabled(prompts is not None)
        self._group.setExclusive(True)
        session = self._parts.session
        if session.draft.is_empty and not session.masks:
            self.hint.setText(self._next_step())

    def _next_step(self) -> str:
        """What to do where nothing is pointed at."""
        session, bridge = self._parts.session, self._parts.bridge
        if bridge.image is None or bridge.prompts is None:
            return "Open an image: drag it into the window, or use the File menu."
        if session.view is None:
            if self._parts.viewer.dims.ndisplay == 3:
                return "Switch napari to 2D display to point at objects."
            return f"Move the sliders to a place where {bridge.image.name!r} is."
        tool = bridge.prompts.tool
        if tool == "look" and not bridge.prompts.is_ready:
            return "Getting ready for the first click ..."
        if tool == "look" and (number := bridge.painted_id):
            return (
                f"Paint object {number} with napari's brush. {key_of('tool')}, or a "
                "tool above, points at objects again."
            )
        active = self._parts.viewer.layers.selection.active
        if tool == "look" and active and active is bridge.candidate_layer():
            return (
                f"Click candidates to mark them. {key_of('tool')}, or a tool above, "
                "points at objects again."
            )
        if tool == "look":
            return (
                f"Choose a tool above, or press {key_of('tool')}, to point at objects "
                f"in {bridge.image.name!r}."
            )
        step = _FIRST_STEPS[tool]
        if len(bridge.images()) == 1:
            return step
        return f"{step} The image is {bridge.image.name!r}; choose another one above."

    def _make_answers(self) -> QGridLayout:
        layout = QGridLayout()
        layout.setSpacing(2)
        self.answers: list[QPushButton] = []
        self.scores: list[QLabel] = []
        for i in range(3):
            button = QPushButton(f"Answer {i + 1}")
            button.setMinimumWidth(10)
            button.setCheckable(True)
            button.setToolTip(
                f"Answer {i + 1} (key {i + 1}, or Shift and the mouse wheel): a single "
                "click may mean a part, the whole or a group; with more prompts there "
                "is one answer. Below: the IoU with the object that the network "
                "expects, and how stable the mask is; 1 is best."
            )
            button.clicked.connect(lambda _=False, i=i: self._parts.session.choose(i))
            score = QLabel()
            score.setAlignment(Qt.AlignmentFlag.AlignHCenter)
            score.setToolTip(button.toolTip())
            layout.addWidget(button, 0, i)
            layout.addWidget(score, 1, i)
            self.answers.append(button)
            self.scores.append(score)
        return layout

    def _make_keep(self) -> QGridLayout:
        layout = QGridLayout()
        layout.setSpacing(2)
        self.keep_button = _button("Keep", "keep", "Make objects of the masks", self)
        self.reject_button = _button("Drop", "reject", "Drop the prompts", self)
        self.undo_button = _button("Undo", "undo", "Nothing to undo", self)
        self.redo_button = _button("Redo", "redo", "Nothing to make again", self)
        layout.addWidget(self.keep_button, 0, 0)
        layout.addWidget(self.reject_button, 0, 1)
        layout.addWidget(self.undo_button, 1, 0)
        layout.addWidget(self.redo_button, 1, 1)
        self.keep_button.clicked.connect(self._keep_or_tell)
        self.reject_button.clicked.connect(self.reject)
        self.undo_button.clicked.connect(lambda: self._parts.session.undo())
        self.redo_button.clicked.connect(lambda: self._parts.session.redo())
        return layout

    def _make_options(self) -> QGridLayout:
        layout = QGridLayout()
        self.overlap = QComboBox()
        for data, text, tip in _OVERLAPS:
            self.overlap.addItem(text, data)
            at = self.overlap.count() - 1
            self.overlap.setItemData(at, tip, Qt.ItemDataRole.ToolTipRole)
        self.overlap.setToolTip("What happens where a new object covers others")
        self.overlap.activated.connect(self._set_overlap)
        self.style_choice = QComboBox()
        self.style_choice.addItem("filled", 0)
        self.style_choice.addItem("as outline", _OUTLINE)
        self.style_choice.setToolTip("How the preview is drawn")
        self.style_choice.activated.connect(self._set_style)
        self.completes = QCheckBox("Look again at cut or tiny objects")
        self.completes.setChecked(True)
        self.completes.setToolTip(
            "Where a crop of the image cuts an object, or shows it too small, a better "
            "crop is encoded after the first answer, and the mask is replaced."
        )
        self.completes.toggled.connect(self._set_completes)
        self.hovers = QCheckBox(f"Show masks before a click ({key_of('hover')})")
        self.hovers.setToolTip(
            "Show what a click would give while the mouse moves, as holding "
            f"{key_of('hover')} does"
        )
        layout.addWidget(QLabel("Other objects"), 0, 0)
        layout.addWidget(self.overlap, 0, 1)
        layout.addWidget(QLabel("Preview"), 1, 0)
        layout.addWidget(self.style_choice, 1, 1)
        layout.addWidget(self.hovers, 2, 0, 1, 2)
        layout.addWidget(self.completes, 3, 0, 1, 2)
        layout.setColumnStretch(1, 1)
        return layout

    def _set_completes(self, checked: bool) -> None:
        self._parts.network.completes = checked

    def _keep_or_tell(self) -> None:
        try:
            self.keep()
        except NapariSamError as error:
            self._parts.network.failed.emit(error)

    def _ask(self, found: dict[int, int]) -> bool | None:
        """Ask whether to take pixels of others; None for neither."""
        n_pixels = sum(found.values())
        noun = "object" if len(found) == 1 else "objects"
        box = QMessageBox(
            QMessageBox.Icon.Question,
            "Objects overlap",
            f"The mask covers {n_pixels} pixels of {len(found)} {noun}.",
            parent=self,
        )
        take = box.addButton("Overwrite", QMessageBox.ButtonRole.DestructiveRole)
        leave = box.addButton("Keep them", QMessageBox.ButtonRole.AcceptRole)
        box.addButton(QMessageBox.StandardButton.Cancel)
        box.setDefaultButton(leave)
        box.exec()
        return {take: True, leave: False}.get(box.clickedButton())

    def _set_sign(self, is_negative: bool) -> None:
        self._parts.session.state.positive = not is_negative

    def _show_sign(self, positive: bool) -> None:
        word, colour = ("positive", POSITIVE) if positive else ("negative", NEGATIVE)
        mark = "●" if positive else "✕"
        self.sign.setText(f"{mark} Next point: {word} ({key_of('other_kind')})")
        self.sign.setStyleSheet(f"QPushButton {{ border-left: 6px solid {colour}; }}")
        self.sign.setChecked(not positive)

    def _set_overlap(self) -> None:
        self._parts.session.state.on_overlap = self.overlap.currentData()

    def _show_overlap(self, on_overlap: str) -> None:
        self.overlap.setCurrentIndex(self.overlap.findData(on_overlap))

    def _set_style(self, _: object = None) -> None:
        if self._parts.bridge.prompts is not None:
            self._parts.bridge.prompts.set_contour(self.style_choice.currentData())

    def _show_waiting(self, _request: object) -> None:
        loading = self._parts.network.planes is None
        self.hint.setText("Loading the model ..." if loading else "Looking ...")

    def _show_answers(self, masks: Sequence[ShownMask]) -> None:
        session = self._parts.session
        draft = session.draft
        several = masks[0].n_answers if len(masks) == 1 else 0
        for i, button in enumerate(self.answers):
            usable = i < several and several > 1
            button.setEnabled(usable)
            button.setChecked(usable and masks[0].answer == i)
        self._show_scores(masks)
        can_keep = bool(masks) and not draft.is_empty
        self.keep_button.setEnabled(can_keep)
        self.reject_button.setEnabled(not draft.is_empty)
        if session.view is None:
            self.hint.setText(self._next_step())
        elif can_keep:
            if draft.object_id is not None:
                noun = f"mask as object {draft.object_id}"
            else:
                noun = "object" if len(masks) == 1 else f"{len(masks)} objects"
            empty = not any(each.box.area for each in masks)
            points = "" if self.tools["points"].isChecked() else "press W, "
            self.hint.setText(
                "Nothing found here; point elsewhere."
                if empty
                else f"Keep the {noun}, or correct: {points}click what is missing, "
                "Shift-click what is too much."
            )
        elif masks:  # under the mouse, before any click
            self.hint.setText("A click gives this mask.")
        elif draft.is_empty:
            self.hint.setText(self._next_step())
        elif not session.is_waiting:
            self.hint.setText("No positive point and no shape is in the image.")
        if self._ahead.draft is not None and not session.is_waiting:
            # not at once: others are still being told what this answer is
            QTimer.singleShot(0, self._keep_now)

    def _keep_now(self) -> None:
        """Keep what was asked for too early, unless the prompts have changed."""
        session, draft = self._parts.session, self._ahead.end()
        if draft is None or draft is not session.draft:
            self._ahead.forget()
            return
        self._keep_or_tell()
        if (held := self._ahead.take()) is not None:
            session.reject()  # what could not be kept was told
            session.set_points(held.points, held.positive)
            if held.is_kept:
                self._ahead.begin(session.draft)

    def _show_scores(self, masks: Sequence[ShownMask]) -> None:
        """Show the scores of all answers; of the one that is shown as it is now."""
        scores = list(self._parts.session.scores)
        if len(masks) == 1:
            scores[masks[0].answer] = masks[0].predicted_iou, masks[0].stability
        for label, text in itertools.zip_longest(
            self.scores,
            (f"IoU {iou:.2f}\nstable {stable:.2f}" for iou, stable in scores),
        ):
            label.setText(text or "\n")

    def _show_history(self) -> None:
        history = self._parts.session.history
        self.undo_button.setEnabled(history.last is not None)
        self.redo_button.setEnabled(history.following is not None)
        self.undo_button.setToolTip(f"Undo: {history.last or 'nothing'}")
        self.redo_button.setToolTip(f"Make again: {history.following or 'nothing'}")


def _button(text: str, command: Command, tip: str, parent: QWidget) -> QPushButton:
    button = QPushButton(f"{text} ({keys_of(command)})", parent)
    button.setToolTip(tip)
    return button
