"""Verification alone: time per program beside the running kernel's BPF_PROG_LOAD, and instructions processed per second.

Programs are loaded into the kernel (where bpf(2) is allowed), never attached. The kernel's time includes its JIT.
`loop_10000`, `straight_12000` and `branches_nested` process more than 10,000 instructions, and so do those that are full of
calls: in `calls_loop` every fifth is one of a helper, `lookups_loop` has lookups with their checks, and updates;
`subprogs_loop` functions of the program; `records_loop` ringbuf records, reads of kernel memory and perf events;
`iterators` loops of bpf_for with lookups.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from bench.cases import Case, Results, Suite
from bench.measure import budget

if TYPE_CHECKING:
    from fastrtp.isa import Insn

_SYS_BPF = {"x86_64": 321, "aarch64": 280}.get(platform.machine(), 0)
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT = 0, 5, 17
_KFUNCS = {9001: "bpf_iter_num_new", 9002: "bpf_iter_num_next", 9003: "bpf_iter_num_destroy"}
"""Numbers that stand for kernel functions in the programs below."""

_LD_IMM64, _CALL, _PSEUDO_MAP_FD, _PSEUDO_KFUNC_CALL = 0x18, 0x85, 1, 2

_BODY = "r2 = r6\nr2 &= 7\nr3 = r10\nr3 += -16\nr3 += r2\n*(u8 *)(r3 +0) = 1\n"
_LOOKUP = "r1 = map[fd:1]\nr2 = r10\nr2 += -4\ncall 1\n"
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
    "lookups_loop": "r7 = 0\nagain:\n*(u32 *)(r10 -4) = r7\n" + _LOOKUP + "if r0 == 0 goto missing\nr1 = *(u64 *)(r0 +0)\n"
    "r1 += 1\n*(u64 *)(r0 +0) = r1\ngoto next\nmissing:\nr1 = map[fd:1]\nr2 = r10\nr2 += -4\nr3 = r10\nr3 += -24\n"
    "r4 = 0\ncall 2\nnext:\nr7 += 1\nif r7 < 500 goto again\nr0 = 0\nexit",
    "subprogs_loop": "r7 = 0\nr8 = 0\nagain:\nr1 = r7\nr2 = r10\nr2 += -8\ncall sum\nr8 += r0\nr7 += 1\nif r7 < 1000 goto again\n"
    "r0 = 0\nexit\nsum:\nr6 = r1\n*(u64 *)(r2 +0) = r1\nr1 &= 255\ncall half\nr0 += r6\nexit\nhalf:\nr0 = r1\nr0 >>= 1\nexit",
    "records_loop": "r6 = r1\nr7 = 0\nagain:\nr1 = map[fd:2]\nr2 = 32\nr3 = 0\ncall 131\nif r0 == 0 goto lost\nr8 = r0\nr1 = r0\n"
    "r2 = 16\nr3 = *(u64 *)(r6 +0)\ncall 113\ncall 5\n*(u64 *)(r8 +16) = r0\nr1 = r8\nr2 = 0\ncall 132\nlost:\ncall 8\n"
    "r8 = r0\nr8 &= 15\nr8 += 1\n*(u64 *)(r10 -16) = r0\n*(u64 *)(r10 -8) = r0\nr1 = r6\nr2 = map[fd:3]\nr3 = 4294967295 ll\n"
    "r4 = r10\nr4 += -16\nr5 = r8\ncall 25\nr7 += 1\nif r7 < 400 goto again\nr0 = 0\nexit",
    "iterators": "r7 = 0\nagain:\nr1 = r10\nr1 += -8\nr2 = 0\nr3 = 100\ncall 9001\ninner:\nr1 = r10\nr1 += -8\n"
    "call 9002\nif r0 == 0 goto done\nr1 = *(u32 *)(r0 +0)\n*(u32 *)(r10 -12) = r1\nr1 = map[fd:1]\n"
    "r2 = r10\nr2 += -12\ncall 1\nif r0 == 0 goto inner\n"
    + "".join(f"r1 = *(u64 *)(r0 +{8 * (i & 1)})\nr1 += {i}\n*(u64 *)(r0 +{8 * (i & 1)}) = r1\n" for i in range(4))
    + "goto inner\ndone:\nr1 = r10\nr1 += -8\ncall 9003\nr7 += 1\nif r7 < 400 goto again\nr0 = 0\nexit",
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


class BenchMap(NamedTuple):
    """A map that the programs name by its number."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int = 0
    frozen: bool = False
    name: str = ""


MAPS = {1: BenchMap(1, 4, 16, 1024), 2: BenchMap(27, 0, 0, 4096), 3: BenchMap(4, 4, 4, 8)}
"""A hash, a ring buffer and an array of perf events."""


def _bpf(cmd: int, attr: bytes) -> int:
    """bpf(2); -1 where it fails."""
    libc = ctypes.CDLL(None, use_errno=True)
    return int(libc.syscall(_SYS_BPF, cmd, ctypes.create_string_buffer(attr, 144), 144)) if _SYS_BPF else -1


def _named(insns: list[Insn], fds: Mapping[int, int], kfuncs: Callable[[str], int | None]) -> list[Insn]:
    """The program with these descriptors for its maps and these ids for the kernel functions that it calls."""
    out = []
    for insn in insns:
        if insn.code == _LD_IMM64 and insn.src_reg == _PSEUDO_MAP_FD:
            insn = insn._replace(imm=fds[insn.imm])
        elif insn.code == _CALL and insn.imm in _KFUNCS:
            insn = insn._replace(src_reg=_PSEUDO_KFUNC_CALL, imm=kfuncs(_KFUNCS[insn.imm]) or 0)
        out.append(insn)
    return out


def kernel_seconds(program: list[Insn]) -> float | None:
    """The running kernel's BPF_PROG_LOAD; None where it is not allowed."""
    from fastrtp.btf import kfuncs, load
    from fastrtp.isa import encode

    named = {insn.imm for insn in program if insn.code == _LD_IMM64 and insn.src_reg == _PSEUDO_MAP_FD}
    fds = {number: _bpf(_MAP_CREATE, struct.pack("<5I", *MAPS[number][:5])) for number in named}
    try:
        calls = any(insn.code == _CALL and insn.imm in _KFUNCS for insn in program)
        btf = load.host_btf() if calls and min(fds.values(), default=0) >= 0 else None
        code = encode(_named(program, fds, functools.partial(kfuncs.kfunc_id, btf)))
        return _load_seconds(code)
    finally:
        for fd in fds.values():
            if fd >= 0:
                os.close(fd)


def _load_seconds(code: bytes) -> float | None:
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
    from fastrtp.btf import kfuncs
    from fastrtp.isa import assemble
    from fastrtp.verifier import LoadAttr, bpf_check

    program = assemble(PROGRAMS[name])
    insns = _named(program, {number: number for number in MAPS}, functools.partial(kfuncs.kfunc_id, None))
    attr = LoadAttr(_RAW_TRACEPOINT, insns, MAPS.__getitem__, log_level=0)
    processed = bpf_check(attr).verified_insns

    def once() -> None:
        bpf_check(attr)

    return _best(once), kernel_seconds(program), processed


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
