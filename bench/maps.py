"""Map operations: what an event of a program with one operation costs beyond that of the empty program.

Both run fused with their events, so nothing but the operation is in between; baselines are the same operations in C, in a loop of
calls through pointers, less the call of an empty function.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import ClassVar

from bench import native
from bench.cases import Case, Results, Suite
from bench.machine import NativeLoop
from bench.measure import best_ns, budget, times
from bench.scaling import EVENTS, Players

_RESOLUTION = 0.3
"""ns below which a difference of two loops says nothing."""
_OPERATIONS: tuple[tuple[str, str, str, int], ...] = (
    # case, program of transition.bpf.c, function of transition_native.c ("" for none that compares), keys
    ("array_lookup", "array_count", "array_count", 1024),
    ("percpu_array_lookup", "percpu_array_count", "percpu_array_count", 1024),
    ("hash_lookup", "hash_count", "hash_count", 1024),
    ("hash_lookup_100k", "hash_count_100k", "hash_count_100k", 100_000),
    ("percpu_hash_lookup", "percpu_hash_count", "hash_count", 1024),
    ("hash_update", "hash_update", "hash_update", 1024),
    ("lru_lookup", "lru_count", "hash_count", 1024),
    ("lru_evict", "lru_evict", "", 1024),
    ("ringbuf_reserve_discard", "ringbuf_discard", "ringbuf_discard", 1024),
)


def operation(program: str, function: str, keys: int) -> tuple[float, float | None]:
    """(ns of the operation, ns of the same in C)."""
    with ExitStack() as stack:
        loops = {
            "with": times(Players(stack, program, keys, own=False).ordered()),
            "without": times(Players(stack, "empty", keys, own=False).ordered()),
        }
        best = best_ns(loops, 2 * budget())
    ours = (best["with"] - best["without"]) / EVENTS
    if not function:
        return ours, None
    native.compiler()
    theirs, empty = NativeLoop([function]), NativeLoop(["empty"])
    best = best_ns({"with": lambda n: theirs.fire(n, keys), "without": lambda n: empty.fire(n, keys)})
    reference = best["with"] - best["without"]
    return ours, reference if reference > _RESOLUTION else None


class Maps(Suite):
    """ns per operation, by family."""

    title = "maps"

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """One case an operation."""
        baseline = native.baseline_name()
        for name, program, function, keys in _OPERATIONS:
            yield Case(name, "ns", baseline if function else "", functools.partial(operation, program, function, keys))

    params: ClassVar[Sequence[str]] = tuple(name for name, *_ in _OPERATIONS)

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ns(self, results: Results, name: str) -> float:
        """Nanoseconds per operation."""
        return self.value

    track_ns.unit = "ns"  # type: ignore[attr-defined]

    def track_ratio(self, results: Results, name: str) -> float:
        """Time per operation divided by that in C."""
        return self.ratio()

    track_ratio.unit = "x"  # type: ignore[attr-defined]
