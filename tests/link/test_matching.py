"""The best choice of pairs, against a dense solver."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from napari_sam.link.matching import best_pairs, chains, evidence
from napari_sam.link.shapes import shape_between


@pytest.mark.parametrize("seed", range(40))
def test_pairs_are_the_best_there_are(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    keys = np.unique(rng.integers(0, 64, n))
    first, second = np.divmod(keys, 8)
    weight = rng.random(len(keys)) if seed % 2 else rng.integers(1, 4, len(keys)) * 1.0
    dense = np.zeros((8, 8))
    dense[first, second] = weight
    expected = dense[linear_sum_assignment(dense, maximize=True)].sum()
    chosen = best_pairs(first, second, weight)
    assert weight[chosen].sum() == pytest.approx(expected)
    assert len(set(first[chosen])) == len(set(second[chosen])) == len(chosen)


def test_no_pairs():
    none = np.zeros(0, np.int64)
    assert best_pairs(none, none, np.zeros(0)).size == 0
    assert chains(3, none, none).tolist() == [0, 1, 2]


def test_chains_follow_their_links():
    assert chains(6, np.array([0, 1, 3]), np.array([2, 3, 5])).tolist() == [
        0, 1, 0, 1, 2, 1,
    ]  # fmt: skip


def test_evidence_of_independent_scores_adds_up():
    a, b = 0.3, 0.8
    both = 1 - (1 - a) * (1 - b)
    assert evidence(np.array([a, b])).sum() == pytest.approx(
        evidence(np.array([both]))[0]
    )


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_disc_that_moves_and_grows_stays_a_disc(share):
    y, x = np.mgrid[:60, :60]
    first = (y - 20) ** 2 + (x - 20) ** 2 <= 8**2
    second = (y - 36) ** 2 + (x - 28) ** 2 <= 12**2
    expected = (y - 20 - 16 * share) ** 2 + (x - 20 - 8 * share) ** 2 <= (
        8 + 4 * share
    ) ** 2
    found = shape_between(first, second, share)
    iou = np.count_nonzero(found & expected) / np.count_nonzero(found | expected)
    assert iou == 1 if share in (0.0, 1.0) else iou > 0.93
