"""Kept candidates: thresholds afterwards give what `segment` gives with them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from skimage.draw import disk

from napari_sam.engine.automatic import AutomaticConfig, segment
from napari_sam.engine.candidates import Candidates, config_of, find_candidates
from napari_sam.engine.embed import open_plane
from napari_sam.engine.grid_masks import GridMode
from napari_sam.engine.jobs import run
from napari_sam.engine.proposals import ProposalMode
from napari_sam.engine.thresholds import Search, Thresholds
from napari_sam.errors import InputError
from napari_sam.masks import Candidate
from napari_sam.tiling import Box, CropGrid
from tests.engine.oracle import OracleSam, image_of


def drawn(objects, shape):
    """Paint objects into a plane; fail where two overlap."""
    labels = np.zeros(shape, np.uint32)
    for number, each in enumerate(objects, 1):
        part = labels[each.candidate.box.slices]
        assert not part[each.candidate.mask].any()
        part[each.candidate.mask] = number
    return labels


@pytest.fixture
def truth():
    labels = np.zeros((90, 110), np.uint32)
    labels[40:46, 10:100] = 1
    for number, place in enumerate([(12, 12), (0, 60), (70, 30), (75, 90)], 2):
        rows, columns = disk(place, 8, shape=labels.shape)
        labels[rows, columns] = number
    return labels


@pytest.fixture
def oracle(truth):
    return OracleSam(truth, scale=4)


@pytest.fixture
def plane(truth, oracle):
    grid = CropGrid(truth.shape, size=128, halo=16, scale=4.0)
    return open_plane(image_of(truth), oracle, grid=grid)


def test_by_default_the_objects_are_those_of_segment(truth, oracle, plane):
    kept = run(find_candidates(plane))
    found = run(segment(image_of(truth), oracle, grid=plane.grid))
    np.testing.assert_array_equal(drawn(kept.objects(), truth.shape), found.labels)
    assert found.n_objects == 5


@pytest.mark.parametrize("iou", [0.0, 0.45, 0.5])
@pytest.mark.parametrize("stability", [0.0, 0.6, 0.9])
def test_thresholds_afterwards_give_what_they_give_before(
    tiny_sam, cells, iou, stability
):
    image, _ = cells
    mode = ProposalMode(
        foreground=0.05,
        min_prominence=0.0,
        min_foreground=0.0,
        min_predicted_iou=iou,
        min_stability=stability,
    )
    config = AutomaticConfig("proposals", proposals=mode)
    loose = replace(
        config, proposals=replace(mode, min_predicted_iou=0.0, min_stability=0.0)
    )
    embedding = open_plane(image, tiny_sam)
    kept = run(find_candidates(embedding, config=loose))
    thresholds = Thresholds(min_predicted_iou=iou, min_stability=stability)
    expected = run(segment(image, tiny_sam, config=config))
    found = kept.objects(thresholds)
    np.testing.assert_array_equal(drawn(found, image.shape), expected.labels)
    assert [each.candidate.stability for each in found] == pytest.approx(
        expected.table["stability"].tolist()
    )


def test_of_the_grid_too(tiny_sam, cells):
    image, _ = cells
    mode = GridMode(points_per_side=4, min_predicted_iou=0.0, min_stability=0.5)
    config = AutomaticConfig("grid", grid=mode)
    kept = run(find_candidates(open_plane(image, tiny_sam), config=config))
    expected = run(segment(image, tiny_sam, config=config))
    np.testing.assert_array_equal(drawn(kept.objects(), image.shape), expected.labels)


def test_choosing_asks_the_network_nothing(truth, oracle, plane):
    kept = run(find_candidates(plane))
    before = oracle.n_encoded, len(oracle.decoded)
    for least in np.linspace(0, 1, 5):
        kept.objects(Thresholds(min_predicted_iou=least, min_area=5))
    assert (oracle.n_encoded, len(oracle.decoded)) == before


def test_a_region_encodes_its_own_crops_the_nearest_first(truth, oracle, plane):
    region = Box(60, 15, 85, 45)
    steps = list(find_candidates(plane, region=region))
    crops = plane.grid.crops_touching(region)
    assert oracle.n_encoded == len(crops) < len(plane.grid)
    assert (steps[-1].done, steps[-1].total) == (len(crops), len(crops))
    kept = steps[-1].value
    labels = drawn(kept.objects(), truth.shape)
    np.testing.assert_array_equal(labels > 0, truth == 4)  # alone reaches into it
    first = kept.found[0].crop
    assert first == plane.grid.crop_at(72, 30).index


def test_candidates_are_there_before_the_end(plane):
    counts = [len(step.value.found) for step in find_candidates(plane) if step.value]
    assert len(counts) == len(plane.grid)
    assert counts == sorted(counts)


def test_objects_keep_off_what_is_labelled(truth, plane):
    kept = run(find_candidates(plane))
    labelled = np.zeros(truth.shape, bool)
    labelled[truth == 2] = True  # the whole of one
    labelled[40:46, 10:30] = True  # the end of the bar
    labelled[40:46, 60:64] = True  # and a piece of it, which leaves two parts
    objects = kept.objects(occupied=lambda box: labelled[box.slices])
    labels = drawn(objects, truth.shape)
    assert not labels[labelled].any()
    expected = np.isin(truth, [3, 4, 5])
    expected[40:46, 64:100] = True  # the larger part
    np.testing.assert_array_equal(labels > 0, expected)


def test_size_and_border(truth, plane):
    kept = run(find_candidates(plane))
    areas = np.bincount(truth.ravel())
    large = kept.objects(Thresholds(min_area=int(areas[2]) + 1))
    np.testing.assert_array_equal(drawn(large, truth.shape) > 0, truth == 1)
    small = kept.objects(Thresholds(max_area=int(areas[2])))  # the bar is 540 px
    np.testing.assert_array_equal(drawn(small, truth.shape) > 0, truth > 1)
    inside = kept.objects(Thresholds(drop_at_border=True))
    expected = np.isin(truth, [1, 2, 4, 5])
    np.testing.assert_array_equal(drawn(inside, truth.shape) > 0, expected)


def test_large_ones_can_be_left_out():
    grid = CropGrid((64, 64), size=128, halo=16)
    mask = np.ones((10, 10), bool)
    small = Candidate(Box(0, 0, 10, 10), mask, predicted_iou=0.6)
    large = Candidate(Box(0, 0, 30, 30), np.ones((30, 30), bool), predicted_iou=0.9)
    kept = Candidates(
        grid, AutomaticConfig(), ProposalMode(), Box.whole((64, 64)), [small, large]
    )
    [found] = kept.objects(Thresholds(max_area=500))
    assert found.candidate.box == small.box  # no longer hidden by the large one
    with pytest.raises(InputError, match="must not be smaller"):
        Thresholds(min_area=5, max_area=4)


def test_a_region_beside_the_plane_is_refused(plane):
    with pytest.raises(InputError, match="outside the plane"):
        run(find_candidates(plane, region=Box(500, 500, 600, 600)))


def test_what_the_user_sets_becomes_a_config():
    config = config_of(Search("grid", foreground=0.3, points_per_side=16))
    assert config.mode == "grid"
    assert config.proposals == ProposalMode(foreground=0.3)
    assert config.grid == GridMode(points_per_side=16)
    assert config_of(Search()) == AutomaticConfig()
