"""Dynptrs, run: what is read, written and sent."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

import pytest

import fastrtp as rtp
from fastrtp.isa import assemble, encode
from fastrtp.uapi import BpfMapType

RAW_TRACEPOINT = 17


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def run(kernel: rtp.Kernel, text: str) -> int:
    fd = kernel.prog_load(RAW_TRACEPOINT, encode(assemble(text)), license="GPL")
    result = kernel.prog_test_run(fd)
    kernel.close(fd)
    return result - (1 << 32) if result >> 31 else result


def test_a_record_of_a_size_known_at_run_time(kernel: rtp.Kernel) -> None:
    """Written by bpf_dynptr_write and through a slice, then submitted; a discarded one is skipped."""
    ring = kernel.map_create(BpfMapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    text = f"""
        call bpf_get_smp_processor_id
        r6 = r0
        r6 += 12
        r1 = map[fd:{ring}]
        r2 = r6
        r3 = 0
        r4 = r10
        r4 += -16
        call bpf_ringbuf_reserve_dynptr
        r1 = 0x1122334455667788 ll
        *(u64 *)(r10 -24) = r1
        r1 = r10
        r1 += -16
        r2 = 4
        r3 = r10
        r3 += -24
        r4 = 8
        r5 = 0
        call bpf_dynptr_write
        r7 = r0
        r1 = r10
        r1 += -16
        r2 = 0
        r3 = 4
        call bpf_dynptr_data
        if r0 == 0 goto out
        *(u32 *)(r0 +0) = 9
        out:
        r1 = r10
        r1 += -16
        r2 = 0
        call bpf_ringbuf_submit_dynptr
        r1 = map[fd:{ring}]
        r2 = 100
        r3 = 0
        r4 = r10
        r4 += -16
        call bpf_ringbuf_reserve_dynptr
        r1 = r10
        r1 += -16
        r2 = 0
        call bpf_ringbuf_discard_dynptr
        r0 = r7
        exit
        """

    assert run(kernel, text) == 0
    assert list(kernel.current.files.fget(ring).private_data.map.consume()) == [struct.pack("<IQ", 9, 0x1122334455667788)]


FROM_MEM = """
    r1 = map[fd:{array}][0]+0
    r2 = 12
    r3 = {flags}
    r4 = r10
    r4 += -16
    call bpf_dynptr_from_mem
    r6 = r0
    r1 = r10
    r1 += -24
    r2 = 8
    r3 = r10
    r3 += -16
    r4 = {offset}
    r5 = {read_flags}
    call bpf_dynptr_read
    if r0 != 0 goto out
    r0 = *(u64 *)(r10 -24)
    out:
    exit
"""


@pytest.mark.parametrize(
    ("flags", "offset", "read_flags", "expected"),
    [
        (0, 0, 0, 0x03020100),
        (0, 4, 0, 0x07060504),
        (0, 5, 0, -errno.E2BIG),
        (0, 13, 0, -errno.E2BIG),
        (0, -1, 0, -errno.E2BIG),
        (0, 0, 1, -errno.EINVAL),
        (1, 0, 0, -errno.EINVAL),
    ],
)
def test_reading_a_map_value(kernel: rtp.Kernel, flags: int, offset: int, read_flags: int, expected: int) -> None:
    """Within the dynptr's size, and with the kernel's errors beyond it."""
    array = kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 16, 1)
    kernel.map_update_elem(array, bytes(4), bytes(range(16)))

    assert run(kernel, FROM_MEM.format(array=array, flags=flags, offset=offset, read_flags=read_flags)) == expected


@pytest.mark.parametrize("target", [0, 2, 6])
def test_areas_that_overlap(kernel: rtp.Kernel, target: int) -> None:
    """A read into the area that it reads from moves the bytes as memmove does."""
    array = kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 16, 1)
    kernel.map_update_elem(array, bytes(4), bytes(range(16)))
    moved = FROM_MEM.replace("r1 = r10\n    r1 += -24", f"r1 = map[fd:{{array}}][0]+{target}")
    text = moved.replace("r0 = *(u64 *)(r10 -24)", "")
    expected = bytearray(range(16))
    expected[target : target + 8] = bytes(range(3, 11))

    assert run(kernel, text.format(array=array, flags=0, offset=3, read_flags=0)) == 0
    assert kernel.map_lookup_elem(array, bytes(4)) == bytes(expected)


def test_a_full_ring(kernel: rtp.Kernel) -> None:
    """No room: an error, and a dynptr on which nothing works and that has to be given back all the same."""
    ring = kernel.map_create(BpfMapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    text = f"""
        r1 = map[fd:{ring}]
        r2 = 5000
        r3 = 0
        r4 = r10
        r4 += -16
        call bpf_ringbuf_reserve_dynptr
        r6 = r0
        r1 = r10
        r1 += -16
        r2 = 0
        r3 = 4
        call bpf_dynptr_data
        if r0 == 0 goto none
        r6 = 1
        none:
        r1 = r10
        r1 += -16
        r2 = 0
        call bpf_ringbuf_submit_dynptr
        r0 = r6
        exit
        """

    assert run(kernel, text) == -errno.EINVAL
