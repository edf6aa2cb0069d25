"""One object through a stack: exact with a network that knows the truth."""

import numpy as np
import pytest
import torch

from napari_sam.cache import EmbeddingCache
from napari_sam.engine.jobs import run
from napari_sam.engine.propagate import (
    PropagateConfig,
    Propagation,
    propagate,
    propagate_in,
)
from napari_sam.engine.stack_planes import open_stack
from napari_sam.errors import InputError
from napari_sam.images import ImageSource, Intensity
from napari_sam.masks import Candidate
from napari_sam.prompts import Prompts
from napari_sam.settings import get_settings
from napari_sam.tiling import Box, CropGrid
from tests.engine.oracle import OracleSam, image_of

SHAPE = (32, 32)


class StackOracle(OracleSam):
    """Reads the number of the slice from the blue of the image."""

    def __init__(self, truth):
        super().__init__(truth[0], scale=4)
        self.stack = truth
        self.detailed: list[int] = []

    def encode(self, x):
        embedding = super().encode(x)
        blue = x[:, 2, 2, 2] * self.pixel_std[2, 0, 0] + self.pixel_mean[2, 0, 0]
        embedding[:, 2] = blue.round()[:, None, None]
        return embedding

    def decode(self, embedding, **prompts):
        self.truth = self.stack[int(embedding[0, 2, 0, 0])]
        return super().decode(embedding, **prompts)

    def details(self, embedding, *others, **more):
        self.detailed.append(int(embedding[0, 2, 0, 0]))
        return super().details(embedding, *others, **more)


def stack_image(truth, axes="ZYXS"):
    image = np.stack([image_of(plane) for plane in truth])
    image[..., 2] = np.arange(len(truth))[:, None, None]
    return ImageSource(image, axes)


def box_stack(n, *boxes):
    """Labels of boxes (id, z0, z1, y, x, side), moved by `dx` each slice."""
    truth = np.zeros((n, *SHAPE), np.uint32)
    for number, z0, z1, y, x, side, dx in boxes:
        for z in range(z0, z1):
            left = x + dx * (z - z0)
            truth[z, y : y + side, left : left + side] = number
    return truth


def follow(truth, prompts, **options):
    oracle = StackOracle(truth)
    return run(propagate(stack_image(truth), oracle, prompts, **options)), oracle


def assert_found(found, truth, slices=None):
    expected = np.flatnonzero(truth.any((1, 2))) if slices is None else slices
    assert list(found.slices) == list(expected)
    for z in expected:
        np.testing.assert_array_equal(found.mask(z, SHAPE), truth[z])


def click(y, x):
    return Prompts(points=[[y, x]])


@pytest.mark.parametrize("dx", [0, 2])
def test_a_click_finds_the_object_in_all_slices(dx):
    truth = box_stack(9, (1, 1, 8, 10, 6, 8, dx), (2, 0, 9, 22, 20, 6, 0))
    found, oracle = follow(truth, {3: click(14, 10 + 2 * dx)})
    assert_found(found, truth == 1)
    assert found.slices[3].state == "prompted"
    assert {found.slices[z].state for z in (1, 2, 4, 7)} == {"computed"}
    up, down = sorted(found.stops, key=lambda stop: -stop.step)
    assert (up.index, up.step, down.index, down.step) == (8, 1, 0, -1)
    assert "overlap" in up.reason
    # a slice costs one call of the decoder; only slices that were asked are encoded
    assert len(oracle.decoded) == 9
    assert oracle.n_encoded == 9


def test_motion_is_foretold():
    truth = box_stack(8, (1, 0, 8, 4, 1, 5, 3))
    still = PropagateConfig(min_overlap=0.2)
    found, _ = follow(truth, {0: click(6, 3)}, config=still)
    assert_found(found, truth == 1)
    assert found.slices[1].overlap < found.slices[2].overlap == 1


def test_a_gap_is_bridged_and_marked():
    truth = box_stack(9, (1, 0, 9, 8, 8, 10, 0))
    whole = truth.copy()
    truth[5] = 0
    found, _ = follow(truth, {2: click(12, 12)})
    assert_found(found, whole == 1)
    assert found.slices[5].state == "bridged"
    assert found.suspicious == [5]
    none, _ = follow(truth, {2: click(12, 12)}, config=PropagateConfig(max_gap=0))
    assert_found(none, whole == 1, range(5))
    assert (5, 1) in [(stop.index, stop.step) for stop in none.stops]


