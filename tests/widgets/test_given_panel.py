"""Prompts of files and layers, from the dock to the labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sam.cache import EmbeddingCache
from tests.engine.oracle import OracleSam, image_of
from tests.widgets.conftest import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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
) -> Iterator[Any]:
    from napari_sam.widgets.dock import SegmentAnything

    oracle = OracleSam(truth, scale=4)
    monkeypatch.setattr("napari_sam.weights.load.load_model", lambda *_, **__: oracle)
    viewer = make_napari_viewer()
    viewer.add_image(
        image_of(truth), rgb=True, name="discs", scale=(0.5, 2), translate=(3, 4)
    )
    dock = SegmentAnything(viewer)
    viewer.window.add_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.network.planes is not None, timeout=PATIENCE_MS)
    dock.network.planes.cache = EmbeddingCache()
    yield dock
    dock.close_dock()


def test_points_of_another_layer_become_objects(
    dock: Any, truth: NDArray[np.uint32], qtbot: QtBot, tmp_path: Path
) -> None:
    from napari_sam.widgets.given_panel import GivenPanel

    panel, viewer = dock.panel(GivenPanel), dock.viewer
    assert not panel.run.isEnabled()  # our own layers do not count
    image = dock.bridge.image
    world = [image.data_to_world(each) for each in [*PLACES, (40, 40)]]
    viewer.add_points(np.array(world), name="spots")  # of another transform
    assert panel.layer.layer is viewer.layers["spots"]
    panel.run.click()
    qtbot.waitUntil(lambda: "objects of" in panel.status.text(), timeout=PATIENCE_MS)
    assert "Kept 4 of 5 objects of spots; 1 lies beside" in panel.status.text()
    labels = dock.bridge.labels
    np.testing.assert_array_equal(labels.data > 0, truth > 0)
    for number, record in dock.session.records.items():
        (y, x), *_ = record.points
        at = truth[round(y), round(x)]
        np.testing.assert_array_equal(labels.data == number, truth == at)
        assert record.predicted_iou is not None
    # their prompts are saved, and make the same objects tomorrow
    path = tmp_path / "prompts.csv"
    panel.save_file(path)
    qtbot.waitUntil(path.exists, timeout=PATIENCE_MS)
    assert dock.session.undo() == "keep 4 objects of spots"
    assert not labels.data.any()
    qtbot.waitUntil(lambda: "are in" in panel.status.text(), timeout=PATIENCE_MS)
    panel.load_file(path)
    qtbot.waitUntil(lambda: "objects of" in panel.status.text(), timeout=PATIENCE_MS)
    np.testing.assert_array_equal(labels.data > 0, truth > 0)


def test_one_object_comes_back_as_prompts(
    dock: Any, qtbot: QtBot, tmp_path: Path
) -> None:
    """Saved by napari from our own layer."""
    from napari_sam.widgets.given_panel import GivenPanel

    panel, points = dock.panel(GivenPanel), dock.bridge.prompts.points
    points.add(np.array([[6, 6]]))
    dock.session.state.positive = False
    points.add(np.array([[6, 14]]))
    draft = dock.session.draft
    path = tmp_path / "points.csv"
    points.save(str(path))
    dock.session.reject()
    assert dock.session.draft.is_empty
    panel.load_file(path)
    qtbot.waitUntil(lambda: not dock.session.draft.is_empty, timeout=PATIENCE_MS)
    np.testing.assert_array_equal(dock.session.draft.points, draft.points)
    np.testing.assert_array_equal(dock.session.draft.positive, [True, False])
    np.testing.assert_array_equal(points.data, draft.points)
    assert dock.session.undo() == "load prompts"


def test_shapes_saved_by_napari_are_objects(
    dock: Any, truth: NDArray[np.uint32], qtbot: QtBot, tmp_path: Path
) -> None:
    from napari.layers import Shapes

    from napari_sam.widgets.given_panel import GivenPanel

    corners = []
    for number in (1, 4):
        rows, columns = np.nonzero(truth == number)
        (y0, y1), (x0, x1) = (rows.min(), rows.max()), (columns.min(), columns.max())
        corners.append([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
    path = tmp_path / "shapes.csv"
    Shapes(corners, shape_type="rectangle").save(str(path))
    panel = dock.panel(GivenPanel)
    panel.load_file(path)
    qtbot.waitUntil(lambda: "objects of" in panel.status.text(), timeout=PATIENCE_MS)
    found = dock.bridge.labels.data > 0
    np.testing.assert_array_equal(found, (truth == 1) | (truth == 4))


def test_prompts_are_saved_as_napari_saves_them(
    dock: Any, qtbot: QtBot, tmp_path: Path
) -> None:
    from napari_sam.engine.draft import Shape
    from napari_sam.widgets.given_panel import GivenPanel

    panel, session = dock.panel(GivenPanel), dock.session
    ring = np.array([[3, 3], [3, 10], [10, 10], [10, 3]], np.float32)
    drawn = [Shape.of_box((18, 4, 28, 14)), Shape("area", ring)]
    session.set_shapes(drawn)
    session.set_points([[24.0, 25.0], [29.0, 30.0]], [True, False])
    qtbot.waitUntil(lambda: not session.is_waiting, timeout=PATIENCE_MS)
    dock.bridge.need_labels()
    session.commit()
    for kind in ("table", "points", "shapes"):
        panel.save_file(tmp_path / f"{kind}.csv", kind)
        qtbot.waitUntil(
            lambda kind=kind: f"are in {kind}.csv" in panel.status.text(),
            timeout=PATIENCE_MS,
        )
    (points,) = dock.viewer.open(tmp_path / "points.csv", plugin="napari")
    np.testing.assert_array_equal(points.data, [[24, 25], [29, 30]])
    assert list(points.features["positive"]) == [1, 0]
    (shapes,) = dock.viewer.open(tmp_path / "shapes.csv", plugin="napari")
    assert list(shapes.shape_type) == ["rectangle", "polygon"]
    np.testing.assert_array_equal(shapes.data[1], ring)
    np.testing.assert_array_equal(shapes.data[0].min(0), [17.5, 3.5])
    np.testing.assert_array_equal(shapes.data[0].max(0), [27.5, 13.5])


def test_a_file_that_cannot_be_read_is_told(
    dock: Any, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_sam.widgets.given_panel import GivenPanel

    told: list[str] = []
    monkeypatch.setattr("napari_sam.widgets.dock.show_error", told.append)
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    dock.panel(GivenPanel).load_file(path)
    qtbot.waitUntil(lambda: bool(told), timeout=PATIENCE_MS)
    assert "expected a line with the columns y, x" in told[0]
