"""Long work as a generator of steps.

A job yields a `Step` after each piece of work and returns its result. It knows
nothing of threads, windows or progress bars: whoever drives it decides. Closing
the generator cancels it between two steps. Callbacks were rejected because they
run inside the work, on its thread, and cannot stop it.

torch reports a lack of memory as a ``RuntimeError``. A generator worker of superqt
that raises one ends without any signal, so jobs turn it into a `DeviceError`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

import torch
from tqdm import tqdm

from napari_sam.errors import DeviceError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
P = ParamSpec("P")

# How torch words a failure of the device or of its allocator; the class alone does
# not tell, since the CPU allocator raises a plain RuntimeError.
_DEVICE_FAILURES = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "cuda error",
    "cudnn error",
    "mps backend",
    "no kernel image",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of a job is done.

    Parameters
    ----------
    done, total : int
        Pieces done so far, and of how many; both 0 while the number is unknown.
    what : str
        What is being done, for people: "embed", "segment".
    value : object, optional
        The finished piece, where it is of use before the end.
    """

    done: int
    total: int
    what: str
    value: object = None


Job: TypeAlias = Generator[Step, None, T]


def job(function: Callable[P, Job[T]]) -> Callable[P, Job[T]]:
    """Make a generator function raise `DeviceError` where torch gives up.

    Parameters
    ----------
    function : callable
        Generator function that yields `Step` and returns a result.

    Returns
    -------
    callable
        The same function, with errors of the device translated.
    """

    @functools.wraps(function)
    def translated(*args: P.args, **kwargs: P.kwargs) -> Job[T]:
        with device_errors():
            return (yield from function(*args, **kwargs))

    return translated


@contextmanager
def device_errors() -> Iterator[None]:
    """Turn errors of the device in this block into `DeviceError`.

    Raises
    ------
    DeviceError
        If torch ran out of memory or the device failed. Other errors pass.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_device_failure(error):
            raise
        first_line = str(error).partition("\n")[0]
        raise DeviceError(
            f"the device gave up: {first_line or type(error).__name__}; use smaller "
            "batches or a smaller model, close other programs that use the device, "
            'or choose device="cpu"'
        ) from error


def run(job: Job[T], *, progress: bool | None = None) -> T:
    """Drive a job to its end.

    Parameters
    ----------
    job : Job
        What `embed`, `segment` and others return.
    progress : bool, optional
        Show a progress bar on the standard error. Default: if that is a terminal.

    Returns
    -------
    T
        The job's result.

    Examples
    --------
    >>> def count(n):
    ...     for i in range(n):
    ...         yield Step(i + 1, n, "count")
    ...     return n
    >>> run(count(3), progress=False)
    3
    """
    if not hasattr(job, "__next__"):
        raise InputError(
            f"{type(job).__name__} is no job; give what embed, segment, propagate or "
            "train returns"
        )
    hidden = not (sys.stderr.isatty() if progress is None else progress)
    with tqdm(disable=hidden, dynamic_ncols=True) as bar:
        while True:
            try:
                step = next(job)
            except StopIteration as stop:
                result: T = stop.value
                return result
            bar.set_description(step.what, refresh=False)
            bar.total = step.total or None
            bar.update(step.done - bar.n)


def with_step(step: Step, work: Generator[object, None, T]) -> Job[T]:
    """Do a piece of work inside a job that counts something else.

    Parameters
    ----------
    step : Step
        What the job reports whenever the work pauses.
    work : generator
        A job, or anything that pauses and returns a result.

    Examples
    --------
    >>> def count(n):
    ...     yield from range(n)
    ...     return n
    >>> run(with_step(Step(0, 1, "count"), count(3)), progress=False)
    3
    """
    while True:
        try:
            next(work)
        except StopIteration as stop:
            result: T = stop.value
            return result
        yield step


def _is_device_failure(error: RuntimeError | MemoryError) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()
    return any(words in message for words in _DEVICE_FAILURES)
