"""How big the cast shims are: the figures of the patch that introduced them ("only 5-10 byte long and in total 7k bytes of
.text and 8k bytes of .rodata since the probe funcs need to appear in kallsyms"), for the shims compiled here.

Differs: a shim here has the body of bpf_trace_run<N> inside (Linux: a tail jump to it), and serves every class of the same
argument widths (Linux: one class).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastrtp.native.perf_map import functions
from fastrtp.trace.shims import shims

if TYPE_CHECKING:
    from fastrtp.kernel.kernel import Kernel

_SHIM, _RUN = "__bpf_trace_", "bpf_trace_run"


@dataclass(frozen=True)
class ShimReport:
    """Sizes in bytes. `shims`: argument widths -> size; `users`: argument widths -> tracepoints that it serves;
    `runs`: N -> size of bpf_trace_run<N>; `arity`: N -> tracepoints with N arguments; `symbols`: names of __bpf_trace_*
    in kallsyms, and `names`: bytes that these names take, NULs included.
    """

    shims: dict[str, int]
    users: dict[str, int]
    runs: dict[int, int]
    arity: dict[int, int]
    symbols: int
    names: int

    @property
    def text(self) -> int:
        """Bytes of .text of all shims."""
        return sum(self.shims.values())

    @property
    def tracepoints(self) -> int:
        """Tracepoints of the kernel."""
        return sum(self.users.values())

    def by_arity(self) -> dict[int, tuple[int, int, int, int]]:
        """N -> (tracepoints, shims, smallest, largest shim)."""
        rows = {}
        for count in sorted(self.arity):
            sizes = [size for widths, size in self.shims.items() if len(widths) == count]
            rows[count] = self.arity[count], len(sizes), min(sizes), max(sizes)
        return rows

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "tracepoints": self.tracepoints, "shims": self.shims, "users": self.users, "text": self.text, "runs": self.runs,
            "arity": self.arity, "symbols": self.symbols, "names": self.names,
        }  # fmt: skip

    def summary(self) -> str:
        """The sentence."""
        sizes = self.shims.values()
        return (
            f"{len(self.shims)} shims of {min(sizes)}-{max(sizes)} bytes serve {self.tracepoints:,} tracepoints: {self.text:,} "
            f"bytes of .text; their {self.symbols} names in kallsyms take {self.names:,} bytes"
        )


def shim_report(kernel: Kernel) -> ShimReport:
    """Sizes of the shims of every tracepoint of a kernel, from the symbol tables of the objects that were loaded."""
    users = Counter(kernel.tracepoints.widths(name) for name in kernel.tracepoints)
    loaded = shims()
    loaded.compile(users)
    sizes: dict[str, int] = {}
    for path in loaded.objects():
        sizes = {name: found[2] for name, found in functions(path.read_bytes()).items()} | sizes
    names = [name for name in kernel.kallsyms if name.startswith(_SHIM)]
    runs = sorted(name for name in sizes if name.startswith(_RUN) and name.removeprefix(_RUN).isdigit())
    return ShimReport(
        shims={widths: sizes.get(_SHIM + widths, 0) for widths in sorted(users, key=lambda widths: (len(widths), widths))},
        users=dict(users),
        runs={number: sizes[f"{_RUN}{number}"] for number in sorted(int(name.removeprefix(_RUN)) for name in runs)},
        arity=dict(sorted(Counter(len(widths) for widths in users.elements()).items())),
        symbols=len(names),
        names=sum(len(name) + 1 for name in names),
    )
