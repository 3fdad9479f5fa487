"""bpf_snprintf_btf: objects as text, digit for digit as the running kernel writes them.

Only structs and unions are asked about: Linux 6.18 itself does not survive being asked for a `const void`.
"""

from __future__ import annotations

import errno
import random
import re
import struct
from collections.abc import Iterator
from typing import Any

import host_object
import pytest

import fastrtp as rtp
from fastrtp.btf import Btf, BtfKind, host_btf
from fastrtp.isa import assemble, encode
from fastrtp.uapi import BpfCmd, BpfMapType

COMPACT, NONAME, PTR_RAW, ZERO = 1, 2, 4, 8
IN_SIZE, OUT_SIZE = 8192, 4096
TEXT = """
    r6 = *(u64 *)(r1 +0)
    r7 = *(u64 *)(r1 +8)
    r2 = map[fd:IN][0]+0
    r8 = *(u64 *)(r1 +16)
    r2 += 0
    *(u64 *)(r10 -16) = r2
    if r8 == 0 goto given
    *(u64 *)(r10 -16) = r8
    given:
    *(u32 *)(r10 -8) = r6
    *(u32 *)(r10 -4) = 0
    r1 = map[fd:OUT][0]+0
    r2 = ROOM
    r3 = r10
    r3 += -16
    r4 = 16
    r5 = r7
    call bpf_snprintf_btf
    exit"""


def program(fd_in: int, fd_out: int, room: int) -> bytes:
    return encode(assemble(TEXT.replace("fd:IN", f"fd:{fd_in}").replace("fd:OUT", f"fd:{fd_out}").replace("ROOM", str(room))))


class Ours:
    def __init__(self, kernel: rtp.Kernel) -> None:
        self.kernel = kernel
        self.maps = [kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, size, 1) for size in (IN_SIZE, OUT_SIZE)]

    def show(self, type_id: int, flags: int, data: bytes, room: int = OUT_SIZE, address: int = 0) -> tuple[int, bytes]:
        """(R0 as an int, what is in the buffer then)"""
        kernel, (fd_in, fd_out) = self.kernel, self.maps
        fd = kernel.prog_load(17, program(fd_in, fd_out, room), license="GPL")
        kernel.map_update_elem(fd_in, bytes(4), data.ljust(IN_SIZE, b"\0"))
        kernel.map_update_elem(fd_out, bytes(4), b"\xaa" * OUT_SIZE)
        result = kernel.prog_test_run(fd, ctx_in=struct.pack("<12Q", type_id, flags, address, *[0] * 9))
        kernel.close(fd)
        return result - (1 << 32) if result >> 31 else result, kernel.map_lookup_elem(fd_out, bytes(4))

    def text(self, name: str, flags: int, data: bytes) -> str:
        type_id = self.kernel.btf.find(name, BtfKind.STRUCT)
        assert type_id is not None
        length, out = self.show(type_id, flags, data)
        text = out.partition(b"\0")[0].decode()
        assert len(text) == length
        return text


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    with rtp.Kernel(cpus=1) as kernel:
        yield Ours(kernel)


def test_what_is_not_zero(ours: Ours) -> None:
    """Members with their types, indented; in one line; without names; zeros, too."""
    data = struct.pack("<2q", 5, 0)

    assert ours.text("timespec64", 0, data) == "(struct timespec64){\n .tv_sec = (time64_t)5,\n}\n"
    assert ours.text("timespec64", COMPACT, data) == "(struct timespec64){.tv_sec = (time64_t)5,}"
    assert ours.text("timespec64", COMPACT | NONAME, data) == "{5,}"
    assert ours.text("timespec64", COMPACT | ZERO, data) == "(struct timespec64){.tv_sec = (time64_t)5,.tv_nsec = (long int)0,}"
    assert ours.text("timespec64", 0, struct.pack("<2q", 0, -7)) == "(struct timespec64){\n .tv_nsec = (long int)-7,\n}\n"


def test_pointers(ours: Ours) -> None:
    text = ours.text("list_head", COMPACT | PTR_RAW, struct.pack("<2Q", 0, 0xFFFF888000001234))

    assert text == "(struct list_head){.prev = (struct list_head *)0xffff888000001234,}"


