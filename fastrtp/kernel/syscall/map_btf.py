"""Whether the BTF types given for a map's keys and values fit it.

Kernel counterpart: kernel/bpf/syscall.c:map_check_btf, kernel/bpf/arraymap.c:array_map_check_btf.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from fastrtp.btf.types import BtfKind
from fastrtp.errors import ENOTSUPP, BpfError, BtfError
from fastrtp.maps import KeyBtf, MapOps, map_ops
from fastrtp.maps.fields import FieldRow
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, BpfMapType
from fastrtp.verifier.rules.fields import BtfField, check_fields, field_rows, special_fields

if TYPE_CHECKING:
    from fastrtp.btf import Btf

_MISSING = frozenset({"bpf_wq", "bpf_task_work", "percpu_kptr", "uptr"})


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
    ops = map_ops(attr.map_type)
    if attr.btf_key_type_id:
        size = _size(btf, attr.btf_key_type_id)
        if size != attr.key_size:
            raise _bad(f"BTF type {attr.btf_key_type_id} has {size} bytes, keys have {attr.key_size}")
    elif ops.key_btf not in (KeyBtf.ARRAY, KeyBtf.NONE, KeyBtf.NO_BTF):
        raise _bad("this map type needs a BTF type for its keys")
    size = _size(btf, attr.btf_value_type_id)
    if size != attr.value_size:
        raise _bad(f"BTF type {attr.btf_value_type_id} has {size} bytes, values have {attr.value_size}")
    fields = special_fields(btf, attr.btf_value_type_id)
    _check_fields(attr, ops, btf, fields, kernel_btf)
    rows = field_rows(btf, fields, kernel_btf)
    _check_key(attr, ops, btf)
    return rows


def _check_key(attr: Any, ops: MapOps, btf: Btf) -> None:
    """Kernel: the types' map_check_btf"""
    if ops.key_btf is KeyBtf.NO_BTF:
        raise BpfError(ENOTSUPP, f"ENOTSUPP: maps of type {BpfMapType(attr.map_type).name} take no BTF types")
    if not attr.btf_key_type_id:
        value = btf.type(btf.strip_modifiers(attr.btf_value_type_id))
        if ops.key_btf is KeyBtf.ARRAY and (attr.max_entries != 1 or value.kind != BtfKind.DATASEC):
            raise _bad("only an array of one data section may do without a BTF type for its keys")
        return
    key = btf.type(btf.strip(attr.btf_key_type_id))
    numbers = ops.key_btf in (KeyBtf.ARRAY, KeyBtf.INT32)
    if numbers and (key.kind != BtfKind.INT or key.bits != 32 or key.int_offset):
        raise _bad(f"BTF type {attr.btf_key_type_id} of the keys is not a 32-bit integer")
    if ops.key_btf is KeyBtf.STRUCT and key.kind != BtfKind.STRUCT:
        raise _bad(f"BTF type {attr.btf_key_type_id} of the keys is not a struct")


def _check_fields(attr: Any, ops: MapOps, btf: Btf, fields: list[BtfField], kernel_btf: Btf) -> None:
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
        if name not in ops.fields:
            raise BpfError(errno.EOPNOTSUPP, f"EOPNOTSUPP: no {name} in maps of type {BpfMapType(attr.map_type).name}")


def _bad(why: str) -> BpfError:
    return BpfError(errno.EINVAL, f"EINVAL: {why}")
