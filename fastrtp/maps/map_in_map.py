"""ARRAY_OF_MAPS and HASH_OF_MAPS: maps whose values are maps. Kernel: kernel/bpf/map_in_map.c.

A value is the address of the inner map's descriptor. Which map that is, and that it lives as long as it stands here, is the
kernel layer's affair; what every inner map has in common is MapMeta, which the verifier reads in place of the map.
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import Any, ClassVar

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.maps.attr import MapAttr, refuse
from fastrtp.maps.base import Bytes, Map
from fastrtp.maps.fd_array import FdArray, fd_array_map_alloc_check
from fastrtp.maps.fields import FieldKind, FieldRow
from fastrtp.maps.hashtab import HashMap, htab_map_alloc_check
from fastrtp.maps.ops import Holds, KeyBtf, MapOps, NativeCall
from fastrtp.uapi import BPF_F_INNER_MAP, BpfMapType

_PLAIN = (FieldKind.LOCK, FieldKind.TIMER)


def fd_htab_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/hashtab.c:fd_htab_map_alloc_check."""
    if attr.value_size != 4:
        refuse(errno.EINVAL, f"value_size of a hash of maps is 4, not {attr.value_size}")
    htab_map_alloc_check(attr, ops)


@dataclass(frozen=True)
class MapMeta:
    """`map->inner_map_meta`: the shape of the inner maps, and no contents. Sizes in bytes."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int
    map_extra: int = 0
    btf: Any = None
    btf_value_type_id: int = 0
    fields: tuple[FieldRow, ...] = ()
    frozen: bool = False
    name: str = ""

    def read_value(self, offset: int, size: int) -> bytes:
        """Nothing is known about the contents: EINVAL."""
        raise BpfError(errno.EINVAL, f"an inner map has no known contents ({size} bytes at {offset})")


def bpf_map_meta_alloc(inner: Map) -> MapMeta:
    """The shape of a map for a map of maps. BpfError EINVAL for a map of maps, ENOTSUPP for a program array."""
    if inner.inner_map is not None:
        raise BpfError(errno.EINVAL, f"map {inner.name!r} holds maps itself: maps nest once")
    if inner.map_type == BpfMapType.BPF_MAP_TYPE_PROG_ARRAY:
        raise BpfError(ENOTSUPP, "a program array cannot be an inner map")
    return MapMeta(
        inner.map_type, inner.key_size, inner.value_size, inner.max_entries, inner.map_flags, inner.map_extra,
        inner.btf, inner.btf_value_type_id, inner.fields,
    )  # fmt: skip


def map_meta_equal(meta: MapMeta, other: Map) -> bool:
    """Whether the map may stand where `meta` is promised. Kernel: bpf_map_meta_equal, arraymap.c:array_map_meta_equal."""
    same = (meta.map_type, meta.key_size, meta.value_size, meta.map_flags, meta.fields) == (
        other.map_type, other.key_size, other.value_size, other.map_flags, other.fields,
    )  # fmt: skip
    if any(field.kind not in _PLAIN for field in meta.fields):
        # what pointers, lists and trees lead to is told by the types
        same = same and meta.btf is other.btf and meta.btf_value_type_id == other.btf_value_type_id
    if same and meta.map_type == BpfMapType.BPF_MAP_TYPE_ARRAY and not meta.map_flags & BPF_F_INNER_MAP:
        return meta.max_entries == other.max_entries
    return same


class ArrayOfMaps(FdArray):
    """An array of the addresses of maps."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS: MapOps(
            fd_array_map_alloc_check,
            struct="bpf_array",
            helpers=frozenset({"map_lookup_elem"}),
            holds=Holds.MAPS,
            key_btf=KeyBtf.NO_BTF,
        )
    }


class HashOfMaps(HashMap):
    """A hash map whose native values are addresses, 8 bytes."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS: MapOps(
            fd_htab_map_alloc_check,
            struct="bpf_htab",
            helpers=frozenset({"map_lookup_elem"}),
            holds=Holds.MAPS,
            key_btf=KeyBtf.NO_BTF,
        )
    }

    def native_call(self, helper: str, *, value_held: bool = True) -> NativeCall | None:
        """None: a value is the address of another map."""
        return None

    def _create(self) -> None:
        super()._create()
        self.record["value_size"] = 8

    def set_inner(self, key: bytes, address: int, flags: int) -> None:
        """Put the address of a map under a key. BpfError EEXIST, ENOENT, E2BIG, EINVAL."""
        with self._lock:
            self._put_key(key)
            ctypes.memmove(self._value_address, address.to_bytes(8, "little"), 8)
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.map_update(machine, self.address, self._key_address, self._value_address, flags))

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """Not from here: ENOTSUPP; the kernel layer answers with the inner map's id."""
        raise BpfError(ENOTSUPP, f"{self.map_type.name} has no lookup")

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Values are descriptors, which this layer does not know: set_inner."""
        raise BpfError(errno.EINVAL, f"{self.map_type.name} values are file descriptors")

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Addresses mean nothing outside: ENOTSUPP."""
        raise BpfError(ENOTSUPP, f"{self.map_type.name} has no elements to list")
