"""Operations on objects, against shapes whose outcome is known."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import disk

from napari_sam.errors import InputError
from napari_sam.labels import (
    covered,
    filled,
    line_pixels,
    merged,
    painted,
    smoothed,
    split_at_points,
    split_by_line,
    without,
    without_islands,
)


@pytest.fixture
def dumbbell() -> np.ndarray:
    """Two discs of radius 10 that touch, as object 4; a neighbour, 2."""
    labels = np.zeros((40, 60), np.uint32)
    for x in (18, 36):
        labels[disk((20, x), 10)] = 4
    labels[:5] = 2
    return labels


def test_painted_protects_or_overwrites() -> None:
    labels = np.array([[1, 1, 0, 3]], np.uint32)
    mask = np.array([[False, True, True, True]])
    assert painted(labels, mask, 1, overwrite=False).tolist() == [[0, 1, 1, 3]]
    assert painted(labels, mask, 1, overwrite=True).tolist() == [[0, 1, 1, 1]]
    assert covered(labels, mask) == {1: 1, 3: 1}
    assert covered(labels, mask, 1) == {3: 1}


def test_merged_and_without() -> None:
    labels = np.array([[1, 2, 0, 3]], np.uint32)
    assert merged(labels, [1, 3], 1).tolist() == [[1, 2, 0, 1]]
    assert without(labels, [1, 2]).tolist() == [[0, 0, 0, 3]]


@pytest.mark.parametrize(
    "points",
    [[[20, 14], [21, 40]], [[12, 18], [20, 36]], [[20, 18], [20, 44]]],
)
def test_points_split_at_the_neck(
    dumbbell: np.ndarray, points: list[list[int]]
) -> None:
    # wherever in their part they lie
    parts = split_at_points(dumbbell, 4, points, [9])
    np.testing.assert_array_equal(parts > 0, dumbbell > 0)
    left, right = parts[20] == 4, parts[20] == 9
    assert abs(np.flatnonzero(left).max() - 27) <= 1
    assert abs(np.flatnonzero(right).min() - 28) <= 1
    np.testing.assert_array_equal(parts[:5], 2)


def test_points_split_a_body_without_a_neck_between_them() -> None:
    rows, columns = np.ogrid[:30, :60]
    labels = np.where((rows - 15) ** 2 * 4 + (columns - 30) ** 2 < 25**2, 4, 0)
    # one deep, one at the border, where a watershed begins late
    parts = split_at_points(labels.astype(np.uint32), 4, [[15, 26], [13, 50]], [9])
    np.testing.assert_array_equal(parts > 0, labels > 0)
    at = np.argwhere(labels == 4)
    first, second = (((at - each) ** 2).sum(axis=1) for each in ([15, 26], [13, 50]))
    found = parts[labels == 4]
    assert (found[first < second] == 4).all()
    assert (found[first > second] == 9).all()


def test_a_lobe_without_a_point_goes_to_its_neighbour() -> None:
    labels = np.zeros((40, 80), np.uint32)
    for x in (18, 36, 54):
        labels[disk((20, x), 10)] = 4
    parts = split_at_points(labels, 4, [[20, 18], [15, 32]], [9])
    np.testing.assert_array_equal(parts > 0, labels > 0)
    assert set(parts[:, 30:].ravel()) == {0, 9}
    assert abs(np.flatnonzero(parts[20] == 4).max() - 27) <= 1


@pytest.mark.parametrize(
    "points",
    [
        [[20, 18]],
        [[20, 18], [2, 2]],
        [[-5, 0], [99, 9]],
        [[20, 18], [20.2, 17.9]],  # the pixel of the first
    ],
)
def test_points_beside_the_object_cannot_split_it(
    dumbbell: np.ndarray, points: list[list[int]]
) -> None:
    with pytest.raises(InputError, match="one positive point into each part"):
        split_at_points(dumbbell, 4, points, [9])


@pytest.mark.parametrize(
    "line", [[[5, 27], [38, 27]], [[8, 20], [33, 34]], [[6, 26.6], [20, 29], [36, 24]]]
)
def test_a_line_cuts_and_loses_no_pixel(
    dumbbell: np.ndarray, line: list[list[float]]
) -> None:
    parts = split_by_line(dumbbell, 4, line, [9, 10, 11])
    np.testing.assert_array_equal(parts > 0, dumbbell > 0)
    assert set(np.unique(parts)) == {0, 2, 4, 9}
    for each in (4, 9):
        assert ndimage.label(parts == each)[1] == 1
    assert (parts == 4).sum() >= (parts == 9).sum() - 2 * len(np.argwhere(parts == 2))


def test_a_line_that_ends_inside_cuts_nothing(dumbbell: np.ndarray) -> None:
    with pytest.raises(InputError, match="does not cut object 4"):
        split_by_line(dumbbell, 4, [[5, 27], [20, 15]], [9])


def test_line_pixels_have_no_diagonal_gap() -> None:
    found = line_pixels([[0, 0], [9, 7]], (10, 8))
    # 4-connected complement is parted exactly if the line has no gap
    assert ndimage.label(~found)[1] == 2
    assert ndimage.label(found)[1] == 1


def test_smoothing_takes_spikes_and_leaves_the_neighbour(dumbbell: np.ndarray) -> None:
    dumbbell[20, 46:58] = 4
    smooth = smoothed(dumbbell, 4)
    assert not (smooth[20, 50:] == 4).any()
    before, after = (dumbbell == 4).sum() - 12, (smooth == 4).sum()
    assert abs(int(after) - int(before)) < 0.05 * before
    np.testing.assert_array_equal(smooth[:5], 2)


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_smoothing_leaves_a_small_object_its_size(side: int) -> None:
    labels = np.zeros((24, 24), np.uint32)
    labels[9 : 9 + side, 9 : 9 + side] = 5
    smooth = smoothed(labels, 5)
    rows, columns = np.nonzero(smooth == 5)
    assert side**2 <= len(rows) <= side**2 + 4
    assert rows.mean() == columns.mean() == 9 + (side - 1) / 2


def test_holes_are_filled_and_other_objects_in_them_stay() -> None:
    labels = np.zeros((9, 9), np.uint32)
    labels[1:8, 1:8] = 3
    labels[3:6, 3:6] = 0
    labels[4, 4] = 7
    result = filled(labels, 3)
    assert (result[1:8, 1:8] > 0).all()
    assert result[4, 4] == 7
    assert (result == 3).sum() == 48


def test_only_the_largest_part_stays() -> None:
    labels = np.zeros((6, 9), np.uint32)
    labels[1:4, 1:4] = 5
    labels[4, 4] = 5  # touches at a corner
    labels[1, 8] = 5
    result = without_islands(labels, 5)
    assert (result == 5).sum() == 10
    assert result[1, 8] == 0
