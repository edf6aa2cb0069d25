"""Objects of a stack in a real window: click, follow, look, correct, undo."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr

from tests.engine.bright import BrightSam
from tests.widgets.mouse import Mouse, settle, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import napari
    from numpy.typing import NDArray

pytestmark = pytest.mark.display

SHAPE = (12, 32, 32)


class GatedSam(BrightSam):
    """Encodes a number of planes and then waits until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 10**6
        self.gate = threading.Event()
        self.gate.set()

    def encode(self, x: Any) -> Any:
        if self.n_encoded >= self.limit:
            assert self.gate.wait(60)
        return super().encode(x)


@pytest.fixture
def truth() -> NDArray[np.uint32]:
    """Two ellipsoids: one in slices 2 to 9, one in 3 to 8."""
    z, y, x = np.mgrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    labels = np.zeros(SHAPE, np.uint32)
    labels[((z - 5.5) / 4.2) ** 2 + ((y - 15) / 7) ** 2 + ((x - 9) / 6) ** 2 <= 1] = 1
    labels[((z - 5.5) / 3.2) ** 2 + ((y - 15) / 6) ** 2 + ((x - 24) / 5) ** 2 <= 1] = 2
    return labels


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GatedSam]:
    model = GatedSam()
    monkeypatch.setattr("napari_sam.weights.load.load_model", lambda *_, **__: model)
    monkeypatch.setattr("napari_sam.widgets.save_panel.autosave_dir", lambda: tmp_path)
    monkeypatch.setenv("NAPARI_SAM_CACHE_DIR", str(tmp_path / "cache"))
    yield model
    model.gate.set()


def open_stack(viewer: napari.Viewer, data: Any, **options: Any) -> tuple[Any, Any]:
    from napari_sam.widgets.dock import SegmentAnything
    from napari_sam.widgets.stack_panel import StackPanel

    viewer.add_image(data, name="stack", contrast_limits=(0, 255), **options)
    viewer.window.resize(1100, 900)
    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock, name="Segment Anything")
    settle(5)
    wait_for(lambda: dock.network.planes is not None)
    return dock, dock.open_panel(StackPanel)