class Choosy(StackOracle):
    """Is unsure of slice 5 unless its mask prompt has about the right size."""

    def prepare(self, embedding, masks=None, **others):
        self.prompted = 0 if masks is None else int((masks > 0).sum())
        return super().prepare(embedding, **others)

    def decode(self, embedding, masks=None, **prompts):
        logits, ious = super().decode(embedding, **prompts)
        area = (self.truth == 1).sum()
        is_slice_5 = np.shares_memory(self.truth, self.stack[5])
        is_unsure = is_slice_5 and abs(self.prompted - area) > 10
        return logits, ious * (0.1 if is_unsure else 1)


def test_a_gap_is_asked_again_with_the_shape_between():
    truth = np.zeros((9, *SHAPE), np.uint32)
    for z in range(9):
        half = 3 if z < 5 else 4 if z == 5 else 5
        truth[z, 16 - half : 16 + half, 16 - half : 16 + half] = 1
    work = propagate(stack_image(truth), Choosy(truth), {2: click(15, 15)})
    found = run(work)
    # the true shape, which the one between, of rounded corners, is not
    assert_found(found, truth == 1)
    assert found.slices[5].state == "computed"
    assert found.suspicious == [5]


class Timid(StackOracle):
    """Takes a single click on a mask for a part of the object, and doubts it."""

    def prepare(self, embedding, masks=None, **others):
        self.has_mask = masks is not None
        return super().prepare(embedding, **others)

    def decode(self, embedding, multimask=True, **prompts):
        logits, ious = super().decode(embedding, multimask=True, **prompts)
        if multimask:
            return logits, ious
        is_part = prompts["points"].shape[1] == 1 and self.has_mask
        which = slice(0, 1) if is_part else slice(1, 2)
        return logits[:, which], ious[:, which] * (0.1 if is_part else 1)


def test_a_correcting_click_does_not_lose_the_object():
    truth = box_stack(9, (1, 0, 9, 4, 4, 12, 0))
    planes = open_stack(stack_image(truth), Timid(truth))
    first = run(propagate_in(planes, {3: click(10, 10)}))
    more = {3: click(10, 10), 6: click(6, 6)}
    found = run(propagate_in(planes, more, previous=first))
    assert_found(found, truth == 1)
    assert found.slices[6].state == "prompted"


class Sticky(StackOracle):
    """Adds to its answers what the mask prompt holds."""

    def prepare(self, embedding, masks=None, **others):
        prepared = super().prepare(embedding, **others)
        prepared.given = masks
        return prepared

    def decode(self, embedding, **prompts):
        logits, ious = super().decode(embedding, **prompts)
        if embedding.given is not None:
            logits = torch.where(embedding.given > 0, 8.0, logits)
        return logits, ious


def test_a_click_beside_a_mask_adds_to_it_or_finds_a_lost_object():
    # in slice 4 an object of 8 x 8 px is seen as two halves, beside a larger one
    truth = box_stack(5, (1, 0, 4, 10, 4, 8, 0), (2, 0, 5, 4, 16, 14, 0))
    truth[4, 10:14, 4:12], truth[4, 14:18, 4:12] = 1, 3
    oracle = Sticky(truth)
    planes = open_stack(stack_image(truth), oracle)
    start = {0: click(13, 7)}
    whole = np.isin(truth[4], (1, 3))
    for shown, point, expected in (
        (truth[4] == 1, (16, 7), whole),  # its other half
        (truth[4] == 2, (12, 7), truth[4] == 1),  # it is here
    ):
        wrong = start | {4: Candidate(Box(0, 0, *SHAPE), shown).with_mask(shown)}
        before = run(propagate_in(planes, wrong))
        np.testing.assert_array_equal(before.mask(4, SHAPE), shown)
        after = run(propagate_in(planes, start | {4: click(*point)}, previous=before))
        np.testing.assert_array_equal(after.mask(4, SHAPE), expected)


def test_two_prompted_slices_meet():
    truth = box_stack(9, (1, 0, 9, 8, 2, 8, 2))
    found, _ = follow(truth, {1: click(12, 8), 6: click(12, 18)})
    assert_found(found, truth == 1)
    assert found.suspicious == []
    assert [found.slices[z].agreement for z in (2, 3, 4, 5)] == [1] * 4
    assert {stop.reason for stop in found.stops} == {"the stack ends"}


