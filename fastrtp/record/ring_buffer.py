"""Records out of ring-buffer pages: the trace data of every CPU as arrays of offsets, times, types and pids.

`read_pages` brings the pages of all CPUs into one byte array (the mapped file itself when nothing is compressed);
`scan` walks them natively and merges the CPUs into one time order. Kernel: kernel/trace/ring_buffer.c.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrtp.errors import RecordingError

from .compression import CHUNK_LIMIT, decompress_chunks
from .reader import ByteReader
from .trace_dat import TraceDat
from .trace_dat_options import CpuBuffer, TraceBuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]

_ERRORS = {
    1: "a page's commit passes the end of the page",
    2: "a record passes the end of its page",
    3: "more records than the bytes can hold",
    4: "a record too short for the common fields",
    5: "truncated: a page without its header",
}
_STATE = (
    "data", "at", "end", "page_size", "commit_size", "header_size", "type_offset", "pid_offset", "min_record", "out_offset",
    "out_time", "out_type", "out_pid", "out_length", "capacity", "count", "error_at", "lost", "gaps",
)  # fmt: skip
"""Order of the scan's state words; ring_buffer_native.py has the same as S_* constants."""


class CpuPages(NamedTuple):
    """Bytes [start, end) of the page array are one CPU's."""

    cpu: int
    start: int
    end: int


