"""Prompts as text: typed on the command line, or one line of a table each."""

from __future__ import annotations

import csv
import math
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_sam.errors import (
    FormatError,
    InputError,
    NapariSamWarning,
    file_errors,
)
from napari_sam.prompts.drawn import POINT, Drawn, write_csv
from napari_sam.prompts.prompt import Prompts
from napari_sam.prompts.regions import points_along, prompts_from_outline

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TABLE_ENDINGS = (".csv", ".tsv", ".txt")

COLUMNS = ("object", "kind", "y", "x", "positive", "y0", "x0", "y1", "x1")
"""Columns of a table of prompts."""

_POINT, _BOX = ("y", "x"), ("y0", "x0", "y1", "x1")
_SHAPES = {"area": "polygon", "line": "path"}
"""Kinds of which each line is a corner, and what napari calls them."""
_SIGNS = {
    **dict.fromkeys(("", "+", "1", "true", "yes", "positive"), True),
    **dict.fromkeys(("-", "0", "false", "no", "negative"), False),
}


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


def read_table(path: Path, per_unit: tuple[float, float] = (1.0, 1.0)) -> list[Prompts]:
    """Read a table of prompts.

    One line is one point (columns ``y``, ``x`` and optionally ``positive``) or one
    box (``y0``, ``x0``, ``y1``, ``x1``). Lines with the same number in the column
    ``object`` belong together; without that column each line is an object.
    The column ``kind`` may be left out for ``point`` and ``box``. Lines of the kinds
    ``area`` and ``line`` are the corners (``y``, ``x``) of what was drawn; an area
    becomes its box and a point inside, a line a few points along it.

    Parameters
    ----------
    path : Path
        CSV file with a header; separated by commas, semicolons or tabs.
    per_unit : tuple of float
        (y, x) pixels in one unit of the file's numbers.

    Returns
    -------
    list of Prompts
        In the order in which the objects appear; `Prompts.object_id` is set.

    Raises
    ------
    MissingFileError
        If there is no such file.
    FileError
        If the file cannot be read.
    FormatError
        If a column is missing or a line cannot be understood; names the line.
    """
    rows = _read_rows(path)
    return [_from_rows(number, each, per_unit) for number, each in rows.items()]


def read_drawn_table(path: Path) -> Drawn:
    """Read a table of prompts as it was drawn, with whole areas and lines.

    Parameters
    ----------
    path : Path
        As of `read_table`, in pixels.

    Returns
    -------
    Drawn
        Object by object; corners of boxes are their edges, as napari draws them.

    Raises
    ------
    MissingFileError, FileError, FormatError
        As of `read_table`.
    """
    kinds, corners, signs, numbers = [], [], [], []
    for number, rows in _read_rows(path).items():
        drawn: list[tuple[str, Any, bool]] = [
            (POINT, [row.numbers], row.positive) for row in rows if row.is_point
        ]
        for row in rows:
            if row.kind == "box":
                y0, x0, y1, x1 = row.numbers
                around = np.array([(y0, x0), (y0, x1), (y1, x1), (y1, x0)])
                drawn.append(("rectangle", around - 0.5, True))
        for kind, name in _SHAPES.items():
            if own := [row.numbers for row in rows if row.kind == kind]:
                drawn.append((name, own, True))
        for name, places, sign in drawn:
            kinds.append(name)
            corners.append(np.array(places, np.float64))
            signs.append(sign)
            numbers.append(number)
    return Drawn(tuple(kinds), tuple(corners), tuple(signs), tuple(numbers))


def _read_rows(path: Path) -> dict[int, list[_Row]]:
    """Read the lines of a table, by object."""
    lines = _text(path).splitlines()
    header = lines[0] if lines else ""
    delimiter = max(",;\t", key=header.count)
    cells = next(csv.reader([header], delimiter=delimiter), [])
    names = [name.strip().lower() for name in cells]
    if not (set(_POINT) <= set(names) or set(_BOX) <= set(names)):
        raise FormatError(
            f"{path} begins with {header!r}; expected a line with the columns y, x "
            "for points or y0, x0, y1, x1 for boxes"
        )
    objects: dict[int, list[_Row]] = {}
    reader = csv.DictReader(lines[1:], fieldnames=names, delimiter=delimiter)
    for line in reader:
        try:
            row = _Row.read(line, default_id=len(objects) + 1)
            for other in objects.get(row.object_id, ()):
                row.check_beside(other)
        except InputError as error:
            raise FormatError(f"{path}, line {reader.line_num + 1}: {error}") from error
        objects.setdefault(row.object_id, []).append(row)
    return objects


