"""Layers and session agree: coordinates, undo, deleted layers; no canvas is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_sam.engine.draft import Shape
from napari_sam.engine.request import PlaneView
from napari_sam.engine.session import Session
from napari_sam.errors import InputError
from napari_sam.labels import LabelEdit
from napari_sam.tiling import Box
from tests.engine.discs import DiscPlanes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.components import ViewerModel
    from napari.layers import Layer
    from numpy.typing import NDArray
    from pytestqt.qtbot import QtBot

    from napari_sam.widgets.bridge import LayerBridge

pytestmark = pytest.mark.display


class Stage:
    """A viewer model with an image, a session and the bridge between them."""

    def __init__(self, image: NDArray[Any], **options: Any) -> None:
        from napari.components import ViewerModel

        from napari_sam.widgets.bridge import LayerBridge

        self.viewer: ViewerModel = ViewerModel()
        self.image = self.viewer.add_image(image, name="cells", **options)
        self.session = Session()
        self.bridge: LayerBridge = LayerBridge(self.viewer, self.session)
        self.bridge.choose_image(self.image)

    @property
    def prompts(self) -> Any:
        return self.bridge.prompts

    def click_world(self, world: Any) -> None:
        """What napari's points tool does with a click there."""
        self.prompts.points.add(self.prompts.points.world_to_data(world))


@pytest.fixture
def stage(
    qtbot: QtBot, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]
) -> Iterator[Stage]:
    stage = Stage(cells[0])
    planes = DiscPlanes(cells[1])
    stage.session.request.connect(
        lambda request: stage.session.receive(planes.answer(request))
    )
    yield stage
    stage.bridge.close()


AFFINE = np.array([[0, -2.0, 11], [1.5, 0.3, -4], [0, 0, 1]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": (0.5, 0.25), "translate": (10, -20)},
        {"rotate": 33, "scale": (2, 3)},
        {"shear": [0.3], "translate": (5, 5)},
        {"affine": AFFINE},
        {"affine": AFFINE, "scale": (0.5, 2), "rotate": 10},
    ],
)
def test_a_click_lands_where_it_is_seen(qtbot: QtBot, options: dict[str, Any]) -> None:
    """World to pixels by napari's own image layer is the oracle."""
    stage = Stage(np.zeros((96, 128), np.uint8), **options)
    world = stage.image.data_to_world((24.0, 60.0))
    stage.click_world(world)
    np.testing.assert_allclose(stage.session.draft.points, [[24, 60]], atol=1e-3)
    preview_of(stage, Mask(20, 50, 30, 70))
    preview = stage.prompts.preview
    lit = np.argwhere(preview.data > 0)
    np.testing.assert_allclose(
        stage.image.world_to_data(preview.data_to_world(lit[0])), (20, 50), atol=1e-6
    )
    np.testing.assert_allclose(
        stage.image.world_to_data(preview.data_to_world(lit[-1])), (29, 69), atol=1e-6
    )
    stage.bridge.close()


def Mask(y0: int, x0: int, y1: int, x1: int) -> Any:
    from napari_sam.engine.request import ShownMask

    box = Box(y0, x0, y1, x1)
    return ShownMask(box, np.ones(box.shape, bool), 0.9, 0.9, 0, 1)


def preview_of(stage: Stage, *masks: Any) -> None:
    stage.prompts.show_masks(masks)


@pytest.mark.parametrize(
    ("order", "index", "plane"),
    [
        ((0, 1, 2), (2, None, None), (96, 128)),
        ((0, 2, 1), (2, None, None), (96, 128)),  # seen transposed
        ((1, 0, 2), (None, 40, None), (5, 128)),
        ((2, 1, 0), (None, None, 50), (5, 96)),
    ],
)
def test_any_two_axes_are_a_plane(
    qtbot: QtBot, order: tuple[int, ...], index: Any, plane: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (5, 96, 128), np.uint8)
    stage = Stage(image, scale=(2, 1, 1))
    stage.viewer.dims.set_point((0, 1, 2), (4, 40, 50))
    stage.viewer.dims.order = order
    view = stage.session.view
    assert isinstance(view, PlaneView)
    assert (view.index, view.shape) == (index, plane)
    slices = tuple(slice(None) if each is None else each for each in index)
    np.testing.assert_array_equal(view.source.read(plane=view.plane), image[slices])
    stage.click_world(stage.image.data_to_world((2, 40, 50)))
    expected = [c for c, each in zip((2, 40, 50), index, strict=True) if each is None]
    np.testing.assert_allclose(stage.session.draft.points, [expected])
    stage.bridge.close()


