"""Three results of one volume: what two of them say, and where they disagree."""

import numpy as np
import pytest
import zarr

from napari_sam.errors import InputError
from napari_sam.link.fuse import fuse_views


@pytest.fixture
def spheres():
    """Two that touch, and one apart: (20, 24, 40)."""
    z, y, x = np.mgrid[:20, :24, :40]
    labels = np.zeros((20, 24, 40), np.uint32)
    for number, (cz, cy, cx) in enumerate(((9, 8, 8), (9, 8, 18), (10, 15, 32)), 1):
        ball = (z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2 <= 30
        labels[ball & (labels == 0)] = number
    return labels


def renumbered(labels, seed):
    new = np.random.default_rng(seed).permutation(np.arange(1, 50))[: labels.max()]
    return np.concatenate([[0], new]).astype(np.uint32)[labels]


def same(found, truth):
    """Whether two labellings differ in ids only."""
    pairs = np.unique(np.stack([found.ravel(), truth.ravel()]), axis=1)
    n = len(np.unique(truth))
    return pairs.shape[1] == n and len(np.unique(found)) == n


def test_three_equal_results(spheres):
    fused = fuse_views([renumbered(spheres, seed) for seed in range(3)])
    assert fused.n_objects == 3
    assert same(fused.labels(), spheres)
    assert not fused.uncertainty().any()


def test_two_outvote_a_merger(spheres):
    merged = spheres.copy()
    merged[merged == 2] = 1
    fused = fuse_views([merged, spheres, renumbered(spheres, 1)])
    assert same(fused.labels(), spheres)
    # the merged one goes with one of the two, so against the other there is a vote
    expected = np.zeros(spheres.shape)
    lost = fused.labels()[9, 8, 18] if (spheres == 2).sum() else 0
    larger = 1 if (spheres == 1).sum() >= (spheres == 2).sum() else 2
    expected[spheres == 3 - larger] = 1 / 3
    np.testing.assert_allclose(fused.uncertainty(), expected, atol=1e-6)
    assert lost > 0


def test_an_object_that_one_has_missed_stays_and_is_uncertain(spheres):
    missing = np.where(spheres == 3, 0, spheres)
    fused = fuse_views([spheres, missing, spheres])
    assert same(fused.labels(), spheres)
    np.testing.assert_allclose(fused.uncertainty(), (spheres == 3) / 3, atol=1e-6)


def test_an_object_that_only_one_has_seen_goes_and_is_uncertain(spheres):
    missing = np.where(spheres == 3, 0, spheres)
    fused = fuse_views([missing, missing, spheres])
    assert same(fused.labels(), missing)
    np.testing.assert_allclose(fused.uncertainty(), (spheres == 3) / 3, atol=1e-6)


def test_three_different_votes_are_background(spheres):
    other = np.zeros_like(spheres)
    other[:, :, 20:] = 9  # like none of the spheres
    nothing = np.zeros_like(spheres)
    fused = fuse_views([spheres, other, nothing])
    assert fused.n_objects == 0
    assert not fused.labels().any()
    expected = np.where((spheres > 0) & (other > 0), 2, (spheres > 0) | (other > 0)) / 3
    np.testing.assert_allclose(fused.uncertainty(), expected, atol=1e-6)


def test_the_order_does_not_matter_and_volumes_may_lie_on_disk(spheres):
    parts = np.where(np.arange(20)[:, None, None] < 10, spheres, spheres + 3)
    parts[spheres == 0] = 0
    merged = np.where(spheres == 2, 1, spheres)
    first = fuse_views([spheres, parts, merged])
    last = fuse_views([zarr.array(each) for each in (merged, spheres, parts)])
    assert same(first.labels(), last.labels())
    np.testing.assert_array_equal(first.uncertainty(), last.uncertainty())


def test_bad_input(spheres):
    with pytest.raises(InputError, match="give three"):
        fuse_views([spheres, spheres])
    with pytest.raises(InputError, match="one shape"):
        fuse_views([spheres, spheres, spheres[1:]])
