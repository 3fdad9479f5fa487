"""Recordings of one's own columns and events: `Recording.from_table`, `Recording.from_events`.

What says when, where and who of an event has five names: `time` (ns), `cpu`, `pid` and `comm` (of the running task) and `event`;
every other name is a field. A field that is itself called so has `field_` before it, as in the tables that a recording gives
(`recording.events_of("sched_waking")` has `pid` and `field_pid`), which can be read back here. Events that the shipped kernel has
get its format, so that a sched_switch made here is what a recorded one is; fields that are not given are not in it, and a replay
says so. Other events get a format of their own, made of their columns: integers, texts, arrays of integers.

Must not know: replay, what fields mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import RecordingError

from .columns import LOCATION, EventTable
from .event_format import EventFormat, FieldKind, FormatField
from .event_formats import default_formats
from .recording import Recording
from .tables import listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

ORDER = ("time", "cpu", "pid", "comm", "event")
"""What is no field."""
FIELD = "field_"
"""Before a field's name that is one of these."""
_NAME = re.compile(r"(?:([A-Za-z_]\w*):)?([A-Za-z_]\w*)")
_FIRST_OWN_ID = 1 << 15
_COMMON = tuple(
    FormatField(name, c_type, offset, size, signed, FieldKind.SCALAR)
    for name, c_type, offset, size, signed in (
        ("common_type", "unsigned short", 0, 2, False), ("common_flags", "unsigned char", 2, 1, False),
        ("common_preempt_count", "unsigned char", 3, 1, False), ("common_pid", "int", 4, 4, True),
    )
)  # fmt: skip


def from_events(events: Iterable[Mapping[str, Any]], **facts: Any) -> Recording:
    """A recording of events as mappings: {"event": "sched_switch", "time": 1000, "cpu": 0, "pid": 7, "prev_pid": 7, ...}.

    `time`, `cpu` and `pid` are 0 where they are left out, and then all events are in the order in which they come. Events of one
    name all have the same fields. RecordingError: which event, and what is wrong with it.
    """
    groups: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    order: list[tuple[Any, Any, Any]] = []
    comms: dict[int, str] = {}
    for number, event in enumerate(events):
        name = event.get("event")
        if not isinstance(name, str):
            raise RecordingError(f"event {number} has no name: 'event' is {name!r}")
        groups.setdefault(name, []).append((number, event))
        order.append((event.get("time", 0), event.get("cpu", 0), event.get("pid", 0)))
        if isinstance(event.get("comm"), str):
            comms[event.get("pid", 0)] = event["comm"]
    tables, places = [], []
    for name, rows in groups.items():
        fields = [key for key in rows[0][1] if key not in ORDER]
        for number, event in rows:
            if {key for key in event if key not in ORDER} != set(fields):
                raise RecordingError(
                    f"event {number}: {name} with fields {_names(event)}, the first one has {_names(rows[0][1])}"
                )
        tables.append((name, {key: [event[key] for _, event in rows] for key in fields}))
        places.append([number for number, _ in rows])
    time, cpu, pid = (list(column) for column in zip(*order, strict=True)) if order else ([], [], [])
    return _recording(tables, places, time, cpu, pid, {**facts, "comms": {**comms, **facts.get("comms", {})}})


def from_columns(columns: Mapping[str, Any], event: str | None = None, **facts: Any) -> Recording:
    """A recording of columns of equal length: `time`, `cpu`, `pid`, `event` (or one name for all), and fields.

    A field is None (or NaN, or null) in the rows of events that do not have it. RecordingError: which column, and what is wrong.
    """
    table = {str(name): listed(column) for name, column in columns.items()}
    sizes = {name: len(column) for name, column in table.items()}
    if len(set(sizes.values())) > 1:
        raise RecordingError(f"columns of different lengths: {', '.join(f'{name} {size}' for name, size in sizes.items())}")
    rows = next(iter(sizes.values()), 0)
    names = table.pop("event", None)
    if names is None and event is None:
        raise RecordingError("no column 'event', and no event= that names all of them")
    names = [event] * rows if names is None else names
    time, cpu, pid = (table.pop(name, [0] * rows) for name in ("time", "cpu", "pid"))
    comms = {int(who): comm for who, comm in zip(pid, table.pop("comm", []), strict=False) if isinstance(comm, str)}
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise RecordingError(f"row {number} has no name: 'event' is {name!r}")
        groups.setdefault(name, []).append(number)
    tables = []
    for name, mine in groups.items():
        fields = {}
        for key, column in table.items():
            values = [column[number] for number in mine]
            given = [not _is_null(value) for value in values]
            if all(given):
                fields[key] = values
            elif any(given):
                raise RecordingError(f"column {key}: {given.count(False)} of {len(given)} rows of {name} have no value")
        tables.append((name, fields))
    facts["comms"] = {**comms, **facts.get("comms", {})}
    return _recording(tables, list(groups.values()), time, cpu, pid, facts)


