"""What belongs together: votes for centres, and what prompts make of them (ours).

Every place votes for the centre of its object. Places whose votes meet are one object
(Neven et al. 2019, "Instance segmentation by jointly optimizing spatial embeddings and
clustering bandwidth", section 3), so a prompt is answered by all places that vote for
the centre for which the prompted place votes, within a radius that the mask token
chooses. Boxes and the neighbourhood of clicks speak for themselves. All this becomes a
few maps, which the decoder weighs, prompt by prompt, and adds to its logits.

A decoder with random weights does not know that a click or a box means a region around
it, and learned it slowly from few images; with these maps it knows from the first step,
and learns what they cannot say. Published weights have no votes and do without.

N prompts, J seeds, K masks, h and w height and width in cells of 4 pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

CELL = 4
"""Side of a place, which is that of a logit of a mask, in pixels of the frame."""
UNIT = 32.0
"""Pixels for which an offset of the head is 1; sizes are powers of e times it."""

# Standard deviation of a meeting of votes, in sizes of the object, before training.
_RADIUS = 0.4
# Of the neighbourhood of a click: in sizes of the object, and in pixels at least.
_NEAR, _NEAREST = 0.15, 3.0
_NONE = 1e6  # squared distance to a seed that is not there


class Details(NamedTuple):
    """What the proposal head knows for the mask decoder, in cells of 4 pixels.

    Attributes
    ----------
    edges : (B, 16 * S, C / 8) tensor
        Added to the upscaled embedding; the 16 parts of each place stand together.
    votes : (B, 6, h, w) float32 tensor or None
        Centre voted for (x, y) and the object's size in pixels, foreground logit, and
        the middle of the place (x, y), in the frame.
    """

    edges: Tensor
    votes: Tensor | None = None

    def windows(
        self, corners: Sequence[tuple[int, int]], side: int, size: tuple[int, int]
    ) -> "Details":
        """Cut one square out for each of several prompts.

        Parameters
        ----------
        corners, side
            As for `napari_sam.model.mask_decoder.PreparedEmbedding.windows`.
        size : tuple of int
            Height and width of the whole, in cells of 16 pixels.
        """
        edges = self.edges.unflatten(1, (*size, -1))
        parts = [
            edges[:, row : row + side, column : column + side]
            for row, column in corners
        ]
        votes = self.votes
        if votes is not None:
            n = 16 // CELL
            places = [
                votes[..., n * row : n * (row + side), n * column : n * (column + side)]
                for row, column in corners
            ]
            votes = torch.cat(places)
        return Details(torch.cat(parts).flatten(1, 3), votes)

    def moved(self, shifts: Tensor) -> "Details":
        """Move what each prompt sees by so many pixels of the frame, (N, 2), (x, y)."""
        if self.votes is None:
            return self
        centre, other, place = self.votes.split([2, 2, 2], dim=1)
        by = shifts[:, :, None, None]
        return Details(self.edges, torch.cat([centre + by, other, place + by], dim=1))


class Seeds(NamedTuple):
    """Where prompts are, in pixels of the frame, (x, y).

    Attributes
    ----------
    points : (N, P, 2) float32 tensor
    labels : (N, P) tensor
        1 positive, 0 negative, -1 not a point.
    boxes : (N, 4) float32 tensor
        (x0, y0, x1, y1); NaN where there is none.
    """

    points: Tensor
    labels: Tensor
    boxes: Tensor

    @classmethod
    def of(
        cls, points: Tensor | None, labels: Tensor | None, boxes: Tensor | None
    ) -> "Seeds":
        """Join what `napari_sam.model.Sam.decode` takes."""
        if points is None or labels is None:
            assert boxes is not None  # noqa: S101 - for the type checker
            points = boxes.new_zeros(len(boxes), 0, 2)
            labels = boxes.new_zeros(len(boxes), 0)
        if boxes is None:
            boxes = points.new_full((len(points), 4), torch.nan)
        return cls(points, labels, boxes)


def read_votes(raw: Tensor, foreground: Tensor, origin: tuple[int, int]) -> Tensor:
    """Turn outputs of the proposal head into `Details.votes`.

    Parameters
    ----------
    raw : (B, 3, h, w) tensor
        Offset (x, y) from the middle of each place to its object's centre, in units
        of `UNIT`; logarithm of the object's size (root of its area), likewise.
    foreground : (B, 1, h, w) tensor
        Logits.
    origin : tuple of int
        Row and column of the first place in the frame, in cells of 16 px.
    """
    height, width = raw.shape[-2:]
    middle = (CELL - 1) / 2
    y = CELL * torch.arange(height, device=raw.device) + 16 * origin[0] + middle
    x = CELL * torch.arange(width, device=raw.device) + 16 * origin[1] + middle
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    place = torch.stack([grid_x, grid_y]).expand(len(raw), -1, -1, -1)
    raw = raw.float()
    size = UNIT * raw[:, 2:].clamp(-3, 4).exp()
    centre = place + UNIT * raw[:, :2]
    return torch.cat([centre, size, foreground.float(), place], dim=1)


class Affinity(nn.Module):
    """Logits from votes and prompts, weighed by the mask tokens.

    Parameters
    ----------
    dim : int
        Channels of the tokens.
    """

    # Of: votes that meet; those of negative points; foreground; neighbourhood of the
    # object; outside the box; ellipse in the box; near positive, near negative points;
    # and a constant. Where a training begins (ours): any of the first terms alone
    # stays below zero.
    GAINS = (8.0, -8.0, 1.0, 2.0, 4.0, 1.0, 1.0, -10.0, -7.0)

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(self.GAINS))
        # Shift (x, y) and logarithm of the radius, then changes of the gains.
        self.adjust = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.ReLU(),
            nn.Linear(dim // 2, 3 + len(self.GAINS)),
        )
        with torch.no_grad():
            for parameter in self.adjust[2].parameters():
                parameter.mul_(0.1)

    def forward(self, votes: Tensor, seeds: Seeds, tokens: Tensor) -> Tensor:
        """Return logits.

        Parameters
        ----------
        votes : (1 or N, 6, h, w) float32 tensor
            As `Details.votes`.
        seeds : Seeds
        tokens : (N, K, C) tensor
            Mask tokens.

        Returns
        -------
        (N, K, h, w) float32 tensor
        """
        with torch.autocast(tokens.device.type, enabled=False):
            adjusted = self.adjust(tokens.float())
            return self._logits(votes, seeds, adjusted)

    def _logits(self, votes: Tensor, seeds: Seeds, adjusted: Tensor) -> Tensor:
        points, labels, boxes = seeds
        n, k = adjusted.shape[:2]
        centre, foreground, place = votes[:, :2], votes[:, 3:4], votes[:, 4:]
        seen, labels = _sample(votes, points, labels)
        is_positive, is_negative = labels == 1, labels == 0
        has_box = ~boxes[:, :1].isnan()  # N, 1
        boxes = boxes.nan_to_num(0.0)
        extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1.0)
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2

        # The size: of the box, else what is said at the positive points.
        logs = seen[..., 2].log() * is_positive
        at_points = (logs.sum(1) / is_positive.sum(1).clamp(min=1)).exp()
        size = torch.where(has_box[:, 0], extent.prod(1).sqrt(), at_points)
        size = size.clamp(4.0, 2000.0)[:, None]  # N, 1

        # Seeds of the object: votes at positive points, and the middle of the box.
        own = torch.cat([seen[..., :2], middle[:, None]], dim=1)  # N, J, 2
        is_own = torch.cat([is_positive, has_box], dim=1)
        shift = adjusted[..., :2] * (0.25 * size)[..., None]  # N, K, 2
        radius = _RADIUS * size * adjusted[..., 2].clamp(-1.5, 1.5).exp()  # N, K
        meeting = torch.stack(
            [
                _nearness(centre, own + shift[:, i, None], is_own, radius[:, i])
                for i in range(k)
            ],
            dim=1,
        )
        near = (_NEAR * size[:, 0]).clamp(min=_NEAREST)
        at_positive = _nearness(place, points, is_positive, near)
        shared = {
            2: (4 * torch.tanh(foreground[:, 0] / 4)).expand(n, -1, -1),
            3: _nearness(place, own, is_own, size[:, 0]),
            6: at_positive,
        }
        if _may_be_any(is_negative):
            # A negative click where all vote for the object's own centre shall cut off
            # a part, not all: it speaks for the places that are nearer to it.
            usual = _RADIUS * size[:, 0]
            against = _nearness(centre, seen[..., :2], is_negative, usual)
            against = against - _nearness(centre, own, is_own, usual)
            at_negative = _nearness(place, points, is_negative, near) - at_positive
            shared |= {1: against.clamp(min=0), 7: at_negative.clamp(min=0)}
        if _may_be_any(has_box):
            shared[4], shared[5] = _box_maps(place, middle, extent, has_box)
        gains = self.gains + adjusted[..., 3:]  # N, K, 9
        maps = torch.stack(list(shared.values()), dim=1)
        weighed = (gains[..., list(shared)] @ maps.flatten(2)).unflatten(
            2, maps.shape[2:]
        )
        first, constant = gains[..., :1, None], gains[..., 8:, None]
        logits: Tensor = first * meeting + weighed + constant
        return logits


def _sample(votes: Tensor, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return votes at points, (N, P, 6); points beyond the places become padding."""
    height, width = votes.shape[-2:]
    first = votes[:, None, 4:, 0, 0] - (CELL - 1) / 2 - 0.5
    cell = torch.floor((points - first) / CELL).long()
    column, row = cell[..., 0], cell[..., 1]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)  # N, P
    flat = votes.flatten(2).mT.expand(len(points), -1, -1)
    seen = flat.gather(1, index[..., None].expand(-1, -1, votes.shape[1]))
    return seen, torch.where(inside, labels, -1)


