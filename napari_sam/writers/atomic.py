"""Files that are there as a whole or not at all.

A result is written under a temporary name in its own folder and then renamed, which
is one step for the file system: whoever looks sees the old file or the new one, and
an interrupted or failed write leaves nothing behind.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from napari_sam.errors import FileError, MissingFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def atomic(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to `path` at the end.

    Parameters
    ----------
    path : Path
        Where the file is to be.
    overwrite : bool
        Replace an existing file.

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
    if path.exists() and not overwrite:
        raise FileError(
            errno.EEXIST, "exists already; give another name, or overwrite", str(path)
        )
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())  # else a power cut may leave an empty file
        part.replace(path)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(
            error.errno, f"cannot write, {error.strerror or error}", str(path)
        ) from error
    finally:
        part.unlink(missing_ok=True)
