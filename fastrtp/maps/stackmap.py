"""STACK_TRACE: stacks by their hash. Kernel: kernel/bpf/stackmap.c; bpf_get_stackid is in stackmap_native.py.

System calls read and delete stacks; only programs put them in.
"""

from __future__ import annotations

import errno
from typing import ClassVar

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.attr import MapAttr, refuse
from fastrtp.maps.base import Bytes, Map
from fastrtp.maps.ops import KeyBtf, MapOps
from fastrtp.uapi import BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_STACK_BUILD_ID, BPF_F_WRONLY, BpfMapType

_HEADER = 16
_NEXT = 8
_STACK_FLAGS = BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_STACK_BUILD_ID
PERF_MAX_STACK_DEPTH = 127
"""Default of sysctl kernel.perf_event_max_stack: frames that a callchain has at most."""


def stack_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/stackmap.c:stack_map_alloc. Build ids, which belong to files, are refused by name."""
    size = attr.value_size
    if attr.map_flags & ~_STACK_FLAGS:
        refuse(errno.EINVAL, f"map_flags {attr.map_flags:#x} do not fit a map of stacks")
    if attr.map_flags & BPF_F_STACK_BUILD_ID:
        refuse(errno.EINVAL, "BPF_F_STACK_BUILD_ID is not implemented: recordings have no build ids")
    if attr.max_entries == 0 or attr.key_size != 4 or size < 8 or size % 8 or size // 8 > PERF_MAX_STACK_DEPTH:
        refuse(errno.EINVAL, f"a map of stacks has 4-byte keys and 1 to {PERF_MAX_STACK_DEPTH} addresses of 8 bytes, not {size}")
    if attr.max_entries > 1 << 31:
        refuse(errno.E2BIG, f"{attr.max_entries} stacks are too many")


class StackMap(Map):
    """A map of stacks. A key is a bucket, 0 to `n_buckets` - 1; a value is u64 addresses, innermost first, then zeroes."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_STACK_TRACE: MapOps(
            stack_map_alloc_check,
            struct="bpf_stack_map",
            helpers=frozenset({"get_stackid"}),
            key_btf=KeyBtf.NO_BTF,
            lookup_and_delete=True,
        )
    }

    def _create(self) -> None:
        self.n_buckets = 1 << (self.max_entries - 1).bit_length()
        elem_size = _HEADER + self.value_size
        record = self.record
        record["elem_size"], record["slot_mask"] = elem_size, self.n_buckets - 1
        record["slots"] = self._slots = self._alloc(8 * self.n_buckets)
        record["values"] = self._alloc(elem_size * self.max_entries)
        self._buckets = self.memory.arena.view(self._slots, 8 * self.n_buckets).view(np.int64)

    def close(self) -> None:
        """Free the map's memory."""
        self._buckets = np.zeros(0, np.int64)
        super().close()

    def __len__(self) -> int:
        return int(self.record["count"][0])

    @property
    def lost(self) -> int:
        """Stacks that another one in their bucket, or a full map, kept out: -EEXIST and -ENOMEM to the program."""
        return int(self.record["dropped"][0])

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """The stack of an id. ENOENT. Kernel: bpf_stackmap_extract"""
        self._check_lock_flag(flags)
        with self._lock, self.turn():
            return self._value(self._bucket(key))

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """EINVAL: stacks come from programs. Kernel: stack_map_update_elem"""
        raise BpfError(errno.EINVAL, "stacks are put into a map by bpf_get_stackid only")

    def delete_elem(self, key: bytes) -> None:
        """Forget a stack. E2BIG past the last bucket, ENOENT. Kernel: stack_map_delete_elem"""
        if self._id(key) >= self.n_buckets:
            raise BpfError(errno.E2BIG, f"id {self._id(key)} of a map with {self.n_buckets} buckets")
        with self._lock, self.turn():
            self._free(self._id(key), self._bucket(key))

    def lookup_and_delete_elem(self, key: bytes, flags: int = 0) -> bytes:
        """The stack of an id, which is free afterwards. ENOENT."""
        self._check_lock_flag(flags)
        with self._lock, self.turn():
            element = self._bucket(key)
            value = self._value(element)
            self._free(self._id(key), element)
            return value

    def get_next_key(self, key: bytes | None) -> bytes:
        """The next id in use. ENOENT. Kernel: stack_map_get_next_key"""
        with self._lock, self.turn():
            start = 0
            if key is not None and self._id(key) < self.n_buckets and self._buckets[self._id(key)]:
                start = self._id(key) + 1
            found = np.flatnonzero(self._buckets[start:])
            if not len(found):
                raise BpfError(errno.ENOENT, f"no stack behind id {start - 1}")
            return (start + int(found[0])).to_bytes(4, "little")

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of all (ids, stacks), by id."""
        with self._lock, self.turn():
            ids = np.flatnonzero(self._buckets)
            values = [np.frombuffer(self._value(int(self._buckets[ident])), np.uint8) for ident in ids]
        keys = ids.astype("<u4").view(np.uint8).reshape(len(ids), 4)
        return keys, np.array(values, np.uint8).reshape(len(ids), self.value_size)

    @staticmethod
    def _id(key: bytes) -> int:
        return int.from_bytes(key, "little")

    def _bucket(self, key: bytes) -> int:
        ident = self._id(key)
        element = int(self._buckets[ident]) if ident < self.n_buckets else 0
        if not element:
            raise BpfError(errno.ENOENT, f"no stack with id {ident}")
        return element

    def _value(self, element: int) -> bytes:
        return self.memory.arena.view(element + _HEADER, self.value_size).tobytes()

    def _free(self, ident: int, element: int) -> None:
        self._buckets[ident] = 0
        self.memory.arena.view(element + _NEXT, 8).view(np.int64)[0] = self.record["free"][0]
        self.record["free"] = element
        self.record["count"] -= 1
