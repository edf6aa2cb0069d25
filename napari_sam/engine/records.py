"""How each object was made: prompts, network, its own estimates, hand edits.

Records lie in a JSON file beside the labels, so that an object can be opened again
years later, by this program or by a person with a text editor.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_sam.errors import FileError, FormatError, MissingFileError
from napari_sam.writers.atomic import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

State = Literal["new", "accepted", "rejected"]


class DrawnShape(BaseModel):
    """A shape among the prompts; corners (y, x) in plane pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["box", "area", "line"]
    corners: tuple[tuple[float, float], ...]


class ObjectRecord(BaseModel):
    """How one object was made.

    Parameters
    ----------
    object_id : int
        Its id in the labels.
    index : tuple of int or None
        The plane: an integer for each axis that is fixed, None for rows and columns.
    points : tuple of (y, x)
        Plane pixels.
    positive : tuple of bool
        One for each point.
    shapes : tuple of DrawnShape
    crop : tuple of int, optional
        y0, x0, y1, x1 of the crop that answered.
    model, model_sha256 : str, optional
        Name and checksum of the weights.
    predicted_iou, stability : float, optional
        The network's own estimate, and the stability of the mask.
    hand_edits : int
        Strokes painted by hand since.
    made : datetime
        When it was committed.
    state : {"new", "accepted", "rejected"}
        What the review said.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    object_id: int = Field(ge=1)
    index: tuple[int | None, ...]
    points: tuple[tuple[float, float], ...] = ()
    positive: tuple[bool, ...] = ()
    shapes: tuple[DrawnShape, ...] = ()
    crop: tuple[int, int, int, int] | None = None
    model: str | None = None
    model_sha256: str | None = None
    predicted_iou: float | None = None
    stability: float | None = None
    hand_edits: int = 0
    made: datetime = Field(default_factory=lambda: datetime.now(UTC))
    state: State = "new"


class _File(BaseModel):
    format: Literal["napari-sam objects"] = "napari-sam objects"
    version: Literal[1] = 1
    objects: tuple[ObjectRecord, ...]


def write_records(records: Iterable[ObjectRecord], path: Path) -> None:
    """Write records as JSON; the file is replaced as a whole.

    Parameters
    ----------
    records : iterable of ObjectRecord
    path : Path

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    file = _File(objects=tuple(sorted(records, key=lambda each: each.object_id)))
    with atomic(path, overwrite=True) as part:
        part.write_text(file.model_dump_json(indent=1, exclude_defaults=False) + "\n")


def read_records(path: Path) -> dict[int, ObjectRecord]:
    """Read what `write_records` wrote.

    Parameters
    ----------
    path : Path

    Returns
    -------
    dict of int to ObjectRecord
        By object id.

    Raises
    ------
    MissingFileError, FileError
        If the file is not there, or cannot be read.
    FormatError
        If it holds something else.
    """
    try:
        file = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise MissingFileError(
            error.errno, "no such file; check its name and folder", str(path)
        ) from error
    except OSError as error:
        raise FileError(
            error.errno, f"cannot read, {error.strerror}", str(path)
        ) from error
    except (ValidationError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise FormatError(f"{path} holds no records of objects: {first}") from error
    return {each.object_id: each for each in file.objects}
