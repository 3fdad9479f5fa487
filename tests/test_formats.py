"""bpf_snprintf and bpf_trace_printk say what Linux says: formats made at random, here and on the running kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import struct
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastrtp as rtp
from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.native.memory import Memory
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfCmd, BpfMapType, BpfProgType
from fastrtp.verifier.rules.format import format_is_valid
from tests import host_object

TEXTS, OUT, SIZE, ROOM = 128, 512, 2048, 1024
STRINGS = [b"", b"x", b"fastrtp", "µs".encode(), b"a" * 90]
ADDRESSES = [bytes([10, 0, 0, 255, *range(12)]), bytes(16), bytes(range(200, 216))]
VALUE = b"".join(text.ljust(96 if len(text) > 16 else 16, b"\0") for text in [*ADDRESSES, *STRINGS])
NUMBERS = [0, 1, 5, -1, 42, -42, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63), 0x123456789ABCDEF0]
ARRAY = int(BpfMapType.BPF_MAP_TYPE_ARRAY)


class Arg(NamedTuple):
    """A number, or (`text`) the offset of a string or of an address of the network among the texts."""

    number: int
    text: bool = False


def program(args: list[Arg], room: int, data: int, fmt: int) -> bytes:
    """Formats the arguments into the map value behind the texts; r0: what bpf_snprintf gave."""
    lines = [f"r1 = map[fd:{data}]", "*(u32 *)(r10 -4) = 0", "r2 = r10", "r2 += -4", "call bpf_map_lookup_elem"]
    lines += ["if r0 == 0 goto out", "r6 = r0"]
    for at, arg in enumerate(args):
        lines += ["r1 = r6", f"r1 += {TEXTS + arg.number}"] if arg.text else [f"r1 = {arg.number} ll"]
        lines.append(f"*(u64 *)(r6 +{8 * at}) = r1")
    lines += ["r1 = r6", f"r1 += {OUT}", f"r2 = {room}", f"r3 = map[fd:{fmt}][0]+0", "r4 = r6", f"r5 = {8 * len(args)}"]
    return encode(assemble("\n".join([*lines, "call bpf_snprintf", "out: exit"])))


class Here:
    """The calls that a case needs, of a Kernel."""

    def __init__(self, kernel: rtp.Kernel) -> None:
        self.kernel = kernel
        self.close = kernel.close

    def array(self, value: bytes, *, frozen: bool = False) -> int:
        fd = self.kernel.map_create(ARRAY, 4, len(value), 1, BPF_F_RDONLY_PROG if frozen else 0)
        self.kernel.map_update_elem(fd, bytes(4), value)
        if frozen:
            self.kernel.map_freeze(fd)
        return fd

    def load(self, code: bytes) -> int:
        try:
            return self.kernel.prog_load(int(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT), code)
        except BpfError as error:
            return -(error.errno or 0)

    def run(self, fd: int) -> int:
        return self.kernel.prog_test_run(fd, bytes(96))

    def value(self, fd: int) -> bytes:
        return self.kernel.map_lookup_elem(fd, bytes(4))


class Linux:
    """The same calls of the running kernel."""

    def __init__(self) -> None:
        self.close = os.close

    def array(self, value: bytes, *, frozen: bool = False) -> int:
        flags = BPF_F_RDONLY_PROG if frozen else 0
        fd = host_object.bpf(
            BpfCmd.BPF_MAP_CREATE, map_type=ARRAY, key_size=4, value_size=len(value), max_entries=1, map_flags=flags
        )
        assert fd >= 0
        assert host_object.bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=bytes(4), value=value) == 0
        if frozen:
            assert host_object.bpf(BpfCmd.BPF_MAP_FREEZE, map_fd=fd) == 0
        return fd

    def load(self, code: bytes) -> int:
        kind = int(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT)
        return host_object.bpf(BpfCmd.BPF_PROG_LOAD, prog_type=kind, insns=code, insn_cnt=len(code) // 8, license=b"GPL\0")

    def run(self, fd: int) -> int:
        return host_object.test_run(fd, bytes(96))

    def value(self, fd: int) -> bytes:
        out = ctypes.create_string_buffer(SIZE)
        assert host_object.bpf(BpfCmd.BPF_MAP_LOOKUP_ELEM, map_fd=fd, key=bytes(4), value=out) == 0
        return out.raw


def formatted(side: Here | Linux, fmt: bytes, args: list[Arg], room: int) -> tuple[int, int, bytes]:
    """(errno of the load, what bpf_snprintf gave, what it wrote)."""
    data, text = side.array(VALUE.rjust(len(VALUE) + TEXTS, b"\0").ljust(SIZE, b"\xee")), side.array(fmt + b"\0", frozen=True)
    prog = -1
    try:
        prog = side.load(program(args, room, data, text))
        return (-prog, 0, b"") if prog < 0 else (0, side.run(prog), side.value(data)[OUT:])
    finally:
        for fd in (data, text, prog):
            if fd >= 0:
                side.close(fd)


@pytest.fixture(scope="module")
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def linux() -> Linux:
    if not host_object.usable():
        pytest.skip("bpf(2) is not allowed here, or the kernel is not 6.18 on x86-64")
    return Linux()


def _offsets(texts: list[bytes], start: int) -> list[int]:
    at, out = start, []
    for text in texts:
        out.append(at)
        at += 96 if len(text) > 16 else 16
    return out


_IP = st.sampled_from([Arg(offset, text=True) for offset in _offsets(ADDRESSES, 0)])
_STRING = st.sampled_from([Arg(offset, text=True) for offset in _offsets(STRINGS, 16 * len(ADDRESSES))])
_NUMBER = st.sampled_from(NUMBERS).map(Arg)
_NO_ADDRESS = st.sampled_from([0, -1, -2, -4095]).map(Arg)
"""What %p and %pK show as it is: others are hashed, with a key that is random in Linux."""
_KINDS = [
    (["d", "i", "u", "x", "X", "ld", "lli", "lu", "llx", "lX", "c"], _NUMBER), (["s", "pks"], _STRING),
    (["pI4", "pi4", "pI6", "pi6"], _IP), (["px", "ps", "pS", "pB"], _NUMBER), (["p"], _NO_ADDRESS), (["pK"], st.just(Arg(0))),
]  # fmt: skip
_FLAGS = st.text("0+- ", max_size=3)
_WIDTH = st.sampled_from(["", "", "1", "5", "17", "40", "90", "600"])
_BEHIND = st.sampled_from([b"", b" ", b",", b"c", b"abc9", b"x z", "µ".encode(), "é".encode(), b"\xa0", b"%%", b"\x80", b"\xd7"])
_PLAIN = st.sampled_from([b"", b"took ", "µs é→".encode(), b"\n\t", b"%%", b"\xff", b"~"])
_ODD = st.sampled_from(
    [b"%", b"%q", b"%hd", b"%lld%", b"%#x", b"%.3s", b"%*d", b"\x7f", b"\x01", b"%\xc3", b"%pQ", b"%pI5", b"%p\xc3", b"%s\xc3"]
)


@st.composite
def _conversion(draw: st.DrawFn) -> tuple[bytes, Arg | None]:
    letters, args = draw(st.sampled_from(_KINDS))
    text = f"%{draw(_FLAGS)}{draw(_WIDTH)}{draw(st.sampled_from(letters))}".encode()
    return draw(_PLAIN) + text + draw(_BEHIND), draw(args)


_ODDITY = st.tuples(_ODD, st.just(Arg(0)))
_FORMATS = st.lists(st.one_of(_conversion(), _conversion(), _conversion(), _ODDITY), min_size=1, max_size=5)
_ROOMS = st.sampled_from([0, 1, 2, 7, 16, 33, 60, 128, ROOM])


_HASHED = re.compile(rb"%[0+\- ]*\d*p(?![xsSBIi]|ks|us)")


def _may_hash(parts: list[tuple[bytes, Arg | None]]) -> bool:
    """Whether %p or %pK may be given another argument than its own: a text that there is no room for stays in the buffer.

    Linux hashes what it then takes for an address, and nobody can say here what comes of it.
    """
    return any(_HASHED.search(text) for text, _ in parts[1:])


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=_FORMATS, room=_ROOMS, fewer=st.sampled_from([0, 0, 0, 0, 1]))
def test_a_format_says_here_what_it_says_on_linux(
    kernel: rtp.Kernel, linux: Linux, parts: list[tuple[bytes, Arg | None]], room: int, fewer: int
) -> None:
    assume(not _may_hash(parts))
    assume(not fewer or not any(arg is not None and arg.text for _, arg in parts))  # a number for which an address comes
    fmt = b"".join(text for text, _ in parts)
    args = [arg for _, arg in parts if arg is not None][fewer:]

    assert formatted(Here(kernel), fmt, args, room) == formatted(linux, fmt, args, room)


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory(2)
    yield memory
    memory.close()


def snprintf(memory: Memory, fmt: bytes, *args: int, room: int = 64) -> tuple[int, bytes]:
    """(what bpf_snprintf gave, the text) without a program."""
    at = memory.arena.alloc(4096)
    memory.arena.view(at, 4096)[:] = 0
    out, data, text = at, at + 1024, at + 2048
    packed = struct.pack(f"<{len(args)}Q", *(arg & (1 << 64) - 1 for arg in args))
    memory.arena.view(data, len(packed))[:] = list(packed)
    memory.arena.view(text, len(fmt) + 1)[:] = list(fmt + b"\0")
    result = memory.lib.bpf_snprintf(out, room, text, data, 8 * len(args), memory.env_of(0))
    return result, memory.arena.view(out, 1024).tobytes().split(b"\0")[0]


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fmt=st.one_of(
        st.binary(max_size=12), st.text("%%%ddspkuxKISB46l0+- 9\xa0c\xe9\n", max_size=12).map(lambda text: text.encode("latin-1"))
    )
)
def test_the_verifier_and_the_helper_read_a_format_alike(memory: Memory, fmt: bytes) -> None:
    fmt = fmt.replace(b"\0", b"")

    assert format_is_valid(fmt, 3) == (snprintf(memory, fmt, 0, 0, 0)[0] != -errno.EINVAL)


@pytest.mark.parametrize(
    ("fmt", "args", "text"),
    [
        ("took %d µs".encode(), (5,), "took 5 µs".encode()),
        (b"%pxabc9 %d", (1, 2), b"0000000000000001 2"),
        (b"%20px|%-20px|", (0xAB, 0xCD), b"                  ab|cd                  |"),
        (b"%8px", (0xAB,), b"      ab"),
        (b"%08px", (0xAB,), b"000000ab"),
        (b"%8ps|%-8ps|%08ps", (0xAB, 0xAB, 0xAB), b"    0xab|0xab    |    0xab"),
        (b"%8pB|", (0xAB,), b"0xab|"),
        (b"%20pI4|", (0,), b"0.0.0.0|"),
        (b"%pI6c", (0,), b"0000:0000:0000:0000:0000:0000:0000:0000"),
        (b"%pi4xyz.%d", (0, 7), b"000.000.000.000.7"),
    ],
)
def test_a_format_prints_as_linux_prints_it(memory: Memory, fmt: bytes, args: tuple[int, ...], text: bytes) -> None:
    assert snprintf(memory, fmt, *args) == (len(text) + 1, text)


@pytest.mark.parametrize("fmt", ["%sé".encode(), b"%sx", b"%pksx", b"%p\xc3", b"%\xc3", b"%d\x7f"])
def test_a_format_that_linux_refuses_is_refused_and_writes_nothing(memory: Memory, fmt: bytes) -> None:
    assert snprintf(memory, b"text " + fmt, 0) == (-errno.EINVAL, b"")


@pytest.mark.parametrize("fmt", [b"%sx", b"%p\xc3"])
def test_trace_printk_wants_the_same_behind_a_string(memory: Memory, fmt: bytes) -> None:
    at = memory.arena.alloc(16)
    memory.arena.view(at, len(fmt) + 1)[:] = list(fmt + b"\0")

    assert memory.lib.bpf_trace_printk(at, len(fmt) + 1, 0, 0, 0, memory.env_of(0)) == -errno.EINVAL
    assert memory.trace_pipe() == []


def test_arguments_take_512_bytes_at_most(memory: Memory) -> None:
    long = memory.arena.alloc(1024)
    memory.arena.view(long, 1024)[:] = [97] * 1023 + [0]

    assert snprintf(memory, b"%s", long, room=1024) == (512, b"a" * 511)
    assert snprintf(memory, b"%s%d", long, 1, room=1024) == (-errno.ENOSPC, b"")