def test_a_3d_display_has_no_plane(qtbot: QtBot) -> None:
    stage = Stage(np.zeros((5, 96, 128), np.uint8))
    stage.viewer.dims.ndisplay = 3
    assert stage.session.view is None
    stage.viewer.dims.ndisplay = 2
    assert stage.session.view is not None
    stage.bridge.close()


@pytest.mark.parametrize("kind", ["rgb", "multiscale", "five axes"])
def test_kinds_of_images(qtbot: QtBot, kind: str) -> None:
    rng = np.random.default_rng(0)
    data: Any = rng.integers(0, 255, (2, 3, 2, 40, 50), np.uint8)
    options: dict[str, Any] = {}
    if kind == "rgb":
        data = rng.integers(0, 255, (40, 50, 3), np.uint8)
        options["rgb"] = True
    elif kind == "multiscale":
        full = rng.integers(0, 255, (40, 50), np.uint8)
        data, options["multiscale"] = [full, full[::2, ::2]], True
    stage = Stage(data, **options)
    stage.click_world(
        stage.image.data_to_world((*[0] * (stage.image.ndim - 2), 30, 45))
    )
    view = stage.session.view
    assert view is not None
    assert view.shape == (40, 50)
    smaller = [level.shape for level in view.source.levels]
    assert smaller == ([(20, 25)] if kind == "multiscale" else [])
    np.testing.assert_allclose(stage.session.draft.points, [[30, 45]])
    assert stage.bridge.need_labels().data.shape[-2:] == (40, 50)
    stage.bridge.close()


def test_the_window_of_the_encoder_is_what_is_seen(qtbot: QtBot) -> None:
    stage = Stage(np.arange(96 * 128, dtype=np.uint16).reshape(96, 128))
    stage.image.contrast_limits = (100, 900)
    stage.bridge.look()
    view = stage.session.view
    assert view is not None
    assert view.intensity is not None
    assert view.intensity.limits == ((100.0, 900.0),)
    stage.bridge.close()


def test_contrast_limits_count_for_colours_too(qtbot: QtBot) -> None:
    """napari shows colours by them, of 16 bit by default from darkest to brightest."""
    pixels = np.full((96, 128, 3), 2000, np.uint16)
    pixels[0, 0], pixels[0, 1] = 100, 4000
    stage = Stage(pixels, rgb=True)
    seen: list[tuple[float, float]] = []
    for limits in (None, (500, 900)):
        if limits is not None:
            stage.image.contrast_limits = limits
            stage.bridge.look()
        view = stage.session.view
        assert view is not None
        assert view.intensity is not None
        assert view.intensity.channels == (0, 1, 2)
        (pair,) = set(view.intensity.limits)
        seen.append(pair)
    assert seen == [(100, 4000), (500, 900)]
    stage.bridge.close()


def test_points_are_added_dragged_and_deleted(stage: Stage) -> None:
    stage.click_world((24, 60))
    stage.session.state.positive = False
    stage.click_world((80, 3))
    assert stage.session.draft.positive.tolist() == [True, False]
    symbols = [str(each) for each in stage.prompts.points.symbol]
    assert symbols == ["disc", "x"]
    stage.prompts.points.selected_data = {0}
    stage.prompts.points.remove_selected()
    np.testing.assert_allclose(stage.session.draft.points, [[80, 3]])
    assert stage.session.draft.positive.tolist() == [False]
    stage.session.undo()
    np.testing.assert_allclose(stage.prompts.points.data, [[24, 60], [80, 3]])
    assert [str(each) for each in stage.prompts.points.symbol] == ["disc", "x"]


