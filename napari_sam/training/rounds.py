"""Rounds of prompts for the objects of one batch, and their losses.

Every object is asked for several times over one embedding, each time with one prompt
more and the logits of the last answer (Kirillov et al. 2023, appendix A, "Training
algorithm"). Half of the objects begin with a point and are answered by three masks;
the others begin with a box. With more than one prompt there is a single mask.

N objects, P points each, h and w height and width of the masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from napari_sam.model.affinity import Details, Seeds
from napari_sam.training.losses import MaskLoss, MaskLossWeights, mask_loss
from napari_sam.training.simulate import (
    boxes_of,
    depth_weights,
    error_points,
    noised_boxes,
    random_points,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from napari_sam.model import Sam
    from napari_sam.training.data import Batch

CELL = 2.0
"""Window pixels per pixel of the masks in a batch."""

MANY_ROUNDS = 9
"""From here on two rounds bring no new point: one in the middle and the last."""


def draw_rounds(shares: tuple[float, ...], generator: Generator) -> int:
    """Draw the number of rounds; ``shares[0]`` is the probability of one round."""
    return 1 + int(torch.multinomial(torch.tensor(shares), 1, generator=generator))


class PromptRounds:
    """The simulated dialogue about the objects of a batch.

    Parameters
    ----------
    model : Sam
        Being trained.
    embedding : (B, C, e, e) tensor
        Of the batch's windows.
    batch : Batch
        With at least one object.
    generator : torch.Generator
        Source of all randomness.
    details : Details, optional
        Of the embedding, from `Sam.details`.
    careful : bool, default False
        Simulate a careful annotator (ours): clicks keep away from boundaries
        (`depth_weights`), boxes are noised less, each in its own measure.
    """

    def __init__(
        self,
        model: Sam,
        embedding: Tensor,
        batch: Batch,
        generator: Generator,
        details: Details | None = None,
        *,
        careful: bool = False,
    ) -> None:
        self.model = model
        self.device = embedding.device
        # index_select: the gradient of plain indexing is summed by one thread.
        owner = batch.owner.to(self.device)
        self.embedding = embedding.index_select(0, owner)
        self.details = None
        if details is not None:
            votes = details.votes
            self.details = Details(
                details.edges.index_select(0, owner),
                None if votes is None else votes.index_select(0, owner),
            )
        self.origin = batch.origin
        self.target = batch.masks
        self.generator = generator
        n_objects = len(batch.masks)
        # The first ones begin with a point, the others with a box.
        self.n_points = max(n_objects // 2, 1)
        self.solid = batch.masks > 0.5
        self.careful = careful
        weights = depth_weights(self.solid) if careful else self.solid.float()
        self.points = random_points(weights, CELL, generator)[:, None]
        self.labels = torch.ones(n_objects, 1, dtype=torch.int64)
        self.boxes = noised_boxes(
            boxes_of(self.solid[self.n_points :], CELL), generator, careful=careful
        )
        self.feedback: Tensor | None = None

    def losses(
        self, n_rounds: int, weights: MaskLossWeights | None = None
    ) -> list[MaskLoss]:
        """Ask ``n_rounds`` times; returns one loss, or two, for each round.

        ``weights`` as in `mask_loss`.
        """
        without_new_point = (
            (n_rounds // 2, n_rounds - 1) if n_rounds >= MANY_ROUNDS else ()
        )
        parts = []
        for index in range(n_rounds):
            logits, predicted_iou = self._ask(is_first=index == 0)
            fine = F.interpolate(logits, self.target.shape[-2:], mode="bilinear")
            n_multi = self.n_points if index == 0 else 0
            parts += [
                mask_loss(*each, weights)
                for each in self._asked(fine, predicted_iou, n_multi)
            ]
            if index + 1 < n_rounds:
                answer = self._remember(logits, fine, predicted_iou, n_multi)
                if index + 1 not in without_new_point:
                    self._add_points(answer)
        return parts

    def _ask(self, *, is_first: bool) -> tuple[Tensor, Tensor]:
        """Decode all objects; four masks (N, 4, h / 2, w / 2) and IoUs (N, 4)."""
        prepared = self.model.prepare(
            self.embedding,
            masks=self.feedback,
            origin=self.origin,
            details=self.details,
        )
        logits, predicted_iou = self.model.mask_decoder(
            prepared,
            self._sparse(is_first=is_first),
            answers=range(4),
            seeds=self._seeds(is_first=is_first),
        )
        return logits.float(), predicted_iou.float()

    def _seeds(self, *, is_first: bool) -> Seeds:
        """Return the prompts as places in the frame."""
        n = self.n_points
        shift = 16.0 * torch.tensor(self.origin[::-1])
        labels = self.labels.clone()
        labels[n:, 0] = -1  # behind a box the first point was not given
        boxes = torch.full((len(labels), 4), torch.nan)
        boxes[n:] = self.boxes + shift.repeat(2)
        if is_first:
            labels = labels[:, :1]
        return Seeds(
            (self.points[:, : labels.shape[1]] + shift).to(self.device),
            labels.to(self.device),
            boxes.to(self.device),
        )

    def _sparse(self, *, is_first: bool) -> Tensor:
        """Encode the prompts: those that began with a point, then those with a box."""
        n = self.n_points
        shift = 16.0 * torch.tensor(self.origin[::-1])
        points = (self.points + shift).to(self.device)
        boxes = (self.boxes + shift.repeat(2)).to(self.device)
        labels = self.labels.to(self.device)
        encode = self.model.prompt_encoder.sparse
        by_point = encode(points[:n], labels[:n], None)
        if n == len(points):
            return by_point
        if is_first:
            return torch.cat([by_point, encode(None, None, boxes)])
        # Behind a box the first point was not given.
        return torch.cat([by_point, encode(points[n:, 1:], labels[n:, 1:], boxes)])

    def _asked(
        self, fine: Tensor, predicted_iou: Tensor, n_multi: int
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Return masks, predicted IoUs and truth of what one loss each judges."""
        target = self.target.to(self.device)
        # The single mask answers every prompt: who wants one gets a good one.
        groups = (
            (slice(0, n_multi), slice(1, 4)),
            (slice(0, None), slice(0, 1)),
        )
        return [
            (fine[who, answers], predicted_iou[who, answers], target[who])
            for who, answers in groups
            if len(target[who])
        ]

    @torch.no_grad()
    def _remember(
        self, logits: Tensor, fine: Tensor, predicted_iou: Tensor, n_multi: int
    ) -> Tensor:
        """Keep the logits that go into the next round; returns them, (N, h, w)."""
        chosen = torch.zeros(len(logits), dtype=torch.int64, device=self.device)
        chosen[:n_multi] = 1 + predicted_iou[:n_multi, 1:].argmax(dim=1)
        every = torch.arange(len(logits), device=self.device)
        self.feedback = logits[every, chosen][:, None].detach()
        return fine[every, chosen].cpu()

    def _add_points(self, answer: Tensor) -> None:
        point, label = error_points(
            answer, self.solid, CELL, self.generator, careful=self.careful
        )
        self.points = torch.cat([self.points, point[:, None]], dim=1)
        self.labels = torch.cat([self.labels, label[:, None]], dim=1)