def iou(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return float((one & other).sum() / (one | other).sum())


def followed(panel: Any) -> bool:
    return panel._task is None


def test_from_a_click_in_the_middle_to_all_slices(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    from qtpy.QtCore import QPoint, Qt
    from qtpy.QtTest import QTest

    viewer = make_napari_viewer(show=True)
    dock, panel = open_stack(
        viewer, (truth > 0).astype(np.uint8) * 255, scale=(3, 0.5, 0.5)
    )
    image, mouse, session = dock.bridge.image, Mouse(viewer), dock.session
    # nothing is cut off in a dock of 300 px, of which a scroll bar takes 15
    assert panel.minimumSizeHint().width() <= 280
    viewer.dims.set_current_step(0, 5)
    mouse.click(image, (5, 15, 9))
    wait_for(lambda: session.masks)
    mouse.press("K", shift=True)
    wait_for(lambda: followed(panel) and dock.bridge.labels.data.any())
    labels = dock.bridge.labels
    assert iou(labels.data == 1, truth == 1) > 0.9
    assert not labels.data[..., 20:].any()
    slices = np.flatnonzero((truth == 1).any((1, 2)))
    assert set(np.flatnonzero(labels.data.any((1, 2)))) == set(slices)
    assert session.draft.is_empty
    assert labels.selected_label == 1
    assert panel.form.what.text().startswith(f"Object 1: {len(slices)} of 12 slices")

    # the strip leads to a slice, the key to where a look is needed
    strip = panel.form.strip
    at = QPoint(int(7.5 / 12 * strip.width()), 15)
    QTest.mouseClick(
        strip, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, at
    )
    assert viewer.dims.current_step[0] == 7
    assert "computed" in panel.form.about.text()
    panel.form.checked.click()
    assert session.records[1].mark(7).is_checked
    mouse.press("N", shift=True)
    assert viewer.dims.current_step[0] == slices[-1] + 1
    mouse.press("N", shift=True)
    assert viewer.dims.current_step[0] == slices[0] - 1

    # one undo takes the check back, the next one the object with all its slices
    session.undo()
    assert not session.records[1].mark(7).is_checked
    mouse.press("Z", control=True)
    assert not labels.data.any()
    assert viewer.dims.current_step[0] == 5
    assert len(session.draft.points) == 1
    session.redo()
    assert iou(labels.data == 1, truth == 1) > 0.9
    dock.close_dock()


def test_stop_keeps_what_is_there_and_undo_takes_it(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    viewer = make_napari_viewer()
    dock, panel = open_stack(viewer, (truth > 0).astype(np.uint8) * 255)
    viewer.dims.set_current_step(0, 5)
    dock.session.set_points([(15, 9)], [True])
    wait_for(lambda: dock.session.masks)
    model.limit = model.n_encoded + 3
    model.gate.clear()
    panel.form.follow.click()
    labels = dock.bridge.labels
    wait_for(lambda: labels.data.any((1, 2)).sum() == 3)  # they are drawn as they come
    assert panel.form.follow.text() == "Stop"
    panel.form.follow.click()
    model.gate.set()
    settle(20)
    assert labels.data.any((1, 2)).sum() == 3
    assert dock.session.history.last == "follow object 1"
    dock.session.undo()
    assert not labels.data.any()
    dock.session.redo()
    assert labels.data.any((1, 2)).sum() == 3
    dock.session.undo()
    assert not labels.data.any()
    dock.close_dock()


@pytest.mark.parametrize("what", ["image", "labels"])
def test_layers_that_go_while_an_object_is_followed(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
    what: str,
) -> None:
    from napari.utils.notifications import notification_manager

    viewer = make_napari_viewer()
    dock, panel = open_stack(viewer, (truth > 0).astype(np.uint8) * 255)
    viewer.dims.set_current_step(0, 5)
    dock.session.set_points([(15, 9)], [True])
    wait_for(lambda: dock.session.masks)
    model.limit = model.n_encoded + 3
    model.gate.clear()
    panel.form.follow.click()
    labels = dock.bridge.labels
    wait_for(lambda: labels.data.any((1, 2)).sum() == 3)
    viewer.layers.remove(getattr(dock.bridge, what))
    model.gate.set()
    settle(20)
    assert panel.form.follow.text() == "Follow (Shift-K)"
    assert "has stopped" in notification_manager.records[-1].message
    assert labels.data.any((1, 2)).sum() == 3
    if what == "image":  # its step can be taken back
        assert dock.session.history.last == "follow object 1"
        dock.session.undo()
        assert not labels.data.any()
    dock.close_dock()


def test_another_contrast_while_an_object_is_followed_is_told(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    from napari.utils.notifications import notification_manager

    viewer = make_napari_viewer()
    dock, panel = open_stack(viewer, (truth > 0).astype(np.uint8) * 255)
    viewer.dims.set_current_step(0, 5)
    dock.session.set_points([(15, 9)], [True])
    wait_for(lambda: dock.session.masks)
    model.limit = model.n_encoded + 3
    model.gate.clear()
    panel.form.follow.click()
    wait_for(lambda: dock.bridge.labels.data.any((1, 2)).sum() == 3)
    n_told = len(notification_manager.records)
    dock.bridge.image.contrast_limits = (0, 2000)  # nothing is to be seen
    wait_for(lambda: len(notification_manager.records) > n_told)
    told = notification_manager.records[-1].message
    assert told.startswith("Following goes on with the contrast it began with")
    assert dock.session.view.intensity.limits == ((0, 2000),)
    model.gate.set()
    wait_for(lambda: followed(panel))
    slices = (truth == 1).any((1, 2))
    np.testing.assert_array_equal(dock.bridge.labels.data.any((1, 2)), slices)
    dock.close_dock()


def test_all_objects_of_a_slice(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    viewer = make_napari_viewer()
    dock, panel = open_stack(viewer, (truth > 0).astype(np.uint8) * 255)
    viewer.dims.set_current_step(0, 5)
    dock.bridge.need_labels()
    for y, x in ((15, 9), (15, 24)):
        dock.session.set_points([(y, x)], [True])
        wait_for(lambda: dock.session.masks)
        dock.session.commit()
    panel.form.follow_all.click()
    wait_for(lambda: followed(panel))
    labels = dock.bridge.labels
    for number in (1, 2):
        assert iou(labels.data == number, truth == number) > 0.9
    dock.session.undo()
    assert set(np.flatnonzero(labels.data.any((1, 2)))) == {5}
    dock.close_dock()


def test_the_plane_that_is_displayed_is_followed(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    """Rows are z, columns x: the object is followed along y."""
    viewer = make_napari_viewer(show=True)
    dock, panel = open_stack(viewer, (truth > 0).astype(np.uint8) * 255)
    viewer.dims.order = (1, 0, 2)
    viewer.dims.set_current_step(1, 15)
    viewer.reset_view()
    settle(5)
    assert panel.form.chosen_axis() == 1
    Mouse(viewer).click(dock.bridge.image, (5, 15, 24))
    wait_for(lambda: dock.session.masks)
    panel.form.follow.click()
    wait_for(lambda: followed(panel) and dock.bridge.labels.data.any())
    labels = dock.bridge.labels
    assert iou(labels.data == 1, truth == 2) > 0.85
    assert not labels.data[..., :17].any()
    assert dock.session.records[1].along == 1
    dock.session.undo()
    assert not labels.data.any()
    dock.close_dock()


class Counting:
    """A zarr array that notes which planes are read."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self.read: set[tuple[Any, ...]] = set()

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple) and all(isinstance(k, int) for k in key[:2]):
            self.read.add(key[:2])
        return self._array[key]


def test_frames_and_slices_of_a_lazy_volume(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    viewer = make_napari_viewer()
    movie = (np.stack([truth, truth, truth]) > 0).astype(np.uint8) * 255
    lazy = Counting(zarr.array(movie, chunks=(1, 1, 32, 32)))
    dock, panel = open_stack(viewer, lazy, axis_labels=("t", "z", "y", "x"))
    viewer.dims.set_current_step(0, 1)
    viewer.dims.set_current_step(1, 5)
    assert [panel.form.axis.itemText(i) for i in range(2)] == ["z (12)", "t (3)"]
    lazy.read.clear()
    dock.session.set_points([(15, 9)], [True])
    wait_for(lambda: dock.session.masks)
    panel.form.follow.click()
    wait_for(lambda: followed(panel))
    labels = dock.bridge.labels
    assert iou(labels.data[1] == 1, truth == 1) > 0.9
    assert not labels.data[[0, 2]].any()
    assert {t for t, _ in lazy.read} == {1}  # no other frame was read

    # the same object through time, in this slice
    panel.form.axis.setCurrentIndex(1)
    panel.form.follow.click()
    wait_for(lambda: followed(panel))
    for t in (0, 2):
        assert iou(labels.data[t, 5] == 1, truth[5] == 1) > 0.9
        assert set(np.flatnonzero(labels.data[t].any((1, 2)))) == {5}
    dock.session.undo()
    assert not labels.data[[0, 2]].any()
    assert iou(labels.data[1] == 1, truth == 1) > 0.9
    dock.close_dock()


def test_an_error_is_told_and_a_single_plane_has_no_stack(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    viewer = make_napari_viewer()
    dock, panel = open_stack(viewer, (truth > 0).astype(np.uint8) * 255)
    told: list[Exception] = []
    dock.worker.failed.connect(told.append)
    panel.form.follow.click()
    assert "nothing to follow" in str(told[0])
    plane = viewer.add_image(np.zeros((32, 32), np.uint8), name="plane")
    dock.bridge.choose_image(plane)
    assert panel.form.note.isVisibleTo(panel.form)
    dock.close_dock()


def test_labels_of_all_slices_are_linked_as_one_step(
    make_napari_viewer: Callable[..., napari.Viewer],
    model: GatedSam,
    truth: NDArray[np.uint32],
) -> None:
    viewer = make_napari_viewer(show=True)
    dock, panel = open_stack(viewer, (truth > 0).astype(np.uint8) * 255)
    panel.form.link.click()  # no labels yet: a word, and nothing happens
    assert followed(panel)
    dock.bridge.need_labels()
    labels = dock.bridge.labels
    # as if each plane had been searched on its own
    ids = 100 + 2 * np.arange(SHAPE[0])[:, None, None] + truth
    labels.data[...] = np.where(truth > 0, ids, 0)
    before = labels.data.copy()
    panel.form.link.click()
    wait_for(lambda: followed(panel) and len(np.unique(labels.data)) == 3)
    first, second = (np.unique(labels.data[truth == k]).tolist() for k in (1, 2))
    assert len(first) == len(second) == 1
    assert first != second
    assert (labels.data > 0).sum() == (truth > 0).sum()
    labels.selected_label = first[0]
    settle(2)
    n = np.count_nonzero((truth == 1).any((1, 2)))
    assert f"{n} of 12 slices" in panel.form.what.text()
    dock.session.undo()
    np.testing.assert_array_equal(labels.data, before)
