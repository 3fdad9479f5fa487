"""Whether the BTF types given for a map's keys and values fit it.

Kernel counterpart: kernel/bpf/syscall.c:map_check_btf, kernel/bpf/arraymap.c:array_map_check_btf.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError, BtfError
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, BpfMapType
from fastrtp.verifier.fields import special_fields

if TYPE_CHECKING:
    from fastrtp.btf import Btf

_ARRAYS = frozenset({BpfMapType.BPF_MAP_TYPE_ARRAY, BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY})
_LOCKED = frozenset({BpfMapType.BPF_MAP_TYPE_HASH, BpfMapType.BPF_MAP_TYPE_ARRAY})
_NO_BTF = frozenset({
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY, BpfMapType.BPF_MAP_TYPE_STACK_TRACE,
})  # fmt: skip


def _size(btf: Btf, type_id: int) -> int:
    """Bytes of a type, -1 where it has no size. Kernel: kernel/bpf/btf.c:btf_type_id_size"""
    try:
        return btf.sizeof(type_id) if type_id else -1
    except (BtfError, IndexError, KeyError):
        return -1


def map_check_btf(attr: Any, btf: Btf) -> None:
    """BpfError EINVAL when a type is not there, has another size, or may not be a key of this map."""
    from fastrtp.btf import BtfKind

    kinds = attr.map_type in _ARRAYS
    if attr.btf_key_type_id:
        size = _size(btf, attr.btf_key_type_id)
        if size != attr.key_size:
            raise _bad(f"BTF type {attr.btf_key_type_id} has {size} bytes, keys have {attr.key_size}")
    elif not kinds:
        raise _bad("this map type needs a BTF type for its keys")
    size = _size(btf, attr.btf_value_type_id)
    if size != attr.value_size:
        raise _bad(f"BTF type {attr.btf_value_type_id} has {size} bytes, values have {attr.value_size}")
    _check_fields(attr, special_fields(btf, attr.btf_value_type_id))
    if attr.map_type in _NO_BTF:
        raise BpfError(524, f"ENOTSUPP: maps of type {BpfMapType(attr.map_type).name} take no BTF types")
    if not kinds:
        return
    value = btf.type(btf.strip_modifiers(attr.btf_value_type_id))
    if not attr.btf_key_type_id:
        if attr.map_type != BpfMapType.BPF_MAP_TYPE_ARRAY or attr.max_entries != 1 or value.kind != BtfKind.DATASEC:
            raise _bad("only an array of one data section may do without a BTF type for its keys")
        return
    key = btf.type(btf.strip(attr.btf_key_type_id))
    if key.kind != BtfKind.INT or key.bits != 32 or key.int_offset:
        raise _bad(f"BTF type {attr.btf_key_type_id} of an array's keys is not a 32-bit integer")


def spin_lock_off(btf: Btf, type_id: int) -> int:
    """Offset of the bpf_spin_lock in a type, -1 where it has none."""
    return next((start for start, _size, name in special_fields(btf, type_id) if name == "bpf_spin_lock"), -1)


def _check_fields(attr: Any, fields: list[tuple[int, int, str]]) -> None:
    """Fields that only helpers may touch: at most one lock, and not everywhere. Kernel: syscall.c:map_check_btf"""
    if not fields:
        return
    if sum(name == "bpf_spin_lock" for _start, _size, name in fields) > 1:
        raise BpfError(errno.E2BIG, "E2BIG: a value has at most one bpf_spin_lock")
    if attr.map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG):
        raise BpfError(errno.EACCES, f"EACCES: a map with {fields[0][2]} in its values must be open to programs")
    if any(name == "bpf_spin_lock" for _start, _size, name in fields) and attr.map_type not in _LOCKED:
        raise BpfError(errno.EOPNOTSUPP, f"EOPNOTSUPP: no bpf_spin_lock in maps of type {BpfMapType(attr.map_type).name}")


def _bad(why: str) -> BpfError:
    return BpfError(errno.EINVAL, f"EINVAL: {why}")
