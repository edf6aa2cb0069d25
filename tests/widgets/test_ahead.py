"""Points of further objects, held while the first one waits for its mask."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam.engine.draft import Draft

pytestmark = pytest.mark.display

PLACES = np.array([[5, 5], [9, 9], [20, 20], [30, 30]], np.float32)
SIGNS = np.array([True, True, False, True])


def test_points_are_held_in_objects() -> None:
    from napari_sam.widgets.ahead import Ahead

    ahead = Ahead()
    assert not ahead.hold(PLACES[:1], SIGNS[:1])  # nothing is waited for
    draft = Draft(PLACES[:1], SIGNS[:1])
    ahead.begin(draft)
    assert ahead.draft is draft
    assert ahead.hold(PLACES[:2], SIGNS[:2])
    assert ahead.hold(PLACES[:3], SIGNS[:3])  # a second point of the same object
    ahead.keep_last()
    assert ahead.hold(PLACES, SIGNS)
    assert ahead.end() is draft
    first, second = ahead.take(), ahead.take()
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.points, PLACES[1:3])
    assert first.positive.tolist() == [True, False]
    assert first.is_kept
    np.testing.assert_array_equal(second.points, PLACES[3:])
    assert not second.is_kept
    assert ahead.take() is None


def test_a_change_of_the_draft_is_not_held() -> None:
    from napari_sam.widgets.ahead import Ahead

    ahead = Ahead()
    ahead.begin(Draft(PLACES[:2], SIGNS[:2]))
    assert not ahead.hold(PLACES[:1], SIGNS[:1])  # deleted
    assert not ahead.hold(PLACES[:2] + 1, SIGNS[:2])  # moved
    assert not ahead.hold(PLACES[1:], SIGNS[1:])
    assert ahead.hold(PLACES[:3], SIGNS[:3])
    ahead.forget()
    assert ahead.take() is None
    assert not ahead.hold(PLACES[:3], SIGNS[:3])
