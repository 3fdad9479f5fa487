"""A value pointer over updates of its map: random programs that hold some see in it what they see in Linux 6.18.

A program looks keys up, holds the pointers in registers or on its stack, updates and deletes keys meanwhile, writes through
the pointers, and folds what it reads through them into R0. The same program runs on both kernels, several times in a row;
R0 and the map's contents are compared. Where bpf(2) is not to be had, cases with what Linux answered stand for it.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import bpf, test_run, usable

from fastrtp.jit.link import map_call
from fastrtp.kernel import Kernel
from fastrtp.maps.records import IN_PLACE
from fastrtp.uapi import BPF_F_NO_PREALLOC, BpfCmd, BpfMapType

T = BpfMapType
RAW_TP = 17
UPDATE_ELEM = 2
KINDS = (
    (T.BPF_MAP_TYPE_HASH, 0), (T.BPF_MAP_TYPE_HASH, BPF_F_NO_PREALLOC), (T.BPF_MAP_TYPE_LRU_HASH, 0),
    (T.BPF_MAP_TYPE_PERCPU_HASH, 0), (T.BPF_MAP_TYPE_LRU_PERCPU_HASH, 0), (T.BPF_MAP_TYPE_ARRAY, 0),
)  # fmt: skip
KEYS = 4
CPUS = 2
RUNS = 3
LOOKUP, UPDATE, DELETE = 1, 2, 3
SUM, KEY, VALUE, SPILL = -8, -12, -24, -32


def insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", op, dst | src << 4, off, imm)


def call_map(helper: int, map_fd: int) -> bytes:
    return b"".join(
        [
            insn(0x18, 1, 1, imm=map_fd), insn(0), insn(0xBF, 2, 10), insn(0x07, 2, imm=KEY),
            insn(0xBF, 3, 10), insn(0x07, 3, imm=VALUE), insn(0xB7, 4), insn(0x85, imm=helper),
        ]
    )  # fmt: skip


def fold(reg: int) -> bytes:
    """sum = sum * 31 + *reg."""
    return b"".join(
        [insn(0x79, 1, 10, SUM), insn(0x27, 1, imm=31), insn(0x79, 2, reg), insn(0x0F, 1, 2), insn(0x7B, 10, 1, SUM)]
    )  # fmt: skip


def program(seed: int, map_fd: int) -> bytes:
    """A random program; where a key is not there, R0 says how far it came."""
    rng = random.Random(seed)
    code = [insn(0x7A, 10, off=SUM, imm=1), insn(0x7A, 10, off=VALUE)]
    held: list[int] = []
    spilled = False
    for number in range(4 + int(rng.random() * 14)):
        choice, key = rng.random(), int(rng.random() * KEYS)
        code.append(insn(0x62, 10, off=KEY, imm=key))
        if choice < 0.3:
            code += [call_map(LOOKUP, map_fd), insn(0x55, 0, off=2), insn(0xB7, 0, imm=1000 + number), insn(0x95)]
            reg = 6 + int(rng.random() * 3)
            code.append(insn(0xBF, reg, 0))
            held = [*(other for other in held if other != reg), reg]
        elif choice < 0.6:
            code += [insn(0x7A, 10, off=VALUE, imm=100 + number), call_map(UPDATE, map_fd)]
        elif choice < 0.68:
            code.append(call_map(DELETE, map_fd))
        elif choice < 0.78 and held:
            code.append(insn(0x7A, held[int(rng.random() * len(held))], imm=10_000 + number))
        elif choice < 0.84 and held:
            code.append(insn(0x7B, 10, held[0], SPILL))
            spilled = True
        elif choice < 0.9 and spilled:
            code += [insn(0x79, 9, 10, SPILL), fold(9)]
        elif held:
            code.append(fold(held[int(rng.random() * len(held))]))
    code += [fold(reg) for reg in held]
    return b"".join([*code, insn(0x79, 0, 10, SUM), insn(0x95)])


def value(kind: int, number: int) -> bytes:
    one = struct.pack("<Q", number)
    return one * CPUS if kind in (T.BPF_MAP_TYPE_PERCPU_HASH, T.BPF_MAP_TYPE_LRU_PERCPU_HASH) else one


Answer = tuple[list[int], list[bytes]]
"""R0 of each run, and the values at the end (b"": no such key)."""


def linux(seed: int) -> Answer:
    kind, flags, entries = shape(seed)
    fd = bpf(BpfCmd.BPF_MAP_CREATE, map_type=kind, key_size=4, value_size=8, max_entries=entries, map_flags=flags)
    for key in range(KEYS):
        bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=struct.pack("<I", key), value=value(kind, key))
    code = program(seed, fd)
    prog = bpf(BpfCmd.BPF_PROG_LOAD, prog_type=RAW_TP, insns=code, insn_cnt=len(code) // 8, license=b"GPL\0")
    assert min(fd, prog) >= 0
    results = [test_run(prog, bytes(8)) for _ in range(RUNS)]
    found = []
    for key in range(KEYS):
        out = ctypes.create_string_buffer(len(value(kind, 0)))
        ret = bpf(BpfCmd.BPF_MAP_LOOKUP_ELEM, map_fd=fd, key=struct.pack("<I", key), value=out)
        found.append(out.raw if ret == 0 else b"")
    os.close(prog)
    os.close(fd)
    return results, found


def ours(kernel: Kernel, seed: int) -> Answer:
    kind, flags, entries = shape(seed)
    fd = kernel.map_create(kind, 4, 8, entries, flags)
    for key in range(KEYS):
        kernel.map_update_elem(fd, struct.pack("<I", key), value(kind, key))
    prog = kernel.prog_load(RAW_TP, program(seed, fd))
    results = [kernel.prog_test_run(prog, ctx_in=bytes(8)) for _ in range(RUNS)]
    found = []
    for key in range(KEYS):
        try:
            found.append(kernel.map_lookup_elem(fd, struct.pack("<I", key)))
        except OSError:
            found.append(b"")
    kernel.close(prog)
    kernel.close(fd)
    return results, found


def shape(seed: int) -> tuple[int, int, int]:
    """(map type, flags, max_entries)."""
    kind, flags = KINDS[seed % len(KINDS)]
    lru = kind in (T.BPF_MAP_TYPE_LRU_HASH, T.BPF_MAP_TYPE_LRU_PERCPU_HASH)
    return kind, flags, 64 if lru else KEYS + seed // len(KINDS) % 3


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(cpus=CPUS) as kernel:
        yield kernel


SEEDS = int(os.environ.get("FASTRTP_HELD_SEEDS", "60"))


def test_what_a_held_pointer_shows(kernel: Kernel) -> None:
    if not usable() or os.cpu_count() != CPUS:
        pytest.skip(f"compared with Linux 6.18 on x86-64 with {CPUS} CPUs only")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        wrong = [seed for seed in range(SEEDS) if ours(kernel, seed) != linux(seed)]
    finally:
        os.sched_setaffinity(0, before)

    assert wrong == []


OLD_VALUE = b"".join(
    [
        insn(0x62, 10, off=KEY), call_map(LOOKUP, 0), insn(0x55, 0, off=2), insn(0xB7, 0), insn(0x95), insn(0xBF, 6, 0),
        insn(0x7A, 10, off=VALUE, imm=7), call_map(UPDATE, 0), insn(0x79, 0, 6), insn(0x95),
    ]
)  # fmt: skip
"""What a lookup's pointer shows after an update of its key; the map's descriptor is to be filled in."""


@pytest.mark.parametrize(("kind", "flags", "shown"), [(*kind, 0 if kind[0] in (1, 9) else 7) for kind in KINDS])
def test_an_older_pointer_does_not_see_an_update_that_gives_another_element(
    kernel: Kernel, kind: int, flags: int, shown: int
) -> None:
    fd = kernel.map_create(kind, 4, 8, 64, flags)
    kernel.map_update_elem(fd, bytes(4), value(kind, 0))
    prog = kernel.prog_load(RAW_TP, OLD_VALUE.replace(insn(0x18, 1, 1), insn(0x18, 1, 1, imm=fd)))
    seen = kernel.prog_test_run(prog, ctx_in=bytes(8))
    now = kernel.map_lookup_elem(fd, bytes(4))[:8]
    kernel.close(prog)
    kernel.close(fd)

    assert (seen, now) == (shown, struct.pack("<Q", 7))


RUNQLAT = Path(__file__).resolve().parents[1] / "fastrtp" / "programs" / "runqlat.bpf.o"


def test_programs_that_hold_nothing_update_in_place(kernel: Kernel) -> None:
    with kernel.load(RUNQLAT) as obj:
        verified = obj.programs["on_wakeup"].prog.verified
        called = zip(verified.insns, verified.aux, strict=True)
        calls = [aux for insn, aux in called if (insn.code, insn.imm) == (0x85, UPDATE_ELEM)]
        target = map_call("map_update_elem", obj.maps["enqueued"].map, value_held=False)

        assert calls
        assert not any(aux.value_held for aux in calls)
        assert target is not None
        assert target.extra[-1] == f"i64 {IN_PLACE}"
