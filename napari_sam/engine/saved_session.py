"""A session as a folder, so that work continues tomorrow exactly where it ended.

    session.json           image, plane, settings, prompts that are not committed yet
    drafts.NUMBER.npz      the masks and logits that these prompts began with
    objects.NUMBER.json    how each object was made
    labels.NUMBER.tif      the label pixels; ``.zarr`` for those of a large image
    prompts.csv            prompts of all objects, for other programs

Each time it is saved these parts come under new names, which ``session.json`` tells;
it is replaced as the last one, and the parts before go. Whatever interrupts, all that
is read is of one moment. Label pixels are written by whoever holds them.
"""

from __future__ import annotations

import json
import secrets
import shutil
import zipfile
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_sam.engine.draft import Draft, Feedback, PlaneMask, Shape
from napari_sam.engine.records import (
    DrawnShape,
    asked_with,
    drawn_by,
    read_records,
    write_records,
)
from napari_sam.errors import FileError, FormatError, InputError, MissingFileError
from napari_sam.prompts.table import write_drawn_table
from napari_sam.tiling import Box, Crop
from napari_sam.writers.atomic import atomic, make_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from napari_sam.engine.records import ObjectRecord
    from napari_sam.engine.session import Session
    from napari_sam.labels import PlaneIndex

SESSION, DRAFTS, OBJECTS, PROMPTS = (
    "session.json",
    "drafts.npz",
    "objects.json",
    "prompts.csv",
)

_FROZEN = ConfigDict(frozen=True, extra="forbid")


class SavedDraft(BaseModel):
    """Prompts of one plane that were not committed, but for their arrays.

    Parameters
    ----------
    index : tuple of int or None
        The plane.
    points, positive, shapes, object_id
        As in `Draft`.
    start : tuple of int, optional
        Box of the mask of the object that was opened again.
    crop : dict, optional
        The crop that the logits fed back speak of.
    """

    model_config = _FROZEN

    index: tuple[int | None, ...]
    points: tuple[tuple[float, float], ...] = ()
    positive: tuple[bool, ...] = ()
    shapes: tuple[DrawnShape, ...] = ()
    object_id: int | None = None
    start: tuple[int, int, int, int] | None = None
    crop: dict[str, Any] | None = None


class SavedSession(BaseModel):
    """What ``session.json`` holds.

    Parameters
    ----------
    image : str
        Name of the image.
    labels : str, optional
        File or folder of the label pixels, relative to the folder.
    index : tuple of int or None
        The plane that was looked at.
    model : str, optional
        Name of the weights.
    on_overlap, diameter
        As in `SessionState`.
    scale : float, optional
        Input pixels per plane pixel, as in `PlaneView`.
    limits : tuple of (float, float)
        Pixel values that were black and white, for each channel.
    drafts : tuple of SavedDraft
    arrays, objects : str
        Files in the same folder: the arrays of the drafts, and how objects were made.
    """

    model_config = _FROZEN

    format: Literal["napari-sam session"] = "napari-sam session"
    version: Literal[1] = 1
    image: str
    labels: str | None = Field(None, pattern=r"^labels[.\w]*\.(tif|zarr)$")
    index: tuple[int | None, ...]
    model: str | None = None
    on_overlap: Literal["keep", "overwrite", "ask"] = "keep"
    diameter: int = 0
    scale: float | None = None
    limits: tuple[tuple[float, float], ...] = ()
    drafts: tuple[SavedDraft, ...] = ()
    arrays: str = Field(DRAFTS, pattern=r"^drafts[.\w]*\.npz$")
    objects: str = Field(OBJECTS, pattern=r"^objects[.\w]*\.json$")


class PixelWriter(NamedTuple):
    """Writes label pixels as they were at one moment.

    Parameters
    ----------
    suffix : str
        How the name of the file, or of the folder, ends.
    write : callable
        Writes them under a name that does not exist yet.
    """

    suffix: str
    write: Callable[[Path], None]


