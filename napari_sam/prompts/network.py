"""The way of prompts into the network.

The network wants (x, y) in the input frame of a crop: `to_input` is the only
place above it where the two orders meet.

A point is a pixel centre, but the numbers of a half-open box are pixel edges.
The network adds half a pixel to both, so a corner is given to it half a pixel
before its edge: a box over the whole crop then spans exactly the whole frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_sam.prompts.prompt import Prompts
    from napari_sam.tiling import Crop

_NOT_A_POINT = -1


class PromptTensors(NamedTuple):
    """Prompts of N objects as the decoder takes them; None where there are none.

    Attributes
    ----------
    points : (N, P, 2) float32 tensor, (x, y), input frame
    labels : (N, P) int64 tensor
        1 positive, 0 negative, -1 padding.
    boxes : (N, 4) float32 tensor, x0, y0, x1, y1, input frame
        Corners, on the scale on which pixel centres are integers: a box that
        begins with the first pixel has the corner -0.5.
    masks : (N, 1, m, m) float32 tensor, logits
    """

    points: torch.Tensor | None
    labels: torch.Tensor | None
    boxes: torch.Tensor | None
    masks: torch.Tensor | None


def alike(prompts: Sequence[Prompts]) -> list[list[int]]:
    """Group objects that can share one call of the decoder.

    Padding is a token of its own for the network and changes its answer a little;
    groups of equal make-up give the answers that each object gets alone.

    Parameters
    ----------
    prompts : sequence of Prompts
        One for each object.

    Returns
    -------
    list of list of int
        Indices of objects with equal number of points, box and mask size; each
        index once.

    Examples
    --------
    >>> from napari_sam.prompts import Prompts
    >>> point, box = Prompts(points=[[1, 2]]), Prompts(boxes=[0, 0, 4, 4])
    >>> alike([point, box, point])
    [[0, 2], [1]]
    """
    groups: dict[tuple[int, bool, int], list[int]] = {}
    for i, each in enumerate(prompts):
        mask_size = 0 if each.mask is None else len(each.mask)
        groups.setdefault((each.n_points, each.has_box, mask_size), []).append(i)
    return list(groups.values())


def to_input(
    prompts: Sequence[Prompts],
    crop: Crop,
    device: torch.device | str = "cpu",
) -> PromptTensors:
    """Move prompts of several objects into the input frame of a crop.

    Parameters
    ----------
    prompts : sequence of Prompts
        One for each object; where one has a box or a mask, all must have one
        (see `alike`). Objects with fewer points are padded.
    crop : Crop
        The crop whose embedding will be decoded.
    device : torch.device or str
        Where the tensors shall lie.

    Returns
    -------
    PromptTensors

    Raises
    ------
    InputError
        If there is no object, an object has neither point nor box, or objects
        differ in having a box or a mask.
    """
    if not prompts:
        raise InputError("no objects; give at least one Prompts")
    for i, each in enumerate(prompts):
        if each.is_empty:
            raise InputError(
                f"object {i} of {len(prompts)} has neither a point nor a box; "
                "give one (a mask alone is not enough)"
            )
    if len({(p.has_box, p.mask is None or p.mask.shape) for p in prompts}) > 1:
        raise InputError(
            "some objects have a box or a mask and others have not, or of another "
            "size; group them with napari_sam.prompts.alike first"
        )
    points, labels = _padded_points(prompts, crop)
    boxes = np.concatenate([crop.boxes_to_input(p.boxes) for p in prompts]) - 0.5
    masks = [p.mask for p in prompts if p.mask is not None]
    return PromptTensors(
        _tensor(_flip(points), device) if labels.size else None,
        torch.from_numpy(labels).to(device) if labels.size else None,
        _tensor(_flip(boxes.reshape(-1, 2, 2)).reshape(-1, 4), device)
        if boxes.size
        else None,
        _tensor(np.stack(masks)[:, None], device) if masks else None,
    )


def points_to_input(
    points: NDArray[np.float64], crop: Crop, device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Do as `to_input` does for objects with one positive point each; for many.

    Parameters
    ----------
    points : (N, 2) array, (y, x), plane pixels

    Returns
    -------
    points : (N, 1, 2) float32 tensor, (x, y), input frame
    labels : (N, 1) int64 tensor
    """
    inputs = _tensor(_flip(crop.to_input(points)), device)[:, None]
    return inputs, torch.ones(len(inputs), 1, dtype=torch.int64, device=device)


def _padded_points(
    prompts: Sequence[Prompts], crop: Crop
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    longest = max(each.n_points for each in prompts)
    points = np.zeros((len(prompts), longest, 2))
    labels = np.full((len(prompts), longest), _NOT_A_POINT, np.int64)
    for i, each in enumerate(prompts):
        points[i, : each.n_points] = crop.to_input(each.points)
        labels[i, : each.n_points] = each.positive
    return points, labels


def _flip(pairs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn (..., 2) of (y, x) into (x, y): the only such place above the network."""
    return pairs[..., ::-1]


def _tensor(
    values: NDArray[np.float64] | NDArray[np.float32], device: torch.device | str
) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, np.float32)).to(device)
