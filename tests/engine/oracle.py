"""A network that knows the truth, for tests of everything around the network."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from skimage.draw import disk
from skimage.segmentation import relabel_sequential

from napari_sam.engine.embed import open_plane
from napari_sam.model import Sam
from napari_sam.model.config import VARIANTS
from napari_sam.training.data import distance_maps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class PreparedTruth:
    """Stands for a prepared embedding: the embedding, and where its windows lie."""

    def __init__(
        self,
        embedding: torch.Tensor,
        size: tuple[int, ...] = (),
        origins: Sequence[tuple[int, int]] = ((0, 0),),
    ) -> None:
        self.source = embedding
        self.size = tuple(size or embedding.shape[2:])
        self.origins = origins
        self.details = None

    def windows(self, corners: Sequence[tuple[int, int]], side: int) -> PreparedTruth:
        if self.size == (side, side):
            return self
        return PreparedTruth(self.source, (side, side), corners)

    def __getitem__(self, key):
        return self.source[key]


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
        self.group_score = 0.5
        self.n_encoded = 0
        self.decoded: list[int] = []
        self.seen: list[tuple[int, ...]] = []

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        self.n_encoded += len(x)
        first = self.plane_scale // 2
        colour = (
            x[..., first, first] * self.pixel_std[:, 0, 0] + self.pixel_mean[:, 0, 0]
        )
        embedding = torch.zeros(len(x), 32, 8, 8)
        embedding[:, :2] = colour[:, :2].round()[..., None, None]
        return embedding

    def prepare(self, embedding, **others):
        return PreparedTruth(embedding)

    def decode(self, embedding, *, points=None, boxes=None, multimask=True, **others):
        if isinstance(embedding, torch.Tensor):
            embedding = self.prepare(embedding)
        at = embedding[0, :2, 0, 0].numpy()
        if points is None:
            points = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None]
        self.decoded.append(len(points))
        self.seen.append(tuple(embedding.size))
        found = [
            self._answers(self._object_at(p[0].flip(0).numpy(), at), at) for p in points
        ]
        height, width = (4 * n for n in embedding.size)
        origins = np.resize(embedding.origins, (len(points), 2)) * 4
        logits = torch.from_numpy(
            np.stack(
                [
                    masks[:, y : y + height, x : x + width]
                    for (masks, _), (y, x) in zip(found, origins.tolist(), strict=True)
                ]
            )
        )
        ious = torch.tensor([ious for _, ious in found])
        return (logits, ious) if multimask else (logits[:, 1:2], ious[:, 1:2])

    def propose(self, embedding, features=None):
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
            self.group_score,
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


def result(work):
    """Drive a generator; return its result, and how often it paused."""
    n_pauses = 0
    while True:
        try:
            next(work)
        except StopIteration as stop:
            return stop.value, n_pauses
        n_pauses += 1


def crop_of(labels, scale):
    """Return an oracle, its embedding of a plane of one crop, and that crop."""
    oracle = OracleSam(labels, scale=scale)
    plane = open_plane(image_of(labels), oracle)
    return oracle, plane.of(plane.grid[0]), plane.grid[0]


def discs(seed=2):
    """Labels of discs of 4 to 10 px in a plane of 32 x 32 px."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((32, 32), np.uint32)
    for i in range(1, 30):
        rows, columns = disk(rng.uniform(2, 30, 2), rng.uniform(2, 5), shape=(32, 32))
        if not labels[rows, columns].any():
            labels[rows, columns] = i
    return relabel_sequential(labels)[0]


def hold_encoder(monkeypatch, at=0):
    """Let an oracle that has encoded so many crops wait; return what lets it go on."""
    may_go_on, encode = threading.Event(), OracleSam.encode

    def wait(self, x):
        if self.n_encoded >= at:
            assert may_go_on.wait(timeout=240)
        return encode(self, x)

    monkeypatch.setattr(OracleSam, "encode", wait)
    return may_go_on
