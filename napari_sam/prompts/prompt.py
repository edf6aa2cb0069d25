"""What the user points at: points, a box, a mask, all for one object.

Several objects are a list of `Prompts`. Coordinates are plane pixels, (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sam.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_LARGEST_ID = 2**32 - 1  # labels are uint32


@dataclass(frozen=True, slots=True, init=False, eq=False)
class Prompts:
    """Points, at most one box and at most one mask, for one object.

    Parameters
    ----------
    points : (N, 2) array, (y, x), plane pixels
        Pixel centres have integer coordinates.
    positive : (N,) array of bool, optional
        Whether a point lies in the object or beside it. Default: all in it.
    boxes : (M, 4) or (4,) array, y0, x0, y1, x1, plane pixels, optional
        Half-open box around the object, ``M <= 1``.
    mask : (m, m) array, logits, optional
        An earlier answer of the decoder for the same crop, to be refined.
    object_id : int, optional
        Number of the object in the labels, 1 to 2^32 - 1.

    Raises
    ------
    InputError
        If a shape is wrong, a number is not finite, a box is empty or there is
        more than one, or labels cannot hold the object id.

    Examples
    --------
    >>> prompts = Prompts(points=[[120, 80], [10, 5]], positive=[True, False])
    >>> prompts.n_points, prompts.centre
    (2, (120.0, 80.0))
    >>> Prompts(boxes=[10, 20, 30, 50]).centre
    (19.5, 34.5)
    """

    points: NDArray[np.float32]
    positive: NDArray[np.bool_]
    boxes: NDArray[np.float32]
    mask: NDArray[np.float32] | None
    object_id: int | None

    def __init__(
        self,
        points: ArrayLike | None = None,
        positive: ArrayLike | None = None,
        boxes: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        object_id: int | None = None,
    ) -> None:
        checked_points = _rows(points, 2, "points", "(y, x)")
        checked_boxes = _rows(boxes, 4, "boxes", "y0, x0, y1, x1")
        if len(checked_boxes) > 1:
            raise InputError(
                f"{len(checked_boxes)} boxes for one object; give one box to each "
                "object, in a list of Prompts"
            )
        if (checked_boxes[:, 2:] <= checked_boxes[:, :2]).any():
            raise InputError(
                f"box {checked_boxes[0].tolist()} is empty; give y0, x0, y1, x1 with "
                "y0 < y1 and x0 < x1"
            )
        if object_id is not None and not 1 <= object_id <= _LARGEST_ID:
            raise InputError(
                f"object id {object_id}; count from 1 to {_LARGEST_ID}, which labels "
                "can hold; 0 is background"
            )
        signs = _checked_signs(positive, len(checked_points))
        object.__setattr__(self, "points", checked_points)
        object.__setattr__(self, "positive", signs)
        object.__setattr__(self, "boxes", checked_boxes)
        object.__setattr__(self, "mask", _checked_mask(mask))
        object.__setattr__(self, "object_id", object_id)

    @property
    def n_points(self) -> int:
        """Number of points, positive and negative."""
        return len(self.points)

    @property
    def has_box(self) -> bool:
        """Whether there is a box."""
        return len(self.boxes) > 0

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a point nor a box; a mask alone is no prompt."""
        return self.n_points == 0 and not self.has_box

    @property
    def centre(self) -> tuple[float, float]:
        """(y, x) by which a crop is chosen, in plane pixels.

        The middle of the box; without a box the mean of the positive points;
        without those the mean of all points.

        Raises
        ------
        InputError
            If there is neither a point nor a box.
        """
        if self.is_empty:
            raise InputError("empty prompts have no centre; give a point or a box")
        if self.has_box:
            y0, x0, y1, x1 = self.boxes[0].tolist()
            return (y0 + y1 - 1) / 2, (x0 + x1 - 1) / 2
        chosen = self.points[self.positive] if self.positive.any() else self.points
        y, x = chosen.mean(axis=0, dtype=np.float64).tolist()
        return y, x

    def out_of_bounds(self, shape: tuple[int, int]) -> list[str]:
        """Describe each point and box that leaves the plane.

        Parameters
        ----------
        shape : tuple of int
            (height, width) of the plane, in pixels.

        Returns
        -------
        list of str
            One sentence each; empty if all is inside.

        Examples
        --------
        >>> Prompts(points=[[5, 5], [5, 64]]).out_of_bounds((64, 64))
        ['point (y, x) = (5, 64) lies outside the plane of 64 x 64 px']
        """
        where = f"the plane of {shape[0]} x {shape[1]} px"
        reports = []
        for y, x in self.points.tolist():
            if not (-0.5 <= y <= shape[0] - 0.5 and -0.5 <= x <= shape[1] - 0.5):
                reports.append(f"point (y, x) = ({y:g}, {x:g}) lies outside {where}")
        for y0, x0, y1, x1 in self.boxes.tolist():
            if min(y0, x0) < 0 or y1 > shape[0] or x1 > shape[1]:
                box = f"box (y0, x0, y1, x1) = ({y0:g}, {x0:g}, {y1:g}, {x1:g})"
                apart = y1 <= 0 or x1 <= 0 or y0 >= shape[0] or x0 >= shape[1]
                reports.append(f"{box} {'lies outside' if apart else 'leaves'} {where}")
        return reports


def _rows(
    values: ArrayLike | None, n_columns: int, what: str, order: str
) -> NDArray[np.float32]:
    try:
        array = np.asarray([] if values is None else values, np.float32).copy()
    except (ValueError, TypeError, RuntimeError) as error:  # of tensors
        raise InputError(f"{what} {values!r}; give {order} of each") from error
    if array.size == 0:
        array = array.reshape(0, n_columns)
    if array.shape == (n_columns,):
        array = array[None]
    if array.ndim != 2 or array.shape[1] != n_columns:
        raise InputError(
            f"{what} of shape {array.shape}; give (N, {n_columns}), {order} of each"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{what} {array.tolist()} are not all finite numbers")
    array.setflags(write=False)
    return array


def _checked_signs(positive: ArrayLike | None, n_points: int) -> NDArray[np.bool_]:
    given = np.atleast_1d(np.ones(n_points, bool) if positive is None else positive)
    if not np.isin(given, (0, 1)).all():
        raise InputError(
            f"positive {given.tolist()}; give True for a point in the object, False "
            "for one beside it"
        )
    signs = given.astype(bool)
    if signs.shape != (n_points,):
        raise InputError(
            f"{signs.size} values of positive for {n_points} points; give one for each"
        )
    signs.setflags(write=False)
    return signs


def _checked_mask(mask: ArrayLike | None) -> NDArray[np.float32] | None:
    if mask is None:
        return None
    logits = np.array(mask, np.float32)
    if logits.ndim != 2 or logits.shape[0] != logits.shape[1] or not logits.size:
        raise InputError(
            f"mask of shape {logits.shape}; give the logits (m, m) of an earlier answer"
        )
    if not np.isfinite(logits).all():
        raise InputError("the mask holds values that are not finite; give logits")
    logits.setflags(write=False)
    return logits
