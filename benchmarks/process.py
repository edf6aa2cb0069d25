"""What a process has needed: seconds by two clocks, memory."""

import resource
import time
from collections.abc import Callable
from pathlib import Path

CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}
"""Of all threads of this process, the second one, for a machine that others use."""


def peak_mib(pid: int | str = "self") -> float:
    """Return the most memory that a process has held, by default this one.

    What `resource` knows begins with the memory of the process that started this one,
    so it is asked only where there is no better.
    """
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024
