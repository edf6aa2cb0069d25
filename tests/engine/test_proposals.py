"""Proposals of one crop: where the peaks are, what the masks look like, and windows."""

import numpy as np
import pytest
import torch
from skimage.draw import disk, ellipse

from napari_sam.engine import proposals
from napari_sam.engine.embed import open_plane
from napari_sam.engine.predict import decode_points
from napari_sam.engine.proposals import ProposalMode, find_peaks, proposal_candidates
from napari_sam.errors import InputError
from napari_sam.model import Sam
from napari_sam.model.config import VARIANTS
from napari_sam.stitch import without_duplicates
from napari_sam.tiling import Box, Crop
from napari_sam.training.data import distance_maps
from tests.engine.oracle import crop_of, discs, result
from tests.engine.own import own_network


def maps_of(labels):
    """What a perfect proposal head says."""
    distances = distance_maps(labels.astype(np.int32)) / np.float32(255)
    return np.stack([labels > 0, *distances]).astype(np.float32)


class TestPeaks:
    mode = ProposalMode()

    def test_one_for_each_object(self):
        labels = np.zeros((64, 64), int)
        labels[disk((20, 20), 10)] = 1
        labels[disk((20, 39), 10)] = 2  # touches the first
        labels[ellipse(50, 30, 4, 25)] = 3
        labels[62:, 60:] = 4  # cut by the crop
        peaks = find_peaks(maps_of(labels), self.mode)
        assert sorted(labels[tuple(peaks.T)].tolist()) == [1, 2, 3, 4]
        np.testing.assert_allclose(peaks[:2], [[20, 20], [20, 39]], atol=1)

    def test_they_lie_in_the_object_even_if_its_centre_does_not(self):
        labels = np.zeros((64, 64), int)
        labels[disk((32, 32), 25)] = 1
        labels[disk((32, 32), 19)] = 0
        labels[:, 40:] = 0
        peaks = find_peaks(maps_of(labels), self.mode)
        assert len(peaks) >= 1
        assert labels[tuple(peaks.T)].all()

    def test_noise_makes_no_peaks(self):
        rng = np.random.default_rng(0)
        labels = np.zeros((64, 64), int)
        labels[disk((32, 32), 20)] = 1
        maps = maps_of(labels)
        maps[1] += rng.normal(0, 0.05, maps[1].shape)
        assert len(find_peaks(maps, self.mode)) == 1
        control = ProposalMode(smoothing=0, min_prominence=0)
        assert len(find_peaks(maps, control)) > 50

    def test_an_object_that_fills_the_crop_has_one(self):
        labels = np.ones((16, 16), int)
        assert len(find_peaks(maps_of(labels), self.mode)) == 1
        flat = np.full((3, 16, 16), 0.6, np.float32)
        assert len(find_peaks(flat, self.mode)) == 1

    def test_each_part_of_the_foreground_has_one(self):
        maps = np.ones((3, 32, 32), np.float32)  # far from any centre everywhere
        maps[0] = 0
        maps[0, 2:4, 2:5] = 1
        maps[0, 20, 20] = 1
        np.testing.assert_array_equal(find_peaks(maps, self.mode)[1:], [[20, 20]])
        assert len(find_peaks(maps, self.mode)) == 2

    def test_small_neighbours_stay_apart(self):
        # 12 input pixels are 3 cells
        labels = np.zeros((32, 32), int)
        for i, (y, x) in enumerate([(8, 8), (8, 11), (11, 8), (20, 24)], start=1):
            labels[y : y + 3, x : x + 3] = i
        peaks = find_peaks(maps_of(labels), self.mode)
        assert sorted(labels[tuple(peaks.T)].tolist()) == [1, 2, 3, 4]

    def test_nothing(self):
        assert find_peaks(np.zeros((3, 8, 8), np.float32), self.mode).shape == (0, 2)


@pytest.fixture
def truth():
    return discs()


def test_proposals_are_the_objects(truth):
    oracle, embedding, crop = crop_of(truth, 4)
    found, n_pauses = result(
        proposal_candidates(oracle, embedding, crop, ProposalMode(batch=3))
    )
    assert oracle.decoded[:-1] == [3] * (n_pauses - 1)
    masks = {c.mask.tobytes() for c in found}
    assert len(masks) == truth.max()
    for each in found:
        number = truth[each.box.slices][each.mask][0]
        whole = np.zeros(truth.shape, bool)
        whole[each.box.slices] = each.mask
        np.testing.assert_array_equal(whole, truth == number)
        # no empty rim
        assert each.mask.any(axis=1)[[0, -1]].all()
        assert each.mask.any(axis=0)[[0, -1]].all()
        y, x = each.point
        assert truth[round(y), round(x)] == number
        assert each.predicted_iou == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_predicted_iou", 0.95), ("min_stability", 1.01), ("min_foreground", 1.01)],
)
def test_thresholds_of_proposals_drop_candidates(truth, name, value):
    oracle, embedding, crop = crop_of(truth, 4)
    mode = ProposalMode(**{name: value})
    assert result(proposal_candidates(oracle, embedding, crop, mode))[0] == []


