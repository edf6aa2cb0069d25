"""Whole stories in a real window: the mouse on the canvas, the keys, the end."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from napari_sam.engine import objects
from tests.engine.discs import DiscPlanes
from tests.widgets.mouse import Mouse, settle, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari

    from napari_sam.model import Sam

pytestmark = pytest.mark.display


@pytest.fixture
def discs(monkeypatch: pytest.MonkeyPatch, tiny_sam: Sam, tmp_path: Path) -> DiscPlanes:
    """Three bright discs in each slice; the network knows where they are."""
    truth = np.zeros((200, 300), np.uint32)
    rows, columns = np.ogrid[:200, :300]
    for number, (y, x) in enumerate([(50, 60), (120, 150), (60, 240)], start=1):
        truth[(rows - y) ** 2 + (columns - x) ** 2 < 25**2] = number
    planes = DiscPlanes(truth)
    planes.model = tiny_sam  # type: ignore[attr-defined]
    monkeypatch.setattr("napari_sam.engine.planes.Planes", lambda *_: planes)
    monkeypatch.setattr("napari_sam.weights.load.load_model", lambda *_, **__: tiny_sam)
    monkeypatch.setattr("napari_sam.widgets.save_panel.autosave_dir", lambda: tmp_path)
    return planes


def open_dock(viewer: napari.Viewer) -> Any:
    from napari_sam.widgets.dock import SegmentAnything

    viewer.window.resize(1100, 750)
    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock, name="Segment Anything")
    settle(5)
    wait_for(lambda: dock.network.planes is not None)
    return dock


def test_from_the_first_click_to_a_session_that_goes_on(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes, tmp_path: Path
) -> None:
    from napari_sam.widgets.prompt_panel import PromptPanel
    from napari_sam.widgets.save_panel import SavePanel

    viewer = make_napari_viewer(show=True)
    stack = np.repeat((discs.truth[None] > 0).astype(np.uint8) * 200, 3, axis=0)
    image = viewer.add_image(stack, name="cells", scale=(2, 0.5, 0.5))
    mouse, dock = Mouse(viewer), open_dock(viewer)
    session, truth = dock.session, discs.truth

    # no setting is needed: click, see, keep
    z = session.view.index[0]
    mouse.click(image, (z, 50, 60))
    wait_for(lambda: session.masks)
    np.testing.assert_allclose(session.draft.points, [[50, 60]], atol=1)
    assert dock.panel(PromptPanel).keep_button.isEnabled()
    mouse.press("2")
    mouse.press("Return")
    labels = dock.bridge.labels
    np.testing.assert_array_equal(labels.data[z] == 1, truth == 1)
    assert (labels.data > 0).sum() == (truth == 1).sum()

    # Shift-click is negative once; the key switches for good
    mouse.click(image, (z, 120, 150))
    mouse.click(image, (z, 60, 240), shift=True)
    mouse.press("N")
    mouse.click(image, (z, 20, 20))
    mouse.press("N")
    assert session.draft.positive.tolist() == [True, False, False]
    mouse.press("Escape")
    assert session.draft.is_empty

    # a box, on another slice, kept from the shapes layer
    viewer.dims.set_current_step(0, z - 1)
    mouse.press("W")
    mouse.drag(image, (z - 1, 90, 120), (z - 1, 150, 180))
    wait_for(lambda: session.masks and not session.is_waiting)
    mouse.press("K")
    np.testing.assert_array_equal(labels.data[z - 1] == 2, truth == 2)

    # undo through the key goes back to the first slice and empties it
    while session.history.last is not None:
        session.undo()
    assert not labels.data.any()
    assert viewer.dims.current_step[0] == z
    for _ in range(30):
        session.redo()
    assert set(np.unique(labels.data)) == {0, 1, 2}

    # what was done is there again in another window
    folder = tmp_path / "session"
    dock.panel(SavePanel).save(folder)
    wait_for(lambda: (folder / "session.json").is_file())
    kept, records = labels.data.copy(), dict(session.records)
    viewer.layers.clear()
    assert dock.bridge.image is None
    viewer.add_image(stack, name="cells", scale=(2, 0.5, 0.5))
    dock.panel(SavePanel).load(folder)
    wait_for(lambda: session.records)
    np.testing.assert_array_equal(dock.bridge.labels.data, kept)
    assert session.records == records
    dock.close_dock()


def test_a_first_click_works_on_an_image_opened_after_the_dock(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    from napari_sam.widgets.prompt_panel import PromptPanel

    viewer = make_napari_viewer(show=True)
    mouse, dock = Mouse(viewer), open_dock(viewer)
    panel = dock.panel(PromptPanel)
    assert "Open an image" in panel.hint.text()
    assert not panel.tools["points"].isEnabled()
    image = viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    wait_for(panel.tools["points"].isChecked)
    mouse.click(image, (50, 60))
    wait_for(lambda: dock.session.masks)
    np.testing.assert_array_equal(dock.session.draft.positive, [True])
    # a new point shows its kind, and not that napari has selected it
    wait_for(lambda: not dock.bridge.prompts.points.selected_data)

    # whoever selects another layer is told how to go on
    dock.session.reject()
    wait_for(lambda: not dock._is_fresh)
    viewer.layers.selection.active = image
    assert not any(button.isChecked() for button in panel.tools.values())
    assert "press W" in panel.hint.text()
    mouse.press("W")
    assert panel.tools["points"].isChecked()
    mouse.press("W")
    assert panel.tools["box"].isChecked()
    assert panel.hint.text() == "Drag a box around an object."

    # nothing is cut off in a dock of 300 px, of which a scroll bar takes 15
    widths = {
        name: each.minimumSizeHint().width() for name, each in dock.panels.items()
    }
    assert {name: width for name, width in widths.items() if width > 280} == {}
    dock.close_dock()


def test_a_click_before_the_dock_is_ready_counts(
    make_napari_viewer: Callable[..., napari.Viewer],
    discs: DiscPlanes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_sam.widgets.dock import SegmentAnything

    viewer = make_napari_viewer(show=True)
    image = viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    viewer.window.resize(1100, 750)
    settle(20)
    with monkeypatch.context() as patch:
        patch.setattr("napari_sam.widgets.dock._DRAWN_MS", 10**7)
        dock, mouse = SegmentAnything(viewer), Mouse(viewer)
        mouse.drag(image, (120, 150), (100, 150))  # moves the camera
        mouse.click(image, (50, 60))
    assert not dock.bridge.prompts.is_ready
    dock._begin()  # as if it were drawn only now
    wait_for(lambda: dock.session.masks)
    np.testing.assert_allclose(dock.session.draft.points, [[50, 60]], atol=1)
    dock.close_dock()


def test_keys_for_the_object_under_the_mouse_and_hovering(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    from napari.utils.notifications import notification_manager
    from qtpy.QtCore import Qt
    from qtpy.QtTest import QSignalSpy, QTest

    from napari_sam.widgets.model_panel import ModelPanel
    from napari_sam.widgets.objects_panel import ObjectsPanel
    from napari_sam.widgets.review_panel import ReviewPanel

    viewer = make_napari_viewer(show=True)
    image = viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    mouse, dock = Mouse(viewer), open_dock(viewer)
    session = dock.session
    for y, x in ((50, 60), (120, 150)):
        mouse.click(image, (y, x))
        wait_for(lambda: session.masks and not session.is_waiting)
        mouse.press("Return")
    labels = dock.bridge.labels
    mouse.move(image, (50, 60))
    mouse.press("G")
    assert session.draft.object_id == 1
    mouse.press("Escape")
    mouse.press("E", shift=True)
    assert (dock.bridge.painted_id, labels.selected_label) == (1, 1)
    mouse.press("E", shift=True)
    assert dock.bridge.painted_id == 0
    assert dock.bridge.prompts.tool == "points"
    mouse.move(image, (120, 150))
    mouse.press("E", shift=True)
    assert dock.bridge.painted_id == 2  # under the mouse, not the one before
    mouse.press("E", shift=True)
    mouse.move(image, (50, 61))
    united = dock.panel(ObjectsPanel).buttons["Unite"]
    mouse.press("U")
    assert united.text() == "Unite with 1 (U)"
    mouse.press("U")  # on the same one it is forgotten
    assert united.text() == "Unite (U)"
    mouse.press("U")
    assert len(np.unique(labels.data)) == 3  # nothing so far
    mouse.move(image, (120, 151))
    mouse.press("U")
    assert set(np.unique(labels.data)) == {0, 1}
    assert united.text() == "Unite (U)"
    mouse.press("Z", control=True)
    assert set(np.unique(labels.data)) == {0, 1, 2}
    mouse.move(image, (120, 150))
    dock.panel(ObjectsPanel).buttons["Fill holes"].click()
    assert "needs nothing" in notification_manager.records[-1].message
    mouse.press("Q")
    assert set(np.unique(labels.data)) == {0, 1}
    mouse.move(image, (60, 240))
    mouse.press("Q")
    assert notification_manager.records[-1].message == "No object is under the mouse."

    # lists that have the focus leave letters to the window
    panel = dock.open_panel(ReviewPanel)
    model = dock.panel(ModelPanel).model
    letters = QSignalSpy(model.currentIndexChanged)
    for each in (model, panel.form.view):
        session.state.positive = True
        each.setFocus()
        QTest.keyClick(each, Qt.Key.Key_N)
        settle(2)
        assert not session.state.positive
    session.state.positive = True
    assert not len(letters)
    dock.bridge.hover()
    wait_for(lambda: session.masks)
    assert sum(each.mask.sum() for each in session.masks) == (discs.truth == 3).sum()
    session.peek(None)
    assert not session.masks
    dock.close_dock()


def test_an_error_in_the_worker_is_told_and_leaves_all_in_order(
    make_napari_viewer: Callable[..., napari.Viewer],
    discs: DiscPlanes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    dock = open_dock(viewer)
    told: list[str] = []
    monkeypatch.setattr("napari_sam.widgets.dock.show_error", told.append)
    answer = discs.answer

    def broken(_request: object) -> None:
        raise RuntimeError("the device is on fire")

    discs.answer = broken  # type: ignore[method-assign,assignment]
    dock.bridge.prompts.points.add([50, 60])
    wait_for(lambda: told)
    assert "the device is on fire" in told[0]
    dock.bridge.need_labels()
    assert dock.session.commit() == []
    discs.answer = answer  # type: ignore[method-assign]
    dock.bridge.prompts.points.add([52, 60])
    wait_for(lambda: dock.session.masks)
    dock.close_dock()


def test_the_panel_shows_what_holds_after_a_change_from_elsewhere(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    from napari_sam.widgets.prompt_panel import PromptPanel

    viewer = make_napari_viewer()
    image = (discs.truth > 0).astype(np.uint8) * 200
    viewer.add_image(image, name="cells")
    dock = open_dock(viewer)
    panel = dock.panel(PromptPanel)
    dock.session.state.on_overlap = "overwrite"  # as a saved session does
    assert panel.overlap.currentText() == "are overwritten"
    panel.use("box")
    panel.style_choice.setCurrentText("as outline")
    dock.bridge.choose_image(viewer.add_image(image, name="others"))
    assert dock.bridge.prompts.tool == "points"
    assert panel.tools["points"].isChecked()
    assert dock.bridge.prompts.contour > 0
    dock.close_dock()


def test_closing_leaves_no_thread_no_layer_and_no_key(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    viewer = make_napari_viewer()
    viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    keys = dict(viewer.keymap)
    threads = set(threading.enumerate())
    dock = open_dock(viewer)
    other = open_dock(viewer)  # two docks live side by side
    dock.bridge.prompts.points.add([50, 60])
    wait_for(lambda: dock.session.masks)
    assert other.session.draft.is_empty
    viewer.window.remove_dock_widget(dock)
    viewer.window.remove_dock_widget(other)
    dock.close_dock()
    other.close_dock()
    assert [layer.name for layer in viewer.layers] == ["cells"]
    assert viewer.keymap == keys
    assert not viewer.mouse_move_callbacks
    ours = [t for t in set(threading.enumerate()) - threads if t.is_alive()]
    assert not [t for t in ours if "napari-sam" in t.name]
    dock.deleteLater()
    other.deleteLater()
    settle(5)


def test_the_default_model_finds_a_bright_blob_under_the_mouse(
    make_napari_viewer: Callable[..., napari.Viewer],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("napari_sam.widgets.save_panel.autosave_dir", lambda: tmp_path)
    truth = np.zeros((512, 512), bool)
    rows, columns = np.ogrid[:512, :512]
    for y, x in ((128, 128), (128, 384), (256, 256), (384, 170)):
        truth |= (rows - y) ** 2 + (columns - x) ** 2 < 12**2
    noise = np.random.default_rng(0).normal(30, 5, truth.shape)
    image = ndimage.gaussian_filter(truth * 150.0, 1.2) + noise
    viewer = make_napari_viewer(show=True)
    layer = viewer.add_image(image.clip(0, 255).astype(np.uint8), name="blobs")
    mouse, dock = Mouse(viewer), open_dock(viewer)
    mouse.click(layer, (128, 128))
    wait_for(lambda: dock.session.masks, 240)
    mouse.press("Return")
    found = dock.bridge.labels.data > 0
    truth[200:] = False
    truth[:, 250:] = False
    assert (found & truth).sum() / (found | truth).sum() >= 0.9
    dock.close_dock()


def test_the_dock_is_imported_without_torch() -> None:
    code = "import sys, napari_sam.widgets.dock; print('torch' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


def test_keys_are_free_in_napari() -> None:
    """Letters bound everywhere must not hide a key of napari's own layers."""
    from napari.utils.shortcuts import default_shortcuts

    from napari_sam.widgets.keys import KEYS

    taken = {str(each) for keys in default_shortcuts.values() for each in keys}
    ours = [each.everywhere for each in KEYS if each.everywhere]
    assert len(set(ours)) == len(ours)
    assert taken & set(ours) <= {"Y"}  # of a 3D image's plane only


