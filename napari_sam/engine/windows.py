"""Parts of a crop, as our own network is asked: in the middle of the frame.

It is trained on parts of a frame of 256 px. There an object is decoded in a fraction
of the time, for most of the work grows with the area that is looked at; and whatever
place in the crop an object has, what is decoded is said to lie in the middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from napari_sam.model.config import ConvConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_sam.model import PreparedEmbedding, Sam
    from napari_sam.model.affinity import Details

PATCH = 16
"""Side of a cell of the embedding, in pixels of the frame."""

_WINDOW = 256  # pixels


def window_side(model: Sam) -> int:
    """Return the side of the parts that a model is asked about, in cells.

    Parameters
    ----------
    model : Sam

    Returns
    -------
    int
        The whole frame for all networks but our own.
    """
    size = model.config.embedding_size
    is_own = isinstance(model.config.encoder, ConvConfig)
    return min(_WINDOW // PATCH, size) if is_own else size


def prepare_windows(
    model: Sam,
    embedding: Tensor,
    corners: Sequence[tuple[int, int]],
    side: int,
    *,
    masks: Tensor | None = None,
    details: Details | None = None,
) -> tuple[PreparedEmbedding, Tensor]:
    """Cut windows out of the embedding of a crop, and place them in the middle.

    Parameters
    ----------
    model : Sam
        Whose `can_place` is true.
    embedding : (1, C', e, e) tensor
        From `Sam.encode`.
    corners : sequence of (int, int)
        First row and column of each window, in cells.
    side : int
        In cells.
    masks : (N, 1, 4 * side, 4 * side) tensor, optional
        Logits of earlier answers, of each window.
    details : Details, optional
        Of the crop, from `Sam.details`; computed of the windows alone if not given.

    Returns
    -------
    prepared : PreparedEmbedding
        For N prompts, one for each window.
    shifts : (N, 2) float32 tensor
        By how much each was moved in the frame, (x, y), pixels.
    """
    size = embedding.shape[-1]
    middle = (size - side) // 2
    cells = embedding[0].permute(1, 2, 0)  # as the network takes them
    parts = [cells[row : row + side, column : column + side] for row, column in corners]
    origin = (middle, middle)
    placed = model.place(torch.stack(parts).permute(0, 3, 1, 2), origin)
    moved = [(middle - column, middle - row) for row, column in corners]
    shifts = PATCH * placed.new_tensor(moved)
    if details is not None:
        details = details.windows(corners, side, (size, size)).moved(shifts)
    prepared = model.prepare(
        placed, masks=masks, origin=origin, details=details, is_shared=False
    )
    return prepared, shifts


def reach_edge(
    inside: NDArray[np.bool_], corners: NDArray[np.int64], shape: Sequence[int]
) -> NDArray[np.bool_]:
    """Tell which masks end at an edge of their window, and not with the crop.

    Parameters
    ----------
    inside : (N, h, w) array of bool
    corners : (N, 2) array of int
        First row and column of each window, in cells of the logits.
    shape : sequence of two int
        Rows and columns of the crop, in such cells.

    Returns
    -------
    (N,) array of bool
    """
    ends = corners + inside.shape[1:]
    reached: NDArray[np.bool_] = (
        ((corners[:, 0] > 0) & inside[:, 0].any(axis=1))
        | ((corners[:, 1] > 0) & inside[:, :, 0].any(axis=1))
        | ((ends[:, 0] < shape[0]) & inside[:, -1].any(axis=1))
        | ((ends[:, 1] < shape[1]) & inside[:, :, -1].any(axis=1))
    )
    return reached
