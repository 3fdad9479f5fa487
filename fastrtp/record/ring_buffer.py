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
    """All CPUs' pages in `data`; `file_offset` adds up to a place in the file where the data is the file itself."""

    data: NDArray[np.uint8]
    cpus: list[CpuPages]


@dataclass(frozen=True, slots=True)
class CommonFields:
    """Where every record keeps its type id and its pid, in bytes; `size`: what a record has at least."""

    type_offset: int = 0
    pid_offset: int = 4
    size: int = 8


@dataclass(slots=True)
class Records:
    """All records in time order: `offset` into the pages, `length` in bytes, `time` in the clock's units."""

    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    time: NDArray[np.int64]
    cpu: NDArray[np.uint16]
    type: NDArray[np.uint16]
    pid: NDArray[np.int32]
    lost: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)


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
    at = 0
    packed = 0
    for cpu, chunks, size in plans:
        where = f"{trace.path}: trace data of CPU {cpu.cpu} at {cpu.offset:#x}"
        decompress_chunks(trace.compression, chunks, data[at : at + size], where)
        cpus.append(CpuPages(cpu.cpu, at, at + size))
        at += size
        packed += cpu.size
        if progress is not None:
            progress(packed, len(trace.data))
    return Pages(data, cpus)


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
    lost: dict[int, int] = {}
    gaps: dict[int, int] = {}
    done = 0
    for cpu in pages.cpus:
        state: dict[str, int] = {
            "page_size": page_size, "commit_size": commit_size, "header_size": data_offset, "type_offset": common.type_offset,
            "pid_offset": common.pid_offset, "min_record": common.size,
        }  # fmt: skip
        part = _scan_cpu(pages, cpu, state)
        parts.append((cpu.cpu, part))
        lost[cpu.cpu] = lost.get(cpu.cpu, 0) + state["lost"]
        gaps[cpu.cpu] = gaps.get(cpu.cpu, 0) + state["gaps"]
        done += cpu.end - cpu.start
        if progress is not None:
            progress(done, sum(other.end - other.start for other in pages.cpus))
    return _merge(parts, lost, gaps)


def _scan_cpu(pages: Pages, cpu: CpuPages, state: dict[str, int]) -> dict[str, NDArray[Any]]:
    from fastrtp.native.library import library

    capacity = (cpu.end - cpu.start) // (4 + max(state["min_record"], 4)) + 1
    part: dict[str, NDArray[Any]] = {
        "out_offset": np.empty(capacity, np.int64),
        "out_time": np.empty(capacity, np.int64),
        "out_type": np.empty(capacity, np.uint16),
        "out_pid": np.empty(capacity, np.int32),
        "out_length": np.empty(capacity, np.int32),
    }
    state |= {name: array.ctypes.data for name, array in part.items()}
    state |= {"data": pages.data.ctypes.data, "at": cpu.start, "end": cpu.end, "capacity": capacity}
    words = np.array([state.get(name, 0) for name in _STATE], np.int64)
    error = library().ring_buffer_scan(words.ctypes.data)
    state.update(zip(_STATE, words.tolist(), strict=True))
    if error:
        raise RecordingError(
            f"trace data of CPU {cpu.cpu}: byte {state['error_at'] - cpu.start:#x} of the pages: {_ERRORS[error]}"
        )
    count = state["count"]
    return {name: array[:count] for name, array in part.items()}


def _merge(parts: Sequence[tuple[int, dict[str, NDArray[Any]]]], lost: dict[int, int], gaps: dict[int, int]) -> Records:
    parts = sorted(parts, key=lambda part: part[0])

    def joined(name: str, dtype: Any) -> NDArray[Any]:
        return np.concatenate([part[name] for _, part in parts]) if parts else np.empty(0, dtype)

    time = joined("out_time", np.int64)
    if len(time) and int(time.min()) < 0:
        raise RecordingError("trace data: a time stamp is beyond 63 bits")
    cpus = [np.full(len(part["out_time"]), cpu, np.uint16) for cpu, part in parts]
    records = Records(
        joined("out_offset", np.int64), joined("out_length", np.int32), time,
        np.concatenate(cpus) if cpus else np.empty(0, np.uint16), joined("out_type", np.uint16), joined("out_pid", np.int32),
        lost, gaps,
    )  # fmt: skip
    if len(parts) < 2:
        return records
    keys = np.concatenate([np.maximum.accumulate(part["out_time"]) for _, part in parts])
    order = np.argsort(keys, kind="stable")
    for name in ("offset", "length", "time", "cpu", "type", "pid"):
        setattr(records, name, getattr(records, name)[order])
    return records
