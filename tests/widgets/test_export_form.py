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


def test_a_name_without_its_ending_gets_it(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from qtpy.QtWidgets import QFileDialog, QMessageBox, QPushButton

    from napari_sam.widgets.export_form import Export, ExportForm

    panel = ExportForm()
    qtbot.addWidget(panel)
    panel.show()
    panel.format.setCurrentText("tiff")
    told: list[Export] = []
    panel.export_asked.connect(told.append)
    save = panel.findChildren(QPushButton)[0]

    def save_as(name: str) -> str:
        path = str(tmp_path / name)
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (path, ""))
        save.click()
        return path

    typed = [save_as("cells"), save_as("cells.TIFF"), save_as("a.b")]
    paths = [typed[0] + ".labels.tif", typed[1], typed[2] + ".labels.tif"]
    assert [each.path for each in told] == paths

    # of a file that the dialog has not seen it is asked
    buttons = QMessageBox.StandardButton
    answers = [buttons.No, buttons.Yes]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: answers.pop(0))
    (tmp_path / "cells.labels.tif").touch()
    save_as("cells")
    assert len(told) == 3
    save_as("cells")
    assert told[3].path == paths[0]
