"""Parts of a recording: events of a time, of CPUs, of tasks, of kinds, as a recording of their own; and several as one.

What the whole recording tells of tasks (names, thread groups) stays known. Must not know: replay.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastrtp.errors import RecordingError

from .columns import LOCATION, EventTable
from .recording import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

Align = Literal["start"] | Sequence[int] | None
_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_TIME = re.compile(r"\s*(\d+)(?:\.(\d+))?\s*(ns|us|ms|s)?\s*")


def place_of(recording: Recording, when: str | int | None, default: int) -> int:
    """A time of the recording's clock: ns as they are; "1.5s", "20ms": since its first event; "39.2572": seconds of the clock, as
    a listing shows them. RecordingError.
    """
    if when is None:
        return default
    if isinstance(when, int):
        return when
    found = _TIME.fullmatch(when)
    if found is None:
        raise RecordingError(f"time {when!r} is neither seconds of the recording's clock nor since its start, as 1.5s or 20ms")
    unit = _UNITS[found[3] or "s"]
    fraction = (found[2] or "").ljust(9, "0")[:9]
    value = int(found[1]) * unit + int(fraction) * unit // 1_000_000_000
    return value + int(recording.time[0]) if found[3] and recording.events else value


def select(
    recording: Recording,
    *,
    start: str | int | None = None,
    end: str | int | None = None,
    cpus: Iterable[int] | int | None = None,
    pids: Iterable[int] | int | None = None,
    comms: Iterable[str] | str | None = None,
    events: Iterable[str] | str | None = None,
) -> Recording:
    """See `Recording.select`."""
    keep = np.ones(recording.events, np.bool_)
    if start is not None:
        keep &= recording.time >= place_of(recording, start, 0)
    if end is not None:
        keep &= recording.time < place_of(recording, end, 0)
    if cpus is not None:
        keep &= np.isin(recording.cpu, _listed(cpus))
    who: list[int] | None = None
    if pids is not None:
        who = _listed(pids)
    if comms is not None:
        patterns = _listed(comms)
        named = [pid for pid, comm in recording.comms.items() if any(fnmatch.fnmatchcase(comm, one) for one in patterns)]
        if not named and patterns:
            raise RecordingError(f"no task of the recording is called {', '.join(map(repr, patterns))}")
        who = named if who is None else [*who, *named]
    if who is not None:
        keep &= np.isin(recording.pid, who)
    if events is not None:
        keep &= np.isin(recording.event, numbers_of(recording, _listed(events)))
    return kept(recording, keep)


def numbers_of(recording: Recording, patterns: Sequence[str]) -> list[int]:
    """Tables whose "name" or "system:name" is, or matches, one of these. RecordingError for one that none does."""
    found: dict[int, None] = {}
    for pattern in patterns:
        mine = [
            number
            for number, table in enumerate(recording.tables)
            if any(fnmatch.fnmatchcase(name, pattern) for name in (table.name, f"{table.system}:{table.name}"))
        ]
        if not mine:
            raise RecordingError(
                f"no event {pattern!r} in the recording: {', '.join(sorted(table.name for table in recording.tables))}"
            )
        found.update(dict.fromkeys(mine))
    return list(found)


def _listed(values: Any) -> list[Any]:
    return [values] if isinstance(values, (str, int)) else list(values)


def kept(recording: Recording, keep: NDArray[np.bool_]) -> Recording:
    """The events of a mask over the time order."""
    tables: list[EventTable] = []
    number = np.zeros(max(len(recording.tables), 1), np.uint16)
    row = np.zeros(recording.events, np.uint32)
    for old, (table, at) in enumerate(zip(recording.tables, recording.positions, strict=True)):
        chosen = np.flatnonzero(keep[at])
        if not len(chosen):
            continue
        number[old] = len(tables)
        row[at[chosen]] = np.arange(len(chosen), dtype=np.uint32)
        fields = {name: column[chosen] for name, column in table.fields.items()} if len(chosen) < len(table) else table.fields
        tables.append(EventTable(table.name, table.system, fields, table.fmt, table.heaps, len(chosen)))
    note = f"{int(np.count_nonzero(keep))} of {recording.events} events were selected: what the others tell is not known"
    return replace(
        recording, time=recording.time[keep], cpu=recording.cpu[keep], pid=recording.pid[keep],
        event=number[recording.event[keep]], row=row[keep], tables=tables, groups=dict(recording.tgids),
        notes=[*recording.notes, note] if not keep.all() else list(recording.notes),
    )  # fmt: skip


def concat(recordings: Sequence[Recording], align: Align = None) -> Recording:
    """See `Recording.concat`."""
    if not recordings:
        raise RecordingError("no recordings")
    clocks = {recording.clock for recording in recordings if recording.events}
    if len(clocks) > 1 and align is None:
        raise RecordingError(f"the recordings have different clocks ({', '.join(sorted(clocks))}): align them")
    shifts = _shifts(recordings, align)
    tables: list[EventTable] = []
    time, cpu, pid, event, row = [], [], [], [], []
    joined: dict[Any, list[tuple[EventTable, int]]] = {}
    for number, recording in enumerate(recordings):
        for place, table in enumerate(recording.tables):
            joined.setdefault(_key(table), []).append((table, number << 16 | place))
    where: dict[int, tuple[int, int]] = {}
    for parts in joined.values():
        first = 0
        for table, origin in parts:
            where[origin] = (len(tables), first)
            first += len(table)
        tables.append(_joined([table for table, _ in parts]))
    for number, (recording, shift) in enumerate(zip(recordings, shifts, strict=True)):
        places = [where[number << 16 | place] for place in range(len(recording.tables))] or [(0, 0)]
        time.append(recording.time + shift)
        cpu.append(recording.cpu)
        pid.append(recording.pid)
        event.append(np.array([table for table, _ in places], np.uint16)[recording.event])
        row.append((np.array([first for _, first in places], np.int64)[recording.event] + recording.row).astype(np.uint32))
    when = np.concatenate(time)
    order = np.argsort(when, kind="stable")
    base = recordings[0]
    merged: dict[str, Any] = {
        name: {key: value for recording in reversed(recordings) for key, value in getattr(recording, name).items()}
        for name in ("comms", "facts", "printk")
    }
    merged["groups"] = {key: value for recording in reversed(recordings) for key, value in recording.tgids.items()}
    for name in ("lost", "gaps", "damaged", "overrun", "unknown"):
        counts: dict[int, int] = {}
        for recording in recordings:
            for key, value in getattr(recording, name).items():
                counts[key] = counts.get(key, 0) + value
        merged[name] = counts
    unames = list(dict.fromkeys(recording.uname for recording in recordings if recording.uname))
    notes = [note for recording in recordings for note in recording.notes]
    if len(unames) > 1:
        notes.append(f"recordings of several kernels: {'; '.join(unames)}")
    found = replace(
        base, time=when[order], cpu=np.concatenate(cpu)[order], pid=np.concatenate(pid)[order],
        event=np.concatenate(event)[order], row=np.concatenate(row)[order], tables=tables, notes=notes,
        cpus=max(recording.cpus for recording in recordings),
        source=", ".join(recording.source for recording in recordings if recording.source), **merged,
    )  # fmt: skip
    _sort_rows(found)
    found.check()
    return found


def _shifts(recordings: Sequence[Recording], align: Align) -> list[int]:
    if align is None:
        return [0] * len(recordings)
    if align == "start":
        begin = int(next((recording.time[0] for recording in recordings if recording.events), 0))
        return [begin - int(recording.time[0]) if recording.events else 0 for recording in recordings]
    shifts = [int(shift) for shift in align]
    if len(shifts) != len(recordings):
        raise RecordingError(f"{len(shifts)} shifts for {len(recordings)} recordings")
    return shifts


def _key(table: EventTable) -> Any:
    """Tables of one key have the same columns, laid out alike."""
    columns = tuple(
        (name, column.dtype.str if column.dtype != LOCATION else "var", column.shape[1:]) for name, column in table.fields.items()
    )
    fields = tuple((spec.name, spec.offset, spec.size) for spec in table.fmt.fields) if table.fmt is not None else None
    return table.system, table.name, columns, fields, table.fmt.print_fmt if table.fmt is not None else ""


def _joined(tables: list[EventTable]) -> EventTable:
    first = tables[0]
    if len(tables) == 1:
        return EventTable(first.name, first.system, dict(first.fields), first.fmt, first.heaps, first.rows)
    fields: dict[str, NDArray[Any]] = {}
    heaps: dict[str, NDArray[np.uint8]] = {}
    for name in first.fields:
        parts = [table.fields[name] for table in tables]
        if name in first.heaps:
            sizes = np.cumsum([0, *(len(table.heaps[name]) for table in tables)])
            parts = [part.copy() for part in parts]
            for part, before in zip(parts, sizes[:-1].tolist(), strict=True):
                part["offset"] += np.uint64(before)
            heaps[name] = np.concatenate([table.heaps[name] for table in tables])
        fields[name] = np.concatenate(parts)
    return EventTable(first.name, first.system, fields, first.fmt, heaps, sum(map(len, tables)))


def _sort_rows(recording: Recording) -> None:
    """Rows of each table in time order."""
    for table, at in zip(recording.tables, recording.positions, strict=True):
        if len(at) < 2 or np.all(at[1:] > at[:-1]):
            continue
        sorting = np.argsort(at, kind="stable")
        table.fields = {name: column[sorting] for name, column in table.fields.items()}
        recording.row[at[sorting]] = np.arange(len(at), dtype=np.uint32)
    vars(recording).pop("positions", None)
