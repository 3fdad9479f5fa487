"""One record's bytes as fields, by its format."""

from __future__ import annotations

from typing import Any

from .event_format import EventFormat, FieldKind, FormatField


def field_bytes(spec: FormatField, data: bytes) -> bytes:
    """The bytes of a field; of a variable one, those that its location word names. Short records give short fields."""
    if spec.kind is FieldKind.TAIL:
        return data[spec.offset :]
    if spec.kind not in (FieldKind.DATA_LOC, FieldKind.REL_LOC):
        return data[spec.offset : spec.offset + spec.size]
    word = int.from_bytes(data[spec.offset : spec.offset + 4], "little")
    start = word & 0xFFFF
    if spec.kind is FieldKind.REL_LOC:
        start += spec.offset + 4
    return data[start : start + (word >> 16)]


def integers(spec: FormatField, data: bytes) -> list[int]:
    """The elements of an integer field or array; of any other kind, its bytes."""
    raw = field_bytes(spec, data)
    step = spec.size // spec.count if spec.kind in (FieldKind.SCALAR, FieldKind.ARRAY) else 1
    return [int.from_bytes(raw[at : at + step], "little", signed=spec.signed) for at in range(0, len(raw), step)]


def decode_record(fmt: EventFormat, data: bytes) -> dict[str, Any]:
    """Fields by name, without the common ones: ints, lists of ints, texts (cut at the NUL) and other bytes."""
    values: dict[str, Any] = {}
    for spec in fmt.fields:
        if spec.name.startswith("common_"):
            continue
        if spec.kind is FieldKind.SCALAR:
            values[spec.name] = next(iter(integers(spec, data)), 0)
        elif spec.kind is FieldKind.ARRAY:
            values[spec.name] = integers(spec, data)
        elif spec.kind is FieldKind.STRING or spec.c_type in ("char[]", "const char[]"):
            values[spec.name] = field_bytes(spec, data).partition(b"\0")[0]
        else:
            values[spec.name] = field_bytes(spec, data)
    return values
