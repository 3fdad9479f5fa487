"""Whether the BTF types given for a map's keys and values fit it.

Kernel counterpart: kernel/bpf/syscall.c:map_check_btf, kernel/bpf/arraymap.c:array_map_check_btf.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError, BtfError
from fastrtp.maps.fields import FieldRow
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, BpfMapType
from fastrtp.verifier.fields import BtfField, check_fields, field_rows, special_fields

if TYPE_CHECKING:
    from fastrtp.btf import Btf

_ARRAYS = frozenset({BpfMapType.BPF_MAP_TYPE_ARRAY, BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY})
_LOCKED = frozenset({BpfMapType.BPF_MAP_TYPE_HASH, BpfMapType.BPF_MAP_TYPE_ARRAY})
_TIMED = _LOCKED | {BpfMapType.BPF_MAP_TYPE_LRU_HASH}
_KPTRS = _TIMED | {
    BpfMapType.BPF_MAP_TYPE_PERCPU_HASH, BpfMapType.BPF_MAP_TYPE_LRU_PERCPU_HASH, BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY,
}  # fmt: skip
_PLACES = {
    "bpf_spin_lock": _LOCKED, "bpf_res_spin_lock": _LOCKED, "bpf_timer": _TIMED, "bpf_list_head": _TIMED, "bpf_rb_root": _TIMED,
    "bpf_refcount": _KPTRS, "kptr": _KPTRS, "kptr_untrusted": _KPTRS,
}  # fmt: skip
"""Map types whose values may have a field. Nodes are for objects of programs."""
_MISSING = frozenset({"bpf_wq", "bpf_task_work", "percpu_kptr", "uptr"})
_NO_BTF = frozenset({
    BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY, BpfMapType.BPF_MAP_TYPE_STACK_TRACE,
})  # fmt: skip


def _size(btf: Btf, type_id: int) -> int:
    """Bytes of a type, -1 where it has no size. Kernel: kernel/bpf/btf.c:btf_type_id_size"""
    try:
        return btf.sizeof(type_id) if type_id else -1
    except (BtfError, IndexError, KeyError):
        return -1


def map_check_btf(attr: Any, btf: Btf, kernel_btf: Btf) -> list[FieldRow]:
    """The special fields of the values. BpfError EINVAL when a type is not there, has another size, or may not be a key of
    this map; EOPNOTSUPP, EACCES, E2BIG, ENOENT for special fields that may not be there.
    """
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
    fields = special_fields(btf, attr.btf_value_type_id)
    _check_fields(attr, btf, fields, kernel_btf)
    rows = field_rows(btf, fields, kernel_btf)
    if attr.map_type in _NO_BTF:
        raise BpfError(524, f"ENOTSUPP: maps of type {BpfMapType(attr.map_type).name} take no BTF types")
    if not kinds:
        return rows
    value = btf.type(btf.strip_modifiers(attr.btf_value_type_id))
    if not attr.btf_key_type_id:
        if attr.map_type != BpfMapType.BPF_MAP_TYPE_ARRAY or attr.max_entries != 1 or value.kind != BtfKind.DATASEC:
            raise _bad("only an array of one data section may do without a BTF type for its keys")
        return rows
    key = btf.type(btf.strip(attr.btf_key_type_id))
    if key.kind != BtfKind.INT or key.bits != 32 or key.int_offset:
        raise _bad(f"BTF type {attr.btf_key_type_id} of an array's keys is not a 32-bit integer")
    return rows


def _check_fields(attr: Any, btf: Btf, fields: list[BtfField], kernel_btf: Btf) -> None:
    """Fields that only helpers may touch: not in every map. Kernel: syscall.c:map_check_btf"""
    if not fields:
        return
    check_fields(btf, fields, kernel_btf)
    if attr.map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG):
        raise BpfError(errno.EACCES, f"EACCES: a map with {fields[0].name} in its values must be open to programs")
    for field in fields:
        name = field.tag or field.name
        if name in _MISSING:
            raise BpfError(errno.EOPNOTSUPP, f"EOPNOTSUPP: {name} is not implemented")
        if attr.map_type not in _PLACES.get(name, frozenset()):
            raise BpfError(errno.EOPNOTSUPP, f"EOPNOTSUPP: no {name} in maps of type {BpfMapType(attr.map_type).name}")


def _bad(why: str) -> BpfError:
    return BpfError(errno.EINVAL, f"EINVAL: {why}")
