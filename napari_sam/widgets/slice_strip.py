"""A strip with one mark for each slice: what is known of an object there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from qtpy.QtCore import QEvent, QPointF, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QHelpEvent, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_sam.engine.records import SliceMark

Kind: TypeAlias = Literal["none", "computed", "prompted", "doubtful", "stopped"]

# Colour-blind safe (Okabe and Ito 2008); the last one wins where slices share a pixel.
COLOURS: dict[Kind, str] = {
    "none": "#3c4250",
    "computed": "#009e73",
    "prompted": "#56b4e9",
    "doubtful": "#e69f00",
    "stopped": "#d55e00",
}
_RANK = list(COLOURS)
_STATES = {
    "prompted": "prompted",
    "computed": "computed",
    "bridged": "bridged: the shape between its neighbours",
    "stopped": "not followed further",
    "end": "marked as the end",
}


class SliceStrip(QWidget):
    """Marks of an object, slice by slice; a click goes to one.

    Signals
    -------
    slice_chosen : int
    """

    slice_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.n = 1
        self.here = 0
        self._marks: dict[int, SliceMark] = {}
        self.setMinimumHeight(30)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def show_marks(self, marks: Iterable[SliceMark], n: int, here: int) -> None:
        """Show what is known.

        Parameters
        ----------
        marks : iterable of SliceMark
        n : int
            Number of slices.
        here : int
            The slice that is looked at.
        """
        self._marks = {mark.at: mark for mark in marks}
        self.n, self.here = max(1, n), here
        self.update()

    def text_of(self, at: int) -> str:
        """Return what is known of a slice, for people."""
        mark = self._marks.get(at)
        if mark is None:
            return f"slice {at}: nothing known"
        text = f"slice {at}: {_STATES[mark.state]}"
        if mark.predicted_iou is not None:
            text += f", predicted IoU {mark.predicted_iou:.2f}"
        if mark.reason:
            text += f" ({mark.reason})"
        if mark.is_checked:
            return text + "; checked"
        return text + ("; worth a look" if mark.is_doubtful else "")

    def slice_at(self, x: float) -> int:
        """Return the slice that is drawn at a place, in pixels from the left."""
        return min(self.n - 1, max(0, int(x * self.n / max(1, self.width()))))

    def sizeHint(self) -> object:
        """Return the size of a strip in a dock."""
        return self.minimumSize().expandedTo(self.minimumSizeHint())

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Draw one column of pixels after the other, and where we are."""
        painter = QPainter(self)
        width, height = self.width(), self.height()
        top = 8.0
        columns = columns_of(self._marks.values(), self.n, width)
        each = width / len(columns)
        gap = 1.0 if each >= 4 else 0.0
        for i, (kind, is_checked) in enumerate(columns):
            box = QRectF(i * each, top, each - gap, height - top)
            painter.fillRect(box, QColor(COLOURS[kind]))
            if is_checked:
                foot = QRectF(box.left(), height - 5.0, box.width(), 5.0)
                painter.fillRect(foot, QColor("white"))
        middle = (self.here + 0.5) * width / self.n
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(self.palette().text())
        painter.drawPolygon(
            [
                QPointF(middle - 5, 0.0),
                QPointF(middle + 5, 0.0),
                QPointF(middle, top - 1),
            ]
        )

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go to the slice under the mouse."""
        self.slice_chosen.emit(self.slice_at(event.position().x()))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Go through the slices while the button is held."""
        at = self.slice_at(event.position().x())
        if at != self.here:
            self.slice_chosen.emit(at)

    def event(self, event: QEvent) -> bool:
        """Say what is known of the slice under the mouse."""
        if isinstance(event, QHelpEvent):
            text = self.text_of(self.slice_at(event.pos().x()))
            QToolTip.showText(event.globalPos(), text, self)
            return True
        return bool(super().event(event))


def kind_of(mark: SliceMark) -> Kind:
    """Return the colour of a mark; what the user has checked is no longer doubtful."""
    if mark.state in ("stopped", "end"):
        return "stopped"
    if mark.is_doubtful:
        return "doubtful"
    return "prompted" if mark.state == "prompted" else "computed"


def columns_of(
    marks: Iterable[SliceMark], n: int, width: int
) -> list[tuple[Kind, bool]]:
    """Share the slices out among columns of pixels.

    Parameters
    ----------
    marks : iterable of SliceMark
    n : int
        Number of slices.
    width : int
        Pixels. With more slices than pixels some share a column, which then shows
        the one that most needs a look.

    Returns
    -------
    list of (str, bool)
        Colour, and whether all slices of the column that are known are checked.
    """
    n_columns = max(1, min(n, width))
    kinds: list[Kind] = ["none"] * n_columns
    checked = [True] * n_columns
    for mark in marks:
        if 0 <= mark.at < n:
            column = mark.at * n_columns // n
            kinds[column] = max(kinds[column], kind_of(mark), key=_RANK.index)
            checked[column] &= mark.is_checked
    return [
        (kind, is_checked and kind != "none")
        for kind, is_checked in zip(kinds, checked, strict=True)
    ]
