"""Controls that several panels have: buttons, shares, numbers in a narrow dock."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QWidget,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Layer

T = TypeVar("T", bound=QWidget)

_LEAST_PX = 50  # napari's style asks for twice as much, too wide for a dock of 300 px


def button(text: str, tip: str) -> QPushButton:
    """Make a button with an explanation."""
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


def show_value(bar: QProgressBar, done: int, total: int | None = None) -> None:
    """Let a bar show how far work is, with the next frame.

    By itself it is drawn at once, and the whole window with it.

    Parameters
    ----------
    bar : QProgressBar
    done : int
    total : int, optional
        0 where it is not known: the bar only moves. Default: as before.
    """
    bar.setUpdatesEnabled(False)
    if total is not None:
        bar.setMaximum(total)
    bar.setValue(done)
    bar.setUpdatesEnabled(True)


def share_box(value: float, tip: str) -> QDoubleSpinBox:
    """Make a box for a number from 0 to 1."""
    box = QDoubleSpinBox()
    box.setRange(0, 1)
    box.setSingleStep(0.05)
    box.setDecimals(2)
    box.setValue(value)
    box.setToolTip(tip)
    return narrow(box)


def narrow(widget: T) -> T:
    """Let a control become narrower than napari's style wants it."""
    widget.setMinimumWidth(_LEAST_PX)
    policy = widget.sizePolicy()
    policy.setHorizontalPolicy(QSizePolicy.Policy.Ignored)
    widget.setSizePolicy(policy)
    return widget


def shorten(combo: QComboBox, tip: str) -> None:
    """Let a long name not widen the dock."""
    combo.setToolTip(tip)
    combo.setSizeAdjustPolicy(
        QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
    )
    combo.setMinimumContentsLength(8)


class LayerBox(QComboBox):
    """A list of layers, the chosen one shown.

    The layers are kept here: Qt gives back a copy of what it holds as data.

    Parameters
    ----------
    without : str
        What is shown for no layer.
    tip : str
    always : bool
        Offer no layer even where there are some.
    """

    def __init__(self, without: str, tip: str, *, always: bool) -> None:
        super().__init__()
        self._without = without
        self._always = always
        self._layers: list[Layer | None] = []
        shorten(self, tip)

    @property
    def layer(self) -> Layer | None:
        """The layer that is shown."""
        at = self.currentIndex()
        return self._layers[at] if at >= 0 else None

    def offer(self, layers: Sequence[Layer], chosen: Layer | None) -> None:
        """Show layers, without telling anybody."""
        self._layers = list(layers)
        if self._always or not layers:
            self._layers.append(None)
        with QSignalBlocker(self):
            self.clear()
            self.addItems(
                [self._without if x is None else x.name for x in self._layers]
            )
            known = [i for i, each in enumerate(self._layers) if each is chosen]
            self.setCurrentIndex(known[0] if known else -1)
