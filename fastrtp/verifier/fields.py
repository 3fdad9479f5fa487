"""Fields of a map's value that only helpers may touch: locks, timers, kptrs, lists, trees, refcounts.

They are found by the BTF of the value. Loads and stores of them are refused by name; bpf_spin_lock is the one that has
helpers here (section.py).
Kernel: kernel/bpf/btf.c:btf_parse_fields, kernel/bpf/verifier.c:check_map_access.
"""

from __future__ import annotations

from errno import EACCES
from typing import Any

from fastrtp.btf import BtfKind
from fastrtp.verifier.env import BpfVerifierEnv
from fastrtp.verifier.state import BpfRegState

_SPECIAL = {
    "bpf_spin_lock": 4,
    "bpf_res_spin_lock": 4,
    "bpf_timer": 16,
    "bpf_wq": 16,
    "bpf_list_head": 16,
    "bpf_list_node": 24,
    "bpf_rb_root": 16,
    "bpf_rb_node": 32,
    "bpf_refcount": 4,
    "bpf_task_work": 8,
}
_KPTR_TAGS = frozenset({"kptr", "kptr_untrusted", "percpu_kptr", "uptr"})


def special_fields(btf: Any, type_id: int, base: int = 0, depth: int = 0) -> list[tuple[int, int, str]]:
    """(offset, size, name) of each special field of a type, arrays and nested structs included."""
    if depth > 8 or not type_id:
        return []
    record = btf.type(type_id)
    while record.kind in (BtfKind.TYPEDEF, BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT, BtfKind.TYPE_TAG):
        record = btf.type(record.type)
    if record.kind == BtfKind.STRUCT:
        if record.name in _SPECIAL:
            return [(base, _SPECIAL[record.name], record.name)]
        return [
            field
            for member in record.members
            for field in special_fields(btf, member.type_id, base + member.bit_offset // 8, depth + 1)
        ]
    if record.kind == BtfKind.ARRAY:
        inner = special_fields(btf, record.type, 0, depth + 1)
        size = btf.sizeof(record.type) if inner else 0
        return [(base + i * size + off, length, name) for i in range(min(record.nelems, 1024)) for off, length, name in inner]
    if record.kind == BtfKind.DATASEC:
        return [field for info in record.secinfos for field in special_fields(btf, info.type_id, base + info.offset, depth + 1)]
    if record.kind == BtfKind.VAR:
        return special_fields(btf, record.type, base, depth + 1)
    if record.kind == BtfKind.PTR and record.type:
        tag = btf.type(record.type)
        while tag.kind == BtfKind.TYPE_TAG:
            if tag.name in _KPTR_TAGS:
                return [(base, 8, "kptr")]
            tag = btf.type(tag.type)
    return []


def fields_of(env: BpfVerifierEnv, found: Any) -> list[tuple[int, int, str]]:
    """Special fields of a map's value, looked up once per run."""
    known = env.map_fields.get(id(found))
    if known is None:
        btf, type_id = getattr(found, "btf", None), getattr(found, "btf_value_type_id", 0)
        known = special_fields(btf, type_id) if btf is not None and type_id else []
        env.map_fields[id(found)] = known
    return known


def has_field(env: BpfVerifierEnv, found: Any, name: str) -> bool:
    """Whether a map's values hold such a field. Kernel: btf_record_has_field."""
    return any(field[2] == name for field in fields_of(env, found))


def check_map_fields(env: BpfVerifierEnv, reg: BpfRegState, off: int, size: int, direct: bool) -> None:
    """No byte that the access may touch belongs to a special field. Errors: EACCES."""
    fields = fields_of(env, reg.map)
    if not fields:
        return
    low, high = reg.bounds.smin_value + off, reg.bounds.umax_value + off + size
    for start, length, name in fields:
        if low < start + length and start < high:
            if name == "kptr":
                env.reject(
                    EACCES, "kptr cannot be accessed indirectly by helper" if not direct else "kptr access is not implemented yet"
                )
            env.reject(EACCES, f"{name} cannot be accessed directly by load/store")
