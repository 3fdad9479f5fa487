"""Maps of the network: made as Linux makes them, empty for ever, as there are no devices, sockets or CPU threads to put in.

DEVMAP, DEVMAP_HASH, CPUMAP, XSKMAP, SOCKMAP, SOCKHASH and REUSEPORT_SOCKARRAY are for programs of the network; an object that has
some beside its tracepoint programs loads, and what would fill them is refused. Kernel: kernel/bpf/devmap.c, cpumap.c,
reuseport_array.c, net/core/sock_map.c, net/xdp/xskmap.c.
"""

from __future__ import annotations

import errno
from typing import ClassVar

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.arraymap import array_map_alloc_check
from fastrtp.maps.attr import MapAttr, refuse
from fastrtp.maps.base import Bytes, Map
from fastrtp.maps.ops import Holds, KeyBtf, MapOps
from fastrtp.uapi import BPF_F_NUMA_NODE, BPF_F_RDONLY, BPF_F_WRONLY, BpfMapType

_FLAGS = BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY
_MAX_BPF_STACK = 512
_FOUR, _FOUR_OR_EIGHT = (4,), (4, 8)


def _check(attr: MapAttr, key_sizes: tuple[int, ...], value_sizes: tuple[int, ...], flags: int) -> None:
    if attr.max_entries == 0 or (attr.key_size not in key_sizes if key_sizes else attr.key_size == 0):
        refuse(errno.EINVAL, f"key_size {attr.key_size} and max_entries {attr.max_entries} do not fit this map type")
    if attr.value_size not in value_sizes or attr.map_flags & ~flags:
        refuse(errno.EINVAL, f"value_size {attr.value_size} or map_flags {attr.map_flags:#x} do not fit this map type")


def dev_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/devmap.c:dev_map_alloc_check."""
    _check(attr, _FOUR, _FOUR_OR_EIGHT, _FLAGS)


def cpu_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/cpumap.c:cpu_map_alloc."""
    _check(attr, _FOUR, _FOUR_OR_EIGHT, BPF_F_NUMA_NODE)


def xsk_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: net/xdp/xskmap.c:xsk_map_alloc."""
    _check(attr, _FOUR, _FOUR, _FLAGS)


def sock_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: net/core/sock_map.c:sock_map_alloc."""
    _check(attr, _FOUR, _FOUR_OR_EIGHT, _FLAGS)


def sock_hash_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: net/core/sock_map.c:sock_hash_alloc."""
    _check(attr, (), _FOUR_OR_EIGHT, _FLAGS)
    if attr.key_size > _MAX_BPF_STACK:
        refuse(errno.E2BIG, f"key_size {attr.key_size} is more than {_MAX_BPF_STACK}")


def reuseport_array_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/reuseport_array.c:reuseport_array_alloc_check."""
    if attr.value_size not in _FOUR_OR_EIGHT:
        refuse(errno.EINVAL, f"value_size {attr.value_size} is neither 4 nor 8")
    array_map_alloc_check(attr, ops)


_LOOKUP = frozenset({"map_lookup_elem", "redirect_map"})
_SOCK_FUNCS = frozenset({"sk_select_reuseport", "map_lookup_elem", "map_delete_elem"})
_DEVICES = MapOps(dev_map_alloc_check, struct="bpf_dtab", helpers=_LOOKUP, holds=Holds.DEVICES, key_btf=KeyBtf.NO_BTF)
_COOKIE_SIZE = 8


