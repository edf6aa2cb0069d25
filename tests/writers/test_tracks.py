"""Tracks as files, read and scored by the challenge's public metrics."""

import csv

import numpy as np
import pytest
import tifffile
from ctc_metrics.scripts.evaluate import evaluate_sequence
from ctc_metrics.scripts.validate import validate_sequence

from napari_sam.errors import FileError, InputError
from napari_sam.link import Track, TrackLinker
from napari_sam.writers.tracks import napari_tracks, save_ctc, save_tracks

TRACKS = [Track(1, 0, 1), Track(2, 2, 3, 1), Track(3, 2, 3, 1), Track(4, 0, 3)]


@pytest.fixture
def movie():
    """One object that divides, and one that stays."""
    labels = np.zeros((4, 40, 40), np.uint32)
    labels[:2, 10:20, 10:20] = 1
    labels[2:, 8:14, 10:20] = 2
    labels[2:, 17:23, 10:20] = 3
    labels[:, 30:36, 30:36] = 4
    return labels


def ground_truth(folder, movie):
    """Write what `evaluate_sequence` takes as truth."""
    for kind, name in (("TRA", "man_track"), ("SEG", "man_seg")):
        (folder / kind).mkdir(parents=True)
        for t, frame in enumerate(movie):
            tifffile.imwrite(folder / kind / f"{name}{t:03d}.tif", frame.astype("u2"))
    lines = [f"{t.track_id} {t.first} {t.last} {t.parent}\n" for t in TRACKS]
    (folder / "TRA" / "man_track.txt").write_text("".join(lines))
    return folder


def test_the_public_reader_accepts_and_scores_it(movie, tmp_path):
    result = save_ctc(iter(movie), TRACKS, tmp_path / "01_RES")
    truth = ground_truth(tmp_path / "01_GT", movie)
    assert validate_sequence(str(result), threads=1)["Valid"] == 1
    metrics = ["Valid", "DET", "SEG", "TRA", "BC", "CT", "TF"]
    scores = evaluate_sequence(str(result), str(truth), metrics, threads=1)
    for name in ("DET", "SEG", "TRA", "CT", "TF"):
        assert scores[name] == pytest.approx(1), name
    wrong = [*TRACKS[:2], Track(3, 2, 3), TRACKS[3]]
    save_ctc(movie, wrong, tmp_path / "02_RES")
    worse = evaluate_sequence(
        str(tmp_path / "02_RES"), str(truth), ["Valid", "TRA"], threads=1
    )
    assert worse["TRA"] < 1


def test_a_track_with_a_gap_is_written_as_two(movie, tmp_path):
    """A track of the format has a mask in every frame from its first to its last."""
    movie = np.concatenate([movie[:1], movie])
    movie[1][movie[1] == 1] = 0
    movie[3][movie[3] == 4] = 0
    tracks = [Track(1, 0, 2), Track(2, 3, 4, 1), Track(3, 3, 4, 1), Track(4, 0, 4)]
    result = save_ctc(movie, tracks, tmp_path / "01_RES")
    assert validate_sequence(str(result), threads=1)["Valid"] == 1
    lines = (result / "res_track.txt").read_text().splitlines()
    # 5 goes on with 1, and is the mother of 2 and 3; 6 goes on with 4
    expected = ["1 0 0 0", "2 3 4 5", "3 3 4 5", "4 0 2 0", "5 2 2 1", "6 4 4 4"]
    assert lines == expected
    mask = tifffile.imread(result / "mask002.tif")
    np.testing.assert_array_equal(mask == 5, movie[2] == 1)
    assert not (mask == 1).any()


def test_masks_are_16_bit_and_volumes_are_stacks(movie, tmp_path):
    save_ctc(movie, TRACKS, tmp_path / "a")
    mask = tifffile.imread(tmp_path / "a" / "mask002.tif")
    assert mask.dtype == np.uint16
    np.testing.assert_array_equal(mask, movie[2])
    assert (tmp_path / "a" / "res_track.txt").read_text().splitlines()[1] == "2 2 3 1"
    save_ctc(movie[:, None].repeat(3, axis=1), TRACKS, tmp_path / "b")
    assert tifffile.imread(tmp_path / "b" / "mask000.tif").shape == (3, 40, 40)


def test_nothing_is_left_of_a_failed_export(movie, tmp_path):
    with pytest.raises(InputError, match=r"ids \[4\] of frame 0"):
        save_ctc(movie, TRACKS[:3], tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
    save_ctc(movie, TRACKS, tmp_path / "a")
    with pytest.raises(FileError, match="exists already"):
        save_ctc(movie, TRACKS, tmp_path / "a")
    save_ctc(movie[:2], TRACKS, tmp_path / "a", overwrite=True)
    assert len(list((tmp_path / "a").glob("mask*.tif"))) == 2
    with pytest.raises(InputError, match="65535"):
        save_ctc(movie, [Track(70000, 0, 1)], tmp_path / "c")


def test_csv_and_napari_have_a_row_for_each_object_of_each_frame(movie, tmp_path):
    linker = TrackLinker()
    for frame in movie:
        linker.add([frame])
    found = linker.solve()
    assert found.tracks == [
        Track(1, 0, 1), Track(2, 0, 3), Track(3, 2, 3, 1), Track(4, 2, 3, 1),
    ]  # fmt: skip
    path = save_tracks(found.table, found.tracks, tmp_path / "tracks.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 10
    assert rows[0] | {"z": "0"} == {
        "track": "1", "frame": "0", "object": "1", "z": "0", "y": "14.5", "x": "14.5",
        "area": "100", "parent": "0",
    }  # fmt: skip
    assert [row["parent"] for row in rows[-2:]] == ["1", "1"]
    data, graph = napari_tracks(found.table, found.tracks)
    assert data[0].tolist() == [1, 0, 0, 14.5, 14.5]
    assert data.shape == (10, 5)
    assert graph == {3: [1], 4: [1]}
