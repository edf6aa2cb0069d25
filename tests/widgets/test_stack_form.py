"""The stack panel's form: what it says, what it asks for, what the strip shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from napari_sam.engine.records import SliceMark

if TYPE_CHECKING:
    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display

MARKS = (
    SliceMark(at=1, state="stopped", reason="overlap 0.1"),
    SliceMark(at=2, state="computed", predicted_iou=0.875),
    SliceMark(at=3, state="prompted", is_checked=True),
    SliceMark(at=4, state="bridged", is_suspicious=True),
)


def test_columns_show_what_most_needs_a_look() -> None:
    from napari_sam.widgets.slice_strip import columns_of

    assert columns_of(MARKS, 6, 300) == [
        ("none", False),
        ("stopped", False),
        ("computed", False),
        ("prompted", True),
        ("doubtful", False),
        ("none", False),
    ]
    assert columns_of(MARKS, 6, 2) == [("stopped", False), ("doubtful", False)]
    many = [SliceMark(at=at, state="computed", is_checked=True) for at in range(1000)]
    assert columns_of(many, 1000, 250) == [("computed", True)] * 250


def test_a_click_on_the_strip_chooses_a_slice(qtbot: QtBot) -> None:
    from qtpy.QtCore import QPoint, Qt

    from napari_sam.widgets.slice_strip import SliceStrip

    strip = SliceStrip()
    qtbot.addWidget(strip)
    strip.resize(120, 30)
    strip.show_marks(MARKS, 6, 0)
    with qtbot.waitSignal(strip.slice_chosen) as told:
        qtbot.mouseClick(strip, Qt.MouseButton.LeftButton, pos=QPoint(65, 15))
    assert told.args == [3]
    assert [strip.slice_at(x) for x in (-5, 0, 19.9, 20, 500)] == [0, 0, 0, 1, 5]
    assert "overlap 0.1" in strip.text_of(1)
    assert strip.text_of(2) == "slice 2: computed, predicted IoU 0.88"
    assert strip.text_of(3).endswith("checked")
    assert strip.text_of(4).endswith("worth a look")


@pytest.mark.parametrize(
    ("direction", "here", "expected"),
    [
        ("both", 5, (2, 10)),
        ("forwards", 5, (5, 10)),
        ("backwards", 5, (2, 6)),
        ("both", 0, (0, 10)),  # where we are belongs to it
    ],
)
def test_range_and_direction(direction, here, expected) -> None:
    from napari_sam.widgets.stack_form import StackSettings

    assert StackSettings(2, 9, direction).within(here) == expected


def test_settings_and_axes(qtbot: QtBot) -> None:
    from napari_sam.widgets.stack_form import StackForm, StackSettings

    form = StackForm()
    qtbot.addWidget(form)
    assert form.chosen_axis() is None
    assert form.note.isVisibleTo(form)
    assert not form.follow.isVisibleTo(form)
    form.set_axes([(1, "z", 40), (0, "t", 7)])
    assert form.axis.isVisibleTo(form)
    assert form.settings() == StackSettings(0, 39)
    form.first.setValue(30)
    form.last.setValue(10)
    assert (form.settings().first, form.settings().last) == (10, 30)
    form.set_axes([(1, "z", 40), (0, "t", 7)])
    assert form.settings().first == 10  # the same axes leave the range as it is
    with qtbot.waitSignal(form.axis_changed) as told:
        form.axis.setCurrentIndex(1)
    assert told.args == [0]
    assert form.settings() == StackSettings(0, 6)
    form.set_axes([(0, "z", 5)])
    assert not form.axis.isVisibleTo(form)
    assert form.chosen_axis() == 0
    assert form.sizeHint().width() <= 300


def test_it_says_what_is_known(qtbot: QtBot) -> None:
    from napari_sam.widgets.stack_form import StackForm

    form = StackForm()
    qtbot.addWidget(form)
    form.set_axes([(0, "z", 6)])
    form.show_object(7, MARKS, 3)
    assert form.what.text() == "Object 7: 3 of 6 slices, 2 worth a look"
    assert form.checked.isChecked()
    assert form.next_doubtful.isEnabled()
    form.show_object(0, (), 3)
    assert not form.checked.isEnabled()
    assert not form.delete.isEnabled()
    asked: list[str] = []
    form.follow_asked.connect(asked.append)
    form.stop_asked.connect(lambda: asked.append("stop"))
    form.follow.click()
    form.show_progress(2, 6)
    form.follow.click()
    form.show_progress(None)
    form.follow_all.click()
    assert asked == ["current", "stop", "all"]
