"""The columnar form of a recording: a folder of Arrow IPC files and one JSON file, opened without a copy.

recording.json    what is not a column: names, formats, losses, clock, host, names of processes
order.arrow       time, cpu, event, row, pid of every event in time order
NNN.<event>.arrow the columns of one event table; variable-length fields as large_binary
kallsyms.zst      the recorded machine's symbols

Files are written under temporary names and recording.json last, so a folder with one is complete.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import RecordingError

from .columns import LOCATION, EventTable
from .event_format import EventFormat, parse_event_format
from .recording import Recording
from .unknown import name_of_folder

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

FORMAT = "fastrtp-recording"
VERSION = 1
METADATA = "recording.json"
ORDER = "order.arrow"
KALLSYMS = "kallsyms.zst"
_ORDER_TYPES = {"time": "<i8", "cpu": "<u2", "event": "<u2", "row": "<u4", "pid": "<i4"}
_NUMBERS = {f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)}
_KALLSYMS_LIMIT = 1 << 28


# writing


def save_folder(recording: Recording, folder: Path) -> None:
    """Write `recording` to `folder`, which is made; an older recording in it is replaced. RecordingError for a bad place."""
    import zstandard

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / METADATA).unlink(missing_ok=True)
        columns = {name: np.ascontiguousarray(getattr(recording, name), dtype) for name, dtype in _ORDER_TYPES.items()}
        _write_table(folder / ORDER, {name: _to_arrow(column) for name, column in columns.items()})
        tables = []
        for number, table in enumerate(recording.tables):
            file = f"{number:03d}.{re.sub(r'[^A-Za-z0-9_]', '_', table.name)}.arrow"
            _write_table(folder / file, {name: column_to_arrow(table, name) for name in table.fields})
            tables.append(_describe_table(table, file))
        for stale in set(folder.glob("[0-9][0-9][0-9]*.*.arrow")) - {folder / table["file"] for table in tables}:
            stale.unlink()
        symbols = recording.kallsyms_text()
        if symbols:
            (folder / KALLSYMS).write_bytes(zstandard.ZstdCompressor().compress(symbols))
        else:
            (folder / KALLSYMS).unlink(missing_ok=True)
        partial = folder / (METADATA + ".partial")
        partial.write_text(json.dumps(_describe(recording, tables), indent=1))
        os.replace(partial, folder / METADATA)
    except OSError as error:
        raise RecordingError(f"{folder}: {error.strerror or error}") from error


def _describe(recording: Recording, tables: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT, "version": VERSION, "events": recording.events, "clock": recording.clock, "uname": recording.uname,
        "cpus": recording.cpus, "source": recording.source, "comms": recording.comms, "lost": recording.lost,
        "gaps": recording.gaps, "damaged": recording.damaged, "overrun": recording.overrun,
        "unknown": recording.unknown, "instances": recording.instances,
        "notes": recording.notes, "printk": recording.printk, "groups": recording.groups,
        "facts": recording.facts, "tables": tables,
    }  # fmt: skip


def _describe_table(table: EventTable, file: str) -> dict[str, Any]:
    fields = {}
    for name, column in table.fields.items():
        if column.dtype == LOCATION:
            fields[name] = "var"
        else:
            fields[name] = column.dtype.str[1:] + (f"[{column.shape[1]}]" if column.ndim == 2 else "")
    text = _format_text(table.fmt) if table.fmt is not None else ""
    return {"name": table.name, "system": table.system, "file": file, "rows": len(table), "fields": fields, "format": text}


def _format_text(fmt: EventFormat) -> str:
    """A format file that parses to `fmt` again."""
    lines = [f"name: {fmt.name}", f"ID: {fmt.id}", "format:"]
    for spec in fmt.fields:
        kind = spec.kind.value
        if kind in ("data_loc", "rel_loc"):
            decl = f"__{kind} {spec.c_type} {spec.name}"
        elif "[" in spec.c_type:
            base, _, array = spec.c_type.partition("[")
            decl = f"{base} {spec.name}[{array}"
        else:
            decl = f"{spec.c_type} {spec.name}"
        lines.append(f"\tfield:{decl};\toffset:{spec.offset};\tsize:{spec.size};\tsigned:{int(spec.signed)};")
    return "\n".join([*lines, "", f"print fmt: {fmt.print_fmt}", ""])


def column_to_arrow(table: EventTable, name: str) -> pa.Array:
    """A column: integers, arrays of a fixed size, bytes of a fixed or (large_binary) of any size."""
    import pyarrow as pa

    column = table.fields[name]
    if column.dtype != LOCATION:
        return _to_arrow(column)
    heap = table.heaps[name]
    ends = np.cumsum(column["len"].astype(np.int64))
    starts = ends - column["len"]
    if np.any(column["offset"][column["len"] > 0] != starts[column["len"] > 0]):
        heap = np.concatenate([heap[at["offset"] : at["offset"] + at["len"]] for at in column])
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    return pa.Array.from_buffers(
        pa.large_binary(), len(column), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(heap))]
    )


def _to_arrow(column: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    column = np.ascontiguousarray(column)
    if column.dtype.kind == "S":
        kind = pa.binary(column.dtype.itemsize)
        return pa.Array.from_buffers(kind, len(column), [None, pa.py_buffer(column)])
    flat = pa.array(column.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, column.shape[1]) if column.ndim == 2 else flat


def _write_table(path: Path, columns: dict[str, pa.Array]) -> None:
    import pyarrow as pa

    batch = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    partial = path.with_name(path.name + ".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    os.replace(partial, path)  # never written in place: the recording being saved may be mapped from this very file


# reading


def open_folder(folder: Path) -> Recording:
    """Map the recording in `folder`. RecordingError names the file that is damaged and what is wrong with it."""
    data = _read_metadata(folder)
    try:
        rows = int(data["events"])
        tables = [_open_table(folder, table) for table in data["tables"]]
        order = _read_table(folder / ORDER, {name: kind[1:] for name, kind in _ORDER_TYPES.items()}, rows)[0]
        numbers = {
            name: {int(key): int(value) for key, value in data.get(name, {}).items()}
            for name in ("lost", "gaps", "damaged", "overrun", "unknown")
        }
        groups = {int(key): int(value) for key, value in data.get("groups", {}).items()}
        facts = {str(key): str(value) for key, value in data.get("facts", {}).items()}
        texts = {name: {int(key): str(value) for key, value in data[name].items()} for name in ("comms", "printk")}
        recording = Recording(
            **order, tables=tables, comms=texts["comms"], printk=texts["printk"], groups=groups,
            facts=facts, lost=numbers["lost"], gaps=numbers["gaps"], damaged=numbers["damaged"],
            overrun=numbers["overrun"], unknown=numbers["unknown"], clock=str(data["clock"]), uname=str(data["uname"]),
            cpus=int(data["cpus"]), instances=[str(name) for name in data["instances"]],
            notes=[str(note) for note in data["notes"]], source=str(folder), kallsyms_text=lambda: _read_kallsyms(folder),
        )  # fmt: skip
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, RecordingError):
            raise
        raise RecordingError(f"{folder / METADATA}: damaged: {type(error).__name__} {error}") from error
    if not 0 <= recording.cpus <= 1 << 16:
        raise RecordingError(f"{folder / METADATA}: {recording.cpus} CPUs")
    recording.check()
    return recording


def _read_metadata(folder: Path) -> dict[str, Any]:
    path = folder / METADATA
    named = "" if path.exists() else name_of_folder(folder)
    if named:
        raise RecordingError(f"{folder}: {named}")
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise RecordingError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: no valid JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise RecordingError(f"{path}: not a {FORMAT} file")
    if data.get("version") != VERSION:
        raise RecordingError(f"{path}: version {data.get('version')!r}, this program reads {VERSION}")
    return data


def _open_table(folder: Path, data: dict[str, Any]) -> EventTable:
    name, file = str(data["name"]), str(data["file"])
    if Path(file).name != file:
        raise RecordingError(f"{folder / METADATA}: table file {file!r} is not a plain name")
    rows = int(data["rows"])
    kinds = {str(key): str(value) for key, value in data["fields"].items()}
    fields, heaps = _read_table(folder / file, kinds, rows)
    fmt = parse_event_format(str(data["format"]), str(data["system"])) if data["format"] else None
    return EventTable(name, str(data["system"]), fields, fmt, heaps, rows)


def _read_table(path: Path, kinds: dict[str, str], rows: int) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.uint8]]]:
    import pyarrow as pa

    fields: dict[str, NDArray[Any]] = {}
    heaps: dict[str, NDArray[np.uint8]] = {}
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if reader.num_record_batches != 1:
            raise RecordingError(f"{path}: {reader.num_record_batches} record batches, expected 1")
        batch = reader.get_batch(0)
        batch.validate()
        if batch.num_rows != rows and batch.num_columns:
            raise RecordingError(f"{path}: {batch.num_rows} rows, expected {rows}")
        for name, kind in kinds.items():
            column = batch.column(name)
            if column.null_count:
                raise RecordingError(f"{path}: column {name} has nulls")
            if kind == "var":
                fields[name], heaps[name] = _variable(column, f"{path}: column {name}")
            else:
                fields[name] = _fixed(column, kind, rows, f"{path}: column {name}")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise RecordingError(f"{path}: {error}") from error
    return fields, heaps


def _fixed(column: pa.Array, kind: str, rows: int, where: str) -> NDArray[Any]:
    match = re.fullmatch(r"([iuS])(\d{1,5})(?:\[(\d{1,5})\])?", kind)
    if match is None or (match[1] != "S" and match[1] + match[2] not in _NUMBERS):
        raise RecordingError(f"{where}: unknown column type {kind!r}")
    dtype = np.dtype(f"{'' if match[1] == 'S' else '<'}{match[1]}{match[2]}")
    width = int(match[3] or 1)
    flat = column.flatten() if match[3] else column
    expected = f"fixed_size_binary[{match[2]}]" if match[1] == "S" else f"{'u' if match[1] == 'u' else ''}int{8 * int(match[2])}"
    if str(flat.type) != expected or len(flat) != rows * width or flat.null_count:
        raise RecordingError(f"{where}: {len(flat)} values of {flat.type}, expected {rows * width} of {expected}")
    buffer = flat.buffers()[-1]
    if buffer is None:
        return np.empty((rows, width) if match[3] else rows, dtype)
    size = rows * width * dtype.itemsize
    if buffer.size - flat.offset * dtype.itemsize < size:
        raise RecordingError(f"{where}: buffer of {buffer.size} bytes, {size} are wanted")
    array = np.frombuffer(buffer, dtype, rows * width, flat.offset * dtype.itemsize) if size else np.empty(0, dtype)
    return array.reshape(rows, width) if match[3] else array


def _variable(column: pa.Array, where: str) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    if str(column.type) != "large_binary":
        raise RecordingError(f"{where}: {column.type}, expected large_binary")
    column.validate(full=True)
    out = np.zeros(len(column), LOCATION)
    _, offset_buffer, data = column.buffers()
    heap = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    if len(column):
        offsets = np.frombuffer(offset_buffer, "<i8", len(column) + 1, 8 * column.offset)
        sizes = np.diff(offsets)
        if int(offsets[0]) < 0 or int(offsets[-1]) > len(heap) or int(sizes.min()) < 0 or int(sizes.max()) >= 1 << 32:
            raise RecordingError(f"{where}: offsets pass the end of its {len(heap)} bytes")
        out["offset"], out["len"] = offsets[:-1], sizes
    return out, heap


def _read_kallsyms(folder: Path) -> bytes:
    path = folder / KALLSYMS
    if not path.exists():
        return b""
    import zstandard

    try:
        with open(path, "rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
            return bytes(stream.read(_KALLSYMS_LIMIT))
    except (OSError, zstandard.ZstdError) as error:
        raise RecordingError(f"{path}: {error}") from error
