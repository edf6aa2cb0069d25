"""Jobs: driven to the end, cancelled, and honest about the device."""

import re

import numpy as np
import pytest
import torch

from napari_sam.engine.jobs import Step, device_errors, job, run
from napari_sam.errors import DeviceError, InputError


def count(n, closed):
    try:
        for i in range(n):
            yield Step(i + 1, n, "count", value=i)
    finally:
        closed.append(True)
    return n * 10


def test_run_returns_the_result():
    assert run(count(4, [])) == 40


def test_run_of_a_job_without_steps():
    assert run(count(0, [])) == 0


def test_run_takes_jobs_only():
    with pytest.raises(InputError, match="list is no job"):
        run([1, 2])


def test_closing_a_job_cancels_it_and_cleans_up():
    closed = []
    running = count(1000, closed)
    assert [next(running).done, next(running).done] == [1, 2]
    running.close()
    assert closed == [True]


def test_progress_is_shown_with_counts(capsys):
    run(count(7, []), progress=True)
    shown = capsys.readouterr().err
    assert "count" in shown
    assert "7/7" in shown


def test_no_progress_where_nobody_looks(capsys):
    run(count(7, []))
    assert capsys.readouterr().err == ""


def test_memory_that_torch_cannot_get_is_a_device_error():
    @job
    def too_much():
        yield Step(0, 1, "allocate")
        # 2 EiB: refused by every allocator, without touching memory
        torch.empty(2**58, dtype=torch.float64)

    with pytest.raises(DeviceError, match="smaller batches") as raised:
        run(too_much())
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert not isinstance(raised.value, RuntimeError)


def test_memory_that_numpy_cannot_get_is_a_device_error():
    with pytest.raises(DeviceError, match="gave up"), device_errors():
        np.empty(2**62, np.uint8)


def test_out_of_memory_of_an_accelerator_is_a_device_error():
    with pytest.raises(DeviceError, match=re.escape('device="cpu"')), device_errors():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_other_errors_of_torch_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes cannot"), device_errors():
        torch.zeros(2, 3) @ torch.zeros(2, 3)


def test_a_job_keeps_the_values_of_its_steps():
    @job
    def pieces():
        yield Step(1, 2, "piece", value="a")
        yield Step(2, 2, "piece", value="b")
        return "ab"

    running = pieces()
    assert [step.value for step in running] == ["a", "b"]