def test_disagreement_is_flagged():
    truth = box_stack(7, (1, 0, 7, 2, 2, 8, 0), (2, 0, 7, 20, 20, 8, 0))
    found, _ = follow(truth, {0: click(5, 5), 6: click(24, 24)})
    assert found.suspicious == [1, 2, 3, 4, 5]
    np.testing.assert_array_equal(found.mask(0, SHAPE), truth[0] == 1)
    np.testing.assert_array_equal(found.mask(6, SHAPE), truth[6] == 2)
    assert found.slices[3].agreement == 0


def test_a_committed_mask_is_obeyed_as_it_is():
    truth = box_stack(6, (1, 0, 6, 8, 8, 10, 0))
    mask = np.zeros((5, 6), bool)
    mask[1:4] = True
    given = Candidate(Box(10, 10, 15, 16), mask)
    config = PropagateConfig(max_change=20, min_overlap=0.1)
    found, _ = follow(truth, {2: given}, config=config)
    assert found.slices[2].found is given
    np.testing.assert_array_equal(found.mask(3, SHAPE), truth[3] == 1)


def test_marked_ends_are_respected():
    truth = box_stack(9, (1, 0, 9, 8, 8, 10, 0))
    found, _ = follow(truth, {4: click(12, 12)}, ends=[1, 7])
    assert_found(found, truth == 1, range(2, 7))
    assert {stop.reason for stop in found.stops} == {"marked as the end of the object"}
    apart, _ = follow(truth, {1: click(12, 12), 7: click(12, 12)}, ends=[4])
    assert_found(apart, truth == 1, [0, 1, 2, 3, 5, 6, 7, 8])


def test_a_negative_point_forbids_masks_that_hold_it():
    truth = box_stack(6, (1, 0, 6, 8, 8, 10, 0))
    no = Prompts(points=[[17, 17]], positive=[False])
    config = PropagateConfig(max_gap=0)
    found, _ = follow(truth, {0: click(12, 12), 3: no}, config=config)
    # of the three masks the upper half does not hold the point
    assert 3 in found.slices
    assert not found.mask(3, SHAPE)[17, 17]
    np.testing.assert_array_equal(found.mask(2, SHAPE), truth[2] == 1)


def test_a_correction_runs_only_the_spans_beside_it():
    truth = box_stack(13, (1, 0, 13, 8, 8, 10, 0))
    oracle, image = StackOracle(truth), stack_image(truth)
    prompts = {2: click(12, 12), 6: click(12, 12), 10: click(12, 12)}
    first = run(propagate(image, oracle, prompts))
    n = len(oracle.decoded)
    again = run(propagate(image, oracle, prompts, previous=first))
    assert len(oracle.decoded) == n
    assert list(again.slices) == list(first.slices)
    run(propagate(image, oracle, {**prompts, 8: click(10, 10)}, previous=first))
    # slice 8 as prompted, 7 and 9 from both sides
    assert len(oracle.decoded) - n == 1 + 2 + 2
    assert again.slices[0] is first.slices[0]


def test_branches_are_followed_on_request():
    truth = np.zeros((8, *SHAPE), np.uint32)
    truth[:4, 10:18, 4:28] = 1
    truth[4:, 10:18, 4:12] = 2
    truth[4:, 10:18, 20:28] = 3
    one, _ = follow(truth, {1: click(14, 16)})
    config = PropagateConfig(branches=True, min_overlap=0.2)
    given = {3: Candidate(Box(10, 4, 18, 28), _arms())}
    both, _ = follow(truth, given, config=config)
    np.testing.assert_array_equal(one.mask(6, SHAPE), truth[6] == 2)
    np.testing.assert_array_equal(both.mask(6, SHAPE), truth[6] > 0)


def _arms():
    mask = np.ones((8, 24), bool)
    mask[:3, 9:15] = False
    mask[5:, 9:15] = False
    return mask


def test_slices_come_as_they_are_found_and_a_closed_job_stops():
    truth = box_stack(9, (1, 0, 9, 8, 8, 10, 0))
    oracle = StackOracle(truth)
    job = propagate(stack_image(truth), oracle, {4: click(12, 12)})
    steps = [next(job) for _ in range(4)]
    assert [step.value.index for step in steps] == [4, 3, 2, 1]
    assert {step.total for step in steps} == {9}
    n = len(oracle.decoded)
    job.close()
    assert len(oracle.decoded) == n == 4


