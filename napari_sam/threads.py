"""How long the threads of OpenMP, in which torch computes, wait for work awake."""

import os


def spin_briefly() -> None:
    """Let waiting threads spin for some microseconds and then sleep.

    To be called before torch is loaded, by a program and not by an import: it holds for
    the whole process. A user's own ``OMP_WAIT_POLICY`` or ``GOMP_SPINCOUNT`` stays.

    Threads that spin for long, which is how GNU OpenMP comes, take the cores from
    whatever else runs; threads that sleep at once are woken up too late on a free
    machine. Seconds of the default model's encoder, and of a global block of ViT-B, on
    two cores with no, one and two busy processes beside it:

    ============= ================ =================
    waiting       encoder          block
    ============= ================ =================
    GNU default   0.52, 1.21, 4.32 0.78, 2.13, 16.18
    asleep        0.59, 0.74, 1.13 1.18, 1.76, 1.73
    3,000 turns   0.53, 0.76, 0.93 0.93, 1.70, 2.22
    ============= ================ =================
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # all that other runtimes know
    os.environ["GOMP_SPINCOUNT"] = "3000"
