"""Maps of maps: the system call's side, lookups from programs, and objects that fill them."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastrtp as rtp
from fastrtp.errors import BpfError
from fastrtp.isa import assemble, encode
from fastrtp.uapi import BPF_F_INNER_MAP, BPF_NOEXIST, BpfMapType

RAW_TRACEPOINT = 17
ARRAY, HASH, PROG_ARRAY = BpfMapType.BPF_MAP_TYPE_ARRAY, BpfMapType.BPF_MAP_TYPE_HASH, BpfMapType.BPF_MAP_TYPE_PROG_ARRAY
ARRAY_OF_MAPS, HASH_OF_MAPS = BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS
ELF = Path(__file__).parent / "data" / "elf"
LOOKUP = """
    *(u32 *)(r10 -4) = {slot}
    r1 = map[fd:{outer}]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto none
    r1 = r0
    *(u32 *)(r10 -4) = 1
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto none
    r1 = *(u64 *)(r0 +0)
    r1 += 1
    *(u64 *)(r0 +0) = r1
    r0 = r1
    exit
    none:
    r0 = 4000
    exit
"""


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def u32(number: int) -> bytes:
    return struct.pack("<I", number)


def run(kernel: rtp.Kernel, text: str) -> int:
    fd = kernel.prog_load(RAW_TRACEPOINT, encode(assemble(text)), license="GPL")
    result = kernel.prog_test_run(fd)
    kernel.close(fd)
    return result


@pytest.mark.parametrize("outer_type", [ARRAY_OF_MAPS, HASH_OF_MAPS])
def test_programs_reach_inner_maps(kernel: rtp.Kernel, outer_type: int) -> None:
    inner = kernel.map_create(ARRAY, 4, 8, 2)
    outer = kernel.map_create(outer_type, 4, 4, 4, inner_map_fd=inner)
    kernel.map_update_elem(inner, u32(1), struct.pack("<Q", 41))
    kernel.map_update_elem(outer, u32(3), u32(inner))

    assert run(kernel, LOOKUP.format(outer=outer, slot=3)) == 42
    assert run(kernel, LOOKUP.format(outer=outer, slot=2)) == 4000
    assert run(kernel, LOOKUP.format(outer=outer, slot=9)) == 4000
    assert kernel.map_lookup_elem(inner, u32(1)) == struct.pack("<Q", 42)


def test_inner_hash_maps(kernel: rtp.Kernel) -> None:
    """The inner map's own kind decides how it is searched."""
    inner = kernel.map_create(HASH, 4, 8, 2)
    outer = kernel.map_create(ARRAY_OF_MAPS, 4, 4, 1, inner_map_fd=inner)
    kernel.map_update_elem(outer, u32(0), u32(inner))

    assert run(kernel, LOOKUP.format(outer=outer, slot=0)) == 4000
    kernel.map_update_elem(inner, u32(1), struct.pack("<Q", 6))
    assert run(kernel, LOOKUP.format(outer=outer, slot=0)) == 7


@pytest.mark.parametrize("outer_type", [ARRAY_OF_MAPS, HASH_OF_MAPS])
def test_a_lookup_gives_the_id(kernel: rtp.Kernel, outer_type: int) -> None:
    inner = kernel.map_create(ARRAY, 4, 8, 2)
    outer = kernel.map_create(outer_type, 4, 4, 4, inner_map_fd=inner)

    with pytest.raises(BpfError) as missing:
        kernel.map_lookup_elem(outer, u32(0))
    kernel.map_update_elem(outer, u32(0), u32(inner))
    inner_id = kernel.current.files.fget(inner).private_data.id

    assert missing.value.errno == errno.ENOENT
    assert kernel.map_lookup_elem(outer, u32(0)) == u32(inner_id)


@pytest.mark.parametrize("outer_type", [ARRAY_OF_MAPS, HASH_OF_MAPS])
def test_the_outer_map_holds_the_inner(kernel: rtp.Kernel, outer_type: int) -> None:
    """Closing the inner map's descriptor frees nothing; deleting the element, or the outer map, does."""
    inner = kernel.map_create(ARRAY, 4, 8, 2)
    outer = kernel.map_create(outer_type, 4, 4, 4, inner_map_fd=inner)
    held = kernel.current.files.fget(inner).private_data
    kernel.map_update_elem(outer, u32(0), u32(inner))
    kernel.map_update_elem(outer, u32(1), u32(inner))
    kernel.map_update_elem(outer, u32(1), u32(inner))
    kernel.close(inner)

    assert run(kernel, LOOKUP.format(outer=outer, slot=0)) == 1
    kernel.map_delete_elem(outer, u32(0))
    assert run(kernel, LOOKUP.format(outer=outer, slot=0)) == 4000
    assert run(kernel, LOOKUP.format(outer=outer, slot=1)) == 2
    before = len(held.map._allocations)
    kernel.close(outer)
    assert before
    assert not held.map._allocations