def _nearness(at: Tensor, seeds: Tensor, counts: Tensor, radius: Tensor) -> Tensor:
    """Return how near places (1 or N, 2, h, w) lie to the nearest of (N, J, 2) seeds.

    Returns
    -------
    (N, h, w) tensor
        1 at a seed that ``counts`` (N, J), falling off like a Gaussian with standard
        deviation ``radius`` (N,); 0 without seeds.
    """
    nearest = at.new_full((len(counts), *at.shape[2:]), _NONE)
    for j in range(counts.shape[1]):
        if not _may_be_any(counts[:, j]):
            continue
        apart = at - seeds[:, j, :, None, None]
        squared = apart.square().sum(1)
        squared = torch.where(counts[:, j, None, None], squared, _NONE)
        nearest = torch.minimum(nearest, squared)
    return torch.exp(-nearest / (2 * radius.square()[:, None, None])) * counts.any(
        1
    ).view(-1, 1, 1)


def _may_be_any(counts: Tensor) -> bool:
    """Whether any counts; a GPU would wait for the answer longer than for the sums."""
    return counts.device.type != "cpu" or bool(counts.any())


def _box_maps(
    place: Tensor, middle: Tensor, extent: Tensor, has_box: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how far places lie outside the box, 0 to -2, and its ellipse, -1 to 1."""
    apart = (place - middle[..., None, None]).abs() * 2 / extent[..., None, None]
    counts = has_box[..., None]
    outside = -(apart.amax(1) - 1).clamp(0, 2) * counts
    ellipse = (1 - apart.square().sum(1)).clamp(-1, 1) * counts
    return outside, ellipse


class Quality(nn.Module):
    """What the logits of a mask say of its IoU, added to the predicted one.

    If each pixel belonged to the object with the probability that its logit says, the
    IoU to be expected would be, nearly, the sum of the probabilities inside the mask
    over the mask and the probabilities outside. It is no true expectation, for logits
    are overconfident and neighbours err together; a few weights turn it into one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 1))
        with torch.no_grad():  # a training may begin without it
            for parameter in self.layers[2].parameters():
                parameter.zero_()

    def forward(self, logits: Tensor) -> Tensor:
        """Map (N, K, h, w) logits to (N, K) changes of the predicted IoU."""
        logits = logits.detach().float()
        with torch.autocast(logits.device.type, enabled=False):
            probability = torch.sigmoid(logits)
            mask = logits > 0
            area = mask.sum(dim=(-2, -1))
            total = probability.sum(dim=(-2, -1))
            inside = (probability * mask).sum(dim=(-2, -1))
            expected = inside / (area + total - inside).clamp(min=1e-3)
            certainty = inside / area.clamp(min=1)
            soft = (area - inside) / (total - inside + area - inside).clamp(min=1e-3)
            size = (area + 1).log() / 8
            found = torch.stack([expected, certainty, soft, size], dim=-1)
            change: Tensor = self.layers(found)[..., 0]
        return change