def test_commit_undo_and_redo_in_the_layer(
    stage: Stage, cells: tuple[NDArray[np.uint8], NDArray[np.uint32]]
) -> None:
    truth = cells[1]
    layer = stage.bridge.need_labels()
    for point in ((24, 60), (20, 20)):
        stage.click_world(point)
        stage.session.commit()
    np.testing.assert_array_equal(layer.data == 1, truth == 2)
    np.testing.assert_array_equal(layer.data == 2, truth == 1)
    assert not len(stage.prompts.points.data)
    stage.session.undo()
    assert set(np.unique(layer.data)) == {0, 1}
    np.testing.assert_allclose(stage.prompts.points.data, [[20, 20]])
    stage.session.redo()
    assert set(np.unique(layer.data)) == {0, 1, 2}


def test_strokes_by_hand_are_steps_of_the_same_history(stage: Stage) -> None:
    layer = stage.bridge.need_labels()
    stage.click_world((24, 60))
    stage.session.commit()
    committed = layer.data.copy()
    layer.selected_label = 1
    layer.brush_size = 5
    layer.paint((80, 100), 1)
    assert stage.session.records[1].hand_edits == 1
    assert (layer.data != committed).any()
    stage.click_world((20, 20))
    stage.session.undo()  # the point
    assert stage.session.undo() == "paint"
    np.testing.assert_array_equal(layer.data, committed)
    stage.session.undo()
    assert not layer.data.any()


@pytest.mark.parametrize("n_edits", [1, 40])
def test_many_objects_are_written_at_once_and_are_one_step(
    qtbot: QtBot, n_edits: int
) -> None:
    """The array tells what is wanted; 40 edits, or one of a large part of the plane."""
    from napari.layers import Labels

    from napari_sam.widgets.layer_labels import LayerLabels

    rng = np.random.default_rng(0)
    start = rng.integers(0, 3, (3, 60, 80)).astype(np.uint16)
    layer = Labels(start.copy())
    target, truth = LayerLabels(layer), start.copy()
    index = (0, None, None)  # the slice that is shown
    edits = []
    for number in range(n_edits):
        sides = (50, 60) if n_edits == 1 else (9, 7)
        y, x = rng.integers(0, 60 - sides[0]), rng.integers(0, 80 - sides[1])
        box = Box(int(y), int(x), int(y) + sides[0], int(x) + sides[1])
        before = start[0][box.slices].astype(np.uint32)
        after = np.where(rng.random(box.shape) < 0.4, 100 + number, before)
        edits.append(LabelEdit(index, box, before, after.astype(np.uint32)))
        edits[-1].apply(truth)
    layer.data[0, 25, 30] = truth[0, 25, 30] = 50  # by another plugin, meanwhile
    for edit in edits:
        edit.apply(truth)
    others = layer.data.copy()
    assert target.fresh_ids(1) == [51]
    target.write(edits)
    np.testing.assert_array_equal(layer.data, truth)
    assert target.fresh_ids(1) == [int(truth.max()) + 1]
    shown = np.asarray(layer._slice.image.view)
    np.testing.assert_array_equal(shown, layer.colormap._data_to_texture(truth[0]))
    target.undo(edits)
    np.testing.assert_array_equal(layer.data, others)
    target.redo(edits)
    np.testing.assert_array_equal(layer.data, truth)
    assert len(layer._undo_history) == 1


def test_an_undo_beside_ours_does_no_harm(stage: Stage) -> None:
    layer = stage.bridge.need_labels()
    stage.click_world((24, 60))
    stage.session.commit()
    committed = layer.data.copy()
    layer.undo()  # from the console
    stage.session.undo()
    assert not layer.data.any()
    stage.session.redo()
    np.testing.assert_array_equal(layer.data, committed)


