from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_sam import masks as module
from napari_sam.errors import InputError
from napari_sam.masks import (
    Candidate,
    boundary_depth,
    box_nms,
    boxes_of,
    mask_iou,
    remove_small,
    stability_scores,
)
from napari_sam.tiling import Box

sides = st.integers(1, 12)
masks = hnp.arrays(bool, st.tuples(sides, sides))
neighbours = {
    4: [(-1, 0), (1, 0), (0, -1), (0, 1)],
    8: [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx],
}


def parts_by_hand(mask: np.ndarray, n_neighbours: int) -> list[set[tuple[int, int]]]:
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    parts = []
    while left:
        front = [left.pop()]
        part = set(front)
        while front:
            y, x = front.pop()
            near = {(y + dy, x + dx) for dy, dx in neighbours[n_neighbours]} & left
            left -= near
            part |= near
            front.extend(near)
        parts.append(part)
    return parts


class TestBoxes:
    @given(hnp.arrays(bool, st.tuples(st.integers(1, 4), sides, sides)))
    def test_are_the_smallest_around_each_mask(self, batch):
        found = boxes_of(torch.from_numpy(batch))
        assert found.dtype == torch.int64
        for mask, box in zip(batch, found.tolist(), strict=True):
            y, x = np.nonzero(mask)
            expected = (
                [y.min(), x.min(), y.max() + 1, x.max() + 1] if y.size else [0] * 4
            )
            assert box == expected

    @pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6), (2, 5, 0)])
    def test_of_nothing(self, shape):
        assert boxes_of(torch.zeros(shape, dtype=torch.bool)).tolist() == [
            [0] * 4 for _ in range(shape[0])
        ]


class TestStability:
    @given(
        hnp.arrays(
            np.float32,
            st.tuples(st.integers(1, 3), st.integers(1, 2), sides, sides),
            elements=st.floats(-4, 4, width=32),
        ),
        st.floats(-1, 1),
        st.floats(0, 2),
    )
    def test_is_the_iou_of_two_thresholds(self, logits, threshold, offset):
        found = stability_scores(torch.from_numpy(logits), threshold, offset)
        assert found.shape == logits.shape[:2]
        # the thresholds are compared in the precision of the logits
        upper, lower = np.float32(threshold + offset), np.float32(threshold - offset)
        for i in np.ndindex(found.shape):
            iou = mask_iou(logits[i] > upper, logits[i] > lower)
            assert found[i].item() == pytest.approx(iou)

    def test_known_values(self):
        logits = torch.tensor([[5.0, 5.0, 0.5, -5.0], [-9.0] * 4])[:, None]
        assert stability_scores(logits).tolist() == pytest.approx([2 / 3, 0])

    def test_counts_of_half_precision_do_not_round(self):
        logits = torch.full((1, 300, 300), 5.0, dtype=torch.bfloat16)
        logits[0, 0, 0] = 0.5
        assert stability_scores(logits)[0].item() == pytest.approx(1 - 1 / 90_000)


class TestSuppression:
    @given(
        st.lists(
            st.tuples(st.integers(0, 20), st.integers(0, 20), sides, sides), max_size=12
        ),
        st.data(),
        st.sampled_from([0, 0.2, 0.5, 0.7, 1]),
    )
    def test_equals_a_loop_over_pairs(self, places, data, threshold):
        boxes = [Box(y, x, y + h, x + w) for y, x, h, w in places]
        score = st.integers(0, 4).map(lambda n: n / 4)  # with ties
        scores = data.draw(
            st.lists(score, min_size=len(boxes), max_size=len(boxes))
        )  # fmt: skip
        kept: list[int] = []
        for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
            overlaps = []
            for j in kept:
                shared = boxes[i].intersection(boxes[j])
                area = shared.area if shared else 0
                union = boxes[i].area + boxes[j].area - area
                overlaps.append(area > threshold * union)
            if not any(overlaps):
                kept.append(i)
        found = box_nms(
            torch.tensor([[b.y0, b.x0, b.y1, b.x1] for b in boxes]).reshape(-1, 4),
            torch.tensor(scores),
            threshold,
        )
        assert found.tolist() == kept
        assert found.dtype == torch.int64

    def test_an_overlap_equal_to_the_threshold_stays(self):
        boxes = torch.tensor([[0, 0, 2, 4], [0, 0, 2, 2]])  # IoU 0.5
        scores = torch.tensor([0.5, 0.9])
        assert box_nms(boxes, scores, 0.5).tolist() == [1, 0]
        assert box_nms(boxes, scores, 0.49).tolist() == [1]

    def test_empty_boxes_are_nobodys_duplicates(self):
        boxes = torch.zeros(3, 4)
        assert box_nms(boxes, torch.tensor([0.1, 0.3, 0.2]), 0.5).tolist() == [1, 2, 0]


class TestIou:
    @given(masks, st.data())
    def test_equals_sets_of_pixels(self, a, data):
        b = data.draw(hnp.arrays(bool, a.shape))
        first, second = set(map(tuple, np.argwhere(a))), set(map(tuple, np.argwhere(b)))
        union = len(first | second)
        assert mask_iou(a, b) == (len(first & second) / union if union else 0)

    def test_shapes_must_agree(self):
        with pytest.raises(InputError, match=r"\(2, 3\) and \(3, 2\)"):
            mask_iou(np.ones((2, 3), bool), np.ones((3, 2), bool))


