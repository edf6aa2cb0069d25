"""Files, and folders of Zarr, that are there as a whole or not at all.

A result is written under a temporary name in its own folder and then renamed, which
is one step for the file system: whoever looks sees the old file or the new one, and
an interrupted or failed write leaves nothing behind. Only where a folder replaces
another there are two steps, and for a moment neither.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_sam.errors import (
    FileError,
    InputError,
    MissingFileError,
    file_errors,
    reason,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def checked_path(
    path: str | os.PathLike[str], endings: tuple[str, ...], what: str
) -> Path:
    """Bring a path to one form, and check how its name ends.

    Parameters
    ----------
    path : path
        Where a file is to be; ``~`` is the home folder.
    endings : tuple of str
        The endings that fit, in small letters.
    what : str
        What is to be written, for the message.

    Raises
    ------
    InputError
        If the name ends otherwise.
    """
    path = Path(path).expanduser()
    if not path.name.lower().endswith(endings):
        raise InputError(
            f"{what} in {path.name}; give a name that ends in {' or '.join(endings)}"
        )
    return path


def make_folder(folder: Path) -> None:
    """Make a folder, and those that it lies in.

    Raises
    ------
    FileError
        If it cannot be made.
    """
    with file_errors(folder, "make the folder"):
        folder.mkdir(parents=True, exist_ok=True)


def refuse_existing(path: Path, why: str = "exists already") -> None:
    """Raise where a file or folder would be replaced.

    Raises
    ------
    FileError
        If it is there.
    """
    if path.exists():
        message = f"{why}; give another name, or overwrite"
        raise FileError(errno.EEXIST, message, str(path))


@contextmanager
def atomic(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to `path` at the end.

    Parameters
    ----------
    path : Path
        Where the file, or the folder, is to be.
    overwrite : bool
        Replace what is there.

    Yields
    ------
    Path
        A name in the same folder that does not exist yet.

    Raises
    ------
    MissingFileError
        If the folder does not exist.
    FileError
        If the file exists already and must not be replaced, or if writing fails:
        no permission, disk full.
    """
    if not path.parent.is_dir():
        raise MissingFileError(
            errno.ENOENT, "no such folder; create it first", str(path.parent)
        )
    if not overwrite:
        refuse_existing(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        if part.is_dir():
            _replace_folder(path, part)
        else:
            with part.open("rb+") as file:
                os.fsync(file.fileno())  # else a power cut may leave an empty file
            part.replace(path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            error.errno, f"cannot write, {reason(error)}", str(path)
        ) from error
    finally:
        _remove(part)


def _replace_folder(path: Path, part: Path) -> None:
    old = part.with_suffix(".old")
    if path.exists():
        path.rename(old)
    part.rename(path)
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif path.exists():  # where nothing can be written, asking for it is an error
        path.unlink(missing_ok=True)
