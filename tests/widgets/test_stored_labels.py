"""A multiscale Labels layer that follows its store."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sam.engine import label_store
from napari_sam.engine.label_store import LabelStore
from napari_sam.labels import LabelEdit
from napari_sam.tiling import Box

pytestmark = pytest.mark.display

PLANE = (None, None)


def test_edits_are_seen_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari.components import ViewerModel

    from napari_sam.widgets.stored_labels import StoreTarget, store_layer

    monkeypatch.setattr(label_store, "_SMALLEST_LEVEL", 64)
    viewer = ViewerModel()
    layer = store_layer(LabelStore.create((256, 256)), name="cells", scale=(0.5, 0.5))
    viewer.add_layer(layer)
    assert layer.multiscale
    assert layer.data.shapes == ((256, 256), (128, 128), (64, 64))
    target = StoreTarget(layer)
    box = Box(40, 40, 80, 80)
    after = np.full(box.shape, 7, np.uint32)
    edit = LabelEdit(PLANE, box, target.read(PLANE, box), after)
    refreshed = []
    layer.events.set_data.connect(lambda: refreshed.append(True))
    target.write([edit])
    assert refreshed
    assert layer.get_value((60 * 0.5, 60 * 0.5), world=True)[1] == 7
    assert layer.get_value((90 * 0.5, 60 * 0.5), world=True)[1] == 0
    assert target.box_of(PLANE, 7) == box
    assert target.boxes(PLANE) == {7: box}
    assert target.fresh_ids(2) == [8, 9]
    target.undo([edit])
    assert layer.get_value((60 * 0.5, 60 * 0.5), world=True)[1] == 0
    target.redo([edit])
    assert layer.get_value((60 * 0.5, 60 * 0.5), world=True)[1] == 7


def test_only_large_planes_need_a_store() -> None:
    from napari_sam.widgets.stored_labels import is_too_large

    assert is_too_large((20_000, 20_000))
    assert is_too_large((3, 9000, 9000))
    assert not is_too_large((500, 2048, 2048))


def test_no_object_has_the_colour_of_the_preview() -> None:
    from napari.layers import Labels

    from napari_sam.widgets.stored_labels import new_labels

    usual = Labels(np.zeros((8, 8), np.uint32))
    preview = np.array([0x56, 0xB4, 0xE9]) / 255
    for shape in ((8, 8), (9000, 9000)):
        layer = new_labels(shape)
        assert layer.get_color(0) is None or not np.any(layer.get_color(0))
        ids = range(1, 99)
        colours = np.array([layer.get_color(n)[:3] for n in ids])
        others = np.array([usual.get_color(n)[:3] for n in ids])
        assert np.linalg.norm(others - preview, axis=1).min() < 0.1
        assert np.linalg.norm(colours - preview, axis=1).min() > 0.25
        same = (colours == others).all(axis=1)
        assert same.sum() >= 94  # the others are those of napari
