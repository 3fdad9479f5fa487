"""Batch lookups in hash maps go by buckets: all elements of one or none, ENOSPC where the first does not fit, ENOENT at the end.

The same walk works on Linux, whose buckets hold other keys (a seed for each map), so what is compared is the walk.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from host_object import bpf, usable

from fastrtp.errors import BpfError
from fastrtp.kernel import Kernel
from fastrtp.uapi import ATTR_SIZE, ATTRS, BpfCmd, BpfMapType

CPUS = os.cpu_count() or 1
Call = Callable[[BpfCmd, Any], int]
HASHES = [
    BpfMapType.BPF_MAP_TYPE_HASH,
    BpfMapType.BPF_MAP_TYPE_LRU_HASH,
    BpfMapType.BPF_MAP_TYPE_PERCPU_HASH,
    BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH,
]


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(cpus=CPUS) as kernel:
        yield kernel


def value_of(kind: int, number: int) -> bytes:
    copies = CPUS if kind in (BpfMapType.BPF_MAP_TYPE_PERCPU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH) else 1
    return struct.pack("<Q", number) * copies


def walk(call: Call, fd: int, kind: int, cmd: BpfCmd, count: int) -> tuple[list[int], list[int], int]:
    """(keys as they came, batches as they came, how often a bucket did not fit); values are what belongs to the keys."""
    size = len(value_of(kind, 0))
    keys: list[int] = []
    batches: list[int] = []
    refused = 0
    mark = ctypes.create_string_buffer(4)
    while True:
        attr = (ctypes.c_char * ATTR_SIZE)()
        record = ATTRS[cmd].struct.from_buffer(attr)
        key_room, value_room = ctypes.create_string_buffer(4 * count), ctypes.create_string_buffer(size * count)
        record.map_fd, record.count = fd, count
        record.in_batch = ctypes.addressof(mark) if batches else 0
        record.out_batch, record.keys, record.values = map(ctypes.addressof, (mark, key_room, value_room))
        ret = call(cmd, attr)
        if ret == -errno.ENOSPC:
            assert record.count == 0
            refused, count = refused + 1, 2 * count
            batches.append(int.from_bytes(mark.raw, "little"))
            continue
        found = struct.unpack_from(f"<{record.count}I", key_room)
        for at, key in enumerate(found):
            assert value_room.raw[at * size : (at + 1) * size] == value_of(kind, key)
        keys += found
        batches.append(int.from_bytes(mark.raw, "little"))
        if ret < 0:
            assert ret == -errno.ENOENT
            return keys, batches, refused
        assert ret == 0


def host_call(cmd: BpfCmd, attr: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    ret = int(libc.syscall(321, int(cmd), attr, ATTR_SIZE))
    return ret if ret >= 0 else -ctypes.get_errno()


def our_call(kernel: Kernel) -> Call:
    def call(cmd: BpfCmd, attr: Any) -> int:
        try:
            return kernel.bpf(cmd, attr, ATTR_SIZE)
        except BpfError as error:
            return -(error.errno or 0)

    return call


@pytest.mark.parametrize("count", [1, 3, 50, 64])
@pytest.mark.parametrize("kind", HASHES)
@pytest.mark.parametrize("delete", [False, True], ids=["lookup", "lookup_and_delete"])
def test_a_walk_by_buckets_meets_every_key_once(kernel: Kernel, kind: int, count: int, delete: bool) -> None:
    cmd = BpfCmd.BPF_MAP_LOOKUP_AND_DELETE_BATCH if delete else BpfCmd.BPF_MAP_LOOKUP_BATCH
    lru = kind in (BpfMapType.BPF_MAP_TYPE_LRU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH)
    ours = kernel.map_create(kind, 4, 8, 64)
    sides: list[tuple[Call, int, Callable[[int], None]]] = [(our_call(kernel), ours, kernel.close)]
    if usable():
        sides.append((host_call, bpf(BpfCmd.BPF_MAP_CREATE, map_type=kind, key_size=4, value_size=8, max_entries=64), os.close))
    for call, fd, close in sides:
        for number in range(40 if lru else 50):
            key, value = struct.pack("<I", number), value_of(kind, number)
            if call is host_call:
                assert bpf(BpfCmd.BPF_MAP_UPDATE_ELEM, map_fd=fd, key=key, value=value) == 0
            else:
                kernel.map_update_elem(fd, key, value)
        keys, batches, refused = walk(call, fd, kind, cmd, count)

        assert sorted(keys) == list(range(40 if lru else 50))
        assert batches == sorted(batches)
        assert batches[-1] == 64  # as many buckets as entries, rounded up to a power of two
        assert refused == 0 or count < 50
        assert refused > 0 or count > 1
        assert walk(call, fd, kind, cmd, 64)[0] == ([] if delete else keys)
        close(fd)
