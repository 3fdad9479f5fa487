"""Fields that only helpers and kernel functions may touch: locks, timers, kptrs, lists, trees, reference counts.

They are found by the BTF of a map's value or of a program's own object. Loads and stores of them are refused by name,
but for kptrs, which kptr.py checks.
Kernel: kernel/bpf/btf.c:btf_parse_fields, kernel/bpf/verifier.c:check_map_access.
"""

from __future__ import annotations

from errno import EACCES, EINVAL, ENOENT
from typing import Any, NamedTuple

from fastrtp.btf import BtfKind
from fastrtp.errors import BpfError
from fastrtp.maps.fields import FieldKind, FieldRow
from fastrtp.verifier.domain.regtype import PTR_TO_MAP_VALUE, base_type
from fastrtp.verifier.domain.state import BpfRegState
from fastrtp.verifier.rules.env import BpfVerifierEnv

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
_ROOTS = {"bpf_list_head": "bpf_list_node", "bpf_rb_root": "bpf_rb_node"}
_MODIFIERS = (BtfKind.TYPEDEF, BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT, BtfKind.TYPE_TAG)
DESTRUCTIBLE = frozenset({"task_struct", "cgroup", "bpf_cpumask"})
"""Kernel types that a map value may own. Kernel: the dtor kfuncs of kernel/bpf/helpers.c and kernel/bpf/cpumask.c."""

_ROWS = {
    "bpf_spin_lock": FieldKind.LOCK,
    "bpf_res_spin_lock": FieldKind.LOCK,
    "bpf_timer": FieldKind.TIMER,
    "bpf_list_head": FieldKind.LIST_HEAD,
    "bpf_rb_root": FieldKind.RB_ROOT,
    "bpf_refcount": FieldKind.REFCOUNT,
    "bpf_list_node": FieldKind.LIST_NODE,
    "bpf_rb_node": FieldKind.RB_NODE,
}


BTF_FIELDS_MAX = 11
_IN_OBJECTS = frozenset(
    {
        "bpf_spin_lock",
        "bpf_res_spin_lock",
        "bpf_list_head",
        "bpf_list_node",
        "bpf_rb_root",
        "bpf_rb_node",
        "bpf_refcount",
        "kptr",
    }
)
"""What is special in objects of the program; the rest is for map values. Kernel: kernel/bpf/btf.c:btf_parse_struct_metas."""


class BtfField(NamedTuple):
    """One field of `size` bytes at `offset`. `name`: its struct's, or "kptr".

    `tag`: how a kptr is tagged, and `type_id` the struct that it points to; of a list or tree, `type_id` the struct that it
    contains and `node_at` where in that the node is. Ids are of the BTF that the field was found in.
    Kernel: struct btf_field.
    """

    offset: int
    size: int
    name: str
    tag: str = ""
    type_id: int = 0
    node_at: int = 0


