"""Embedding a plane beforehand, in a real window."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sam.cache import EmbeddingCache
from tests.engine.oracle import OracleSam, hold_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import napari
    from pytestqt.qtbot import QtBot

pytestmark = pytest.mark.display

PATIENCE_MS = 240_000


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> OracleSam:
    oracle = OracleSam(np.zeros((200, 300), np.uint32), scale=1)
    monkeypatch.setattr("napari_sam.weights.load.load_model", lambda *_, **__: oracle)
    return oracle


@pytest.fixture
def dock(
    make_napari_viewer: Callable[..., napari.Viewer], qtbot: QtBot, oracle: OracleSam
) -> Iterator[Any]:
    """Noise, but for an empty half at the right."""
    from napari_sam.widgets.dock import SegmentAnything

    viewer = make_napari_viewer()
    pixels = np.random.default_rng(0).integers(0, 255, (200, 300), np.uint8)
    pixels[:, 140:] = 90
    viewer.add_image(pixels, contrast_limits=(0, 255))
    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.network.planes is not None, timeout=PATIENCE_MS)
    planes: Any = dock.network.planes
    planes.keep_in(EmbeddingCache())
    yield dock
    dock.close_dock()


def test_every_crop_is_encoded_once_and_shown(
    dock: Any, qtbot: QtBot, oracle: OracleSam
) -> None:
    from napari_sam.widgets.embedding_panel import EmbeddingPanel

    planes = dock.network.planes
    panel = dock.panel(EmbeddingPanel)
    panel.skip.setChecked(False)
    panel.run.click()
    qtbot.waitUntil(lambda: "embedded" in panel.status.text(), timeout=PATIENCE_MS)
    grid = planes.open(dock.session.view).grid
    assert oracle.n_encoded == len(grid) > 1
    assert panel.progress.value() == len(grid)
    assert panel.overlay.layer is not None
    assert (panel.overlay.layer.data == 1).all()  # green everywhere
    assert dock.bridge.count_embedded(dock.session.view) == len(grid)
    assert panel.run.text() == "Embed this plane"
    panel.start()  # nothing is left to do
    qtbot.waitUntil(lambda: "embedded" in panel.status.text(), timeout=PATIENCE_MS)
    assert oracle.n_encoded == len(grid)
    panel.start()
    assert "Opening" in panel.status.text()
    dock.bridge.look()  # the same view, of which napari has told once more
    qtbot.waitUntil(lambda: "embedded" in panel.status.text(), timeout=PATIENCE_MS)
    panel.start()
    dock.bridge.image.contrast_limits = (0, 200)
    dock.bridge.look()  # another view, before the plane is open
    qtbot.waitUntil(lambda: "has changed" in panel.status.text(), timeout=PATIENCE_MS)
    assert panel.overlay.layer is None
    panel.pause.setChecked(True)
    panel.stop()
    assert panel.pause.text() == "Pause"
    panel.stop()
    assert panel.overlay.layer is None


def test_what_is_asked_for_too_early_begins_with_the_model(
    dock: Any, qtbot: QtBot, oracle: OracleSam
) -> None:
    from napari_sam.widgets.automatic_panel import AutomaticPanel
    from napari_sam.widgets.embedding_panel import EmbeddingPanel

    network, planes = dock.network, dock.network.planes
    embedding, automatic = dock.panel(EmbeddingPanel), dock.panel(AutomaticPanel)
    network._planes = None
    embedding.run.click()
    assert "as soon as the model is loaded" in embedding.status.text()
    assert embedding._task is None
    network._loaded(planes)
    qtbot.waitUntil(lambda: "embedded" in embedding.status.text(), timeout=PATIENCE_MS)
    assert oracle.n_encoded
    network._planes = None
    automatic.find("plane")
    assert automatic._task is None
    network._loaded(planes)
    assert automatic._task is not None
    automatic.discard()
    # not on a plane that was not meant
    network._planes = None
    automatic.find("plane")
    dock.bridge.use_scale(0.5)
    network._loaded(planes)
    assert automatic._task is None


def marks(panel: Any, grid: Any) -> list[int]:
    """What the overlay shows in the middle of each crop's core."""
    data = panel.overlay.layer.data
    found = []
    for crop in grid:
        y, x = (crop.core.y0 + crop.core.y1) // 64, (crop.core.x0 + crop.core.x1) // 64
        found.append(int(data[y, x]))
    return found


