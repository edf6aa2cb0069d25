"""Labels in zarr: every level as an array would have it, whatever is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_sam.engine import label_store
from napari_sam.engine.label_store import LabelStore, write_chunks
from napari_sam.errors import FormatError, InputError
from napari_sam.labels import ArrayLabels, LabelEdit
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

PLANE = (None, None)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(label_store, "_CHUNK", 8)
    monkeypatch.setattr(label_store, "_SMALLEST_LEVEL", 10)
    monkeypatch.setattr(label_store, "_SCAN", 16)


def assert_same(store, expected):
    """Each level is the one before without every second row and column."""
    for level, shown in zip(store.levels, store.shown_levels, strict=True):
        np.testing.assert_array_equal(level[...], expected)
        np.testing.assert_array_equal(shown[...], expected)
        expected = expected[..., ::2, ::2]


spans = st.tuples(st.integers(0, 36), st.integers(0, 36)).map(sorted)


@settings(max_examples=30)
@given(boxes=st.lists(st.tuples(spans, spans), max_size=4))
def test_all_levels_follow_any_writes(boxes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(label_store, "_CHUNK", 8)
        patch.setattr(label_store, "_SMALLEST_LEVEL", 10)
        store = LabelStore.create((37, 36))
        array = np.zeros((37, 36), np.uint32)
        rng = np.random.default_rng(0)
        for (y0, y1), (x0, x1) in boxes:
            values = rng.integers(0, 9, (y1 - y0, x1 - x0))
            store[y0:y1, x0:x1] = values
            array[y0:y1, x0:x1] = values
        assert len(store.levels) == 3
        assert_same(store, array)


def test_stacks_change_in_one_plane(tmp_path):
    store = LabelStore.create((3, 20, 30), tmp_path / "labels.zarr")
    store[1, 3:9, 5:20] = 4
    expected = np.zeros((3, 20, 30), np.uint32)
    expected[1, 3:9, 5:20] = 4
    assert_same(store, expected)
    assert store.box_of((1, None, None), 4) == Box(3, 5, 9, 20)
    assert store.box_of((0, None, None), 4) is None


def test_edits_are_those_of_an_array_and_come_back():
    rng = np.random.default_rng(1)
    store = LabelStore.create((40, 50))
    array = ArrayLabels(np.zeros((40, 50), np.uint32))
    edits = []
    for object_id in range(1, 8):
        y0, x0 = rng.integers(0, (30, 40)).tolist()
        box = Box(y0, x0, y0 + 10, x0 + 9)
        before = store.read(PLANE, box)
        after = np.where(rng.random(box.shape) < 0.5, object_id, before)
        edits.append(LabelEdit(PLANE, box, before, after.astype(np.uint32)))
        for target in (store, array):
            assert target.fresh_ids(2) == [object_id, object_id + 1]
            put = target.draw if object_id == 4 else target.write
            put(edits[-1:])
        np.testing.assert_array_equal(store[...], array.array)
        for each in range(1, 8):
            assert store.box_of(PLANE, each) == array.box_of(PLANE, each)
    whole = array.array.copy()
    store.undo(edits)
    assert_same(store, np.zeros((40, 50), np.uint32))
    assert store.box_of(PLANE, 3) is None
    assert store.fresh_ids(1) == [8]  # no id is used twice
    store.redo(edits)
    assert_same(store, whole)
    assert store.box_of(PLANE, 7) == array.box_of(PLANE, 7)


def test_a_write_touches_the_chunks_of_its_box_only(tmp_path):
    store = LabelStore.create((64, 64), tmp_path / "labels.zarr")
    store[9:15, 17:23] = 1
    written = {
        path.relative_to(tmp_path / "labels.zarr").as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.name != "zarr.json"
    }
    # no row of the box is on the last level
    assert written == {"0/c/1/2", "1/c/0/1", "2/c/0/0"}


def test_opened_again_it_knows_its_objects(tmp_path):
    path = tmp_path / "labels.zarr"
    store = LabelStore.create((40, 50), path)
    store[3:30, 4:40] = 9  # over several blocks of the search
    opened = LabelStore.open(path)
    assert opened.fresh_ids(1) == [10]
    assert opened.boxes(PLANE) == {9: Box(3, 4, 30, 40)}
    assert opened.box_of(PLANE, 9) == Box(3, 4, 30, 40)
    assert_same(opened, store[...])


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(FormatError, match="no label store"):
        LabelStore.open(tmp_path / "missing.zarr")
    group = zarr.create_group(tmp_path / "other.zarr")
    group.create_array("0", data=np.zeros((4, 4), np.uint8))
    with pytest.raises(FormatError, match="no label store"):
        LabelStore.open(tmp_path / "other.zarr")


@pytest.mark.parametrize("key", [3, (3, slice(None)), (slice(0, 9, 2), slice(None))])
def test_an_index_that_is_no_box_is_refused(key):
    with pytest.raises(InputError, match="slice"):
        LabelStore.create((20, 20))[key] = 1


def test_labels_without_a_plane_are_refused():
    with pytest.raises(InputError, match="height, width"):
        LabelStore.create((20,))


def test_a_store_in_memory_is_copied_written_and_loaded_as_it_was(
    tmp_path: Path,
) -> None:
    store = LabelStore.create((130, 60))
    store[20:30, 2:6] = 5  # in two chunks
    chunks = store.copied_chunks()
    store[100:110, 30:40] = 9  # after the copy: not in it
    write_chunks(chunks, tmp_path / "labels.zarr")
    loaded = LabelStore.load(tmp_path / "labels.zarr")
    expected = np.zeros((130, 60), np.uint32)
    expected[20:30, 2:6] = 5
    np.testing.assert_array_equal(loaded[:, :], expected)
    np.testing.assert_array_equal(loaded.levels[1][...], expected[::2, ::2])
    assert loaded.box_of((None, None), 5) == Box(20, 2, 30, 6)
    assert loaded.fresh_ids(1) == [6]
    loaded[0:5, 0:5] = 7  # it is in memory: the file stays
    assert LabelStore.load(tmp_path / "labels.zarr").fresh_ids(1) == [6]


def test_a_store_on_disk_is_not_copied_and_another_folder_not_loaded(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match="on disk already"):
        LabelStore.create((20, 20), tmp_path / "labels.zarr").copied_chunks()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="holds no label store"):
        LabelStore.load(tmp_path / "empty")


@pytest.mark.parametrize("ids", [[3, 4, 9], [1, 2**32 - 1], [7], [5, 4_000_000_000, 6]])
@pytest.mark.parametrize("background", [True, False])
def test_it_knows_where_objects_lie_whatever_their_ids(ids, background):
    store = LabelStore.create((40, 50))
    rng = np.random.default_rng(1)
    pixels = rng.choice([*ids, *([0] if background else [])], (20, 30)).astype("u4")
    pixels[:, 7] = ids[0]  # a few columns that only one object has
    store[5:25, 10:40] = pixels
    expected = {
        number: Box.around(np.asarray(store[0:40, 0:50]) == number)
        for number in np.unique(pixels[pixels > 0]).tolist()
    }
    assert store.boxes(PLANE) == expected
    assert store.fresh_ids(1) == [max(expected) + 1]
