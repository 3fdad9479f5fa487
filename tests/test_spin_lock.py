"""bpf_spin_lock: verifier sections, the field in values, BPF_F_LOCK; programs run."""

# ruff: noqa: E501 - a case is a row of a table

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

import fastrtp as rtp
from fastrtp.btf import Btf, BtfWriter
from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import assemble, encode
from fastrtp.uapi import BPF_F_LOCK, BPF_F_RDONLY_PROG, BpfMapType, BpfProgType

ARRAY, HASH, LRU_HASH = BpfMapType.BPF_MAP_TYPE_ARRAY, BpfMapType.BPF_MAP_TYPE_HASH, BpfMapType.BPF_MAP_TYPE_LRU_HASH
TP_BTF = BpfProgType.BPF_PROG_TYPE_TRACING
RAW_TP = BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT
VALUE = """
    r6 = 0
    *(u32 *)(r10 -4) = r6
    r1 = map[fd:{map}]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto out
    r6 = r0
"""
SECOND = VALUE.replace("r6 = 0\n", "").replace("= r6\n", "= 0\n", 1).replace("r6 = r0", "r7 = r0")
LOCK = "r1 = r6\nr1 += 8\ncall bpf_spin_lock\n"
UNLOCK = "r1 = r6\nr1 += 8\ncall bpf_spin_unlock\n"
END = "out:\nr0 = 0\nexit\n"


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def make_map(kernel: rtp.Kernel, map_type: int = ARRAY, locks: int = 1, flags: int = 0) -> int:
    w = BtfWriter()
    u32, u64 = w.add_int("u32", 4), w.add_int("u64", 8)
    lock = w.add_struct("bpf_spin_lock", 4, [("val", u32, 0)])
    members = [("count", u64, 0), *((f"l{n}", lock, 64 + 32 * n) for n in range(locks)), ("pad", u32, 64 + 32 * locks)]
    value = w.add_struct("value", 12 + 4 * locks, members)
    data = w.dump()
    assert Btf.parse(data).sizeof(value) == 12 + 4 * locks
    return kernel.map_create(
        map_type, 4, 12 + 4 * locks, 2, flags, name="locked",
        btf_fd=kernel.btf_load(data), btf_key_type_id=u32, btf_value_type_id=value,
    )  # fmt: skip


def load(kernel: rtp.Kernel, text: str, prog_type: int = TP_BTF) -> int:
    fields = (
        {"attach_btf_id": kernel.btf.find("btf_trace_sched_switch"), "expected_attach_type": 23} if prog_type == TP_BTF else {}
    )
    return kernel.prog_load(prog_type, encode(assemble(text)), license="GPL", log_level=1, **fields)


def message(kernel: rtp.Kernel, text: str, prog_type: int = TP_BTF) -> tuple[int, str]:
    with pytest.raises(VerifierError) as caught:
        load(kernel, text, prog_type)
    return caught.value.errno or 0, [line for line in caught.value.log.splitlines() if not line.startswith("processed")][-1]


