"""The export panel offers what the library writes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display


def test_it_asks_for_the_chosen_format(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import QFileDialog, QPushButton

    from napari_sam.widgets.export_form import Export, ExportForm
    from napari_sam.writers.formats import FORMATS

    panel = ExportForm()
    qtbot.addWidget(panel)
    panel.show()
    names = [panel.format.itemText(i) for i in range(panel.format.count())]
    assert names == list(FORMATS)
    panel.set_labels("cells", 0.25, "/images")
    panel.format.setCurrentIndex(names.index("geojson"))
    assert panel.description.text() == FORMATS["geojson"].description
    proposed = []

    def choose(_parent: object, _title: str, name: str, kinds: str) -> tuple[str, str]:
        proposed.append((name, kinds))
        return "/data/cells.geojson", kinds

    monkeypatch.setattr(QFileDialog, "getSaveFileName", choose)
    save, measure = panel.findChildren(QPushButton)
    with qtbot.waitSignal(panel.export_asked) as asked:
        save.click()
    path = str(Path("/images") / "cells.geojson")
    assert proposed == [(path, "geojson (*.geojson *.json)")]
    assert asked.args == [Export("geojson", "/data/cells.geojson", 0.25)]
    panel.set_labels("cells", None)
    with qtbot.waitSignal(panel.measure_asked) as measured:
        measure.click()
    assert measured.args == [None]
