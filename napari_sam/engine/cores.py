"""Pieces of work that need nothing of each other, one on each core of a CPU.

torch shares each single operation among its threads. Those of the mask decoder are
many and short: its threads are woken up, and wait for each other, hundreds of times for
a prompt, and two of them need three quarters of the time of one. Two pieces side by
side, each computed by one thread, need little more than half (measured), and the
answers are the same.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from itertools import pairwise
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Piece = TypeVar("Piece")
Answer = TypeVar("Answer")

# A piece is not made smaller than this part of what is fast at once: threads take turns
# in Python, which a short piece needs for longer than the processor.
_LEAST = 1 / 4


def cut_evenly(n: int, most: int, device: torch.device) -> list[slice]:
    """Cut n things into pieces for `side_by_side`, as many for each core.

    Parameters
    ----------
    n : int
        How many there are.
    most : int
        In a piece.
    device : torch.device
        Where they are worked on.

    Returns
    -------
    list of slice
        One after the other.
    """
    cores = _cores(device)
    if cores == 1:
        return [slice(first, min(first + most, n)) for first in range(0, n, most)]
    n_pieces = cores * -(-n // (cores * most))
    n_pieces = min(n_pieces, max(n // max(int(most * _LEAST), 1), 1))
    ends = [i * n // n_pieces for i in range(n_pieces + 1)] if n else []
    return [slice(*pair) for pair in pairwise(ends)]


def side_by_side(
    work: Callable[[Piece], Answer], pieces: Sequence[Piece], device: torch.device
) -> Iterator[Answer]:
    """Do pieces of work, on a CPU as many at once as torch has threads.

    Parameters
    ----------
    work : callable
        Takes one piece. It may run in other threads, several at a time; what torch
        knows of the caller's thread (``inference_mode``) does not hold there.
    pieces : sequence
        What to work on.
    device : torch.device
        Where torch computes.

    Yields
    ------
    Answer
        Of each piece, in their order. Between two answers nothing runs that the caller
        does not wait for: a job may pause there, or end.
    """
    cores = _cores(device)
    for first in range(0, len(pieces), cores):
        together = pieces[first : first + cores]
        if len(together) == 1:
            yield work(together[0])  # by all threads of torch
            continue
        futures = [_threads(cores).submit(work, piece) for piece in together]
        try:
            answers = [future.result() for future in futures]
        finally:
            wait(futures)
        yield from answers


def _cores(device: torch.device) -> int:
    """Return how many pieces are worked on at once."""
    is_split = device.type == "cpu" and _threads_differ()
    # autocast is of the caller's thread alone
    if not is_split or torch.is_autocast_enabled("cpu"):
        return 1
    return torch.get_num_threads()


@lru_cache(maxsize=1)
def _threads_differ() -> bool:
    """Whether each thread has a number of helpers of its own, as OpenMP's have."""
    return "parallel backend: OpenMP" in torch.__config__.parallel_info()


@lru_cache(maxsize=1)
def _threads(n: int) -> ThreadPoolExecutor:
    """Return n threads of which each computes alone.

    They are kept: the libraries behind torch keep memory for each thread.
    """
    threads = ThreadPoolExecutor(n, "napari-sam-core", _compute_alone)
    all_here = Barrier(n)
    wait([threads.submit(all_here.wait) for _ in range(n)])
    torch.set_num_threads(n)  # for threads that begin later, too
    return threads


def _compute_alone() -> None:
    torch.get_num_threads()  # or the first operation would set it once more
    torch.set_num_threads(1)