def test_empty_crops_and_the_one_that_fails_are_shown(
    dock: Any, qtbot: QtBot, oracle: OracleSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.widgets.embedding_panel import EmbeddingPanel

    panel = dock.panel(EmbeddingPanel)
    embedding = dock.network.planes.open(dock.session.view)
    grid = embedding.grid
    empty = {crop.index for crop in grid if crop.box.x0 >= 140}
    assert 0 < len(empty) < len(grid) - 2
    encode = OracleSam.encode

    def fail_third(self: OracleSam, x: Any) -> Any:
        if self.n_encoded == 2:
            raise RuntimeError("CUDA error: out of memory")
        return encode(self, x)

    monkeypatch.setattr(OracleSam, "encode", fail_third)
    panel.run.click()
    qtbot.waitUntil(lambda: "error" in panel.status.text(), timeout=PATIENCE_MS)
    qtbot.waitUntil(lambda: 4 in marks(panel, grid), timeout=PATIENCE_MS)
    shown = marks(panel, grid)
    assert shown.count(1) == 2  # embedded
    assert shown.count(4) == 1  # failed
    assert shown.index(4) == embedding.in_hand[0].index
    monkeypatch.setattr(OracleSam, "encode", encode)
    panel.run.click()
    qtbot.waitUntil(lambda: "is embedded" in panel.status.text(), timeout=PATIENCE_MS)
    shown = marks(panel, grid)
    assert {i for i, each in enumerate(shown) if each == 3} == empty
    assert oracle.n_encoded == len(grid) - len(empty)
    panel.start()  # known from before
    qtbot.waitUntil(lambda: panel.overlay.layer is not None, timeout=PATIENCE_MS)
    qtbot.waitUntil(lambda: "is embedded" in panel.status.text(), timeout=PATIENCE_MS)
    assert marks(panel, grid) == shown
    assert oracle.n_encoded == len(grid) - len(empty)


def test_a_rest_is_told_and_what_is_known_counts_from_the_start(
    dock: Any, qtbot: QtBot, oracle: OracleSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.widgets.embedding_panel import EmbeddingPanel

    panel = dock.panel(EmbeddingPanel)
    panel.skip.setChecked(False)
    may_go_on = hold_encoder(monkeypatch, at=3)
    panel.run.click()
    qtbot.waitUntil(lambda: panel.progress.value() > 0, timeout=PATIENCE_MS)
    panel.pause.click()
    assert "after the crop in hand" in panel.status.text()
    n_before = panel.progress.value()
    may_go_on.set()
    qtbot.waitUntil(lambda: panel.progress.value() > n_before, timeout=PATIENCE_MS)
    assert panel.status.text().startswith("Rests.")
    qtbot.waitUntil(lambda: not dock.worker.is_busy)
    panel.run.click()  # stop
    n_known = dock.bridge.count_embedded(dock.session.view)
    assert 0 < n_known < len(dock.network.planes.open(dock.session.view).grid)
    seen: list[int] = []
    panel.progress.valueChanged.connect(seen.append)
    panel.run.click()
    qtbot.waitUntil(lambda: "is embedded" in panel.status.text(), timeout=PATIENCE_MS)
    assert min(each for each in seen if each) >= n_known


def test_an_image_that_goes_while_it_is_embedded(
    dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.widgets import embedding_panel

    told: list[str] = []
    monkeypatch.setattr(embedding_panel, "show_warning", told.append)
    panel = dock.panel(embedding_panel.EmbeddingPanel)
    write, written, is_gone = PlaneEmbedding._write, [], threading.Event()

    def hold_the_second(self: Any, kept: Any) -> None:
        # or all crops might be through before the window has drawn the first
        if written:
            assert is_gone.wait(PATIENCE_MS / 1000)
        written.append(kept.crop.index)
        write(self, kept)

    monkeypatch.setattr(PlaneEmbedding, "_write", hold_the_second)
    panel.run.click()
    qtbot.waitUntil(lambda: panel.progress.value() > 0, timeout=PATIENCE_MS)
    panel.pause.click()
    dock.viewer.layers.remove(dock.bridge.image)
    is_gone.set()
    assert panel.status.text() == ""
    assert panel.run.text() == "Embed this plane"
    assert panel.progress.isHidden()
    assert panel.overlay.layer is None
    assert len(told) == 1
    assert "what is embedded stays" in told[0]
    panel.run.click()
    assert "open an image" in told[1]


def test_what_comes_into_view_is_embedded_next(
    dock: Any, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.engine.embed import PlaneEmbedding
    from napari_sam.tiling import Box
    from napari_sam.widgets import embedding_panel

    panel = dock.panel(embedding_panel.EmbeddingPanel)
    panel.skip.setChecked(False)
    view = dock.session.view
    embedding = dock.network.planes.open(view)
    order: list[int] = []
    write = PlaneEmbedding._write
    last = embedding.grid[len(embedding.grid) - 1]

    is_paused = threading.Event()

    def note(self: Any, kept: Any) -> None:
        order.append(kept.crop.index)
        # or all crops might be through before the window has heard of the first
        assert is_paused.wait(PATIENCE_MS / 1000)
        write(self, kept)

    monkeypatch.setattr(PlaneEmbedding, "_write", note)
    seen = Box(0, 0, 20, 20)
    monkeypatch.setattr(embedding_panel, "visible_box", lambda *_: seen)
    dock.worker.call(lambda: None, lambda _: None)
    panel.run.click()
    qtbot.waitUntil(lambda: len(order) > 0, timeout=PATIENCE_MS)
    panel.pause.click()
    n_before = len(order)
    is_paused.set()
    seen = Box(last.core.y1 - 2, last.core.x1 - 2, last.core.y1, last.core.x1)
    panel._camera.events.center()  # the camera has moved
    assert panel._settled.isActive()
    panel._prefer()
    panel.pause.click()
    qtbot.waitUntil(lambda: "is embedded" in panel.status.text(), timeout=PATIENCE_MS)
    assert order[0] == 0
    # what was read ahead waits; the one in hand, and its successor, may be through
    assert last.index in order[n_before : n_before + 3]


def test_a_change_of_contrast_asks_where_many_crops_are_embedded(
    dock: Any, qtbot: QtBot, oracle: OracleSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.widgets.embedding_panel import EmbeddingPanel
    from napari_sam.widgets.model_panel import ModelPanel

    panel, question = dock.panel(EmbeddingPanel), dock.panel(ModelPanel).contrast
    image, session = dock.bridge.image, dock.session
    first = session.view
    image.contrast_limits = (10, 200)  # nothing is embedded yet
    qtbot.waitUntil(lambda: session.view.intensity != first.intensity)
    assert question.isHidden()

    monkeypatch.setattr("napari_sam.widgets.bridge._MANY_CROPS", 4)
    panel.run.click()
    qtbot.waitUntil(lambda: "is embedded" in panel.status.text(), timeout=PATIENCE_MS)
    embedded = session.view
    n_embedded = dock.bridge.count_embedded(embedded)
    n_encoded = oracle.n_encoded
    image.contrast_limits = (20, 180)
    qtbot.waitUntil(lambda: not question.isHidden())
    assert f"{n_embedded} crops" in question.text.text()
    dock.bridge.look()  # whatever makes it look: the model sees what it saw
    assert session.view.intensity == embedded.intensity
    image.contrast_limits = (10, 200)  # back again: nothing to ask
    qtbot.waitUntil(question.isHidden)
    image.contrast_limits = (20, 180)
    qtbot.waitUntil(lambda: not question.isHidden())
    question.leave.click()
    image.contrast_limits = (30, 180)
    qtbot.wait(600)
    assert session.view.intensity == embedded.intensity
    assert oracle.n_encoded == n_encoded
    question.use.click()
    assert question.isHidden()
    assert session.view.intensity.limits == ((30, 180),)
    assert dock.bridge.count_embedded(session.view) == 0


def test_a_search_says_that_it_goes_on_with_the_earlier_contrast(
    dock: Any, qtbot: QtBot, oracle: OracleSam, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.widgets import contrast_question
    from napari_sam.widgets.automatic_panel import AutomaticPanel
    from napari_sam.widgets.embedding_panel import EmbeddingPanel

    told: list[str] = []
    monkeypatch.setattr(contrast_question, "show_warning", told.append)
    may_go_on = hold_encoder(monkeypatch)
    panel, image = dock.panel(AutomaticPanel), dock.bridge.image
    image.contrast_limits = (0, 200)  # nothing runs
    dock.bridge.look()
    panel.find("plane")
    image.contrast_limits = (0, 250)
    qtbot.waitUntil(lambda: bool(told), timeout=PATIENCE_MS)
    assert told[0].startswith("The search goes on with the contrast it began with")
    assert dock.session.view.intensity.limits == ((0, 250),)  # of the next click
    may_go_on.set()
    qtbot.waitUntil(lambda: panel._task is None, timeout=PATIENCE_MS)
    image.contrast_limits = (0, 255)
    dock.bridge.look()
    assert len(told) == 1
    # what the search has embedded is of another contrast
    embedding = dock.panel(EmbeddingPanel)
    n_before = oracle.n_encoded
    embedding.skip.setChecked(False)
    embedding.run.click()
    qtbot.waitUntil(
        lambda: "is embedded" in embedding.status.text(), timeout=PATIENCE_MS
    )
    n_crops = len(dock.network.planes.open(dock.session.view).grid)
    assert oracle.n_encoded == n_before + n_crops
