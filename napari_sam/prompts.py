"""What the user points at, and its way into the network.

`Prompts` are in plane pixels, (y, x), and belong to one object; several objects
are a list of them. The network wants (x, y) in the input frame of a crop:
`to_input` is the only place where the two orders meet.

A point is a pixel centre, but the numbers of a half-open box are pixel edges.
The network adds half a pixel to both, so a corner is given to it half a pixel
before its edge: a box over the whole crop then spans exactly the whole frame.
"""

from __future__ import annotations

import csv
import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from napari_sam.errors import FormatError, InputError, NapariSamWarning

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from napari_sam.tiling import Crop

COLUMNS = ("object", "kind", "y", "x", "positive", "y0", "x0", "y1", "x1")
"""Columns of a table of prompts."""

_POINT, _BOX = ("y", "x"), ("y0", "x0", "y1", "x1")
_SIGNS = {
    **dict.fromkeys(("", "+", "1", "true", "yes", "positive"), True),
    **dict.fromkeys(("-", "0", "false", "no", "negative"), False),
}
_NOT_A_POINT = -1


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
        Number of the object in the labels, 1 or more.

    Raises
    ------
    InputError
        If a shape is wrong, a number is not finite, a box is empty or there is
        more than one.

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
        if object_id is not None and object_id < 1:
            raise InputError(f"object id {object_id}; count from 1, 0 is background")
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


def parse_point(text: str) -> tuple[float, float, bool]:
    """Read a point typed as ``y,x`` or, negative, as ``y,x,-``.

    Parameters
    ----------
    text : str
        Two numbers, in plane pixels, and optionally ``+`` or ``-``.

    Returns
    -------
    (float, float, bool)
        y, x and whether the point is positive.

    Raises
    ------
    InputError
        If the text is something else.

    Examples
    --------
    >>> parse_point("120,80.5"), parse_point("3, 4, -")
    ((120.0, 80.5, True), (3.0, 4.0, False))
    """
    parts = [part.strip() for part in text.split(",")]
    sign = parts[2].lower() if len(parts) == 3 else "+"
    numbers = _numbers(parts[:2])
    if len(parts) not in (2, 3) or len(numbers) != 2 or sign not in _SIGNS:
        raise InputError(f"point {text!r}; write y,x or y,x,- in pixels: 120,80")
    return numbers[0], numbers[1], _SIGNS[sign]


def parse_box(text: str) -> tuple[float, float, float, float]:
    """Read a box typed as ``y0,x0,y1,x1``.

    Parameters
    ----------
    text : str
        Four numbers, in plane pixels; the box is half-open.

    Returns
    -------
    (float, float, float, float)
        y0, x0, y1, x1.

    Raises
    ------
    InputError
        If the text is something else.

    Examples
    --------
    >>> parse_box("10,20,30,50")
    (10.0, 20.0, 30.0, 50.0)
    """
    parts = text.split(",")
    numbers = _numbers(parts)
    if len(parts) != 4 or len(numbers) != 4:
        raise InputError(f"box {text!r}; write y0,x0,y1,x1 in pixels: 10,20,30,50")
    return numbers[0], numbers[1], numbers[2], numbers[3]


