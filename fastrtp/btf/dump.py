"""C definitions of types with everything that they need, in an order that a compiler accepts: a vmlinux.h, whole or in part.

Structs that are only pointed to are declared, not defined, unless asked for. Layout is kept: padding, packing and alignment
are written where the members alone would not give the same offsets. Two types of one name get a flavour suffix (`name___2`).
Kernel: tools/lib/bpf/btf_dump.c
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastrtp.errors import BtfError

from .cformat import c_decl, c_name
from .parse import Btf
from .types import COMPOSITES, ENUMS, BtfKind, BtfType, Member

_MAX_NESTING = 32
_MAX_OPAQUE = 1 << 12
_MAX_BODIES = 1 << 12
"""Anonymous members in one definition: each use of an anonymous type writes it again."""
_BUILTIN_NAMES = frozenset(
    (
        "void", "char", "signed char", "unsigned char", "short", "short int", "short unsigned int", "unsigned short", "int",
        "unsigned int", "long", "long int", "long unsigned int", "unsigned long", "long long", "long long int",
        "long long unsigned int", "unsigned long long", "__int128", "__int128 unsigned", "unsigned __int128", "_Bool", "bool",
        "float", "double", "long double",
    )
)  # fmt: skip
_COMPILER_TYPEDEFS = frozenset(("__builtin_va_list",))
"""Typedefs that a C compiler has built in, for another machine than the kernel's: they get another name."""
_DEFINED = frozenset((*COMPOSITES, *ENUMS, BtfKind.TYPEDEF, BtfKind.INT, BtfKind.FWD))
"""Kinds that have a definition of their own; the others only say how these are used."""
_INT_SPELLING = {"__int128 unsigned": "unsigned __int128", "_Bool": "bool"}

VMLINUX_H_BEGIN = """#ifndef __VMLINUX_H__
#define __VMLINUX_H__
#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute push (__attribute__((preserve_access_index)), apply_to = record)
#endif
"""
VMLINUX_H_END = """#ifndef BPF_NO_PRESERVE_ACCESS_INDEX
#pragma clang attribute pop
#endif
#endif
"""


def dump_header(btf: Btf, roots: Iterable[int] | None = None) -> str:
    """A header with the definitions of `roots` (default: every type), for CO-RE programs. Raises `BtfError`."""
    return VMLINUX_H_BEGIN + "\n" + "\n".join(dump_types(btf, roots)) + "\n" + VMLINUX_H_END


def dump_types(btf: Btf, roots: Iterable[int] | None = None) -> list[str]:
    """C definitions, dependencies first. Raises `BtfError` for cycles of types that contain themselves."""
    dumper = _Dumper(btf)
    enums: list[int] = []
    for root in roots if roots is not None else range(1, len(btf)):
        kind = btf.kind(root)
        if kind in ENUMS and not btf.type(root).name:
            enums.append(root)
        elif roots is not None or kind in _DEFINED:
            dumper.define(root)
    for root in enums:
        dumper.define_constants(root)
    return dumper.out


