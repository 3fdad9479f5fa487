"""CO-RE access specs: what a relocation names in the program's types, and the same thing found in the kernel's.

Kernel: tools/lib/bpf/relo_core.c:bpf_core_parse_spec, bpf_core_spec_match, bpf_core_match_member, bpf_core_fields_are_compat
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from fastrtp.errors import BtfError

from .core_types import essential_name, kind_core_compat, names_match, types_are_compat, types_match
from .parse import Btf
from .types import COMPOSITES, ENUMS, MAX_RESOLVE_DEPTH, BtfKind, BtfType

BPF_CORE_SPEC_MAX_LEN = 64
"""Longest access path, in steps."""


class CoreReloKind(IntEnum):
    """enum bpf_core_relo_kind, without the prefix BPF_CORE_."""

    FIELD_BYTE_OFFSET = 0
    FIELD_BYTE_SIZE = 1
    FIELD_EXISTS = 2
    FIELD_SIGNED = 3
    FIELD_LSHIFT_U64 = 4
    FIELD_RSHIFT_U64 = 5
    TYPE_ID_LOCAL = 6
    TYPE_ID_TARGET = 7
    TYPE_EXISTS = 8
    TYPE_SIZE = 9
    ENUMVAL_EXISTS = 10
    ENUMVAL_VALUE = 11
    TYPE_MATCHES = 12


class CoreRelo(NamedTuple):
    """One relocation record: the instruction's index, the program's type, the access string ("0:1:2") and the kind."""

    insn_idx: int
    type_id: int
    access_str: str
    kind: int


class Accessor(NamedTuple):
    """A step of a path: in type `type_id`, member, element or enumerator `idx`; `name` is None for an array element."""

    type_id: int
    idx: int
    name: str | None


class CoreSpec(NamedTuple):
    """A resolved path; `bit_offset` from the start of the root type."""

    btf: Btf
    root_type_id: int
    accessors: tuple[Accessor, ...] = ()
    bit_offset: int = 0


def is_field_relo(kind: CoreReloKind) -> bool:
    """Relocations about a member of a struct."""
    return kind <= CoreReloKind.FIELD_RSHIFT_U64


def is_enumval_relo(kind: CoreReloKind) -> bool:
    """Relocations about an enumerator."""
    return kind in (CoreReloKind.ENUMVAL_EXISTS, CoreReloKind.ENUMVAL_VALUE)


def _is_flex_array(btf: Btf, holder: Accessor | None, array: BtfType) -> bool:
    """An array without length that is its struct's last member may be indexed past its end."""
    if holder is None or holder.name is None or array.nelems:
        return False
    return holder.idx == btf.type(holder.type_id).vlen - 1


def parse_spec(btf: Btf, relo: CoreRelo) -> CoreSpec:
    """Resolve a relocation's access string in the program's types. Raises `BtfError`.

    Kernel: relo_core.c:bpf_core_parse_spec
    """
    kind = CoreReloKind(relo.kind)
    bad = BtfError(f"type [{relo.type_id}]: bad access string {relo.access_str!r}")
    if not (is_field_relo(kind) or is_enumval_relo(kind)):
        if relo.access_str != "0":
            raise bad
        return CoreSpec(btf, relo.type_id)
    parts = relo.access_str.split(":")
    if len(parts) > BPF_CORE_SPEC_MAX_LEN:
        raise BtfError(f"type [{relo.type_id}]: access string of {len(parts)} steps, at most {BPF_CORE_SPEC_MAX_LEN}")
    if not all(part.isascii() and part.isdigit() and len(part) < 11 for part in parts):
        raise bad
    raw = [int(part) for part in parts]
    type_id = btf.strip(relo.type_id)
    record = btf.type(type_id)
    if is_enumval_relo(kind):
        if record.kind not in ENUMS or len(raw) > 1 or raw[0] >= record.vlen:
            raise bad
        return CoreSpec(btf, relo.type_id, (Accessor(type_id, raw[0], record.values[raw[0]].name),))
    accessors = [Accessor(type_id, raw[0], None)]
    bits = raw[0] * btf.sizeof(type_id) * 8
    for idx in raw[1:]:
        type_id = btf.strip(type_id)
        record = btf.type(type_id)
        if record.kind in COMPOSITES:
            if idx >= record.vlen:
                raise bad
            member = record.members[idx]
            bits += member.bit_offset
            if member.name:
                accessors.append(Accessor(type_id, idx, member.name))
            type_id = member.type_id
        elif record.kind == BtfKind.ARRAY:
            if idx >= record.nelems and not _is_flex_array(btf, accessors[-1], record):
                raise bad
            type_id = btf.strip(record.type)
            accessors.append(Accessor(type_id, idx, None))
            bits += idx * btf.sizeof(type_id) * 8
        else:
            raise BtfError(f"type [{relo.type_id}]: access string {relo.access_str!r} goes into a {record.kind.name}")
    return CoreSpec(btf, relo.type_id, tuple(accessors), bits)