def test_enter_before_the_mask_is_there_keeps_it_when_it_comes(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    from napari_sam.widgets.prompt_panel import PromptPanel

    viewer = make_napari_viewer()
    viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    dock = open_dock(viewer)
    panel, session = dock.panel(PromptPanel), dock.session
    panel.keep()
    assert "Nothing to keep" in panel.hint.text()
    gate, answer = threading.Event(), discs.answer

    def slow(request: Any) -> Any:
        gate.wait(60)
        return answer(request)

    discs.answer = slow  # type: ignore[method-assign]
    dock.bridge.prompts.points.add([50, 60])
    panel.keep()
    assert "as soon as" in panel.hint.text()
    gate.set()
    wait_for(lambda: session.labels is not None and dock.bridge.labels.data.any())
    np.testing.assert_array_equal(dock.bridge.labels.data > 0, discs.truth == 1)
    # whoever points on meanwhile points at other objects
    session.undo()
    session.reject()
    gate.clear()
    prompts = dock.bridge.prompts
    for y, x in ((50, 60), (120, 150), (60, 240)):
        prompts.points.add([y, x])
        panel.keep()
    prompts.points.add([20, 20])  # not kept
    gate.set()
    wait_for(lambda: len(np.unique(dock.bridge.labels.data)) == 4)
    for number, place in enumerate(((50, 60), (120, 150), (60, 240)), 1):
        found = dock.bridge.labels.data[place]
        mask = dock.bridge.labels.data == found
        np.testing.assert_array_equal(mask, discs.truth == number)
    wait_for(lambda: len(session.draft.points) == 1)
    np.testing.assert_array_equal(session.draft.points, [[20, 20]])
    session.reject()
    for _ in range(3):
        objects.delete(session, [int(dock.bridge.labels.data.max())])
    dock.bridge.prompts.points.add([50, 60])
    wait_for(lambda: session.masks and not session.is_waiting)
    panel.keep()
    only = {0, int(dock.bridge.labels.data.max())}
    # a change of mind is obeyed
    gate.clear()
    dock.bridge.prompts.points.add([120, 150])
    panel.keep()
    session.reject()
    gate.set()
    dock.bridge.prompts.points.add([60, 240])
    wait_for(lambda: session.masks and not session.is_waiting)
    settle(5)
    assert set(np.unique(dock.bridge.labels.data)) == only
    dock.close_dock()


def test_the_wheel_with_shift_goes_through_the_answers(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    mouse, dock = Mouse(viewer), open_dock(viewer)
    mouse.click(image, (50, 60))
    wait_for(lambda: dock.session.masks)
    holder = getattr(viewer, "scene", viewer)
    zoom, shown = holder.camera.zoom, []
    for turns in (-1, -1, -1, 1):
        mouse.turn(image, (50, 60), turns)
        shown.append(dock.session.masks[0].answer)
    assert shown == [2, 0, 1, 0]
    assert holder.camera.zoom == zoom
    dock.close_dock()


def test_labels_of_a_slide_are_painted_in_a_layer_and_then_one_points_again(
    make_napari_viewer: Callable[..., napari.Viewer],
    discs: DiscPlanes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from napari_sam.engine import label_store
    from napari_sam.widgets import stored_labels
    from napari_sam.widgets.prompt_panel import PromptPanel

    monkeypatch.setattr(label_store, "_SMALLEST_LEVEL", 64)
    monkeypatch.setattr(stored_labels, "LARGEST_PAINTED", 100)
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    mouse, dock = Mouse(viewer), open_dock(viewer)
    hint = dock.panel(PromptPanel).hint
    mouse.click(image, (50, 60))
    wait_for(lambda: dock.session.masks and not dock.session.is_waiting)
    mouse.press("K")
    mouse.move(image, (50, 60))
    mouse.press("E", shift=True)
    assert "paint here" in viewer.layers
    assert hint.text().startswith("Paint object 1 with napari's brush")
    mouse.press("E", shift=True)
    assert "paint here" not in viewer.layers
    assert dock.bridge.prompts.tool == "points"
    assert hint.text() == "Click into an object."
    dock.close_dock()


def test_enter_and_escape_in_the_layer_of_shapes(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    """They end what is being drawn; else they keep and drop, as with points."""
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    mouse, dock = Mouse(viewer), open_dock(viewer)
    session, prompts = dock.session, dock.bridge.prompts
    prompts.use("box")
    mouse.drag(image, (20, 30), (80, 90))
    wait_for(lambda: session.masks and not session.is_waiting)
    mouse.press("Return")
    assert set(np.unique(dock.bridge.labels.data)) == {0, 1}
    # a line goes on after a click, until the next one or such a key
    prompts.use("scribble")
    for key, n_shapes in (("Escape", 2), ("J", 0), ("K", 0)):
        for place in ((110, 140), (120, 150), (125, 145)):
            mouse.click(image, place)
            mouse.move(image, (place[0] + 5, place[1] + 5))
        assert prompts.shapes.nshapes == 2  # the second one is being drawn
        wait_for(lambda: session.masks and not session.is_waiting)
        mouse.press(key)
        assert prompts.shapes.nshapes == len(session.draft.shapes) == n_shapes, key
        session.reject()
    assert prompts.tool == "scribble"
    assert set(np.unique(dock.bridge.labels.data)) == {0, 1, 2}
    dock.close_dock()


def test_two_docks_share_the_keys_and_one_keeps_them(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    viewer = make_napari_viewer(show=True)
    image = viewer.add_image((discs.truth > 0).astype(np.uint8) * 200, name="cells")
    mouse, first = Mouse(viewer), open_dock(viewer)
    second = open_dock(viewer)
    for dock, place in ((first, (50, 60)), (second, (120, 150))):
        viewer.layers.selection.active = dock.bridge.prompts.points
        mouse.click(image, place)
        wait_for(lambda: dock.session.masks)  # noqa: B023 - used in this round
        mouse.press("K")
        assert dock.session.draft.is_empty
    labels = first.bridge.labels
    second.bridge.choose_labels(labels)
    second.close_dock()
    mouse.click(image, (60, 240))
    wait_for(lambda: first.session.masks)
    mouse.press("K")
    assert set(np.unique(labels.data)) == {0, 1, 2}
    viewer.layers.selection.active = labels
    mouse.press("Z", control=True)
    assert set(np.unique(labels.data)) == {0, 1}
    first.close_dock()


def test_the_demo_opens_with_the_dock_ready_and_every_control_explained(
    qtbot: Any, discs: DiscPlanes
) -> None:
    from qtpy import QtWidgets
    from superqt import QLabeledDoubleSlider

    from napari_sam.widgets.launch import open_demo
    from napari_sam.widgets.prompt_panel import PromptPanel

    viewer, dock = open_demo(show=False)
    wait_for(lambda: dock.network.planes is not None)
    assert dock.bridge.image is viewer.layers[0]
    assert dock.bridge.prompts.tool == "points"
    assert "Click" in dock.panel(PromptPanel).hint.text()
    kinds = (
        QtWidgets.QAbstractButton,
        QtWidgets.QComboBox,
        QtWidgets.QAbstractSpinBox,
        QLabeledDoubleSlider,
    )
    silent = [
        (title, type(each).__name__, getattr(each, "text", str)())
        for title, panel in dock.panels.items()
        for kind in kinds
        for each in panel.findChildren(kind)
        if not each.toolTip() and not _is_part(each, kinds)
    ]
    assert silent == []
    dock.close_dock()
    viewer.close()


def _is_part(widget: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a control belongs to another one, such as the field of a slider."""
    from qtpy.QtWidgets import QTableView

    parent = widget.parent()
    while parent is not None:
        if isinstance(parent, (*kinds, QTableView)):
            return True
        parent = parent.parent()
    return False


def test_both_kinds_of_points_are_seen_in_their_colours(
    make_napari_viewer: Callable[..., napari.Viewer], discs: DiscPlanes
) -> None:
    """Their border must leave something of a point of a few pixels."""
    from napari_sam.widgets.prompt_layers import NEGATIVE, POSITIVE

    viewer = make_napari_viewer(show=True)
    viewer.add_image(np.zeros_like(discs.truth, np.uint8), name="cells")
    dock = open_dock(viewer)
    prompts = dock.bridge.prompts
    prompts.points.add([50, 60])
    dock.session.state.positive = False
    prompts.points.add([150, 60])
    for zoom in (3.0, 9.0, 30.0):
        holder = viewer.scene if hasattr(viewer, "scene") else viewer
        holder.camera.zoom = zoom
        for colour, place in ((POSITIVE, (50, 60)), (NEGATIVE, (150, 60))):
            holder.camera.center = (0, *place)
            settle(3)
            seen = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            middle = seen[seen.shape[0] // 2 - 10 :, seen.shape[1] // 2 - 10 :]
            off = np.abs(middle[:20, :20].astype(int) - wanted).max(-1)
            assert np.count_nonzero(off < 40) >= 8, (colour, zoom)
    dock.close_dock()