def read_prompts(path: Path) -> list[Prompts]:
    """Read a table of prompts.

    One line is one point (columns ``y``, ``x`` and optionally ``positive``) or one
    box (``y0``, ``x0``, ``y1``, ``x1``). Lines with the same number in the column
    ``object`` belong together; without that column each line is an object.
    The column ``kind`` (``point`` or ``box``) may be left out.

    Parameters
    ----------
    path : Path
        CSV file with a header; separated by commas, semicolons or tabs.

    Returns
    -------
    list of Prompts
        In the order in which the objects appear; `Prompts.object_id` is set.

    Raises
    ------
    FormatError
        If a column is missing or a line cannot be understood; names the line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            text = file.read()
        except UnicodeDecodeError as error:
            raise FormatError(f"{path} is no text: {error}; save it as CSV") from error
    lines = text.splitlines()
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    names = [name.strip().lower() for name in header.split(delimiter)]
    if not (set(_POINT) <= set(names) or set(_BOX) <= set(names)):
        raise FormatError(
            f"{path} begins with {header!r}; expected a line with the columns y, x "
            "for points or y0, x0, y1, x1 for boxes"
        )
    objects: dict[int, list[_Row]] = {}
    reader = csv.DictReader(lines[1:], fieldnames=names, delimiter=delimiter)
    for cells in reader:
        try:
            row = _Row.read(cells, default_id=len(objects) + 1)
            if row.box and any(other.box for other in objects.get(row.object_id, ())):
                raise InputError(f"a second box for object {row.object_id}")
        except InputError as error:
            raise FormatError(f"{path}, line {reader.line_num + 1}: {error}") from error
        objects.setdefault(row.object_id, []).append(row)
    return [_from_rows(object_id, rows) for object_id, rows in objects.items()]


def write_prompts(prompts: Iterable[Prompts], path: Path) -> None:
    """Write a table of prompts that `read_prompts` reads.

    Parameters
    ----------
    prompts : iterable of Prompts
        One for each object. Objects without `Prompts.object_id` get their place
        in this order, from 1.
    path : Path
        CSV file; replaced if it exists.

    Warns
    -----
    NapariSamWarning
        If there are masks, which a table cannot hold.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for place, each in enumerate(prompts, start=1):
            number = each.object_id or place
            if each.mask is not None:
                warnings.warn(
                    f"the mask prompt of object {number} is not written to {path}",
                    NapariSamWarning,
                    stacklevel=2,
                )
            for (y, x), sign in zip(
                each.points.tolist(), each.positive.tolist(), strict=True
            ):
                writer.writerow([number, "point", y, x, int(sign), "", "", "", ""])
            for box in each.boxes.tolist():
                writer.writerow([number, "box", "", "", "", *box])


class _Row(NamedTuple):
    """One line of a table: a point or a box of one object."""

    object_id: int
    point: tuple[float, ...]
    positive: bool
    box: tuple[float, ...]

    @classmethod
    def read(cls, cells: Mapping[str | Any, str | Any], default_id: int) -> _Row:
        if None in cells:
            raise InputError("more cells than columns; write decimals with a point")
        text = {name: (cell or "").strip() for name, cell in cells.items()}
        kind = text.get("kind", "") or (
            "box" if any(text.get(name) for name in _BOX) else "point"
        )
        if kind not in ("point", "box"):
            raise InputError(f"kind {kind!r}; write point or box")
        wanted = _BOX if kind == "box" else _POINT
        numbers = _numbers([text.get(name, "") for name in wanted])
        if len(numbers) != len(wanted):
            given = ", ".join(f"{name}={text.get(name, '')!r}" for name in wanted)
            raise InputError(f"{kind} with {given}; write a number for each")
        sign = text.get("positive", "").lower()
        if sign not in _SIGNS:
            raise InputError(f"positive {text['positive']!r}; write 1 or 0")
        number = text.get("object", str(default_id))
        if not number.isdecimal() or int(number) < 1:
            raise InputError(f"object {number!r}; write an integer from 1")
        if kind == "box":
            Prompts(boxes=numbers)  # raises if the box is empty
            return cls(int(number), (), True, tuple(numbers))
        return cls(int(number), tuple(numbers), _SIGNS[sign], ())


def _from_rows(object_id: int, rows: Sequence[_Row]) -> Prompts:
    return Prompts(
        [row.point for row in rows if row.point],
        [row.positive for row in rows if row.point],
        [row.box for row in rows if row.box],
        object_id=object_id,
    )


def _numbers(texts: Sequence[str]) -> list[float]:
    """Return the numbers, fewer than texts if one is none."""
    numbers = []
    for text in texts:
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number):
            numbers.append(number)
    return numbers


def _rows(
    values: ArrayLike | None, n_columns: int, what: str, order: str
) -> NDArray[np.float32]:
    try:
        array = np.array([] if values is None else values, np.float32)
    except (ValueError, TypeError) as error:
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
    signs = np.array(
        np.ones(n_points, bool) if positive is None else positive, bool, ndmin=1
    )
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
