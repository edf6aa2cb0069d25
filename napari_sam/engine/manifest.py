"""What became of every crop of an image: one JSON line each, only ever added to.

A line is written after the result that it speaks of is safe on disk, so a process may
be killed at any moment: at worst one crop is done again. The last line about a crop
counts; a line that was cut off by a crash is passed over.

The first line names the work, by a digest of all that the labels depend on. Results
of other settings are never taken for those that are wanted. An image that could not be
opened has a manifest, too, with an empty digest and the reason.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from napari_sam.errors import FileError
from napari_sam.writers.atomic import atomic, make_folder

if TYPE_CHECKING:
    from pathlib import Path

FORMAT_VERSION = 1

State = Literal["done", "empty", "skipped", "failed"]


@dataclass(frozen=True, slots=True)
class CropRecord:
    """What became of one crop.

    Parameters
    ----------
    frame, slice, crop : int
        The plane, and the number of the crop in its grid.
    state : {"done", "empty", "skipped", "failed"}
        Masks were found; none was found; background, not looked at; see `reason`.
    objects : int
        How many masks the crop holds, before crops are joined.
    reason : str
        Why it failed.
    """

    frame: int
    slice: int
    crop: int
    state: State
    objects: int = 0
    reason: str = ""

    @property
    def place(self) -> tuple[int, int, int]:
        """(frame, slice, crop)."""
        return self.frame, self.slice, self.crop


class Manifest:
    """The list of crops of one output; made by `Manifest.open`.

    Parameters
    ----------
    path : Path
        The file, ``.jsonl``.
    key : str
        Digest of all that the labels depend on.
    records : dict
        What is known so far, by (frame, slice, crop).
    n_objects : int, optional
        Number of objects in the labels, once they are written.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        records: dict[tuple[int, int, int], CropRecord],
        n_objects: int | None,
    ) -> None:
        self.path = path
        self.key = key
        self.records = records
        self.n_objects = n_objects

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """Read a manifest; None if there is none, or it is of another format."""
        try:
            lines = path.read_text("utf-8").split("\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FileError(error.errno, "cannot read", str(path)) from error
        entries = [entry for line in lines if (entry := _parsed(line)) is not None]
        if not entries or entries[0].get("format") != FORMAT_VERSION:
            return None
        records: dict[tuple[int, int, int], CropRecord] = {}
        n_objects = None
        for entry in entries[1:]:
            if "crop" in entry:
                record = CropRecord(**entry)
                records[record.place] = record
                n_objects = None
            elif "labels" in entry:
                n_objects = int(entry["labels"])
        return cls(path, str(entries[0]["key"]), records, n_objects)

    @classmethod
    def open(cls, path: Path, key: str) -> Manifest:
        """Go on with a manifest, or begin one.

        Parameters
        ----------
        path : Path
            The file, in a folder that exists; one of other work is replaced.
        key : str
            Digest of all that the labels depend on.
        """
        found = cls.read(path)
        if found is not None and found.key == key:
            return found
        with atomic(path, overwrite=True) as part:
            header = {"format": FORMAT_VERSION, "key": key}
            part.write_text(json.dumps(header) + "\n", "utf-8")
        return cls(path, key, {}, None)

    @classmethod
    def note_failure(cls, path: Path, reason: str) -> None:
        """Say that an image could not be worked on, unless its work has begun.

        Parameters
        ----------
        path : Path
            The file; its folder is made.
        reason : str
            Why.
        """
        if path.exists():
            return
        make_folder(path.parent)
        _append(cls.open(path, "").path, {"image": reason})

    @property
    def failed(self) -> list[CropRecord]:
        """Crops that failed, in order."""
        failed = [each for each in self.records.values() if each.state == "failed"]
        return sorted(failed, key=lambda each: each.place)

    @property
    def is_complete(self) -> bool:
        """Whether the labels are written, and no crop failed."""
        return self.n_objects is not None and not self.failed

    def add(self, record: CropRecord) -> None:
        """Say what became of a crop."""
        _append(self.path, asdict(record))
        self.records[record.place] = record
        self.n_objects = None

    def finish(self, n_objects: int) -> None:
        """Say that the labels are written."""
        _append(self.path, {"labels": n_objects})
        self.n_objects = n_objects


def _append(path: Path, entry: dict[str, Any]) -> None:
    try:
        with path.open("ab+") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                # a line that a crash cut off must not swallow this one
                is_cut = file.read(1) != b"\n"
                if is_cut:
                    file.write(b"\n")
            file.write(json.dumps(entry).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FileError(
            error.errno, f"cannot write, {error.strerror}", str(path)
        ) from error


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