REFUSED = {
    "two locks": (LOCK + SECOND + END, "function calls are not allowed while holding a lock"),
    "a lock twice": (LOCK + LOCK + UNLOCK + END, "function calls are not allowed while holding a lock"),
    "unlock without lock": (UNLOCK + END, "bpf_spin_unlock without taking a lock"),
    "exit while locked": (LOCK + END, "BPF_EXIT instruction in main prog cannot be used inside bpf_spin_lock-ed region"),
    "lock at another place": ("r1 = r6\nr1 += 12\ncall bpf_spin_lock\n" + UNLOCK + END, "off 12 doesn't point to 'struct bpf_spin_lock' that is at 8"),
    "call while locked": (LOCK + "call bpf_ktime_get_ns\n" + UNLOCK + END, "function calls are not allowed while holding a lock"),
    "load of the lock": ("r1 = *(u32 *)(r6 +8)\n" + END, "bpf_spin_lock cannot be accessed directly by load/store"),
    "store that overlaps": ("*(u64 *)(r6 +4) = 0\n" + END, "bpf_spin_lock cannot be accessed directly by load/store"),
    "a lock on the stack": ("*(u64 *)(r10 -16) = 0\nr1 = r10\nr1 += -16\ncall bpf_spin_lock\n" + END, "R1 type=fp expected=map_value, ptr_"),
    "another value's lock": (SECOND + LOCK + "r1 = r7\nr1 += 8\ncall bpf_spin_unlock\n" + END, "bpf_spin_unlock of different lock"),
    "a variable place": ("r7 = *(u64 *)(r6 +0)\nr7 &= 8\nr1 = r6\nr1 += r7\ncall bpf_spin_lock\n" + END, "R1 doesn't have constant offset. bpf_spin_lock has to be at the constant offset"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(kernel: rtp.Kernel, name: str) -> None:
    """Each rule of a section, in the kernel's words."""
    body, expected = REFUSED[name]

    number, said = message(kernel, VALUE.format(map=make_map(kernel, HASH)) + body.format(map=make_map(kernel, HASH)))

    assert said == expected
    assert number == (errno.EACCES if "directly" in expected or "type=" in expected else errno.EINVAL)


def test_raw_tracepoints_have_no_locks(kernel: rtp.Kernel) -> None:
    """is_tracing_prog_type: raw_tp is, tp_btf is not."""
    text = VALUE.format(map=make_map(kernel)) + LOCK + UNLOCK + END

    assert message(kernel, text, RAW_TP) == (errno.EINVAL, "tracing progs cannot use bpf_spin_lock yet")
    load(kernel, text)


def test_a_map_without_btf(kernel: rtp.Kernel) -> None:
    plain = kernel.map_create(HASH, 4, 16, 2, name="plain")

    assert message(kernel, VALUE.format(map=plain) + LOCK + END)[1] == "map 'plain' has to have BTF in order to use bpf_spin_lock"


def test_a_locked_count(kernel: rtp.Kernel) -> None:
    """A tp_btf program counts under the lock; BPF_F_LOCK reads and writes the rest and not the lock."""
    held = make_map(kernel, HASH)
    kernel.map_update_elem(held, bytes(4), struct.pack("<QII", 5, 0xFFFFFFFF, 7), BPF_F_LOCK)
    count = "r1 = *(u64 *)(r6 +0)\nr1 += 1\n*(u64 *)(r6 +0) = r1\n"
    prog = load(kernel, VALUE.format(map=held) + LOCK + count + UNLOCK + END)
    kernel.raw_tracepoint_open(None, prog)
    kernel.trace("sched_switch")(0, 0, 0, 0)

    assert kernel.map_lookup_elem(held, bytes(4), BPF_F_LOCK) == struct.pack("<QII", 6, 0, 7)


def test_updates_from_programs_keep_the_lock(kernel: rtp.Kernel) -> None:
    """The value that bpf_map_update_elem brings has no say in the lock."""
    held = make_map(kernel, HASH)
    text = """
        r1 = -1
        *(u64 *)(r10 -16) = r1
        *(u64 *)(r10 -24) = r1
        *(u32 *)(r10 -4) = 0
        r1 = map[fd:{map}]
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -24
        r4 = {flags}
        call bpf_map_update_elem
        r0 = 0
        exit
        """
    kernel.raw_tracepoint_open(None, load(kernel, text.format(map=held, flags=BPF_F_LOCK)))
    kernel.trace("sched_switch")(0, 0, 0, 0)

    assert kernel.map_lookup_elem(held, bytes(4)) == struct.pack("<QII", 2**64 - 1, 0, 0xFFFFFFFF)


def test_map_create(kernel: rtp.Kernel) -> None:
    """Where a lock may be, and what a map with one refuses."""
    refused = [(LRU_HASH, 1, 0, errno.EOPNOTSUPP), (ARRAY, 2, 0, errno.E2BIG), (ARRAY, 1, BPF_F_RDONLY_PROG, errno.EACCES)]
    for map_type, locks, flags, number in refused:
        with pytest.raises(BpfError) as caught:
            make_map(kernel, map_type, locks, flags)
        assert caught.value.errno == number
    plain = kernel.map_create(ARRAY, 4, 8, 1)
    with pytest.raises(BpfError) as caught:
        kernel.map_lookup_elem(plain, bytes(4), BPF_F_LOCK)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(BpfError) as caught:
        kernel.map_freeze(make_map(kernel))
    assert caught.value.errno == 524