class TestSmallParts:
    @given(masks, st.integers(0, 20))
    def test_islands(self, mask, area):
        parts = parts_by_hand(mask, 8)
        large = [part for part in parts if len(part) >= area]
        found = remove_small(mask, area, "islands")
        if large or not parts:
            expected = np.zeros_like(mask)
            for y, x in set().union(*large):
                expected[y, x] = True
            assert np.array_equal(found, expected)
        else:
            (stayed,) = parts_by_hand(found, 8)
            assert stayed in parts
            assert len(stayed) == max(map(len, parts))

    @given(masks, st.integers(0, 20))
    def test_holes(self, mask, area):
        expected = mask.copy()
        height, width = mask.shape
        for part in parts_by_hand(~mask, 4):
            open_ = any(y in (0, height - 1) or x in (0, width - 1) for y, x in part)
            if len(part) < area and not open_:
                for y, x in part:
                    expected[y, x] = True
        assert np.array_equal(remove_small(mask, area, "holes"), expected)

    @pytest.mark.parametrize("kind", ["islands", "holes"])
    def test_the_mask_given_stays_as_it_is(self, kind):
        mask = np.pad(np.ones((3, 3), bool), 2)
        mask[3, 3], mask[0, 0] = False, True
        before = mask.copy()
        assert not np.array_equal(remove_small(mask, 5, kind), before)
        assert np.array_equal(mask, before)

    @pytest.mark.parametrize("kind", ["islands", "holes"])
    @pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
    def test_of_nothing(self, kind, shape):
        assert remove_small(np.zeros(shape, bool), 5, kind).shape == shape

    def test_refuses_another_word(self):
        with pytest.raises(InputError, match="kind 'spots'"):
            remove_small(np.ones((2, 2), bool), 5, "spots")  # type: ignore[arg-type]


@st.composite
def candidates(draw):
    mask = draw(masks)
    y0, x0 = draw(st.integers(0, 15)), draw(st.integers(0, 15))
    return Candidate(Box(y0, x0, y0 + mask.shape[0], x0 + mask.shape[1]), mask)


def on_a_plane(candidate: Candidate) -> np.ndarray:
    plane = np.zeros((40, 40), bool)
    plane[candidate.box.slices] = candidate.mask
    return plane


class TestCandidate:
    @given(candidates(), candidates())
    def test_overlap_equals_that_on_the_plane(self, a, b):
        assert a.area == on_a_plane(a).sum()
        assert a.overlap(b) == (on_a_plane(a) & on_a_plane(b)).sum()
        assert a.iou(b) == mask_iou(on_a_plane(a), on_a_plane(b))

    @given(candidates(), st.tuples(*[st.integers(0, 20)] * 4))
    def test_within_a_region_equals_the_plane(self, candidate, place):
        y, x, height, width = place
        region = Box(y, x, y + height, x + width)
        found = candidate.within(region)
        assert np.array_equal(found, on_a_plane(candidate)[region.slices])

    def test_mask_and_box_must_agree(self):
        with pytest.raises(InputError, match=r"\(3, 4\) in Box.*the 4 x 3 px"):
            Candidate(Box(0, 0, 4, 3), np.ones((3, 4), bool))


class TestBoxNms:
    """Greedy suppression, near and far, many and few."""

    @staticmethod
    def plain(boxes, scores, iou):
        """Every box against every kept one."""
        kept = []
        for i in scores.argsort(descending=True, stable=True).tolist():
            y0, x0, y1, x1 = boxes[i].tolist()
            for j in kept:
                b = boxes[j].tolist()
                height = max(min(y1, b[2]) - max(y0, b[0]), 0)
                width = max(min(x1, b[3]) - max(x0, b[1]), 0)
                union = (y1 - y0) * (x1 - x0) + (b[2] - b[0]) * (b[3] - b[1])
                if height * width > iou * (union - height * width):
                    break
            else:
                kept.append(i)
        return kept

    @pytest.mark.parametrize("iou", [0.0, 0.3, 0.7, 1.0])
    @pytest.mark.parametrize("side", [30, 300, 3000])  # crowded to sparse
    @pytest.mark.parametrize("few", [0, 1000])
    def test_many_boxes_of_all_sizes(self, monkeypatch, side, iou, few):
        monkeypatch.setattr(module, "_FEW", few)
        rng = np.random.default_rng(side)
        first = rng.integers(0, side, (400, 2))
        size = np.exp(rng.uniform(0, 5, (400, 2))).astype(int)  # 1 to 148
        size[:5] = side  # and some around everything
        boxes = torch.from_numpy(np.concatenate([first, first + size], axis=1))
        boxes = torch.cat([boxes, boxes[:50]])  # twice the same
        scores = torch.from_numpy(rng.integers(0, 40, 450) / 40)  # with ties
        found = box_nms(boxes, scores, iou).tolist()
        assert found == self.plain(boxes, scores, iou)

    def test_far_boxes_are_not_compared(self, monkeypatch):
        n_compared = 0
        overlaps = module._suppressed

        def counted(best, others, iou):
            nonlocal n_compared
            n_compared += len(others)
            return overlaps(best, others, iou)

        monkeypatch.setattr(module, "_suppressed", counted)
        y, x = np.mgrid[:100, :100].reshape(2, -1) * 20
        boxes = torch.from_numpy(np.stack([y, x, y + 25, x + 25], axis=1))
        assert len(box_nms(boxes, torch.rand(10_000), 0.7)) == 10_000
        assert n_compared <= 50 * 10_000  # all pairs are 50 million


def test_boundary_depth_is_the_distance_to_what_is_outside():
    mask = np.random.default_rng(0).random((7, 9)) < 0.8
    outside = np.argwhere(~np.pad(mask, 1)) - 1  # beyond the array, too
    expected = [
        [np.hypot(*(outside - (y, x)).T).min() * mask[y, x] for x in range(9)]
        for y in range(7)
    ]
    np.testing.assert_allclose(boundary_depth(mask), expected)
