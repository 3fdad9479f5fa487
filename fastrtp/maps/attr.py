"""What a map is made from, and the checks that Linux makes before it makes one.

Kernel: kernel/bpf/{arraymap,hashtab,ringbuf}.c:*_alloc_check.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.uapi import (
    BPF_F_INNER_MAP,
    BPF_F_MMAPABLE,
    BPF_F_NO_COMMON_LRU,
    BPF_F_NO_PREALLOC,
    BPF_F_NUMA_NODE,
    BPF_F_PRESERVE_ELEMS,
    BPF_F_RDONLY,
    BPF_F_RDONLY_PROG,
    BPF_F_STACK_BUILD_ID,
    BPF_F_WRONLY,
    BPF_F_WRONLY_PROG,
    BPF_F_ZERO_SEED,
    BpfMapType,
)

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.maps.map_in_map import MapMeta

_ACCESS = BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG
_HTAB_FLAGS = BPF_F_NO_PREALLOC | BPF_F_NO_COMMON_LRU | BPF_F_NUMA_NODE | _ACCESS | BPF_F_ZERO_SEED
_ARRAY_FLAGS = BPF_F_NUMA_NODE | BPF_F_MMAPABLE | _ACCESS | BPF_F_PRESERVE_ELEMS | BPF_F_INNER_MAP
_STACK_FLAGS = BPF_F_NUMA_NODE | BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_STACK_BUILD_ID
_INT_MAX = 0x7FFFFFFF
PERF_MAX_STACK_DEPTH = 127
"""Default of sysctl kernel.perf_event_max_stack: frames that a callchain has at most."""
_PCPU_MIN_UNIT_SIZE = 32 << 10
_KMALLOC_MAX_SIZE = 4 << 20
_HTAB_ELEM = 48
_PAGE = 4096

PERCPU = frozenset(
    {BpfMapType.BPF_MAP_TYPE_PERCPU_HASH, BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH}
)
LRU = frozenset({BpfMapType.BPF_MAP_TYPE_LRU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH})


@dataclass
class MapAttr:
    """`union bpf_attr` of BPF_MAP_CREATE, with its fds resolved. Sizes in bytes."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int = 0
    map_name: str = ""
    numa_node: int = 0
    inner_map: MapMeta | None = None
    btf: Btf | None = None
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0
    map_extra: int = 0


def _round8(size: int) -> int:
    return (size + 7) & ~7


def _refuse(number: int, why: str) -> None:
    raise BpfError(number, why)


def _access_ok(flags: int) -> bool:
    return flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG) != (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG)


def array_map_alloc_check(attr: MapAttr) -> None:
    """Kernel: kernel/bpf/arraymap.c:array_map_alloc_check."""
    flags, kind = attr.map_flags, attr.map_type
    percpu = kind == BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY
    if attr.max_entries == 0 or attr.key_size != 4 or attr.value_size == 0:
        _refuse(
            errno.EINVAL, f"an array has 4-byte keys, entries and a value: key_size {attr.key_size}, value_size {attr.value_size}"
        )
    if flags & ~_ARRAY_FLAGS or not _access_ok(flags) or (percpu and flags & BPF_F_NUMA_NODE):
        _refuse(errno.EINVAL, f"map_flags {flags:#x} do not fit an array")
    if kind != BpfMapType.BPF_MAP_TYPE_ARRAY and flags & (BPF_F_MMAPABLE | BPF_F_INNER_MAP):
        _refuse(errno.EINVAL, f"map_flags {flags:#x} fit plain arrays only")
    if kind != BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY and flags & BPF_F_PRESERVE_ELEMS:
        _refuse(errno.EINVAL, "BPF_F_PRESERVE_ELEMS fits perf event arrays only")
    if attr.value_size > _INT_MAX or (percpu and _round8(attr.value_size) > _PCPU_MIN_UNIT_SIZE):
        _refuse(errno.E2BIG, f"value_size {attr.value_size} is too large")


def fd_array_map_alloc_check(attr: MapAttr) -> None:
    """Kernel: kernel/bpf/arraymap.c:fd_array_map_alloc_check."""
    if attr.value_size != 4:
        _refuse(errno.EINVAL, f"value_size of an array of fds is 4, not {attr.value_size}")
    if attr.map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG):
        _refuse(errno.EINVAL, "programs cannot be restricted from an array of fds")
    array_map_alloc_check(attr)


