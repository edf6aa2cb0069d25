"""Tracks of movies whose objects are known."""

import numpy as np
import pytest
from skimage.draw import disk

from napari_sam.errors import InputError
from napari_sam.link import Track, TrackConfig, link_frames

SHAPE = (120, 120)


def movie(*frames):
    """Frames of discs (id, y, x, radius)."""
    out = np.zeros((len(frames), *SHAPE), np.uint32)
    for plane, discs in zip(out, frames, strict=True):
        for number, y, x, radius in discs:
            plane[disk((y, x), radius, shape=SHAPE)] = number
    return out


def shuffled(labels):
    rng = np.random.default_rng(1)
    planes = []
    for plane in labels:
        new = 1 + rng.permutation(int(labels.max()) + 1).astype(np.uint32)
        new[0] = 0
        planes.append(new[plane])
    return np.stack(planes)


def assert_tracks(truth, parents=None, **config):
    """Every object keeps its id, and only that."""
    found, tracks = link_frames(shuffled(truth), TrackConfig(**config))
    pairs = np.unique(np.stack([truth[truth > 0], found[truth > 0]]), axis=1)
    to_found = dict(pairs.T.tolist())
    assert pairs.shape[1] == len(to_found) == len(set(to_found.values())) == len(tracks)
    by_id = {track.track_id: track for track in tracks}
    for number, its in to_found.items():
        frames = np.flatnonzero((truth == number).any((1, 2)))
        parent = to_found.get((parents or {}).get(number), 0)
        assert by_id[its] == Track(its, int(frames[0]), int(frames[-1]), parent)


def test_objects_that_move_without_overlap():
    frames = [
        [(1, 10 + 12 * t, 20, 5), (2, 100 - 12 * t, 60, 5), (3, 60, 100, 8)]
        for t in range(7)
    ]
    assert_tracks(movie(*frames))


def test_paths_that_cross():
    frames = [
        [(1, 20 + 9 * t, 20 + 9 * t, 4), (2, 20 + 9 * t, 105 - 9 * t, 4)]
        for t in range(10)
    ]
    assert_tracks(movie(*frames))


def test_a_stage_that_jumps():
    rng = np.random.default_rng(0)
    places = [(y, x) for y in range(20, 100, 18) for x in range(20, 100, 18)]
    places = [(y + rng.integers(-4, 5), x + rng.integers(-4, 5)) for y, x in places]
    jump = np.cumsum([(0, 0), (1, 0), (11, 8), (0, 1), (-9, -6)], axis=0)
    frames = [
        [(i, y + dy, x + dx, 5) for i, (y, x) in enumerate(places, start=1)]
        for dy, dx in jump
    ]
    assert_tracks(movie(*frames))


def test_the_common_motion_is_that_of_some_objects(monkeypatch):
    monkeypatch.setattr("napari_sam.link.tracks._DRIFT_SAMPLE", 5)
    test_a_stage_that_jumps()


def test_a_division_ends_the_mother():
    frames = [
        [(1, 60, 60, 10), (4, 20, 20, 8)],
        [(1, 60, 62, 10), (4, 20, 21, 8)],
        [(2, 52, 62, 7), (3, 70, 62, 7), (4, 21, 22, 8)],
        [(2, 47, 62, 7), (3, 76, 62, 7), (4, 22, 22, 8)],
    ]
    assert_tracks(movie(*frames), parents={2: 1, 3: 1})


def test_a_newcomer_beside_an_object_is_no_daughter():
    frames = [
        [(1, 60, 60, 10)],
        [(1, 60, 60, 10), (2, 60, 80, 9)],
        [(1, 60, 60, 10), (2, 60, 78, 9)],
    ]
    assert_tracks(movie(*frames))


def test_divisions_can_be_left_out():
    frames = [[(1, 60, 60, 10)], [(1, 52, 60, 7), (2, 71, 60, 7)]]
    _, tracks = link_frames(movie(*frames), TrackConfig(divisions=False))
    assert {track.parent for track in tracks} == {0}
    assert len(tracks) == 2


def test_a_missing_frame_is_bridged():
    frames = [
        [(1, 30 + 3 * t, 30, 6)] * (t != 3) + [(2, 80, 80 - 3 * t, 6)] for t in range(7)
    ]
    truth = movie(*frames)
    assert_tracks(truth)
    _, tracks = link_frames(shuffled(truth), TrackConfig(max_gap=0))
    assert len(tracks) == 3


def test_objects_come_and_go():
    frames = [[(1, 30, 30, 6)] * (t < 4) + [(2, 90, 90, 6)] * (t > 2) for t in range(7)]
    assert_tracks(movie(*frames))


def test_empty_frames():
    found, tracks = link_frames(np.zeros((3, 8, 8), np.uint8))
    assert not found.any()
    assert tracks == []


def test_volumes_are_tracked_with_their_spacing():
    labels = np.zeros((3, 6, 40, 40), np.uint32)
    for t in range(3):
        labels[t, :3, 5 + t : 15 + t, 5:15] = 4 + t
        labels[t, 3:, 5 + t : 15 + t, 5:15] = 9 - t
        labels[t, :, 25:35, 25:35] = 20 + t
    found, tracks = link_frames(labels, TrackConfig(spacing=(4, 1, 1)))
    assert tracks == [Track(1, 0, 2), Track(2, 0, 2), Track(3, 0, 2)]
    for t in range(3):
        assert (found[t, :3, 5 + t : 15 + t, 5:15] == 1).all()
        assert (found[t, 3:, 5 + t : 15 + t, 5:15] == 2).all()


def test_input_is_checked():
    with pytest.raises(InputError, match="T, H, W"):
        link_frames(np.zeros((4, 4), int))
    with pytest.raises(InputError, match="max_distance"):
        TrackConfig(max_distance=0)
    with pytest.raises(InputError, match="spacing"):
        TrackConfig(spacing=(0, 1, 1))


def test_a_bud_that_its_mother_takes_along_stays_itself():
    """Yeast: a mother turns, and her bud moves by half its own width in one frame."""
    cells = [  # (y, x, radius): a still one, the mother, the bud
        [(53, 56, 14), (65, 29, 13), (53, 40, 5)],
        [(53, 56, 14), (64, 28, 13), (51, 39, 5.5)],
        [(54, 57, 14), (63, 28, 13), (48, 40, 6.5)],
        [(55, 58, 14), (57, 32, 13), (42, 45, 6.5)],
        [(55, 57, 14), (60, 32, 13), (43, 44, 7.5)],
    ]
    y, x = np.mgrid[:100, :100]
    frames = np.zeros((len(cells), 100, 100), np.uint32)
    for t, frame in enumerate(cells):
        for number, (row, column, radius) in enumerate(frame, start=1):
            # other ids in each frame, so that they tell nothing
            frames[t][np.hypot(y - row, x - column) < radius] = 1 + (number + t) % 3
    found, tracks = link_frames(frames)
    assert [(each.first, each.last, each.parent) for each in tracks] == [(0, 4, 0)] * 3
    for number in range(3):
        places = [
            found[t, int(c[number][0]), int(c[number][1])] for t, c in enumerate(cells)
        ]
        assert len(set(places)) == 1