def match_spec(local: CoreSpec, kind: CoreReloKind, targ_btf: Btf, targ_id: int) -> CoreSpec | None:
    """The same path in a candidate of the kernel's types, None when it is not there.

    Kernel: relo_core.c:bpf_core_spec_match
    """
    if kind == CoreReloKind.TYPE_MATCHES:
        return CoreSpec(targ_btf, targ_id) if types_match(local.btf, local.root_type_id, targ_btf, targ_id) else None
    if is_enumval_relo(kind):
        return _match_enumval(local, targ_btf, targ_id)
    if not is_field_relo(kind):
        return CoreSpec(targ_btf, targ_id) if types_are_compat(local.btf, local.root_type_id, targ_btf, targ_id) else None
    accessors: list[Accessor] = []
    bits, type_id = 0, targ_id
    for step, accessor in enumerate(local.accessors):
        type_id = targ_btf.strip(type_id)
        if accessor.name is not None:
            found = _match_member(local.btf, accessor, targ_btf, type_id, 0, set())
            if found is None:
                return None
            steps, offset, type_id = found
            accessors += steps
            bits += offset
        else:
            if step:
                record = targ_btf.type(type_id)
                if record.kind != BtfKind.ARRAY:
                    return None
                if accessor.idx >= record.nelems and not _is_flex_array(targ_btf, accessors[-1] if accessors else None, record):
                    return None
                type_id = targ_btf.strip(record.type)
            accessors.append(Accessor(type_id, accessor.idx, None))
            bits += accessor.idx * targ_btf.sizeof(type_id) * 8
        if len(accessors) > BPF_CORE_SPEC_MAX_LEN:
            raise BtfError(f"type [{targ_id}]: path of more than {BPF_CORE_SPEC_MAX_LEN} steps")
    return CoreSpec(targ_btf, targ_id, tuple(accessors), bits)


def _match_enumval(local: CoreSpec, targ_btf: Btf, targ_id: int) -> CoreSpec | None:
    type_id = targ_btf.strip(targ_id)
    record = targ_btf.type(type_id)
    if record.kind not in ENUMS:
        return None
    wanted = local.accessors[0].name or ""
    for idx, enumerator in enumerate(record.values):
        if names_match(wanted, enumerator.name):
            return CoreSpec(targ_btf, targ_id, (Accessor(type_id, idx, enumerator.name),))
    return None


def _match_member(
    local_btf: Btf, accessor: Accessor, targ_btf: Btf, targ_id: int, depth: int, seen: set[int]
) -> tuple[list[Accessor], int, int] | None:
    """(steps, bit offset, member's type id) of the member that a step names, through anonymous members; each type once.

    Kernel: relo_core.c:bpf_core_match_member
    """
    targ_id = targ_btf.strip(targ_id)
    record = targ_btf.type(targ_id)
    if record.kind not in COMPOSITES or targ_id in seen:
        return None
    seen.add(targ_id)
    if depth > MAX_RESOLVE_DEPTH:
        raise BtfError(f"type [{targ_id}]: anonymous members nested deeper than {MAX_RESOLVE_DEPTH}")
    local_member = local_btf.type(accessor.type_id).members[accessor.idx]
    for idx, member in enumerate(record.members):
        if not member.name:
            found = _match_member(local_btf, accessor, targ_btf, member.type_id, depth + 1, seen)
            if found is not None:
                return [Accessor(targ_id, idx, ""), *found[0]], member.bit_offset + found[1], found[2]
        elif member.name == local_member.name:
            if not fields_are_compat(local_btf, local_member.type_id, targ_btf, member.type_id):
                return None
            return [Accessor(targ_id, idx, member.name)], member.bit_offset, member.type_id
    return None


def fields_are_compat(local_btf: Btf, local_id: int, targ_btf: Btf, targ_id: int) -> bool:
    """Whether a member of one type may be read as another: any integers, pointers, structs; enums of one name.

    Kernel: relo_core.c:bpf_core_fields_are_compat
    """
    for _ in range(MAX_RESOLVE_DEPTH):
        local, targ = local_btf.type(local_btf.strip(local_id)), targ_btf.type(targ_btf.strip(targ_id))
        if local.kind in COMPOSITES and targ.kind in COMPOSITES:
            return True
        if not kind_core_compat(local, targ):
            return False
        if local.kind in (BtfKind.PTR, BtfKind.FLOAT):
            return True
        if local.kind in ENUMS or local.kind == BtfKind.FWD:
            names = essential_name(local.name), essential_name(targ.name)
            return not names[0] or not names[1] or names[0] == names[1]
        if local.kind == BtfKind.INT:
            return local.int_offset == 0 and targ.int_offset == 0
        if local.kind != BtfKind.ARRAY:
            return False
        local_id, targ_id = local.type, targ.type
    raise BtfError(f"type [{targ_id}]: arrays nested deeper than {MAX_RESOLVE_DEPTH}")
