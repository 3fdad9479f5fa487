"""Stacks: the map of stacks, the helpers that take one, and the stacks that a recording has for its events."""

# ruff: noqa: E501 - a case is a row of a table

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ring_pages import common, event, format_text, page

import fastrtp as rtp
from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.record import Recording
from fastrtp.record.trace_dat_sections import FormatText
from fastrtp.record.trace_dat_writer import TraceContent, write_v7
from fastrtp.uapi import BPF_F_USER_STACK, BpfMapType

RAW_TRACEPOINT = 17
STACK_TRACE, ARRAY = BpfMapType.BPF_MAP_TYPE_STACK_TRACE, BpfMapType.BPF_MAP_TYPE_ARRAY
FAST_CMP, REUSE = 1 << 9, 1 << 10
ARGS = "unsigned long args[6];offset:16;size:48;signed:0"
FORMATS = {
    10: FormatText("raw_syscalls", format_text("sys_enter", 10, "long id;offset:8;size:8;signed:1", ARGS)),
    11: FormatText(
        "ftrace", format_text("kernel_stack", 11, "int size;offset:8;size:4;signed:1", "unsigned long caller[8];offset:16;size:64;signed:0")
    ),
    12: FormatText(
        "ftrace",
        format_text("user_stack", 12, "unsigned int tgid;offset:8;size:4;signed:0", "unsigned long caller[8];offset:16;size:64;signed:0"),
    ),
}  # fmt: skip
STACKID = "r1 = *(u64 *)(r10 -8)\nr2 = map[fd:{map}]\nr3 = {flags}\ncall bpf_get_stackid\n"
SAVE = """
    r6 = r0
    *(u32 *)(r10 -16) = 0
    r1 = map[fd:{out}]
    r2 = r10
    r2 += -16
    call bpf_map_lookup_elem
    if r0 == 0 goto none
    r2 = *(u64 *)(r0 +0)
    if r2 > 7 goto none
    r1 = r2
    r1 += 1
    *(u64 *)(r0 +0) = r1
    r2 <<= 3
    r0 += r2
    *(u64 *)(r0 +8) = r6
none:
    r0 = 0
    exit
"""


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def sys_enter(pid: int, number: int) -> bytes:
    return common(10, pid) + struct.pack("<q6Q", number, *range(6))


def kernel_stack(pid: int, *ips: int) -> bytes:
    return common(11, pid) + struct.pack(f"<iI{len(ips)}Q", len(ips), 0, *ips)


def user_stack(pid: int, *ips: int) -> bytes:
    return common(12, pid) + struct.pack("<II8Q", pid, 0, *ips, *[0] * (8 - len(ips)))


def recorded(tmp_path: Path, *cpus: list[bytes]) -> Recording:
    """A recording with these events on its CPUs, two ns apart."""
    pages = [
        b"".join(
            page(1000 + number + 2 * at, b"".join(event(2, record) for record in records[at : at + 20]))
            for at in range(0, len(records), 20)
        )
        for number, records in enumerate(cpus)
    ]
    path = tmp_path / "t.dat"
    path.write_bytes(write_v7(TraceContent(formats=FORMATS, buffers={"": pages})))
    return Recording.open(path)


def attach(kernel: rtp.Kernel, body: str) -> int:
    code = encode(assemble("*(u64 *)(r10 -8) = r1\n" + body))
    prog = kernel.prog_load(RAW_TRACEPOINT, code, license="GPL", log_level=1)
    kernel.raw_tracepoint_open("sys_enter", prog)
    return prog


def results(kernel: rtp.Kernel, out: int) -> list[int]:
    """What programs saved, oldest first, as signed numbers."""
    count, *values = struct.unpack("<9q", kernel.map_lookup_elem(out, bytes(4)))
    return values[:count]


def made(kernel: rtp.Kernel, depth: int = 4, entries: int = 16) -> tuple[int, int]:
    return kernel.map_create(STACK_TRACE, 4, 8 * depth, entries), kernel.map_create(ARRAY, 4, 72, 1)


def stack(kernel: rtp.Kernel, held: int, ident: int) -> list[int]:
    value = kernel.map_lookup_elem(held, struct.pack("<I", ident))
    return list(struct.unpack(f"<{len(value) // 8}Q", value))


