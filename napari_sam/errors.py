"""Every exception and warning of the package.

Each error is also the built-in that stands for the same fault, so that callers
who do not know this package can catch it. None derives from ``RuntimeError``: a
generator worker of superqt that raises one emits neither ``errored`` nor
``finished``, and a window would wait for ever.

A message says what was given, what was expected, and what to do.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_FULL = "make room there, or choose another folder"
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "choose another folder",
    errno.EACCES: "ask for access, or choose another folder",
    errno.EPERM: "ask for access, or choose another folder",
}


class NapariSamError(Exception):
    """Base of all errors of this package."""


class InputError(NapariSamError, ValueError):
    """An argument has the wrong shape, dtype, range or combination."""


class FormatError(NapariSamError, ValueError):
    """A file is not what its name says, or is damaged."""


class FileError(NapariSamError, OSError):
    """A file or folder cannot be read or written."""

    def __str__(self) -> str:
        """Name the file first, and leave out the number of the error."""
        if self.filename is None:
            return super().__str__()
        return f"{self.filename}: {self.strerror}"


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder is not there."""


class WeightsError(NapariSamError, OSError):
    """Weights cannot be downloaded, verified or matched to a network."""


class CacheMismatchError(NapariSamError, ValueError):
    """A stored embedding is damaged or of another format version."""


class DeviceError(NapariSamError):
    """The device is missing or out of memory; wraps the errors of torch."""


class NapariSamWarning(UserWarning):
    """The result is valid but probably not what was meant."""


def reason(error: OSError) -> str:
    """Return why the system refused, and what to do about it where that is plain.

    Examples
    --------
    >>> reason(OSError(errno.ENOSPC, "No space left on device"))
    'No space left on device; make room there, or choose another folder'
    """
    told = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0)
    return told if advice is None or advice in told else f"{told}; {advice}"


@contextmanager
def file_errors(path: Path, doing: str = "read") -> Iterator[None]:
    """Turn errors of the operating system in this block into ours.

    Parameters
    ----------
    path : Path
        The file or folder that the block uses.
    doing : str
        What the block does with it, as in "cannot read".

    Raises
    ------
    MissingFileError
        If there is nothing to read.
    FileError
        In place of any other OSError.
    """
    try:
        yield
    except NapariSamError:
        raise
    except OSError as error:
        if doing == "read" and isinstance(error, FileNotFoundError):
            raise MissingFileError(
                error.errno, "no such file; check its name and folder", str(path)
            ) from error
        raise FileError(
            error.errno, f"cannot {doing}, {reason(error)}", str(path)
        ) from error
