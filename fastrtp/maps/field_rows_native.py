"""Rows that say which special fields a map value or an object has: where they are and what they are.

A row is {offset : 32, kind : 8, more : 24 bits}; `more` is the offset of the node in the objects of a list or tree.
A map has {u64 count; u64 row[count]} (MAP.fields), in order of offset; an object has its rows in front of its header.
Kernel: include/linux/bpf.h:struct btf_field, struct btf_record.
"""

from __future__ import annotations

from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import device, load64, memcpy, memset
from fastrtp.native.smp_native import copy_value

FIELD_LOCK = 1
FIELD_TIMER = 2
FIELD_KPTR = 3  # a kernel object that is not owned, or is never freed
FIELD_KPTR_LOCAL = 4  # an owned object of a program
FIELD_LIST_HEAD = 5
FIELD_RB_ROOT = 6
FIELD_REFCOUNT = 7
FIELD_LIST_NODE = 8
FIELD_RB_NODE = 9


@device
def field_size(kind: int) -> int:
    """Bytes of a field."""
    if kind == 1 or kind == 7:
        return 4
    if kind == 3 or kind == 4:
        return 8
    if kind == 8:
        return 24
    return 32 if kind == 9 else 16


@device
def field_offset(map: MapRecord, kind: int) -> int:
    """Where a map's values have their only field of a kind; 0 where they have none."""
    fields = map.fields
    for number in range(load64(fields) if fields != 0 else 0):
        row = load64(fields + 8 + number * 8)
        if row >> 32 & 0xFF == kind:
            return row & 0xFFFFFFFF
    return 0


@device
def has_field(map: MapRecord, kind: int) -> bool:
    """Whether a map's values have a field of a kind."""
    fields = map.fields
    found = False
    for number in range(load64(fields) if fields != 0 else 0):
        found |= load64(fields + 8 + number * 8) >> 32 & 0xFF == kind
    return found


@device
def copy_map_value(map: MapRecord, target: int, source: int, size: int) -> None:
    """Copy a value, but for its special fields. Kernel: copy_map_value."""
    fields = map.fields
    if fields == 0:
        copy_value(target, source, size)
        return
    start = 0
    for number in range(load64(fields)):
        row = load64(fields + 8 + number * 8)
        offset = row & 0xFFFFFFFF
        memcpy(target + start, source + start, offset - start)
        start = offset + field_size(row >> 32 & 0xFF)
    memcpy(target + start, source + start, size - start)


@device
def check_and_init_map_value(map: MapRecord, value: int) -> None:
    """Zero the special fields of a value that is new, or was copied out. Kernel: check_and_init_map_value."""
    fields = map.fields
    for number in range(load64(fields) if fields != 0 else 0):
        row = load64(fields + 8 + number * 8)
        memset(value + (row & 0xFFFFFFFF), 0, field_size(row >> 32 & 0xFF))
