"""Two images in one dock: each keeps its prompts and its labels, one undo for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sam.engine.session import Session
from tests.engine.discs import DiscPlanes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display


class Pair:
    """A bridge with two images of different sizes, which the network both knows."""

    def __init__(self, labels: NDArray[np.uint32]) -> None:
        from napari.components import ViewerModel

        from napari_sam.widgets.bridge import LayerBridge

        self.viewer = ViewerModel()
        self.truths = labels, labels[:80]
        self.images = [
            self.viewer.add_image((each > 0).astype(np.uint8), name=f"image {i}")
            for i, each in enumerate(self.truths)
        ]
        self.session = Session()
        self.bridge = LayerBridge(self.viewer, self.session)
        planes = [DiscPlanes(each) for each in self.truths]

        def answer(request: Any) -> None:
            number = self.images.index(self.bridge.image)
            self.session.receive(planes[number].answer(request))

        self.session.request.connect(answer)

    def keep(self, y: float, x: float) -> None:
        prompts: Any = self.bridge.prompts
        prompts.points.add(np.array([[y, x]]))
        self.bridge.need_labels()
        self.session.commit()


@pytest.fixture
def pair(
    qtbot: QtBot, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]
) -> Iterator[Pair]:
    pair = Pair(cells[1])
    yield pair
    pair.bridge.close()


def test_prompts_and_labels_of_an_image_are_there_when_one_comes_back(
    pair: Pair,
) -> None:
    bridge, session = pair.bridge, pair.session
    first, second = pair.images
    bridge.choose_image(first)
    pair.keep(20, 20)
    of_first = bridge.labels
    bridge.prompts.points.add(np.array([[24, 60]]))  # not kept yet
    bridge.choose_image(second)
    assert session.draft.is_empty
    pair.keep(60, 30)
    assert bridge.labels is not of_first
    bridge.choose_image(first)
    np.testing.assert_allclose(session.draft.points, [[24, 60]])
    assert bridge.labels is of_first
    assert list(session.records) == [1]


def test_undo_goes_back_to_the_other_image_and_leaves_its_records_in_order(
    pair: Pair,
) -> None:
    bridge, session = pair.bridge, pair.session
    first, second = pair.images
    bridge.choose_image(first)
    pair.keep(20, 20)
    of_first = bridge.labels
    bridge.choose_image(second)
    pair.keep(60, 30)
    pair.keep(24, 60)
    of_second = bridge.labels
    for _ in range(4):  # two commits and two points, on the second image
        session.undo()
    assert bridge.image is second
    assert not of_second.data.any()
    assert session.undo() == "commit object 1"
    assert bridge.image is first
    assert bridge.labels is of_first
    assert not of_first.data.any()
    assert session.records == {}
    for _ in range(6):
        session.redo()
    assert bridge.image is second
    truth_1, truth_2 = pair.truths
    np.testing.assert_array_equal(of_first.data == 1, truth_1 == 1)
    np.testing.assert_array_equal(of_second.data == 1, truth_2 == 3)
    np.testing.assert_array_equal(of_second.data == 2, truth_2 == 2)
    assert sorted(session.records) == [1, 2]
    assert list(of_first.metadata["napari_sam"]) == [1]


def test_steps_of_labels_that_were_deleted_are_forgotten_though_others_are_chosen(
    pair: Pair,
) -> None:
    bridge, session = pair.bridge, pair.session
    bridge.choose_image(pair.images[0])
    pair.keep(20, 20)
    of_first = bridge.labels
    bridge.choose_image(pair.images[1])
    pair.keep(60, 30)
    of_second = bridge.labels
    pair.viewer.layers.remove(of_first)
    while session.history.last is not None:
        session.undo()
    assert of_first.data.any()
    assert not of_second.data.any()