def _recording(
    tables: Sequence[tuple[str, Mapping[str, list[Any]]]],
    places: Sequence[list[int]],
    time: list[Any],
    cpu: list[Any],
    pid: list[Any],
    facts: Mapping[str, Any],
) -> Recording:
    order = [_integers(column, dtype, name) for column, dtype, name in
             ((time, "<i8", "time"), (cpu, "<u2", "cpu"), (pid, "<i4", "pid"))]  # fmt: skip
    event, row = np.zeros(len(time), np.uint16), np.zeros(len(time), np.uint32)
    for number, mine in enumerate(places):
        event[mine] = number
        row[mine] = np.arange(len(mine))
    sorting = np.argsort(order[0], kind="stable")
    made = [
        _table(name, fields, len(mine), number) for number, ((name, fields), mine) in enumerate(zip(tables, places, strict=True))
    ]
    cpus = int(facts.get("cpus", 0)) or (int(order[1].max()) + 1 if len(time) else 1)
    fixed = {"clock": "mono", "source": "made here", **{key: value for key, value in facts.items() if key != "cpus"}}
    when, where, who, which, nth = (column[sorting] for column in (*order, event, row))
    found = Recording(time=when, cpu=where, pid=who, event=which, row=nth, tables=made, cpus=cpus, **fixed)
    _in_time_order(found)
    found.check()
    return found


def _in_time_order(recording: Recording) -> None:
    """Rows of each table in the order in which their events are."""
    for number, (table, at) in enumerate(zip(recording.tables, recording.positions, strict=True)):
        sorting = np.argsort(at, kind="stable")
        if np.array_equal(sorting, np.arange(len(at))):
            continue
        table.fields = {name: column[sorting] for name, column in table.fields.items()}
        recording.row[recording.event == number] = np.arange(len(at), dtype=np.uint32)
    vars(recording).pop("positions", None)


def _table(name: str, fields: Mapping[str, list[Any]], rows: int, number: int) -> EventTable:
    match = _NAME.fullmatch(name)
    if match is None:
        raise RecordingError(f"event name {name!r} is not a name, or system:name")
    fields = {_field_name(key.removeprefix(f"{match[2]}.").removeprefix(f"{name}.")): values for key, values in fields.items()}
    known = default_formats().get(match[2])
    if known is not None and match[1] in (None, known.system):
        unknown = [key for key in fields if known.field(key) is None]
        if unknown:
            there = ", ".join(spec.name for spec in known.fields if not spec.name.startswith("common_"))
            raise RecordingError(f"{name} has no field {unknown[0]!r}: {there}")
        kept = tuple(spec for spec in known.fields if spec.name in fields or spec.name.startswith("common_"))
        fmt = EventFormat(known.name, known.id, known.system, kept, known.print_fmt)
    else:
        fmt = _own_format(match[2], match[1] or "made", fields, number)
    columns: dict[str, NDArray[Any]] = {}
    heaps: dict[str, NDArray[np.uint8]] = {}
    for spec in fmt.fields:
        if spec.name not in fields:
            if spec.name not in ("common_type", "common_pid"):
                columns[spec.name] = np.zeros(rows, spec.dtype)
            continue
        columns[spec.name] = _column(spec, fields[spec.name], heaps, f"{fmt.name}: {spec.name}")
    return EventTable(fmt.name, fmt.system, columns, fmt, heaps, rows)


