"""Live tracepoints: what `trace_<name>()` costs where it stands, disabled and enabled, in compiled code and in Python."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from bench import native
from bench.cases import Case, Results, Suite
from bench.measure import best_ns, times

_NAME = "bench_event"


@functools.cache
def _site() -> tuple[Any, Any, Any]:
    """(the program that may be attached, trace_bench_event, its njit form)."""
    from fastrtp.kernel import Kernel
    from fastrtp.trace.live import TraceFunction

    kernel = Kernel()
    tp = kernel.trace_event(_NAME, "u64 key, int value")
    obj = kernel.load(native.SOURCES / "transition.bpf.o", autoload=["empty"])
    trace = TraceFunction(tp, kernel.memory)
    return obj.programs["empty"], trace, trace.njit


def compiled(enabled: bool) -> tuple[float, float]:
    """(ns of a round of an njit loop with the tracepoint in it, ns of the loop without)."""
    from bench.live_native import loops

    program, _, trace = _site()
    traced, empty = loops(trace)
    link = program.attach(_NAME) if enabled else None
    try:
        best = best_ns({"traced": traced, "empty": empty})
    finally:
        if link is not None:
            link.close()
    return best["traced"], best["empty"]


def python(enabled: bool) -> tuple[float, float]:
    """(ns of a call of trace_bench_event from Python, ns of a Python function that does nothing with the same arguments)."""
    program, trace, _ = _site()

    def nothing(key: int, value: int) -> None:
        pass

    link = program.attach(_NAME) if enabled else None
    try:
        best = best_ns({"traced": times(lambda: trace(1, 2)), "empty": times(lambda: nothing(1, 2))})
    finally:
        if link is not None:
            link.close()
    return best["traced"], best["empty"]


class Live(Suite):
    """ns per call site."""

    title = "live"
    params: ClassVar[Sequence[str]] = ("njit_disabled", "njit_enabled", "python_disabled", "python_enabled")

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Compiled code and Python, without and with an empty program attached."""
        for where, measure, baseline in (("njit", compiled, "empty njit loop"), ("python", python, "empty Python function")):
            for state in ("disabled", "enabled"):
                yield Case(f"{where}_{state}", "ns", baseline, functools.partial(measure, state == "enabled"))

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ns(self, results: Results, name: str) -> float:
        """Nanoseconds per round of the loop."""
        return self.value

    track_ns.unit = "ns"  # type: ignore[attr-defined]

    def track_added(self, results: Results, name: str) -> float:
        """Nanoseconds that the tracepoint adds to the round."""
        return self.value - (self.reference or 0.0)

    track_added.unit = "ns"  # type: ignore[attr-defined]
