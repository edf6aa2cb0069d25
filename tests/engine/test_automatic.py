"""All objects of an image: exact with an oracle, tiled or not, counted, cancellable."""

import numpy as np
import pytest
import torch
from skimage.draw import disk
from skimage.segmentation import clear_border

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.automatic import AutomaticConfig, Segmentation, segment
from napari_sam.engine.grid_masks import GridMode
from napari_sam.engine.jobs import run
from napari_sam.engine.proposals import ProposalMode
from napari_sam.errors import InputError
from napari_sam.images import ImageSource
from napari_sam.masks import Candidate
from napari_sam.model import Sam
from napari_sam.model.config import VARIANTS
from napari_sam.tiling import CropGrid
from napari_sam.training.metrics import overlaps
from napari_sam.weights.load import load_model
from tests.engine.oracle import OracleSam, image_of


def in_order(labels):
    """Number objects by their first pixels, from 1."""
    found, first = np.unique(labels, return_index=True)
    order = found[np.argsort(first)]
    order = order[order > 0]
    numbers = np.zeros(labels.max() + 1, np.uint32)
    numbers[order] = np.arange(1, len(order) + 1)
    return numbers[labels]


@pytest.fixture
def truth():
    """Discs of 4 to 20 px in a plane of 90 x 110 px, and a bar through five crops."""
    rng = np.random.default_rng(4)
    labels = np.zeros((90, 110), np.uint32)
    labels[40:46, 10:100] = 1
    for i in range(2, 60):
        rows, columns = disk(
            rng.uniform(0, (90, 110)), rng.uniform(2, 10), shape=labels.shape
        )
        if len(rows) > 8 and not labels[rows, columns].any():
            labels[rows, columns] = i
    return in_order(labels)


@pytest.fixture
def grid(truth):
    """Crops of 32 px, enlarged four times, with a halo of 4 px."""
    return CropGrid(truth.shape, size=128, halo=16, scale=4.0)


def test_tiled_labels_equal_the_truth(truth, grid):
    oracle = OracleSam(truth, scale=4)
    found = run(segment(image_of(truth), oracle, grid=grid))
    assert len(grid) == 20
    assert oracle.n_encoded == 20
    np.testing.assert_array_equal(found.labels, truth)
    assert found.labels.dtype == np.uint32


def test_mode_grid_finds_the_same(truth):
    truth = in_order(truth[:50, :50])
    config = AutomaticConfig(
        mode="grid",
        grid=GridMode(points_per_side=12, drop_at_borders=False, min_stability=0.5),
    )
    oracle = OracleSam(truth, scale=4)
    grid = CropGrid(truth.shape, size=128, halo=16, scale=4.0)
    found = run(segment(image_of(truth), oracle, grid=grid, config=config))
    # the reference's box NMS may take one of two objects with like boxes
    kept = np.isin(truth, np.unique(truth[found.labels > 0]))
    np.testing.assert_array_equal(found.labels, in_order(np.where(kept, truth, 0)))
    assert found.n_objects >= 0.8 * truth.max()
    assert sum(oracle.decoded) == 4 * 144


def test_the_table_says_what_was_found(truth, grid):
    oracle = OracleSam(truth, scale=4, scores={3: 0.8})
    found = run(segment(image_of(truth), oracle, grid=grid))
    table = found.table
    assert table["object"].tolist() == list(range(1, truth.max() + 1))
    for i, number in enumerate(table["object"]):
        rows, columns = np.nonzero(found.labels == number)
        assert (table["y0"][i], table["y1"][i]) == (rows.min(), rows.max() + 1)
        assert (table["x0"][i], table["x1"][i]) == (columns.min(), columns.max() + 1)
    assert table["predicted_iou"][2] == pytest.approx(0.8)
    assert table["predicted_iou"][0] == pytest.approx(0.9)
    assert (table["agreement"] == 1).all()
    bar = truth[42, 50] - 1
    assert table["is_cut"][bar]
    assert table["n_views"][bar] == 5
    assert found.scores()["predicted_iou"][3] == pytest.approx(0.8)
    assert set(found.scores()["stability"]) == set(table["object"].tolist())


def test_it_stands_for_its_labels(truth, grid):
    found = run(segment(image_of(truth), OracleSam(truth, scale=4), grid=grid))
    np.testing.assert_array_equal(np.asarray(found), truth)
    np.testing.assert_array_equal(found[10:20, 5], truth[10:20, 5])
    assert (found.shape, found.dtype) == (truth.shape, np.uint32)
    assert np.asarray(found) is found.labels
    assert np.asarray(found, np.int64).dtype == np.int64


def test_steps_carry_finished_pieces(truth, grid):
    job = segment(image_of(truth), OracleSam(truth, scale=4), grid=grid)
    steps = list(job)
    assert {step.total for step in steps} == {20}
    done = [step.done for step in steps]
    assert done == sorted(done)
    crops = [step.value for step in steps if isinstance(step.value, list)]
    assert len(crops) == 20
    assert all(isinstance(c, Candidate) for crop in crops for c in crop)
    assert isinstance(steps[-1].value, Segmentation)
    # one step for each batch of prompts, so that a job stops soon
    assert len(steps) > 2 * 20


