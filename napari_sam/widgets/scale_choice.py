"""How large objects are, so that the network sees them at a good scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_sam.tiling import advise_scale

if TYPE_CHECKING:
    from napari_sam.widgets.panel import DockParts

_LARGEST = 100_000


class ScaleChoice(QWidget):
    """Diameter of a typical object; the scale follows, and says why.

    Parameters
    ----------
    parts : DockParts
    """

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self.diameter = QSpinBox()
        self.diameter.setRange(0, _LARGEST)
        self.diameter.setSuffix(" px")
        self.diameter.setSpecialValueText("as it is")
        self.diameter.setKeyboardTracking(False)
        self.diameter.setToolTip(
            "Diameter of a typical object. Where objects are too small or too large "
            "for the network, the image is shown to it at another scale."
        )
        self.measure = QPushButton("Measure")
        self.measure.setToolTip(
            "Take the size of the object that is drawn (tools Box, Area and Ellipse) "
            "or shown"
        )
        self.advice = QLabel("")
        self.advice.setWordWrap(True)
        line = QHBoxLayout()
        line.addWidget(self.diameter, 1)
        line.addWidget(self.measure)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self.advice)
        self.measure.clicked.connect(self.take_drawn)
        self.diameter.valueChanged.connect(self._use)
        parts.bridge.image_changed.connect(self._forget)
        parts.session.state.events.diameter.connect(self._show)
        self._advise("")

    def take_drawn(self) -> None:
        """Take the size of what is drawn or shown."""
        found = self._parts.session.typical_diameter()
        if found is None:
            self._advise("Draw one typical object, or click into one; then measure.")
        else:
            self.diameter.setValue(max(1, round(found)))

    def _use(self, diameter: int) -> None:
        view, planes = self._parts.session.view, self._parts.network.planes
        self._parts.session.state.diameter = diameter
        if diameter == 0 or view is None:
            self._advise("")
            self._parts.bridge.use_scale(None)
            return
        size = 1024 if planes is None else planes.model.config.image_size
        advice = advise_scale(view.shape, diameter, size=size, halo=size // 8)
        self._advise(advice.why)
        self._parts.bridge.use_scale(advice.scale)

    def _forget(self, _image: object = None) -> None:
        self._parts.session.state.diameter = 0
        self._advise("")

    def _show(self, diameter: int) -> None:
        with QSignalBlocker(self.diameter):
            self.diameter.setValue(diameter)

    def _advise(self, text: str) -> None:
        self.advice.setText(text)
        self.advice.setVisible(bool(text))
