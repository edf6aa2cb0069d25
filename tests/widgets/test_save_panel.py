"""Sessions in the window: nothing that was done is lost, nothing is overwritten."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from psygnal import Signal

from napari_sam.engine.saved_session import SESSION, read_session
from napari_sam.engine.session import Session
from tests.engine.discs import DiscPlanes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

    from napari_sam.widgets.save_panel import SavePanel

pytestmark = pytest.mark.display


class Network:
    """The part of the network that the panels of a session ask."""

    failed = Signal(object)
    name = "default"
    planes = None


class Desk:
    """A viewer model with one image, and the panels that a session is kept by."""

    def __init__(self, qtbot: QtBot, image: NDArray[Any], truth: Any) -> None:
        from napari.components import ViewerModel

        from napari_sam.widgets.bridge import LayerBridge
        from napari_sam.widgets.panel import DockParts
        from napari_sam.widgets.save_panel import SavePanel
        from napari_sam.widgets.scale_choice import ScaleChoice
        from napari_sam.widgets.workers import Worker

        self.qtbot = qtbot
        self.errors: list[Exception] = []
        self.viewer = ViewerModel()
        self.image = self.viewer.add_image(image, name="cells")
        self.session = Session()
        self.bridge = LayerBridge(self.viewer, self.session)
        self.bridge.choose_image(self.image)
        self.worker = Worker()
        self.worker.failed.connect(self._fail)
        network: Any = Network()
        parts = DockParts(
            self.viewer,  # type: ignore[arg-type]
            self.session,
            self.bridge,
            self.worker,
            network,
        )
        self.scale = ScaleChoice(parts)
        self.panel: SavePanel = SavePanel(parts)
        for widget in (self.scale, self.panel):
            qtbot.addWidget(widget)
        planes = DiscPlanes(truth)
        self.session.request.connect(
            lambda request: self.session.receive(planes.answer(request))
        )

    def keep(self, y: float, x: float) -> None:
        prompts: Any = self.bridge.prompts
        prompts.points.add(np.array([[y, x]]))
        self.bridge.need_labels()
        self.session.commit()

    def _fail(self, error: Exception) -> None:
        self.errors.append(error)

    def load(self, folder: Path) -> None:
        self.panel.load(folder)
        self.wait()

    def go_on(self) -> None:
        assert self.panel.go_on.isVisibleTo(self.panel)
        self.panel.go_on.click()
        self.wait()

    def wait(self) -> None:
        """Until the worker has read a session, and the window shows it."""
        worked: list[None] = []
        self.worker.call(lambda: None, worked.append)
        self.qtbot.waitUntil(lambda: bool(worked), timeout=60_000)
        assert self.errors == []

    def close(self) -> None:
        """As a dock does: the worker first."""
        self.worker.stop()
        self.panel.close_panel()
        self.bridge.close()


@pytest.fixture
def desks(
    qtbot: QtBot, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]
) -> Iterator[Any]:
    made: list[Desk] = []

    def make() -> Desk:
        made.append(Desk(qtbot, *cells))
        return made[-1]

    yield make
    for desk in made:
        if desk.worker.is_running:
            desk.close()


def test_what_was_done_before_the_window_closes_is_saved(desks: Any) -> None:
    desk = desks()
    desk.keep(20, 20)
    folder = desk.panel.folder()
    desk.close()
    saved, _, records = read_session(folder)
    assert list(records) == [1]
    assert saved.labels is not None
    assert (folder / saved.labels).is_file()


def test_layers_that_go_before_the_window_are_saved_too(desks: Any) -> None:
    desk = desks()
    desk.keep(20, 20)
    folder = desk.panel.folder()
    desk.viewer.layers.clear()  # as napari does when its window is closed
    desk.close()
    saved, _, records = read_session(folder)
    assert list(records) == [1]
    assert saved.labels is not None
    assert (folder / saved.labels).is_file()


def test_a_session_goes_on_with_scale_contrast_and_prompts(desks: Any) -> None:
    desk = desks()
    desk.image.contrast_limits = (10, 180)
    desk.bridge.look()
    desk.scale.diameter.setValue(120)
    scale = desk.session.view.scale
    assert scale is not None
    desk.keep(20, 20)
    desk.bridge.prompts.points.add(np.array([[24, 60]]))
    pixels = desk.bridge.labels.data.copy()
    desk.close()

    later = desks()
    later.go_on()
    view = later.session.view
    assert view.scale == scale
    assert view.intensity.limits == ((10.0, 180.0),)
    assert later.scale.diameter.value() == 120
    np.testing.assert_allclose(later.session.draft.points, [[24, 60]])
    assert list(later.session.records) == [1]
    np.testing.assert_array_equal(later.bridge.labels.data, pixels)
    assert not later.panel.go_on.isVisibleTo(later.panel)


def test_an_autosave_of_yesterday_is_set_aside_and_not_overwritten(
    desks: Any,
) -> None:
    desk = desks()
    desk.keep(20, 20)
    desk.keep(24, 60)
    desk.close()
    later = desks()
    later.keep(60, 30)
    folder = later.panel.folder()
    later.close()
    assert list(read_session(folder)[2]) == [1]
    before = folder.with_name(folder.name + "-before")
    assert list(read_session(before)[2]) == [1, 2]


def test_whoever_began_anew_can_still_go_on(desks: Any) -> None:
    desk = desks()
    desk.keep(20, 20)
    desk.keep(24, 60)
    desk.close()
    later = desks()
    later.keep(60, 30)
    later.panel._autosave()
    later.go_on()
    assert sorted(later.session.records) == [1, 2]
    assert not later.panel.go_on.isVisibleTo(later.panel)


def test_going_on_leaves_the_objects_that_are_there_alone(
    desks: Any, tmp_path: Path
) -> None:
    desk = desks()
    desk.keep(20, 20)
    desk.panel.save(tmp_path / "session")
    desk.close()
    later = desks()
    later.keep(60, 30)
    mine = later.bridge.labels
    kept = mine.data.copy()
    later.load(tmp_path / "session")
    assert later.bridge.labels is not mine
    np.testing.assert_array_equal(mine.data, kept)


def test_a_change_is_saved_with_its_own_image(desks: Any) -> None:
    desk = desks()
    desk.keep(20, 20)
    folder = desk.panel.folder()
    other = desk.viewer.add_image(np.zeros((30, 40), np.uint8), name="other")
    desk.bridge.choose_image(other)  # before the time of the autosave has come
    # the first labels, before there was an object, are saved too: wait for the second
    desk.qtbot.waitUntil(
        lambda: (folder / SESSION).is_file() and list(read_session(folder)[2]) == [1],
        timeout=60_000,
    )
    assert not (desk.panel.folder() / SESSION).exists()


def test_labels_of_a_slide_are_saved_and_go_on(
    desks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_sam.widgets.stored_labels.LARGEST_PAINTED", 100)
    monkeypatch.setattr("napari_sam.engine.label_store._SMALLEST_LEVEL", 32)
    desk = desks()
    desk.keep(20, 20)
    pixels = np.array(desk.bridge.labels.data[0][:, :])
    assert pixels.any()
    desk.close()
    later = desks()
    later.go_on()
    store = later.session.labels
    np.testing.assert_array_equal(later.bridge.labels.data[0][:, :], pixels)
    assert store.fresh_ids(1) == [2]


def test_labels_of_another_image_are_refused(desks: Any, tmp_path: Path) -> None:
    from napari_sam.errors import FormatError

    desk = desks()
    desk.keep(20, 20)
    desk.panel.save(tmp_path / "session")
    desk.close()
    later = desks()
    other = later.viewer.add_image(np.zeros((30, 40), np.uint8), name="other")
    later.bridge.choose_image(other)
    told: list[Exception] = []
    later.worker.failed.connect(told.append)
    later.panel.load(tmp_path / "session")
    desk.qtbot.waitUntil(lambda: bool(told), timeout=60_000)
    assert isinstance(told[0], FormatError)
    assert "is of an image of (96, 128) px" in str(told[0])


def test_what_cannot_be_saved_is_told_and_saved_at_the_end(
    desks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = desks()
    desk.keep(20, 20)
    full = tmp_path / "full"

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("napari_sam.writers.tiff.save_labels", refuse)
        desk.panel.save(full)
        desk.panel._autosave()
        desk.qtbot.waitUntil(lambda: len(desk.errors) == 2, timeout=60_000)
    assert [each.errno for each in desk.errors] == [errno.ENOSPC, errno.ENOSPC]
    folder = desk.panel.folder()
    assert desk.panel.status.text() == f"Not saved in {folder}"
    assert read_session(folder)[2] == {}
    # somebody has made room: what saves itself is tried again, what was asked is not
    desk.close()
    assert list(read_session(folder)[2]) == [1]
    assert not (full / "session.json").exists()


def test_a_save_that_fails_half_way_leaves_the_one_before(
    desks: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.readers import open_image

    desk = desks()
    desk.keep(20, 20)
    desk.panel.save(tmp_path / "session")
    desk.wait()
    pixels = desk.bridge.labels.data.copy()
    desk.keep(24, 60)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:  # the labels are written by then
        patch.setattr("napari_sam.engine.saved_session.write_records", refuse)
        desk.panel.save(tmp_path / "session")
        desk.qtbot.waitUntil(lambda: len(desk.errors) == 1, timeout=60_000)
    saved, _, records = read_session(tmp_path / "session")
    assert list(records) == [1]
    (path,) = (tmp_path / "session").glob("labels*")
    assert path.name == saved.labels
    np.testing.assert_array_equal(open_image(path).array[...], pixels)


def test_a_session_of_before_the_parts_had_numbers_goes_on(
    desks: Any, tmp_path: Path
) -> None:
    desk = desks()
    desk.keep(20, 20)
    folder = tmp_path / "session"
    desk.panel.save(folder)
    desk.wait()
    saved = json.loads((folder / SESSION).read_text("utf-8"))
    (folder / saved["labels"]).rename(folder / "labels.tif")
    (folder / saved.pop("objects")).rename(folder / "objects.json")
    (folder / SESSION).write_text(json.dumps({**saved, "labels": "labels.tif"}))
    desk.close()
    later = desks()
    later.load(folder)
    assert list(later.session.records) == [1]
    later.panel.save(folder)
    later.wait()
    assert not (folder / "labels.tif").exists()
    assert not (folder / "objects.json").exists()
    assert list(read_session(folder)[2]) == [1]
