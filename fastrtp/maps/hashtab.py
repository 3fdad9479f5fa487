"""HASH, LRU_HASH, PERCPU_HASH, LRU_PERCPU_HASH: what they are made of. Operations: hashtab_native.py, hashtab_lru_native.py.

Kernel: kernel/bpf/hashtab.c, kernel/bpf/bpf_lru_list.c.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Any, ClassVar

import numpy as np

from fastrtp.errors import ENOTSUPP
from fastrtp.maps.attr import ACCESS_FLAGS, KMALLOC_MAX_SIZE, PCPU_MIN_UNIT_SIZE, MapAttr, access_ok, refuse, round8
from fastrtp.maps.base import Bytes, Map, round_up
from fastrtp.maps.ops import BASIC_FIELDS, LOCKED_FIELDS, OWNING_FIELDS, Batch, MapOps, NativeCall
from fastrtp.maps.records import (
    IN_PLACE,
    INACTIVE,
    LOCAL_FREE_TARGET,
    REPLACE,
    REPLACE_FREE,
    HtabBucket,
    HtabElem,
    HtabPool,
    LruList,
    LruLocal,
    LruNode,
)
from fastrtp.uapi import BPF_F_NO_COMMON_LRU, BPF_F_NO_PREALLOC, BPF_F_NUMA_NODE, BPF_F_ZERO_SEED, BpfMapType

_IN_USE = 1 << 31
_HTAB_FLAGS = BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_NUMA_NODE | ACCESS_FLAGS | BPF_F_ZERO_SEED
_HTAB_ELEM = 48
_U32_MAX = (1 << 32) - 1
_LRU_HEADS = 3
_LOCAL_HEADS = 2


def htab_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/hashtab.c:htab_map_alloc_check."""
    flags = attr.map_flags
    percpu, lru = ops.percpu, ops.lru
    percpu_lru = bool(flags & BPF_F_NO_COMMON_LRU)
    if flags & ~_HTAB_FLAGS or not access_ok(flags) or (not lru and percpu_lru):
        refuse(errno.EINVAL, f"map_flags {flags:#x} do not fit a hash map")
    if lru and flags & BPF_F_NO_PREALLOC:
        refuse(ENOTSUPP, "an LRU map is always preallocated")
    if flags & BPF_F_NUMA_NODE and (percpu or percpu_lru):
        refuse(errno.EINVAL, "a per-CPU map has no numa node")
    if attr.max_entries == 0 or attr.key_size == 0 or attr.value_size == 0:
        refuse(errno.EINVAL, "a hash map has a key, a value and entries")
    if attr.key_size + attr.value_size >= KMALLOC_MAX_SIZE - _HTAB_ELEM:
        refuse(errno.E2BIG, f"key and value of {attr.key_size + attr.value_size} bytes are too large")
    if percpu and round8(attr.value_size) > PCPU_MIN_UNIT_SIZE:
        refuse(errno.E2BIG, f"value_size {attr.value_size} is too large for a per-CPU map")


def htab_ops(fields: frozenset[str], *, percpu: bool = False, lru: bool = False) -> MapOps:
    """The row of a hash map."""
    return MapOps(
        htab_map_alloc_check,
        struct="bpf_htab",
        percpu=percpu,
        lru=lru,
        fields=fields,
        batch=Batch.BUCKETS,
        lookup_and_delete=True,
        for_each=True,
    )


