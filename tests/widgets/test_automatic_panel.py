"""Finding all objects in a real window, from the button to the labels and back."""

from __future__ import annotations

import csv
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.choice import Choice
from napari_sam.labels import LabelEdit
from napari_sam.tiling import Box
from tests.engine.oracle import OracleSam, hold_encoder, image_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import napari
    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display

PATIENCE_MS = 240_000


@pytest.fixture
def dock(
    make_napari_viewer: Callable[..., napari.Viewer],
    truth: NDArray[np.uint32],
    qtbot: QtBot,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    from napari_sam.widgets.dock import SegmentAnything

    oracle = OracleSam(truth, scale=4)
    monkeypatch.setattr("napari_sam.weights.load.load_model", lambda *_, **__: oracle)
    viewer = make_napari_viewer()
    viewer.add_image(image_of(truth), rgb=True, name="discs")
    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.network.planes is not None, timeout=PATIENCE_MS)
    dock.network.planes.cache = EmbeddingCache()
    yield dock
    dock.close_dock()


def find(dock: Any, qtbot: QtBot) -> Any:
    from napari_sam.widgets.automatic_panel import AutomaticPanel

    panel = dock.panel(AutomaticPanel)
    panel.find("plane")
    qtbot.waitUntil(
        lambda: panel.choice is not None and len(panel.choice.objects) == 4,
        timeout=PATIENCE_MS,
    )
    qtbot.waitUntil(lambda: panel.candidates.layer is not None, timeout=PATIENCE_MS)
    return panel


def press_undo(layer: Any) -> None:
    from napari.utils.key_bindings import coerce_keybinding

    layer.keymap[coerce_keybinding("Control-Z")](layer)


def test_find_choose_keep_undo(
    dock: Any, truth: NDArray[np.uint32], qtbot: QtBot
) -> None:
    from napari_sam.widgets.prompt_panel import PromptPanel

    panel = find(dock, qtbot)
    assert "<b>4</b>" in panel.form.count.text()
    hint = dock.panel(PromptPanel).hint
    qtbot.waitUntil(lambda: "Click candidates to mark them" in hint.text())
    shown = panel.choice.picture(Box.whole(truth.shape), width=2)
    np.testing.assert_array_equal(panel.candidates.layer.data, shown)
    np.testing.assert_array_equal(
        panel.choice.picture(Box.whole(truth.shape)), truth > 0
    )
    assert dock.bridge.labels is None  # nothing is kept before the user says so

    areas = sorted(np.bincount(truth.ravel())[1:].tolist())
    panel.form.min_area.setValue(areas[1] + 1)  # a threshold, and no new search
    n_left = sum(area > areas[1] for area in areas)
    qtbot.waitUntil(lambda: len(panel.choice.objects) == n_left, timeout=PATIENCE_MS)
    panel.form.min_area.setValue(1)
    qtbot.waitUntil(lambda: len(panel.choice.objects) == 4, timeout=PATIENCE_MS)

    panel.choice.toggle(6, 6)
    assert panel.commit("marked") == 1
    assert panel.commit("marked") == 0  # a second press changes nothing
    labels = dock.bridge.labels
    qtbot.waitUntil(labels.data.any, timeout=PATIENCE_MS)
    np.testing.assert_array_equal(labels.data > 0, truth == 1)
    assert dock.session.records[1].predicted_iou is not None
    press_undo(panel.candidates.layer)
    assert not labels.data.any()
    dock.session.redo()
    np.testing.assert_array_equal(labels.data > 0, truth == 1)
    # what is labelled now is no candidate any more
    qtbot.waitUntil(lambda: len(panel.choice.objects) == 3, timeout=PATIENCE_MS)
    assert panel.commit("all") == 3
    qtbot.waitUntil(lambda: panel.choice is None, timeout=PATIENCE_MS)
    np.testing.assert_array_equal(labels.data > 0, truth > 0)
    assert panel.candidates.layer is None
    qtbot.waitUntil(lambda: "Click into an object" in hint.text())

    dock.session.undo()
    np.testing.assert_array_equal(labels.data > 0, truth == 1)
    dock.session.undo()
    assert not labels.data.any()
    dock.session.redo()
    np.testing.assert_array_equal(labels.data > 0, truth == 1)


