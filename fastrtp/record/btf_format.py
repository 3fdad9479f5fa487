"""What an event's record looks like in a kernel that only its BTF tells of: `struct trace_event_raw_<name>`.

The struct has the name of the event's class, so events that share one with another name are not found by it.
Kernel: include/trace/stages/stage1_struct_define.h
"""

from __future__ import annotations

from fastrtp.btf import Btf, BtfKind
from fastrtp.btf.encode import is_char
from fastrtp.btf.types import COMPOSITES
from fastrtp.errors import BtfError

from .event_format import EventFormat, FieldKind, FormatField

_PREFIX = "trace_event_raw_"
_LOCATIONS = {"__data_loc_": FieldKind.DATA_LOC, "__rel_loc_": FieldKind.REL_LOC}
_NO_FIELDS = frozenset({"ent", "__data"})


def btf_format(btf: Btf, name: str) -> EventFormat | None:
    """The fields of an event as a kernel's types have them, without the common ones; None where they do not tell."""
    type_id = btf.find(_PREFIX + name, BtfKind.STRUCT)
    if type_id is None:
        return None
    try:
        fields = [
            _field(btf, member.name, member.type_id, member.bit_offset // 8)
            for member in btf.type(type_id).members
            if member.name not in _NO_FIELDS and not member.bitfield_size
        ]
    except BtfError:
        return None
    return EventFormat(name, 0, "", tuple(fields), "") if fields else None


def _field(btf: Btf, name: str, type_id: int, offset: int) -> FormatField:
    c_type = btf.c_type(type_id)
    for prefix, kind in _LOCATIONS.items():
        if name.startswith(prefix):
            return FormatField(name.removeprefix(prefix), c_type, offset, 4, False, kind)
    record = btf.type(btf.strip(type_id))
    size = btf.sizeof(type_id)
    if record.kind == BtfKind.ARRAY:
        element = btf.type(btf.strip(record.type))
        if is_char(element):
            return FormatField(name, c_type, offset, size, True, FieldKind.STRING if size else FieldKind.TAIL)
        plain = element.kind == BtfKind.INT and record.nelems
        kind = FieldKind.ARRAY if plain else FieldKind.BYTES if size else FieldKind.TAIL
        return FormatField(name, c_type, offset, size, element.signed, kind, record.nelems if plain else 1)
    kind = FieldKind.BYTES if record.kind in COMPOSITES else FieldKind.SCALAR
    return FormatField(name, c_type, offset, size, record.signed, kind)