def lenient(**others):
    """Thresholds that let a random network pass, which is sure of nothing."""
    return ProposalMode(
        min_predicted_iou=-9,
        min_stability=0,
        min_foreground=0,
        foreground=0.3,
        **others,
    )


@pytest.mark.usefixtures("two_threads")
def test_batches_and_threads_do_not_change_the_result(tiny_sam):
    image = np.random.default_rng(0).integers(0, 256, (100, 128), dtype=np.uint8)
    plane = open_plane(image, tiny_sam)
    crop, embedding = plane.grid[0], plane.of(plane.grid[0])
    found = []
    for batch, n_threads in ((1, 1), (7, 1), (64, 1), (1, 2), (7, 2)):
        torch.set_num_threads(n_threads)
        work = proposal_candidates(tiny_sam, embedding, crop, lenient(batch=batch))
        found.append(result(work)[0])
    assert len(found[0]) > 0
    for other in found[1:]:
        assert len(other) == len(found[0])
        for a, b in zip(found[0], other, strict=True):
            assert a.iou(b) > 0.99
            assert a.predicted_iou == pytest.approx(b.predicted_iou, abs=1e-4)


def test_parts_win_over_a_group_that_is_more_sure_of_itself():
    truth = np.zeros((32, 32), np.uint32)
    truth[4:12, 4:12], truth[4:12, 13:21], truth[14:22, 4:21] = 1, 2, 3
    oracle, embedding, crop = crop_of(truth, 4)
    oracle.group_score = 0.95

    def areas(crowding):
        mode = ProposalMode(crowding=crowding)
        made, _ = result(proposal_candidates(oracle, embedding, crop, mode))
        return sorted(c.area for c in without_duplicates(made, crop.box))

    assert areas(crowding=0.1) == [64, 64, 136]
    assert areas(crowding=0.0) == [264]


def test_our_own_network_looks_at_windows_and_others_at_the_whole_crop():
    with torch.device("meta"):  # shapes without memory
        ours, published = Sam(VARIANTS["default"]), Sam(VARIANTS["vit_t"])
    # in patches of 16 px
    assert proposals._window(ours, ProposalMode()) == 16
    assert proposals._window(published, ProposalMode()) == 64
    assert proposals._window(published, ProposalMode(window=384)) == 24


def test_small_objects_are_asked_in_windows_of_half_the_side():
    with torch.device("meta"):
        ours = Sam(VARIANTS["default"])
    sizes = np.array([10.0, 47.9, 48.1], np.float32)  # pixels
    for mode, voted, expected in (
        (ProposalMode(), sizes, [8, 8, 16]),
        (ProposalMode(), None, [16, 16, 16]),
        (ProposalMode(window=256), sizes, [16, 16, 16]),
    ):
        assert proposals._first_sides(ours, mode, voted, 3).tolist() == expected


class TestFarFromTheCore:
    """An object that cannot reach into the core is left to the crop next door."""

    def test_how_far_depends_on_the_size_that_is_voted_for(self):
        # at scale 2 the core's borders lie at 64 and 192 px of the frame
        crop = Crop(0, 0, 0, Box(0, 0, 128, 128), Box(32, 32, 96, 96), (256, 256))
        # centres at 14, 62, 194 and 242 px
        peaks = np.array([[3, 30], [15, 30], [30, 48], [60, 60]])
        sizes = np.array([33.9, 1, 1, 55], np.float32)
        far = proposals._are_far(crop, peaks, sizes)
        # 50 px above; 2 px above; 2 px beside; 71 px from the corner
        assert far.tolist() == [True, False, False, False]
        sizes[[0, 3]] = 34.1, 54
        assert proposals._are_far(crop, peaks, sizes).tolist() == [False] * 3 + [True]
        assert not proposals._are_far(crop, peaks, None).any()

    @torch.inference_mode()
    def test_the_others_are_answered_as_before(self):
        model = own_network()
        embedding = torch.randn(1, *model.embedding_shape)
        whole, left = Box(0, 0, 512, 512), Box(0, 0, 512, 128)

        def found(core):
            crop = Crop(0, 0, 0, whole, core, (512, 512))
            work = proposal_candidates(model, embedding, crop, lenient(min_share=0.01))
            return {c.point: (c.box, c.mask.tobytes()) for c in result(work)[0]}

        everything, near = found(whole), found(left)
        assert 0 < len(near) < len(everything)
        assert near.items() <= everything.items()
        assert all(x - 128 > 16 for _, x in everything.keys() - near.keys())


