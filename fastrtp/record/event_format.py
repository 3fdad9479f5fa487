"""EventFormat: one `format` file of tracefs, parsed from the text that the recording carries.

Nothing about an event is known beforehand: names, offsets, sizes and signs come from the text, so 32-bit longs, events
of modules and of kernels yet unwritten all work. Kernel: kernel/trace/trace_events.c:f_show.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from fastrtp.errors import RecordingError

_FIELD = re.compile(
    r"^\s*field(?: special)?:(?P<decl>.*?);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);(?:\s*signed:(?P<signed>[01]);)?"
)
_DECL = re.compile(r"^(?P<type>.*?)(?P<name>[A-Za-z_]\w*)?\s*(?P<array>\[[^\]]*\])?$", re.DOTALL)
_LOC = re.compile(r"^__(?P<how>data|rel)_loc\s+(?P<type>.*?)\s*(?:\[\])?\s+(?P<name>\w+)$", re.DOTALL)
_MAX_SIZE = 1 << 16
_MAX_VARIABLE = 64
_ELEMENT_SIZES = {
    "char": 1, "signed char": 1, "unsigned char": 1, "bool": 1, "_Bool": 1, "u8": 1, "__u8": 1, "uint8_t": 1, "s8": 1,
    "__s8": 1, "short": 2, "unsigned short": 2, "u16": 2, "__u16": 2, "uint16_t": 2, "s16": 2, "__be16": 2, "__le16": 2,
    "int": 4, "unsigned int": 4, "unsigned": 4, "u32": 4, "__u32": 4, "uint32_t": 4, "s32": 4, "__be32": 4, "__le32": 4,
    "u64": 8, "__u64": 8, "uint64_t": 8, "s64": 8, "__be64": 8, "__le64": 8, "long long": 8, "unsigned long long": 8,
}  # fmt: skip


class FieldKind(Enum):
    """How a field's bytes are found in a record."""

    SCALAR = "scalar"
    ARRAY = "array"
    STRING = "string"
    BYTES = "bytes"
    DATA_LOC = "data_loc"
    REL_LOC = "rel_loc"
    TAIL = "tail"


@dataclass(frozen=True, slots=True)
class FormatField:
    """One field. `size` in bytes within the record (4 for a location word, 0 for an open tail); `count` elements."""

    name: str
    c_type: str
    offset: int
    size: int
    signed: bool
    kind: FieldKind
    count: int = 1

    @property
    def variable(self) -> bool:
        """Whether the field's length differs from record to record."""
        return self.kind in (FieldKind.DATA_LOC, FieldKind.REL_LOC, FieldKind.TAIL)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy type of one record's value (an array field has a subarray type)."""
        if self.kind is FieldKind.STRING:
            return np.dtype(f"S{self.size}")
        if self.kind is FieldKind.BYTES:
            return np.dtype((np.uint8, (self.size,)))
        if self.kind in (FieldKind.DATA_LOC, FieldKind.REL_LOC):
            return np.dtype("<u4")
        item = np.dtype(f"<{'i' if self.signed else 'u'}{self.size // self.count}")
        return np.dtype((item, (self.count,))) if self.kind is FieldKind.ARRAY else item


@dataclass(frozen=True, slots=True)
class EventFormat:
    """A parsed format file. `fields` in the file's order, common fields included; `size`: bytes a record has at least."""

    name: str
    id: int
    system: str
    fields: tuple[FormatField, ...]
    print_fmt: str

    @property
    def size(self) -> int:
        """Bytes up to the end of the last fixed field."""
        return max((field.offset + field.size for field in self.fields), default=0)

    def field(self, name: str) -> FormatField | None:
        """The field called `name`, None without one."""
        return next((field for field in self.fields if field.name == name), None)


