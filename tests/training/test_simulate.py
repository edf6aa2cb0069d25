"""Simulated prompts: where they fall, against masks of known shape."""

import pytest
import torch

from napari_sam.training.simulate import (
    boxes_of,
    depth_weights,
    error_points,
    noised_boxes,
    random_points,
)


def disc(size: int, y: float, x: float, radius: float) -> torch.Tensor:
    rows, columns = torch.meshgrid(
        torch.arange(size), torch.arange(size), indexing="ij"
    )
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_random_points_lie_inside_and_reach_every_pixel():
    mask = torch.zeros(1, 16, 16)
    mask[0, 3:5, 7:10] = 1
    points = random_points(mask.expand(4000, -1, -1), 2.0, seeded())
    # Pixels 3 and 4 of 2 px each cover window pixels 6 to 9, edges 5.5 to 9.5.
    assert points[:, 1].min() >= 5.5
    assert points[:, 1].max() <= 9.5
    assert points[:, 0].min() >= 13.5
    assert points[:, 0].max() <= 19.5
    cells = ((points + 0.5) / 2).long()
    counts = torch.bincount(cells[:, 1] * 16 + cells[:, 0], minlength=256)
    hit = counts[counts > 0]
    assert len(hit) == 6
    assert hit.min() > 4000 / 6 * 0.8


def test_careful_clicks_fall_by_the_distance_to_the_boundary():
    regions = torch.zeros(2, 9, 9, dtype=torch.bool)
    regions[0, :, 2:7] = True  # to both ends of the array, which are boundary too
    weights = depth_weights(regions)
    row = [0, 0, *((n / 3) ** 4 for n in (1, 2, 3, 2, 1)), 0, 0]
    assert weights[0, 4].tolist() == pytest.approx(row)
    assert weights[0, 0].max() == pytest.approx((1 / 3) ** 4)
    assert not weights[1].any()  # an empty region has no weights


def test_half_of_the_careful_clicks_into_a_disc_fall_into_its_inner_quarter():
    mask = disc(256, 128, 128, 100)[None]
    weights = depth_weights(mask)[0]
    inner = disc(256, 128, 128, 26.4)
    assert abs(weights[inner].sum() / weights.sum() - 0.5) < 0.02


def test_boxes_are_tight_with_half_open_edges():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, 2:5, 1:7] = True
    masks[1, 7, 0] = True
    boxes = boxes_of(masks, 4.0)
    assert boxes.tolist() == [[3.5, 7.5, 27.5, 19.5], [-0.5, 27.5, 3.5, 31.5]]


def test_box_noise_is_a_tenth_of_the_side_and_at_most_20_px():
    boxes = torch.tensor([[100.0, 100.0, 150.0, 200.0]]).expand(20_000, -1)
    noise = noised_boxes(boxes, seeded()) - boxes
    width, height = noise[:, 0::2].flatten(), noise[:, 1::2].flatten()
    assert abs(width.std() - 5) < 0.2
    # Sides of 100 px: noise of 10 px, cut at two standard deviations.
    assert 8.5 < height.std() < 10
    assert noise.abs().max() == 20


def test_a_careful_annotator_draws_closer_boxes_each_in_its_own_measure():
    boxes = torch.tensor([[100.0, 100.0, 150.0, 150.0]]).expand(20_000, -1)
    noise = noised_boxes(boxes, seeded(), careful=True) - boxes
    # A normal times an even share of 5 px: the variance is a third.
    assert abs(noise.std() - 5 / 3**0.5) < 0.1
    # The edges of one box share a measure, so the sizes of their noise go together.
    pairs = noise.abs()[:, :2].T
    assert torch.corrcoef(pairs)[0, 1] > 0.2


def test_a_noised_box_never_turns_inside_out():
    boxes = torch.tensor([[10.0, 10.0, 11.0, 12.0]]).expand(1000, -1)
    noised = noised_boxes(boxes, seeded())
    assert (noised[:, 2:] >= noised[:, :2]).all()


def test_error_points_ask_for_what_was_missed_and_refuse_what_was_taken():
    target = torch.stack([disc(32, 10, 10, 6), disc(32, 10, 10, 6)])
    logits = torch.full((2, 32, 32), -5.0)
    logits[1][disc(32, 10, 10, 6) | disc(32, 24, 24, 4)] = 5.0
    for seed in range(20):
        points, labels = error_points(logits, target, 1.0, seeded(seed))
        assert labels.tolist() == [1, 0]
        x, y = points.round().long().T
        assert target[0, y[0], x[0]]
        assert disc(32, 24, 24, 4.8)[y[1], x[1]]


def test_a_perfect_answer_gets_another_positive_point():
    target = disc(16, 8, 8, 4)[None]
    logits = target.float() * 2 - 1
    _, labels = error_points(logits, target, 1.0, seeded())
    assert labels.tolist() == [1]