@torch.inference_mode()
@pytest.mark.parametrize("has_votes", [False, True])
def test_what_is_seen_alike_is_answered_alike_wherever_it_lies(has_votes):
    model = own_network(has_votes=has_votes)
    embedding = torch.randn(1, *model.embedding_shape)
    embedding[..., 16:32, 14:30] = embedding[..., 0:16, 1:17]
    _, windows = proposals._Windows.of(model, embedding)
    whole = Box(0, 0, 512, 512)
    crop = Crop(0, 0, 0, whole, whole, (512, 512))
    corners = np.array([[0, 1], [16, 14]])
    points = corners * 16.0 + (77, 130)
    if has_votes:  # the head's own answer is that of the crop: let it see the same
        edges = windows.details.edges.unflatten(1, (32, 32, 16))
        edges[:, 16:32, 14:30] = edges[:, 0:16, 1:17]
        votes, shift = windows.details.votes, torch.tensor([208.0, 256, 208, 256])
        votes[..., 64:128, 56:120] = votes[..., 0:64, 4:68]
        votes[:, [0, 1, 4, 5], 64:128, 56:120] += shift[:, None, None]
    part, shifts = windows.prepare(corners, 16)
    if has_votes:  # such weights are decoded in float32, encoded or not
        model.precision = "bfloat16"
        _, low = proposals._Windows.of(model, embedding)
        assert low.prepare(corners, 16)[0].source.dtype == torch.float32
        model.precision = "float32"
    logits, _ = decode_points(model, part, crop, points, shifts=shifts)
    torch.testing.assert_close(logits[0], logits[1])
    # said to lie where they lie they are not
    assert not torch.allclose(
        *model.decode(
            model.prepare(model.place(embedding), details=windows.details).windows(
                corners.tolist(), 16
            ),
            points=torch.from_numpy(points[:, None, ::-1].astype(np.float32)),
            labels=torch.ones(2, 1),
        )[0],
        atol=0.01,
    )


class TestWindows:
    """A window of 3 patches is 12 px of the plane."""

    mode = ProposalMode(window=48)

    def test_they_give_the_same_answers(self):
        truth = discs()
        oracle, embedding, crop = crop_of(truth, 4)
        whole, _ = result(proposal_candidates(oracle, embedding, crop, ProposalMode()))
        n_prompts = sum(oracle.decoded)
        del oracle.decoded[:], oracle.seen[:]
        found, _ = result(proposal_candidates(oracle, embedding, crop, self.mode))
        assert {(c.box, c.mask.tobytes(), c.point) for c in found} == {
            (c.box, c.mask.tobytes(), c.point) for c in whole
        }
        in_windows = sum(
            n for n, s in zip(oracle.decoded, oracle.seen, strict=True) if s == (3, 3)
        )
        assert in_windows == n_prompts

    def test_only_objects_that_reach_beyond_ask_the_whole_crop(self):
        truth = np.zeros((32, 32), np.uint32)
        truth[2:6, 2:6] = 1
        truth[18:22, 18:22] = 2
        truth[12:14, 2:30] = 3
        oracle, embedding, crop = crop_of(truth, 4)
        found, _ = result(proposal_candidates(oracle, embedding, crop, self.mode))
        asked = list(zip(oracle.seen, oracle.decoded, strict=True))
        assert asked == [((3, 3), 3), ((8, 8), 1)]
        assert sorted(c.area for c in found) == [16, 16, 56]

    def test_windows_grow_until_the_object_fits(self, monkeypatch):
        truth = np.zeros((32, 32), np.uint32)
        truth[2:6, 2:6] = 1
        truth[18:22, 14:28] = 2
        truth[10:12, 2:30] = 3
        truth[26:30, 2:6] = 4
        oracle, embedding, crop = crop_of(truth, 4)
        # in patches of 4 px of the plane, top to bottom
        first = np.array([3, 3, 3, 5])
        monkeypatch.setattr(proposals, "_first_sides", lambda *_: first)
        mode = ProposalMode(window=80)
        found, _ = result(proposal_candidates(oracle, embedding, crop, mode))
        asked = list(zip(oracle.seen, oracle.decoded, strict=True))
        assert asked == [((3, 3), 3), ((5, 5), 3), ((8, 8), 1)]
        assert [c.area for c in found] == [16, 56, 56, 16]

    def test_the_edge_of_the_crop_is_no_edge_of_a_window(self):
        truth = np.zeros((32, 24), np.uint32)  # the frame goes on to the right
        truth[0:4, 0:3] = 1
        truth[28:32, 20:24] = 2
        oracle, embedding, crop = crop_of(truth, 4)
        found, _ = result(proposal_candidates(oracle, embedding, crop, self.mode))
        assert set(oracle.seen) == {(3, 3)}
        assert sorted(c.area for c in found) == [12, 16]

    def test_prompts_of_several_windows_share_a_call(self):
        truth = np.zeros((32, 32), np.uint32)
        for i, (y, x) in enumerate([(4, 4), (4, 26), (16, 14), (28, 5)], start=1):
            truth[y, x] = i
        oracle, embedding, crop = crop_of(truth, 4)
        found, _ = result(proposal_candidates(oracle, embedding, crop, self.mode))
        assert oracle.decoded == [4]
        assert [c.point for c in found] == [(4, 4), (4, 26), (16, 14), (28, 5)]

    def test_the_prompt_lies_in_the_middle_of_its_window(self):
        peaks = np.array([[0, 2], [17, 30], [31, 31], [19, 16]])  # 4 cells a patch
        corners = proposals._corners(peaks, (32, 40), 3)
        # its patch is the second of three, except where the window would leave the map
        assert corners.tolist() == [[0, 0], [3, 6], [5, 6], [3, 3]]