def jhash2(ips: list[int]) -> int:
    """include/linux/jhash.h, word by word."""
    words = list(struct.unpack(f"<{2 * len(ips)}I", struct.pack(f"<{len(ips)}Q", *ips)))
    u32 = 0xFFFFFFFF
    rol = lambda word, shift: (word << shift | word >> (32 - shift)) & u32  # noqa: E731
    a = b = c = (0xDEADBEEF + (len(words) << 2)) & u32
    while len(words) > 3:
        a, b, c = (a + words[0]) & u32, (b + words[1]) & u32, (c + words[2]) & u32
        for shift in (4, 6, 8, 16, 19, 4):
            a = (a - c) & u32 ^ rol(c, shift)
            c = (c + b) & u32
            a, b, c = b, c, a
        del words[:3]
    if words:
        words += [0] * (3 - len(words))
        a, b, c = (a + words[0]) & u32, (b + words[1]) & u32, (c + words[2]) & u32
        for shift in (14, 11, 25, 16, 4, 14, 24):
            c = ((c ^ b) - rol(b, shift)) & u32
            a, b, c = b, c, a
        c = b
    return c


def test_recorded_kernel_stacks_become_ids(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """Equal stacks have one id, jhash2 of the addresses; an event without a stack of its own gets -EFAULT."""
    ips = [0xFFFFFFFF81000000 + n for n in range(6)]
    records = [
        sys_enter(5, 1), kernel_stack(5, *ips[:3]), sys_enter(5, 2), kernel_stack(5, *ips), sys_enter(5, 3),
        sys_enter(5, 4), kernel_stack(5, *ips[:3]), sys_enter(5, 5), kernel_stack(6, *ips),
    ]  # fmt: skip
    held, out = made(kernel)
    attach(kernel, (STACKID + SAVE).format(map=held, flags=0, out=out))
    report = kernel.replay(recorded(tmp_path, records))

    first, second = jhash2(ips[:3]) & 15, jhash2(ips[:4]) & 15
    assert report.fired == 5
    assert results(kernel, out) == [first, second, -errno.EFAULT, first, -errno.EFAULT]
    assert stack(kernel, held, first) == [*ips[:3], 0]
    assert stack(kernel, held, second) == ips[:4]
    assert kernel.memory.env["kernel_stack"].tolist() == [0, 0]


def test_user_stacks_and_cpus(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """A stack belongs to the event before it on its CPU; a user stack ends at its first 0; two can follow one event."""
    one = [sys_enter(5, 1), kernel_stack(5, 1, 2), user_stack(5, 10, 20, 30)]
    two = [sys_enter(6, 1), user_stack(6, 40)]
    held, out = made(kernel)
    attach(kernel, (STACKID + SAVE).format(map=held, flags=BPF_F_USER_STACK, out=out))
    kernel.replay(recorded(tmp_path, one, two))

    assert [stack(kernel, held, ident) for ident in results(kernel, out)] == [[10, 20, 30, 0], [40, 0, 0, 0]]


@pytest.mark.parametrize(("flags", "expected"), [
    (2, [3]), (3, -errno.EFAULT), (8, -errno.EFAULT), (0x1000, -errno.EINVAL), (1 << 11, -errno.EINVAL), (FAST_CMP | 1, [2, 3]),
])  # fmt: skip
def test_stackid_flags(kernel: rtp.Kernel, tmp_path: Path, flags: int, expected: list[int] | int) -> None:
    """Frames to skip, and flags that there are not."""
    held, out = made(kernel)
    attach(kernel, (STACKID + SAVE).format(map=held, flags=flags, out=out))
    kernel.replay(recorded(tmp_path, [sys_enter(5, 1), kernel_stack(5, 1, 2, 3)]))

    (found,) = results(kernel, out)
    assert (found if isinstance(expected, int) else [ip for ip in stack(kernel, held, found) if ip]) == expected


@pytest.mark.parametrize(("flags", "second", "left"), [(0, -errno.EEXIST, 1), (REUSE, 0, 2), (FAST_CMP, -errno.EEXIST, 1)])
def test_two_stacks_in_one_bucket(kernel: rtp.Kernel, tmp_path: Path, flags: int, second: int, left: int) -> None:
    """The first one stays, unless the program asks for the opposite. With one element there is none for an exchange."""
    records = [sys_enter(5, 1), kernel_stack(5, 1), sys_enter(5, 2), kernel_stack(5, 2)]
    for entries, expected in ((1, -errno.ENOMEM if flags == REUSE else second), (2, None)):
        held, out = made(kernel, entries=entries)
        prog = attach(kernel, (STACKID + SAVE).format(map=held, flags=flags, out=out))
        kernel.replay(recorded(tmp_path, records))
        if expected is not None:
            assert results(kernel, out) == [0, expected]
            assert stack(kernel, held, 0)[0] == (1 if second or flags == REUSE else left)
        kernel.close(prog)


def test_system_calls(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """Lookup, next key, delete, and a deleted stack's element is used again."""
    held, out = made(kernel, entries=1)
    attach(kernel, (STACKID + SAVE).format(map=held, flags=0, out=out))
    recording = recorded(tmp_path, [sys_enter(5, 1), kernel_stack(5, 7, 8)])
    for _ in range(3):
        kernel.replay(recording)
        assert kernel.map_get_next_key(held, None) == bytes(4)
        assert stack(kernel, held, 0) == [7, 8, 0, 0]
        kernel.map_delete_elem(held, bytes(4))
        with pytest.raises(BpfError) as caught:
            kernel.map_lookup_elem(held, bytes(4))
        assert caught.value.errno == errno.ENOENT

    assert results(kernel, out) == [0, 0, 0]


GET_STACK = """
    r1 = *(u64 *)(r10 -8)
    *(u32 *)(r10 -16) = 0
    r1 = map[fd:{out}]
    r2 = r10
    r2 += -16
    call bpf_map_lookup_elem
    if r0 == 0 goto none
    r7 = r0
    r1 = *(u64 *)(r10 -8)
    r2 = r7
    r2 += 8
    r3 = {size}
    r4 = {flags}
    call bpf_get_stack
    *(u64 *)(r7 +0) = r0
none:
    r0 = 0
    exit
"""


@pytest.mark.parametrize(("size", "flags", "expected"), [
    (32, 0, [24, 1, 2, 3, 0]), (16, 0, [16, 1, 2]), (32, 1, [16, 2, 3, 0, 0]), (16, 1, [16, 2, 3]), (32, 3, [0, 0, 0, 0, 0]),
    (32, 4, [-errno.EFAULT, 0, 0, 0, 0]), (12, 0, [-errno.EINVAL, 0]), (32, 1 << 9, [-errno.EINVAL, 0, 0, 0, 0]),
    (32, BPF_F_USER_STACK, [-errno.EFAULT, 0, 0, 0, 0]), (32, BPF_F_USER_STACK | 1 << 11, [-errno.EINVAL, 0, 0, 0, 0]), (0, 0, [0]),
])  # fmt: skip
def test_get_stack(kernel: rtp.Kernel, tmp_path: Path, size: int, flags: int, expected: list[int]) -> None:
    """Bytes written, the rest zeroed: from a buffer that was full of ones."""
    out = kernel.map_create(ARRAY, 4, 72, 1)
    kernel.map_update_elem(out, bytes(4), b"\xff" * 72)
    attach(kernel, GET_STACK.format(out=out, size=size, flags=flags))
    kernel.replay(recorded(tmp_path, [sys_enter(5, 1), kernel_stack(5, 1, 2, 3)]))
    value = kernel.map_lookup_elem(out, bytes(4))

    assert list(struct.unpack_from(f"<{len(expected)}q", value)) == expected
    assert value[8 + size :] == b"\xff" * (64 - size)


TASK_STACK = (
    """
    call bpf_get_current_task_btf
    r1 = r0
    r2 = r10
    r2 += -32
    r3 = 16
    r4 = {flags}
    call bpf_get_task_stack
"""
    + SAVE
)


def test_task_stack_of_the_current_task(kernel: rtp.Kernel, tmp_path: Path) -> None:
    out = kernel.map_create(ARRAY, 4, 72, 1)
    for flags in (0, BPF_F_USER_STACK):
        attach(kernel, TASK_STACK.format(out=out, flags=flags))
    kernel.replay(recorded(tmp_path, [sys_enter(5, 1), kernel_stack(5, 1, 2, 3), user_stack(5, 9)]))

    assert results(kernel, out) == [16, 8]


def test_without_a_recording_there_is_no_callchain(kernel: rtp.Kernel) -> None:
    """Live events have none: -EFAULT, and a zeroed buffer."""
    held, out = made(kernel)
    prog = attach(kernel, (STACKID + SAVE).format(map=held, flags=0, out=out))
    kernel.prog_test_run(prog, ctx_in=bytes(96))

    assert results(kernel, out) == [-errno.EFAULT]


def test_build_ids_are_refused_by_name(kernel: rtp.Kernel) -> None:
    with pytest.raises(BpfError, match="BPF_F_STACK_BUILD_ID is not implemented"):
        kernel.map_create(STACK_TRACE, 4, 64, 4, 1 << 5)


def test_stacks_in_columns(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """A saved recording has its stacks; arrays() of the map gives ids and stacks."""
    recorded(tmp_path, [sys_enter(5, 1), kernel_stack(5, 1, 2)]).save(tmp_path / "folder")
    held, out = made(kernel)
    attach(kernel, (STACKID + SAVE).format(map=held, flags=0, out=out))
    kernel.replay(tmp_path / "folder")
    (ident,) = results(kernel, out)
    contents = kernel.current.files.fget(held).private_data.map

    keys, values = contents.arrays()
    assert keys.view(np.uint32).ravel().tolist() == [ident]
    assert values.view(np.uint64).tolist() == [[1, 2, 0, 0]]
