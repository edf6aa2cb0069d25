"""Losses of SAM's training (Kirillov et al. 2023, appendix A, "Losses").

The mask loss is 20 parts focal loss (Lin et al. 2017) and one part dice loss
(Milletari et al. 2016) on the best of the three masks, plus the squared error of the
predicted IoU. From random weights on small objects that ratio can collapse to empty
masks, so training may start with cross entropy and dice and move over (ours;
`warm`).

N prompts, K masks each, h and w height and width of the logits.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_sam.model.affinity import UNIT

FOCAL_WEIGHT = 20.0  # appendix A of the paper
DICE_WEIGHT = 1.0
IOU_WEIGHT = 1.0
# Ours: also the masks that are not the best learn a little from each object. In
# microscopy most clicks mean one thing, and an answer that is never the best would stay
# as random weights left it, for the predicted IoU to be fooled by.
OTHERS_WEIGHT = 0.1


def focal_loss(
    logits: Tensor, target: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Return the focal loss of each mask, the mean over its pixels.

    Parameters
    ----------
    logits, target : (N, K, h, w) float32 tensors
        Target 0 to 1; values between are the covered share of a pixel.
    alpha, gamma : float
        Weight of the foreground, focus on the wrong pixels (Lin et al. 2017,
        section 3).

    Returns
    -------
    (N, K) float32 tensor
    """
    probability = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    wrong = probability + target - 2 * probability * target
    weight = alpha * target + (1 - alpha) * (1 - target)
    return (weight * wrong.pow(gamma) * entropy).mean(dim=(-2, -1))


def cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the binary cross entropy of each mask, (N, K), the mean over pixels."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return entropy.mean(dim=(-2, -1))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one minus the soft dice coefficient of each mask, (N, K).

    One is added above and below, so that two empty masks agree.
    """
    probability = torch.sigmoid(logits)
    shared = (probability * target).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return 1 - (2 * shared + 1) / (total + 1)


def iou_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return one minus the soft IoU of each mask, (N, K).

    One is added above and below, so that two empty masks agree. Its mean judges
    masks as a mean IoU does; dice loss forgives more of what is nearly right (Rahman
    and Wang 2016, "Optimizing intersection-over-union in deep neural networks").
    """
    probability = torch.sigmoid(logits)
    shared = (probability * target).sum(dim=(-2, -1))
    total = probability.sum(dim=(-2, -1)) + target.sum(dim=(-2, -1))
    return 1 - (shared + 1) / (total - shared + 1)


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """Return the IoU of each thresholded mask with its thresholded target, (N, K)."""
    mask, truth = logits > 0, target > 0.5
    union = (mask | truth).sum(dim=(-2, -1))
    shared = (mask & truth).sum(dim=(-2, -1))
    return torch.where(union > 0, shared / union.clamp(min=1), torch.ones_like(union))


@dataclass(frozen=True, slots=True)
class MaskLoss:
    """Parts of the mask loss, each a mean over the prompts.

    Attributes
    ----------
    total : () tensor
        What is minimised.
    dice, iou_error : () tensor
        For the curves.
    iou : () tensor
        IoU of the mask that the loss chose.
    """

    total: Tensor
    dice: Tensor
    iou_error: Tensor
    iou: Tensor


@dataclass(frozen=True, slots=True)
class MaskLossWeights:
    """How masks are judged.

    Attributes
    ----------
    warm : float, default 0.0
        Share of the starting loss (cross entropy and dice), 0 to 1.
    focal : float, default `FOCAL_WEIGHT`
        Parts of focal loss to one part of overlap.
    overlap : {"dice", "iou"}
        `dice_loss` or `iou_loss`.
    chosen_share : float, default 0.0
        Share of the loss that judges the mask with the highest predicted IoU, which is
        what a user is shown, instead of the best one.
    """

    warm: float = 0.0
    focal: float = FOCAL_WEIGHT
    overlap: Literal["dice", "iou"] = "dice"
    chosen_share: float = 0.0


