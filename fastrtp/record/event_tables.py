"""Event tables out of records that are spread over a file: what the importers of all file forms end with.

A record is (place, length, type id); the formats that the file carries say what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrtp.errors import RecordingError

from .columns import EventTable, gather_table, unreadable
from .event_format import parse_event_format
from .ring_buffer import CommonFields
from .trace_dat_sections import FormatText

if TYPE_CHECKING:
    from numpy.typing import NDArray


class EventTables(NamedTuple):
    """The tables, and for every record of a known type, in order, its table and its row there.

    `known`: which of the records these are, None for all. `unknown`: number of the others by type id. `notes`: records that are
    too short for what their format or they themselves say they hold, and so were left out.
    """

    tables: list[EventTable]
    event: NDArray[np.uint16]
    row: NDArray[np.uint32]
    known: NDArray[np.bool_] | None
    unknown: dict[int, int]
    notes: list[str]


def common_fields(formats: Mapping[int, FormatText], long_size: int, where: object) -> CommonFields:
    """The common fields from the first format that has them: they are the same in all."""
    for type_id in sorted(formats):
        system, text = formats[type_id]
        fmt = parse_event_format(text, system, long_size)
        kind, pid = fmt.field("common_type"), fmt.field("common_pid")
        if kind is not None and pid is not None:
            if (kind.size, pid.size) != (2, 4):
                raise RecordingError(f"{where}: event {fmt.name}: common_type and common_pid of {kind.size} and {pid.size} bytes")
            return CommonFields(kind.offset, pid.offset, max(kind.offset + 2, pid.offset + 4))
    return CommonFields()


def event_tables(
    data: NDArray[np.uint8],
    types: NDArray[np.uint16],
    offsets: NDArray[np.int64],
    lengths: NDArray[np.int32],
    formats: Mapping[int, FormatText],
    long_size: int,
) -> EventTables:
    """Gather the records of each type from `data` into a table. RecordingError when none can be read."""
    counts = np.bincount(types, minlength=1)
    present = np.flatnonzero(counts)
    unknown = {int(type_id): int(counts[type_id]) for type_id in present if int(type_id) not in formats}
    number = np.zeros(1 << 16, np.uint16)
    order = np.argsort(types, kind="stable")
    row = np.empty(len(order), np.uint32)
    tables: list[EventTable] = []
    notes: list[str] = []
    broken: list[NDArray[np.int64]] = []
    offset, length = offsets[order], lengths[order]
    at = 0
    for type_id in present.tolist():
        count = int(counts[type_id])
        mine = slice(at, at + count)
        at += count
        if type_id in unknown:
            continue
        number[type_id] = len(tables)
        system, text = formats[type_id]
        fmt = parse_event_format(text, system, long_size)
        places, lengths_here, whole = offset[mine], length[mine], order[mine]
        bad, why = unreadable(data, places, lengths_here, fmt)
        if len(bad):
            notes.append(f"{len(bad)} records left out: {why}")
            broken.append(whole[bad])
            good = np.ones(count, np.bool_)
            good[bad] = False
            places, lengths_here, whole = places[good], lengths_here[good], whole[good]
        row[whole] = np.arange(len(whole), dtype=np.uint32)
        tables.append(gather_table(data, places, lengths_here, fmt))
    event = number[types]
    known: NDArray[Any] | None = None
    if unknown or broken:
        known = ~np.isin(types, np.array(list(unknown), np.uint16))
        known[np.concatenate([*broken, np.empty(0, np.int64)]).astype(np.int64)] = False
        event, row = event[known], row[known]
        if notes and not len(event):
            raise RecordingError(notes[0].partition(": ")[2])
    return EventTables(tables, event, row, known, unknown, notes)
