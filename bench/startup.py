"""Starting up: a fresh process each time, beside a Python that does nothing."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import ClassVar

from bench.cases import Case, Results, Suite
from bench.children import importing_bench, python
from bench.measure import best_ns, budget, times

_COMMANDS: dict[str, list[str]] = {
    "import": ["-c", "import fastrtp"],
    "help": ["-m", "fastrtp", "--help"],
    "kernel": ["-c", "import fastrtp; fastrtp.Kernel()"],
    "load": ["-c", importing_bench("import fastrtp, bench.sources as s; fastrtp.Kernel().load(s.objects()['syscount'])")],
    "demo": ["-m", "fastrtp", "demo"],
    "warmup": ["-m", "fastrtp", "warmup"],
    "numpy": ["-c", "import numpy"],
}

_BUILD = "library_build"
_UNHURRIED = 0.2
"""Seconds for a comparison from which on there is time for what takes long."""


def process(arguments: Sequence[str]) -> tuple[float, float]:
    """(ms of a process with these arguments, ms of `python -c pass`). RuntimeError when it fails."""
    loops = {"ours": times(lambda: python(arguments)), "pass": times(lambda: python(["-c", "pass"]))}
    best = best_ns(loops, max(4 * budget(), 0.5), rounds=5)
    return best["ours"] / 1e6, best["pass"] / 1e6


def library_build() -> tuple[float, float]:
    """(ms of processor time that building the native library takes, all its processes; of `python -c pass`).

    NotImplementedError in a quick run: it is half a minute.
    """
    if budget() < _UNHURRIED:
        raise NotImplementedError("it takes half a minute: not with --quick")

    from fastrtp.native.library import key

    def cpu_ms(arguments: Sequence[str]) -> float:
        before = os.times()
        python(arguments)
        after = os.times()
        return (after.children_user + after.children_system - before.children_user - before.children_system) * 1e3

    with tempfile.TemporaryDirectory(prefix="fastrtp-") as folder:
        build = ["-m", "fastrtp.native.build", folder, f"native-{key()}", str(os.getpid())]
        return cpu_ms(build), cpu_ms(["-c", "pass"])


class Startup(Suite):
    """ms until a process is done, the native library built and the caches warm; and processor time of that library's build."""

    title = "startup"
    params: ClassVar[Sequence[str]] = (*_COMMANDS, _BUILD)

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """import fastrtp, the help, a kernel, one with an object loaded, the demo, warmup; numpy, for comparison; the build."""
        for name, arguments in _COMMANDS.items():
            yield Case(name, "ms", "python -c pass", functools.partial(process, arguments))
        yield Case(_BUILD, "ms", "python -c pass", library_build)

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_ms(self, results: Results, name: str) -> float:
        """Milliseconds of the whole process, the interpreter's own start included."""
        return self.value

    track_ms.unit = "ms"  # type: ignore[attr-defined]

    def track_added(self, results: Results, name: str) -> float:
        """Milliseconds beyond those of a Python that does nothing."""
        return self.value - (self.reference or 0.0)

    track_added.unit = "ms"  # type: ignore[attr-defined]
