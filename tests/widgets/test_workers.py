"""The worker: order, errors, stale calls, cancel, pause, end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import torch

from napari_sam.engine.jobs import Step, job
from napari_sam.errors import DeviceError, InputError
from tests.widgets.mouse import settle, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytestqt.qtbot import QtBot

    from napari_sam.engine.jobs import Job
    from napari_sam.widgets.workers import Worker

pytestmark = pytest.mark.display


@pytest.fixture
def worker(qtbot: QtBot) -> Iterator[Worker]:
    from napari_sam.widgets.workers import Worker

    worker = Worker()
    yield worker
    worker.stop()
    assert not worker.is_running


def test_results_come_in_the_thread_of_the_window(worker: Worker) -> None:
    threads = []
    worker.call(
        lambda: threads.append(threading.current_thread()),
        lambda _: threads.append(threading.current_thread()),
    )
    wait_for(lambda: len(threads) == 2)
    assert threads[0] is not threads[1]
    assert threads[1] is threading.main_thread()


def test_a_callback_that_finds_its_layer_gone_is_told_and_not_raised(
    worker: Worker,
) -> None:
    told: list[Exception] = []

    def gone(_result: int) -> None:
        raise InputError("the layer has gone")

    worker.failed.connect(told.append)
    worker.call(lambda: 1, gone)
    wait_for(lambda: told)
    assert str(told[0]) == "the layer has gone"


def test_a_runtime_error_is_told_and_the_worker_lives_on(worker: Worker) -> None:
    told: list[Exception] = []
    results: list[int] = []

    def broken() -> None:
        raise RuntimeError("in the worker")

    worker.failed.connect(told.append)
    worker.call(broken, lambda _: None)
    worker.call(broken, lambda _: None, told.append)
    worker.call(lambda: 7, results.append)
    wait_for(lambda: results == [7])
    assert [str(each) for each in told] == ["in the worker"] * 2


def test_memory_that_is_out_becomes_a_device_error(worker: Worker) -> None:
    @job
    def greedy() -> Job[None]:
        yield Step(0, 1, "work")
        raise torch.OutOfMemoryError("CUDA out of memory")

    steps: list[Step] = []
    told: list[Exception] = []
    worker.start("work", greedy, on_step=steps.append, on_error=told.append)
    wait_for(lambda: told)
    assert isinstance(told[0], DeviceError)
    assert len(steps) == 1


def test_only_the_newest_call_of_a_slot_is_made(worker: Worker) -> None:
    gate = threading.Event()
    made: list[int] = []
    worker.call(gate.wait, lambda _: None)
    for number in range(5):
        worker.call(lambda number=number: number, made.append, slot="answer")
    worker.call(lambda: 9, made.append)
    gate.set()
    wait_for(lambda: len(made) == 2)
    assert made == [4, 9]


def test_a_call_goes_before_the_next_step_of_a_job(worker: Worker) -> None:
    order: list[str] = []
    first = threading.Event()

    def steps() -> Job[str]:
        for i in range(3):
            if i == 1:
                first.wait(10)
            order.append(f"step {i}")
            yield Step(i + 1, 3, "work")
        return "end"

    done: list[str] = []
    worker.start("work", steps, on_done=done.append)
    wait_for(lambda: order)
    worker.call(lambda: order.append("call"), lambda _: None)
    first.set()
    wait_for(lambda: done)
    assert done == ["end"]
    assert order.index("call") <= 2
    assert order[-1] == "step 2"


def test_a_cancelled_job_is_closed_and_says_no_more(worker: Worker) -> None:
    closed = threading.Event()
    told: list[object] = []

    def endless() -> Job[None]:
        try:
            while True:
                yield Step(0, 0, "work")
        finally:
            closed.set()

    task = worker.start("work", endless, on_step=told.append, on_done=told.append)
    wait_for(lambda: told)
    worker.cancel(task)
    n_told = len(told)
    assert closed.wait(10)
    settle(5)
    assert len(told) == n_told


def test_a_job_that_fails_while_it_is_closed_does_not_end_the_thread(
    worker: Worker,
) -> None:
    told: list[object] = []

    def untidy() -> Job[None]:
        try:
            while True:
                yield Step(0, 0, "work")
        finally:
            raise InputError("the disk is full")

    task = worker.start("work", untidy, on_step=told.append, on_error=told.append)
    wait_for(lambda: told)
    worker.cancel(task)
    worker.call(lambda: "answer", told.append)
    wait_for(lambda: "answer" in told)
    wait_for(lambda: not worker.is_busy)
    assert not any(isinstance(each, Exception) for each in told)


def test_a_paused_job_rests_and_goes_on(worker: Worker) -> None:
    gate = threading.Semaphore(1)
    done: list[object] = []
    made: list[int] = []

    def steps() -> Job[None]:
        for i in range(3):
            gate.acquire()
            made.append(i)
            yield Step(i, 3, "work")

    task = worker.start("work", steps, on_done=done.append)
    wait_for(lambda: made == [0])
    worker.pause(task)
    gate.release(5)
    answered: list[int] = []
    for number in range(3):  # at most the step in hand is made meanwhile
        worker.call(lambda number=number: number, answered.append)
    wait_for(lambda: len(answered) == 3)
    assert len(made) <= 2
    worker.pause(task, paused=False)
    wait_for(lambda: done)
    assert made == [0, 1, 2]


def test_stopping_closes_jobs_and_calls_nothing_back(qtbot: QtBot) -> None:
    from napari_sam.widgets.workers import Worker

    worker = Worker()
    closed: list[bool] = []
    told: list[object] = []

    def endless() -> Job[None]:
        try:
            while True:
                yield Step(0, 0, "work")
        finally:
            closed.append(True)

    worker.start("work", endless, on_step=told.append)
    wait_for(lambda: told)
    worker.stop()
    n_told = len(told)
    settle(5)
    assert closed == [True]
    assert len(told) == n_told
    assert not worker.is_running


def test_it_is_busy_until_the_last_call_is_made(worker: Worker) -> None:
    gate, results = threading.Event(), list[bool]()
    assert not worker.is_busy
    worker.call(lambda: gate.wait(60), results.append)
    assert worker.is_busy
    settle(5)  # the call is in hand by now, and no longer waits
    assert worker.is_busy
    gate.set()
    wait_for(lambda: results == [True])
    wait_for(lambda: not worker.is_busy)
