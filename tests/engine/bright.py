"""A network without training whose masks come from the brightness of the image.

`BrightSam` answers a point with the connected bright part that holds it, as far as
its crop shows it and in cells of four input pixels like any decoder of SAM: what lies
outside the crop it cannot know, and thin things vanish at a small scale. Everything
around it (crops, scales, coordinates, masks) is real, and the true object is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from napari_sam.engine.embed import open_plane
from napari_sam.engine.predict import Predictor
from napari_sam.images import Intensity
from napari_sam.model import Sam
from napari_sam.model.config import VARIANTS
from napari_sam.tiling import CropGrid
from tests.engine.oracle import PreparedTruth

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIZE = 128


class BrightSam(Sam):
    """Three masks for a point: half of the bright part, all of it, all that is bright.

    The second is the most certain. With several points or a box there is one mask:
    the bright parts that hold a positive point, or lie in the box.
    """

    def __init__(self) -> None:
        super().__init__(VARIANTS["tiny"])
        self.eval()
        self.n_encoded = 0
        self.decoded: list[int] = []

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        self.n_encoded += len(x)
        gray = (x * self.pixel_std + self.pixel_mean).mean(1, keepdim=True) / 255
        cells = F.pixel_unshuffle(F.avg_pool2d(gray, 4), 4)
        return F.pad(cells, (0, 0, 0, 0, 0, 16))

    def prepare(self, embedding, **others):
        return PreparedTruth(embedding)

    def decode(
        self, embedding, *, points=None, labels=None, boxes=None, masks=None, **others
    ):
        bright = F.pixel_shuffle(embedding[:, :16], 4)[0, 0].numpy()
        parts, _ = ndimage.label(bright > 0.5)
        n_objects = len(boxes if points is None else points)
        self.decoded.append(n_objects)
        logits = []
        for i in range(n_objects):
            wanted = (
                set() if points is None else self._under(parts, points[i], labels[i])
            )
            if boxes is not None:
                x0, y0, x1, y1 = ((boxes[i] + 0.5) / 4).round().int().tolist()
                wanted |= set(np.unique(parts[y0:y1, x0:x1]))
            whole = np.isin(parts, list(wanted - {0}))
            half = whole & (np.cumsum(whole).reshape(whole.shape) <= whole.sum() / 2)
            each = [half, whole, parts > 0]
            # soft edges, as those of a trained network are
            logits.append([_logits(bright, mask) for mask in each])
        found = torch.from_numpy(np.array(logits, np.float32))
        ious = torch.tensor([[0.6, 0.9, 0.5]]).repeat(n_objects, 1)
        return (found, ious) if others["multimask"] else (found[:, 1:2], ious[:, 1:2])

    def _under(self, parts, points, labels):
        cells = ((points + 0.5) / 4).floor().int().clamp(0, len(parts) - 1).tolist()
        signs = labels.tolist()
        return {
            parts[y, x] for (x, y), sign in zip(cells, signs, strict=True) if sign > 0
        }


def _logits(bright: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    near = ndimage.binary_dilation(mask, np.ones((3, 3), bool))
    return np.where(near & (mask | (bright <= 0.5)), (bright - 0.5) * 16, -8)


def predictor_of(
    image: Any, scale: float | None = 1.0, halo: int = 16, **options: Any
) -> Predictor:
    """Open an 8-bit image, or anything that looks like an array, for `BrightSam`."""
    model = BrightSam()
    grid = CropGrid(image.shape, size=SIZE, halo=halo, scale=scale)
    gray = Intensity((0,), ((0.0, 255.0),))
    plane = open_plane(image, model, grid=grid, intensity=gray, **options)
    return Predictor(model, plane)
