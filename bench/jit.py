"""JIT quality: programs compiled from one C source for BPF (then by fastrtp) and by the system's compiler at -O2.

Both run in the same loop on equal memory; before they are timed their results are compared. An entry's result depends on
memory and length that neither compiler knows, and on all of the work, so neither can leave any of it out.

fastrtp compiles for this very processor, as a JIT can; the baseline for any of its architecture.
FASTRTP_BENCH_CFLAGS=-march=native takes that away: on a Zen 4, the geometric mean is 0.77 against clang 19 -O2 and 0.92 against
clang 19 -O2 -march=native (where nested_loops is 3.1 and calls_with_memory, which clang makes vectors of, 2.3).

Where a ratio is far from 1 on that machine, and why (from the assembly of both sides):

- dense_switch 0.33, interpreter 0.25: clang's jump table is one indirect branch that the processor mispredicts, bytecode has
  a tree of comparisons that it learns. With FASTRTP_BENCH_CFLAGS=-fno-jump-tables both are about 1.
- bits, internet_checksum, to_upper, matrix, copy_words, fill, predictable 0.3 to 0.5: vectors of 512 bits against 128;
  clang -march=native has them, too.
- classify 0.38, count_lines 0.57: if-conversion. The bytecode's branches are selections already, clang keeps branches that
  random text mispredicts.
- unaligned 0.67: bytes put together again are one load, and LLVM 22 vectorises the loop where clang 19 does not.
- nested_loops 1.47: the bytecode adds up the inner loop's last sum once more after the loop, from its terms, so that the sum
  in the loop is no reduction to LLVM, and the loop stays scalar; in C it is a vector of two.
- alu64, alu32 1.16, calls 1.10: unrolled four times instead of twice; rewritten in terms of the loop's counter, a chain of
  multiplications needs more of them. clang -march=native, which unrolls eight times, is at 1.45.
"""

from __future__ import annotations

import ctypes
import functools
import math
import random
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from bench import loops, native
from bench.cases import Case, Results, Suite
from bench.measure import best_ns, budget

_SOURCES = ("jit_arithmetic", "jit_branches", "jit_memory", "jit_hashing", "jit_strings", "jit_calls")
_LENGTH = 4096
_RISING = frozenset({"binary_search"})
_TEXT = frozenset({"classify", "count_lines", "parse_numbers", "find_pattern", "to_upper", "compare_comm"})


@functools.cache
def programs() -> dict[str, Any]:
    """ProgramSpec by name of everything in the jit sources, in their order."""
    from fastrtp.obj import ObjectSpec

    found: dict[str, Any] = {}
    for source in _SOURCES:
        found |= ObjectSpec.parse((native.SOURCES / f"{source}.bpf.o").read_bytes(), source).programs
    return found


def memory_for(name: str) -> bytes:
    """What the program works on: random bytes, text, or a rising table, always the same."""
    rng = random.Random(7)
    if name in _RISING:
        return b"".join(value.to_bytes(4, "little") for value in sorted(rng.randrange(_LENGTH * 2) for _ in range(_LENGTH // 4)))
    if name in _TEXT:
        return bytes(rng.choice(b"the quick brown fox 0123456789 reaches\n each Peach,") for _ in range(_LENGTH))
    return rng.randbytes(_LENGTH)


def compiled(name: str) -> Any:
    """The program through fastrtp's JIT, without the verifier: what is measured is the code."""
    from fastrtp.isa import encode
    from fastrtp.jit.unverified import Compiled

    return Compiled(encode(programs()[name].insns))


class Pair:
    """One program in both forms, each with memory of its own."""

    def __init__(self, name: str, baseline: str = "") -> None:
        self.compiled = compiled(name)
        self._data = memory_for(name)
        self._ours = ctypes.create_string_buffer(self._data, _LENGTH)
        self._theirs = ctypes.create_string_buffer(self._data, _LENGTH)
        library = native.library(tuple(f"{source}.c" for source in _SOURCES), baseline)
        self._function = native.address(library, name)

    def subject(self, count: int) -> int:
        """Run fastrtp's code `count` times; the last result."""
        return loops.repeat(count, self.compiled.native.entry, ctypes.addressof(self._ours), _LENGTH)

    def baseline(self, count: int) -> int:
        """Run the native code."""
        return loops.repeat(count, self._function, ctypes.addressof(self._theirs), _LENGTH)

    def measure(self, seconds: float | None = None) -> tuple[float, float]:
        """(ns a call of ours, of the baseline). RuntimeError when the results differ."""
        for _ in range(2):
            ours, theirs = self.subject(1), self.baseline(1)
            if ours != theirs or self._ours.raw != self._theirs.raw:
                raise RuntimeError(f"results differ: {ours:#x} from the JIT, {theirs:#x} from native code")
        best = best_ns({"ours": self.subject, "theirs": self.baseline}, seconds)
        return best["ours"], best["theirs"]


def measure(name: str) -> tuple[float, float]:
    """(ns a call, the baseline's)."""
    return Pair(name).measure(budget() / 2)


class Jit(Suite):
    """Time of a call of each program against the same C compiled natively."""

    title = "jit"
    averaged = True
    params: ClassVar[Sequence[str]] = tuple(programs())

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """One for each program."""
        for name in programs():
            yield Case(name, "ns", native.baseline_name(), functools.partial(measure, name))

    def track_ratio(self, results: Results, name: str) -> float:
        """Time of fastrtp's code divided by that of native code."""
        return self.ratio()

    track_ratio.unit = "x"  # type: ignore[attr-defined]


class JitGeomean:
    """The one number of the suite, from the same results."""

    timeout = 300

    def track_geomean(self, results: Results) -> float:
        """Geometric mean over all programs of fastrtp's time divided by native time; nan without a C compiler."""
        ratios = [result[0] / result[1] for result in results.values() if isinstance(result, tuple) and result[1]]
        return math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan

    track_geomean.unit = "x"  # type: ignore[attr-defined]


def setup_cache() -> Results:
    """Measure the suite; asv gives the results to both classes."""
    return Jit.results()
