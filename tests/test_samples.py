"""Sample images: the mosaic against the array that it stands for, the drawn ones."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from napari_sam.errors import InputError
from napari_sam.samples import Mosaic, histology, mosaic, time_lapse, volume


@pytest.mark.parametrize(
    "key",
    [
        ...,
        3,
        (slice(2, 13), slice(5, 20)),
        (slice(None, None, 3), 4),
        (-1, slice(4, 9), 2),
        (..., 0),
        (slice(1, 2), ..., slice(0, 2)),
        (4, 5, 1),
    ],
)
def test_a_mosaic_reads_like_the_array_it_stands_for(key: object) -> None:
    tile = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    expected = np.pad(tile, ((0, 10), (0, 14), (0, 0)), mode="symmetric")
    lazy = Mosaic(tile, 3)
    assert lazy.shape == expected.shape
    assert (lazy.ndim, lazy.size) == (expected.ndim, expected.size)
    np.testing.assert_array_equal(lazy[key], expected[key])
    np.testing.assert_array_equal(np.asarray(lazy), expected)


def test_a_mosaic_of_no_copies_is_refused() -> None:
    with pytest.raises(InputError, match="use 1 or more"):
        Mosaic(histology(), 0)


def test_the_levels_of_the_mosaic_show_the_same_at_half_the_size() -> None:
    levels = mosaic()
    assert levels[0].shape == (20480, 20480, 3)
    assert [level.shape[0] for level in levels] == [20480 >> k for k in range(6)]
    full = levels[0][4096:4608, 2048:2560].astype(float)
    means = full.reshape(256, 2, 256, 2, 3).mean(axis=(1, 3))
    half = levels[1][2048:2304, 1024:1280]
    np.testing.assert_allclose(half, means, atol=0.51)


def test_volume_and_time_lapse_are_the_same_each_time() -> None:
    for draw in (volume, time_lapse):
        first, second = draw(), draw()
        np.testing.assert_array_equal(first.image, second.image)
        np.testing.assert_array_equal(first.labels, second.labels)


def test_objects_of_the_volume_are_brighter_than_the_background_and_apart() -> None:
    drawn = volume()
    assert drawn.labels.max() >= 30
    core = ndimage.binary_erosion(drawn.labels > 0, iterations=3)
    assert drawn.image[core].min() > drawn.image[drawn.labels == 0].mean() + 10
    # each nucleus is one piece: nothing was drawn over it
    for number, box in enumerate(ndimage.find_objects(drawn.labels), 1):
        if box is not None:
            assert ndimage.label(drawn.labels[box] == number)[1] == 1


def test_cells_of_the_time_lapse_keep_their_id_and_drift() -> None:
    drawn = time_lapse()
    ids = np.unique(drawn.labels[drawn.labels > 0])
    assert len(ids) >= 15
    for frame, following in zip(drawn.labels, drawn.labels[1:], strict=False):
        before = np.array(ndimage.center_of_mass(frame > 0, frame, ids))
        after = np.array(ndimage.center_of_mass(following > 0, following, ids))
        moved = np.linalg.norm(after - before, axis=1)
        assert np.nanmax(moved) < 4
        assert np.nanmean(moved) > 0.1
