"""Exports and measurements of the labels in use, written by the worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_info, show_warning
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_sam.engine.records import as_notes, facts_of
from napari_sam.readers.stored import pixel_size_um
from napari_sam.widgets.export_form import ExportForm
from napari_sam.widgets.geometry import folder_of, full_array

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_sam.widgets.export_form import Export
    from napari_sam.widgets.panel import DockParts


class ExportPanel(QWidget):
    """Write the labels in any format; measure them into their features table.

    Parameters
    ----------
    parts : DockParts
    """

    title = "Export and measure"

    def __init__(self, parts: DockParts) -> None:
        super().__init__()
        self._parts = parts
        self.form = ExportForm()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.form)
        self.form.export_asked.connect(self.export)
        self.form.measure_asked.connect(self.measure)
        parts.bridge.labels_changed.connect(self._show_labels)
        self._show_labels(parts.bridge.labels)

    def export(self, wanted: Export) -> None:
        """Write a file; a notification tells when it is there."""
        labels = self._labels()
        if labels is None:
            return
        pixels, image = full_array(labels), self._image()
        records = list(self._parts.session.records.values())

        def work() -> Path:
            from napari_sam.writers.formats import find_format

            return find_format(wanted.format_name).write(
                pixels,
                wanted.path,
                pixel_size_um=wanted.pixel_size_um,
                image=image,
                notes=as_notes(records),
                facts=facts_of(records),
                overwrite=True,
            )

        self._parts.worker.call(work, lambda path: show_info(f"Written: {path}"))

    def measure(self, size_um: float | None) -> None:
        """Measure each object into the features table of the layer."""
        labels = self._labels()
        if labels is None:
            return
        pixels, image = full_array(labels), self._image()
        records = list(self._parts.session.records.values())

        def work() -> dict[str, Any]:
            from napari_sam.writers.measurements import columns_of, measure_objects

            table = measure_objects(pixels, image=image, pixel_size_um=size_um)
            return table | columns_of(facts_of(records), table["object"])

        def show(table: dict[str, Any]) -> None:
            features = {"index": table["object"], **table}
            labels.features = features
            show_info(
                f"{len(table['object'])} objects measured: see Layers > Metadata > "
                "Features table widget."
            )

        self._parts.worker.call(work, show)

    def close_panel(self) -> None:
        """Listen no more."""
        self._parts.bridge.labels_changed.disconnect(self._show_labels)

    def _labels(self) -> Labels | None:
        labels = self._parts.bridge.labels
        if labels is None:
            show_warning("No objects yet: keep one first, or choose a Labels layer.")
        return labels

    def _image(self) -> Any:
        """Return the pixels that objects are measured on; None if they do not fit."""
        image = self._parts.bridge.image
        return None if image is None else full_array(image)

    def _show_labels(self, _labels: Labels | None) -> None:
        image = self._parts.bridge.image
        if image is None:
            return
        size = pixel_size_um(image.scale, image.units)
        square = size is not None and bool(np.isclose(size[-1], size[-2]))
        # the name of the image's file, by which a training finds its labels
        file = image.source.path
        self.form.set_labels(
            Path(file).stem.removesuffix(".ome") if file else image.name,
            size[-1] if size is not None and square else None,
            folder_of(image),
        )
