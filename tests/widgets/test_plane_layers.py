"""Candidates and crops lie where the image lies, and show their state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_sam.engine.automatic import AutomaticConfig
from napari_sam.engine.candidates import Candidates
from napari_sam.engine.choice import Choice
from napari_sam.engine.proposals import ProposalMode
from napari_sam.engine.thresholds import Thresholds
from napari_sam.labels import ArrayLabels
from napari_sam.masks import Candidate
from napari_sam.tiling import Box, CropGrid

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from numpy.typing import NDArray

pytestmark = pytest.mark.display


@pytest.fixture
def viewer() -> ViewerModel:
    from napari.components import ViewerModel

    viewer = ViewerModel()
    viewer.add_image(
        np.zeros((3, 300, 400), np.uint8),
        scale=(2, 0.5, 0.25),
        translate=(0, 7, -3),
        rotate=30,
        affine=np.array([[1, 0, 0, 0], [0, 0, 1, 5], [0, -1, 0, 2], [0, 0, 0, 1]]),
    )
    return viewer


@pytest.fixture
def choice() -> Choice:
    plane = (300, 400)
    found = [
        Candidate(Box(10, 10, 40, 50), np.ones((30, 40), bool), 0.9, 0.9),
        Candidate(Box(200, 300, 230, 330), np.ones((30, 30), bool), 0.5, 0.9),
    ]
    grid = CropGrid(plane, size=512, halo=64)
    kept = Candidates(grid, AutomaticConfig(), ProposalMode(), Box.whole(plane), found)
    labels = ArrayLabels(np.zeros((3, *plane), np.uint32))
    choice = Choice(kept, labels, (0, None, None))
    choice.update()
    return choice


@pytest.mark.parametrize("cell", [1, 32])
def test_a_plane_lies_where_the_image_lies(viewer: ViewerModel, cell: int) -> None:
    from napari.layers import Labels

    from napari_sam.widgets.plane_layers import plane_geometry

    image = viewer.layers[0]
    layer = Labels(np.zeros((20, 20), np.uint8), **plane_geometry(image, cell))
    for corner in ((0, 0), (5, 9), (11, 3)):
        # the corner of the pixel, not its centre, is common to both
        y, x = (n * cell - 0.5 for n in corner)
        expected = image.data_to_world((0, y, x))[1:]
        found = layer.data_to_world(np.array(corner) - 0.5)
        np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("large", [False, True])
def test_candidates_are_shown_marked_and_gone(
    viewer: ViewerModel,
    choice: Choice,
    monkeypatch: pytest.MonkeyPatch,
    large: bool,
) -> None:
    """A large region is kept in a store, and filled in parts."""
    from napari_sam.widgets import plane_layers

    monkeypatch.setattr(plane_layers, "_PART", 64)
    monkeypatch.setattr(plane_layers, "is_too_large", lambda _shape: large)
    layer = plane_layers.CandidateLayer(viewer)
    assert layer.layer is None
    region = Box(5, 7, 290, 390)
    shown = layer.begin(region, viewer.layers[0])
    assert shown is layer.layer

    def pixels() -> NDArray[np.uint32]:
        return np.asarray(shown.data[0] if shown.multiscale else shown.data)

    width = None if large else 2
    layer.show(layer.draw(choice, choice.objects))
    np.testing.assert_array_equal(pixels(), choice.picture(region, width=width))
    assert pixels().any()
    image = viewer.layers[0]
    np.testing.assert_allclose(
        shown.data_to_world((10, 20)), image.data_to_world((0, 15, 27))[1:], atol=1e-9
    )
    marked = choice.toggle(20, 20)
    assert marked is not None
    layer.update(choice, [marked])
    np.testing.assert_array_equal(pixels(), choice.picture(region, width=width))
    assert (pixels() == 2).any()
    left = choice.select(Thresholds(min_predicted_iou=0.7))
    layer.show(layer.draw(choice, left))
    assert not pixels()[200:].any()  # what no longer counts has gone
    assert pixels().any()
    layer.clear()
    assert layer.layer is None
    # an array's layer waits for the next search, and shows nothing meanwhile
    waiting = viewer.layers[1:]
    assert [each.visible for each in waiting] == ([] if shown.multiscale else [False])
    assert not any(each.data.any() for each in waiting)
    layer.appear()
    assert not any(each.visible for each in waiting)
    again = layer.begin(Box(100, 100, 200, 300), image)
    assert (again is shown) is not large
    layer.appear()
    assert again.visible
    np.testing.assert_allclose(
        again.data_to_world((1, 2)), image.data_to_world((0, 101, 102))[1:], atol=1e-9
    )
    assert not pixels().any() or large
    layer.close()
    assert len(viewer.layers) == 1


def test_embedded_crops_are_shown(viewer: ViewerModel) -> None:
    from napari.utils.colormaps.standardize_color import transform_color

    from napari_sam.widgets.plane_layers import CROP_COLOURS, EmbeddingOverlay

    overlay = EmbeddingOverlay(viewer)
    overlay.mark([0], "embedded")  # nothing is shown, nothing happens
    grid = CropGrid((300, 400), size=256, halo=32, scale=1.0)
    overlay.show(grid, viewer.layers[0])
    assert overlay.layer is not None
    overlay.mark([0], "embedded")
    done = overlay.layer.data > 0
    assert done[0, 0]
    core = grid[0].core
    assert done.sum() == pytest.approx(core.area / 32**2, rel=0.2)
    overlay.mark([1, 2], "failed")
    overlay.mark([2], "empty")
    for crop, name in ((0, "embedded"), (1, "failed"), (2, "empty"), (3, "waiting")):
        core = grid[crop].core
        value = overlay.layer.data[core.y1 // 32 - 1, core.x1 // 32 - 1]
        seen = overlay.layer.colormap.map(value)
        wanted = transform_color(CROP_COLOURS[name])[0]
        np.testing.assert_allclose(seen, wanted, atol=0.01)
    hidden = overlay.layer
    hidden.visible = True
    overlay.clear()
    assert overlay.layer is None
    assert not hidden.visible
    overlay.mark([0], "embedded")  # the crops of before are no longer shown
    smaller = CropGrid((200, 220), size=128, halo=16, scale=1.0)
    viewer.layers[0].translate = (0, 30, 40)
    viewer.add_image(np.zeros((5, 5)), name="above")
    overlay.show(smaller, viewer.layers[0])
    assert overlay.layer is hidden  # to make another one takes napari 0.1 s
    assert viewer.layers[-1] is hidden
    assert hidden.data.shape == (7, 7)
    assert not hidden.data.any()  # all of them wait
    image = viewer.layers[0]
    np.testing.assert_allclose(
        hidden.data_to_world((0, 0)), image.data_to_world((0, 15.5, 15.5))[1:]
    )
    overlay.close()
    assert hidden not in viewer.layers
    assert overlay.layer is None