def test_a_closed_job_encodes_nothing_more(truth, grid):
    oracle = OracleSam(truth, scale=4)
    job = segment(image_of(truth), oracle, grid=grid)
    for _ in range(5):
        next(job)
    n_encoded = oracle.n_encoded
    job.close()
    assert oracle.n_encoded == n_encoded < 20


def test_an_embedded_plane_needs_no_encoder(truth, grid, tmp_path):
    oracle = OracleSam(truth, scale=4)
    for _ in range(2):
        cache = EmbeddingCache(tmp_path / "e")
        found = run(segment(image_of(truth), oracle, grid=grid, cache=cache))
        np.testing.assert_array_equal(found.labels, truth)
    assert oracle.n_encoded == 20


def test_one_prompt_for_each_peak(truth):
    small = truth[:32, :32]
    oracle = OracleSam(small, scale=4)
    found = run(segment(image_of(small), oracle))
    np.testing.assert_array_equal(found.labels, in_order(small))
    # cut objects may have two peaks; hardly more
    assert found.n_objects <= sum(oracle.decoded) <= 2 * found.n_objects


def test_stacks_have_ids_that_are_unique(tiny_sam):
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (2, 3, 60, 70), dtype=np.uint8)
    config = AutomaticConfig(
        proposals=ProposalMode(
            min_predicted_iou=-9, min_stability=0, min_foreground=0, foreground=0.3
        )
    )
    found = run(segment(ImageSource(stack, "TZYX"), tiny_sam, config=config))
    assert found.labels.shape == (2, 3, 60, 70)
    assert found.n_objects > 0
    assert found.table["object"].tolist() == list(range(1, found.n_objects + 1))
    for i, number in enumerate(found.table["object"]):
        t, z = found.table["frame"][i], found.table["slice"][i]
        places = np.argwhere(found.labels == number)
        assert (places[:, :2] == (t, z)).all()
    one = run(
        segment(ImageSource(stack, "TZYX"), tiny_sam, plane=(1, 2), config=config)
    )
    assert one.labels.shape == (60, 70)


def test_an_axis_of_length_one_stays(tiny_sam):
    source = ImageSource(np.random.default_rng(0).random((1, 30, 40)), "ZYX")
    assert run(segment(source, tiny_sam)).labels.shape == (1, 30, 40)


def test_small_objects_can_be_left_out(truth, grid):
    config = AutomaticConfig(min_area=50)
    found = run(
        segment(image_of(truth), OracleSam(truth, scale=4), grid=grid, config=config)
    )
    large = np.bincount(truth.ravel())[truth] >= 50
    np.testing.assert_array_equal(found.labels, in_order(np.where(large, truth, 0)))


def test_large_objects_can_be_left_out(truth, grid):
    config = AutomaticConfig(min_area=20, max_area=200)
    found = run(
        segment(image_of(truth), OracleSam(truth, scale=4), grid=grid, config=config)
    )
    areas = np.bincount(truth.ravel())[truth]
    wanted = (areas >= 20) & (areas <= 200)  # the bar is cut by five crops
    np.testing.assert_array_equal(found.labels, in_order(np.where(wanted, truth, 0)))
    with pytest.raises(InputError, match="at least 20 px and at most 10 px"):
        AutomaticConfig(min_area=20, max_area=10)


def test_objects_at_the_border_can_be_left_out(truth, grid):
    config = AutomaticConfig(drop_at_border=True)
    found = run(
        segment(image_of(truth), OracleSam(truth, scale=4), grid=grid, config=config)
    )
    inner = clear_border(truth)
    assert 0 < len(np.unique(inner)) < len(np.unique(truth))
    np.testing.assert_array_equal(found.labels, in_order(inner))


def test_an_image_without_objects():
    truth = np.zeros((32, 32), np.uint32)
    found = run(segment(image_of(truth), OracleSam(truth, scale=4)))
    assert found.n_objects == 0
    assert not found.labels.any()
    assert found.scores() == {"predicted_iou": {}, "stability": {}}


def test_the_bundled_network_finds_and_draws_every_disc(cells):
    image, truth = cells
    found = run(segment(image, load_model(device="cpu"))).labels
    assert found.max() == truth.max() == 5
    pairs = overlaps(truth, found)
    assert len(pairs.match(0.8)) == 5


def test_weights_without_proposal_head_use_the_grid(cells):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = VARIANTS["tiny"]
        model = Sam(type(config)(**{**_fields(config), "proposal": None})).eval()
    image, _ = cells
    assert run(segment(image, model)).labels.shape == image.shape
    with pytest.raises(InputError, match="use the mode 'grid'"):
        run(segment(image, model, config=AutomaticConfig(mode="proposals")))


def _fields(config):
    return {name: getattr(config, name) for name in type(config).__dataclass_fields__}


def test_mode_has_to_be_known():
    with pytest.raises(InputError, match="'proposals' or 'grid'"):
        AutomaticConfig(mode="magic")