@dataclass(slots=True)
class Pages:
    """All CPUs' pages in `data`. `damaged`: bytes of each CPU that could not be unpacked, and why; zeros stand for them."""

    data: NDArray[np.uint8]
    cpus: list[CpuPages]
    damaged: dict[int, tuple[int, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CommonFields:
    """Where every record keeps its type id and its pid, in bytes; `size`: what a record has at least."""

    type_offset: int = 0
    pid_offset: int = 4
    size: int = 8


@dataclass(slots=True)
class Records:
    """All records in time order: `offset` into the pages, `length` in bytes, `time` in the clock's units.

    `damaged`: pages by CPU that contradict themselves and were left out; `notes`: what is wrong with the first of each CPU's.
    """

    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    time: NDArray[np.int64]
    cpu: NDArray[np.uint16]
    type: NDArray[np.uint16]
    pid: NDArray[np.int32]
    lost: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)
    damaged: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_pages(trace: TraceDat, buffer: TraceBuffer, progress: Progress | None = None) -> Pages:
    """The pages of one instance, unpacked where the file is compressed."""
    if not trace.compressed:
        cpus = [CpuPages(cpu.cpu, cpu.offset, cpu.offset + cpu.size) for cpu in buffer.cpus if cpu.size]
        return Pages(np.frombuffer(trace.data, np.uint8), cpus)
    plans: list[tuple[CpuBuffer, list[tuple[memoryview, int]], int]] = []
    total = 0
    for cpu in buffer.cpus:
        if cpu.size:
            chunks = _chunks(trace, cpu)
            size = sum(plain for _, plain in chunks)
            plans.append((cpu, chunks, size))
            total += size
    try:
        data = np.empty(total, np.uint8)
    except (MemoryError, ValueError) as error:
        raise RecordingError(f"{trace.path}: trace data of {total} bytes unpacked does not fit into memory") from error
    cpus = []
    damaged: dict[int, tuple[int, str]] = {}
    at = 0
    packed = 0
    for cpu, chunks, size in plans:
        where = f"{trace.path}: trace data of CPU {cpu.cpu} at {cpu.offset:#x}"
        try:
            decompress_chunks(trace.compression, chunks, data[at : at + size], where)
        except RecordingError as error:
            damaged[cpu.cpu] = (_unpack_rest(trace.compression, chunks, data[at : at + size], where), str(error))
        cpus.append(CpuPages(cpu.cpu, at, at + size))
        at += size
        packed += cpu.size
        if progress is not None:
            progress(packed, len(trace.data))
    if damaged and all(damaged.get(cpu.cpu, (0, ""))[0] == cpu.end - cpu.start for cpu in cpus):
        raise RecordingError(next(iter(damaged.values()))[1])
    return Pages(data, cpus, damaged)


def _unpack_rest(algorithm: str, chunks: Sequence[tuple[memoryview, int]], out: NDArray[np.uint8], where: str) -> int:
    """Unpack the chunks one by one; zeros, which are empty pages, stand for those that cannot be. How many bytes these are."""
    at = bad = 0
    for chunk in chunks:
        piece = out[at : at + chunk[1]]
        try:
            decompress_chunks(algorithm, [chunk], piece, where)
        except RecordingError:
            piece[:] = 0
            bad += chunk[1]
        at += chunk[1]
    return bad


def _chunks(trace: TraceDat, cpu: CpuBuffer) -> list[tuple[memoryview, int]]:
    # the file's size of a CPU's data counts the chunks, not the word before them that says how many there are
    body = trace.data[cpu.offset : cpu.offset + cpu.size + 4]
    reader = ByteReader(body, f"trace data of CPU {cpu.cpu}", cpu.offset)
    chunks: list[tuple[memoryview, int]] = []
    for index in range(reader.count(8, "number of chunks")):
        packed, plain = reader.u32(f"compressed size of chunk {index}"), reader.u32(f"size of chunk {index}")
        if plain > CHUNK_LIMIT:
            raise reader.error(f"chunk {index} unpacks to {plain} bytes, the limit is {CHUNK_LIMIT}", reader.offset - 4)
        chunks.append((reader.bytes(packed, f"chunk {index}"), plain))
    return chunks


def scan(
    pages: Pages, page_size: int, commit_size: int, data_offset: int, common: CommonFields, progress: Progress | None = None
) -> Records:
    """Walk all pages and merge the CPUs by time: stable, equal times in CPU order, the order within a CPU never changed."""
    parts: list[tuple[int, dict[str, NDArray[Any]]]] = []
    found = _Losses({}, {}, {}, [])
    done = good = 0
    for cpu in pages.cpus:
        state: dict[str, int] = {
            "page_size": page_size, "commit_size": commit_size, "header_size": data_offset, "type_offset": common.type_offset,
            "pid_offset": common.pid_offset, "min_record": common.size,
        }  # fmt: skip
        part, damage = _scan_cpu(pages, cpu, state)
        unpacked, why = pages.damaged.get(cpu.cpu, (0, ""))
        bad = damage.pages + -(-unpacked // page_size)
        good += -(-(cpu.end - cpu.start) // page_size) - bad
        if bad:
            found.damaged[cpu.cpu] = found.damaged.get(cpu.cpu, 0) + bad
            found.notes.append(f"{bad} damaged pages left out: {damage.why or why}")
        parts.append((cpu.cpu, part))
        found.lost[cpu.cpu] = found.lost.get(cpu.cpu, 0) + damage.lost
        found.gaps[cpu.cpu] = found.gaps.get(cpu.cpu, 0) + damage.gaps
        done += cpu.end - cpu.start
        if progress is not None:
            progress(done, sum(other.end - other.start for other in pages.cpus))
    if found.damaged and not good:
        raise RecordingError(found.notes[0].partition(": ")[2])
    return _merge(parts, found)


class _Damage(NamedTuple):
    """What a CPU's pages lack: events that were not recorded, and pages that cannot be read; what is wrong with the first."""

    lost: int
    gaps: int
    pages: int
    why: str


class _Losses(NamedTuple):
    """The same of all CPUs: `lost`, `gaps`, `damaged` and `notes` of `Records`."""

    lost: dict[int, int]
    gaps: dict[int, int]
    damaged: dict[int, int]
    notes: list[str]


def _scan_cpu(pages: Pages, cpu: CpuPages, state: dict[str, int]) -> tuple[dict[str, NDArray[Any]], _Damage]:
    """The records of one CPU's pages. One that contradicts itself is left out with all that it holds, and the next is read."""
    from fastrtp.native.library import library

    capacity = (cpu.end - cpu.start) // (4 + max(state["min_record"], 4)) + 1
    part: dict[str, NDArray[Any]] = {
        "out_offset": np.empty(capacity, np.int64),
        "out_time": np.empty(capacity, np.int64),
        "out_type": np.empty(capacity, np.uint16),
        "out_pid": np.empty(capacity, np.int32),
        "out_length": np.empty(capacity, np.int32),
    }
    size = state["page_size"]
    state |= {"data": pages.data.ctypes.data, "end": cpu.end}
    at, kept, lost, gaps, bad, why = cpu.start, 0, 0, 0, 0, ""
    while at < cpu.end:
        state |= {name: array[kept:].ctypes.data for name, array in part.items()}
        state |= {"at": at, "capacity": capacity - kept}
        words = np.array([state.get(name, 0) for name in _STATE], np.int64)
        error = library().ring_buffer_scan(words.ctypes.data)
        state.update(zip(_STATE, words.tolist(), strict=True))
        lost, gaps = lost + state["lost"], gaps + state["gaps"]
        if not error:
            kept += state["count"]
            break
        place = state["error_at"] - cpu.start
        why = why or f"trace data of CPU {cpu.cpu}: byte {place:#x} of the pages: {_ERRORS[error]}"
        bad += 1
        page = cpu.start + place // size * size
        kept += int(np.searchsorted(part["out_offset"][kept : kept + state["count"]], page))
        at = page + size
    found = {name: array[:kept] for name, array in part.items()}
    if kept and int(found["out_time"].min()) < 0:
        number = (found["out_offset"] - cpu.start) // size
        late = np.unique(number[found["out_time"] < 0])
        whole = ~np.isin(number, late)
        found = {name: array[whole] for name, array in found.items()}
        bad += len(late)
        why = why or f"trace data of CPU {cpu.cpu}: a time stamp is beyond 63 bits"
    return found, _Damage(lost, gaps, bad, why)


def _merge(parts: Sequence[tuple[int, dict[str, NDArray[Any]]]], losses: _Losses) -> Records:
    parts = sorted(parts, key=lambda part: part[0])

    def joined(name: str, dtype: Any) -> NDArray[Any]:
        return np.concatenate([part[name] for _, part in parts]) if parts else np.empty(0, dtype)

    cpus = [np.full(len(part["out_time"]), cpu, np.uint16) for cpu, part in parts]
    records = Records(
        joined("out_offset", np.int64), joined("out_length", np.int32), joined("out_time", np.int64),
        np.concatenate(cpus) if cpus else np.empty(0, np.uint16), joined("out_type", np.uint16), joined("out_pid", np.int32),
        *losses,
    )  # fmt: skip
    if len(parts) < 2:
        return records
    keys = np.concatenate([np.maximum.accumulate(part["out_time"]) for _, part in parts])
    order = np.argsort(keys, kind="stable")
    for name in RECORD_COLUMNS:
        setattr(records, name, getattr(records, name)[order])
    return records


RECORD_COLUMNS = ("offset", "length", "time", "cpu", "type", "pid")


def merge_buffers(buffers: Sequence[tuple[Pages, Records]]) -> tuple[NDArray[np.uint8], Records]:
    """(all pages, all records by time) of several buffers of one machine; equal times in the order of the buffers."""
    data, merged = buffers[0][0].data, buffers[0][1]
    for pages, records in buffers[1:]:
        shift = 0
        if pages.data is not data and pages.data.ctypes.data != data.ctypes.data:
            shift = len(data)
            data = np.concatenate([data, pages.data])
        both = [np.concatenate([getattr(merged, name), getattr(records, name)]) for name in RECORD_COLUMNS]
        both[0][len(merged.offset) :] += shift
        keys = np.concatenate([np.maximum.accumulate(one.time) if len(one.time) else one.time for one in (merged, records)])
        order = np.argsort(keys, kind="stable")
        lost, gaps = _added(merged.lost, records.lost), _added(merged.gaps, records.gaps)
        offset, length, time, cpu, kind, pid = (column[order] for column in both)
        merged = Records(offset, length, time, cpu, kind, pid, lost, gaps, _added(merged.damaged, records.damaged))
    merged.notes = [note for _pages, records in buffers for note in records.notes]
    return data, merged


def _added(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {cpu: one.get(cpu, 0) + other.get(cpu, 0) for cpu in sorted(one.keys() | other.keys())}
