"""Cut objects in a session: the quick answer at once, the whole object after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from skimage.draw import disk

from napari_sam.engine.planes import Planes
from napari_sam.engine.request import PlaneView
from napari_sam.engine.session import Session
from napari_sam.images import ImageSource, Intensity
from napari_sam.labels import ArrayLabels
from napari_sam.masks import mask_iou
from tests.engine.bright import BrightSam

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_sam.engine.request import CompleteRequest

SHAPE = (420, 500)


class Desk:
    """A disc where the cores of four crops meet; second looks wait to be taken."""

    def __init__(self) -> None:
        self.truth = np.zeros(SHAPE, bool)
        self.truth[disk((208, 208), 60)] = True
        image = np.where(self.truth, 220, 20).astype(np.uint8)
        gray = Intensity((0,), ((0.0, 255.0),))
        self.labels = np.zeros(SHAPE, np.uint32)
        self.planes = Planes(BrightSam())
        self.session = Session(
            PlaneView(ImageSource(image), intensity=gray), ArrayLabels(self.labels)
        )
        self.wanted: list[CompleteRequest] = []
        self.session.request.connect(
            lambda request: self.session.receive(self.planes.answer(request))
        )
        self.session.complete_wanted.connect(self._want)

    def _want(self, wanted: CompleteRequest) -> None:
        self.wanted.append(wanted)

    def look_again(self) -> list[bool]:
        wanted, self.wanted = self.wanted, []
        return [
            self.session.receive_whole(each, step.value)
            for each in wanted
            for step in self.planes.complete(each)
        ]

    def shown(self) -> NDArray[np.bool_]:
        plane = np.zeros(SHAPE, bool)
        for each in self.session.masks:
            plane[each.box.slices] |= each.mask
        return plane


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_whole_object_follows_the_quick_answer(desk: Desk) -> None:
    desk.session.set_points([(205, 205)], [True])
    quick = desk.shown()
    assert quick.any()
    assert mask_iou(quick, desk.truth) < 0.75
    assert not desk.session.masks[0].is_completed
    assert all(desk.look_again())
    assert mask_iou(desk.shown(), desk.truth) > 0.97
    (shown,) = desk.session.masks
    assert shown.is_completed
    assert (shown.answer, shown.n_answers) == (1, 3)  # the others can still be chosen
    desk.session.commit()
    assert mask_iou(desk.labels > 0, desk.truth) > 0.97
    y0, x0, y1, x1 = desk.session.records[1].crop or (0, 0, 0, 0)
    assert desk.truth[y0:y1, x0:x1].sum() == desk.truth.sum()


def test_each_answer_is_completed_when_it_is_chosen(desk: Desk) -> None:
    desk.session.set_points([(205, 205)], [True])
    desk.look_again()
    desk.session.choose_next(-1)
    assert desk.session.masks[0].answer == 0
    (wanted,) = desk.wanted
    assert wanted.predictions[0].best == 0
    desk.look_again()
    half = desk.shown()
    assert desk.session.masks[0].is_completed
    assert mask_iou(half, desk.truth) < 0.7
    desk.session.choose_next(1)
    assert not desk.wanted  # it is known already
    assert mask_iou(desk.shown(), desk.truth) > 0.97
    desk.session.choose_next(-2)
    assert desk.session.masks[0].answer == 2


def test_a_second_look_at_old_prompts_is_dropped(desk: Desk) -> None:
    desk.session.set_points([(205, 205)], [True])
    old, desk.wanted = desk.wanted, []
    desk.session.set_points([(205, 205), (20, 20)], [True, False])
    before = desk.shown()
    for each in old:
        for step in desk.planes.complete(each):
            assert not desk.session.receive_whole(each, step.value)
    np.testing.assert_array_equal(desk.shown(), before)


def test_a_further_point_refines_the_whole_object(desk: Desk) -> None:
    desk.session.set_points([(205, 205)], [True])
    desk.look_again()
    desk.session.set_points([(205, 205), (20, 20)], [True, False])
    feedback = desk.session.draft.feedback
    assert feedback is not None
    assert desk.truth[feedback.crop.box.slices].sum() == desk.truth.sum()
    assert mask_iou(desk.shown(), desk.truth) > 0.97


def test_what_is_under_the_mouse_is_not_looked_at_twice(desk: Desk) -> None:
    desk.session.peek((205, 205))
    assert desk.session.masks
    assert not desk.wanted
