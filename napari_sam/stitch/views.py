"""What one crop sees, packed: scores as columns, masks as bits.

A plane of 20,000 x 20,000 px has some hundred thousand candidates. As objects of
Python they would fill the memory; packed they take about a hundred bytes each, go to
disk as they are, and a part of a mask is unpacked without the rest of it.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from napari_sam.errors import FormatError
from napari_sam.masks import Candidate
from napari_sam.tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_DAMAGE = (EOFError, KeyError, OSError, ValueError, zipfile.BadZipFile, zlib.error)

# Predicted IoU, stability, penalty and the point (y, x): NaN where there is none.
_N_SCORES = 5


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Candidates of one crop; made by `Views.of`.

    Parameters
    ----------
    crop : int
        Number of the crop in its grid.
    boxes : (N, 4) int32 array, y0, x0, y1, x1, plane pixels
        Where the masks lie.
    scores : (N, 5) float64 array
        Predicted IoU, stability, penalty, and the point prompt (y, x).
    areas : (N,) int64 array
        Number of pixels.
    first_columns : (N,) int32 array
        Column, in plane pixels, of the first pixel of the first row.
    checksums : (N,) uint32 array
        CRC-32 of each mask: tells apart what has equal box and scores.
    bits : (M,) uint8 array
        Rows of all masks, one after the other, each filled up to whole bytes.
    """

    crop: int
    boxes: NDArray[np.int32]
    scores: NDArray[np.float64]
    areas: NDArray[np.int64]
    first_columns: NDArray[np.int32]
    checksums: NDArray[np.uint32]
    bits: NDArray[np.uint8]
    _starts: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        sizes = (self.boxes[:, 2:] - self.boxes[:, :2]).astype(np.int64)
        n_bytes = sizes[:, 0] * -(-sizes[:, 1] // 8)
        object.__setattr__(self, "_starts", np.cumsum([0, *n_bytes]))

    @classmethod
    def of(cls, crop: int, candidates: Sequence[Candidate]) -> Self:
        """Pack the candidates of a crop.

        Parameters
        ----------
        crop : int
            Number of the crop.
        candidates : sequence of Candidate
            Their boxes fit tightly, and no mask is empty.
        """
        n = len(candidates)
        boxes = [(c.box.y0, c.box.x0, c.box.y1, c.box.x1) for c in candidates]
        nowhere = (np.nan, np.nan)
        scores = [
            (c.predicted_iou, c.stability, c.penalty, *(c.point or nowhere))
            for c in candidates
        ]
        packed = [np.packbits(c.mask, axis=1).ravel() for c in candidates]
        return cls(
            crop,
            np.array(boxes, np.int32).reshape(n, 4),
            np.array(scores, np.float64).reshape(n, _N_SCORES),
            np.array([c.area for c in candidates], np.int64),
            np.array(
                [c.box.x0 + int(c.mask[0].argmax()) for c in candidates], np.int32
            ),
            np.array([checksum(c.mask) for c in candidates], np.uint32),
            np.concatenate([np.zeros(0, np.uint8), *packed]),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    def box(self, k: int) -> Box:
        """Return the box of a candidate."""
        return Box(*self.boxes[k].tolist())

    def within(self, k: int, region: Box) -> NDArray[np.bool_]:
        """Return the part of a mask in a region.

        Parameters
        ----------
        k : int
            Number of the candidate.
        region : Box
            Plane pixels; may reach beyond the candidate's box.

        Returns
        -------
        (h, w) array of bool, of the shape of `region`
        """
        box = self.box(k)
        shared = box.intersection(region)
        if shared is None:
            return np.zeros(region.shape, bool)
        first, last = shared.x0 - box.x0, shared.x1 - box.x0
        rows = self._rows(k)[shared.y0 - box.y0 : shared.y1 - box.y0]
        unpacked = np.unpackbits(rows[:, first // 8 : -(-last // 8)], axis=1)
        part = unpacked[:, first % 8 : first % 8 + shared.width].view(bool)
        if shared == region:
            return part
        whole = np.zeros(region.shape, bool)
        whole[shared.shift(-region.y0, -region.x0).slices] = part
        return whole

    def candidate(self, k: int) -> Candidate:
        """Unpack one candidate."""
        predicted_iou, stability, penalty, y, x = self.scores[k].tolist()
        box = self.box(k)
        return Candidate(
            box=box,
            mask=self.within(k, box),
            predicted_iou=predicted_iou,
            stability=stability,
            point=None if np.isnan(y) else (y, x),
            crop=self.crop,
            penalty=penalty,
        )

    def candidates(self) -> list[Candidate]:
        """Unpack all candidates."""
        return [self.candidate(k) for k in range(len(self))]

    def to_bytes(self) -> bytes:
        """Return all of this as the bytes of a compressed ``.npz`` file."""
        arrays: dict[str, Any] = {"crop": np.int64(self.crop)}
        arrays |= {name: getattr(self, name) for name in _COLUMNS}
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Undo `to_bytes`.

        Raises
        ------
        FormatError
            If the bytes are damaged or something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                return cls(int(file["crop"]), *(file[name] for name in _COLUMNS))
        except _DAMAGE as error:
            raise FormatError(
                f"the candidates of a crop are damaged ({error}); find them again"
            ) from error

    def _rows(self, k: int) -> NDArray[np.uint8]:
        height = int(self.boxes[k, 2] - self.boxes[k, 0])
        return self.bits[self._starts[k] : self._starts[k + 1]].reshape(height, -1)


_COLUMNS = ("boxes", "scores", "areas", "first_columns", "checksums", "bits")


def checksum(mask: NDArray[np.bool_]) -> int:
    """Return the CRC-32 of a mask's pixels."""
    return zlib.crc32(np.ascontiguousarray(mask).tobytes())
