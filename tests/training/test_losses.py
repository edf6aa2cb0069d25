"""Losses against numpy sums written from the papers' formulas."""

import math

import numpy as np
import pytest
import torch

from napari_sam.model.affinity import UNIT
from napari_sam.training.losses import (
    OTHERS_WEIGHT,
    MaskLossWeights,
    centre_loss,
    cross_entropy_loss,
    dice_loss,
    focal_loss,
    iou_loss,
    mask_iou,
    mask_loss,
    proposal_loss,
    vote_loss,
)


@pytest.fixture
def pair():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(2, 3, 5, 4, generator=generator) * 3
    target = (torch.rand(2, 3, 5, 4, generator=generator) > 0.6).float()
    return logits, target


def test_focal_loss_is_lin_et_al_2017_equation_5(pair):
    logits, target = (t.double().numpy() for t in pair)
    probability = 1 / (1 + np.exp(-logits))
    p_t = np.where(target == 1, probability, 1 - probability)
    alpha_t = np.where(target == 1, 0.25, 0.75)
    expected = (-alpha_t * (1 - p_t) ** 2 * np.log(p_t)).mean(axis=(2, 3))
    np.testing.assert_allclose(focal_loss(*pair).numpy(), expected, rtol=1e-4)


def test_dice_loss_of_hard_masks_counts_pixels():
    mask = torch.zeros(1, 1, 10, 10)
    truth = mask.clone()
    mask[..., :4, :5] = 1  # 20 pixels
    truth[..., :4, 3:8] = 1  # 20 pixels, 8 of them shared
    expected = 1 - (2 * 8 + 1) / (20 + 20 + 1)
    logits = (mask * 2 - 1) * 50
    assert dice_loss(logits, truth).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("loss", [dice_loss, iou_loss])
def test_overlap_of_two_empty_masks_costs_nothing(loss):
    empty = torch.zeros(1, 1, 8, 8)
    assert loss(empty - 50, empty).item() == pytest.approx(0, abs=1e-6)


def test_iou_loss_of_hard_masks_is_their_iou(pair):
    logits, target = (pair[0] > 0) * 100.0 - 50, pair[1]
    mask, truth = logits.numpy() > 0, target.numpy() > 0
    shared = (mask & truth).sum(axis=(2, 3))
    union = (mask | truth).sum(axis=(2, 3))
    expected = 1 - (shared + 1) / (union + 1)
    np.testing.assert_allclose(iou_loss(logits, target).numpy(), expected, rtol=1e-5)


def test_cross_entropy_matches_its_definition(pair):
    logits, target = (t.double().numpy() for t in pair)
    p = 1 / (1 + np.exp(-logits))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(axis=(2, 3))
    np.testing.assert_allclose(cross_entropy_loss(*pair).numpy(), expected, rtol=1e-4)


def test_mask_iou_counts_and_calls_two_empty_masks_equal():
    logits = torch.full((1, 2, 4, 4), -1.0)
    logits[0, 0, 0, :3] = 1
    target = torch.zeros(1, 2, 4, 4)
    target[0, 0, 0, 1:4] = 1
    assert mask_iou(logits, target).tolist() == [[0.5, 1.0]]


def test_the_best_of_three_masks_learns_twenty_times_as_much_as_the_others():
    target = torch.zeros(1, 8, 8)
    target[0, 2:6, 2:6] = 1
    logits = torch.zeros(1, 3, 8, 8)
    logits[0, 1] = (target[0] * 2 - 1) * 4
    logits.requires_grad_()
    loss = mask_loss(logits, torch.zeros(1, 3), target)
    loss.total.backward()
    touched = logits.grad.abs().sum(dim=(0, 2, 3))
    assert touched[1] > 0
    alone = torch.zeros(1, 1, 8, 8, requires_grad=True)
    mask_loss(alone, torch.zeros(1, 1), target).total.backward()
    expected = OTHERS_WEIGHT / 2 * alone.grad.abs().sum().item()
    assert touched[0].item() == pytest.approx(expected, rel=1e-4)
    assert touched[2] == touched[0]
    assert loss.iou.item() == 1.0