@pytest.mark.parametrize(
    ("shape", "agreement"), [((128, 128), 1.0), ((100, 128), 1.0), ((96, 60), 0.95)]
)
def test_masks_of_proposals_are_those_of_upscaled_logits(tiny_sam, shape, agreement):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    plane = open_plane(image, tiny_sam)
    crop, embedding = plane.grid[0], plane.of(plane.grid[0])
    found, _ = result(
        proposal_candidates(tiny_sam, embedding, crop, lenient(crowding=0))
    )
    assert found
    for each in found:
        y, x = crop.to_input([each.point])[0]
        with torch.inference_mode():
            logits, iou = tiny_sam.decode(
                embedding,
                points=torch.tensor([[[x, y]]], dtype=torch.float32),
                labels=torch.ones(1, 1),
            )
            full = tiny_sam.upscale(logits, crop.input_shape, shape)[0]
        # the mean of the masks, in which those that are worth less hardly count
        shares = torch.softmax(iou[0] / proposals._CLOSE, 0)
        expected = (shares[:, None, None] * full).sum(0).numpy() > 0
        mask = np.zeros(shape, bool)
        mask[each.box.slices] = each.mask
        union = (mask | expected).sum()
        assert (mask & expected).sum() >= agreement * union


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"foreground": 1.0}, "0 to 1"),
        ({"batch": 0}, "1 or more"),
        ({"smoothing": -1}, "negative"),
        ({"window": 16}, "48 px or more"),
    ],
)
def test_impossible_thresholds_are_refused(thresholds, message):
    with pytest.raises(InputError, match=message):
        ProposalMode(**thresholds)


def test_of_masks_worth_nearly_the_same_neither_is_chosen_by_chance():
    y, x = np.indices((32, 32))
    inside = -np.hypot(y - 16, x - 16)
    discs = np.stack([inside + radius for radius in (6, 10, 14)]).astype(np.float32)

    def chosen(*ious):
        return proposals._Answers.best(
            torch.from_numpy(discs)[None],
            torch.tensor([ious]),
            np.zeros((1, 2), np.int64),
            np.array([[16, 16]]),
            (32, 32),
            ProposalMode(),
        )

    between = chosen(0.8, 0.8, 0.2)
    np.testing.assert_allclose(between.logits[0], inside + 8, atol=1e-5)
    first, second = chosen(0.801, 0.799, 0.2), chosen(0.799, 0.801, 0.2)
    share = 1 / (1 + np.exp(-0.002 / proposals._CLOSE))  # of the better one: 0.6
    for each, radius in ((first, 10 - 4 * share), (second, 6 + 4 * share)):
        np.testing.assert_allclose(each.logits[0], inside + radius, atol=1e-4)
    assert second.predicted_iou[0] == np.float32(0.801)
    clear = chosen(0.5, 0.9, 0.2)
    np.testing.assert_allclose(clear.logits[0], discs[1], atol=1e-4)