def error(call: object, *args: object, **fields: object) -> int:
    with pytest.raises(BpfError) as caught:
        call(*args, **fields)  # type: ignore[operator]
    return caught.value.errno or 0


def test_refusals(kernel: rtp.Kernel) -> None:
    """What map_create and the element commands refuse, with Linux's errno."""
    inner = kernel.map_create(ARRAY, 4, 8, 2)
    longer, wider = kernel.map_create(ARRAY, 4, 8, 3), kernel.map_create(ARRAY, 4, 16, 2)
    programs = kernel.map_create(PROG_ARRAY, 4, 4, 2)
    outer = kernel.map_create(ARRAY_OF_MAPS, 4, 4, 4, inner_map_fd=inner)
    hashed = kernel.map_create(HASH_OF_MAPS, 4, 4, 4, inner_map_fd=inner)

    assert error(kernel.map_create, ARRAY_OF_MAPS, 4, 4, 4, inner_map_fd=999) == errno.EBADF
    assert error(kernel.map_create, ARRAY_OF_MAPS, 4, 4, 4, inner_map_fd=outer) == errno.EINVAL
    assert error(kernel.map_create, ARRAY_OF_MAPS, 4, 4, 4, inner_map_fd=programs) == 524
    assert error(kernel.map_create, ARRAY_OF_MAPS, 4, 8, 4, inner_map_fd=inner) == errno.EINVAL
    assert error(kernel.map_create, HASH_OF_MAPS, 4, 8, 4, inner_map_fd=inner) == errno.EINVAL
    assert error(kernel.map_update_elem, outer, u32(0), u32(longer)) == errno.EINVAL
    assert error(kernel.map_update_elem, outer, u32(0), u32(wider)) == errno.EINVAL
    assert error(kernel.map_update_elem, outer, u32(4), u32(inner)) == errno.E2BIG
    assert error(kernel.map_update_elem, outer, u32(0), u32(inner), BPF_NOEXIST) == errno.EINVAL
    assert error(kernel.map_update_elem, outer, u32(0), u32(999)) == errno.EBADF
    assert error(kernel.map_delete_elem, outer, u32(0)) == errno.ENOENT
    assert error(kernel.map_delete_elem, hashed, u32(0)) == errno.ENOENT
    kernel.map_update_elem(hashed, u32(0), u32(inner), BPF_NOEXIST)
    assert error(kernel.map_update_elem, hashed, u32(0), u32(inner), BPF_NOEXIST) == errno.EEXIST


def test_arrays_of_other_lengths(kernel: rtp.Kernel) -> None:
    """With BPF_F_INNER_MAP the lengths may differ, and a lookup of a constant key has to be checked."""
    inner = kernel.map_create(ARRAY, 4, 8, 2, BPF_F_INNER_MAP)
    short = kernel.map_create(ARRAY, 4, 8, 1, BPF_F_INNER_MAP)
    outer = kernel.map_create(ARRAY_OF_MAPS, 4, 4, 4, inner_map_fd=inner)
    kernel.map_update_elem(outer, u32(0), u32(short))
    text = LOOKUP.format(outer=outer, slot=0)

    assert run(kernel, text) == 4000
    unchecked = text.replace("if r0 == 0 goto none\n    r1 = *", "r1 = *")
    assert error(run, kernel, unchecked) == errno.EACCES


def test_objects_fill_their_maps(kernel: rtp.Kernel) -> None:
    """libbpf's initialisers: inner_b stands at 0 of the array, inner_a at 3, and under 1 in the hash map."""
    loaded = kernel.load(ELF / "map_of_maps.bpf.o")

    assert loaded.programs["use_inner"].test_run() == 1 + 10 + 200
    assert loaded.maps["inner_b"].lookup(u32(1)) == struct.pack("<Q", 1)
    assert loaded.maps["inner_a"].lookup(u32(1)) == struct.pack("<Q", 2)
    assert loaded.maps["outer"].lookup(u32(3)) == u32(loaded.maps["inner_a"].bpf_map.id)
