"""One thread that owns the device, and the way of its results to the window.

Calls (a click) are answered at once; jobs (embedding a plane) advance one step at a
time between calls, so a click waits for one crop at most. A thread for each task was
rejected: two threads on one device make both slow, and their order is chance.

`superqt` generator workers were rejected, too: they swallow ``RuntimeError``, which is
how torch says that memory is out.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from qtpy.QtCore import QObject, Qt, Signal

from napari_sam.errors import NapariSamError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_sam.engine.jobs import Step

T = TypeVar("T")

logger = logging.getLogger(__name__)

_JOIN_S = 10.0  # longest step in hand when a window closes: one crop on a slow CPU


@dataclass(eq=False)
class Task:
    """A long job on its way; made by `Worker.start`.

    Parameters
    ----------
    what : str
        For people: "embed".
    """

    what: str
    make: Callable[[], Generator[Step, None, Any]]
    on_step: Callable[[Step], None]
    on_done: Callable[[Any], None]
    on_error: Callable[[Exception], None]
    steps: Generator[Step, None, Any] | None = field(default=None, repr=False)
    is_paused: bool = False
    is_cancelled: bool = False


class Worker(QObject):
    """A thread for calls and jobs; callbacks come in the thread of the window.

    Parameters
    ----------
    parent : QObject, optional

    Signals
    -------
    failed : Exception
        A call or job without `on_error` has failed.
    """

    failed = Signal(object)
    _deliver = Signal(object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._calls: OrderedDict[object, Callable[[], None]] = OrderedDict()
        self._tasks: deque[Task] = deque()
        self._wake = threading.Condition()
        self._stopping = self._is_working = False
        self._deliver.connect(self._call_back, Qt.ConnectionType.QueuedConnection)
        self._thread = threading.Thread(target=self._work, name="napari-sam worker")
        self._thread.daemon = True
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """Whether the thread lives."""
        return self._thread.is_alive()

    @property
    def is_busy(self) -> bool:
        """Whether anything is in hand, or waits and does not rest."""
        waits = bool(self._calls) or any(not each.is_paused for each in self._tasks)
        return waits or self._is_working

    def call(
        self,
        function: Callable[[], T],
        on_done: Callable[[T], None],
        on_error: Callable[[Exception], None] | None = None,
        *,
        slot: object = None,
    ) -> None:
        """Call a function soon, before any step of a job.

        Parameters
        ----------
        function : callable
            Runs in the worker's thread.
        on_done, on_error : callable
            Called with the result, or the error, in the thread of the window.
        slot : hashable, optional
            A call that waits in the same slot is replaced: only the newest click
            counts. Default: none is replaced.
        """
        told = on_error or self.failed.emit

        def work() -> None:
            try:
                result = function()
            except Exception as error:
                logger.debug("a call failed", exc_info=error)
                self._tell(told, error)
            else:
                self._tell(on_done, result)

        with self._wake:
            key = object() if slot is None else slot
            self._calls.pop(key, None)
            self._calls[key] = work
            self._wake.notify()

    def start(
        self,
        what: str,
        make: Callable[[], Generator[Step, None, T]],
        *,
        on_step: Callable[[Step], None] = lambda step: None,
        on_done: Callable[[T], None] = lambda result: None,
        on_error: Callable[[Exception], None] | None = None,
    ) -> Task:
        """Start a job; the one started last goes first.

        Parameters
        ----------
        what : str
            For people.
        make : callable
            Makes the job, in the worker's thread.
        on_step, on_done, on_error : callable
            Called in the thread of the window; none of them after `cancel`.
        """
        task = Task(what, make, on_step, on_done, on_error or self.failed.emit)
        with self._wake:
            self._tasks.appendleft(task)
            self._wake.notify()
        return task

    def cancel(self, task: Task) -> None:
        """Stop a job after the step in hand."""
        with self._wake:
            task.is_cancelled = True
            self._wake.notify()

    def pause(self, task: Task, *, paused: bool = True) -> None:
        """Let a job rest, or go on."""
        with self._wake:
            task.is_paused = paused
            self._wake.notify()

    def stop(self) -> None:
        """End the thread after the step in hand; nothing is called back any more."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(_JOIN_S)

    def _call_back(self, callback: Callable[[], None]) -> None:
        if self._stopping:
            return
        try:
            callback()
        except NapariSamError as error:  # what it was for has gone meanwhile
            self.failed.emit(error)

    def _tell(self, callback: Callable[[Any], None], value: object) -> None:
        if not self._stopping:
            self._deliver.emit(lambda: callback(value))

    def _work(self) -> None:
        while True:
            with self._wake:
                work = self._next()
                while work is None and not self._stopping:
                    self._wake.wait()
                    work = self._next()
                if self._stopping:
                    break
                self._is_working = True
            if work is not None:
                work()
                work = None  # nothing of a finished call is kept alive here
                self._is_working = False
        for task in self._tasks:
            if task.steps is not None:
                task.steps.close()
        self._tasks.clear()
        self._calls.clear()

    def _next(self) -> Callable[[], None] | None:
        if self._calls:
            return self._calls.popitem(last=False)[1]
        for task in self._tasks:
            if task.is_cancelled or not task.is_paused:
                return lambda: self._advance(task)
        return None

    def _advance(self, task: Task) -> None:
        try:
            if task.is_cancelled:
                if task.steps is not None:
                    task.steps.close()
                self._tasks.remove(task)
                return
            if task.steps is None:
                task.steps = task.make()
            step = next(task.steps)
        except StopIteration as end:
            self._tasks.remove(task)
            self._tell_unless_cancelled(task, task.on_done, end.value)
        except Exception as error:
            logger.debug("%s failed", task.what, exc_info=error)
            self._tasks.remove(task)
            self._tell_unless_cancelled(task, task.on_error, error)
        else:
            self._tell_unless_cancelled(task, task.on_step, step)

    def _tell_unless_cancelled(
        self, task: Task, callback: Callable[[Any], None], value: object
    ) -> None:
        def tell(value: object) -> None:
            if not task.is_cancelled:
                callback(value)

        self._tell(tell, value)