def _field_name(key: str) -> str:
    plain = key.removeprefix(FIELD)
    return plain if plain in ORDER else key


def _own_format(name: str, system: str, fields: Mapping[str, list[Any]], number: int) -> EventFormat:
    """A format that has a column's integers as s64 (u64 where they need it), arrays of them likewise, its texts as __data_loc."""
    made: list[FormatField] = []
    at = 8
    for key, values in fields.items():
        if not _NAME.fullmatch(key) or ":" in key:
            raise RecordingError(f"{name}: {key!r} is no name of a field")
        first = values[0] if values else 0
        if isinstance(first, (str, bytes)):
            made.append(FormatField(key, "char[]", at, 4, True, FieldKind.DATA_LOC))
            at += 4
            continue
        count = len(first) if isinstance(first, (list, tuple, np.ndarray)) else 1
        kind = FieldKind.ARRAY if isinstance(first, (list, tuple, np.ndarray)) else FieldKind.SCALAR
        at = -(-at // 8) * 8
        unsigned = any(int(value) >= 1 << 63 for value in values) if kind is FieldKind.SCALAR else False
        array = f"[{count}]" if kind is FieldKind.ARRAY else ""
        made.append(FormatField(key, ("u64" if unsigned else "s64") + array, at, 8 * count, not unsigned, kind, count))
        at += 8 * count
    printed = ", ".join(f"{spec.name}={'%s' if spec.variable else '%lld'}" for spec in made if spec.kind is not FieldKind.ARRAY)
    arguments = "".join(
        f", __get_str({spec.name})" if spec.variable else f", REC->{spec.name}"
        for spec in made
        if spec.kind is not FieldKind.ARRAY
    )
    return EventFormat(name, _FIRST_OWN_ID + number, system, (*_COMMON, *made), f'"{printed.replace(", ", " ")}"{arguments}')


def _column(spec: FormatField, values: list[Any], heaps: dict[str, NDArray[np.uint8]], what: str) -> NDArray[Any]:
    if spec.variable:
        pieces = [_bytes(value, what) + (b"\0" if spec.c_type in ("char[]", "const char[]") else b"") for value in values]
        column = np.zeros(len(pieces), LOCATION)
        column["len"] = [len(piece) for piece in pieces]
        column["offset"] = np.cumsum(column["len"].astype(np.int64)) - column["len"]
        heaps[spec.name] = np.frombuffer(b"".join(pieces), np.uint8)
        return column
    if spec.kind is FieldKind.STRING:
        texts = [_bytes(value, what) for value in values]
        long = next((text for text in texts if len(text) >= spec.size), None)
        if long is not None:
            raise RecordingError(f"{what}: {long!r} is longer than the {spec.size - 1} bytes that it has room for")
        return np.array(texts, spec.dtype)
    if spec.kind is FieldKind.SCALAR:
        return _integers(values, spec.dtype, what)
    flat = [list(value) for value in values]
    width = spec.count if spec.kind is FieldKind.ARRAY else spec.size
    wrong = next((row for row in flat if len(row) != width), None)
    if wrong is not None:
        raise RecordingError(f"{what}: {len(wrong)} elements, there are {width}")
    return _integers([item for row in flat for item in row], spec.dtype.base, what).reshape(len(flat), width)


def _integers(values: list[Any], dtype: Any, what: str) -> NDArray[Any]:
    """Values as integers of a type; negative ones of an unsigned type as the bits that C makes of them."""
    kind = np.dtype(dtype)
    bits = 8 * kind.itemsize
    out = np.zeros(len(values), f"<u{kind.itemsize}")
    for row, value in enumerate(values):
        try:
            number = int(value)
        except (TypeError, ValueError) as error:
            raise RecordingError(f"{what}: {value!r} is no integer") from error
        if number != value or not -(1 << (bits - 1)) <= number < 1 << bits:
            raise RecordingError(f"{what}: {value!r} is no integer of {bits} bits")
        out[row] = number & (1 << bits) - 1
    return out.view(kind)


def _bytes(value: Any, what: str) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise RecordingError(f"{what}: {value!r} is no text")


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def _names(event: Mapping[str, Any]) -> str:
    return ", ".join(key for key in event if key not in ORDER) or "none"
