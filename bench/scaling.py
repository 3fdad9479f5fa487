"""Two threads beside one: events of two CPUs replayed in parallel, by what the CPUs share.

Both sides run the programs' form for several CPUs (real atomics, lock-free lookups); a ratio of 0.5 is twice the rate.
"own": each CPU has its keys; "shared": both count under all of them, so that cache lines go back and forth, as they would in
the kernel. "ordered": the other side is the replay in the order of all events, whose programs are compiled for one CPU.
Each is followed by what C with pthreads makes of the same (`_c`), measured in the same rounds: the machine's ceiling, which
is far from 0.5 where both write to one cache line.

Threads stay on a CPU each, and rounds count in which all of them ran all the time: on a machine that is not alone two
threads often take turns instead, which costs time where they share nothing, and saves it where they do.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from bench import native
from bench.cases import Case, Results, Suite
from bench.measure import budget
from bench.rings import ROOM, empty_rings, rings

EVENTS = 400_000
_NATIVE_EVENTS = 2_000_000
"""So many that it does not matter what making a thread takes."""
_ENOUGH, _PATIENCE = 20, 10
_REST = 0.001
"""Seconds of sleep before a round: who has just slept is let in first."""
_RAN = 0.9
"""The part of a round for which all threads must have had a CPU."""
_OWN, _PERCPU, _SHARED, _RECORDS = range(4)
_PROGRAMS: tuple[tuple[str, str, int, bool, tuple[int, int] | None], ...] = (
    # case, program of transition.bpf.c, keys, whether each CPU has its own; kind and keys of scaling_native.c
    ("empty", "empty", 1024, True, None),
    ("percpu_array", "percpu_array_count", 1024, False, (_PERCPU, 1024)),
    ("percpu_hash", "percpu_hash_count", 1024, False, (_PERCPU, 1024)),
    ("hash_own", "hash_count", 1024, True, (_OWN, 1024)),
    ("hash_100k_own", "hash_count_100k", 100_000, True, (_OWN, 1 << 17)),
    ("hash_shared", "hash_count", 1024, False, (_SHARED, 1024)),
    ("hash_update_own", "hash_update", 1024, True, (_OWN, 1024)),
    ("lru_own", "lru_count", 1024, True, (_OWN, 1024)),
    ("array_shared", "array_count", 1024, False, (_SHARED, 1024)),
    ("counter_shared", "global_count", 1, False, (_SHARED, 1)),
    ("ringbuf", "ringbuf_discard", 1024, False, (_RECORDS, 1)),
)
_ORDERED = ("percpu_array", "hash_own")

Play = Callable[[], object]


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

    def threads(self, count: int) -> Play:
        """Plays all events once on so many threads."""
        from bench.generated import player

        kernel = self._kernel()
        events = self._bound(kernel, *self._columns)
        made = self._stack.enter_context(player(kernel, events, cpus=count, window=None, chunk=self._events))
        found = rings(kernel.maps)

        def play() -> None:
            made.rewind()
            empty_rings(found)
            made.run()

        return play

    def ordered(self) -> Play:
        """Plays all events once, in order."""
        from fastrtp.replay.fused import FusedReplay

        kernel = self._kernel()
        events = self._bound(kernel, *self._columns)
        made = FusedReplay(kernel, events, {self._name: kernel.tracepoints[self._name]})
        self._stack.callback(made.close)
        made.prepare()
        found = rings(kernel.maps)

        def play() -> None:
            made.rewind()
            empty_rings(found)
            made.run(None, self._events)

        return play


@contextmanager
def pinned() -> Iterator[int]:
    """Keep this thread on one CPU, and all others of this process on another; that one, -1: anywhere."""
    if not hasattr(os, "sched_setaffinity"):
        yield -1
        return
    cpus = sorted(os.sched_getaffinity(0))
    second = cpus[1 % len(cpus)]
    threads = {thread.native_id or 0: second for thread in threading.enumerate()} | {threading.get_native_id(): cpus[0]}
    for thread, cpu in threads.items():
        os.sched_setaffinity(thread, {cpu})
    try:
        yield second
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, cpus)


def best_rounds(plays: Mapping[str, tuple[Play, int]], seconds: float) -> dict[str, float]:
    """Seconds of the best round of each (play, threads), of those in which all threads ran all the time; of all, if none did.

    As long as there are few such rounds it takes up to `_PATIENCE` times the seconds.
    """
    rounds: dict[str, list[tuple[bool, float]]] = {name: [] for name in plays}
    start = time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds * _PATIENCE:
        if spent > seconds and all(sum(not split for split, _ in taken) >= _ENOUGH for taken in rounds.values()):
            break
        for name, (play, threads) in plays.items():
            time.sleep(_REST)
            begun, used = time.perf_counter(), time.process_time()
            play()
            used = time.process_time() - used
            taken = time.perf_counter() - begun
            rounds[name].append((used < _RAN * threads * taken, taken))
    return {name: min(taken)[1] for name, taken in rounds.items()}


@functools.cache
def scaling(program: str, keys: int, own: bool, ordered: bool, native_kind: tuple[int, int] | None) -> dict[str, float]:
    """ns per event: on "two" threads and on "one", of C on "two_c" and "one_c" where there is a C form and a compiler."""
    events = ROOM if program.startswith("ringbuf") else EVENTS
    with ExitStack() as stack:
        players = Players(stack, program, keys, own=own, events=events)
        plays: dict[str, tuple[Play, int]] = {
            "two": (players.threads(2), 2), "one": (players.ordered() if ordered else players.threads(1), 1)
        }  # fmt: skip
        for play, _threads in plays.values():
            play()  # compiles, starts the second thread, and puts the keys in
        second = stack.enter_context(pinned())
        if native_kind is not None and native.compilers():
            scale: Any = native.library(("scaling_native.c",)).scale
            for count, name in ((2, "two_c"), (1, "one_c")):
                plays[name] = functools.partial(scale, count, _NATIVE_EVENTS, *native_kind, second), count
                plays[name][0]()
        best = best_rounds(plays, 4 * budget())
    return {name: taken / (_NATIVE_EVENTS if name.endswith("_c") else events) * 1e9 for name, taken in best.items()}


def _pick(suffix: str, *arguments: Any) -> tuple[float, float]:
    best = scaling(*arguments)
    if f"two{suffix}" not in best:
        raise NotImplementedError("no C compiler")
    return best[f"two{suffix}"], best[f"one{suffix}"]


class Scaling(Suite):
    """ns per event on two threads, beside one."""

    title = "scaling"

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Programs by what their CPUs share, each with its ceiling."""
        for name, program, keys, own, kind in _PROGRAMS:
            yield Case(name, "ns", "one thread", functools.partial(_pick, "", program, keys, own, False, kind))
            if kind is not None:
                yield Case(f"{name}_c", "ns", "one thread, C", functools.partial(_pick, "_c", program, keys, own, False, kind))
        for name, program, keys, own, _kind in _PROGRAMS:
            if name in _ORDERED:
                yield Case(f"{name}_ordered", "ns", "one, in order", functools.partial(_pick, "", program, keys, own, True, None))

    params: ClassVar[Sequence[str]] = (
        *(f"{name}{suffix}" for name, *_, kind in _PROGRAMS for suffix in ("", "_c") if kind is not None or not suffix),
        *(f"{name}_ordered" for name in _ORDERED),
    )

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
