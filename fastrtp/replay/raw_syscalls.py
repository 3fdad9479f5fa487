"""Records of single system calls (syscalls:sys_enter_write) as the events that they come from: raw_syscalls:sys_enter.

Linux makes both from the same two tracepoints, so programs on sys_enter and sys_exit, and those on other forms of the same
events, run over either kind of recording. A record of one call has as many arguments as the call; the others are not known.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fastrtp.record import EventTable, Recording
from fastrtp.trace.syscalls import SYSTEM, raw_event

_ARGS = 6
_NUMBER = ("__syscall_nr", "nr")


def as_raw_syscalls(recording: Recording) -> tuple[Recording, list[str]]:
    """The recording with tables of single calls in the raw events' form, and what the report says of it.

    A recording that has the raw events, too, has each call twice: then the raw ones are played.
    """
    have = {table.name for table in recording.tables if table.system != SYSTEM and len(table)}
    tables, notes, few = list(recording.tables), list[str](), list[str]()
    for number, table in enumerate(recording.tables):
        raw = raw_event(table.name) if table.system == SYSTEM else None
        if raw is None or raw[0] in have or not len(table):
            continue
        tables[number] = _raw(table, *raw)
        if raw[0] == "sys_enter" and _count(table) < _ARGS:
            few.append(table.name)
    if few:
        some = ", ".join(few[:3]) + (f" and {len(few) - 3} more" if len(few) > 3 else "")
        notes.append(f"arguments behind a call's own are not recorded by {some}: they read as 0")
    return (replace(recording, tables=tables) if tables != recording.tables else recording), notes


def _names(table: EventTable) -> list[str]:
    """The fields that are arguments."""
    return [name for name in table.fields if not name.startswith("common_") and name not in _NUMBER]


def _count(table: EventTable) -> int:
    return len(_names(table))


def _raw(table: EventTable, raw: str, number: int) -> EventTable:
    rows = len(table)
    fields = {name: column for name, column in table.fields.items() if name.startswith("common_")}
    fields["id"] = np.full(rows, number, np.int64)
    if raw == "sys_exit":
        fields["ret"] = table.fields["ret"].astype(np.int64)
    else:
        args = np.zeros((rows, _ARGS), np.uint64)
        for at, name in enumerate(_names(table)[:_ARGS]):
            column = table.fields[name]
            if column.ndim == 1 and column.dtype.kind in "iu":
                args[:, at] = column.astype(np.int64).view(np.uint64) if column.dtype.kind == "i" else column
        fields["args"] = args
    return EventTable(raw, "raw_syscalls", fields, None, {}, rows)
