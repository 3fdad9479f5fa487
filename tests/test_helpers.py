"""Helper bodies, called by address as programs call them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

from fastrtp.helpers.table import HELPERS
from fastrtp.native.memory import Memory

I64 = 1 << 63


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory(2)
    yield memory
    memory.close()


def put(memory: Memory, data: bytes) -> int:
    """Address of a copy of `data` in the arena."""
    address = memory.arena.alloc(len(data))
    memory.arena.view(address, len(data))[:] = list(data)
    return address


def snprintf(memory: Memory, form: bytes, *args: int, room: int = 64) -> tuple[int, bytes]:
    out = memory.arena.alloc(max(room, 1))
    data = put(memory, struct.pack(f"<{len(args)}Q", *(arg & (2 * I64 - 1) for arg in args)) or bytes(8))
    result = memory.lib.bpf_snprintf(out, room, put(memory, form + b"\0"), data, 8 * len(args), memory.env_of(0))
    return result, memory.arena.view(out, max(room, 1)).tobytes().split(b"\0")[0]


def test_every_helper_has_a_body_or_is_never_called(memory: Memory) -> None:
    callable_here = {row.name for row in HELPERS.values() if row.proto and not row.never}
    bodies = {name.removeprefix("bpf_") for name in memory.lib.parameters}

    assert callable_here - bodies == set()
    assert {row.name for row in HELPERS.values() if row.never} & bodies == set()


@pytest.mark.parametrize(
    ("form", "args", "text"),
    [
        (b"plain %% text", (), b"plain % text"),
        (b"%d %i", (-5, 7), b"-5 7"),
        (b"%d", (0xFFFFFFFF,), b"-1"),
        (b"%u %ld %lld %lu", (0xFFFFFFFF, -1, -2, 2**64 - 1), b"4294967295 -1 -2 18446744073709551615"),
        (b"%x %X %lx", (0xDEAD, 0xBEEF, 2**63), b"dead BEEF 8000000000000000"),
        (b"[%5d] [%-5d] [%05d] [%+d] [% d]", (42, 42, -42, 42, 42), b"[   42] [42   ] [-0042] [+42] [ 42]"),
        (b"%c%c%c", (72, 105, 33), b"Hi!"),
        (b"%p", (0x0706050403020100,), b"000000009a932462"),  # a test vector of SipHash-2-4: 93f5f5799a932462
        (b"%p %20pK.", (0, -14), b"0000000000000000     fffffffffffffff2."),
        (b"%px", (2**64 - 1,), b"ffffffffffffffff"),
        (b"%d", (-(2**31),), b"-2147483648"),
        (b"%ld", (-(2**63),), b"-9223372036854775808"),
    ],
)
def test_formats_print_as_the_kernel_prints(memory: Memory, form: bytes, args: tuple[int, ...], text: bytes) -> None:
    assert snprintf(memory, form, *args) == (len(text) + 1, text)


@pytest.mark.parametrize("form", [b"%", b"%q", b"%n", b"%f", b"%hd", b"%\x80", b"%pi5", b"%pQ", b"\x01"])
def test_unknown_formats_are_invalid(memory: Memory, form: bytes) -> None:
    assert snprintf(memory, form, 1)[0] == -errno.EINVAL


def test_more_conversions_than_arguments_are_invalid(memory: Memory) -> None:
    assert snprintf(memory, b"%d %d", 1)[0] == -errno.EINVAL


def test_strings_and_addresses_are_read_from_memory(memory: Memory) -> None:
    name = put(memory, b"fastrtp\0")
    address = put(memory, bytes([10, 0, 0, 255, *range(12)]))

    assert snprintf(memory, b"<%s> <%10s> <%-9s>", name, name, name)[1] == b"<fastrtp> <   fastrtp> <fastrtp  >"
    assert snprintf(memory, b"%pks|%pI4|%pi4", name, address, address)[1] == b"fastrtp|10.0.0.255|010.000.000.255"
    assert snprintf(memory, b"%pI6", address)[1] == b"0a00:00ff:0001:0203:0405:0607:0809:0a0b"


def test_unreadable_strings_are_empty(memory: Memory) -> None:
    assert snprintf(memory, b"<%s>", 0x10)[1] == b"<>"


def test_a_short_buffer_cuts_and_tells_the_whole_length(memory: Memory) -> None:
    assert snprintf(memory, b"%d", 123456, room=4) == (7, b"123")
    assert snprintf(memory, b"%d", 123456, room=0)[0] == 7


def test_printk_arrives_with_time_cpu_and_pid(memory: Memory) -> None:
    memory.set_clock(virtual=True)
    memory.env["time"][1] = 777
    form = put(memory, b"n=%d\n\0")

    written = memory.lib.bpf_trace_printk(form, 6, 5, 0, 0, memory.env_of(1))

    assert written == 4
    assert memory.trace_pipe() == [(777, 1, 0, b"n=5\n")]
    assert memory.trace_pipe() == []


def test_printk_without_a_nul_in_the_given_size_is_invalid(memory: Memory) -> None:
    form = put(memory, b"n=%d\n\0")

    assert memory.lib.bpf_trace_printk(form, 3, 5, 0, 0, memory.env_of(0)) == -errno.EINVAL


def test_a_full_printk_ring_counts_what_it_loses(memory: Memory) -> None:
    form = put(memory, b"%s\0")
    text = put(memory, b"x" * 400 + b"\0")
    for _ in range(3000):
        memory.lib.bpf_trace_printk(form, 3, text, 0, 0, memory.env_of(0))

    kept = len(memory.trace_pipe())
    assert kept > 1000
    assert memory.printk_lost == 3000 - kept


@pytest.mark.parametrize(
    ("text", "base", "used", "value"),
    [
        (b"123abc", 0, 3, 123),
        (b"  -42", 10, 5, -42),
        (b"0x1fZ", 0, 4, 0x1F),
        (b"0x1f", 16, 4, 0x1F),
        (b"077", 0, 3, 0o77),
        (b"ff", 16, 2, 255),
        (b"0x", 0, 1, 0),
        (b"-9223372036854775808", 10, 20, -(2**63)),
        (b"9223372036854775807", 10, 19, 2**63 - 1),
    ],
)
def test_strtol_reads_numbers(memory: Memory, text: bytes, base: int, used: int, value: int) -> None:
    out = memory.arena.alloc(8)

    assert memory.lib.bpf_strtol(put(memory, text), len(text), base, out, memory.env_of(0)) == used
    assert struct.unpack("<q", memory.arena.view(out, 8).tobytes()) == (value,)


@pytest.mark.parametrize(
    ("helper", "text", "flags", "error"),
    [
        ("bpf_strtol", b"9223372036854775808", 10, errno.ERANGE),
        ("bpf_strtol", b"-9223372036854775809", 10, errno.ERANGE),
        ("bpf_strtoul", b"18446744073709551616", 10, errno.ERANGE),
        ("bpf_strtoul", b"-1", 10, errno.EINVAL),
        ("bpf_strtoul", b"x", 10, errno.EINVAL),
        ("bpf_strtoul", b"", 10, errno.EINVAL),
        ("bpf_strtoul", b"-", 10, errno.EINVAL),
        ("bpf_strtoul", b"7", 7, errno.EINVAL),
        ("bpf_strtoul", b"7", 1 << 40, errno.EINVAL),
    ],
)
def test_strtol_refuses_what_is_no_number(memory: Memory, helper: str, text: bytes, flags: int, error: int) -> None:
    out = memory.arena.alloc(8)

    assert getattr(memory.lib, helper)(put(memory, text or b" "), len(text), flags, out, memory.env_of(0)) == -error


@pytest.mark.parametrize(
    ("a", "b", "size", "sign"), [(b"abc", b"abd", 3, -1), (b"abc", b"abd", 2, 0), (b"b", b"a", 1, 1), (b"a\0x", b"a\0y", 3, 0)]
)
def test_strncmp_compares_up_to_the_nul(memory: Memory, a: bytes, b: bytes, size: int, sign: int) -> None:
    result = memory.lib.bpf_strncmp(put(memory, a), size, put(memory, b), memory.env_of(0))

    assert (result > 0) - (result < 0) == sign


KERNEL_HALF = -(1 << 47)


@pytest.mark.parametrize(
    ("helper", "source", "error"),
    [
        ("bpf_probe_read_kernel", 0, errno.ERANGE),
        ("bpf_probe_read_kernel", 0x400000, errno.ERANGE),
        ("bpf_probe_read_kernel", 1 << 60, errno.ERANGE),
        ("bpf_probe_read_kernel", -8, errno.EFAULT),
        ("bpf_probe_read_kernel", KERNEL_HALF, errno.EFAULT),
        ("bpf_probe_read", 0, errno.EFAULT),
        ("bpf_probe_read", -4096, errno.EFAULT),
        ("bpf_probe_read_user", 0, errno.EFAULT),
        ("bpf_probe_read_user", 0x400000, errno.EFAULT),
    ],
)
def test_reads_of_what_is_not_there_fail_and_zero(memory: Memory, helper: str, source: int, error: int) -> None:
    target = put(memory, b"\xff" * 16)

    assert getattr(memory.lib, helper)(target, 16, source, memory.env_of(0)) == -error
    assert memory.arena.view(target, 16).tobytes() == bytes(16)
    assert memory.env["faulted"][0] == 1


@pytest.mark.parametrize("back", [1, 7, 8, 15])
def test_a_read_that_leaves_the_arena_faults(memory: Memory, back: int) -> None:
    target = put(memory, b"\xff" * 16)
    source = memory.arena.base + memory.arena.size - back

    assert memory.lib.bpf_probe_read_kernel(target, 16, source, memory.env_of(0)) == -errno.ERANGE


def test_reads_inside_the_arena_copy(memory: Memory) -> None:
    target, source = memory.arena.alloc(8), put(memory, b"12345678")

    assert memory.lib.bpf_probe_read_kernel(target, 8, source, memory.env_of(0)) == 0
    assert memory.arena.view(target, 8).tobytes() == b"12345678"


def test_strings_are_cut_with_a_nul(memory: Memory) -> None:
    target, source = memory.arena.alloc(16), put(memory, b"hello\0rest")
    read = memory.lib.bpf_probe_read_kernel_str

    assert read(target, 16, source, memory.env_of(0)) == 6
    assert read(target, 3, source, memory.env_of(0)) == 3
    assert memory.arena.view(target, 3).tobytes() == b"he\0"
    assert read(target, 3, 5, memory.env_of(0)) == -errno.ERANGE


def test_random_numbers_repeat_with_a_new_machine(memory: Memory) -> None:
    other = Memory(2)
    first = [memory.lib.bpf_get_prandom_u32(memory.env_of(0)) for _ in range(5)]

    assert first == [other.lib.bpf_get_prandom_u32(other.env_of(0)) for _ in range(5)]
    assert len(set(first)) == 5
    assert all(0 <= number < 2**32 for number in first)
    other.close()


def test_clocks_are_the_events_or_the_hosts(memory: Memory) -> None:
    env = memory.env_of(0)
    before = memory.lib.bpf_ktime_get_ns(env)

    assert memory.lib.bpf_ktime_get_ns(env) >= before > 0
    memory.set_clock(virtual=True)
    memory.env["time"][0] = 5_000_000_000
    assert memory.lib.bpf_ktime_get_ns(env) == memory.lib.bpf_ktime_get_boot_ns(env) == 5_000_000_000
    assert memory.lib.bpf_jiffies64(env) == 1250 + (2**32 - 75_000)