class Snapshot:
    """A session at one moment; made in its thread, written in any.

    Parameters
    ----------
    session : Session
    labels : PixelWriter, optional
        Writes the label pixels.
    model : str, optional
        Name of the weights.

    Raises
    ------
    InputError
        If the session has no image.
    """

    def __init__(
        self,
        session: Session,
        *,
        labels: PixelWriter | None = None,
        model: str | None = None,
    ) -> None:
        view = session.view
        if view is None:
            raise InputError("a session without an image; open an image first")
        drafts: dict[PlaneIndex, Draft] = session.drafts_by_plane()
        self._arrays: dict[str, Any] = {}
        for number, draft in enumerate(drafts.values()):
            if draft.start is not None:
                self._arrays[f"mask_{number}"] = draft.start.mask
            if draft.feedback is not None:
                self._arrays[f"logits_{number}"] = draft.feedback.logits
        self._records = dict(session.records)
        self._labels = labels
        self._saved = SavedSession(
            image=view.source.name,
            index=view.index,
            model=model,
            on_overlap=session.state.on_overlap,
            diameter=session.state.diameter,
            scale=view.scale,
            limits=() if view.intensity is None else view.intensity.limits,
            drafts=tuple(_saved(index, draft) for index, draft in drafts.items()),
        )

    def write(self, folder: Path) -> None:
        """Write the files; ``session.json`` comes last, for it names the others.

        Raises
        ------
        FileError
            If the folder cannot be written to; then what it held before is there.
        """
        make_folder(folder)
        number = secrets.token_hex(4)
        names = {"arrays": f"drafts.{number}.npz", "objects": f"objects.{number}.json"}
        if self._labels is not None:
            names["labels"] = f"labels.{number}{self._labels.suffix}"
        before = _named_in(folder)
        try:
            self._write_parts(folder, names)
        finally:
            if (named := _named_in(folder)) is not None:
                for name in {*(before or ()), *names.values()} - named:
                    _remove(folder / name)

    def _write_parts(self, folder: Path, names: dict[str, str]) -> None:
        if self._labels is not None:
            self._labels.write(folder / names["labels"])
        arrays = folder / names["arrays"]
        with atomic(arrays, overwrite=False) as part, part.open("wb") as file:
            np.savez_compressed(file, **self._arrays)
        write_records(self._records.values(), folder / names["objects"])
        with atomic(folder / PROMPTS, overwrite=True) as part:
            write_drawn_table(drawn_by(self._records.values(), on_plane=True), part)
        with atomic(folder / SESSION, overwrite=True) as part:
            saved = self._saved.model_copy(update=names)
            part.write_text(saved.model_dump_json(indent=1), encoding="utf-8")


def read_session(
    folder: Path,
) -> tuple[SavedSession, dict[PlaneIndex, Draft], dict[int, ObjectRecord]]:
    """Read what `Snapshot.write` wrote.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    saved : SavedSession
    drafts : dict
        By plane.
    records : dict of int to ObjectRecord
        By object id.

    Raises
    ------
    MissingFileError
        If the folder holds no session.
    FormatError
        If a file is damaged.
    """
    path = folder / SESSION
    try:
        saved = SavedSession.model_validate(json.loads(path.read_text("utf-8")))
        with np.load(folder / saved.arrays, allow_pickle=False) as arrays:
            drafts = {
                each.index: _draft(each, number, arrays)
                for number, each in enumerate(saved.drafts)
            }
    except FileNotFoundError as error:
        raise MissingFileError(
            error.errno, "no saved session; choose its folder", str(folder)
        ) from error
    except OSError as error:
        raise FileError(
            error.errno, f"cannot read, {error.strerror}", str(folder)
        ) from error
    except (ValidationError, ValueError, KeyError, zipfile.BadZipFile) as error:
        first = str(error).partition("\n")[0]
        raise FormatError(f"{path} is no saved session: {first}") from error
    return saved, drafts, read_records(folder / saved.objects)


def _named_in(folder: Path) -> set[str] | None:
    """Return the parts that ``session.json`` names; None if it cannot be read."""
    try:
        text = (folder / SESSION).read_text("utf-8")
        saved = SavedSession.model_validate_json(text)
    except FileNotFoundError:
        return set()
    except (OSError, ValueError):
        return None
    return {saved.arrays, saved.objects, saved.labels or saved.arrays}


def _remove(path: Path) -> None:
    """Remove a part that is not needed; one that stays does no harm."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _saved(index: PlaneIndex, draft: Draft) -> SavedDraft:
    start, feedback = draft.start, draft.feedback
    return SavedDraft(
        index=index,
        **asked_with(draft),
        object_id=draft.object_id,
        start=None
        if start is None
        else (start.box.y0, start.box.x0, start.box.y1, start.box.x1),
        crop=None if feedback is None else asdict(feedback.crop),
    )


def _draft(saved: SavedDraft, number: int, arrays: Mapping[str, Any]) -> Draft:
    start = feedback = None
    if saved.start is not None:
        start = PlaneMask(Box(*saved.start), arrays[f"mask_{number}"])
    if saved.crop is not None:
        crop = saved.crop
        place = Crop(
            crop["index"],
            crop["row"],
            crop["col"],
            Box(**crop["box"]),
            Box(**crop["core"]),
            tuple(crop["input_shape"]),
        )
        feedback = Feedback(arrays[f"logits_{number}"], place)
    return Draft(
        np.array(saved.points, np.float32).reshape(-1, 2),
        np.array(saved.positive, bool),
        tuple(Shape(s.kind, np.array(s.corners, np.float32)) for s in saved.shapes),
        saved.object_id,
        start,
        feedback,
    )