class NetMap(Map):
    """A map that stays empty."""

    def _create(self) -> None:
        """Nothing is ever in it."""

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """ENOENT. Of sockets, ENOSPC where values have no room for a cookie."""
        if self.ops.holds is Holds.SOCKETS and self.value_size != _COOKIE_SIZE:
            raise BpfError(errno.ENOSPC, f"{self.map_type.name}: a socket is told by a cookie of {_COOKIE_SIZE} bytes")
        raise BpfError(errno.ENOENT, f"{self.map_type.name}: nothing is in here")

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """EOPNOTSUPP, by name: Linux would look for a device, socket or CPU."""
        raise BpfError(errno.EOPNOTSUPP, f"{self.map_type.name}: there are no {self.ops.holds.value} here to put into a map")

    def delete_elem(self, key: bytes) -> None:
        """ENOENT."""
        raise BpfError(errno.ENOENT, f"{self.map_type.name}: nothing is in here")

    def get_next_key(self, key: bytes | None) -> bytes:
        """ENOENT."""
        raise BpfError(errno.ENOENT, f"{self.map_type.name}: nothing is in here")

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Nothing."""
        return np.zeros((0, self.key_size), np.uint8), np.zeros((0, self.value_size), np.uint8)


class NetHash(NetMap):
    """A map with any keys."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_DEVMAP_HASH: _DEVICES,
        BpfMapType.BPF_MAP_TYPE_SOCKHASH: MapOps(
            sock_hash_alloc_check,
            struct="bpf_shtab",
            helpers=_SOCK_FUNCS | {"sk_redirect_hash", "sock_hash_update", "msg_redirect_hash"},
            holds=Holds.SOCKETS,
            key_btf=KeyBtf.NO_BTF,
        ),
    }


class NetArray(NetMap):
    """A map whose keys are indices."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_DEVMAP: _DEVICES,
        BpfMapType.BPF_MAP_TYPE_CPUMAP: MapOps(
            cpu_map_alloc_check,
            struct="bpf_cpu_map",
            helpers=frozenset({"redirect_map"}),
            holds=Holds.CPUS,
            key_btf=KeyBtf.NO_BTF,
        ),
    }

    def delete_elem(self, key: bytes) -> None:
        """Nothing to do; EINVAL for an index that there is not."""
        if int.from_bytes(key, "little") >= self.max_entries:
            raise BpfError(errno.EINVAL, f"{self.map_type.name} has {self.max_entries} places")

    def get_next_key(self, key: bytes | None) -> bytes:
        """The next index; ENOENT after the last."""
        index = int.from_bytes(key, "little") if key is not None else self.max_entries
        if index == self.max_entries - 1:
            raise BpfError(errno.ENOENT, "the last index")
        return (0 if index >= self.max_entries else index + 1).to_bytes(4, "little")


class XskMap(NetArray):
    """AF_XDP sockets."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_XSKMAP: MapOps(
            xsk_map_alloc_check, struct="xsk_map", helpers=_LOOKUP, holds=Holds.SOCKETS, key_btf=KeyBtf.NO_BTF
        )
    }

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """EOPNOTSUPP, as in Linux."""
        raise BpfError(errno.EOPNOTSUPP, "system calls cannot look into an XSK map")


class SockMap(NetArray):
    """Sockets by index."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_SOCKMAP: MapOps(
            sock_map_alloc_check,
            struct="bpf_stab",
            helpers=_SOCK_FUNCS | {"sk_redirect_map", "sock_map_update", "msg_redirect_map"},
            holds=Holds.SOCKETS,
            key_btf=KeyBtf.NO_BTF,
        )
    }

    def delete_elem(self, key: bytes) -> None:
        """EINVAL for an empty place, as in Linux."""
        raise BpfError(errno.EINVAL, "there is no socket in this place")


class ReuseportArray(NetArray):
    """Sockets of one port."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_REUSEPORT_SOCKARRAY: MapOps(
            reuseport_array_alloc_check,
            struct="reuseport_array",
            helpers=frozenset({"sk_select_reuseport"}),
            holds=Holds.SOCKETS,
        )
    }

    def delete_elem(self, key: bytes) -> None:
        """ENOENT; E2BIG for an index that there is not."""
        past = int.from_bytes(key, "little") >= self.max_entries
        raise BpfError(errno.E2BIG if past else errno.ENOENT, "there is no socket in this place")
