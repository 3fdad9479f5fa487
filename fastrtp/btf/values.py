"""Bytes to Python values by BTF type.

A struct's anonymous members are merged into it; an enumerator without a name stays an int; pointers are ints.
Kernel: kernel/bpf/btf.c:btf_type_show (what `bpftool map dump` prints).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BtfError

from .types import BTF_INT_BOOL, BTF_INT_CHAR, COMPOSITES, ENUMS, MAX_RESOLVE_DEPTH, BtfKind, BtfType

if TYPE_CHECKING:
    from .parse import Btf

_FLOATS = {2: "<e", 4: "<f", 8: "<d"}
_MAX_VALUES = 1 << 22
"""Values in one decoded object: a hostile type (nested arrays of empty structs) cannot ask for more."""


class _Budget:
    """Counts decoded values down."""

    def __init__(self) -> None:
        self.left = _MAX_VALUES

    def take(self, count: int) -> None:
        self.left -= count
        if self.left < 0:
            raise BtfError(f"more than {_MAX_VALUES} values in one object")


def decode(btf: Btf, type_id: int, data: bytes) -> Any:
    """The value of `data` as `type_id`; bytes past the type's size are ignored, fewer raise `BtfError`."""
    size = btf.sizeof(type_id)
    if len(data) < size:
        raise BtfError(f"type [{type_id}]: {len(data)} bytes, {btf.c_type(type_id)} has {size}")
    return _decode(btf, type_id, bytes(data), 0, MAX_RESOLVE_DEPTH, _Budget())


def _decode(btf: Btf, type_id: int, data: bytes, offset: int, depth: int, budget: _Budget) -> Any:
    if depth == 0:
        raise BtfError(f"type [{type_id}]: nested deeper than {MAX_RESOLVE_DEPTH}")
    record = btf.type(btf.strip(type_id))
    kind = record.kind
    if kind == BtfKind.INT or kind in ENUMS or kind == BtfKind.PTR:
        return _scalar(record, int.from_bytes(_slice(record, data, offset, record.size or 8), "little"), 8 * (record.size or 8))
    if kind in COMPOSITES:
        return _struct(btf, record, data, offset, depth, budget)
    if kind == BtfKind.ARRAY:
        return _array(btf, record, data, offset, depth, budget)
    if kind == BtfKind.FLOAT and record.size in _FLOATS:
        return struct.unpack(_FLOATS[record.size], _slice(record, data, offset, record.size))[0]
    if kind == BtfKind.VAR:
        return _decode(btf, record.type, data, offset, depth - 1, budget)
    if kind == BtfKind.DATASEC:
        budget.take(record.vlen)
        return {
            btf.type(info.type_id).name: _decode(btf, info.type_id, data, offset + info.offset, depth - 1, budget)
            for info in record.secinfos
        }
    raise BtfError(f"type [{record.id}]: no values of {kind.name} {record.name or '(anon)'}")


def _slice(record: BtfType, data: bytes, offset: int, size: int) -> bytes:
    if offset < 0 or offset + size > len(data):
        raise BtfError(
            f"type [{record.id}] {record.name}: bytes {offset} to {offset + size} lie outside the object of {len(data)}"
        )
    return data[offset : offset + size]


def _scalar(record: BtfType, raw: int, bits: int) -> Any:
    """An integer or enum from its raw bits."""
    signed = raw - (1 << bits) if record.signed and bits and raw >> (bits - 1) & 1 else raw
    if record.kind in ENUMS:
        return next((name for name, value in record.values if value == signed), signed)
    if record.kind == BtfKind.INT and record.encoding & BTF_INT_BOOL:
        return bool(raw)
    return signed


def _struct(btf: Btf, record: BtfType, data: bytes, offset: int, depth: int, budget: _Budget) -> dict[str, Any]:
    budget.take(record.vlen)
    out: dict[str, Any] = {}
    for member in record.members:
        if member.bitfield_size:
            first = offset * 8 + member.bit_offset
            covering = _slice(record, data, first // 8, (first + member.bitfield_size + 7) // 8 - first // 8)
            raw = int.from_bytes(covering, "little") >> (first % 8) & ((1 << member.bitfield_size) - 1)
            if member.name:
                out[member.name] = _scalar(btf.type(btf.strip(member.type_id)), raw, member.bitfield_size)
            continue
        value = _decode(btf, member.type_id, data, offset + member.bit_offset // 8, depth - 1, budget)
        if member.name:
            out[member.name] = value
        elif isinstance(value, dict):
            out.update(value)
    return out


def _array(btf: Btf, record: BtfType, data: bytes, offset: int, depth: int, budget: _Budget) -> Any:
    element = btf.type(btf.strip(record.type))
    size = btf.sizeof(record.type)
    if element.kind == BtfKind.INT and element.size == 1 and (element.name == "char" or element.encoding & BTF_INT_CHAR):
        text = _slice(record, data, offset, record.nelems)
        return text.split(b"\0", 1)[0].decode("utf-8", "backslashreplace")
    budget.take(record.nelems)
    if element.kind == BtfKind.INT and element.size in (1, 2, 4, 8) and not element.encoding & BTF_INT_BOOL:
        letter = {1: "b", 2: "h", 4: "i", 8: "q"}[element.size]
        form = f"<{record.nelems}{letter if element.signed else letter.upper()}"
        return list(struct.unpack(form, _slice(record, data, offset, record.nelems * size)))
    return [_decode(btf, record.type, data, offset + i * size, depth - 1, budget) for i in range(record.nelems)]
