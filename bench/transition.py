"""The transition: what an event costs from the tracepoint's static key to the end of its programs.

Linked, the subject is a compiled loop that makes arguments and walks the tracepoint's probes: static key, the program's own
probe (shim, bpf_trace_run and program in one). The baseline is a loop in C that builds the same arguments and calls the same
function, written in C, through a pointer: without atomics, run counts or a recursion guard, so it is what one could hope for
and not what a kernel does.

Fused and `replayed`, the subject is a replay of the same events from columns, in the fused or the linked tier; the baseline is
a loop over the same columns in C, with the function inlined.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar

from bench import loops, native
from bench.cases import Case, Results, Suite
from bench.machine import Machine, NativeLoop, NativeReplay, machine
from bench.measure import best_ns

_PROGRAMS: tuple[tuple[str, str, int, str], ...] = (
    # program, baseline function, keys, baseline function of a replay ("": not replayed)
    ("empty", "empty", 1024, "empty"),
    ("global_count", "global_count", 1024, "global_count"),
    ("array_count", "array_count", 1024, "array_count"),
    ("percpu_array_count", "percpu_array_count", 1024, "percpu_array_count"),
    ("hash_count", "hash_count", 1024, "hash_count"),
    ("hash_count_100k", "hash_count_100k", 100_000, "hash_count_100k"),
    ("percpu_hash_count", "hash_count", 1024, "hash_count"),
    ("hash_update", "hash_update", 1024, "hash_update"),
    ("lru_count", "hash_count", 1024, "hash_count"),
    ("lru_evict", "hash_count", 1024, ""),
    ("ringbuf_discard", "ringbuf_discard", 1024, "ringbuf_discard"),
    ("ktime", "ktime", 1024, "virtual_ktime"),
    ("guarded", "empty", 1024, ""),
)
_SEVERAL = (("empty", 2), ("empty", 4), ("empty", 8), ("array_count", 8))

Around = Callable[[Machine], AbstractContextManager[None]]


def _nothing(_: Machine) -> AbstractContextManager[None]:
    return nullcontext()


def linked(names: Sequence[str], baseline: Sequence[str], keys: int, setup: Around = _nothing) -> tuple[float, float]:
    """(ns per event through the linked tier, ns per event of the native loop) with these programs attached."""
    native.compiler()
    here = machine()
    loop = NativeLoop(baseline)
    with here.attached(names), setup(here):
        best = best_ns({"ours": lambda n: here.fire(n, keys), "theirs": lambda n: loop.fire(n, keys)})
    return best["ours"], best["theirs"]


def replayed(names: Sequence[str], baseline: str, keys: int, tier: str) -> tuple[float, float]:
    """(ns per event of a replay in a tier, ns per event of the native loop over the same columns) with these programs."""
    native.compiler()
    loop = NativeReplay(baseline, keys)
    with machine().replaying(names, keys, tier) as replay:
        best = best_ns({"ours": replay.play, "theirs": loop.play})
    return best["ours"], best["theirs"]


def several(name: str, count: int, tier: str) -> tuple[float, float]:
    """(ns per event of a replay with `count` programs, each with its own map; with one)."""
    here = machine()
    with here.replaying([name], 1024, tier) as one:
        alone = best_ns({"one": one.play})["one"]
    with here.replaying([name] * count, 1024, tier) as many:
        together = best_ns({"many": many.play})["many"]
    with here.replaying([name], 1024, tier) as one:
        alone = min(alone, best_ns({"one": one.play})["one"])
    return together, alone


def against_itself(name: str, with_it: Around) -> tuple[float, float]:
    """(ns per event of a program with something switched on, ns without)."""
    here = machine()

    def switched(count: int) -> None:
        with with_it(here):
            here.fire(count, 1024)

    with here.attached([name]):
        best = best_ns({"with": switched, "without": lambda n: here.fire(n, 1024)})
    return best["with"], best["without"]


def disabled() -> tuple[float, float]:
    """(ns per event with nothing attached, ns of the loop without a tracepoint in it)."""
    here = machine()
    best = best_ns({"ours": lambda n: here.fire(n, 1024), "theirs": lambda n: loops.bare(n, 1024)})
    return best["ours"], best["theirs"]


class Transition(Suite):
    """ns per event, linked and fused."""

    title = "transition"

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Programs by what they do, by their number, and what surrounds them."""
        baseline = native.baseline_name()
        yield Case("disabled", "ns", "loop without tracepoint", disabled)
        for name, function, keys, _ in _PROGRAMS:
            yield Case(name, "ns", baseline, functools.partial(linked, [name], [function], keys))
        clock = functools.partial(linked, ["ktime"], ["virtual_ktime"], 1024, Machine.virtual_clock)
        yield Case("ktime_virtual", "ns", baseline, clock)
        for count in (2, 4, 8):
            yield Case(f"empty_x{count}", "ns", baseline, functools.partial(linked, ["empty"] * count, ["empty"] * count, 1024))
        yield Case("statistics", "ns", "empty, without", functools.partial(against_itself, "empty", Machine.statistics))
        guard = functools.partial(against_itself, "guarded", lambda here: here.running(["guarded"]))
        yield Case("recursion_miss", "ns", "guarded, run", guard)
        inlined = f"{baseline}, inlined"
        yield Case("empty_replayed", "ns", inlined, functools.partial(replayed, ["empty"], "empty", 1024, "linked"))
        yield Case("nothing_fused", "ns", inlined, functools.partial(replayed, [], "empty", 1024, "fused"))
        for name, _, keys, function in _PROGRAMS:
            if function:
                yield Case(f"{name}_fused", "ns", inlined, functools.partial(replayed, [name], function, keys, "fused"))
        eight = functools.partial(replayed, ["array_count"] * 8, "array_count_x8", 1024, "fused")
        yield Case("eight_arrays_fused", "ns", inlined, eight)
        for name, count in _SEVERAL:
            yield Case(f"{name}_x{count}_fused", "ns", f"one {name}, fused", functools.partial(several, name, count, "fused"))

    params: ClassVar[Sequence[str]] = (
        "disabled", *(name for name, *_ in _PROGRAMS),
        "ktime_virtual", "empty_x2", "empty_x4", "empty_x8", "statistics", "recursion_miss", "empty_replayed", "nothing_fused",
        *(f"{name}_fused" for name, _, _, function in _PROGRAMS if function),
        "eight_arrays_fused", *(f"{name}_x{count}_fused" for name, count in _SEVERAL),
    )  # fmt: skip

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ns(self, results: Results, name: str) -> float:
        """Nanoseconds per event."""
        return self.value

    track_ns.unit = "ns"  # type: ignore[attr-defined]

    def track_ratio(self, results: Results, name: str) -> float:
        """Time per event divided by the baseline's."""
        return self.ratio()

    track_ratio.unit = "x"  # type: ignore[attr-defined]
