"""Meetings of votes: one for each known object."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import disk

from napari_sam.engine.votes import find_meetings

MIN_SHARE = 0.3


def votes_of(labels):
    """Perfect votes: centroid and root of the area of every place's object, pixels."""
    votes = np.full((3, *labels.shape), 8.0, np.float32)
    for number in np.unique(labels[labels > 0]):
        inside = labels == number
        y, x = ndimage.center_of_mass(inside)
        votes[0][inside], votes[1][inside] = 4 * x + 1.5, 4 * y + 1.5
        votes[2][inside] = 4 * inside.sum() ** 0.5
    return votes


@pytest.fixture
def labels():
    labels = np.zeros((96, 96), int)
    labels[disk((20, 20), 10)] = 1
    labels[disk((20, 40), 10)] = 2  # touches the first
    labels[disk((70, 30), 25)] = 3
    labels[disk((50, 80), 2.5)] = 4
    labels[93:, 90:] = 5  # cut by the crop
    return labels


def test_one_in_each_object_at_its_centre(labels):
    peaks = find_meetings(labels > 0, votes_of(labels), MIN_SHARE)
    assert sorted(labels[tuple(peaks.T)].tolist()) == [1, 2, 3, 4, 5]
    expected = {1: (20, 20), 2: (20, 40), 3: (70, 30), 4: (50, 80)}
    for peak in peaks:
        number = labels[tuple(peak)]
        if number in expected:
            np.testing.assert_allclose(peak, expected[number], atol=1)
    assert (np.diff(peaks[:, 0]) >= 0).all()


def test_votes_that_are_a_little_off_make_no_more(labels):
    rng = np.random.default_rng(0)
    votes = votes_of(labels)
    votes[:2] += rng.normal(0, 0.08, (2, *labels.shape)) * votes[2]
    votes[2] *= np.exp(rng.normal(0, 0.1, labels.shape))
    peaks = find_meetings(labels > 0, votes, MIN_SHARE)
    assert sorted(labels[tuple(peaks.T)].tolist()) == [1, 2, 3, 4, 5]


def test_it_lies_in_the_object_even_if_its_centre_does_not():
    labels = np.zeros((64, 64), int)
    labels[disk((32, 32), 25)] = 1
    labels[disk((32, 32), 19)] = 0
    labels[:, 40:] = 0
    peaks = find_meetings(labels > 0, votes_of(labels), MIN_SHARE)
    assert len(peaks) == 1
    assert labels[tuple(peaks[0])] == 1


def test_votes_that_do_not_meet_find_nothing(labels):
    rng = np.random.default_rng(0)
    votes = votes_of(labels)
    votes[:2] = rng.uniform(0, 4 * 96, (2, *labels.shape))
    votes[2] = 200.0
    assert len(find_meetings(labels > 0, votes, MIN_SHARE)) == 0
    # A share of a third of the places is enough, a quarter is not.
    votes = votes_of(labels)
    inside = np.argwhere(labels == 3)
    for share, expected in ((0.36, 1), (0.25, 0)):
        kept = np.zeros(labels.shape, bool)
        kept[tuple(inside[: int(share * len(inside))].T)] = True
        assert len(find_meetings(kept, votes, MIN_SHARE)) == expected


def test_no_foreground_has_none():
    nothing = np.zeros((8, 8), bool)
    assert find_meetings(nothing, np.zeros((3, 8, 8), np.float32), 0.3).shape == (0, 2)
