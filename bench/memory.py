"""Memory: what a loaded program holds, and what is left after loading and closing many times. Resident set of this process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from bench import native
from bench.cases import Case, Results, Suite
from bench.measure import budget
from bench.sources import objects

_HELD = 32
_WARM_UP = 20
_PROGRAM = "array_count"


def resident() -> int:
    """Bytes of memory that the process holds now. NotImplementedError where /proc is not there."""
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
    except OSError as error:
        raise NotImplementedError("no /proc/self/statm") from error
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def cycles() -> int:
    """How many times to load and close: 1,000; a tenth of that in a quick run."""
    return 1000 if budget() >= 0.25 else 100


def per_program() -> tuple[float, None]:
    """(bytes per loaded program with a small map of its own, no baseline), over 32 that are held."""
    from fastrtp.kernel import Kernel

    path = objects()["runqlat"]
    with Kernel() as kernel:
        for _ in range(4):
            kernel.load(path).close()
        gc.collect()
        before = resident()
        held = [kernel.load(native.SOURCES / "transition.bpf.o", autoload=[_PROGRAM]) for _ in range(_HELD)]
        grown = resident() - before
        for obj in held:
            obj.close()
    return grown / _HELD, None


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
    params: ClassVar[Sequence[str]] = ("per_program", "growth")

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """A loaded program; the growth over many loads."""
        yield Case("per_program", "bytes", "", per_program)
        yield Case("growth", "bytes", f"resident before {cycles()} loads", growth)

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_bytes(self, results: Results, name: str) -> float:
        """Bytes."""
        return self.value

    track_bytes.unit = "bytes"  # type: ignore[attr-defined]
