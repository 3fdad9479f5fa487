"""Python values to bytes by BTF type: the other way round than `decode`, and as an assignment in C does it.

A number has to fit its type, an enumerator goes by its name or number, a string with or without its NUL into an array of char,
a mapping into a struct and a sequence into an array (what it does not mention becomes zero).
Errors name the place, the type and what would fit.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastrtp.errors import ObjectError, UnknownNameError

from .types import BTF_INT_BOOL, BTF_INT_CHAR, COMPOSITES, ENUMS, MAX_RESOLVE_DEPTH, BtfKind, BtfType, Member

if TYPE_CHECKING:
    from .parse import Btf

_FLOATS = {2: "<e", 4: "<f", 8: "<d"}


def encode(btf: Btf, type_id: int, value: Any, name: str = "value") -> bytes:
    """`value` as the bytes of a type. ObjectError, beginning with `name`, for one that the type cannot hold; BtfError."""
    out = bytearray(btf.sizeof(type_id))
    _encode(btf, type_id, value, out, 0, name, MAX_RESOLVE_DEPTH)
    return bytes(out)


def _encode(btf: Btf, type_id: int, value: Any, out: bytearray, offset: int, name: str, depth: int) -> None:
    if depth == 0:
        raise ObjectError(f"{name}: nested deeper than {MAX_RESOLVE_DEPTH}")
    record = btf.type(btf.strip(type_id))
    if record.kind in COMPOSITES:
        _encode_struct(btf, record, value, out, offset, name, depth)
    elif record.kind == BtfKind.ARRAY:
        _encode_array(btf, record, value, out, offset, name, depth)
    elif record.kind == BtfKind.FLOAT and record.size in _FLOATS:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _misfit(btf, type_id, value, name, "a number")
        struct.pack_into(_FLOATS[record.size], out, offset, value)
    else:
        size = record.size or 8
        bits = number_of(btf, type_id, value, name, 8 * size)
        out[offset : offset + size] = bits.to_bytes(size, "little")


def number_of(btf: Btf, type_id: int, value: Any, name: str, bits: int) -> int:
    """A scalar's bits. ObjectError."""
    record = btf.type(btf.strip(type_id))
    if record.kind not in (BtfKind.INT, BtfKind.PTR, *ENUMS):
        raise ObjectError(f"{name}: no values of {record.kind.name} {record.name or '(anon)'}")
    if isinstance(value, str):
        value = _number_of_text(btf, type_id, record, value, name)
    try:
        number = value.__index__()
    except (AttributeError, TypeError):
        raise _misfit(btf, type_id, value, name, "a number") from None
    is_bool = record.kind == BtfKind.INT and record.encoding & BTF_INT_BOOL
    signed = record.signed
    low = -(1 << bits - 1) if signed else 0
    high = 1 if is_bool else (1 << bits - signed) - 1
    if not low <= number <= high:
        raise _misfit(btf, type_id, value, name, f"{low} to {high}")
    return int(number) & (1 << bits) - 1


def _number_of_text(btf: Btf, type_id: int, record: BtfType, text: str, name: str) -> int:
    if record.kind in ENUMS:
        found = next((number for label, number in record.values if label == text), None)
        if found is None:
            raise _misfit(btf, type_id, text, name, ", ".join(label for label, _ in record.values))
        return found
    if is_char(record) and len(text) == 1 and ord(text) < 128:
        return ord(text)
    raise _misfit(btf, type_id, text, name, "a number")


def _misfit(btf: Btf, type_id: int, value: Any, name: str, wanted: str) -> ObjectError:
    return ObjectError(f"{name} is {btf.c_type(type_id)}: it holds {wanted}, not {value!r}")


def is_char(record: BtfType) -> bool:
    """Whether an integer is a char, and an array of it text."""
    return record.kind == BtfKind.INT and record.size == 1 and (record.name == "char" or bool(record.encoding & BTF_INT_CHAR))


def members_by_name(btf: Btf, record: BtfType, base: int = 0, depth: int = MAX_RESOLVE_DEPTH) -> Iterator[tuple[Member, int]]:
    """Members of a struct with the byte offsets that theirs count from, those of anonymous structs and unions included."""
    for member in record.members:
        if member.name or not depth:
            yield member, base
        else:
            inner = btf.type(btf.strip(member.type_id))
            yield from members_by_name(btf, inner, base + member.bit_offset // 8, depth - 1)


def find_member(btf: Btf, record: BtfType, wanted: str, name: str) -> tuple[Member, int]:
    """(member, the byte offset that its own counts from). UnknownNameError with the names that there are."""
    for member, base in members_by_name(btf, record):
        if member.name == wanted:
            return member, base
    there = ", ".join(member.name for member, _ in members_by_name(btf, record))
    raise UnknownNameError(f"{name} is {btf.c_type(record.id)}: it has no member {wanted!r}, there are: {there or 'none'}")


def store_member(btf: Btf, member: Member, value: Any, out: bytearray, base: int, name: str) -> None:
    """One member's value into the bytes of what holds it, a bitfield among its neighbours. ObjectError."""
    if not member.bitfield_size:
        _encode(btf, member.type_id, value, out, base + member.bit_offset // 8, name, MAX_RESOLVE_DEPTH)
        return
    bits, first = member.bitfield_size, base * 8 + member.bit_offset
    number = number_of(btf, member.type_id, value, name, bits)
    start, end = first // 8, (first + bits + 7) // 8
    shift = first % 8
    old = int.from_bytes(out[start:end], "little") & ~((1 << bits) - 1 << shift)
    out[start:end] = (old | number << shift).to_bytes(end - start, "little")


def _encode_struct(btf: Btf, record: BtfType, value: Any, out: bytearray, offset: int, name: str, depth: int) -> None:
    if not isinstance(value, Mapping):
        there = ", ".join(member.name for member, _ in members_by_name(btf, record))
        raise _misfit(btf, record.id, value, name, f"a mapping of {there}")
    for wanted, item in value.items():
        member, base = find_member(btf, record, str(wanted), name)
        place = f"{name}.{wanted}"
        if member.bitfield_size:
            store_member(btf, member, item, out, offset + base, place)
        else:
            _encode(btf, member.type_id, item, out, offset + base + member.bit_offset // 8, place, depth - 1)


def _encode_array(btf: Btf, record: BtfType, value: Any, out: bytearray, offset: int, name: str, depth: int) -> None:
    element = btf.type(btf.strip(record.type))
    if isinstance(value, str) and is_char(element):
        value = value.encode()
    if isinstance(value, bytes | bytearray | memoryview) and btf.sizeof(record.type) == 1:
        if len(value) > record.nelems:
            raise ObjectError(f"{name} is {btf.c_type(record.id)}: {len(value)} bytes do not fit its {record.nelems}")
        out[offset : offset + record.nelems] = bytes(value).ljust(record.nelems, b"\0")
        return
    if isinstance(value, str | Mapping) or not (isinstance(value, Sequence) or hasattr(value, "__array__")):
        raise _misfit(btf, record.id, value, name, "text" if is_char(element) else f"a list of {record.nelems}")
    if len(value) > record.nelems:
        raise ObjectError(f"{name} is {btf.c_type(record.id)}: {len(value)} elements do not fit its {record.nelems}")
    size = btf.sizeof(record.type)
    for at, item in enumerate(value):
        _encode(btf, record.type, item, out, offset + at * size, f"{name}[{at}]", depth - 1)
