"""A network that knows the truth, for tests of everything around the network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_sam.model import Sam
from napari_sam.model.config import VARIANTS
from napari_sam.training.data import distance_maps

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OracleSam(Sam):
    """Answers with the object under the point, of 128 px input like ``tiny``.

    It knows where a crop lies because the image says so: `image_of` writes each
    pixel's own row and column into red and green. At a scale of 4 one logit is one
    pixel of the plane, and answers are exact.
    """

    def __init__(self, labels: NDArray[Any], scale: int, scores: Any = ()) -> None:
        super().__init__(VARIANTS["tiny"])
        self.eval()
        self.truth = labels
        self.maps = np.stack(
            [labels > 0, *distance_maps(labels.astype(np.int32)) / np.float32(255)]
        ).astype(np.float32)
        self.plane_scale = scale
        self.scores = dict(scores)
        self.n_encoded = 0
        self.decoded: list[int] = []

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        self.n_encoded += len(x)
        first = self.plane_scale // 2
        colour = (
            x[..., first, first] * self.pixel_std[:, 0, 0] + self.pixel_mean[:, 0, 0]
        )
        embedding = torch.zeros(len(x), 32, 8, 8)
        embedding[:, :2] = colour[:, :2].round()[..., None, None]
        return embedding

    def decode(self, embedding, *, points=None, boxes=None, multimask=True, **others):
        at = embedding[0, :2, 0, 0].numpy()
        if points is None:
            points = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
        self.decoded.append(len(points))
        found = [
            self._answers(self._object_at(p[0].flip(0).numpy(), at), at) for p in points
        ]
        logits = torch.from_numpy(np.stack([masks for masks, _ in found]))
        ious = torch.tensor([ious for _, ious in found])
        return (logits, ious) if multimask else (logits[:, 1:2], ious[:, 1:2])

    def propose(self, embedding):
        at = embedding[0, :2, 0, 0].numpy()
        maps = np.stack(
            [
                self._sampled(m, at, outside)
                for m, outside in zip(self.maps, (0, 1, 1), strict=True)
            ]
        )
        return torch.from_numpy(maps)[None]

    def _object_at(self, point, at):
        place = np.floor((point + 0.5) / self.plane_scale + at).astype(int)
        inside = (place >= 0).all() and (place < self.truth.shape).all()
        return self.truth[tuple(place)] if inside else 0

    def _answers(self, number, at):
        """A part, the whole and everything; the whole has the best score."""
        sampled = self._sampled(self.truth, at, 0)
        whole = (sampled == number) & (number > 0)
        part = whole & (np.cumsum(whole).reshape(whole.shape) <= whole.sum() / 2)
        masks = np.stack([part, whole, sampled > 0])
        return np.where(masks, 8, -8).astype(np.float32), [
            0.6,
            self.scores.get(int(number), 0.9),
            0.5,
        ]

    def _sampled(self, plane, at, outside):
        """Sample a plane at the centres of the decoder's cells."""
        cells = (np.arange(32) + 0.5) * 4 / self.plane_scale
        rows, columns = (np.floor(cells + start).astype(int) for start in at)
        padded = np.pad(plane, 200, constant_values=outside)
        return padded[np.ix_(rows + 200, columns + 200)].astype(plane.dtype)


def image_of(labels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return an image from which `OracleSam` reads where a crop lies."""
    rows, columns = np.mgrid[: labels.shape[0], : labels.shape[1]]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
