"""Verification alone: time per program beside the running kernel's BPF_PROG_LOAD, and instructions processed per second.

Programs are loaded into the kernel (where bpf(2) is allowed), never attached. The kernel's time includes its JIT.
`loop_10000`, `straight_12000` and `branches_nested` process more than 10,000 instructions; in `calls_loop` every fifth
is a call of a helper.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from bench.cases import Case, Results, Suite
from bench.measure import budget

_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_PROG_LOAD, _RAW_TRACEPOINT = 5, 17

_BODY = "r2 = r6\nr2 &= 7\nr3 = r10\nr3 += -16\nr3 += r2\n*(u8 *)(r3 +0) = 1\n"
PROGRAMS = {
    "straight_2000": "r0 = *(u64 *)(r1 +0)\n" + "r0 += 7\nr0 ^= 5\nr2 = r0\n*(u64 *)(r10 -8) = r2\n" * 500 + "r0 = 0\nexit",
    "loop_1000": "r6 = 0\nagain:\n" + _BODY + "r6 += 1\nif r6 < 1000 goto again\nr0 = 0\nexit",
    "loop_10000": "r6 = 0\nagain:\n" + _BODY + "r6 += 1\nif r6 < 10000 goto again\nr0 = 0\nexit",
    "straight_12000": "r0 = *(u64 *)(r1 +0)\n" + "r0 += 7\nr0 ^= 5\nr2 = r0\n*(u64 *)(r10 -8) = r2\n" * 3000 + "r0 = 0\nexit",
    "branches_nested": "r6 = *(u64 *)(r1 +0)\nr7 = 0\n"
    + "".join(f"if r6 & {1 << bit} goto pc+1\nr7 += {1 << bit}\n" for bit in range(11))
    + "r7 &= 7\nr2 = r10\nr2 += -8\nr2 += r7\n*(u8 *)(r2 +0) = 1\nr0 = 0\nexit",
    "calls_loop": "r6 = r1\nr7 = 0\nagain:\ncall 5\n*(u64 *)(r10 -8) = r0\nr8 = *(u64 *)(r6 +8)\nr8 &= 255\nr8 += r7\n"
    "call 14\n*(u64 *)(r10 -16) = r0\nr1 = r10\nr1 += -16\nr2 = 16\ncall 16\nr7 += 1\nif r7 < 800 goto again\nr0 = 0\nexit",
    "branches_16": "r6 = *(u64 *)(r1 +0)\nr7 = 0\n"
    + "".join(f"if r6 & {1 << bit} goto pc+1\nr7 += {1 << bit}\n" for bit in range(16)) + "r0 = r7\nexit",
}  # fmt: skip


def _best(run: Callable[[], None]) -> float:
    """Seconds of the quickest run within the budget."""
    best = float("inf")
    deadline = time.perf_counter() + budget()
    while True:
        start = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > deadline:
            return best


def kernel_seconds(code: bytes) -> float | None:
    """The running kernel's BPF_PROG_LOAD; None where it is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    insns, text = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    head = struct.pack("<IIQQ", _RAW_TRACEPOINT, len(code) // 8, ctypes.addressof(insns), ctypes.addressof(text))
    attr = ctypes.create_string_buffer(head + bytes(120), 144)

    def load() -> int:
        return int(libc.syscall(_SYS_BPF, _PROG_LOAD, attr, 144)) if _SYS_BPF else -1

    def once() -> None:
        os.close(load())

    fd = load()
    if fd < 0:
        return None
    os.close(fd)
    return _best(once)


@functools.cache
def measured(name: str) -> tuple[float, float | None, int]:
    """(seconds here, seconds in the kernel, instructions processed)."""
    from fastrtp.isa import assemble, encode
    from fastrtp.verifier import LoadAttr, bpf_check

    insns = assemble(PROGRAMS[name])
    attr = LoadAttr(_RAW_TRACEPOINT, insns, lambda _fd: None, log_level=0)
    processed = bpf_check(attr).verified_insns

    def once() -> None:
        bpf_check(attr)

    return _best(once), kernel_seconds(encode(insns)), processed


def load_time(name: str) -> tuple[float, float | None]:
    """(ms here, ms in the kernel)."""
    ours, kernel, _ = measured(name)
    return ours * 1e3, None if kernel is None else kernel * 1e3


def speed(name: str) -> tuple[float, float | None]:
    """(thousand instructions processed per second, no reference)."""
    ours, _, processed = measured(name)
    return processed / ours / 1e3, None


class Verifier(Suite):
    """ms per verification, and thousand processed instructions per second."""

    title = "verifier"
    params: ClassVar[Sequence[str]] = tuple(f"{name}_{what}" for name in PROGRAMS for what in ("ms", "kinsns"))

    @classmethod
    def cases(cls) -> Iterable[Case]:
        """Each program's time, then its speed."""
        for name in PROGRAMS:
            yield Case(f"{name}_ms", "ms", "kernel load", functools.partial(load_time, name))
            yield Case(f"{name}_kinsns", "k insns/s", "", functools.partial(speed, name))

    def setup_cache(self) -> Results:
        """Measure the suite."""
        return self.results()

    def track_value(self, results: Results, name: str) -> float:
        """Milliseconds, or thousand instructions per second."""
        return self.value

    track_value.unit = "ms or k insns/s"  # type: ignore[attr-defined]
