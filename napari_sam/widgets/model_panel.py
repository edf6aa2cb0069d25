"""What to work on: image, weights, labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QWidget,
)

from napari_sam.weights.table import list_models
from napari_sam.widgets.contrast_question import ContrastQuestion
from napari_sam.widgets.controls import LayerBox, shorten
from napari_sam.widgets.scale_choice import ScaleChoice

if TYPE_CHECKING:
    from napari_sam.widgets.panel import DockParts

_FILE = "from a file ..."


class ModelPanel(QWidget):
    """Choose image, model and output; each has a default.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Image and model"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self.image = LayerBox("no image", "Image layer to segment", always=False)
        self.model = QComboBox()
        shorten(self.model, "Weights of the network; larger ones are slower")
        self.labels = LayerBox(
            "new layer",
            "Labels layer that objects are kept in; a new one is made with the first "
            "object",
            always=True,
        )
        self.size = ScaleChoice(parts)
        self.status = QLabel("")
        self.status.setWordWrap(True)
        self.status.setTextFormat(Qt.TextFormat.PlainText)
        layout = QFormLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout.addRow("Image", self.image)
        layout.addRow("Model", self.model)
        layout.addRow("Objects", self.labels)
        layout.addRow("Typical size", self.size)
        layout.addRow(self.status)
        self.contrast = ContrastQuestion(parts)
        layout.addRow(self.contrast)
        for spec in list_models():
            self.model.addItem(spec.name, spec.name)
            self.model.setItemData(
                self.model.count() - 1,
                f"{spec.trained_for}; {spec.licence}",
                Qt.ItemDataRole.ToolTipRole,
            )
        self.model.addItem(_FILE, _FILE)
        self.model.activated.connect(self._load)
        self.image.activated.connect(self._choose_image)
        self.labels.activated.connect(self._choose_labels)
        bridge = parts.bridge
        bridge.choices_changed.connect(self.refresh)
        bridge.image_changed.connect(self.refresh)
        bridge.labels_changed.connect(self.refresh)
        parts.network.status.connect(self._show_status)
        self.refresh()

    def refresh(self, *_: object) -> None:
        """Show the layers that can be chosen, and the ones that are."""
        bridge = self._parts.bridge
        self.image.offer(bridge.images(), bridge.image)
        self.labels.offer(bridge.label_layers(), bridge.labels)

    def choose_model(self, name: str) -> None:
        """Load weights by name or path, and show the name."""
        at = self.model.findData(name)
        if at < 0:
            at = self.model.count() - 1
            self.model.insertItem(at, name.rpartition("/")[2], name)
        self.model.setCurrentIndex(at)
        self._parts.network.load(name)

    def _show_status(self, text: str) -> None:
        self.status.setText(text)

    def _load(self) -> None:
        name = self.model.currentData()
        if name == _FILE:
            name, _ = QFileDialog.getOpenFileName(
                self, "Weights", filter="Weights (*.safetensors *.pth *.pt)"
            )
            if not name:
                name = self._parts.network.name or "default"
                self.model.setCurrentIndex(max(0, self.model.findData(name)))
                return
        self.choose_model(name)

    def _choose_image(self) -> None:
        self._parts.bridge.choose_image(self.image.layer)

    def _choose_labels(self) -> None:
        self._parts.bridge.choose_labels(self.labels.layer)
