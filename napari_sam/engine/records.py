"""How each object was made: prompts, network, its own estimates, hand edits.

Records lie in a JSON file beside the labels, and in the notes of TIFF and OME-Zarr, so
that an object can be opened again years later, by this program or by a person with a
text editor.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_sam.errors import FormatError, file_errors
from napari_sam.prompts.drawn import POINT, Drawn
from napari_sam.writers.atomic import atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_sam.engine.draft import Draft
    from napari_sam.model import Sam
    from napari_sam.prompts import Prompts

State = Literal["new", "accepted", "rejected"]
_NAPARI = {"box": "rectangle", "area": "polygon", "line": "path"}

SliceState = Literal["prompted", "computed", "bridged", "stopped", "end"]


class DrawnShape(BaseModel):
    """A shape among the prompts; corners (y, x) in plane pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["box", "area", "line"]
    corners: tuple[tuple[float, float], ...]

    @classmethod
    def of(
        cls, kind: Literal["box", "area", "line"], corners: NDArray[Any]
    ) -> DrawnShape:
        """Return a shape with corners in an (N, 2) array."""
        return cls(kind=kind, corners=tuple((y, x) for y, x in corners.tolist()))


class SliceMark(BaseModel):
    """What is known of an object in one slice.

    Parameters
    ----------
    at : int
        The slice, counted from 0.
    state : {"prompted", "computed", "bridged", "stopped", "end"}
        Made by the user; found by propagation; the shape between its neighbours; no
        longer found; marked by the user as a slice without the object.
    is_suspicious : bool
        Worth a look.
    is_checked : bool
        The user has looked at it.
    predicted_iou : float, optional
        The network's own estimate.
    reason : str
        Why the object stopped there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: int
    state: SliceState
    is_suspicious: bool = False
    is_checked: bool = False
    predicted_iou: float | None = None
    reason: str = ""

    @property
    def is_doubtful(self) -> bool:
        """Whether the user should look at it, and has not yet."""
        return not self.is_checked and (self.is_suspicious or self.state == "stopped")


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
    along : int, optional
        Axis of the labels that the object was followed along.
    slices : tuple of SliceMark
        What is known of it there, ascending.
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
    along: int | None = None
    slices: tuple[SliceMark, ...] = ()

    def mark(self, at: int) -> SliceMark | None:
        """Return what is known of a slice."""
        return next((each for each in self.slices if each.at == at), None)

    def with_marks(self, marks: Iterable[SliceMark]) -> ObjectRecord:
        """Return this record with other marks in some slices."""
        known = {each.at: each for each in self.slices}
        known |= {each.at: each for each in marks}
        slices = tuple(known[at] for at in sorted(known))
        return self.model_copy(update={"slices": slices})

    def without_mark(self, at: int) -> ObjectRecord:
        """Return this record with nothing known of a slice."""
        slices = tuple(each for each in self.slices if each.at != at)
        return self.model_copy(update={"slices": slices})

    def made_at(self, index: tuple[int | None, ...]) -> ObjectRecord:
        """Note that the user has made or changed the object on a plane.

        A plane in line with those known before makes the object one of several
        slices; any other plane, of another frame or seen along another axis, is not
        noted.

        Parameters
        ----------
        index : tuple of int or None
            The plane.
        """
        axis, known = self.along, self
        if axis is None:
            axis = only_difference(self.index, index)
            if axis is None:
                return self
            first = SliceMark(at=int(self.index[axis] or 0), state="prompted")
            known = self.model_copy(update={"along": axis, "slices": (first,)})
        elif index != self.index and only_difference(self.index, index) != axis:
            return self
        at = int(index[axis] or 0)
        return known.with_marks([SliceMark(at=at, state="prompted")])


def only_difference(
    one: tuple[int | None, ...], other: tuple[int | None, ...]
) -> int | None:
    """Return the axis along which two planes lie behind each other.

    Examples
    --------
    >>> only_difference((0, 5, None, None), (0, 9, None, None))
    1

    Returns
    -------
    int or None
        None if they are one plane, or differ in more than a slice.
    """
    if len(one) != len(other):
        return None
    apart = [i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b]
    if len(apart) != 1 or one[apart[0]] is None or other[apart[0]] is None:
        return None
    return apart[0]


class _File(BaseModel):
    format: Literal["napari-sam objects"] = "napari-sam objects"
    version: Literal[1] = 1
    objects: tuple[ObjectRecord, ...]


RECORDS = "napari_sam"
"""Key under which a viewer keeps records in the metadata of a layer of labels."""

NOTE = "objects"
"""Key of the records in the notes of a label file."""


MOST_NOTED = 50_000
"""Objects up to which a label file carries their records (ours): some 15 MB."""


def as_notes(records: Iterable[ObjectRecord]) -> dict[str, Any]:
    """Return records as notes of a label file.

    Empty if there are none, or more than `MOST_NOTED`: nobody looks at so many one by
    one, and readers of the file would wait for them.
    """
    found = tuple(sorted(records, key=lambda each: each.object_id))
    if not 0 < len(found) <= MOST_NOTED:
        return {}
    return {NOTE: _File(objects=found).model_dump(mode="json")}


def from_notes(notes: Mapping[str, Any]) -> dict[int, ObjectRecord]:
    """Return the records in the notes of a label file.

    Returns
    -------
    dict of int to ObjectRecord
        By object id; empty if there are none that can be read.
    """
    try:
        file = _File.model_validate(notes.get(NOTE))
    except ValidationError:
        return {}
    return {each.object_id: each for each in file.objects}


def made_by(model: Sam) -> dict[str, str | None]:
    """Return the fields of a record that say which weights have answered."""
    return {"model": model.name, "model_sha256": model.weights_sha256}


def asked_with(draft: Draft) -> dict[str, Any]:
    """Return the fields of a record that say what was pointed at."""
    return {
        "points": tuple((y, x) for y, x in draft.points.tolist()),
        "positive": tuple(draft.positive.tolist()),
        "shapes": tuple(DrawnShape.of(s.kind, s.corners) for s in draft.shapes),
    }


def facts_of(records: Iterable[ObjectRecord]) -> dict[str, dict[int, Any]]:
    """Return what a table tells of objects beside their size: scores and verdicts.

    Returns
    -------
    dict of str to dict of int to value
        By column and object id; empty if there are no records.
    """
    facts: dict[str, dict[int, Any]] = {}
    for each in records:
        row = {
            "predicted_iou": each.predicted_iou,
            "stability": each.stability,
            "state": each.state,
            "hand_edits": each.hand_edits,
            "model": each.model,
        }
        for name, value in row.items():
            column = facts.setdefault(name, {})
            if value is not None:
                column[each.object_id] = value
    return facts


def record_of_prompts(prompts: Prompts, object_id: int) -> ObjectRecord:
    """Return the record of an object that prompts make, in labels of one plane."""
    # edges of a box lie half a pixel outside the centres of its outermost pixels
    boxes = [
        DrawnShape(kind="box", corners=((y0 - 0.5, x0 - 0.5), (y1 - 0.5, x1 - 0.5)))
        for y0, x0, y1, x1 in prompts.boxes.tolist()
    ]
    return ObjectRecord(
        object_id=object_id,
        index=(None, None),
        points=tuple((y, x) for y, x in prompts.points.tolist()),
        positive=tuple(prompts.positive.tolist()),
        shapes=tuple(boxes),
    )


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
        part.write_text(file.model_dump_json(indent=1) + "\n", encoding="utf-8")


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
        with file_errors(path):
            file = _File.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValidationError, ValueError) as error:
        first = str(error).partition("\n")[0]
        raise FormatError(f"{path} holds no records of objects: {first}") from error
    return {each.object_id: each for each in file.objects}


def drawn_by(records: Iterable[ObjectRecord], *, on_plane: bool = False) -> Drawn:
    """Return the prompts of objects as napari draws them.

    Parameters
    ----------
    records : iterable of ObjectRecord
    on_plane : bool, default False
        Give (y, x) alone. Default: places on all axes of the labels.
    """
    kinds: list[str] = []
    corners: list[NDArray[np.float64]] = []
    signs: list[bool] = []
    numbers: list[int] = []
    for record in records:
        given: list[tuple[str, Any, bool]] = [
            (POINT, [at], sign)
            for at, sign in zip(record.points, record.positive, strict=True)
        ]
        for each in record.shapes:
            ends = np.array(each.corners)
            if each.kind == "box":
                (y0, x0), (y1, x1) = ends.min(0), ends.max(0)
                ends = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
            given.append((_NAPARI[each.kind], ends, True))
        for kind, places, sign in given:
            at = np.array(places, np.float64)
            kinds.append(kind)
            corners.append(at if on_plane else _on_all_axes(at, record.index))
            signs.append(sign)
            numbers.append(record.object_id)
    return Drawn(tuple(kinds), tuple(corners), tuple(signs), tuple(numbers))


def _on_all_axes(
    places: NDArray[np.float64], index: tuple[int | None, ...]
) -> NDArray[np.float64]:
    sides = iter(places.T)
    return np.stack(
        [
            next(sides) if each is None else np.full(len(places), float(each))
            for each in index
        ],
        axis=1,
    )
