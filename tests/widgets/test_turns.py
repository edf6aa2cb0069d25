"""Work cut into turns of the event loop; layers that come without being selected."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display


def test_what_waits_comes_between(qtbot: QtBot) -> None:
    """Also what an act causes, as its frame, comes before the next act."""
    from qtpy.QtCore import QTimer

    from napari_sam.widgets.turns import in_turns

    order: list[str] = []

    def act(name: str, *more: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            QTimer.singleShot(0, lambda: order.append(f"frame of {name}"))
            in_turns(*more)

        return run

    in_turns(act("a", act("a1"), act("a2")), act("b"))
    in_turns(act("c"))
    in_turns()
    assert order == []
    qtbot.waitUntil(lambda: order[-1:] == ["frame of c"])
    names = ["a", "a1", "a2", "b", "c"]
    assert order == [each for n in names for each in (n, f"frame of {n}")]


def test_an_error_does_not_hold_up_the_others(qtbot: QtBot) -> None:
    from napari_sam.widgets.turns import in_turns

    done: list[str] = []

    def fail() -> None:
        raise ValueError("as it happens")

    with qtbot.capture_exceptions() as errors:
        in_turns(fail, lambda: done.append("next"))
        qtbot.waitUntil(lambda: bool(done))
    assert [str(each[1]) for each in errors] == ["as it happens"]


@pytest.mark.parametrize("selected", [[0], [], [0, 1]])
def test_a_layer_comes_beside_what_is_selected(
    qtbot: QtBot, selected: list[int]
) -> None:
    from napari.components import ViewerModel
    from napari.layers import Labels

    from napari_sam.widgets.turns import insert_beside

    viewer = ViewerModel()
    layers = [viewer.add_image(np.zeros((4, 4)), name=name) for name in "ab"]
    viewer.layers.selection = {layers[n] for n in selected}
    told: list[object] = []
    viewer.layers.selection.events.connect(told.append)
    new = Labels(np.zeros((4, 4), np.uint8))
    insert_beside(viewer, 1, new, gently=True)
    assert list(viewer.layers) == [layers[0], new, layers[1]]
    assert set(viewer.layers.selection) == {layers[n] for n in selected}
    assert told == []
    assert not new.visible
    qtbot.waitUntil(lambda: new.visible)
    other = viewer.add_image(np.zeros((4, 4)))
    assert viewer.layers.selection.active is other  # as always in napari