def htab_map_alloc_check(attr: MapAttr) -> None:
    """Kernel: kernel/bpf/hashtab.c:htab_map_alloc_check."""
    flags = attr.map_flags
    percpu, lru = attr.map_type in PERCPU, attr.map_type in LRU
    percpu_lru = bool(flags & BPF_F_NO_COMMON_LRU)
    if flags & ~_HTAB_FLAGS or not _access_ok(flags) or (not lru and percpu_lru):
        _refuse(errno.EINVAL, f"map_flags {flags:#x} do not fit a hash map")
    if lru and flags & BPF_F_NO_PREALLOC:
        _refuse(ENOTSUPP, "an LRU map is always preallocated")
    if flags & BPF_F_NUMA_NODE and (percpu or percpu_lru):
        _refuse(errno.EINVAL, "a per-CPU map has no numa node")
    if attr.max_entries == 0 or attr.key_size == 0 or attr.value_size == 0:
        _refuse(errno.EINVAL, "a hash map has a key, a value and entries")
    if attr.key_size + attr.value_size >= _KMALLOC_MAX_SIZE - _HTAB_ELEM:
        _refuse(errno.E2BIG, f"key and value of {attr.key_size + attr.value_size} bytes are too large")
    if percpu and _round8(attr.value_size) > _PCPU_MIN_UNIT_SIZE:
        _refuse(errno.E2BIG, f"value_size {attr.value_size} is too large for a per-CPU map")


def fd_htab_map_alloc_check(attr: MapAttr) -> None:
    """Kernel: kernel/bpf/hashtab.c:fd_htab_map_alloc_check."""
    if attr.value_size != 4:
        _refuse(errno.EINVAL, f"value_size of a hash of maps is 4, not {attr.value_size}")
    htab_map_alloc_check(attr)


def ringbuf_map_alloc_check(attr: MapAttr) -> None:
    """Kernel: kernel/bpf/ringbuf.c:ringbuf_map_alloc."""
    if attr.map_flags & ~BPF_F_NUMA_NODE:
        _refuse(errno.EINVAL, f"map_flags {attr.map_flags:#x} do not fit a ring buffer")
    size = attr.max_entries
    if attr.key_size or attr.value_size or size == 0 or size & (size - 1) or size % _PAGE:
        _refuse(errno.EINVAL, f"a ring buffer has no key or value and a power of two of pages, not {size} bytes")


def stack_map_alloc_check(attr: MapAttr) -> None:
    """Kernel: kernel/bpf/stackmap.c:stack_map_alloc. Build ids, which belong to files, are refused by name."""
    size = attr.value_size
    if attr.map_flags & ~_STACK_FLAGS:
        _refuse(errno.EINVAL, f"map_flags {attr.map_flags:#x} do not fit a map of stacks")
    if attr.map_flags & BPF_F_STACK_BUILD_ID:
        _refuse(errno.EINVAL, "BPF_F_STACK_BUILD_ID is not implemented: recordings have no build ids")
    if attr.max_entries == 0 or attr.key_size != 4 or size < 8 or size % 8 or size // 8 > PERF_MAX_STACK_DEPTH:
        _refuse(errno.EINVAL, f"a map of stacks has 4-byte keys and 1 to {PERF_MAX_STACK_DEPTH} addresses of 8 bytes, not {size}")
    if attr.max_entries > 1 << 31:
        _refuse(errno.E2BIG, f"{attr.max_entries} stacks are too many")


ALLOC_CHECKS: dict[int, Callable[[MapAttr], None]] = {
    BpfMapType.BPF_MAP_TYPE_HASH: htab_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_ARRAY: array_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_PROG_ARRAY: fd_array_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY: fd_array_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_STACK_TRACE: stack_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_PERCPU_HASH: htab_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY: array_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_LRU_HASH: htab_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH: htab_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_RINGBUF: ringbuf_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_USER_RINGBUF: ringbuf_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS: fd_array_map_alloc_check,
    BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS: fd_htab_map_alloc_check,
}
"""The map types that there are, with the check of each."""


def map_alloc_check(attr: MapAttr) -> None:
    """Raise the BpfError that Linux's map_create would return for this attr; EINVAL for a type that is not implemented."""
    check = ALLOC_CHECKS.get(attr.map_type)
    if check is None:
        try:
            name = BpfMapType(attr.map_type).name
        except ValueError:
            name = str(attr.map_type)
        raise BpfError(errno.EINVAL, f"map type {name} is not implemented yet")
    check(attr)