def test_a_small_buffer(ours: Ours) -> None:
    """What fits, and a NUL; the length is that of the whole."""
    type_id = ours.kernel.btf.find("timespec64", BtfKind.STRUCT)
    assert type_id is not None
    length, out = ours.show(type_id, COMPACT, struct.pack("<2q", 5, 0), room=8)

    assert length == len("(struct timespec64){.tv_sec = (time64_t)5,}")
    assert out[:9] == b"(struct\0\xaa"


@pytest.mark.parametrize(
    ("type_id", "flags", "error"),
    [(0, 0, errno.EINVAL), (1 << 31, 0, errno.ENOENT), (0x7FFFFFFF, 0, errno.ENOENT), (1, 16, errno.EINVAL)],
)
def test_errors(ours: Ours, type_id: int, flags: int, error: int) -> None:
    assert ours.show(type_id, flags, b"") == (-error, b"\xaa" * OUT_SIZE)


@pytest.mark.parametrize(("address", "error"), [(8, errno.ERANGE), (0xFFFFFFFFFFFFF000, errno.EFAULT)])
def test_an_object_that_is_not_there(ours: Ours, address: int, error: int) -> None:
    type_id = ours.kernel.btf.find("timespec64", BtfKind.STRUCT)
    assert type_id is not None

    assert ours.show(type_id, 0, b"", address=address) == (-error, b"\xaa" * OUT_SIZE)


STRUCTS = (
    "timespec64", "sched_entity", "vm_area_struct", "in6_addr", "sockaddr_in6", "perf_event_attr", "iovec", "mutex", "inode",
    "net_device", "sk_buff", "bpf_insn", "pt_regs", "siginfo", "upid", "timer_list", "hrtimer", "pid_namespace",
)  # fmt: skip


def contents() -> Iterator[bytes]:
    rng = random.Random(3)
    words = [bytes(8), bytes(8), bytes(8), b"a\0\0\0\0\0\0\0", b"abc\0\0\0\0\0", b"\1" * 8]
    yield bytes(IN_SIZE)
    yield rng.randbytes(IN_SIZE)
    yield b"".join(rng.choice(words) for _ in range(IN_SIZE // 8))


def linux_show(fds: list[int], prog: int, type_id: int, flags: int, data: bytes) -> tuple[int, bytes]:
    import ctypes

    out = ctypes.create_string_buffer(OUT_SIZE)
    for fd, value in ((fds[0], data), (fds[1], b"\xaa" * OUT_SIZE)):
        host_object.bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=bytes(4), value=value)
    result = host_object.test_run(prog, struct.pack("<12Q", type_id, flags, 0, *[0] * 9))
    host_object.bpf(BpfCmd.BPF_MAP_LOOKUP_ELEM, map_fd=fds[1], key=bytes(4), value=out)
    return result - (1 << 32) if result >> 31 else result, out.raw


def structs(btf: Btf) -> Iterator[Any]:
    for name in STRUCTS:
        found = btf.find(name, BtfKind.STRUCT)
        if found is not None:
            yield found


def test_the_same_as_the_running_kernel() -> None:
    """432 texts of nothing, of anything, and of a little; with every second set of flags hashed pointers, which are left out."""
    if not host_object.usable():
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    import os

    wrong = []
    fds = [
        host_object.bpf(BpfCmd.BPF_MAP_CREATE, map_type=2, key_size=4, value_size=size, max_entries=1)
        for size in (IN_SIZE, OUT_SIZE)
    ]
    code = program(*fds, OUT_SIZE)
    prog = host_object.bpf(BpfCmd.BPF_PROG_LOAD, prog_type=17, insns=code, insn_cnt=len(code) // 8, license=b"GPL\0")
    with rtp.Kernel(btf="host", cpus=1) as kernel:
        side = Ours(kernel)
        for type_id in structs(host_btf()):
            for data in contents():
                for flags in range(0, 16, 2):
                    mine, theirs = side.show(type_id, flags, data), linux_show(fds, prog, type_id, flags, data)
                    if not flags & PTR_RAW:
                        mine, theirs = ((length, re.sub(rb"0x[0-9a-f]{0,16}", b"0x?", text)) for length, text in (mine, theirs))
                    if mine != theirs:
                        wrong.append((host_btf().type(type_id).name, flags))
    for fd in (prog, *fds):
        os.close(fd)

    assert wrong == []