def test_time_is_an_axis_too():
    truth = box_stack(6, (1, 0, 6, 8, 4, 10, 2))
    oracle = StackOracle(truth)
    image = stack_image(truth, "TYXS")
    found = run(propagate(image, oracle, {0: click(12, 8)}, along="t", within=(0, 4)))
    assert_found(found, truth == 1, range(4))


def test_crops_follow_the_object():
    """Of a plane of 25 crops, only those are encoded in which the object lies."""
    truth = np.zeros((10, 120, 120), np.uint32)
    for z in range(10):
        truth[z, 20:28, 10 + 6 * z : 20 + 6 * z] = 1
    oracle = StackOracle(truth)
    grid = CropGrid((120, 120), size=128, halo=16, scale=4.0)
    found = run(propagate(stack_image(truth), oracle, {0: click(24, 14)}, grid=grid))
    assert len(grid) == 25
    assert list(found.slices) == list(range(10))
    for z in range(10):
        np.testing.assert_array_equal(found.mask(z, (120, 120)), truth[z] == 1)
    assert oracle.n_encoded == 10


class Shaded(StackOracle):
    """Knows the slice by its brightness; each must have its own."""

    def __init__(self, truth, levels):
        super().__init__(truth)
        self.levels = torch.tensor(levels)

    def encode(self, x):
        self.n_encoded += len(x)
        level = x[:, 0, 48, 48] * self.pixel_std[0, 0, 0] + self.pixel_mean[0, 0, 0]
        embedding = torch.zeros(len(x), 32, 8, 8)
        nearest = (level[:, None] - self.levels).abs().argmin(1)
        embedding[:, 2] = nearest[:, None, None]
        return embedding


@pytest.mark.parametrize(
    ("levels", "last"),
    [
        # contrasts 1, .8, .4, .2, .12, then another one comes up
        ([120, 100, 60, 40, 32, 46, 62, 99], 3),
        # a dark slice between bright ones is none
        ([120, 118, 110, 30, 111, 116, 119, 117], 7),
        # no slice between the two at all: the last dim one goes
        ([120, 100, 60, 35, 99, 110, 118, 119], 2),
        # it only fades
        ([120, 100, 80, 60, 50, 42, 36, 33], 7),
    ],
)
def test_an_object_behind_another_is_not_taken_for_it(levels, last):
    truth = box_stack(8, (1, 0, 8, 8, 8, 10, 0))
    gray = np.full((8, *SHAPE), 20, np.uint8)
    for z, bright in enumerate(levels):
        gray[z][truth[z] > 0] = bright
    found = run(
        propagate(
            ImageSource(gray, "ZYX"),
            Shaded(truth, levels),
            {0: click(12, 12)},
            intensity=Intensity((0,), ((0.0, 255.0),)),
        )
    )
    assert list(found.slices) == list(range(last + 1))
    if last < 7:
        (stop,) = [stop for stop in found.stops if stop.step == 1]
        assert stop.index == last + 1
        assert "another object" in stop.reason


def test_an_object_that_fades_ends():
    truth = box_stack(8, (1, 0, 8, 8, 8, 10, 0))
    gray = np.full((8, *SHAPE), 20, np.uint8)
    for z, bright in enumerate([120, 120, 90, 60, 32, 22, 20, 20]):
        gray[z][truth[z] > 0] = bright

    class Faded(StackOracle):
        """Sees where a crop lies, though the image shows brightness."""

        def encode(self, x):
            self.n_encoded += len(x)
            level = x[:, 0, 48, 48] * self.pixel_std[0, 0, 0] + self.pixel_mean[0, 0, 0]
            embedding = torch.zeros(len(x), 32, 8, 8)
            levels = torch.tensor([120, 121, 90, 60, 32, 22, 20, 19])
            embedding[:, 2] = (level[:, None] - levels).abs().argmin(1)[:, None, None]
            return embedding

    gray[1][truth[1] > 0], gray[7][truth[7] > 0] = 121, 19
    image = ImageSource(gray, "ZYX")
    same = Intensity((0,), ((0.0, 255.0),))
    options = {"intensity": same}
    found = run(propagate(image, Faded(truth), {0: click(12, 12)}, **options))
    assert list(found.slices) == [0, 1, 2, 3, 4]  # contrasts 100, 101, 70, 40, 12, 2
    assert "contrast" in next(s.reason for s in found.stops if s.step == 1)
    config = PropagateConfig(min_contrast=0)
    found = run(
        propagate(image, Faded(truth), {0: click(12, 12)}, config=config, **options)
    )
    assert list(found.slices) == list(range(8))