def test_objects_kept_while_others_are_on_their_way_keep_their_pixels(
    dock: Any, truth: NDArray[np.uint32], qtbot: QtBot
) -> None:
    panel = find(dock, qtbot)
    labels = dock.bridge.make_labels()
    qtbot.waitUntil(lambda: not dock.worker.is_busy, timeout=PATIENCE_MS)
    assert panel.commit("all") == 4
    # kept by hand before the worker's answer has come
    box = Box.whole(truth.shape)
    before = np.zeros_like(truth)
    after = np.where(truth == 2, 77, 0).astype(np.uint32)
    edit = LabelEdit((None, None), box, before, after)
    dock.session.edit_labels("by hand", [edit])
    qtbot.waitUntil(lambda: panel.choice is None, timeout=PATIENCE_MS)
    np.testing.assert_array_equal(labels.data == 77, truth == 2)
    np.testing.assert_array_equal(labels.data > 0, truth > 0)
    assert len(np.unique(labels.data)) == 5
    assert dock.session.undo() == "keep 3 objects"


def test_many_objects_hold_up_the_window_for_one_write_only(
    dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.widgets.layer_labels import LayerLabels

    panel = find(dock, qtbot)
    threads: list[object] = []
    edits, write = Choice.edits, LayerLabels.write
    writes: list[object] = []

    def note_thread(self: Choice, *how: Any) -> Any:
        threads.append(threading.current_thread())
        return edits(self, *how)

    def note_write(self: LayerLabels, edits: Any) -> None:
        writes.append(self.layer)
        write(self, edits)

    monkeypatch.setattr(Choice, "edits", note_thread)
    monkeypatch.setattr(LayerLabels, "write", note_write)
    assert panel.commit("all") == 4
    qtbot.waitUntil(lambda: panel.choice is None, timeout=PATIENCE_MS)
    assert len(threads) == 1
    assert threading.main_thread() not in threads
    assert writes == [dock.bridge.labels]


def test_the_layer_of_candidates_is_made_when_the_panel_is_opened(
    dock: Any, qtbot: QtBot
) -> None:
    """Adding one takes napari 100 ms; a search takes the one that waits."""
    from napari_sam.widgets.automatic_panel import AutomaticPanel

    panel = dock.open_panel(AutomaticPanel)
    dock.bridge.image.translate = (50, 70)
    extent = dock.viewer.layers.extent.world
    names = [each.name for each in dock.viewer.layers]
    assert "SAM candidates" not in names
    panel._prepare()
    waiting = dock.viewer.layers["SAM candidates"]
    np.testing.assert_array_equal(dock.viewer.layers.extent.world, extent)
    assert not waiting.visible
    added: list[object] = []
    dock.viewer.layers.events.inserted.connect(lambda event: added.append(event.value))
    panel._prepare_labels()  # those that objects are kept in, too
    assert [each is dock.bridge.labels for each in added] == [True]
    added.clear()
    find(dock, qtbot)
    active = dock.viewer.layers.selection
    qtbot.waitUntil(lambda: active.active is waiting, timeout=PATIENCE_MS)
    panel.discard()
    find(dock, qtbot)
    assert panel.candidates.layer is waiting
    assert added == []
    other = dock.viewer.add_image(np.zeros((9, 9)), name="other")
    dock.bridge.choose_image(other)
    assert "SAM candidates" not in dock.viewer.layers
    panel._prepare()
    dock.close_dock()
    assert "SAM candidates" not in dock.viewer.layers


@pytest.mark.parametrize("what", ["image", "labels"])
def test_candidates_go_with_the_image_and_the_labels_they_belong_to(
    dock: Any, truth: NDArray[np.uint32], qtbot: QtBot, what: str
) -> None:
    panel = find(dock, qtbot)
    if what == "image":
        other = dock.viewer.add_image(image_of(truth), rgb=True, name="another")
        dock.bridge.choose_image(other)
    else:
        for name in ("first", "others"):  # the first ones are adopted
            assert panel.choice is not None
            other = dock.viewer.add_labels(np.zeros_like(truth), name=name)
            dock.bridge.choose_labels(other)
    assert panel.choice is None
    assert panel.candidates.layer is None
    assert panel.commit("all") == 0


def test_an_image_that_is_closed_in_the_middle_of_a_search(
    dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.widgets import automatic_panel

    told: list[str] = []
    monkeypatch.setattr(automatic_panel, "show_warning", told.append)
    may_go_on = hold_encoder(monkeypatch)
    panel = dock.panel(automatic_panel.AutomaticPanel)
    panel.find("plane")
    dock.viewer.layers.remove(dock.bridge.image)
    assert len(told) == 1
    assert told[0].startswith("The search has stopped")
    may_go_on.set()
    qtbot.waitUntil(lambda: not dock.worker.is_busy, timeout=PATIENCE_MS)
    assert panel.choice is None
    assert panel.candidates.layer is None
    dock.viewer.layers.clear()
    assert len(told) == 1


def test_review_and_export_of_what_was_found(
    dock: Any, truth: NDArray[np.uint32], qtbot: QtBot, tmp_path: Any
) -> None:
    from napari_sam.readers import open_image
    from napari_sam.widgets.export_form import Export
    from napari_sam.widgets.export_panel import ExportPanel
    from napari_sam.widgets.review_panel import ReviewPanel

    panel = find(dock, qtbot)
    panel.commit("all")
    qtbot.waitUntil(lambda: panel.choice is None, timeout=PATIENCE_MS)
    review = dock.panel(ReviewPanel)
    review.refresh()
    qtbot.waitUntil(lambda: len(review.form.table.rows) == 4, timeout=PATIENCE_MS)
    areas = {row.object_id: row.area for row in review.form.table.rows}
    labels = dock.bridge.labels
    assert areas == dict(enumerate(np.bincount(labels.data.ravel())[1:].tolist(), 1))
    review.form.choose(3)
    row = review.form.chosen()
    scene = dock.viewer.scene if hasattr(dock.viewer, "scene") else dock.viewer
    middle = ((row.box.y0 + row.box.y1 - 1) / 2, (row.box.x0 + row.box.x1 - 1) / 2)
    np.testing.assert_allclose(scene.camera.center[-2:], middle)
    review._set_state(3, "accepted")
    assert dock.session.records[3].state == "accepted"
    before = labels.data.copy()
    dock.session.undo()  # the verdict, and no pixel
    assert dock.session.records[3].state == "new"
    np.testing.assert_array_equal(labels.data, before)

    export = dock.panel(ExportPanel)
    path = tmp_path / "found.labels.tif"
    export.export(Export("tiff", str(path), 0.5))
    qtbot.waitUntil(path.exists, timeout=PATIENCE_MS)
    saved = open_image(path)
    assert saved.pixel_size_um == (0.5, 0.5)
    np.testing.assert_array_equal(np.asarray(saved.array[:]), labels.data)
    export.measure(0.5)
    qtbot.waitUntil(lambda: len(labels.features) == 4, timeout=PATIENCE_MS)
    assert labels.features["area"].tolist() == list(areas.values())
    # what the review said goes along
    review._set_state(2, "rejected")
    table = tmp_path / "found.csv"
    export.export(Export("csv", str(table), 0.5))
    qtbot.waitUntil(table.exists, timeout=PATIENCE_MS)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows] == ["new", "rejected", "new", "new"]
    assert all(0 < float(row["predicted_iou"]) <= 1 for row in rows)
    review.refresh()
    button = review.form.delete_rejected
    qtbot.waitUntil(button.isEnabled, timeout=PATIENCE_MS)
    button.click()
    np.testing.assert_array_equal(labels.data, np.where(before == 2, 0, before))
    dock.session.undo()
    np.testing.assert_array_equal(labels.data, before)


def test_after_an_error_the_candidates_can_be_kept_again(
    dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = find(dock, qtbot)
    told: list[str] = []
    monkeypatch.setattr("napari_sam.widgets.dock.show_error", told.append)

    def broken(*_: object) -> None:
        raise RuntimeError("out of something")

    with monkeypatch.context() as patch:
        patch.setattr(Choice, "edits", broken)
        panel.commit("all")
        qtbot.waitUntil(lambda: bool(told), timeout=PATIENCE_MS)
    assert len(panel.choice.objects) == 4
    assert panel.commit("all") == 4
    qtbot.waitUntil(lambda: panel.choice is None, timeout=PATIENCE_MS)
    assert len(np.unique(dock.bridge.labels.data)) == 5


def test_a_file_is_proposed_by_which_a_training_finds_the_labels(
    dock: Any, truth: NDArray[np.uint32], tmp_path: Path
) -> None:
    from napari.layers._source import layer_source

    from napari_sam.widgets.export_panel import ExportPanel

    form = dock.panel(ExportPanel).form
    assert (form.name, form.folder) == ("discs", "")
    with layer_source(path=str(tmp_path / "day 1.ome.tif")):
        layer = dock.viewer.add_image(image_of(truth), rgb=True, name="DAPI")
    dock.bridge.choose_image(layer)
    labels = dock.viewer.add_labels(np.zeros_like(truth), name="objects")
    dock.bridge.choose_labels(labels)
    assert (form.name, form.folder) == ("day 1", str(tmp_path))