class HashMap(Map):
    """A hash map. Its element area is reserved for max_entries, and touched as elements come into use.

    `stride`, `percpu_size` (0 without per-CPU values): bytes of a CPU's block of values, and of a value in it.
    """

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_HASH: htab_ops(LOCKED_FIELDS),
        BpfMapType.BPF_MAP_TYPE_PERCPU_HASH: htab_ops(BASIC_FIELDS, percpu=True),
        BpfMapType.BPF_MAP_TYPE_LRU_HASH: htab_ops(OWNING_FIELDS, lru=True),
        BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH: htab_ops(BASIC_FIELDS, percpu=True, lru=True),
    }

    def native_call(self, helper: str, *, value_held: bool = True) -> NativeCall | None:
        """See Map.native_call."""
        if self.fields and helper != "map_lookup_elem":
            return None  # special fields of the value are left alone, or given back
        lru, mask = "_lru" if self.ops.lru else "", self.slots - 1
        shape = (self.key_size, self.elem_size)
        if helper == "map_lookup_elem" and self.percpu:
            return NativeCall(f"htab{lru}_percpu_map_lookup_elem", (*shape, self.percpu_size, mask, self.stride), 2)
        if helper == "map_lookup_elem":
            return NativeCall(f"htab{lru}_map_lookup_elem", (*shape, self.value_at, mask), 2)
        if helper == "map_update_elem":
            values = (self.key_size, self.value_size, self.elem_size, self.value_at, mask, self.stride, self.memory.cpus)
            replace = () if lru else (self.replace if value_held else IN_PLACE,)
            return NativeCall(f"htab{lru}_map_update_elem", (*values, *replace), 4)
        if helper == "map_delete_elem":
            return NativeCall(f"htab{lru}_map_delete_elem", (*shape, mask), 2)
        return None

    def _create(self) -> None:
        cpus = self.memory.cpus
        lru = self.ops.lru
        if self.map_flags & BPF_F_NO_COMMON_LRU:
            self._round_max_entries(cpus)
        # an update from a program gives a key another element
        self.room = self.max_entries + (0 if lru or self.percpu else cpus)
        self.key_at = HtabElem.layout.size if self.key_size <= 4 else 8
        self.value_at = round_up(self.key_at + self.key_size, 8)
        self.percpu_size = round_up(self.value_size, 8) if self.percpu else 0
        self.stride = round_up(self.percpu_size * self.room, 64)
        self.elem_size = self.value_at + (0 if self.percpu else round_up(self.value_size, 8))
        self.slots = 1 << max((2 * self.max_entries - 1).bit_length(), self.room.bit_length())
        record = self.record
        record["elem_size"], record["value_at"], record["value_stride"] = self.elem_size, self.value_at, self.stride
        record["slot_mask"], record["percpu_size"] = self.slots - 1, self.percpu_size
        record["slots"] = self._alloc(self.slots * HtabBucket.layout.size)
        record["links"] = self._alloc(4 * (self.room + 1))
        record["values"] = self.elements = self._alloc(self.elem_size * self.room)
        record["percpu"] = self.values = self._alloc(self.stride * cpus) if self.percpu else 0
        record["pools"], self._pools = self._record(HtabPool.layout.dtype, cpus)
        record["limit"] = self.max_entries
        if lru:
            self._create_lru(cpus)

    def _round_max_entries(self, cpus: int) -> None:
        """Every CPU's list has as many elements, and one at least. Kernel: htab_map_alloc"""
        rounded = round_up(self.max_entries, cpus)
        self.max_entries = rounded if rounded <= _U32_MAX else self.max_entries // cpus * cpus
        self.record["max_entries"] = self.max_entries

    def _create_lru(self, cpus: int) -> None:
        """Lists of free elements only. Kernel: kernel/bpf/bpf_lru_list.c:bpf_lru_init, bpf_lru_populate"""
        own_lists = bool(self.map_flags & BPF_F_NO_COMMON_LRU)
        lists = cpus if own_lists else 1
        first = self.max_entries + 1
        heads = _LRU_HEADS * lists + (0 if own_lists else _LOCAL_HEADS * cpus)
        self.record["lru_nodes"], nodes = self._record(LruNode.layout.dtype, first + heads)
        nodes["prev"][first:] = nodes["next"][first:] = np.arange(first, first + heads)
        self.record["lru"], lru = self._record(LruList.layout.dtype, lists)
        lru["heads"] = first + _LRU_HEADS * np.arange(lists)
        lru["next_inactive_rotation"] = lru["heads"] + INACTIVE
        lru["unused"] = self.max_entries // lists
        if not own_lists:
            self.record["lru_locals"], locals_ = self._record(LruLocal.layout.dtype, cpus)
            locals_["heads"] = first + _LRU_HEADS + _LOCAL_HEADS * np.arange(cpus)
            locals_["next_steal"] = np.arange(cpus)
            self.record["lru_target"] = min(max(self.max_entries // cpus // 2, 1), LOCAL_FREE_TARGET)

    @property
    def replace(self) -> int:
        """How an update from a program gives a key that is there its value, where a program may see the difference."""
        if self.percpu:
            return IN_PLACE
        return REPLACE_FREE if self.map_flags & BPF_F_NO_PREALLOC else REPLACE

    def delete_elem(self, key: bytes) -> None:
        """Remove the key; ENOENT without it."""
        with self._lock:
            self._put_key(key)
            self._check(self.memory.lib.map_delete(self.memory.machine_address, self.address, self._key_address))

    def lookup_and_delete_elem(self, key: bytes, flags: int = 0) -> bytes:
        """The value, which is gone afterwards; ENOENT without the key."""
        self._check_lock_flag(flags)
        with self._lock:
            self._put_key(key)
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.map_lookup_and_delete(machine, self.address, self._key_address, self._value_address))
            return ctypes.string_at(self._value_address, self.value_size_user)

    def __len__(self) -> int:
        return int(self._pools["count"].sum())

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of all (keys, values), in the order in which elements were first used."""
        with self.turn():
            area = self.memory.arena.view(self.elements, int(self.record["fresh"][0]) * self.elem_size)
            used = np.flatnonzero(area.reshape(-1, self.elem_size)[:, 3] & (_IN_USE >> 24))
            return self._copies(used)

    @property
    def n_buckets(self) -> int:
        """How many buckets Linux has; here a bucket of its is one or more. Kernel: htab_map_alloc"""
        return 1 << (self.max_entries - 1).bit_length()

    def buckets(self, start: int) -> tuple[np.ndarray[Any, np.dtype[np.int64]], Bytes, Bytes]:
        """(bucket, keys, values): copies of the elements in buckets `start` (below n_buckets) and later, by bucket."""
        with self.turn():
            mask, arena = self.slots - 1, self.memory.arena
            first = arena.view(int(self.record["slots"][0]), self.slots * HtabBucket.layout.size).view(HtabBucket.layout.dtype)[
                "first"
            ]
            links = arena.view(int(self.record["links"][0]), 4 * (self.room + 1)).view("<u4")
            slot = np.flatnonzero(first)
            slot = slot[slot & (self.n_buckets - 1) >= start]
            number = first[slot].view("<u4").astype(np.int64) & mask
            found: list[tuple[np.ndarray[Any, np.dtype[np.int64]], ...]] = []
            while len(slot):  # every chain's elements of one depth at a time
                found.append((slot, np.full(len(slot), len(found)), number))
                number = links[number].astype(np.int64) & mask
                slot, number = slot[number != 0], number[number != 0]
            if not found:
                return np.zeros(0, np.int64), *self._copies(np.zeros(0, np.int64))
            slot, depth, number = (np.concatenate(column) for column in zip(*found, strict=True))
            bucket = slot & (self.n_buckets - 1)
            order = np.lexsort((depth, slot, bucket))
            return bucket[order], *self._copies(number[order] - 1)

    def _copies(self, places: np.ndarray[Any, np.dtype[np.int64]]) -> tuple[Bytes, Bytes]:
        """(keys, values) of elements by their places, counted from 0. The machine is held."""
        count = int(places.max()) + 1 if len(places) else 0
        area = self.memory.arena.view(self.elements, count * self.elem_size).reshape(count, self.elem_size)
        keys = np.ascontiguousarray(area[places, self.key_at : self.key_at + self.key_size])
        if self.percpu:
            size = self.percpu_size
            blocks = [self.memory.arena.view(self.values + cpu * self.stride, count * size) for cpu in range(self.memory.cpus)]
            values = np.concatenate([block.reshape(count, size)[places] for block in blocks], axis=1)
        else:
            values = np.ascontiguousarray(area[places, self.value_at : self.value_at + self.value_size])
        return keys, self.hide_fields(values)