def test_input_is_checked():
    truth = box_stack(4, (1, 0, 4, 8, 8, 10, 0))
    negative = Prompts(points=[[1, 1]], positive=[False])
    with pytest.raises(InputError, match="no slice has a positive"):
        follow(truth, {1: negative})
    with pytest.raises(InputError, match=r"prompts in slices \[9\]"):
        follow(truth, {9: click(1, 1)})
    with pytest.raises(InputError, match="count from 0"):
        follow(truth, {1: click(1, 1)}, within=(2, 9))
    with pytest.raises(InputError, match="show nothing"):
        follow(truth, {1: click(1, 1)})
    with pytest.raises(InputError, match="'z' or 't'"):
        follow(truth, {1: click(12, 12)}, along="y")
    with pytest.raises(InputError, match="share from 0 to 1"):
        PropagateConfig(min_overlap=2)
    assert Propagation({}, []).suspicious == []


class BatchOracle(StackOracle):
    """Notes how many planes were encoded at once, and answers for each."""

    def __init__(self, truth):
        super().__init__(truth)
        self.batches = []

    def encode(self, x):
        self.batches.append(len(x))
        return super().encode(x)


@pytest.mark.parametrize("is_kept", [True, False])
def test_slices_are_encoded_in_batches_and_nothing_twice(monkeypatch, is_kept):
    truth = box_stack(12, (1, 0, 12, 8, 2, 8, 1))
    batched = get_settings().model_copy(update={"encoder_batch": 4})
    monkeypatch.setattr("napari_sam.engine.stack_planes.get_settings", lambda: batched)
    oracle = BatchOracle(truth)
    cache = EmbeddingCache() if is_kept else None
    work = propagate(stack_image(truth), oracle, {3: click(12, 8)}, cache=cache)
    found = run(work)
    assert_found(found, truth == 1)
    # the prompted slice, three below it, eight above it
    assert oracle.batches == [1, 3, 4, 4]
    assert len(oracle.decoded) == 12
    if cache is not None:
        again = propagate(stack_image(truth), oracle, {3: click(12, 8)}, cache=cache)
        assert_found(run(again), truth == 1)
        assert sum(oracle.batches) == 12


def test_slices_may_be_numbers_of_numpy(tmp_path):
    truth = box_stack(4, (1, 0, 4, 8, 8, 8, 0))
    middle = np.flatnonzero(truth.any((1, 2)))[2]
    kept = EmbeddingCache(tmp_path)  # on disk, which writes the number down
    found, _ = follow(truth, {middle: click(12, 12)}, cache=kept)
    assert_found(found, truth == 1)


def test_what_a_slice_has_is_computed_once_for_objects_and_corrections():
    truth = box_stack(9, (1, 0, 9, 4, 4, 8, 0), (2, 0, 9, 18, 6, 8, 1))
    oracle = StackOracle(truth)
    planes = open_stack(stack_image(truth), oracle, cache=EmbeddingCache())
    first = run(propagate_in(planes, {3: click(8, 8)}))
    assert_found(first, truth == 1)
    assert_found(run(propagate_in(planes, {5: click(22, 14)})), truth == 2)
    more = {3: click(8, 8), 7: click(8, 8)}
    assert_found(run(propagate_in(planes, more, previous=first)), truth == 1)
    assert sorted(oracle.detailed) == list(range(9))
    assert oracle.n_encoded == 9


def test_of_a_long_stack_only_some_slices_are_held(monkeypatch):
    monkeypatch.setattr("napari_sam.engine.stack_planes._OPEN_PLANES", 4)
    truth = box_stack(12, (1, 0, 12, 4, 4, 8, 0))
    oracle = StackOracle(truth)
    planes = open_stack(stack_image(truth), oracle, cache=EmbeddingCache())
    for _ in range(2):
        assert_found(run(propagate_in(planes, {0: click(8, 8)})), truth == 1)
    # at the end of a way the first slices have been given up
    assert oracle.detailed == [*range(12)] * 2
    assert oracle.n_encoded == 12
