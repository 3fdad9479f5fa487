"""What a map is made from, and what the checks of several types have in common (each type has its own: MapOps.alloc_check)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from fastrtp.errors import BpfError
from fastrtp.uapi import BPF_F_RDONLY, BPF_F_RDONLY_PROG, BPF_F_WRONLY, BPF_F_WRONLY_PROG

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.maps.map_in_map import MapMeta

ACCESS_FLAGS = BPF_F_RDONLY | BPF_F_WRONLY | BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG
PCPU_MIN_UNIT_SIZE = 32 << 10
KMALLOC_MAX_SIZE = 4 << 20


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


def round8(size: int) -> int:
    """The next multiple of 8."""
    return (size + 7) & ~7


def refuse(number: int, why: str) -> NoReturn:
    """Raise the BpfError of attributes that do not go together."""
    raise BpfError(number, why)


def access_ok(flags: int) -> bool:
    """Whether programs may at least read or write. Kernel: include/linux/bpf.h:bpf_map_flags_access_ok"""
    return flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG) != (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG)
