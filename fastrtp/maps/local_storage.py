"""TASK_STORAGE, CGRP_STORAGE, INODE_STORAGE, SK_STORAGE: a value for each owner that was given one.

Programs reach it by the owner's address, system calls by a descriptor of the owner, which the kernel layer resolves: here an
owner is an address. Linux cannot list such a map; `items()` can, by the pid of the task, so that a replay's answers can be read
when its tasks are gone. Kernel: kernel/bpf/bpf_local_storage.c; the operations are in local_storage_native.py.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.maps.attr import MapAttr, refuse
from fastrtp.maps.base import Bytes, Map
from fastrtp.maps.ops import BASIC_FIELDS, KeyBtf, MapOps
from fastrtp.maps.records import LocalStorageElem
from fastrtp.uapi import BPF_EXIST, BPF_F_CLONE, BPF_F_LOCK, BPF_F_NO_PREALLOC, BpfMapType

_BUCKETS = 1024
MAX_VALUE_SIZE = 0xFFFF - 128
"""Bytes of a value at most: U16_MAX less the kernel's own head. Kernel: BPF_LOCAL_STORAGE_MAX_VALUE_SIZE"""


def bpf_local_storage_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/bpf_local_storage.c:bpf_local_storage_map_alloc_check."""
    flags = attr.map_flags
    if flags & ~(BPF_F_NO_PREALLOC | BPF_F_CLONE) or not flags & BPF_F_NO_PREALLOC:
        refuse(errno.EINVAL, f"map_flags {flags:#x} do not fit {ops.owner} storage, which needs BPF_F_NO_PREALLOC")
    if attr.max_entries or attr.key_size != 4 or not attr.value_size:
        refuse(errno.EINVAL, f"{ops.owner} storage has 4-byte keys, a value and no max_entries")
    if not attr.btf_key_type_id or not attr.btf_value_type_id:
        refuse(errno.EINVAL, f"{ops.owner} storage needs BTF types for its keys and values")
    if attr.value_size > MAX_VALUE_SIZE:
        refuse(errno.E2BIG, f"value_size {attr.value_size} is more than {MAX_VALUE_SIZE}")


def _ops(owner: str, *helpers: str) -> MapOps:
    return MapOps(
        bpf_local_storage_map_alloc_check,
        struct="bpf_local_storage_map",
        helpers=frozenset({*helpers, "kptr_xchg"}),
        owner=owner,
        key_btf=KeyBtf.INT32,
        fields=BASIC_FIELDS | {"bpf_spin_lock", "bpf_res_spin_lock"},
    )


class LocalStorage(Map):
    """A map whose elements belong to objects of the kernel."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_TASK_STORAGE: _ops("task", "task_storage_get", "task_storage_delete"),
        BpfMapType.BPF_MAP_TYPE_CGRP_STORAGE: _ops("cgroup", "cgrp_storage_get", "cgrp_storage_delete"),
        BpfMapType.BPF_MAP_TYPE_SK_STORAGE: _ops("sock", "sk_storage_get", "sk_storage_delete"),
        BpfMapType.BPF_MAP_TYPE_INODE_STORAGE: _ops("inode", "inode_storage_get", "inode_storage_delete"),
    }

    def _create(self) -> None:
        self.record["slots"], self.record["slot_mask"] = self._alloc(8 * _BUCKETS), _BUCKETS - 1
        self._buckets = int(self.record["slots"][0])

    def close(self) -> None:
        """Free all elements and the map's memory."""
        if self._allocations:
            self.memory.lib.storage_clear(self.memory.machine_address, self.address)
        self.fields = ()
        super().close()

    def __len__(self) -> int:
        return int(self.record["count"][0])

    # by owner

    def lookup_owner(self, owner: int, flags: int = 0) -> bytes:
        """The value of the owner at an address. ENOENT."""
        with self._lock:
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.storage_lookup(machine, self.address, owner, self._value_address))
            return ctypes.string_at(self._value_address, self.value_size)

    def update_owner(self, owner: int, value: bytes, flags: int = 0, pid: int = 0) -> None:
        """Set it; `pid`: of a task. EINVAL for unknown flags, EEXIST, ENOENT, ENOMEM."""
        self._check_lock_flag(flags)
        if flags & ~BPF_F_LOCK > BPF_EXIST:
            raise BpfError(errno.EINVAL, f"unknown update flags {flags:#x}")
        with self._lock:
            self._put_value(value)
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.storage_update(machine, self.address, owner, self._value_address, flags, pid))

    def delete_owner(self, owner: int) -> None:
        """Take it away. ENOENT."""
        with self._lock:
            self._check(self.memory.lib.storage_delete(self.memory.machine_address, self.address, owner))

    def forget_owners(self, gone: frozenset[int]) -> None:
        """Owners at these addresses are no more: their values can be listed, but no program finds them any more."""
        with self.turn():
            for record in self._elements():
                if int(record["owner"][0]) in gone:
                    record["owner"] = 0

    def drop_forgotten(self) -> None:
        """Values of owners that are gone go, too."""
        self.memory.lib.storage_delete_gone(self.memory.machine_address, self.address)

    # listing

    def _elements(self) -> Iterator[Any]:
        """The LOCAL_STORAGE record of each element."""
        arena = self.memory.arena
        for bucket in arena.view(self._buckets, 8 * _BUCKETS).view(np.int64).tolist():
            element = bucket
            while element:
                record = arena.view(element, LocalStorageElem.layout.size).view(LocalStorageElem.layout.dtype)
                element = int(record["next"][0])
                yield record

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of (pids, values), in order of pid."""
        with self.turn():
            found = [(int(record["pid"][0]), self._value_of(record)) for record in self._elements()]
        found.sort(key=lambda row: row[0])
        keys = np.array([pid for pid, _ in found], "<i4").view(np.uint8).reshape(len(found), 4)
        values = np.frombuffer(b"".join(value for _, value in found), np.uint8).reshape(len(found), self.value_size)
        return keys, self.hide_fields(values.copy())

    def _value_of(self, record: Any) -> bytes:
        return self.memory.arena.view(record.ctypes.data + LocalStorageElem.layout.size, self.value_size).tobytes()

    # by key: the kernel layer knows what a descriptor is of

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """Keys are descriptors, which this layer does not know: lookup_owner."""
        raise BpfError(errno.EINVAL, f"keys of {self.map_type.name} are file descriptors")

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Keys are descriptors: update_owner."""
        raise BpfError(errno.EINVAL, f"keys of {self.map_type.name} are file descriptors")

    def delete_elem(self, key: bytes) -> None:
        """Keys are descriptors: delete_owner."""
        raise BpfError(errno.EINVAL, f"keys of {self.map_type.name} are file descriptors")

    def get_next_key(self, key: bytes | None) -> bytes:
        """ENOTSUPP, as in Linux."""
        raise BpfError(ENOTSUPP, f"{self.map_type.name} has no keys to list")