def write_prompts(prompts: Iterable[Prompts], path: Path) -> None:
    """Write a table of prompts that `read_table` reads.

    Parameters
    ----------
    prompts : iterable of Prompts
        One for each object. Objects without `Prompts.object_id` get their place
        in this order, from 1.
    path : Path
        CSV file; replaced if it exists.

    Raises
    ------
    FileError
        If the file cannot be written.

    Warns
    -----
    NapariSamWarning
        If there are masks, which a table cannot hold.
    """
    drawn: list[tuple[str, NDArray[Any], bool, int]] = []
    for place, each in enumerate(prompts, start=1):
        number = each.object_id or place
        if each.mask is not None:
            warnings.warn(
                f"the mask prompt of object {number} is not written to {path}",
                NapariSamWarning,
                stacklevel=2,
            )
        for point, sign in zip(each.points, each.positive, strict=True):
            drawn.append((POINT, point[None], bool(sign), number))
        ends = each.boxes.astype(np.float64).reshape(-1, 2, 2) - 0.5
        drawn.extend(("rectangle", box, True, number) for box in ends)
    kinds, corners, signs, numbers = zip(*drawn, strict=True) if drawn else ((),) * 4
    write_drawn_table(Drawn(kinds, corners, signs, numbers), path)


def write_drawn_table(drawn: Drawn, path: Path) -> None:
    """Write a table that `read_drawn_table` and `read_table` read.

    Parameters
    ----------
    drawn : Drawn
        On one plane: points, rectangles (with upright sides), polygons and paths, of
        which objects are known.
    path : Path
        CSV file; replaced if it exists.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    rows: list[list[object]] = [list(COLUMNS)]
    names = {name: kind for kind, name in _SHAPES.items()}
    n_drawn = len(drawn.kinds)
    signs = drawn.positive or (True,) * n_drawn
    numbers = drawn.objects or range(1, n_drawn + 1)
    for kind, corners, sign, number in zip(
        drawn.kinds, drawn.corners, signs, numbers, strict=True
    ):
        if kind == "rectangle":
            edges = [*(corners.min(0) + 0.5), *(corners.max(0) + 0.5)]
            rows.append([number, "box", "", "", "", *map(float, edges)])
            continue
        mark = int(sign) if kind == POINT else ""
        for y, x in corners.tolist():
            rows.append([number, names.get(kind, "point"), y, x, mark, *[""] * 4])
    write_csv(rows, path)


class _Row(NamedTuple):
    """One line of a table: a point, a box, or a corner of a shape of one object.

    `numbers` are y, x, or of a box y0, x0, y1, x1.
    """

    object_id: int
    kind: str
    numbers: tuple[float, ...]
    positive: bool = True

    @property
    def is_point(self) -> bool:
        return self.kind == "point"

    @classmethod
    def read(cls, cells: Mapping[str | Any, str | Any], default_id: int) -> _Row:
        if None in cells:
            raise InputError("more cells than columns; write decimals with a point")
        text = {name: (cell or "").strip() for name, cell in cells.items()}
        kind = text.get("kind", "") or (
            "box" if any(text.get(name) for name in _BOX) else "point"
        )
        if kind not in ("point", "box", *_SHAPES):
            raise InputError(f"kind {kind!r}; write point, box, area or line")
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
        is_negative = kind == "point" and not _SIGNS[sign]
        return cls(int(number), kind, tuple(numbers), not is_negative)

    def check_beside(self, other: _Row) -> None:
        """Raise where both are shapes, and not corners of one."""
        if self.is_point or other.is_point:
            return
        if self.kind == "box" or self.kind != other.kind:
            raise InputError(
                f"a second {self.kind} for object {self.object_id}"
                if self.kind == other.kind
                else f"a {self.kind} beside the {other.kind} of object {self.object_id}"
            )


def _text(path: Path) -> str:
    try:
        with file_errors(path):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text: {error}; save it as CSV") from error


def _from_rows(
    object_id: int, rows: Sequence[_Row], per_unit: tuple[float, float]
) -> Prompts:
    def numbers(kind: str) -> NDArray[np.float64]:
        scale = per_unit * 2 if kind == "box" else per_unit
        found = [row.numbers for row in rows if row.kind == kind]
        return np.array(found).reshape(-1, len(scale)) * scale

    boxes, points = numbers("box"), numbers("point")
    signs = [row.positive for row in rows if row.is_point]
    more = points_along(numbers("line"))
    if len(area := numbers("area")):
        # its outline is measured from the corner of the first pixel
        region = prompts_from_outline([area + 0.5])
        boxes, more = region.boxes.astype(np.float64), region.points
    return Prompts(
        np.concatenate([points, more]),
        signs + [True] * len(more),
        boxes if len(boxes) else None,
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