def test_the_mask_that_is_shown_can_be_judged_instead_of_the_best():
    target = torch.zeros(1, 8, 8)
    target[0, 2:6, 2:6] = 1
    logits = torch.zeros(1, 3, 8, 8)
    logits[0, 1] = (target[0] * 2 - 1) * 4
    predicted = torch.tensor([[0.2, 0.3, 0.9]])  # the last is shown

    def touched(share):
        leaf = logits.clone().requires_grad_()
        weights = MaskLossWeights(chosen_share=share)
        mask_loss(leaf, predicted, target, weights).total.backward()
        return leaf.grad.abs().sum(dim=(0, 2, 3))

    best, shown, half = touched(0.0), touched(1.0), touched(0.5)
    assert best[1] > 0
    assert 0 < shown[1] < best[1] / 10  # the best one is now one of the others
    assert shown[2] > 10 * shown[0] > 0  # the others learn a little, as before
    torch.testing.assert_close(half, (best + shown) / 2)


def test_every_predicted_iou_is_trained_on_the_actual_one():
    target = torch.zeros(1, 4, 4)
    target[0, :2] = 1
    logits = torch.full((1, 3, 4, 4), -9.0)
    logits[0, 0, :2] = 9  # IoU 1
    logits[0, 1, :1] = 9  # IoU 0.5
    predicted = torch.tensor([[0.4, 0.4, 0.4]], requires_grad=True)
    loss = mask_loss(logits, predicted, target)
    expected = ((0.4 - 1) ** 2 + (0.4 - 0.5) ** 2 + 0.4**2) / 3
    assert loss.iou_error.item() == pytest.approx(expected, abs=1e-6)
    loss.total.backward()
    assert (predicted.grad != 0).all()


def test_the_ratio_of_focal_and_dice_is_twenty_to_one(pair):
    logits, target = pair
    total = mask_loss(logits[:, :1], torch.zeros(2, 1), target[:, 0]).total
    focal = focal_loss(logits[:, :1], target[:, :1])
    dice = dice_loss(logits[:, :1], target[:, :1])
    error = mask_iou(logits[:, :1], target[:, :1]).square().mean()
    expected = ((20 * focal + dice).mean() + error).item()
    assert total.item() == pytest.approx(expected, rel=1e-5)
    total = mask_loss(
        logits[:, :1], torch.zeros(2, 1), target[:, 0], MaskLossWeights(focal=3)
    ).total
    expected = ((3 * focal + dice).mean() + error).item()
    assert total.item() == pytest.approx(expected, rel=1e-5)
    total = mask_loss(
        logits[:, :1], torch.zeros(2, 1), target[:, 0], MaskLossWeights(0, 0, "iou")
    ).total
    expected = (iou_loss(logits[:, :1], target[:, :1]).mean() + error).item()
    assert total.item() == pytest.approx(expected, rel=1e-5)


def test_perfect_maps_cost_nothing_and_partial_labels_do_not_count():
    target = torch.zeros(2, 3, 8, 8)
    target[:, 0, 2:6, 2:6] = 1
    perfect = (target * 2 - 1) * 30
    assert proposal_loss(perfect, target, torch.ones(2)).item() < 1e-3
    wrong = perfect.clone()
    wrong[1] *= -1
    assert proposal_loss(wrong, target, torch.ones(2)).item() > 1
    assert proposal_loss(wrong, target, torch.tensor([1.0, 0.0])).item() < 1e-3


def test_votes_are_judged_by_the_size_of_the_object():
    target = torch.full((1, 3, 1, 2), torch.nan)
    target[0, :, 0, 0] = torch.tensor([8.0, -4.0, 20.0])
    votes = torch.zeros(1, 3, 1, 2)
    votes[0, :, 0, 0] = torch.tensor([8.0 + 10.0, -4.0, 0.0]) / UNIT
    votes[0, 2, 0, 0] = math.log(20 / UNIT) + 0.5
    votes[..., 1] = 100.0  # background
    # Half a size beside the centre, and the logarithm wrong by a half.
    expected = 2 * (0.5 - 0.025) + (0.5 - 0.05)
    assert vote_loss(votes, target).item() == pytest.approx(expected, rel=1e-4)
    assert vote_loss(votes, torch.full_like(target, torch.nan)).item() == 0


def test_the_centre_loss_counts_known_places_only():
    offsets = torch.zeros(1, 2, 1, 3)
    target = torch.tensor([[[[1.0, 0.05, torch.nan]], [[0.0, 0.0, torch.nan]]]])
    # Errors 1 (less half of 0.1, where the parabola ends) and 0.05 (squared).
    expected = ((1 - 0.05) + 0.5 * 0.05**2 / 0.1) / 4
    assert centre_loss(offsets, target).item() == pytest.approx(expected, abs=1e-6)
    nothing = torch.full((1, 2, 1, 3), torch.nan)
    assert centre_loss(offsets, nothing).item() == 0
