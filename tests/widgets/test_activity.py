"""A bar for long work, though napari runs the event loop while it makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display


class Bar:
    """As much of napari's bar as is used; making one lets something happen."""

    made: list[Bar]
    meanwhile: Callable[[], object]

    def __init__(self, total: int, **_options: Any) -> None:
        self.total, self.n, self.is_open = total, 0, True
        Bar.made.append(self)
        Bar.meanwhile()

    def update(self, n: int) -> None:
        self.n += n

    def close(self) -> None:
        self.is_open = False


@pytest.fixture
def activity(monkeypatch: pytest.MonkeyPatch) -> Any:
    from napari_sam.widgets.activity import Activity

    monkeypatch.setattr("napari_sam.widgets.activity.progress", Bar)
    monkeypatch.setattr("napari_sam.widgets.activity._SHORT_S", 0.0)
    Bar.made = []
    activity = Activity("work")
    activity.begin()
    return activity


def test_a_step_that_comes_while_the_bar_is_made_makes_no_second_one(
    activity: Any, qtbot: QtBot
) -> None:
    Bar.meanwhile = lambda: activity.show(2, 10)
    activity.show(0, 10)
    activity.show(1, 10)  # the newest step is shown
    qtbot.waitUntil(lambda: [bar.n for bar in Bar.made] == [2])
    activity.show(3, 11)
    qtbot.waitUntil(lambda: [(bar.n, bar.total) for bar in Bar.made] == [(3, 11)])
    activity.show(4, 11)
    activity.end()
    assert not Bar.made[0].is_open
    qtbot.wait(20)
    assert [bar.n for bar in Bar.made] == [3]


def test_work_that_ends_while_the_bar_is_made_leaves_none(
    activity: Any, qtbot: QtBot
) -> None:
    Bar.meanwhile = activity.end
    activity.show(1, 10)
    qtbot.waitUntil(lambda: [bar.is_open for bar in Bar.made] == [False])
