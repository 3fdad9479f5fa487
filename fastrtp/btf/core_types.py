"""CO-RE: when a type of the program and a type of the kernel are the same.

Names are compared without their flavour (`task_struct___old` is task_struct). `types_are_compat` is what TYPE_EXISTS and
TYPE_SIZE ask, `types_match` what TYPE_MATCHES asks, member by member.
Kernel: tools/lib/bpf/relo_core.c:__bpf_core_types_are_compat, __bpf_core_types_match. Differs: answers are remembered per pair of
types and depth, so that hostile prototypes cost polynomial time.
"""

from __future__ import annotations

from fastrtp.errors import BtfError

from .parse import Btf
from .types import BTF_INT_SIGNED, COMPOSITES, ENUMS, MAX_RESOLVE_DEPTH, BtfKind, BtfType

_MAX_STEPS = 1 << 18
"""Pairs of types compared for one answer."""


def essential_name(name: str) -> str:
    """A name without its flavour, the part after the last `___` that follows something and is followed by something.

    Kernel: relo_core.c:bpf_core_essential_name_len
    """
    if "___" not in name:
        return name
    for at in range(len(name) - 5, -1, -1):
        if name[at] != "_" and name[at + 1 : at + 4] == "___" and name[at + 4] != "_":
            return name[: at + 1]
    return name


def names_match(local: str, targ: str) -> bool:
    """Equal without their flavours; an anonymous type matches an anonymous one only."""
    return essential_name(local) == essential_name(targ)


def kind_core_compat(local: BtfType, targ: BtfType) -> bool:
    """The same kind, or both enums of any size. Kernel: btf.h:btf_kind_core_compat"""
    return local.kind == targ.kind or (local.kind in ENUMS and targ.kind in ENUMS)


def types_are_compat(local_btf: Btf, local_id: int, targ_btf: Btf, targ_id: int) -> bool:
    """Types of the same kind with compatible referenced types; names of the outermost types are not looked at.

    Kernel: relo_core.c:__bpf_core_types_are_compat
    """
    if not kind_core_compat(local_btf.type(local_id), targ_btf.type(targ_id)):
        return False
    return _Comparison(local_btf, targ_btf).compat(local_id, targ_id, MAX_RESOLVE_DEPTH)


def types_match(local_btf: Btf, local_id: int, targ_btf: Btf, targ_id: int) -> bool:
    """Whether the program's type is the kernel's, or a subset of its members with matching types.

    Kernel: relo_core.c:__bpf_core_types_match
    """
    return _Comparison(local_btf, targ_btf).match(local_id, targ_id, False, MAX_RESOLVE_DEPTH)


class _Comparison:
    """One question about two types, with the answers on the way."""

    def __init__(self, local_btf: Btf, targ_btf: Btf) -> None:
        self.local_btf = local_btf
        self.targ_btf = targ_btf
        self._known: dict[tuple[int, int, bool, int], bool] = {}
        self._steps = 0

    def _step(self, local_id: int, targ_id: int) -> tuple[BtfType, BtfType]:
        self._steps += 1
        if self._steps > _MAX_STEPS:
            raise BtfError(f"type [{local_id}]: comparison with [{targ_id}] takes more than {_MAX_STEPS} steps")
        return self.local_btf.type(self.local_btf.strip(local_id)), self.targ_btf.type(self.targ_btf.strip(targ_id))

    def compat(self, local_id: int, targ_id: int, level: int) -> bool:
        """types_are_compat at one depth."""
        if level < 0:
            raise BtfError(f"type [{local_id}]: nested deeper than {MAX_RESOLVE_DEPTH}")
        local, targ = self._step(local_id, targ_id)
        if not kind_core_compat(local, targ):
            return False
        kind = local.kind
        if kind == BtfKind.INT:
            return local.int_offset == 0 and targ.int_offset == 0
        if kind in (BtfKind.PTR, BtfKind.ARRAY):
            return self.compat(local.type, targ.type, level - 1)
        if kind == BtfKind.FUNC_PROTO:
            if local.vlen != targ.vlen:
                return False
            key = (local.id, targ.id, False, level)
            if key not in self._known:
                pairs = [(a.type_id, b.type_id) for a, b in zip(local.params, targ.params, strict=True)]
                self._known[key] = all(self.compat(a, b, level - 1) for a, b in [*pairs, (local.type, targ.type)])
            return self._known[key]
        return kind in (BtfKind.UNKN, BtfKind.FWD) or kind in COMPOSITES or kind in ENUMS

    def match(self, local_id: int, targ_id: int, behind_ptr: bool, level: int) -> bool:
        """types_match at one depth; behind a pointer, structs are compared by name alone."""
        if level <= 0:
            raise BtfError(f"type [{local_id}]: nested deeper than {MAX_RESOLVE_DEPTH}")
        local, targ = self._step(local_id, targ_id)
        if not names_match(local.name, targ.name):
            return False
        kind = local.kind
        if kind == BtfKind.FWD:
            if local.kind == targ.kind:
                return local.kind_flag == targ.kind_flag
            return behind_ptr and targ.kind == (BtfKind.UNION if local.kind_flag else BtfKind.STRUCT)
        if kind in ENUMS:
            return targ.kind in ENUMS and _enums_match(local, targ)
        if kind in COMPOSITES:
            if behind_ptr:
                return kind == targ.kind or (targ.kind == BtfKind.FWD and (kind == BtfKind.UNION) == targ.kind_flag)
            return kind == targ.kind and self._composites_match(local, targ, level)
        if kind != targ.kind:
            return False
        if kind == BtfKind.INT:
            signs = local.encoding & BTF_INT_SIGNED, targ.encoding & BTF_INT_SIGNED
            return local.size == targ.size and signs[0] == signs[1]
        if kind == BtfKind.PTR:
            return self.match(local.type, targ.type, True, level - 1)
        if kind == BtfKind.ARRAY:
            return local.nelems == targ.nelems and self.match(local.type, targ.type, behind_ptr, level - 1)
        if kind == BtfKind.FUNC_PROTO:
            if local.vlen != targ.vlen:
                return False
            key = (local.id, targ.id, behind_ptr, level)
            if key not in self._known:
                pairs = [(a.type_id, b.type_id) for a, b in zip(local.params, targ.params, strict=True)]
                self._known[key] = all(self.match(a, b, behind_ptr, level - 1) for a, b in [*pairs, (local.type, targ.type)])
            return self._known[key]
        return kind == BtfKind.UNKN

    def _composites_match(self, local: BtfType, targ: BtfType, level: int) -> bool:
        """Each of the program's members has one of the same name and a matching type. Kernel: bpf_core_composites_match"""
        if local.vlen > targ.vlen:
            return False
        key = (local.id, targ.id, False, level)
        if key not in self._known:
            self._known[key] = all(
                any(
                    names_match(member.name, other.name) and self.match(member.type_id, other.type_id, False, level - 1)
                    for other in targ.members
                )
                for member in local.members
            )
        return self._known[key]


def _enums_match(local: BtfType, targ: BtfType) -> bool:
    """Each of the program's enumerators is there by name, whatever its value. Kernel: bpf_core_enums_match"""
    if local.size != targ.size or local.vlen > targ.vlen:
        return False
    names = {essential_name(value.name) for value in targ.values}
    return all(essential_name(value.name) in names for value in local.values)
