"""Windows over labels: every object once and whole, and little read at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal
from skimage.measure import regionprops

from napari_sam.errors import InputError
from napari_sam.images import ImageSource
from napari_sam.writers import objects
from napari_sam.writers.objects import (
    find_objects,
    image_source,
    label_source,
    one_plane,
    windows,
)

blocks = arrays(
    np.uint8,
    array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.integers(0, 4),
)


class Counted:
    """An array that notes the size of what is read."""

    def __init__(self, array: Any) -> None:
        self.array = zarr.array(array, chunks=64)
        self.shape, self.dtype = array.shape, array.dtype
        self.chunks = self.array.chunks
        self.reads: list[int] = []

    def __getitem__(self, index: Any) -> Any:
        found = self.array[index]
        self.reads.append(found.size)
        return found


def check(labels: Any) -> None:
    """Put the windows of labels together again."""
    source = label_source(labels)
    back = np.zeros(labels.shape, np.int64)
    seen: list[int] = []
    for window in windows(source):
        region = back[window.box.slices]
        assert not region[window.numbers > 0].any()
        region += np.append(0, window.ids)[window.numbers]
        seen += window.ids.tolist()
        assert_array_equal(
            np.unique(window.numbers[window.numbers > 0]) - 1,
            np.arange(len(window.ids)),
        )
    assert_array_equal(back, labels)
    assert sorted(seen) == np.unique(labels[labels > 0]).tolist()


@pytest.mark.usefixtures("small_windows")
def test_windows_hold_each_object_once_and_whole(scene: Any) -> None:
    check(scene)


@given(blocks)
def test_windows_hold_everything(labels: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "TILE", 4)
        patch.setattr(objects, "_REGION_PIXELS", 20)
        check(labels)


@pytest.mark.usefixtures("small_windows")
def test_objects_have_the_boxes_areas_and_centroids_of_scikit_image(scene: Any) -> None:
    found = find_objects(label_source(scene))
    order = np.unique(scene[scene > 0])
    assert found.ids.tolist() == order.tolist()
    compact = np.searchsorted(order, scene) + 1
    for i, region in enumerate(regionprops(np.where(scene > 0, compact, 0))):
        assert found.boxes[i].tolist() == list(region.bbox)
        assert found.areas[i] == region.area
        assert found.sums[i] / region.area == pytest.approx(region.centroid)


@pytest.mark.usefixtures("small_windows")
def test_little_is_read_at_a_time(scene: Any) -> None:
    scene[scene == 4] = 0  # the only object as high as the plane
    tall = np.tile(scene, (4, 1))
    ids = np.arange(4).repeat(len(scene))[:, None] * np.uint32(20)
    tall = np.where((tall > 0) & (tall < 99), tall + ids, 0)
    counted = Counted(tall)
    list(windows(label_source(counted)))
    assert max(counted.reads) <= 2 * 128 * 64
    assert sum(counted.reads) < 3 * tall.size


@pytest.mark.parametrize("kind", ["zarr", "dask"])
def test_lazy_stacks_are_read_plane_by_plane(scene: Any, kind: str) -> None:
    from dask.array import from_array

    stack = np.stack([scene, np.zeros_like(scene), scene[::-1]])
    lazy = from_array(stack, chunks=50) if kind == "dask" else zarr.array(stack)
    found = list(windows(label_source(lazy)))
    assert {window.plane for window in found} == {(0, 0), (0, 2)}
    last = [window for window in found if window.plane == (0, 2)]
    back = np.zeros(scene.shape, np.int64)
    for window in last:
        back[window.box.slices] += np.append(0, window.ids)[window.numbers]
    assert_array_equal(back, scene[::-1])


def test_a_pixel_size_of_the_source_can_be_overridden(scene: Any) -> None:
    source = ImageSource(scene, pixel_size_um=(1, 1), z_step_um=3)
    assert label_source(source) is source
    given = label_source(source, (0.5, 0.25))
    assert (given.pixel_size_um, given.z_step_um) == ((0.5, 0.25), 3)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((3, 4)), "float64; labels have one, of integers"),
        (ImageSource(np.zeros((3, 4, 3), np.uint8), "YXS"), "3 channels"),
        (np.zeros(4, int), "the axes YX, ZYX or TZYX"),
    ],
)
def test_refuses_what_are_no_labels(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        label_source(labels)


def test_refuses_negative_ids_stacks_and_other_images(scene: Any) -> None:
    with pytest.raises(InputError, match="object id -3 in labels"):
        list(windows(label_source(np.array([[0, -3]]))))
    stack = label_source(np.stack([scene, scene]))
    with pytest.raises(InputError, match="1 frames and 2 slices, and SVG holds one"):
        one_plane(stack, "SVG")
    with pytest.raises(InputError, match=r"\(1, 1, 150, 219\), labels has"):
        image_source(scene[:, 1:], label_source(scene))
    channels = image_source(np.zeros((*scene.shape, 2)), label_source(scene))
    assert channels.n_channels == 2