@pytest.mark.parametrize("which", ["points", "shapes", "preview"])
def test_deleted_prompt_layers_come_back(
    stage: Stage, which: str, qtbot: QtBot
) -> None:
    stage.click_world((24, 60))
    stage.session.set_shapes([Shape.of_box((8, 44, 40, 76))])
    stage.viewer.layers.remove(getattr(stage.prompts, which))
    qtbot.waitUntil(
        lambda: all(
            getattr(stage.prompts, name) in stage.viewer.layers
            for name in ("points", "shapes")
        )
    )
    np.testing.assert_allclose(stage.prompts.points.data, [[24, 60]])
    assert len(stage.prompts.shapes.data) == 1
    assert stage.prompts.points in stage.viewer.layers
    stage.click_world((26, 62))
    assert len(stage.session.draft.points) == 2


def test_layers_are_made_when_they_are_needed(stage: Stage) -> None:
    made: list[Layer] = []
    stage.bridge.layer_made.connect(made.append)
    assert list(stage.viewer.layers) == [stage.image]
    assert stage.prompts.tool == "look"
    stage.prompts.use("points")
    assert made == [stage.prompts.points]
    stage.session.set_shapes([Shape.of_box((8, 44, 40, 76))])
    assert made[1:] == [stage.prompts.shapes]
    assert stage.prompts.tool == "points"  # what a click does is left alone
    stage.prompts.prepare_preview()
    assert list(stage.viewer.layers) == [
        stage.image,
        stage.prompts.preview,
        stage.prompts.shapes,
        stage.prompts.points,
    ]


def test_clearing_the_list_ends(stage: Stage, qtbot: QtBot) -> None:
    stage.click_world((24, 60))
    stage.viewer.layers.clear()  # as napari does when a script closes a viewer
    qtbot.wait(10)
    assert len(stage.viewer.layers) == 0
    assert stage.bridge.image is None


def test_without_its_labels_or_image_the_session_stays_sound(stage: Stage) -> None:
    layer = stage.bridge.need_labels()
    stage.click_world((24, 60))
    stage.session.commit()
    stage.viewer.layers.remove(layer)
    assert stage.bridge.labels is None
    assert stage.session.labels is None
    stage.session.undo()  # the steps of the lost layer are forgotten
    stage.viewer.layers.remove(stage.image)
    assert stage.bridge.image is None
    assert stage.session.view is None
    assert [layer.name for layer in stage.viewer.layers] == []


def test_layers_follow_a_new_transform(stage: Stage) -> None:
    stage.click_world((24, 60))
    stage.image.scale = (2, 3)
    np.testing.assert_allclose(stage.prompts.points.scale, (2, 3))
    stage.click_world((40, 60))
    np.testing.assert_allclose(stage.session.draft.points[1], (20, 20), atol=1e-3)


def test_boxes_drawn_in_any_direction_and_ellipses(stage: Stage) -> None:
    shapes = stage.prompts.shapes
    shapes.add(
        [[39.5, 75.5], [39.5, 43.5], [7.5, 43.5], [7.5, 75.5]], shape_type="rectangle"
    )
    (drawn,) = stage.session.draft.shapes
    assert drawn.kind == "box"
    np.testing.assert_allclose(drawn.corners, [[7.5, 43.5], [39.5, 75.5]])
    shapes.add([[40, 10], [40, 50], [80, 50], [80, 10]], shape_type="ellipse")
    ellipse = stage.session.draft.shapes[1]
    assert ellipse.kind == "area"
    from_centre = np.hypot(*(ellipse.corners - (60, 30)).T)
    np.testing.assert_allclose(from_centre, 20, rtol=1e-5)
    shapes.add([[1, 1], [5, 9], [9, 9]], shape_type="path")
    assert stage.session.draft.shapes[2].kind == "line"


def test_choices_follow_renames_and_new_images(stage: Stage) -> None:
    changes: list[bool] = []
    stage.bridge.choices_changed.connect(lambda: changes.append(True))
    stage.image.name = "nuclei"
    assert changes
    other = stage.viewer.add_image(np.zeros((30, 40), np.uint8), name="other")
    stage.bridge.choose_image(other)
    stage.click_world(other.data_to_world((5, 6)))
    np.testing.assert_allclose(stage.session.draft.points, [[5, 6]])
    names = [layer.name for layer in stage.viewer.layers]
    assert sum("points" in name for name in names) == 1


