"""The automatic panel: what it asks for, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_sam.engine.thresholds import Search, Thresholds

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sam.widgets.automatic_form import AutomaticForm

pytestmark = pytest.mark.display


@pytest.fixture
def panel(qtbot: QtBot) -> AutomaticForm:
    from napari_sam.widgets.automatic_form import AutomaticForm

    panel = AutomaticForm()
    qtbot.addWidget(panel)
    panel.resize(300, 700)
    panel.show()
    return panel


def test_it_shows_and_gives_back_settings(panel: AutomaticForm) -> None:
    assert panel.search() == Search("proposals")
    search = Search("grid", foreground=0.3, points_per_side=64)
    panel.set_search(search)
    assert panel.search() == search
    assert panel.density.isVisible()
    assert not panel.foreground.isVisible()


def test_thresholds_are_told_once_after_the_last_change(
    panel: AutomaticForm, qtbot: QtBot
) -> None:
    told: list[Thresholds] = []
    panel.thresholds_changed.connect(told.append)
    shown = Thresholds(0.2, 0.3, min_area=20)
    panel.set_thresholds(shown)
    assert panel.thresholds() == shown
    panel.show_found(7)
    for value in (0.5, 0.6, 0.7):
        panel.predicted_iou.setValue(value)
    panel.max_area.setValue(900)
    qtbot.waitUntil(lambda: bool(told), timeout=5000)
    assert told == [Thresholds(0.7, 0.3, min_area=20, max_area=900)]


def test_the_button_runs_then_stops(panel: AutomaticForm, qtbot: QtBot) -> None:
    panel.extent.setCurrentIndex(1)
    with qtbot.waitSignal(panel.run_asked) as asked:
        panel.run.click()
    assert asked.args == ["plane"]
    panel.show_progress(2, 9)
    assert panel.run.text() == "Stop"
    assert (panel.progress.value(), panel.progress.maximum()) == (2, 9)
    panel.show_progress(3, 9, unit="planes")
    assert panel.progress.text() == "3 of 9 planes"
    panel.show_progress(4, 9)
    assert panel.progress.text() == "4 of 9 planes"
    with qtbot.waitSignal(panel.stop_asked):
        panel.run.click()
    panel.show_progress(None)
    assert panel.run.text() == "Find objects"


def test_weights_without_a_head_leave_the_grid(panel: AutomaticForm) -> None:
    panel.set_model(has_head=False)
    assert panel.search().mode == "grid"
    panel.set_search(Search())
    assert panel.search().mode == "grid"


def test_buttons_need_candidates_and_marks(panel: AutomaticForm, qtbot: QtBot) -> None:
    assert not panel.commit_all.isEnabled()
    panel.show_found(12)
    assert panel.commit_all.isEnabled()
    assert not panel.commit_marked.isEnabled()
    assert "<b>12</b> candidates" in panel.count.text()
    panel.show_found(12, n_marked=3)
    assert "3 marked" in panel.count.text()
    with qtbot.waitSignal(panel.commit_asked) as asked:
        panel.commit_marked.click()
    assert asked.args == ["marked"]


def test_every_control_says_what_it_does_and_fits(panel: AutomaticForm) -> None:
    from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QPushButton

    for kind in (QAbstractSpinBox, QComboBox, QPushButton):
        for control in panel.findChildren(kind):
            owner = control
            while not owner.toolTip() and owner is not panel:
                owner = owner.parentWidget()
            assert owner is not panel, control
    assert panel.minimumSizeHint().width() <= 300
