"""ARRAY and PERCPU_ARRAY. Kernel: kernel/bpf/arraymap.c; the programs' operations are in arraymap_native.py."""

from __future__ import annotations

import errno

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.base import Bytes, Map, round_up


class ArrayMap(Map):
    """An array: values side by side, each rounded up to 8 bytes; per-CPU: one such block a CPU."""

    def _create(self) -> None:
        cpus = self.memory.cpus if self.percpu else 1
        self.elem_size = round_up(self.value_size, 8)
        self.stride = round_up(self.elem_size * self.max_entries, 64) if self.percpu else 0
        self.value_address = self._alloc(self.stride * cpus if self.percpu else self.elem_size * self.max_entries)
        self.record["elem_size"], self.record["value_stride"] = self.elem_size, self.stride
        self.record["values"] = self.value_address

    def __len__(self) -> int:
        return self.max_entries

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of all (keys, values), by index."""
        keys = np.arange(self.max_entries, dtype="<u4").view(np.uint8).reshape(self.max_entries, 4)
        values = self._values()
        with self.turn():
            copied = np.array(values.swapaxes(0, 1) if self.percpu else values)
        return keys, self.hide_fields(copied.reshape(self.max_entries, self.value_size_user))

    def values(self) -> Bytes:
        """The values themselves, writable: uint8[max_entries, value_size]. EINVAL where they have special fields.

        Per-CPU: uint8[cpus, max_entries, value_size rounded up to 8].
        """
        if self.fields:
            raise BpfError(errno.EINVAL, f"values of map {self.name!r} have fields that only helpers touch")
        return self._values()

    def _values(self) -> Bytes:
        arena = self.memory.arena
        size = self.elem_size * self.max_entries
        if self.percpu:
            blocks = [arena.view(self.value_address + cpu * self.stride, self.stride) for cpu in range(self.memory.cpus)]
            whole = arena.view(self.value_address, self.stride * len(blocks)).reshape(len(blocks), self.stride)
            return whole[:, :size].reshape(len(blocks), self.max_entries, self.elem_size)
        return arena.view(self.value_address, size).reshape(self.max_entries, self.elem_size)[:, : self.value_size]

    def read_value(self, offset: int, size: int) -> bytes:
        """Bytes of the values from `offset` of value 0 on; EINVAL outside."""
        if not 0 <= offset <= self.elem_size * self.max_entries - size:
            raise BpfError(errno.EINVAL, f"{size} bytes at {offset} are not inside the values of map {self.name!r}")
        return self.memory.arena.view(self.value_address + offset, size).tobytes()
