"""The comparison that raw tracepoints were introduced with: an event without programs, with a classic tracepoint program, with a
raw tracepoint program. `python -m bench.compare` prints it as a table of events per second.

Base is a compiled loop over a tracepoint that nothing is attached to. A classic program gets the event's record, so every event
is copied into one first; a raw tracepoint program gets the arguments. "empty" programs return 0 and do nothing, as in the
original; "pid" programs fetch the task's pid, from the record or from the task. "ftrace" and "perf" write records and no
program runs; "replay" plays a recording with the program on each of its sched_switch events.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

from bench import loops
from bench.cases import Case, Results, Suite
from bench.measure import best_ns, budget, times

_EVENTS = ("task_rename", "sched_switch", "sys_enter")
_EMPTY = "r0 = 0\nexit"
_PID_OF_ARGUMENT = """
r3 = *(u64 *)(r1 +{at})
r3 += {offset}
r1 = r10
r1 += -8
r2 = 4
call bpf_probe_read_kernel#113
r0 = *(u32 *)(r10 -8)
exit
"""
_PID_IN_RECORD = "r0 = *(u32 *)(r1 +{at})\nexit"


class Bench:
    """One tracepoint with arguments to fire it with, and ways to listen to it."""

    def __init__(self, name: str) -> None:
        import numpy as np

        from fastrtp.kernel import Kernel

        self.kernel = kernel = Kernel()
        self.name = name
        self.tp = kernel.tracepoints[name]
        task = kernel.objects.task(1234)
        regs = kernel.objects.object("pt_regs", "bench")
        comm = kernel.objects.string(b"new-name")
        self.arguments = np.array(
            {"task_rename": [task, comm], "sched_switch": [0, task, task, 0], "sys_enter": [regs, 1]}[name], np.uint64
        )
        self._env = kernel.memory.env_of(0)

    def fire(self, count: int) -> None:
        """`count` events, each the same."""
        memory = self.kernel.memory
        memory.lib.machine_enter(memory.machine_address)
        try:
            loops.fire_same(count, self.tp.num_args, self.arguments.ctypes.data, self.tp.address, self._env)
        finally:
            memory.lib.machine_leave(memory.machine_address)

    def text(self, kind: str, program: str) -> str:
        """Assembly of a "raw_tp" or "tracepoint" program."""
        if program == "empty":
            return _EMPTY
        if kind == "tracepoint":
            field = self.kernel.trace_events.event(self.name).fmt.field({"sched_switch": "next_pid"}.get(self.name, "pid"))
            assert field is not None
            return _PID_IN_RECORD.format(at=field.offset)
        offset = self.kernel.objects.member("task_struct", "pid").offset_bytes
        return _PID_OF_ARGUMENT.format(at=16 if self.name == "sched_switch" else 0, offset=offset)

    @contextmanager
    def listener(self, kind: str, program: str) -> Iterator[None]:
        """Something on the tracepoint: "base" (nothing), "raw_tp", "tracepoint", "ftrace" or "perf"."""
        kernel = self.kernel
        with ExitStack() as stack:
            if kind == "ftrace":
                kernel.ftrace.enable(self.name)
                stack.callback(kernel.ftrace.disable)
            elif kind == "perf":
                stack.callback(kernel.close, kernel.perf_tracepoint_open(self.name))
            elif kind != "base":
                for fd in self._attached(kind, program):
                    stack.callback(kernel.close, fd)
            yield

    def _attached(self, kind: str, program: str) -> list[int]:
        from fastrtp.isa import assemble, encode
        from fastrtp.uapi import BpfProgType

        kernel = self.kernel
        code = encode(assemble(self.text(kind, program)))
        kernel.current.expected = self.name  # as a loader that reads it from the section's name
        if kind == "raw_tp":
            fd = kernel.prog_load(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, code)
            return [fd, kernel.raw_tracepoint_open(self.name, fd)]
        fd = kernel.prog_load(BpfProgType.BPF_PROG_TYPE_TRACEPOINT, code)
        return [fd, *kernel.tracepoint_attach(self.name, fd)]


def measured(name: str, program: str, kinds: Sequence[str], seconds: float | None = None) -> dict[str, float]:
    """ns per event with each kind of listener, each on a kernel of its own, measured in turn."""
    with ExitStack() as stack:
        listeners = {}
        for kind in kinds:
            here = Bench(name)
            stack.callback(here.kernel.shutdown)
            stack.enter_context(here.listener(kind, program))
            listeners[kind] = here.fire
        return best_ns(listeners, seconds)


def against_raw_tp(name: str, program: str) -> tuple[float, float]:
    """(ns per event with a classic tracepoint program, with a raw tracepoint program)."""
    best = measured(name, program, ("tracepoint", "raw_tp"))
    return best["tracepoint"], best["raw_tp"]


def against_base(kind: str, name: str, program: str) -> tuple[float, float]:
    """(ns per event with a listener, ns without)."""
    best = measured(name, program, (kind, "base"))
    return best[kind], best["base"]


def replayed(seconds: float | None = None) -> dict[str, float]:
    """ns per event of a recording with nothing, a classic, and a raw tracepoint program on sched_switch (linked tier)."""
    from bench.recording import Player

    players: dict[str, Any] = {}
    for kind in ("base", "tracepoint", "raw_tp"):
        player = players[kind] = Player([])
        here = Bench.__new__(Bench)
        here.kernel, here.name, here.tp = player.kernel, "sched_switch", player.kernel.tracepoints["sched_switch"]
        if kind != "base":
            here._attached(kind, "pid")
    best = best_ns({kind: times(player.play) for kind, player in players.items()}, seconds or 2 * budget())
    return {kind: value / players[kind].events for kind, value in best.items()}


class Compare(Suite):
    """ns per event: classic tracepoint programs beside raw tracepoint programs, and each way to listen beside none."""

    title = "compare"
    params: ClassVar[Sequence[str]] = (
        *(f"{name}_{program}" for name in _EVENTS[:2] for program in ("empty", "pid")), "sys_enter_empty",
        "raw_tp", "tracepoint", "ftrace", "perf",
    )  # fmt: skip

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Pairs of programs, then ways to listen to task_rename."""
        for case in cls.params[:5]:
            name, _, program = case.rpartition("_")
            yield Case(case, "ns", "raw_tp + bpf", functools.partial(against_raw_tp, name, program))
        for kind in cls.params[5:]:
            yield Case(kind, "ns", "nothing attached", functools.partial(against_base, kind, "task_rename", "empty"))

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


def table(seconds: float | None = None) -> list[tuple[str, dict[str, float]]]:
    """(what fires, ns per event by listener) of each row of the comparison."""
    kinds = ("base", "tracepoint", "raw_tp")
    rows = [
        (f"{name}, {program} program", measured(name, program, kinds, seconds))
        for name in _EVENTS
        for program in ("empty", "pid")
        if (name, program) != ("sys_enter", "pid")
    ]
    return [*rows, ("replay, pid program on sched_switch", replayed(seconds))]


def main() -> None:
    """Print the table: M events per second, and what is left of the base's."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title="M events/s (ratio to base)")
    for heading in ("event", "base", "tracepoint + bpf", "raw_tp + bpf", "raw_tp : tracepoint"):
        shown.add_column(heading, justify="left" if heading == "event" else "right")
    for event, best in table(1.0):
        rates = {kind: 1e3 / value for kind, value in best.items()}
        cells = [f"{rates[kind]:,.1f} ({rates[kind] / rates['base']:.3f})" for kind in ("tracepoint", "raw_tp")]
        shown.add_row(event, f"{rates['base']:,.1f}", *cells, f"{rates['raw_tp'] / rates['tracepoint']:.2f}")
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
