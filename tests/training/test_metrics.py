"""Metrics against definitions spelled out in loops, and against known values."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_sam.errors import InputError
from napari_sam.training.metrics import (
    THRESHOLDS,
    iou,
    mean_segmentation_accuracy,
    overlaps,
)

small_labels = arrays(np.uint32, (5, 6), elements=st.sampled_from([0, 1, 2, 3, 9, 40]))


def iou_by_sets(truth, found):
    """{(truth id, found id): IoU} from sets of pixels."""
    table = {}
    for i in set(truth.ravel()) - {0}:
        for j in set(found.ravel()) - {0}:
            a = set(zip(*np.nonzero(truth == i), strict=True))
            b = set(zip(*np.nonzero(found == j), strict=True))
            if a & b:
                table[int(i), int(j)] = len(a & b) / len(a | b)
    return table


def most_pairs(table, threshold):
    """Largest number of one-to-one pairs, by trying every order."""
    good = {pair for pair, value in table.items() if value >= threshold}
    rows = sorted({i for i, _ in good})
    cols = sorted({j for _, j in good}) + [None] * len(rows)
    best = 0
    for order in set(permutations(cols, len(rows))):
        pairs = [p for p in zip(rows, order, strict=True) if p in good]
        best = max(best, len(pairs))
    return best


@given(small_labels, small_labels)
@settings(max_examples=60, deadline=None)
def test_overlaps_equal_sets_of_pixels(truth, found):
    pairs = overlaps(truth, found)
    ours = {
        (int(pairs.truth_ids[i]), int(pairs.found_ids[j])): value
        for i, j, value in zip(pairs.truth, pairs.found, pairs.iou, strict=True)
    }
    assert ours == pytest.approx(iou_by_sets(truth, found))
    assert list(pairs.truth_ids) == sorted(set(truth.ravel()) - {0})
    assert list(pairs.found_ids) == sorted(set(found.ravel()) - {0})


@given(small_labels, small_labels, st.sampled_from([0.01, 0.2, 0.5, 0.6]))
@settings(max_examples=40, deadline=None)
def test_matching_is_one_to_one_and_as_large_as_possible(truth, found, threshold):
    pairs = overlaps(truth, found)
    chosen = pairs.match(threshold)
    assert len(set(pairs.truth[chosen])) == len(chosen)
    assert len(set(pairs.found[chosen])) == len(chosen)
    assert np.all(pairs.iou[chosen] >= threshold)
    assert len(chosen) == most_pairs(iou_by_sets(truth, found), threshold)


def test_more_pairs_win_over_one_better_pair():
    # 1 and 2 both overlap 5; only 1 overlaps 6. Greedy would pair (1, 5) and stop.
    truth = np.array([[1] * 10 + [2] * 4])
    found = np.array([[6] * 3 + [5] * 9 + [0] * 2])
    pairs = overlaps(truth, found)
    matched = {
        (int(pairs.truth_ids[pairs.truth[k]]), int(pairs.found_ids[pairs.found[k]]))
        for k in pairs.match(0.1)
    }
    assert matched == {(1, 6), (2, 5)}


def test_two_halves_at_exactly_one_half_give_one_match():
    truth = np.array([[1, 1, 1, 1]])
    found = np.array([[1, 1, 2, 2]])
    assert len(overlaps(truth, found).match(0.5)) == 1
    assert overlaps(truth, found).accuracy(0.5) == pytest.approx(1 / 2)


def test_mean_segmentation_accuracy_of_a_known_case():
    # IoU 0.8 for the first object, 1.0 for the second, one false positive
    truth = np.array([[1] * 10 + [2] * 5 + [0] * 5])
    found = np.array([[4] * 8 + [0] * 2 + [9] * 5 + [7] * 5])
    per_threshold = [2 / 3 if t <= 0.8 else 1 / 4 for t in THRESHOLDS]
    assert mean_segmentation_accuracy(truth, found) == pytest.approx(
        np.mean(per_threshold)
    )


@pytest.mark.parametrize(
    ("truth", "found", "expected"), [(0, 0, 1.0), (1, 0, 0.0), (0, 1, 0.0), (1, 1, 1.0)]
)
def test_empty_labels_have_a_defined_accuracy(truth, found, expected):
    plane = np.ones((4, 4), np.int32)
    assert mean_segmentation_accuracy(plane * truth, plane * found) == expected


def test_accuracy_does_not_depend_on_ids_or_dtype():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, (8, 8)).astype(np.uint8)
    found = rng.integers(0, 5, (8, 8)).astype(np.int64)
    renamed = np.array([0, 2**40, 7, 3, 11])[found]
    assert mean_segmentation_accuracy(truth, renamed) == mean_segmentation_accuracy(
        truth, found
    )


def test_iou_of_masks():
    a = np.array([1, 1, 0, 0], bool)
    b = np.array([1, 0, 1, 0], bool)
    assert iou(a, b) == pytest.approx(1 / 3)
    assert iou(a, ~a) == 0
    assert iou(a & ~a, b & ~b) == 1


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"\(2, 2\) and \(2, 3\)"):
        overlaps(np.zeros((2, 2), int), np.zeros((2, 3), int))
    with pytest.raises(InputError, match="equal"):
        iou(np.zeros(2, bool), np.zeros(3, bool))


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(InputError, match="above 0"):
        overlaps(np.ones((2, 2), int), np.ones((2, 2), int)).match(0)