def parse_event_format(text: str, system: str, long_size: int = 8) -> EventFormat:
    """Parse one format file. RecordingError names the system and what is wrong."""
    name, event_id = "", -1
    fields: list[FormatField] = []
    text, _, print_fmt = text.partition("\nprint fmt:")  # up to the end: a text in it may have lines of its own
    print_fmt = print_fmt.strip()
    for line in text.splitlines():
        if line.startswith("name:"):
            name = line[5:].strip()
        elif line.startswith("ID:"):
            digits = line[3:].strip()
            if not digits.isdigit() or int(digits) > 0xFFFF:
                raise RecordingError(f"event format {system}/{name or '?'}: id {digits[:40]!r} is not a 16-bit number")
            event_id = int(digits)
        elif "field:" in line or "field special:" in line:
            fields.append(_parse_field(line, f"{system}/{name}", long_size))
    if not name or event_id < 0:
        raise RecordingError(f"event format in system {system!r}: no {'ID' if name else 'name'} line")
    if system == "ftrace":
        fields = _open_tail(fields)
    names = [field.name for field in fields]
    if len(set(names)) != len(names):
        fields = [field for index, field in enumerate(fields) if field.name not in names[:index]]
    parsed = EventFormat(name, event_id, system, tuple(fields), print_fmt)
    if sum(field.size for field in fields) > 4 * parsed.size or sum(field.variable for field in fields) > _MAX_VARIABLE:
        raise RecordingError(f"event format {system}/{name}: {len(fields)} fields overlap within {parsed.size} bytes")
    return parsed


def _open_tail(fields: list[FormatField]) -> list[FormatField]:
    """ftrace's own entries end in arrays that are cut at what was recorded (`caller[8]` of a kernel stack)."""
    last = max(fields, key=lambda field: field.offset, default=None)
    if last is None or last.kind not in (FieldKind.ARRAY, FieldKind.STRING, FieldKind.BYTES):
        return fields
    tail = FormatField(last.name, last.c_type, last.offset, 0, last.signed, FieldKind.TAIL)
    return [tail if field is last else field for field in fields]


def _parse_field(line: str, event: str, long_size: int) -> FormatField:
    match = _FIELD.match(line)
    if match is None:
        raise RecordingError(f"event format {event}: cannot read the line {line.strip()[:120]!r}")
    decl = match["decl"].strip()
    offset, size = int(match["offset"][:12]), int(match["size"][:12])
    if offset > _MAX_SIZE or size > _MAX_SIZE:
        raise RecordingError(f"event format {event}: {decl[:80]!r} at offset {offset} with size {size} is out of range")
    signed = match["signed"] == "1"
    loc = _LOC.match(decl)
    if loc is not None:
        kind = FieldKind.DATA_LOC if loc["how"] == "data" else FieldKind.REL_LOC
        if size != 4:
            raise RecordingError(f"event format {event}: location word of {loc['name']} has size {size}, not 4")
        return FormatField(loc["name"], loc["type"].strip() + "[]", offset, 4, signed, kind)
    parts = _DECL.match(decl)
    if parts is None or not parts["name"]:
        raise RecordingError(f"event format {event}: no field name in {decl[:120]!r}")
    c_type, name, array = parts["type"].strip(), parts["name"], parts["array"]
    kind, count = _kind(c_type, array, size, long_size)
    return FormatField(name, c_type + (array or ""), offset, size, signed, kind, count)


def _kind(c_type: str, array: str | None, size: int, long_size: int) -> tuple[FieldKind, int]:
    if array is None:
        return (FieldKind.SCALAR, 1) if size in (1, 2, 4, 8) else (_no_scalar(size), 1)
    if size == 0:
        return FieldKind.TAIL, 1
    element = c_type.removeprefix("const ").strip()
    if element == "char":
        return FieldKind.STRING, 1
    width = long_size if element in ("long", "unsigned long") or element.endswith("*") else _ELEMENT_SIZES.get(element, 0)
    digits = array[1:-1].strip()
    if width == 0 and digits.isdigit() and int(digits) > 0 and size % int(digits) == 0:
        width = size // int(digits)
    if width in (1, 2, 4, 8) and size % width == 0:
        return FieldKind.ARRAY, size // width
    return FieldKind.BYTES, 1


def _no_scalar(size: int) -> FieldKind:
    return FieldKind.TAIL if size == 0 else FieldKind.BYTES
