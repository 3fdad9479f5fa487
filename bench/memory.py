"""Memory: what a loaded program holds, and what is left after loading and closing many times. Resident set of this process."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bench import native
from bench.cases import Case, Results, Suite
from bench.measure import budget
from bench.sources import objects
from fastrtp.isa import assemble, encode

_HELD = 64
_WARM_UP = 20


def resident() -> int:
    """Bytes of memory that the process holds now. NotImplementedError where /proc is not there."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError as error:
        raise NotImplementedError("no /proc/self/statm") from error
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cycles() -> int:
    """How many times to load and close: $FASTRTP_LEAK_CYCLES, or 1,000; a tenth of that in a quick run."""
    asked = os.environ.get("FASTRTP_LEAK_CYCLES")
    return int(asked) if asked else 1000 if budget() >= 0.25 else 100


def _grown(make: Callable[[Any], Any]) -> float:
    """Bytes that the process grows by for each of many things that are made with a kernel and held."""
    from fastrtp.kernel import Kernel

    with Kernel() as kernel:
        for one in [make(kernel) for _ in range(_HELD // 4)]:
            one()
        gc.collect()
        before = resident()
        held = [make(kernel) for _ in range(_HELD)]
        gc.collect()
        grown = resident() - before
        for one in held:
            one()
    return grown / _HELD


def per_program() -> tuple[float, None]:
    """(bytes per loaded program of 3 instructions: code, records, what was verified; no baseline)."""
    code = encode(assemble("r0 = 1\nr0 += 1\nexit"))

    def make(kernel: Any) -> Callable[[], None]:
        fd = kernel.prog_load(17, code)
        return lambda: kernel.close(fd)

    return _grown(make), None


def per_object() -> tuple[float, None]:
    """(bytes per loaded object with a program of a hundred instructions and a map of 8,192 rows; no baseline)."""
    path = native.SOURCES / "typical.bpf.o"
    return _grown(lambda kernel: kernel.load(path).close), None


def growth() -> tuple[float, float]:
    """(bytes by which the process grew over many loads and closes of an object, bytes it held before)."""
    from fastrtp.kernel import Kernel

    path = objects()["runqlat"]
    with Kernel() as kernel:
        for _ in range(_WARM_UP):
            kernel.load(path).close()
        gc.collect()
        before = resident()
        for _ in range(cycles()):
            kernel.load(path).close()
        gc.collect()
        return float(resident() - before), float(before)


class Memory(Suite):
    """Bytes held."""

    title = "memory"
    params: ClassVar[Sequence[str]] = ("per_program", "per_object", "growth")

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """A loaded program; a loaded object; the growth over many loads."""
        yield Case("per_program", "bytes", "", per_program)
        yield Case("per_object", "bytes", "", per_object)
        yield Case("growth", "bytes", f"resident before {cycles()} loads", growth)

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_bytes(self, results: Results, name: str) -> float:
        """Bytes."""
        return self.value

    track_bytes.unit = "bytes"  # type: ignore[attr-defined]
