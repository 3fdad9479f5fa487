"""C text of types: declarations and prototypes.

A declarator is built from the name outwards: pointers go before it, arrays and parameter lists after it.
Named structs, unions and enums are named, never expanded; `dump.py` writes definitions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.errors import BtfError

from .types import COMPOSITES, ENUMS, MAX_RESOLVE_DEPTH, BtfKind, BtfType

if TYPE_CHECKING:
    from collections.abc import Callable

    from .parse import Btf

_WORDS = {BtfKind.CONST: "const", BtfKind.VOLATILE: "volatile", BtfKind.RESTRICT: "restrict"}


_MAX_PARAMS = 1 << 12
"""Parameters in one declaration, nested prototypes' included."""


def c_decl(btf: Btf, type_id: int, name: str, base_text: Callable[[BtfType], str] | None = None) -> str:
    """`name` declared with a type (an abstract declarator for an empty name).

    `base_text` gives the text of the innermost type; by default its C name. Raises `BtfError` when nested too deep.
    """
    return _Declaration(btf, base_text or c_name).text(type_id, name, MAX_RESOLVE_DEPTH)


class _Declaration:
    """One declaration being written; counts its parameters so that a hostile prototype cannot grow without end."""

    def __init__(self, btf: Btf, base_text: Callable[[BtfType], str]) -> None:
        self._btf = btf
        self._base_text = base_text
        self._params_left = _MAX_PARAMS

    def text(self, type_id: int, name: str, depth: int) -> str:
        btf, start = self._btf, type_id
        inner, prefix, after_pointer = name, "", False
        for _ in range(MAX_RESOLVE_DEPTH + 1):
            record = btf.type(type_id)
            kind = record.kind
            if kind == BtfKind.PTR:
                inner, after_pointer = f"*{inner}", True
            elif kind in _WORDS:
                # a qualifier of a pointer stands right of its star, one of anything else before the base type
                if btf.type(btf.strip_modifiers(record.type)).kind == BtfKind.PTR:
                    inner = f"{_WORDS[kind]} {inner}" if inner else _WORDS[kind]
                elif f"{_WORDS[kind]} " not in prefix:
                    prefix = f"{_WORDS[kind]} {prefix}"
            elif kind == BtfKind.ARRAY:
                inner = f"({inner})" if after_pointer else inner
                inner, after_pointer = f"{inner}[{record.nelems}]", False
            elif kind == BtfKind.FUNC_PROTO:
                inner = f"({inner})" if after_pointer else inner
                inner, after_pointer = f"{inner}({self._params(record, depth - 1)})", False
            elif kind not in (BtfKind.TYPE_TAG, BtfKind.VAR, BtfKind.FUNC):
                base = prefix + self._base_text(record)
                return f"{base}{'' if not inner or inner.startswith('[') else ' '}{inner}"
            type_id = record.type
        raise BtfError(f"type [{start}]: nested deeper than {MAX_RESOLVE_DEPTH}, or a cycle")

    def _params(self, proto: BtfType, depth: int) -> str:
        self._params_left -= len(proto.params)
        if depth <= 0 or self._params_left < 0:
            raise BtfError(f"type [{proto.id}]: prototypes nested too deep, or more than {_MAX_PARAMS} parameters")
        last = len(proto.params) - 1
        return (
            ", ".join(
                "..." if i == last and not param.type_id and not param.name else self.text(param.type_id, param.name, depth)
                for i, param in enumerate(proto.params)
            )
            or "void"
        )


def c_name(record: BtfType) -> str:
    """The C name of a type that ends a declaration: `struct x`, `enum x`, `u32`, `void`."""
    kind, name = record.kind, record.name
    if kind == BtfKind.UNKN:
        return "void"
    if kind in COMPOSITES:
        keyword = "struct" if kind == BtfKind.STRUCT else "union"
        return f"{keyword} {name or '{...}'}"
    if kind in ENUMS:
        return f"enum {name or '{...}'}"
    if kind == BtfKind.FWD:
        return f"{'union' if record.kind_flag else 'struct'} {name}"
    if kind == BtfKind.INT:
        return "bool" if name == "_Bool" else name
    return name or f"(anon {kind.name.lower()})"


def proto_of(btf: Btf, type_id: int) -> BtfType:
    """The FUNC_PROTO behind a FUNC, a pointer or typedefs. Raises `BtfError` when there is none."""
    start = type_id
    for _ in range(MAX_RESOLVE_DEPTH):
        record = btf.type(btf.strip(type_id))
        if record.kind == BtfKind.FUNC_PROTO:
            return record
        if record.kind not in (BtfKind.FUNC, BtfKind.PTR):
            break
        type_id = record.type
    raise BtfError(f"type [{start}]: is no function")


def c_proto(btf: Btf, type_id: int, name: str) -> str:
    """`int name(struct task_struct *p, ...)`."""
    return c_decl(btf, proto_of(btf, type_id).id, name)
