"""Labels to files, in every format of the library; measurements into the layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

if TYPE_CHECKING:
    from napari_sam.writers.formats import Format


@dataclass(frozen=True, slots=True)
class Export:
    """What shall be written.

    Parameters
    ----------
    format_name : str
        A name in `FORMATS`.
    path : str
        The user has agreed to replace what is there.
    pixel_size_um : float, optional
        Default: not known.
    """

    format_name: str
    path: str
    pixel_size_um: float | None


class ExportForm(QWidget):
    """Choose a format and a file; measure.

    Signals
    -------
    export_asked : Export
    measure_asked : object
        Pixel size in micrometres, or None.
    """

    export_asked = Signal(object)
    measure_asked = Signal(object)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.name = "labels"
        self.folder = ""
        self.format = QComboBox()
        self.format.setToolTip("All formats are written whole or not at all.")
        self.description = QLabel()
        self.description.setWordWrap(True)
        self.pixel_size = QDoubleSpinBox()
        self.pixel_size.setDecimals(4)
        self.pixel_size.setRange(0, 1e6)
        self.pixel_size.setSuffix(" µm")
        self.pixel_size.setSpecialValueText("not known")
        self.pixel_size.setToolTip(
            "Size of a pixel; taken from the image where it is known."
        )
        save = QPushButton("Save as ...")
        save.setToolTip("Choose a file and write the labels.")
        save.clicked.connect(self._save)
        measure = QPushButton("Measure into the table")
        measure.setToolTip(
            "Area, shape and intensity of each object, into the features table of the "
            "labels (menu Layers > Metadata > Features table widget)."
        )
        measure.clicked.connect(lambda: self.measure_asked.emit(self.size_um()))
        form = QFormLayout()
        form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        form.addRow("Pixel size", self.pixel_size)
        form.addRow("Format", self.format)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addLayout(form)
        layout.addWidget(self.description)  # a form would cut its second line
        layout.addWidget(save)
        layout.addWidget(measure)
        layout.addStretch(1)
        self.format.currentIndexChanged.connect(self._describe)

    def showEvent(self, event: object) -> None:
        """Offer the formats, whose modules take a while to import."""
        super().showEvent(event)
        if not self.format.count():
            from napari_sam.writers.formats import FORMATS

            self.format.addItems(list(FORMATS))

    def set_labels(
        self, name: str, pixel_size_um: float | None, folder: str = ""
    ) -> None:
        """Show whose labels are exported, and what is known of their pixels.

        Parameters
        ----------
        name : str
            Of the file that is proposed, without its ending.
        pixel_size_um : float or None
            None if it is not known.
        folder : str
            Where it is proposed. Default: where the program was started.
        """
        self.name, self.folder = name, folder
        self.pixel_size.setValue(pixel_size_um or 0)

    def size_um(self) -> float | None:
        """Return the pixel size in micrometres; None if it is not known."""
        return self.pixel_size.value() or None

    def _chosen(self) -> Format:
        from napari_sam.writers.formats import FORMATS

        return FORMATS[self.format.currentText()]

    def _describe(self) -> None:
        self.description.setText(self._chosen().description)

    def _save(self) -> None:
        chosen = self._chosen()
        endings = " ".join(f"*{ending}" for ending in chosen.endings)
        path, _ = QFileDialog.getSaveFileName(
            self,
            "Save labels",
            str(Path(self.folder) / f"{self.name}{chosen.ending}"),
            f"{chosen.name} ({endings})",
        )
        if path and not path.lower().endswith(chosen.endings):
            path += chosen.ending
            if Path(path).exists() and not self._may_replace(path):
                return
        if path:
            self.export_asked.emit(Export(chosen.name, path, self.size_um()))

    def _may_replace(self, path: str) -> bool:
        """Ask, as the dialog does for names that are typed with their ending."""
        answer = QMessageBox.question(
            self, "Save labels", f"{Path(path).name} exists already. Replace it?"
        )
        return bool(answer == QMessageBox.StandardButton.Yes)
