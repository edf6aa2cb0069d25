"""Controls that several panels have: buttons, shares, numbers in a narrow dock."""

from __future__ import annotations

from typing import TypeVar

from qtpy.QtWidgets import QDoubleSpinBox, QPushButton, QSizePolicy, QWidget

T = TypeVar("T", bound=QWidget)

_LEAST_PX = 50  # napari's style asks for twice as much, too wide for a dock of 300 px


def button(text: str, tip: str) -> QPushButton:
    """Make a button with an explanation."""
    made = QPushButton(text)
    made.setToolTip(tip)
    return made


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
