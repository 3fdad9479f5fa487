"""Special fields of map values: where BPF_MAP_CREATE lets them be, and with which errno it refuses; the same on Linux."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

import pytest
from host_object import bpf, usable

import fastrtp as rtp
from fastrtp.btf import BtfKind, BtfWriter
from fastrtp.errors import BpfError
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfCmd

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH = 1, 2, 5, 6, 9
Member = Callable[[BtfWriter, int, int], int]
SIZES = {
    "bpf_spin_lock": 4, "bpf_timer": 16, "bpf_wq": 16, "bpf_list_head": 16, "bpf_list_node": 24, "bpf_rb_root": 16,
    "bpf_rb_node": 32, "bpf_refcount": 4,
}  # fmt: skip


def field(name: str) -> tuple[int, Member]:
    """(size, maker) of a member that is a struct of the kernel's name."""

    def make(writer: BtfWriter, u32: int, u64: int) -> int:
        words = SIZES[name] // 8
        member = writer.add_array(u64, words, u32) if words else u32
        return writer.add_struct(name, SIZES[name], [("opaque", member, 0)])

    return SIZES[name], make


def kptr(tag: str, struct: str, kind: int = BtfKind.STRUCT) -> tuple[int, Member]:
    """A tagged pointer to a struct."""

    def make(writer: BtfWriter, u32: int, u64: int) -> int:
        target = writer.add_struct(struct, 8, [("a", u64, 0)]) if kind == BtfKind.STRUCT else u64
        return writer.add_pointer(writer.add(BtfKind.TYPE_TAG, tag, target))

    return 8, make


ROWS: dict[str, tuple[int, list[tuple[int, Member]], int, int]] = {
    "a timer": (HASH, [field("bpf_timer")], 0, 0),
    "two timers": (HASH, [field("bpf_timer"), field("bpf_timer")], 0, errno.E2BIG),
    "two locks": (ARRAY, [field("bpf_spin_lock"), field("bpf_spin_lock")], 0, errno.E2BIG),
    "a timer on each cpu": (PERCPU_ARRAY, [field("bpf_timer")], 0, errno.EOPNOTSUPP),
    "a timer in an lru map": (LRU_HASH, [field("bpf_timer")], 0, 0),
    "a lock in an lru map": (LRU_HASH, [field("bpf_spin_lock")], 0, errno.EOPNOTSUPP),
    "a timer that programs cannot reach": (ARRAY, [field("bpf_timer")], BPF_F_RDONLY_PROG, errno.EACCES),
    "a kptr to an object of the program": (HASH, [kptr("kptr", "mine")], 0, 0),
    "a kptr on each cpu": (PERCPU_HASH, [kptr("kptr", "mine")], 0, 0),
    "a kptr to a task": (ARRAY, [kptr("kptr", "task_struct")], 0, 0),
    "a kptr to what has no destructor": (ARRAY, [kptr("kptr", "inode")], 0, errno.ENOENT),
    "a kptr to anything that is not owned": (ARRAY, [kptr("kptr_untrusted", "inode")], 0, 0),
    "a kptr to a number": (ARRAY, [kptr("kptr", "", BtfKind.INT)], 0, errno.EINVAL),
    "twelve kptrs": (ARRAY, [kptr("kptr", f"mine{n}") for n in range(12)], 0, errno.E2BIG),
    "eleven kptrs": (ARRAY, [kptr("kptr", f"mine{n}") for n in range(11)], 0, 0),
    "a list that contains nothing": (ARRAY, [field("bpf_spin_lock"), field("bpf_list_head")], 0, errno.EINVAL),
    "a tree that contains nothing": (ARRAY, [field("bpf_spin_lock"), field("bpf_rb_root")], 0, errno.EINVAL),
    "a reference count": (ARRAY, [field("bpf_refcount")], 0, 0),
}  # fmt: skip


LATER = ("two timers", "a kptr to a number")
"""Linux makes the map, and refuses the programs that would use such a field."""


def made(members: list[tuple[int, Member]]) -> tuple[bytes, int, int, int]:
    """(BTF, type of the keys, type of the values, their size)."""
    writer = BtfWriter()
    u32, u64 = writer.add_int("u32", 4), writer.add_int("u64", 8)
    rows, at = [], 0
    for number, (size, make) in enumerate(members):
        at = -(-at // min(size, 8)) * min(size, 8)
        rows.append((f"m{number}", make(writer, u32, u64), 8 * at))
        at += size
    at = -(-at // 8) * 8
    struct = writer.add_struct("value", at, rows)
    return writer.dump(), u32, struct, at


@pytest.fixture(scope="module")
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=1) as kernel:
        yield kernel


def create(kernel: rtp.Kernel, map_type: int, members: list[tuple[int, Member]], flags: int = 0) -> int:
    """0 or the errno."""
    data, key, struct, size = made(members)
    btf = kernel.btf_load(data)
    try:
        kernel.close(kernel.map_create(map_type, 4, size, 2, flags, btf_fd=btf, btf_key_type_id=key, btf_value_type_id=struct))
    except BpfError as error:
        return error.errno or -1
    finally:
        kernel.close(btf)
    return 0


@pytest.mark.parametrize("name", ROWS)
def test_map_create(kernel: rtp.Kernel, name: str) -> None:
    map_type, members, flags, expected = ROWS[name]

    assert create(kernel, map_type, members, flags) == expected


@pytest.mark.parametrize("name", ROWS)
def test_map_create_on_linux(name: str) -> None:
    if not usable():
        pytest.skip("compared with Linux 6.18 on x86-64 only")
    map_type, members, flags, expected = ROWS[name]
    data, key, struct, size = made(members)
    btf = bpf(BpfCmd.BPF_BTF_LOAD, btf=data, btf_size=len(data))
    if btf < 0:  # Linux looks at what programs may make objects of when it is given the types
        assert btf == -expected
        return
    fd = bpf(
        BpfCmd.BPF_MAP_CREATE, map_type=map_type, key_size=4, value_size=size, max_entries=2, map_flags=flags,
        btf_fd=btf, btf_key_type_id=key, btf_value_type_id=struct,
    )  # fmt: skip
    os.close(btf)
    if fd >= 0:
        os.close(fd)

    assert min(fd, 0) == (0 if name in LATER else -expected)


@pytest.mark.parametrize(("name", "member"), [
    ("bpf_wq", field("bpf_wq")), ("percpu_kptr", kptr("percpu_kptr", "mine")), ("uptr", kptr("uptr", "mine")),
])  # fmt: skip
def test_what_there_is_not_yet_is_refused_by_name(kernel: rtp.Kernel, name: str, member: tuple[int, Member]) -> None:
    data, key, struct, size = made([member])
    with pytest.raises(BpfError, match=f"{name} is not implemented") as caught:
        kernel.map_create(ARRAY, 4, size, 2, btf_fd=kernel.btf_load(data), btf_key_type_id=key, btf_value_type_id=struct)

    assert caught.value.errno == errno.EOPNOTSUPP
