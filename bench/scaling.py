"""Two threads beside one: events of two CPUs replayed in parallel, by what the CPUs share.

Both sides run the programs' form for several CPUs (real atomics, lock-free lookups); a ratio of 0.5 is twice the rate.
"own": each CPU has its keys; "shared": both count under all of them, so that cache lines go back and forth, as they would in
the kernel. "ordered": the other side is the replay in the order of all events, whose programs are compiled for one CPU.
The first two rows are the machine's: the same counts in C with pthreads. The rest of a machine that is not alone is lost
here more than elsewhere, since two threads need both CPUs at the same moment.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, ClassVar

from bench import native
from bench.cases import Case, Results, Suite
from bench.measure import best_ns, budget, times

EVENTS = 400_000
_ROUNDS = 40
_PROGRAMS: tuple[tuple[str, str, int, bool], ...] = (
    # case, program of transition.bpf.c, keys, whether each CPU has its own
    ("empty", "empty", 1024, True),
    ("percpu_array", "percpu_array_count", 1024, False),
    ("percpu_hash", "percpu_hash_count", 1024, False),
    ("hash_own", "hash_count", 1024, True),
    ("hash_100k_own", "hash_count_100k", 100_000, True),
    ("hash_shared", "hash_count", 1024, False),
    ("hash_update_own", "hash_update", 1024, True),
    ("lru_own", "lru_count", 1024, True),
    ("array_shared", "array_count", 1024, False),
    ("counter_shared", "global_count", 1, False),
    ("ringbuf", "ringbuf_discard", 1024, False),
)
_ORDERED = ("percpu_array", "hash_own")


class Players:
    """The same events with the same program on one thread, on two, and in order. `regular`: keys come in the order that the
    transition suite has, which a processor may learn; else at random.
    """

    def __init__(
        self, stack: ExitStack, program: str, keys: int, *, own: bool, regular: bool = False, events: int = EVENTS
    ) -> None:
        import numpy as np

        from bench.generated import NAME, PROTO, bound

        self._stack = stack
        self._events = events
        self._program = program
        rng = np.random.default_rng(1)
        cpu = rng.integers(0, 2, events)
        key = rng.integers(0, keys, events)
        if regular:  # as loops.py and fire() in C
            key = (np.arange(events, dtype=np.uint64) * 0x9E3779B1 & 0xFFFFFFFF) * keys >> 32
        if own and keys > 1:
            key = (key % (keys // 2)) + cpu * (keys // 2)
        self._columns = cpu, key, rng.integers(0, 1 << 30, events)
        self._bound: Any = bound
        self._name, self._proto = NAME, PROTO

    def _kernel(self) -> Any:
        from fastrtp.kernel import Kernel

        kernel = Kernel(cpus=2)
        self._stack.callback(kernel.shutdown)
        kernel.trace_event(self._name, self._proto)
        kernel.load(native.SOURCES / "transition.bpf.o", autoload=[self._program]).programs[self._program].attach(self._name)
        return kernel

    def threads(self, count: int) -> Any:
        """Plays all events once on so many threads."""
        from bench.generated import player

        kernel = self._kernel()
        events = self._bound(kernel, *self._columns)
        made = self._stack.enter_context(player(kernel, events, cpus=count, window=None, chunk=self._events))

        def play() -> None:
            made.rewind()
            made.run()

        return play

    def ordered(self) -> Any:
        """Plays all events once, in order."""
        from fastrtp.replay.fused import FusedReplay

        kernel = self._kernel()
        events = self._bound(kernel, *self._columns)
        made = FusedReplay(kernel, events, {self._name: kernel.tracepoints[self._name]})
        self._stack.callback(made.close)
        made.prepare()

        def play() -> None:
            made.rewind()
            made.run(None, self._events)

        return play


def scaling(program: str, keys: int, own: bool, ordered: bool) -> tuple[float, float]:
    """(ns per event on two threads, ns per event on one)."""
    with ExitStack() as stack:
        players = Players(stack, program, keys, own=own)
        one = players.ordered() if ordered else players.threads(1)
        best = best_ns({"two": times(players.threads(2)), "one": times(one)}, 4 * budget(), rounds=_ROUNDS)
    return best["two"] / EVENTS, best["one"] / EVENTS


def machine(shared: int) -> tuple[float, float]:
    """The same of C and pthreads."""
    native.compiler()
    library: Any = native.library(("scaling_native.c",))
    scale = library.scale
    best = best_ns(
        {f"{count}": times(functools.partial(scale, count, EVENTS, shared)) for count in (1, 2)}, 4 * budget(), rounds=_ROUNDS
    )
    return best["2"] / EVENTS, best["1"] / EVENTS


class Scaling(Suite):
    """ns per event on two threads, beside one."""

    title = "scaling"

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """The machine's own scaling, then programs by what their CPUs share."""
        yield Case("native_own", "ns", "one thread", functools.partial(machine, 0))
        yield Case("native_shared", "ns", "one thread", functools.partial(machine, 1))
        for name, program, keys, own in _PROGRAMS:
            yield Case(name, "ns", "one thread", functools.partial(scaling, program, keys, own, False))
        for name, program, keys, own in _PROGRAMS:
            if name in _ORDERED:
                yield Case(f"{name}_ordered", "ns", "one, in order", functools.partial(scaling, program, keys, own, True))

    params: ClassVar[Sequence[str]] = (
        "native_own", "native_shared", *(name for name, *_ in _PROGRAMS), *(f"{name}_ordered" for name in _ORDERED),
    )  # fmt: skip

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ns(self, results: Results, name: str) -> float:
        """Nanoseconds per event on two threads."""
        return self.value

    track_ns.unit = "ns"  # type: ignore[attr-defined]

    def track_speedup(self, results: Results, name: str) -> float:
        """How many times as fast as one thread."""
        return 1 / self.ratio()

    track_speedup.unit = "x"  # type: ignore[attr-defined]
