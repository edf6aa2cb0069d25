"""Every exception and warning of the package.

Each error is also the built-in that stands for the same fault, so that callers
who do not know this package can catch it. None derives from ``RuntimeError``: a
generator worker of superqt that raises one emits neither ``errored`` nor
``finished``, and a window would wait for ever.

A message says what was given, what was expected, and what to do.
"""


class NapariSamError(Exception):
    """Base of all errors of this package."""


class InputError(NapariSamError, ValueError):
    """An argument has the wrong shape, dtype, range or combination."""


class FormatError(NapariSamError, ValueError):
    """A file is not what its name says, or is damaged."""


class FileError(NapariSamError, OSError):
    """A file or folder cannot be read or written."""


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
