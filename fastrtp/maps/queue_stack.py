"""QUEUE and STACK: values without keys, first in first out and last in first out. Kernel: kernel/bpf/queue_stack_maps.c."""

from __future__ import annotations

import ctypes
import errno
from typing import ClassVar

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.attr import ACCESS_FLAGS, KMALLOC_MAX_SIZE, MapAttr, access_ok, refuse
from fastrtp.maps.base import Bytes, Map
from fastrtp.maps.ops import MapOps
from fastrtp.uapi import BPF_F_NUMA_NODE, BpfMapType


def queue_stack_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/queue_stack_maps.c:queue_stack_map_alloc_check."""
    if attr.max_entries == 0 or attr.key_size or attr.value_size == 0:
        refuse(errno.EINVAL, "a queue or stack has a value, entries and no key")
    if attr.map_flags & ~(BPF_F_NUMA_NODE | ACCESS_FLAGS) or not access_ok(attr.map_flags):
        refuse(errno.EINVAL, f"map_flags {attr.map_flags:#x} do not fit a queue or stack")
    if attr.value_size > KMALLOC_MAX_SIZE:
        refuse(errno.E2BIG, f"value_size {attr.value_size} is too large")


class KeylessMap(Map):
    """A map without keys: system calls push, peek and pop."""

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Put a value in. EINVAL for flags that the type does not know, E2BIG when full."""
        with self._lock:
            self._put_value(value)
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.map_push(machine, self.address, self._value_address, flags))

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """The value that would be taken out next. ENOENT."""
        return self._get(0)

    def lookup_and_delete_elem(self, key: bytes, flags: int = 0) -> bytes:
        """Take a value out. ENOENT."""
        return self._get(1)

    def get_next_key(self, key: bytes | None) -> bytes:
        """EINVAL: there are no keys."""
        raise BpfError(errno.EINVAL, f"{self.map_type.name} has no keys")

    def _get(self, delete: int) -> bytes:
        with self._lock:
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.map_get(machine, self.address, self._value_address, delete))
            return ctypes.string_at(self._value_address, self.value_size)


_QUEUE_STACK = MapOps(
    queue_stack_map_alloc_check,
    struct="bpf_queue_stack",
    helpers=frozenset({"map_peek_elem", "map_pop_elem", "map_push_elem"}),
    lookup_and_delete=True,
)


class QueueStackMap(KeylessMap):
    """A ring of max_entries + 1 values, one of them unused."""

    TYPES: ClassVar = {BpfMapType.BPF_MAP_TYPE_QUEUE: _QUEUE_STACK, BpfMapType.BPF_MAP_TYPE_STACK: _QUEUE_STACK}

    def _create(self) -> None:
        self.record["limit"] = self.max_entries + 1
        self.record["values"] = self._values = self._alloc((self.max_entries + 1) * self.value_size)

    def __len__(self) -> int:
        head, tail = int(self.record["fresh"][0]), int(self.record["count"][0])
        return (head - tail) % (self.max_entries + 1)

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of the values, in the order in which they would be taken out; keys have no bytes."""
        with self.turn():
            count, room = len(self), self.max_entries + 1
            whole = self.memory.arena.view(self._values, room * self.value_size).reshape(room, self.value_size)
            if self.map_type == BpfMapType.BPF_MAP_TYPE_STACK:
                order = (int(self.record["fresh"][0]) - 1 - np.arange(count)) % room
            else:
                order = (int(self.record["count"][0]) + np.arange(count)) % room
            return np.zeros((count, 0), np.uint8), whole[order].copy()
