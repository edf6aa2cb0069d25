"""Pieces of work side by side: the same answers, each by one thread, nothing left."""

import threading

import pytest
import torch

from napari_sam.engine import cores
from napari_sam.engine.cores import cut_evenly, side_by_side

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("two_threads")


@pytest.mark.parametrize("most", [1, 4, 16, 64])
def test_pieces_are_alike_and_as_many_for_each_core(most):
    assert cut_evenly(0, most, CPU) == []
    for n in range(1, 150):
        pieces = [list(range(n))[part] for part in cut_evenly(n, most, CPU)]
        assert [i for piece in pieces for i in piece] == list(range(n))
        sizes = [len(piece) for piece in pieces]
        assert max(sizes) <= most
        assert max(sizes) - min(sizes) <= 1
        assert min(sizes) >= min(n, most // 4)
        if n >= most // 2 and n > 1:
            assert len(sizes) % 2 == 0 or set(sizes) == {1}


def test_few_prompts_are_no_pieces_too_small():
    assert cut_evenly(16, 64, CPU) == [slice(0, 16)]
    assert cut_evenly(2, 4, CPU) == [slice(0, 1), slice(1, 2)]


def test_elsewhere_and_with_one_thread_pieces_are_full():
    full = [slice(0, 4), slice(4, 5)]
    assert cut_evenly(5, 4, torch.device("meta")) == full
    torch.set_num_threads(1)
    assert cut_evenly(5, 4, CPU) == full


def test_two_run_at_a_time_and_answers_keep_their_order():
    both = threading.Barrier(2)
    running, most = 0, 0

    def work(i):
        nonlocal running, most
        running += 1
        both.wait(timeout=60)  # breaks if this ran alone
        most = max(most, running)
        both.wait(timeout=60)
        running -= 1
        return i, torch.get_num_threads(), threading.get_ident()

    found = list(side_by_side(work, range(6), CPU))
    assert [i for i, _, _ in found] == list(range(6))
    assert most == 2
    assert {n for _, n, _ in found} == {1}
    assert threading.get_ident() not in {ident for _, _, ident in found}


def test_one_piece_has_all_threads_of_the_caller():
    (found,) = side_by_side(
        lambda _: (torch.get_num_threads(), threading.get_ident()), [0], CPU
    )
    assert found == (2, threading.get_ident())


def test_other_threads_keep_theirs():
    cores._threads.cache_clear()
    list(side_by_side(lambda i: i, range(4), CPU))
    seen = [torch.get_num_threads()]
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [2, 2]


def test_autocast_of_the_caller_holds():
    with torch.autocast("cpu", torch.bfloat16):
        found = side_by_side(lambda _: torch.is_autocast_enabled("cpu"), range(4), CPU)
        assert list(found) == [True] * 4


def test_what_runs_beside_a_failure_ends_first():
    ended = []
    both = threading.Barrier(2)

    def work(i):
        both.wait(timeout=60)
        if i == 0:
            raise ValueError("no")
        threading.Event().wait(0.1)
        ended.append(i)

    with pytest.raises(ValueError, match="no"):
        list(side_by_side(work, range(6), CPU))
    assert ended == [1]


def test_nothing_begins_before_it_is_asked_for():
    begun = []
    work = side_by_side(begun.append, range(6), CPU)
    next(work)
    assert sorted(begun) == [0, 1]
    work.close()
    assert sorted(begun) == [0, 1]
