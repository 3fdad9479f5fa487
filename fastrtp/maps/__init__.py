"""BPF maps: one file per family. Bytes in native memory, operations in numba (`*_native.py`), views in NumPy."""

from __future__ import annotations

from fastrtp.maps.arraymap import ArrayMap
from fastrtp.maps.attr import MapAttr, map_alloc_check
from fastrtp.maps.base import Map
from fastrtp.maps.fd_array import FdArray, PerfEventArray, ProgArray
from fastrtp.maps.hashtab import HashMap
from fastrtp.maps.map_in_map import MAPS_OF_MAPS, ArrayOfMaps, HashOfMaps, MapMeta, bpf_map_meta_alloc, map_meta_equal
from fastrtp.maps.ringbuf import RingBuf
from fastrtp.maps.stackmap import StackMap
from fastrtp.maps.user_ringbuf import UserRingBuf
from fastrtp.native.memory import Memory
from fastrtp.uapi import BpfMapType

MAP_TYPES: dict[int, type[Map]] = {
    BpfMapType.BPF_MAP_TYPE_HASH: HashMap,
    BpfMapType.BPF_MAP_TYPE_ARRAY: ArrayMap,
    BpfMapType.BPF_MAP_TYPE_PROG_ARRAY: ProgArray,
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY: PerfEventArray,
    BpfMapType.BPF_MAP_TYPE_STACK_TRACE: StackMap,
    BpfMapType.BPF_MAP_TYPE_PERCPU_HASH: HashMap,
    BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY: ArrayMap,
    BpfMapType.BPF_MAP_TYPE_LRU_HASH: HashMap,
    BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH: HashMap,
    BpfMapType.BPF_MAP_TYPE_RINGBUF: RingBuf,
    BpfMapType.BPF_MAP_TYPE_USER_RINGBUF: UserRingBuf,
    BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS: ArrayOfMaps,
    BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS: HashOfMaps,
}
"""The class of each map type; its keys are those of attr.ALLOC_CHECKS."""


def map_create(attr: MapAttr, memory: Memory) -> Map:
    """Check and make a map. BpfError with the errno of Linux's map_create. Kernel: kernel/bpf/syscall.c:map_create."""
    map_alloc_check(attr)
    return MAP_TYPES[attr.map_type](attr, memory)


__all__ = [
    "MAPS_OF_MAPS",
    "MAP_TYPES",
    "ArrayMap",
    "ArrayOfMaps",
    "FdArray",
    "HashMap",
    "HashOfMaps",
    "Map",
    "MapAttr",
    "MapMeta",
    "PerfEventArray",
    "ProgArray",
    "RingBuf",
    "StackMap",
    "UserRingBuf",
    "bpf_map_meta_alloc",
    "map_alloc_check",
    "map_create",
    "map_meta_equal",
]  # fmt: skip
