"""The arena: one reserved range with an allocator."""

from __future__ import annotations

import itertools
import os
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtp.mem.arena import GUARD, Arena


def test_allocations_are_zeroed_even_after_reuse() -> None:
    arena = Arena(1 << 26)
    for size in (8, 100, 5000, 100_000):
        first = arena.alloc(size)
        arena.view(first, size)[:] = 0xAA
        arena.free(first)

        again = arena.alloc(size)

        assert again == first
        assert not arena.view(again, size).any()


@given(st.lists(st.tuples(st.integers(1, 70_000), st.sampled_from([8, 64, 4096])), max_size=30))
def test_live_allocations_never_overlap(requests: list[tuple[int, int]]) -> None:
    arena = Arena(1 << 26)
    spans = sorted((address, address + size) for size, align in requests for address in [arena.alloc(size, align)])

    assert all(a_end <= b for (_, a_end), (b, _) in itertools.pairwise(spans))
    assert all(arena.base + GUARD <= a and b <= arena.base + arena.size - GUARD for a, b in spans)
    arena.close()


@pytest.mark.parametrize("align", [8, 64, 4096])
def test_alignment_is_kept(align: int) -> None:
    arena = Arena(1 << 26)

    assert all(arena.alloc(size, align) % align == 0 for size in (1, 8, 65, 4097, 40_000))


def test_a_full_arena_says_how_full() -> None:
    arena = Arena(1 << 20)

    with pytest.raises(MemoryError, match="arena of 1048576 bytes is full: 2097152 more are wanted"):
        arena.alloc(1 << 21)


def test_freeing_what_is_not_allocated_is_refused() -> None:
    arena = Arena(1 << 20)
    address = arena.alloc(64)
    arena.free(address)

    with pytest.raises(ValueError, match="not an allocation"):
        arena.free(address)


def test_views_stay_inside_the_arena() -> None:
    arena = Arena(1 << 20)

    with pytest.raises(ValueError, match="not inside the arena"):
        arena.view(arena.base + arena.size - 4, 8)


def test_a_view_outlives_close() -> None:
    arena = Arena(1 << 20)
    view = arena.view(arena.alloc(8), 8).view(np.uint64)
    arena.close()

    view[0] = 7

    assert view[0] == 7


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_process_with_many_arenas_can_fork() -> None:
    """The reserved ranges are not counted as memory that was promised."""
    arenas = [Arena() for _ in range(50)]
    child = os.fork()
    if child == 0:
        os._exit(0)

    assert os.waitpid(child, 0)[1] == 0
    assert len(arenas) == 50


def test_threads_give_arenas_back_that_are_still_looked_at() -> None:
    """Each range goes when its last view does, whoever closes what meanwhile (first uses by many threads found it)."""
    from fastrtp.mem import arena as module

    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(150):
                kept = Arena(1 << 20)
                view = kept.view(kept.alloc(8), 8)
                kept.close()
                del view
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    Arena(1 << 20).close()
    last = Arena(1 << 20)
    view = last.view(last.alloc(8), 8)
    last.close()

    assert errors == []
    assert len(module._released) <= 1 + len(threads)
    assert len(view) == 8