@pytest.mark.parametrize("ndim", [2, 3])
def test_stored_labels_are_painted_in_a_layer_of_their_own(
    qtbot: QtBot, monkeypatch: pytest.MonkeyPatch, ndim: int
) -> None:
    from napari_sam.engine import label_store
    from napari_sam.widgets import hand_edit, stored_labels

    monkeypatch.setattr(label_store, "_SMALLEST_LEVEL", 64)
    monkeypatch.setattr(stored_labels, "LARGEST_PAINTED", 100)
    monkeypatch.setattr(hand_edit, "_ROOM", 20)
    shape = (300, 200) if ndim == 2 else (4, 300, 200)
    scale = (2.0, 0.5, 0.25)[-ndim:]
    stage = Stage(np.zeros(shape, np.uint8), scale=scale)
    plane = (slice(None),) * 2
    if ndim == 3:
        stage.viewer.dims.set_point(0, 2 * scale[0])
        plane = (2, *plane)
    labels, session = stage.bridge.need_labels(), stage.session
    assert labels.multiscale
    view, target = session.view, session.labels
    assert view is not None
    assert target is not None
    before = np.zeros((300, 200), np.uint32)
    before[100:120, 50:60] = 3
    whole = Box.whole((300, 200))
    empty = target.read(view.index, whole)
    session.edit_labels("make", [LabelEdit(view.index, whole, empty, before)])

    stage.bridge.paint(3)
    assert stage.bridge.is_painting
    assert labels not in stage.viewer.layers.selection
    layer = stage.viewer.layers["paint here"]
    assert layer.selected_label == 3
    assert (np.asarray(layer.data) == 3).sum() == 200
    at = labels.world_to_data(layer.data_to_world(np.argwhere(layer.data == 3)[0]))
    np.testing.assert_allclose(at[-2:], (100, 50), atol=1e-6)
    index = (0,) * (ndim - 2)
    layer.data[(*index, slice(0, 5), slice(0, 4))] = 3
    assert stage.bridge.stop_painting()
    assert layer not in stage.viewer.layers
    after = before.copy()
    after[80:85, 30:34] = 3  # the layer began 20 px above and left of the object
    np.testing.assert_array_equal(target.read(view.index, whole), after)
    assert session.records[3].hand_edits == 1
    assert session.undo() == "paint object 3"
    np.testing.assert_array_equal(target.read(view.index, whole), before)
    assert 3 not in session.records

    stage.bridge.paint(3)  # deleting the layer drops what was painted
    layer = stage.viewer.layers["paint here"]
    layer.data[...] = 9
    stage.viewer.layers.remove(layer)
    assert not stage.bridge.is_painting
    assert not stage.bridge.stop_painting()
    np.testing.assert_array_equal(target.read(view.index, whole), before)
    with pytest.raises(InputError, match="no object 7"):
        stage.bridge.paint(7)
    stage.bridge.close()


def test_labels_that_napari_can_paint_are_painted_there(stage: Stage) -> None:
    labels = stage.bridge.need_labels()
    stage.click_world((24, 60))
    stage.session.commit()
    stage.bridge.paint(1)
    assert not stage.bridge.is_painting
    assert stage.viewer.layers.selection.active is labels
    assert (labels.mode, labels.selected_label) == ("paint", 1)
    stage.bridge.paint(0)
    assert labels.selected_label == 2  # a new one


def test_another_scale_is_another_view_of_the_same_prompts(stage: Stage) -> None:
    stage.click_world((24, 60))
    first = stage.session.view
    stage.bridge.use_scale(2.0)
    second = stage.session.view
    assert first is not None
    assert second is not None
    assert second.scale == 2.0
    assert second.place == first.place
    assert second.embedding_key != first.embedding_key
    assert len(stage.session.draft.points) == 1
    other = stage.viewer.add_image(np.zeros((30, 40), np.uint8), name="other")
    stage.bridge.choose_image(other)
    assert stage.session.view.scale is None
