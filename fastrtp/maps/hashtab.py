"""HASH, LRU_HASH, PERCPU_HASH, LRU_PERCPU_HASH. Kernel: kernel/bpf/hashtab.c; the operations are in hashtab_native.py."""

from __future__ import annotations

import ctypes

import numpy as np

from fastrtp.maps.base import Bytes, Map, round_up

_HEADER = 8


class HashMap(Map):
    """A hash map. Its element area is reserved for max_entries, and touched as elements come into use."""

    def _create(self) -> None:
        cpus = self.memory.cpus
        self.value_at = _HEADER + round_up(self.key_size, 8)
        self.stride = round_up(self.value_size, 8) if self.percpu else 0
        self.elem_size = self.value_at + round_up(self.value_size, 8) * (cpus if self.percpu else 1)
        self.slots = 1 << max(2, (2 * self.max_entries - 1).bit_length())
        record = self.record
        record["elem_size"], record["value_at"], record["value_stride"] = self.elem_size, self.value_at, self.stride
        record["slot_mask"], record["free"] = self.slots - 1, -1
        record["slots"] = self._alloc(self.slots * 8)
        self.elements = self._alloc(self.elem_size * self.max_entries)
        record["values"] = self.elements

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
        return int(self.record["count"][0])

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of all (keys, values), in the order in which elements were first used."""
        with self.turn():
            fresh = int(self.record["fresh"][0])
            area = self.memory.arena.view(self.elements, fresh * self.elem_size).reshape(fresh, self.elem_size)
            used = area[:, 4] != 0
            keys = area[used, _HEADER : _HEADER + self.key_size]
            values = area[used, self.value_at : self.value_at + self.value_size_user]
            return np.ascontiguousarray(keys), self.hide_fields(np.array(values))
