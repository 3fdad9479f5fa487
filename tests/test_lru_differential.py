"""LRU maps keep the keys that Linux 6.18 keeps: the same calls to both, from system calls and from programs on every CPU.

A program takes {u64 operation, u64 key, u64 flags} as its context and looks up, updates or deletes that key; BPF_PROG_TEST_RUN
says on which CPU. What Linux kept in runs of before is a table here, for machines where bpf(2) is not to be had.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from host_object import bpf, usable

from fastrtp.errors import BpfError
from fastrtp.kernel import Kernel
from fastrtp.uapi import BPF_F_NO_COMMON_LRU, BpfCmd, BpfMapType

CPUS = 2
LRU_HASH, LRU_PERCPU_HASH = BpfMapType.BPF_MAP_TYPE_LRU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH
LOOKUP, DELETE, UPDATE = 1, 2, 3
RAW_TP = 17
RUN_ON_CPU = 1
SYS = -1
Step = tuple[int, int, int, int]
"""Operation, key, flags, and the CPU of the program that does it; SYS: a system call."""


def insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", op, dst | src << 4, off, imm)


def program(map_fd: int) -> bytes:
    """ctx: {operation, key, flags}; R0: 1 for a key that a lookup found, else what the helper gave."""
    call, exit_ = lambda number: insn(0x85, imm=number), insn(0x95)
    return b"".join(
        [
            insn(0xBF, 6, 1), insn(0x79, 7, 6, 0), insn(0x79, 8, 6, 8), insn(0x79, 9, 6, 16),
            insn(0x63, 10, 8, -4), insn(0x7B, 10, 8, -16), insn(0xBF, 2, 10), insn(0x07, 2, imm=-4),
            insn(0x18, 1, 1, imm=map_fd), insn(0),
            insn(0x15, 7, off=6, imm=LOOKUP), insn(0x15, 7, off=9, imm=DELETE),
            insn(0xBF, 3, 10), insn(0x07, 3, imm=-16), insn(0xBF, 4, 9), call(2), exit_,
            call(1), insn(0x15, 0, off=1), insn(0xB7, 0, imm=1), exit_,
            call(3), exit_,
        ]
    )  # fmt: skip


class Host:
    """A map of the running kernel, and a program on it."""

    def __init__(self, kind: int, entries: int, flags: int) -> None:
        self.value = bytes(8 * (CPUS if kind == LRU_PERCPU_HASH else 1))
        fields = {"map_type": kind, "key_size": 4, "value_size": 8, "max_entries": entries, "map_flags": flags}
        self.map = bpf(BpfCmd.BPF_MAP_CREATE, **fields)
        code = program(self.map)
        self.prog = bpf(
            BpfCmd.BPF_PROG_LOAD, prog_type=RAW_TP, insns=code, insn_cnt=len(code) // 8, license=b"GPL\0"
        )  # fmt: skip
        assert min(self.map, self.prog) >= 0

    def step(self, operation: int, key: int, flags: int, cpu: int) -> int:
        if cpu != SYS:
            attr = (ctypes.c_char * 128)()
            ctx = ctypes.create_string_buffer(struct.pack("<3Q", operation, key, flags), 24)
            struct.pack_into(
                "<IIIIQQIIIIQQII", attr, 0, self.prog, 0, 0, 0, 0, 0, 0, 0, 24, 0, ctypes.addressof(ctx), 0, RUN_ON_CPU, cpu
            )
            assert ctypes.CDLL(None, use_errno=True).syscall(321, int(BpfCmd.BPF_PROG_TEST_RUN), attr, 80) == 0
            return int(struct.unpack_from("<i", attr, 4)[0])
        raw = struct.pack("<I", key)
        if operation == UPDATE:
            return bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=self.map, key=raw, value=self.value, flags=flags)
        if operation == DELETE:
            return bpf(BpfCmd.BPF_MAP_DELETE_ELEM, map_fd=self.map, key=raw)
        out = ctypes.create_string_buffer(len(self.value))
        return bpf(BpfCmd.BPF_MAP_LOOKUP_ELEM, map_fd=self.map, key=raw, value=out)

    def keys(self) -> set[int]:
        found: set[int] = set()
        key, following = ctypes.create_string_buffer(4), ctypes.create_string_buffer(4)
        while bpf(BpfCmd.BPF_MAP_GET_NEXT_KEY, map_fd=self.map, key=key if found else 0, next_key=following) == 0:
            key.raw = following.raw
            found.add(struct.unpack("<I", key.raw)[0])
        return found

    def close(self) -> None:
        os.close(self.map)
        os.close(self.prog)


def keys_of(kernel: Kernel, fd: int) -> set[int]:
    found: set[int] = set()
    key: bytes | None = None
    with contextlib.suppress(BpfError):
        while True:
            key = kernel.map_get_next_key(fd, key)
            found.add(struct.unpack("<I", key)[0])
    return found


class Ours:
    """The same in a Kernel."""

    def __init__(self, kernel: Kernel, kind: int, entries: int, flags: int) -> None:
        self.kernel = kernel
        self.value = bytes(8 * (CPUS if kind == LRU_PERCPU_HASH else 1))
        self.map = kernel.map_create(kind, 4, 8, entries, flags)
        self.prog = kernel.prog_load(RAW_TP, program(self.map))

    def step(self, operation: int, key: int, flags: int, cpu: int) -> int:
        raw = struct.pack("<I", key)
        if cpu != SYS:
            ctx = struct.pack("<3Q", operation, key, flags)
            return ctypes.c_int(self.kernel.prog_test_run(self.prog, ctx_in=ctx, flags=RUN_ON_CPU, cpu=cpu)).value
        with contextlib.suppress(BpfError) as _:
            if operation == UPDATE:
                self.kernel.map_update_elem(self.map, raw, self.value, flags)
            elif operation == DELETE:
                self.kernel.map_delete_elem(self.map, raw)
            else:
                self.kernel.map_lookup_elem(self.map, raw)
            return 0
        return -1

    def keys(self) -> set[int]:
        return keys_of(self.kernel, self.map)

    def close(self) -> None:
        self.kernel.close(self.map)
        self.kernel.close(self.prog)


def workload(seed: int) -> tuple[int, int, int, list[Step]]:
    """(map type, max_entries, flags, steps): what a seed stands for. Only arithmetic that no version of Python changes."""
    rng = random.Random(seed)
    draw = lambda *choices: choices[int(rng.random() * len(choices))]  # noqa: E731
    kind, flags = draw(LRU_HASH, LRU_HASH, LRU_PERCPU_HASH), draw(0, 0, BPF_F_NO_COMMON_LRU)
    entries = draw(1, 2, 3, 4, 16, 17, 100, 513, 1000)
    space = draw(entries // 2 + 1, entries + 1, 2 * entries, 10 * entries)
    callers = draw([SYS], [0], [SYS, 0], [0, 1], [0, 0, 0, 0, 1])
    steps: list[Step] = []
    for number in range(int(rng.random() * (3 * entries + 60))):
        operation = draw(UPDATE, UPDATE, UPDATE, UPDATE, LOOKUP, LOOKUP, DELETE)
        key = int(rng.random() * space) if rng.random() < 0.7 else number
        steps.append((operation, key, draw(0, 0, 0, 0, 1, 2) if operation == UPDATE else 0, draw(*callers)))
    return kind, entries, flags, steps


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(cpus=CPUS) as kernel:
        yield kernel


@pytest.fixture
def on_one_cpu() -> Iterator[None]:
    if not usable() or os.cpu_count() != CPUS:
        pytest.skip(f"compared with Linux 6.18 on x86-64 with {CPUS} CPUs only")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    yield
    os.sched_setaffinity(0, before)


def both(kernel: Kernel, seed: int) -> tuple[Any, Any]:
    """(results, keys) of Linux and of ours."""
    kind, entries, flags, steps = workload(seed)
    found = []
    for side in (Host(kind, entries, flags), Ours(kernel, kind, entries, flags)):
        results = []
        for step in steps:
            got = side.step(*step)
            results.append(got if step[3] != SYS else min(got, 0) and -1)
        found.append((results, side.keys()))
        side.close()
    return found[0], found[1]


SEEDS = int(os.environ.get("FASTRTP_LRU_SEEDS", "40"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_the_same_calls_leave_the_same_keys(on_one_cpu: None, kernel: Kernel, seed: int) -> None:
    """Results of every call, and the keys at the end, of random work on maps of every kind."""
    expected, actual = both(kernel, seed)

    assert actual == expected


def digest(keys: set[int]) -> str:
    return hashlib.sha256(repr(sorted(keys)).encode()).hexdigest()[:12]


KEPT: dict[int, tuple[int, str]] = {
    0: (2, "7c131fd95efa"), 1: (47, "c4afdf409a8d"), 2: (1, "d0bca111f862"), 3: (2, "7c131fd95efa"),
    4: (4, "bd60a68cab4a"), 5: (509, "e45d5557fac5"), 6: (7, "6531e4bdd779"), 7: (11, "3c32e880451e"),
    8: (0, "4f53cda18c2b"), 9: (2, "066f6f58cad0"), 10: (13, "59660a5a727c"), 11: (601, "7bcce60920f7"),
    12: (10, "3906b21e059e"), 13: (41, "2c1e68e13e4a"), 14: (6, "d12e16ed002d"), 15: (4, "3fb8b85aa463"),
    16: (4, "40a807634872"), 17: (689, "4141bb631c47"), 18: (3, "c1e239c188f7"), 19: (7, "8c7cea7e2138"),
    20: (47, "a0efd8004d53"), 21: (5, "cb0b9321a4b5"), 22: (1, "46b1884167c4"), 23: (397, "11f563aa01d3"),
}  # fmt: skip
"""By seed: how many keys Linux 6.18 on 2 CPUs keeps, and their digest."""


@pytest.mark.parametrize("seed", KEPT)
def test_the_keys_that_linux_kept(kernel: Kernel, seed: int) -> None:
    kind, entries, flags, steps = workload(seed)
    side = Ours(kernel, kind, entries, flags)
    for step in steps:
        side.step(*step)
    keys = side.keys()
    side.close()

    assert (len(keys), digest(keys)) == KEPT[seed]


@pytest.mark.parametrize(
    ("entries", "inserted", "flags", "kept"),
    [(1000, 2000, 0, 952), (16, 17, 0, 13), (16, 16, 0, 16), (16, 17, BPF_F_NO_COMMON_LRU, 5), (1, 9, 0, 1), (3, 9, 0, 3)],
)
def test_what_linux_keeps_of_keys_put_in_one_after_the_other(
    kernel: Kernel, entries: int, inserted: int, flags: int, kept: int
) -> None:
    """By system calls on one CPU of two; it is always the last ones."""
    fd = kernel.map_create(LRU_HASH, 4, 8, entries, flags)
    for number in range(inserted):
        kernel.map_update_elem(fd, struct.pack("<I", number), bytes(8))
    keys = keys_of(kernel, fd)
    kernel.close(fd)

    assert keys == set(range(inserted - kept, inserted))


def test_lists_of_their_own_round_the_size_up(kernel: Kernel) -> None:
    """Every CPU has as many elements. Kernel: kernel/bpf/hashtab.c:htab_map_alloc"""
    fd = kernel.map_create(LRU_HASH, 4, 8, 17, BPF_F_NO_COMMON_LRU)
    entries = kernel.obj_get_info_by_fd(fd).max_entries
    kernel.close(fd)

    assert entries == 18


def test_unknown_flags_take_no_element(kernel: Kernel) -> None:
    fd = kernel.map_create(LRU_HASH, 4, 8, 2)
    with pytest.raises(BpfError) as caught:
        kernel.map_update_elem(fd, bytes(4), bytes(8), 8)
    kernel.close(fd)

    assert caught.value.errno == errno.EINVAL
