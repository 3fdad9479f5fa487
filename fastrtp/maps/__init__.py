"""BPF maps: one file per family. Bytes in native memory, operations in numba (`*_native.py`), views in NumPy."""

from __future__ import annotations

import errno

from fastrtp.errors import BpfError
from fastrtp.maps.arraymap import ArrayMap
from fastrtp.maps.attr import MapAttr
from fastrtp.maps.base import Map
from fastrtp.maps.bloom_filter import BloomFilter
from fastrtp.maps.fd_array import CgroupArray, FdArray, PerfEventArray, ProgArray
from fastrtp.maps.hashtab import HashMap
from fastrtp.maps.local_storage import LocalStorage
from fastrtp.maps.lpm_trie import LpmTrie
from fastrtp.maps.map_in_map import ArrayOfMaps, HashOfMaps, MapMeta, bpf_map_meta_alloc, map_meta_equal
from fastrtp.maps.net_maps import NetArray, NetHash, ReuseportArray, SockMap, XskMap
from fastrtp.maps.ops import Batch, Holds, KeyBtf, MapOps
from fastrtp.maps.queue_stack import QueueStackMap
from fastrtp.maps.ringbuf import RingBuf
from fastrtp.maps.stackmap import StackMap
from fastrtp.maps.user_ringbuf import UserRingBuf
from fastrtp.native.memory import Memory
from fastrtp.uapi import BpfMapType

_CLASSES: tuple[type[Map], ...] = (
    ArrayMap,
    ArrayOfMaps,
    BloomFilter,
    CgroupArray,
    HashMap,
    HashOfMaps,
    LocalStorage,
    LpmTrie,
    NetArray,
    NetHash,
    PerfEventArray,
    ProgArray,
    QueueStackMap,
    ReuseportArray,
    RingBuf,
    SockMap,
    StackMap,
    UserRingBuf,
    XskMap,
)
MAP_TYPES: dict[int, type[Map]] = {kind: one for one in _CLASSES for kind in one.TYPES}
"""The class of each map type."""
MAP_OPS: dict[int, MapOps] = {kind: ops for one in _CLASSES for kind, ops in one.TYPES.items()}
"""What is true of each map type."""


def map_ops(map_type: int) -> MapOps:
    """The row of a map type. BpfError EINVAL for one that is not implemented."""
    ops = MAP_OPS.get(map_type)
    if ops is None:
        name = BpfMapType(map_type).name if map_type in BpfMapType.__members__.values() else str(map_type)
        raise BpfError(errno.EINVAL, f"map type {name} is not implemented yet")
    return ops


def map_alloc_check(attr: MapAttr) -> None:
    """Raise the BpfError that Linux's map_create would return for this attr; EINVAL for a type that is not implemented."""
    ops = map_ops(attr.map_type)
    ops.alloc_check(attr, ops)


def map_create(attr: MapAttr, memory: Memory) -> Map:
    """Check and make a map. BpfError with the errno of Linux's map_create. Kernel: kernel/bpf/syscall.c:map_create."""
    map_alloc_check(attr)
    return MAP_TYPES[attr.map_type](attr, memory)


__all__ = [
    "MAP_OPS",
    "MAP_TYPES",
    "ArrayMap",
    "ArrayOfMaps",
    "Batch",
    "BloomFilter",
    "CgroupArray",
    "FdArray",
    "HashMap",
    "HashOfMaps",
    "Holds",
    "KeyBtf",
    "LocalStorage",
    "LpmTrie",
    "Map",
    "MapAttr",
    "MapMeta",
    "MapOps",
    "PerfEventArray",
    "ProgArray",
    "QueueStackMap",
    "RingBuf",
    "StackMap",
    "UserRingBuf",
    "bpf_map_meta_alloc",
    "map_alloc_check",
    "map_create",
    "map_meta_equal",
    "map_ops",
]
