"""The review table: sorted by doubt, filtered, worked through by keys."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from napari_sam.engine.review import ReviewRow
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

    from napari_sam.widgets.review_form import ReviewForm

pytestmark = pytest.mark.display

BOX = Box(0, 0, 4, 4)
ROWS = [
    ReviewRow(1, (None, None), BOX, 16, 0.9, 0.9),
    ReviewRow(2, (None, None), BOX, 9, 0.2, 0.9, touches_seam=True),
    ReviewRow(3, (None, None), BOX, 12, 0.5, 0.9, state="accepted"),
    ReviewRow(4, (None, None), BOX, 5),
]


@pytest.fixture
def panel(qtbot: QtBot) -> ReviewForm:
    from napari_sam.widgets.review_form import ReviewForm

    panel = ReviewForm()
    qtbot.addWidget(panel)
    panel.show()
    panel.set_rows(ROWS)
    return panel


def listed(panel: ReviewForm) -> list[int]:
    """Ids from top to bottom."""
    model = panel.view.model()
    return [int(model.index(row, 0).data()) for row in range(model.rowCount())]


def test_the_most_doubtful_comes_first(panel: ReviewForm) -> None:
    assert listed(panel) == [2, 3, 1, 4]
    model = panel.view.model()
    assert [model.index(0, column).data() for column in range(7)] == [
        "2", "0.84", "new", "9", "0.20", "0.90", "yes",
    ]  # fmt: skip
    assert panel.count.text() == "4 objects, 1 reviewed"


def test_other_columns_sort_as_numbers(panel: ReviewForm) -> None:
    from qtpy.QtCore import Qt

    panel.view.sortByColumn(3, Qt.SortOrder.AscendingOrder)
    assert listed(panel) == [4, 2, 3, 1]


def test_a_filter_lists_one_state(panel: ReviewForm) -> None:
    panel.filter.setCurrentIndex(panel.filter.findText("Accepted"))
    assert listed(panel) == [3]
    panel.filter.setCurrentIndex(panel.filter.findText("New"))
    assert listed(panel) == [2, 1, 4]


def test_keys_accept_and_go_to_the_next(panel: ReviewForm, qtbot: QtBot) -> None:
    from qtpy.QtCore import Qt

    chosen: list[ReviewRow] = []
    asked: list[tuple[int, str]] = []
    panel.object_chosen.connect(chosen.append)
    panel.state_asked.connect(lambda number, state: asked.append((number, state)))
    panel.choose(2)
    assert chosen == [ROWS[1]]
    panel.activateWindow()
    panel.view.setFocus()
    qtbot.waitUntil(panel.view.hasFocus, timeout=5000)
    qtbot.keyClick(panel.view, Qt.Key.Key_A)
    qtbot.keyClick(panel.view, Qt.Key.Key_R)
    assert asked == [(2, "accepted"), (3, "rejected")]
    assert panel.chosen() == ROWS[0]
    with qtbot.waitSignal(panel.reopen_asked) as reopened:
        qtbot.keyClick(panel.view, Qt.Key.Key_E)
    assert reopened.args == [1]


def test_new_rows_keep_the_chosen_one_and_move_no_camera(panel: ReviewForm) -> None:
    panel.choose(3)
    told: list[ReviewRow] = []
    panel.object_chosen.connect(told.append)
    panel.set_rows(ROWS[1:])
    assert panel.chosen() == ROWS[2]
    assert told == []


def test_the_rejected_are_deleted_by_one_button(
    panel: ReviewForm, qtbot: QtBot
) -> None:
    from qtpy.QtCore import Qt

    assert not panel.delete_rejected.isEnabled()
    panel.set_rows(
        [replace(row, state="rejected") for row in ROWS[:2]] + ROWS[2:],
    )
    panel.filter.setCurrentIndex(panel.filter.findText("Accepted"))
    with qtbot.waitSignal(panel.deletion_asked) as asked:
        qtbot.mouseClick(panel.delete_rejected, Qt.MouseButton.LeftButton)
    assert asked.args == [[1, 2]]
    panel.set_rows(ROWS[2:])
    assert not panel.delete_rejected.isEnabled()
