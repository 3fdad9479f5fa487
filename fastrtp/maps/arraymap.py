"""ARRAY and PERCPU_ARRAY. Kernel: kernel/bpf/arraymap.c; the programs' operations are in arraymap_native.py."""

from __future__ import annotations

import errno
from typing import ClassVar

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.attr import ACCESS_FLAGS, PCPU_MIN_UNIT_SIZE, MapAttr, access_ok, refuse, round8
from fastrtp.maps.base import Bytes, Map, round_up
from fastrtp.maps.ops import BASIC_FIELDS, LOCKED_FIELDS, Batch, KeyBtf, MapOps, NativeCall
from fastrtp.uapi import BPF_F_INNER_MAP, BPF_F_MMAPABLE, BPF_F_NUMA_NODE, BPF_F_PRESERVE_ELEMS, BpfMapType

_ARRAY_FLAGS = BPF_F_NUMA_NODE | BPF_F_MMAPABLE | ACCESS_FLAGS | BPF_F_PRESERVE_ELEMS | BPF_F_INNER_MAP
_INT_MAX = 0x7FFFFFFF


def array_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/arraymap.c:array_map_alloc_check."""
    flags, kind = attr.map_flags, attr.map_type
    percpu = ops.percpu
    if attr.max_entries == 0 or attr.key_size != 4 or attr.value_size == 0:
        refuse(
            errno.EINVAL, f"an array has 4-byte keys, entries and a value: key_size {attr.key_size}, value_size {attr.value_size}"
        )
    if flags & ~_ARRAY_FLAGS or not access_ok(flags) or (percpu and flags & BPF_F_NUMA_NODE):
        refuse(errno.EINVAL, f"map_flags {flags:#x} do not fit an array")
    if kind != BpfMapType.BPF_MAP_TYPE_ARRAY and flags & (BPF_F_MMAPABLE | BPF_F_INNER_MAP):
        refuse(errno.EINVAL, f"map_flags {flags:#x} fit plain arrays only")
    if kind != BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY and flags & BPF_F_PRESERVE_ELEMS:
        refuse(errno.EINVAL, "BPF_F_PRESERVE_ELEMS fits perf event arrays only")
    if attr.value_size > _INT_MAX or (percpu and round8(attr.value_size) > PCPU_MIN_UNIT_SIZE):
        refuse(errno.E2BIG, f"value_size {attr.value_size} is too large")


class ArrayMap(Map):
    """An array: values side by side, each rounded up to 8 bytes; per-CPU: one such block a CPU."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_ARRAY: MapOps(
            array_map_alloc_check,
            struct="bpf_array",
            key_btf=KeyBtf.ARRAY,
            fields=LOCKED_FIELDS,
            batch=Batch.KEYS,
            for_each=True,
        ),
        BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY: MapOps(
            array_map_alloc_check,
            struct="bpf_array",
            helpers=None,
            percpu=True,
            key_btf=KeyBtf.INT32,
            fields=BASIC_FIELDS,
            batch=Batch.KEYS,
            for_each=True,
        ),
    }

    def native_call(self, helper: str, *, value_held: bool = True) -> NativeCall | None:
        """See Map.native_call."""
        if helper == "map_lookup_elem" and self.percpu:
            return NativeCall("percpu_array_map_lookup_elem", (self.max_entries, self.elem_size, self.stride), 2)
        if helper == "map_lookup_elem":
            return NativeCall("array_map_lookup_elem", (self.max_entries, self.elem_size), 2)
        if helper == "map_update_elem" and not self.fields:
            return NativeCall("array_map_update_elem", (self.max_entries, self.elem_size, self.value_size, self.stride), 4)
        return None

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