def special_fields(btf: Any, type_id: int, base: int = 0, depth: int = 0, where: tuple[int, int] = (0, -1)) -> list[BtfField]:
    """Each special field of a type, arrays and nested structs included. `where`: (struct, member) or (variable, -1)."""
    if depth > 8 or not type_id:
        return []
    record = btf.type(type_id)
    while record.kind in _MODIFIERS:
        record = btf.type(record.type)
    if record.kind == BtfKind.STRUCT:
        if record.name in _SPECIAL:
            contained, node_at = _contains(btf, record.name, where) if record.name in _ROOTS else (0, 0)
            return [BtfField(base, _SPECIAL[record.name], record.name, "", contained, node_at)]
        return [
            field
            for number, member in enumerate(record.members)
            for field in special_fields(btf, member.type_id, base + member.bit_offset // 8, depth + 1, (record.id, number))
        ]
    if record.kind == BtfKind.ARRAY:
        inner = special_fields(btf, record.type, 0, depth + 1, where)
        size = btf.sizeof(record.type) if inner else 0
        return [field._replace(offset=base + i * size + field.offset) for i in range(min(record.nelems, 1024)) for field in inner]
    if record.kind == BtfKind.DATASEC:
        return [
            field
            for info in record.secinfos
            for field in special_fields(btf, info.type_id, base + info.offset, depth + 1, (info.type_id, -1))
        ]
    if record.kind == BtfKind.VAR:
        return special_fields(btf, record.type, base, depth + 1, (type_id, -1))
    if record.kind == BtfKind.PTR and record.type:
        tag = btf.type(record.type)
        while tag.kind == BtfKind.TYPE_TAG:
            if tag.name in _KPTR_TAGS:
                return [BtfField(base, 8, "kptr", tag.name, btf.strip(tag.type))]
            tag = btf.type(tag.type)
    return []


def object_fields(btf: Any, type_id: int) -> list[BtfField]:
    """Special fields of an object of the program: timers and the like are mere bytes there."""
    return [field for field in special_fields(btf, type_id) if field.name in _IN_OBJECTS]


def _decl_tags(btf: Any) -> dict[tuple[int, int], list[str]]:
    """Declaration tags by (type, component)."""
    known: dict[tuple[int, int], list[str]] | None = btf.__dict__.get("_decl_tags")
    if known is None:
        known = {}
        for record in btf:
            if record.kind == BtfKind.DECL_TAG:
                known.setdefault((record.type, record.component_idx), []).append(record.name)
        btf.__dict__["_decl_tags"] = known
    return known


def _contains(btf: Any, root: str, where: tuple[int, int]) -> tuple[int, int]:
    """(struct, offset of its node) that `contains:struct:node` says of a list head or tree root; (0, 0) without."""
    for text in _decl_tags(btf).get(where, ()):
        kind, _, rest = text.partition(":")
        name, _, node = rest.partition(":")
        type_id = btf.find(name, BtfKind.STRUCT) if kind == "contains" and name else None
        if type_id is None:
            continue
        for member in btf.type(type_id).members:
            if member.name == node and btf.type(btf.strip(member.type_id)).name == _ROOTS[root]:
                return type_id, member.bit_offset // 8
    return 0, 0


def is_local(btf: Any, type_id: int, kernel_btf: Any) -> bool:
    """Whether a struct is the program's own, not one of the kernel. Kernel: btf_parse_kptr"""
    record = btf.type(type_id)
    return kernel_btf is None or kernel_btf.find(record.name, record.kind) is None


def check_fields(btf: Any, fields: list[BtfField], kernel_btf: Any) -> None:
    """What a record of fields must be in itself. BpfError E2BIG, EINVAL, ENOENT. Kernel: btf_parse_fields"""
    names = [field.name for field in fields]
    for single in ("bpf_spin_lock", "bpf_res_spin_lock", "bpf_timer", "bpf_wq", "bpf_refcount", "bpf_task_work"):
        if names.count(single) > 1:
            raise BpfError(7, f"E2BIG: a value has at most one {single}")
    if len(fields) > BTF_FIELDS_MAX:
        raise BpfError(7, f"E2BIG: a value has at most {BTF_FIELDS_MAX} special fields, not {len(fields)}")
    for field in fields:
        if field.name == "kptr":
            record = btf.type(field.type_id) if field.type_id else None
            if record is None or record.kind != BtfKind.STRUCT:
                raise BpfError(EINVAL, f"EINVAL: the {field.tag} at {field.offset} points to no struct")
            if field.tag == "kptr" and not is_local(btf, field.type_id, kernel_btf) and record.name not in DESTRUCTIBLE:
                raise BpfError(ENOENT, f"ENOENT: no destructor for {record.name}, which the kptr at {field.offset} would own")
        if field.name in _ROOTS:
            if not field.type_id:
                raise BpfError(EINVAL, f"EINVAL: {field.name} at {field.offset} does not say what it contains")
            if not {"bpf_spin_lock", "bpf_res_spin_lock"} & set(names):
                raise BpfError(EINVAL, f"EINVAL: {field.name} at {field.offset} has no bpf_spin_lock beside it")
    if {"bpf_list_node", "bpf_rb_node"} <= set(names) and "bpf_refcount" not in names:
        raise BpfError(EINVAL, "EINVAL: an object in a list and in a tree needs a bpf_refcount")


def field_rows(btf: Any, fields: list[BtfField], kernel_btf: Any) -> list[FieldRow]:
    """The fields as the native code is told of them."""
    rows = []
    for field in sorted(fields):
        if field.name in _ROWS:
            rows.append(FieldRow(field.offset, _ROWS[field.name], field.node_at))
        elif field.name == "kptr":
            owned = field.tag in ("kptr", "percpu_kptr")
            heap = is_local(btf, field.type_id, kernel_btf) or btf.type(field.type_id).name == "bpf_cpumask"
            rows.append(FieldRow(field.offset, FieldKind.KPTR_LOCAL if owned and heap else FieldKind.KPTR))
    return rows


def fields_of(env: BpfVerifierEnv, found: Any) -> list[BtfField]:
    """Special fields of a map's value, looked up once per run."""
    known = env.map_fields.get(id(found))
    if known is None:
        btf, type_id = getattr(found, "btf", None), getattr(found, "btf_value_type_id", 0)
        known = special_fields(btf, type_id) if btf is not None and type_id else []
        env.map_fields[id(found)] = known
    return known


def has_field(env: BpfVerifierEnv, found: Any, name: str) -> bool:
    """Whether a map's values hold such a field. Kernel: btf_record_has_field."""
    return any(field.name == name for field in fields_of(env, found))


def keeps_id(env: BpfVerifierEnv, found: Any) -> bool:
    """Whether two values of the map have to be told apart by their id: those with a lock."""
    return has_field(env, found, "bpf_spin_lock")


def check_map_fields(env: BpfVerifierEnv, reg: BpfRegState, off: int, size: int, direct: bool) -> None:
    """No byte that the access may touch belongs to a special field. Errors: EACCES."""
    fields = fields_of(env, reg.map)
    if not fields:
        return
    low, high = reg.bounds.smin_value + off, reg.bounds.umax_value + off + size
    for field in fields:
        if low < field.offset + field.size and field.offset < high:
            if field.name == "kptr":
                _check_kptr_place(env, reg, field, off, size, direct)
                continue
            env.reject(EACCES, f"{field.name} cannot be accessed directly by load/store")


def _check_kptr_place(env: BpfVerifierEnv, reg: BpfRegState, field: BtfField, off: int, size: int, direct: bool) -> None:
    """The access is to the whole kptr, by a load or store. Errors: EACCES."""
    if not direct:
        env.reject(EACCES, "kptr cannot be accessed indirectly by helper")
    if reg.bounds.var_off.mask:
        env.reject(EACCES, "kptr access cannot have variable offset")
    at = off + reg.bounds.smin_value
    if at != field.offset:
        env.reject(EACCES, f"kptr access misaligned expected={field.offset} off={at}")
    if size != 8:
        env.reject(EACCES, "kptr access size must be BPF_DW")


def check_field_pointer(env: BpfVerifierEnv, regno: int, reg: BpfRegState, name: str) -> None:
    """A pointer into a map value or an object points at its field `name`. Errors: EINVAL.

    Kernel: check_map_field_pointer, process_spin_lock
    """
    found, in_map = reg.map, base_type(reg.type) == PTR_TO_MAP_VALUE
    if reg.bounds.var_off.mask:
        env.reject(EINVAL, f"R{regno} doesn't have constant offset. {name} has to be at the constant offset")
    if in_map and getattr(found, "btf", None) is None:
        env.reject(EINVAL, f"map '{found.name}' has to have BTF in order to use {name}")
    fields = fields_of(env, found) if in_map else object_fields(found, reg.num)
    places = [field.offset for field in fields if field.name == name]
    if len(places) != 1:
        owner = f"map '{found.name}'" if in_map else "local 'kptr'"
        env.reject(EINVAL, f"{owner} has no valid {name}")
    off = reg.off + reg.bounds.smin_value
    if places[0] != off:
        env.reject(EINVAL, f"off {off} doesn't point to 'struct {name}' that is at {places[0]}")