def mask_loss(
    logits: Tensor,
    predicted_iou: Tensor,
    target: Tensor,
    weights: MaskLossWeights | None = None,
) -> MaskLoss:
    """Return the loss of the best of K masks and of all predicted IoUs.

    Parameters
    ----------
    logits : (N, K, h, w) float32 tensor
    predicted_iou : (N, K) float32 tensor
    target : (N, h, w) float32 tensor
        0 to 1.
    weights : MaskLossWeights, optional
        Default: the paper's.
    """
    weights = weights or MaskLossWeights()
    truth = target[:, None].expand_as(logits)
    dice = dice_loss(logits, truth)
    apart = dice if weights.overlap == "dice" else iou_loss(logits, truth)
    focal = weights.focal * (1 - weights.warm)
    each = DICE_WEIGHT * apart + focal * focal_loss(logits, truth)
    if weights.warm > 0:
        each = each + weights.warm * cross_entropy_loss(logits, truth)
    best = each.argmin(dim=1, keepdim=True)
    with torch.no_grad():
        actual = mask_iou(logits, truth)
    error = F.mse_loss(predicted_iou, actual)
    shown = each.gather(1, predicted_iou.argmax(dim=1, keepdim=True))
    judged = torch.lerp(each.gather(1, best), shown, weights.chosen_share)
    others = (each.sum(dim=1, keepdim=True) - judged) / max(each.shape[1] - 1, 1)
    return MaskLoss(
        total=(judged + OTHERS_WEIGHT * others).mean() + IOU_WEIGHT * error,
        dice=dice.gather(1, best).mean().detach(),
        iou_error=error.detach(),
        iou=actual.gather(1, best).mean(),
    )


def proposal_loss(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the loss of the proposal head (ours).

    Cross entropy and dice for the foreground; cross entropy for the two distances,
    less that of a perfect answer, in which objects and background weigh the same
    although objects cover less.

    Parameters
    ----------
    maps : (B, 3, h, w) float32 tensor
        Logits of foreground, centre distance and boundary distance.
    target : (B, 3, h, w) float32 tensor
        0 to 1, as defined in `napari_sam.model.proposal_head`.
    weight : (B,) float32 tensor
        0 for a crop in which not every object is labelled.

    Returns
    -------
    () float32 tensor
    """
    foreground = target[:, 0]
    mask_part = cross_entropy_loss(maps[:, :1], target[:, :1])[:, 0]
    mask_part = mask_part + dice_loss(maps[:, :1], target[:, :1])[:, 0]
    distances = target[:, 1:]
    entropy = F.binary_cross_entropy_with_logits(
        maps[:, 1:], distances, reduction="none"
    )
    perfect = F.binary_cross_entropy(distances, distances, reduction="none")
    error = (entropy - perfect).sum(dim=1)
    distance_part = _mean(error, foreground) + _mean(error, 1 - foreground)
    each = mask_part + distance_part
    return (each * weight).sum() / weight.sum().clamp(min=1)


def centre_loss(offsets: Tensor, target: Tensor) -> Tensor:
    """Return the loss of the estimated centres (ours).

    Parameters
    ----------
    offsets, target : (B, 2, h, w) float32 tensors
        In the same unit; places whose target is NaN do not count.

    Returns
    -------
    () float32 tensor
        Mean absolute error, quadratic below a tenth of the unit.
    """
    known = ~torch.isnan(target)
    error = F.smooth_l1_loss(offsets[known], target[known], beta=0.1, reduction="sum")
    return error / known.sum().clamp(min=1)


def vote_loss(votes: Tensor, target: Tensor) -> Tensor:
    """Return the loss of the votes of the proposal head (ours).

    An offset is judged by the size of the object, so that a pixel counts for more in
    a small one.

    Parameters
    ----------
    votes : (B, 3, h, w) float32 tensor
        As `napari_sam.model.affinity.read_votes` takes them.
    target : (B, 3, h, w) float32 tensor
        Offsets (x, y) and size in pixels; places where it is NaN do not count.

    Returns
    -------
    () float32 tensor
        Mean absolute error of both, quadratic where it is small.
    """
    known = ~torch.isnan(target[:, 2])
    n_known = known.sum().clamp(min=1)
    size = target[:, 2][known].clamp(min=6.0)
    # x and y stand first: (2, places), as the sizes
    wanted = target[:, :2].transpose(0, 1)[:, known] / size
    offsets = votes[:, :2].transpose(0, 1)[:, known] * UNIT / size
    away = F.smooth_l1_loss(offsets, wanted, beta=0.05, reduction="sum")
    logs = votes[:, 2][known]
    wrong = F.smooth_l1_loss(logs, (size / UNIT).log(), beta=0.1, reduction="sum")
    return (2 * away + wrong) / n_known


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean over each (h, w), (B,); 0 where all weights are 0."""
    total = (values * weight).sum(dim=(-2, -1))
    return total / weight.sum(dim=(-2, -1)).clamp(min=1)
