"""What a BTF type record holds, decoded: kinds, members, parameters, enumerators.

Kernel: include/uapi/linux/btf.h. Values here are plain facts of one record; references to other types are ids,
and only `Btf` can follow them.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class BtfKind(IntEnum):
    """BTF_KIND_*, without the prefix."""

    UNKN = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


BTF_MAGIC = 0xEB9F
BTF_INT_SIGNED = 1
BTF_INT_CHAR = 2
BTF_INT_BOOL = 4

BTF_VAR_STATIC = 0
BTF_VAR_GLOBAL_ALLOCATED = 1
BTF_VAR_GLOBAL_EXTERN = 2

BTF_FUNC_STATIC = 0
BTF_FUNC_GLOBAL = 1
BTF_FUNC_EXTERN = 2

MAX_RESOLVE_DEPTH = 32
"""Longest chain of references that is followed. Kernel: kernel/bpf/btf.c:MAX_RESOLVE_DEPTH."""

MODIFIERS = frozenset((BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG))
COMPOSITES = frozenset((BtfKind.STRUCT, BtfKind.UNION))
ENUMS = frozenset((BtfKind.ENUM, BtfKind.ENUM64))
SIZED = frozenset((BtfKind.INT, BtfKind.STRUCT, BtfKind.UNION, BtfKind.ENUM, BtfKind.DATASEC, BtfKind.FLOAT, BtfKind.ENUM64))
"""Kinds whose third word is a size in bytes; in the others it is a type id (or unused)."""

FIXED_WORDS = {BtfKind.INT: 1, BtfKind.ARRAY: 3, BtfKind.VAR: 1, BtfKind.DECL_TAG: 1}
"""32-bit words that follow the 12-byte btf_type whatever its vlen."""

VLEN_WORDS = {
    BtfKind.STRUCT: 3,
    BtfKind.UNION: 3,
    BtfKind.ENUM: 2,
    BtfKind.FUNC_PROTO: 2,
    BtfKind.DATASEC: 3,
    BtfKind.ENUM64: 3,
}
"""32-bit words per element of a kind that has vlen elements."""


class Member(NamedTuple):
    """A struct's or union's member; offsets and sizes in bits, `bitfield_size` 0 for an ordinary member."""

    name: str
    type_id: int
    bit_offset: int
    bitfield_size: int


class Param(NamedTuple):
    """A parameter of a function prototype; a last one of type 0 without a name is `...`."""

    name: str
    type_id: int


class EnumValue(NamedTuple):
    """An enumerator, its value signed or not as its enum says."""

    name: str
    value: int


class SecInfo(NamedTuple):
    """A variable's place in a data section, in bytes."""

    type_id: int
    offset: int
    size: int


class Field(NamedTuple):
    """Where a member path ends, measured from the start of the outermost struct.

    `offset_bytes`, `size`: the storage to load, in bytes (of a bitfield: the naturally aligned unit that holds it).
    `bit_offset`: the field's first bit from the start of the struct. `bitfield_size`: bits, 0 for an ordinary member.
    """

    offset_bytes: int
    size: int
    type_id: int
    bit_offset: int
    bitfield_size: int


class BtfType(NamedTuple):
    """One type record. `type` is the id that it refers to (0: none or void); `size` is in bytes.

    `linkage` is a VAR's or FUNC's; `nelems` and `index_type` are an ARRAY's; `encoding`, `bits` and `int_offset` an INT's;
    `component_idx` a DECL_TAG's (-1: the type itself).
    """

    id: int
    kind: BtfKind
    name: str
    size: int = 0
    type: int = 0
    vlen: int = 0
    kind_flag: bool = False
    members: tuple[Member, ...] = ()
    params: tuple[Param, ...] = ()
    values: tuple[EnumValue, ...] = ()
    secinfos: tuple[SecInfo, ...] = ()
    nelems: int = 0
    index_type: int = 0
    encoding: int = 0
    bits: int = 0
    int_offset: int = 0
    linkage: int = 0
    component_idx: int = -1

    @property
    def signed(self) -> bool:
        """An INT with the signed encoding, or an enum with negative enumerators."""
        if self.kind == BtfKind.INT:
            return bool(self.encoding & BTF_INT_SIGNED)
        return self.kind in ENUMS and self.kind_flag
