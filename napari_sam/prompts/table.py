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
from napari_sam.prompts.prompt import Prompts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

COLUMNS = ("object", "kind", "y", "x", "positive", "y0", "x0", "y1", "x1")
"""Columns of a table of prompts."""

_POINT, _BOX = ("y", "x"), ("y0", "x0", "y1", "x1")
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
    The column ``kind`` (``point`` or ``box``) may be left out.

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
            if row.box and any(other.box for other in objects.get(row.object_id, ())):
                raise InputError(f"a second box for object {row.object_id}")
        except InputError as error:
            raise FormatError(f"{path}, line {reader.line_num + 1}: {error}") from error
        objects.setdefault(row.object_id, []).append(row)
    return [_from_rows(n, rows, per_unit) for n, rows in objects.items()]


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
    rows: list[list[object]] = [list(COLUMNS)]
    for place, each in enumerate(prompts, start=1):
        number = each.object_id or place
        if each.mask is not None:
            warnings.warn(
                f"the mask prompt of object {number} is not written to {path}",
                NapariSamWarning,
                stacklevel=2,
            )
        signs = each.positive.astype(int).tolist()
        for (y, x), sign in zip(each.points.tolist(), signs, strict=True):
            rows.append([number, "point", y, x, sign, "", "", "", ""])
        rows.extend([number, "box", "", "", "", *box] for box in each.boxes.tolist())
    with (
        file_errors(path, "write"),
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)


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


def _text(path: Path) -> str:
    try:
        with file_errors(path):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text: {error}; save it as CSV") from error


def _from_rows(
    object_id: int, rows: Sequence[_Row], per_unit: tuple[float, float]
) -> Prompts:
    points = np.array([row.point for row in rows if row.point])
    boxes = np.array([row.box for row in rows if row.box])
    return Prompts(
        points * per_unit if points.size else None,
        [row.positive for row in rows if row.point],
        boxes * (per_unit * 2) if boxes.size else None,
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