class _Dumper:
    """What has been written so far."""

    def __init__(self, btf: Btf) -> None:
        self._btf = btf
        self.out: list[str] = []
        self._state: dict[int, bool] = {}
        self._declared: set[str] = set()
        self._names: dict[int, str] = {}
        self._aligns: dict[int, int] = {}
        self._packed: dict[int, bool] = {}
        self._bodies = 0
        self._taken: dict[tuple[str, str], int] = {}

    def define(self, root: int) -> None:
        """Write a type's definition after those of the types that it contains; iterative, so depth costs no stack."""
        stack: list[tuple[int, Iterator[tuple[int, bool]]]] = []
        self._enter(root, stack)
        while stack:
            type_id, needs = stack[-1]
            need = next(needs, None)
            if need is None:
                stack.pop()
                self._state[type_id] = True
                self._write(self._btf.type(type_id))
                continue
            self._need(need[0], need[1], stack)

    def _need(self, type_id: int, by_value: bool, stack: list[tuple[int, Iterator[tuple[int, bool]]]]) -> None:
        record = self._btf.type(type_id)
        if not by_value and record.name and (record.kind in COMPOSITES or record.kind == BtfKind.FWD):
            self._declare(record)
            return
        done = self._state.get(type_id)
        if done is None:
            self._enter(type_id, stack)
        elif not done and by_value and record.kind in COMPOSITES:
            raise BtfError(f"type [{type_id}] {c_name(record)} contains itself")

    def _enter(self, type_id: int, stack: list[tuple[int, Iterator[tuple[int, bool]]]]) -> None:
        if type_id and type_id not in self._state:
            self._state[type_id] = False
            stack.append((type_id, self._needs(self._btf.type(type_id))))

    def _needs(self, record: BtfType) -> Iterator[tuple[int, bool]]:
        """(type id, whether its full definition is needed) of what a type's C text mentions."""
        if record.kind in COMPOSITES:
            for member in record.members:
                yield from self._reach(member.type_id)
        elif record.kind == BtfKind.FUNC_PROTO:
            for param in record.params:
                yield from self._reach(param.type_id)
            yield from self._reach(record.type)
        elif record.kind not in ENUMS and record.kind not in (BtfKind.INT, BtfKind.FLOAT, BtfKind.FWD):
            if record.kind in (BtfKind.FUNC, BtfKind.VAR, BtfKind.DATASEC, BtfKind.DECL_TAG):
                return
            # a typedef itself needs no more than a declaration; who uses it by value asks for what is below it
            is_array = self._btf.type(self._btf.strip_modifiers(record.type)).kind == BtfKind.ARRAY
            yield from self._reach(record.type, pointer=record.kind == BtfKind.PTR or not is_array)

    def _reach(self, type_id: int, *, pointer: bool = False) -> Iterator[tuple[int, bool]]:
        for _ in range(_MAX_NESTING):
            record = self._btf.type(type_id)
            if record.kind in (BtfKind.CONST, BtfKind.VOLATILE, BtfKind.RESTRICT, BtfKind.TYPE_TAG, BtfKind.ARRAY):
                type_id = record.type
            elif record.kind == BtfKind.PTR:
                type_id, pointer = record.type, True
            else:
                yield type_id, not pointer
                if pointer or record.kind != BtfKind.TYPEDEF:
                    return
                type_id = record.type
        raise BtfError(f"type [{type_id}]: nested deeper than {_MAX_NESTING}, or a cycle")

    def name(self, record: BtfType) -> str:
        """A name that no other type of the same C name space has."""
        known = self._names.get(record.id)
        if known is None:
            space = "tag" if record.kind in COMPOSITES or record.kind in ENUMS or record.kind == BtfKind.FWD else "ordinary"
            if record.kind == BtfKind.FWD:
                return record.name
            if record.name in _COMPILER_TYPEDEFS:
                return f"__kernel{record.name}"
            count = self._taken[space, record.name] = self._taken.get((space, record.name), 0) + 1
            known = self._names[record.id] = record.name if count == 1 else f"{record.name}___{count}"
        return known

    def _text(self, record: BtfType) -> str:
        """A type as other types mention it: by name, or defined on the spot when it has none."""
        if record.kind in COMPOSITES or record.kind in ENUMS:
            return self._keyword(record) + f" {self.name(record)}" if record.name else self._body(record, 1)
        if record.kind == BtfKind.INT:
            return _INT_SPELLING.get(record.name, record.name)
        if record.kind == BtfKind.TYPEDEF:
            return self.name(record)
        return c_name(record)

    @staticmethod
    def _keyword(record: BtfType) -> str:
        return "struct" if record.kind == BtfKind.STRUCT else "union" if record.kind == BtfKind.UNION else "enum"

    def _declare(self, record: BtfType) -> None:
        text = f"{'union' if record.kind == BtfKind.UNION or record.kind_flag else 'struct'} {record.name};"
        if record.kind in COMPOSITES:
            text = f"{self._keyword(record)} {self.name(record)};"
        if text not in self._declared:
            self._declared.add(text)
            self.out.append(text)

    def _write(self, record: BtfType) -> None:
        self._bodies = 0
        kind = record.kind
        if kind in COMPOSITES or kind in ENUMS:
            if record.name:
                self.out.append(self._body(record, 0) + ";")
        elif kind == BtfKind.FWD:
            self._declare(record)
        elif kind == BtfKind.TYPEDEF:
            if record.name == "bool":
                self._names[record.id] = "bool"
            self.out.append(f"typedef {c_decl(self._btf, record.type, self.name(record), self._text)};")
        elif kind == BtfKind.INT and record.name not in _BUILTIN_NAMES and record.size in (1, 2, 4, 8):
            word = {1: "char", 2: "short", 4: "int", 8: "long long"}[record.size]
            self.out.append(f"typedef {'signed' if record.signed else 'unsigned'} {word} {record.name};")
        elif kind == BtfKind.INT and record.name == "_Bool":
            self.out.append("typedef _Bool bool;")

    def define_constants(self, root: int) -> None:
        """Write an anonymous enum that no member or typedef has brought along."""
        record = self._btf.type(root)
        if not {value.name for value in record.values} & self._declared:
            self.out.append(self._body(record, 0) + ";")

    def _body(self, record: BtfType, depth: int) -> str:
        self._bodies += 1
        if depth > _MAX_NESTING or self._bodies > _MAX_BODIES:
            raise BtfError(f"type [{record.id}]: anonymous members nested deeper than {_MAX_NESTING}, or too many")
        head = f"{self._keyword(record)} {self.name(record) if record.name else ''}".rstrip()
        if record.kind in ENUMS:
            return self._enum_body(record, head)
        indent = "\t" * max(depth, 1)
        if depth == 0:
            depth = 1
        lines = [f"{indent}{line}" for line in self._member_lines(record, depth)]
        attributes = " __attribute__((packed))" if self._is_packed(record) else ""
        if self._over_alignment(record):
            attributes += f" __attribute__((aligned({self._over_alignment(record)})))"
        closing = "\t" * (depth - 1)
        body = "\n".join(lines)
        return f"{head} {{\n{body}\n{closing}}}{attributes}" if lines else f"{head} {{}}"

    def _enum_body(self, record: BtfType, head: str) -> str:
        values = []
        for label, value in record.values:
            if label in self._declared:
                continue
            self._declared.add(label)
            suffix = "" if record.kind_flag or value < 1 << 31 else "U" if value < 1 << 32 else "ULL"
            if record.kind_flag and value == -(1 << 63):
                values.append(f"\t{label} = (-9223372036854775807LL - 1),")
            else:
                values.append(f"\t{label} = {value}{suffix},")
        mode = {1: " __attribute__((mode(byte)))", 8: " __attribute__((mode(word)))"}.get(record.size, "")
        if values:
            return f"{head} {{\n" + "\n".join(values) + f"\n}}{mode}"
        if record.name:
            return f"{head} {{ __{record.id}_EMPTY }}{mode}"
        # an anonymous enum used a second time: its constants are there already
        return f"{'' if record.kind_flag else 'unsigned '}{ {1: 'char', 2: 'short', 8: 'long long'}.get(record.size, 'int') }"

    def _member_lines(self, record: BtfType, depth: int) -> list[str]:
        """Members as C, with padding where a gap in a struct is larger than alignment makes it."""
        lines: list[str] = []
        at = 0
        packed = self._is_packed(record)
        for member in record.members:
            if record.kind == BtfKind.STRUCT:
                lines += self._padding(at, member, packed)
                at = member.bit_offset + (member.bitfield_size or 8 * self._size(member.type_id))
            text = c_decl(self._btf, member.type_id, member.name, lambda base: self._inline(base, depth))
            bits = f": {member.bitfield_size}" if member.bitfield_size else ""
            lines.append(f"{text}{bits};")
        if record.kind == BtfKind.STRUCT and not record.members and 0 < record.size <= _MAX_OPAQUE:
            # all its members are unnamed bitfields (struct bpf_timer)
            return ["long: 64;"] * (record.size // 8) + ["char: 8;"] * (record.size % 8)
        if record.kind == BtfKind.STRUCT and record.members and not self._over_alignment(record):
            align = 1 if packed else self._members_align(record)
            if -(-at // (8 * align)) * align < record.size:
                lines.append(self._pad_bytes(at, record.size * 8))
        return lines

    @staticmethod
    def _pad_bytes(at: int, end: int) -> str:
        first = -(-at // 8)
        return f"char __pad_{first}[{end // 8 - first}];"

    def _padding(self, at: int, member: Member, packed: bool) -> list[str]:
        if member.bitfield_size:
            gap = member.bit_offset - at
            if gap <= 0:
                return []
            unit = 8 * self._size(member.type_id)
            first_free = -(-at // unit) * unit
            # a bitfield that does not fit its unit moves to the next one without help
            if at % unit + member.bitfield_size > unit and member.bit_offset == first_free:
                return []
            out = []
            if member.bit_offset // unit != at // unit:
                out, at = ["int: 0;"] if unit <= 32 else ["long: 0;"], (at // unit + 1) * unit
            if at // 8 + 8 <= member.bit_offset // 8:
                whole = member.bit_offset // 8 - -(-at // 8)
                out.append(f"char __pad_{-(-at // 8)}[{whole}];")
                at = 8 * (member.bit_offset // 8)
            if member.bit_offset > at:
                out.append(f"int: {member.bit_offset - at};")
            return out
        align = 1 if packed else self._align(member.type_id)
        expected = -(-at // (8 * align)) * 8 * align
        return [self._pad_bytes(at, member.bit_offset)] if expected < member.bit_offset else []

    def _inline(self, record: BtfType, depth: int) -> str:
        if record.kind in COMPOSITES and not record.name:
            return self._body(record, depth + 1)
        if record.kind in ENUMS and not record.name:
            return self._body(record, depth + 1)
        return self._text(record)

    def _size(self, type_id: int) -> int:
        try:
            return self._btf.sizeof(type_id)
        except BtfError:
            return 0

    def _align(self, type_id: int, depth: int = 0) -> int:
        """Alignment in bytes on a 64-bit machine, as the C text of the type gives it."""
        if depth > 4 * _MAX_NESTING:
            raise BtfError(f"type [{type_id}]: nested deeper than {_MAX_NESTING}")
        known = self._aligns.get(type_id)
        if known is not None:
            return known
        record = self._btf.type(self._btf.strip(type_id))
        if record.kind == BtfKind.PTR:
            known = 8
        elif record.kind == BtfKind.ARRAY:
            known = self._align(record.type, depth + 1)
        elif record.kind not in COMPOSITES:
            known = min(record.size, 16) or 1
        elif record.id != type_id:
            known = self._align(record.id, depth + 1)
        else:
            natural = 1 if self._is_packed(record, depth + 1) else self._members_align(record, depth + 1)
            known = max(natural, self._over_alignment(record, depth + 1))
        self._aligns[type_id] = known
        return known

    def _members_align(self, record: BtfType, depth: int = 0) -> int:
        return max((self._align(member.type_id, depth + 1) for member in record.members), default=1)

    def _is_packed(self, record: BtfType, depth: int = 0) -> bool:
        """Whether the offsets or the size break natural alignment. Kernel: btf_dump.c:btf_is_struct_packed"""
        if record.kind not in COMPOSITES or not record.members:
            return False
        known = self._packed.get(record.id)
        if known is None:
            aligns = [self._align(member.type_id, depth + 1) for member in record.members]
            misplaced = any(not m.bitfield_size and m.bit_offset % (8 * a) for m, a in zip(record.members, aligns, strict=True))
            known = self._packed[record.id] = misplaced or record.size % max(aligns) != 0
        return known

    def _over_alignment(self, record: BtfType, depth: int = 0) -> int:
        """The `aligned` attribute that explains a size beyond the last member's end, 0 when none does or none is needed."""
        if not record.members or record.kind != BtfKind.STRUCT:
            return 0
        last = record.members[-1]
        end = -(-(last.bit_offset + (last.bitfield_size or 8 * self._size(last.type_id))) // 8)
        align = 1 if self._is_packed(record, depth + 1) else self._members_align(record, depth + 1)
        if -(-end // align) * align >= record.size:
            return 0
        while align < 4096:
            align *= 2
            if -(-end // align) * align == record.size:
                return align
        return 0
