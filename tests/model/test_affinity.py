"""Votes and prompts: known discs, and a place by place oracle."""

import math

import pytest
import torch

from napari_sam.model.affinity import UNIT, Affinity, Quality, Seeds, read_votes

SIDE = 32  # cells of 4 pixels


@pytest.fixture
def affinity():
    torch.manual_seed(0)
    affinity = Affinity(8)
    for parameter in affinity.adjust[2].parameters():
        torch.nn.init.zeros_(parameter)  # as the gains say
    return affinity


def discs():
    """Two touching discs: ids (SIDE, SIDE), and perfect votes for their centres."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    labels = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    for number, column in ((1, 9), (2, 21)):
        labels[(y - 16) ** 2 + (x - column) ** 2 <= 36] = number
    raw = torch.zeros(1, 3, SIDE, SIDE)
    for number in (1, 2):
        inside = labels == number
        rows, columns = y[inside].float(), x[inside].float()
        raw[0, 0, inside] = (columns.mean() - columns) * 4 / UNIT
        raw[0, 1, inside] = (rows.mean() - rows) * 4 / UNIT
        raw[0, 2, inside] = math.log(4 * len(rows) ** 0.5 / UNIT)
    foreground = torch.where(labels > 0, 6.0, -6.0)[None, None]
    return labels, read_votes(raw, foreground, (0, 0))


def ask(affinity, votes, points=None, labels=None, boxes=None):
    seeds = Seeds.of(
        None if points is None else torch.tensor([points], dtype=torch.float32),
        None if labels is None else torch.tensor([labels]),
        None if boxes is None else torch.tensor([boxes], dtype=torch.float32),
    )
    return affinity(votes, seeds, torch.zeros(1, 1, 8))[0, 0]


def iou(logits, truth):
    mask = logits > 0
    return ((mask & truth).sum() / (mask | truth).sum()).item()


@torch.inference_mode()
@pytest.mark.parametrize(
    ("x", "number"), [(9, 1), (5, 1), (14, 1), (16, 2), (21, 2), (26, 2)]
)
def test_a_click_anywhere_in_a_disc_is_answered_by_the_disc(affinity, x, number):
    labels, votes = discs()
    logits = ask(affinity, votes, [(4 * x + 1.5, 4 * 16 + 1.5)], [1])
    assert iou(logits, labels == number) == 1


@torch.inference_mode()
def test_clicks_join_and_part_discs(affinity):
    labels, votes = discs()
    places = [(4 * 9, 4 * 16), (4 * 21, 4 * 16)]
    assert iou(ask(affinity, votes, places, [1, 1]), labels > 0) == 1
    assert iou(ask(affinity, votes, places, [1, 0]), labels == 1) == 1
    assert iou(ask(affinity, votes, places, [1, -1]), labels == 1) == 1


@torch.inference_mode()
def test_a_box_is_answered_by_what_lies_in_it(affinity):
    labels, votes = discs()
    y, x = torch.nonzero(labels == 2, as_tuple=True)
    box = [
        4 * int(x.min()),
        4 * int(y.min()),
        4 * int(x.max()) + 4,
        4 * int(y.max()) + 4,
    ]
    assert iou(ask(affinity, votes, boxes=box), labels == 2) > 0.95
    # Without any sign of an object there is still the box.
    empty = votes.clone()
    empty[:, 3] = 0
    logits = ask(affinity, empty, boxes=box)
    assert not (logits > 0)[labels == 1].any()


@torch.inference_mode()
def test_windows_know_where_they_lie(affinity):
    _, votes = discs()
    whole = ask(affinity, votes, [(4 * 9, 4 * 16)], [1])
    part = votes[..., 4:28, 4:20]
    found = ask(affinity, part, [(4 * 9, 4 * 16)], [1])
    torch.testing.assert_close(found, whole[4:28, 4:20])
    # A negative click that the window does not show counts for nothing.
    found = ask(affinity, part, [(4 * 9, 4 * 16), (4 * 30, 4 * 30)], [1, 0])
    torch.testing.assert_close(found, whole[4:28, 4:20])


@torch.inference_mode()
def test_a_negative_click_in_the_object_itself_cuts_off_a_part(affinity):
    labels, votes = discs()
    places = [(4 * 7 + 1.5, 4 * 16 + 1.5), (4 * 13 + 1.5, 4 * 16 + 1.5)]
    mask = ask(affinity, votes, places, [1, 0]) > 0
    assert mask[16, 7]
    assert not mask[16, 13]
    assert mask[labels == 1].float().mean() > 0.5


def test_the_expected_iou_is_that_of_the_probabilities():
    quality = Quality()
    seen = []
    quality.layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = torch.full((1, 1, 4, 4), -2.0)
    logits[0, 0, :2] = 1.0
    assert quality(logits).item() == 0  # not trained yet
    inside, outside = 8 / (1 + math.exp(-1)), 8 / (1 + math.exp(2))
    expected, certainty, soft, size = seen[0][0, 0].tolist()
    assert expected == pytest.approx(inside / (8 + outside), rel=1e-5)
    assert certainty == pytest.approx(inside / 8, rel=1e-5)
    assert soft == pytest.approx((8 - inside) / (outside + 8 - inside), rel=1e-5)
    assert size == pytest.approx(math.log(9) / 8, rel=1e-5)


@torch.inference_mode()
def test_each_prompt_may_look_at_a_window_of_its_own(affinity):
    _, votes = discs()
    places = [[(4 * 9.0, 4 * 16.0)], [(4 * 21.0, 4 * 16.0)]]
    parts = torch.cat([votes[..., 8:24, 0:16], votes[..., 8:24, 14:30]])
    seeds = Seeds.of(torch.tensor(places), torch.ones(2, 1), None)
    found = affinity(parts, seeds, torch.zeros(2, 1, 8))
    for i, columns in enumerate((slice(0, 16), slice(14, 30))):
        alone = ask(affinity, votes, places[i], [1])[8:24, columns]
        torch.testing.assert_close(found[i, 0], alone)


def test_logits_are_the_weighed_maps_of_each_place(affinity):
    torch.manual_seed(1)
    for parameter in affinity.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    votes = read_votes(
        torch.randn(1, 3, SIDE, SIDE), torch.randn(1, 1, SIDE, SIDE), (0, 0)
    )
    points = torch.tensor([[[40.0, 50.0], [90.0, 20.0], [5.0, 120.0]]])
    box = torch.tensor([[20.0, 30.0, 80.0, 70.0]])
    tokens = torch.randn(1, 2, 8)
    seeds = Seeds(points, torch.tensor([[1, 0, 1]]), box)
    found = affinity(votes, seeds, tokens)
    size = (60.0 * 40.0) ** 0.5
    voted = [
        votes[0, :, int((y + 0.5) // 4), int((x + 0.5) // 4)] for x, y in points[0]
    ]
    for k in range(2):
        adjusted = affinity.adjust(tokens[0, k])
        shift = adjusted[:2] * 0.25 * size
        radius = 0.4 * size * adjusted[2].clamp(-1.5, 1.5).exp()
        gains = affinity.gains + adjusted[3:]
        middle = torch.tensor([50.0, 50.0])
        own = [voted[0][:2], voted[2][:2], middle]
        for row, column in ((3, 7), (11, 12), (30, 2)):
            at = votes[0, :, row, column]
            centre, place = at[:2], at[4:]

            def near(seeds, radius, to):
                nearest = min((to - seed).square().sum() for seed in seeds)
                return torch.exp(-nearest / (2 * radius**2))

            apart = (place - middle).abs() * 2 / torch.tensor([60.0, 40.0])
            usual, little = torch.tensor(0.4 * size), torch.tensor(0.15 * size)
            against = near([voted[1][:2]], usual, centre) - near(own, usual, centre)
            at_positive = near(points[0, [0, 2]], little, place)
            at_negative = near(points[0, [1]], little, place) - at_positive
            maps = torch.stack(
                [
                    near([seed + shift for seed in own], radius, centre),
                    against.clamp(min=0),
                    4 * torch.tanh(at[3] / 4),
                    near(own, torch.tensor(size), place),
                    -(apart.max() - 1).clamp(0, 2),
                    (1 - apart.square().sum()).clamp(-1, 1),
                    at_positive,
                    at_negative.clamp(min=0),
                    torch.ones(()),
                ]
            )
            expected = (gains * maps).sum()
            torch.testing.assert_close(
                found[0, k, row, column], expected, rtol=1e-4, atol=1e-4
            )


def test_what_no_prompt_has_is_left_out_without_a_trace(affinity):
    torch.manual_seed(2)
    for parameter in affinity.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    votes = read_votes(
        torch.randn(1, 3, SIDE, SIDE), torch.randn(1, 1, SIDE, SIDE), (0, 0)
    )
    points = torch.tensor([[[40.0, 50.0], [90.0, 20.0]], [[70.0, 30.0], [60.0, 90.0]]])
    labels = torch.tensor([[1, -1], [1, 0]])
    boxes = torch.tensor([[torch.nan] * 4, [20.0, 30.0, 80.0, 70.0]])
    tokens = torch.randn(2, 2, 8)
    # beside a prompt with a box and a negative point all maps are made
    together = affinity(votes, Seeds(points, labels, boxes), tokens)
    alone = affinity(votes, Seeds(points[:1], labels[:1], boxes[:1]), tokens[:1])
    torch.testing.assert_close(alone, together[:1])
