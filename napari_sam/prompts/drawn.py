"""Points and shapes as napari draws and saves them: in a layer, or in its CSV files.

napari writes one line for each point (``index``, ``axis-0``, ``axis-1`` ..., and the
features of the layer), and one for each corner of a shape (``index``, ``shape-type``,
``vertex-index``, ``axis-0`` ...). Numbers are pixels of the layer, on all of its axes.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sam.errors import FormatError, InputError, file_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

POINT = "point"
"""Kind of a point, among napari's names of shapes."""

_WORDS = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """What a Points or Shapes layer of napari holds.

    Parameters
    ----------
    kinds : tuple of str
        "point", or a shape of napari: "rectangle", "ellipse", "polygon", "path" ...
    corners : tuple of (n, D) float64 array
        One for each of them, in pixels, on all axes of the layer.
    positive : tuple of bool, optional
        Whether a point lies in its object; a feature of our own points. Default: not
        known.
    objects : tuple of int, optional
        Which object each belongs to. Default: not known.
    """

    kinds: tuple[str, ...]
    corners: tuple[NDArray[np.float64], ...]
    positive: tuple[bool, ...] | None = None
    objects: tuple[int, ...] | None = None

    def of_kinds(self, *, points: bool) -> Drawn:
        """Return the points alone, or the shapes alone."""
        kept = [i for i, kind in enumerate(self.kinds) if (kind == POINT) == points]
        return Drawn(
            tuple(self.kinds[i] for i in kept),
            tuple(self.corners[i] for i in kept),
            None if self.positive is None else tuple(self.positive[i] for i in kept),
            None if self.objects is None else tuple(self.objects[i] for i in kept),
        )

    @classmethod
    def of_points(
        cls, points: NDArray[Any], features: Mapping[str, Sequence[Any]]
    ) -> Drawn:
        """Return the points of a layer.

        Parameters
        ----------
        points : (N, D) array
        features : mapping of str to sequence
            Columns ``positive`` and ``object`` count, if they are there.
        """
        signs, numbers = features.get("positive"), features.get("object")
        return cls(
            (POINT,) * len(points),
            tuple(np.asarray(points, np.float64)[:, None]),
            None if signs is None else tuple(bool(each) for each in signs),
            None if numbers is None else tuple(int(each) for each in numbers),
        )


def is_drawn(path: Path) -> bool:
    """Whether a file is a table of napari's points or shapes, by its first line."""
    if path.suffix.lower() != ".csv":
        return False
    with file_errors(path), path.open(encoding="utf-8-sig", errors="replace") as file:
        return "axis-0" in file.readline().strip().split(",")


def read_drawn(path: Path) -> Drawn:
    """Read points or shapes that napari has saved.

    Parameters
    ----------
    path : Path
        CSV file of napari.

    Returns
    -------
    Drawn

    Raises
    ------
    MissingFileError, FileError
        If the file cannot be read.
    FormatError
        If a line cannot be understood; names the line.
    """
    try:
        with file_errors(path), path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = list(reader.fieldnames or ())
            lines = list(reader)
    except UnicodeDecodeError as error:
        raise FormatError(f"{path} is no text: {error}; save it as CSV") from error
    axes = [name for name in names if name.startswith("axis-")]
    if len(axes) < 2:
        raise FormatError(
            f"{path} begins with {','.join(names)!r}; expected index, axis-0, axis-1, "
            "as napari saves points and shapes"
        )
    places = np.zeros((len(lines), len(axes)))
    for number, line in enumerate(lines):
        for axis, name in enumerate(axes):
            places[number, axis] = _number(line[name], path, number, name)
    if "shape-type" not in names:
        given: dict[str, list[float]] = {
            name: [_number(line[name], path, n, name) for n, line in enumerate(lines)]
            for name in ("positive", "object")
            if name in names
        }
        return Drawn.of_points(places, given)
    members: dict[float, list[int]] = {}
    for number, line in enumerate(lines):
        key = _number(line.get("index"), path, number, "index")
        members.setdefault(key, []).append(number)
    return Drawn(
        tuple(lines[each[0]]["shape-type"] for each in members.values()),
        tuple(places[each] for each in members.values()),
    )


def write_drawn(drawn: Drawn, path: Path) -> None:
    """Write points, or shapes, as napari saves them and opens them.

    Parameters
    ----------
    drawn : Drawn
        Points alone or shapes alone; napari has a file for each. Points keep the
        features ``positive`` and ``object``, shapes have none in napari's files.
    path : Path
        CSV file; replaced if it exists.

    Raises
    ------
    InputError
        If there are both, or neither.
    FileError
        If the file cannot be written.
    """
    is_point = {kind == POINT for kind in drawn.kinds}
    if len(is_point) != 1:
        raise InputError(
            f"{len(drawn.kinds)} points and shapes; a file of napari holds one or more "
            "points, or one or more shapes"
        )
    axes = [f"axis-{axis}" for axis in range(drawn.corners[0].shape[1])]
    if not is_point.pop():
        rows: list[list[object]] = [["index", "shape-type", "vertex-index", *axes]]
        for number, (kind, corners) in enumerate(
            zip(drawn.kinds, drawn.corners, strict=True)
        ):
            places = corners.tolist()
            rows += [[number, kind, i, *place] for i, place in enumerate(places)]
    else:
        features = {"positive": drawn.positive, "object": drawn.objects}
        known = {name: each for name, each in features.items() if each is not None}
        rows = [["index", *axes, *known]]
        for number, corners in enumerate(drawn.corners):
            more = [int(each[number]) for each in known.values()]
            rows.append([number, *corners[0].tolist(), *more])
    write_csv(rows, path)


def write_csv(rows: Iterable[Sequence[object]], path: Path) -> None:
    """Write lines of a table.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    with (
        file_errors(path, "write"),
        path.open("w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, lineterminator="\n").writerows(rows)


def _number(text: str | None, path: Path, line: int, name: str) -> float:
    word = (text or "").strip().lower()
    try:
        number = _WORDS[word] if word in _WORDS else float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FormatError(f"{path}, line {line + 2}: {name} {text!r}; write a number")
    return number
