"""Loading an object: every stage, with nothing in the cache of compiled objects (cold) and with everything in it (warm).

The stages are timed where they happen, inside Kernel.load, each without those inside it: parse, relocate, verify (or find
what was verified), key (of the code), find (the code in the cache), lower (to LLVM IR as text), compile (waiting for LLVM,
which works on several programs while the next are verified) and link (object code into memory). What is left is maps, BTF
and the system calls around them.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bench.cases import Case, Results, Suite
from bench.children import importing_bench, python
from bench.measure import budget
from bench.sources import objects

STAGES = ("parse", "relocate", "verify", "key", "find", "lower", "compile", "link")


class StageClock:
    """Seconds by stage, while it is entered: the functions that make up the stages are wrapped. For one thread."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inside = 0.0

    def __enter__(self) -> StageClock:
        import fastrtp.jit.program as program
        from fastrtp.jit.cache import ObjectCache
        from fastrtp.obj import ObjectSpec
        from fastrtp.verifier.cache import VerifiedCache

        self._undo = contextlib.ExitStack()
        for owner, name, stage in (
            (ObjectSpec, "parse", "parse"),
            (ObjectSpec, "relocated", "relocate"),
            (VerifiedCache, "bpf_check", "verify"),
            (program, "program_key", "key"),
            (program, "lower", "lower"),
            (ObjectCache, "get", "find"),
            (program.NativeText, "ready", "compile"),
            (program, "NativeModule", "link"),
        ):
            self._wrap(owner, name, stage)
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _wrap(self, owner: Any, name: str, stage: str) -> None:
        """Replace owner.name by a form that adds its time to the stage."""
        held = owner.__dict__[name]
        inner = held.__func__ if isinstance(held, classmethod) else held

        @functools.wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            outside, self._inside = self._inside, 0.0
            start = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                took = time.perf_counter() - start
                self.seconds[stage] += took - self._inside
                self._inside = outside + took

        setattr(owner, name, classmethod(timed) if isinstance(held, classmethod) else timed)
        self._undo.callback(setattr, owner, name, held)


@contextlib.contextmanager
def empty_cache() -> Iterator[None]:
    """Verified and compiled programs are kept in a folder that is new and goes again; the native library stays."""
    from fastrtp.entry_cache import temporary_folder
    from fastrtp.native import library

    library.library()
    with temporary_folder():
        yield


def load_once(kernel: Any, path: Path) -> dict[str, float]:
    """Load and close; seconds by stage, "rest" and "total"."""
    with StageClock() as clock:
        start = time.perf_counter()
        obj = kernel.load(path)
        total = time.perf_counter() - start
    obj.close()
    seconds = dict(clock.seconds)
    return {stage: seconds.get(stage, 0.0) for stage in STAGES} | {"rest": total - sum(seconds.values()), "total": total}


@functools.cache
def measured(name: str) -> dict[str, dict[str, float]]:
    """Best seconds by stage, of a few loads that take turns: {"cold": ..., "warm": ...}."""
    from fastrtp.kernel import Kernel

    path = loadable()[name]
    best: dict[str, dict[str, float]] = {}
    deadline = time.perf_counter() + 4 * budget()
    with Kernel() as kernel:
        load_once(kernel, path)
        for turn in range(20):
            for state in ("cold", "warm"):
                with empty_cache() if state == "cold" else contextlib.nullcontext():
                    seconds = load_once(kernel, path)
                if state not in best or seconds["total"] < best[state]["total"]:
                    best[state] = seconds
            if turn >= 1 and time.perf_counter() > deadline:
                break
    return best


_FIRST = """
import time
from fastrtp.kernel import Kernel
from bench.load import empty_cache
with Kernel() as kernel, empty_cache():
    start = time.perf_counter()
    kernel.load(sys.argv[1])
    print(time.perf_counter() - start)
"""


def first(name: str) -> tuple[float, float]:
    """(ms of the very first load of a process, nothing cached and no compiler started, ms of a later cold one)."""

    def once() -> float:
        return float(python(["-c", importing_bench(_FIRST), str(loadable()[name])]).stdout)

    return min(once() for _ in range(5)) * 1e3, measured(name)["cold"]["total"] * 1e3


def total(name: str, state: str) -> tuple[float, float]:
    """(ms of a load, ms of the load in the other state: what the cache buys)."""
    best = measured(name)
    return best[state]["total"] * 1e3, best["warm" if state == "cold" else "cold"]["total"] * 1e3


def stage(name: str, state: str, which: str) -> tuple[float, float]:
    """(ms of one stage, ms of the whole load)."""
    best = measured(name)[state]
    return best[which] * 1e3, best["total"] * 1e3


TYPICAL = "typical"
"""One program, one map, a histogram: about a hundred instructions."""


def loadable() -> dict[str, Path]:
    """The objects that are loaded, by name."""
    return {TYPICAL: Path(__file__).parent / "c" / "typical.bpf.o"} | objects()


def staged() -> list[str]:
    """The objects whose stages are listed."""
    return [name for name in loadable() if name in (TYPICAL, "truth")]


class Load(Suite):
    """ms per Kernel.load of an object."""

    title = "load"
    params: ClassVar[Sequence[str]] = (
        *(f"{name}_{state}" for name in loadable() for state in ("cold", "warm")),
        f"{TYPICAL}_first",
        *(f"{name}_{state}_{which}" for name in staged() for state in ("cold", "warm") for which in (*STAGES, "rest")),
    )

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Whole loads of every object, then the stages of some."""
        for name in loadable():
            for state in ("cold", "warm"):
                other = "warm" if state == "cold" else "cold"
                measure: Callable[[], tuple[float, float | None]] = functools.partial(total, name, state)
                yield Case(f"{name}_{state}", "ms", other, measure)
        yield Case(f"{TYPICAL}_first", "ms", "a later cold load", functools.partial(first, TYPICAL))
        for name in staged():
            for state in ("cold", "warm"):
                for which in (*STAGES, "rest"):
                    part = functools.partial(stage, name, state, which)
                    yield Case(f"{name}_{state}_{which}", "ms", f"whole {state} load", part)

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ms(self, results: Results, name: str) -> float:
        """Milliseconds."""
        return self.value

    track_ms.unit = "ms"  # type: ignore[attr-defined]
