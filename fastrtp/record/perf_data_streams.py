"""Stream: a run of perf records, walked and unpacked.

A perf.data file has one, a folder several, and compressed records hold another one, cut without regard to its records.
Kernel: tools/perf/util/session.c, tools/perf/util/zstd.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrtp.errors import RecordingError

from . import perf_data_layout as layout
from .compression import CHUNK_LIMIT
from .reader import ByteReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOST, COMM, THROTTLE, FORK, LOST_SAMPLES = 2, 3, 5, 7, 13
HEADER_ATTR, EVENT_UPDATE, HEADER_FEATURE, COMPRESSED, COMPRESSED2 = 64, 78, 80, 81, 83
HEADER_TRACING_DATA = layout.RECORD_HEADER_TRACING_DATA
_WANTED = (
    LOST, COMM, THROTTLE, FORK, LOST_SAMPLES, HEADER_ATTR, HEADER_TRACING_DATA, EVENT_UPDATE, HEADER_FEATURE, COMPRESSED,
    COMPRESSED2,
)  # fmt: skip
_HEADER = 8
_TEXT_LIMIT = 1 << 16
_UNPACK_STEP = 1024
_MOST_PER_BYTE = 1024
"""Records hold times and ids, which differ: nothing that a kernel wrote packs that well."""

ERRORS = {
    layout.NO_HEADER: "truncated: a record without its header",
    layout.BAD_SIZE: "a record shorter than its header",
    layout.PAST_END: "truncated: a record passes the end of the data",
    layout.SHORT_SAMPLE: "a sample too short for what its event says it has",
    layout.BAD_READ: "a sample whose counters pass its end",
    layout.BAD_CALLCHAIN: "a sample whose callchain passes its end",
    layout.BAD_RAW: "a sample whose raw data passes its end",
    layout.SHORT_RAW: "raw data too short for the common fields",
    layout.BAD_CPU: f"a sample of a CPU beyond {layout.MAX_CPU}",
    layout.BAD_CAPACITY: "more records than before: the file is being written",
}


class SideRecord(NamedTuple):
    """A record that is no sample. `reader` is at its body; `extra`: what follows it in the stream without being a record."""

    kind: int
    misc: int
    reader: ByteReader
    extra: memoryview


@dataclass(slots=True)
class Stream:
    """Records in data[start:end]. `samples`: how many of them are samples; `sides`: where the others are that matter."""

    name: str
    data: NDArray[np.uint8]
    start: int
    end: int
    samples: int
    sides: NDArray[np.int64]

    def side_records(self, *kinds: int) -> Iterator[SideRecord]:
        """Those of `kinds`, in order."""
        view = memoryview(self.data)  # type: ignore[arg-type]
        kind_at = self.data[self.sides]  # types are below 128: the lowest byte tells them apart
        for at in self.sides[np.isin(kind_at, kinds)].tolist():
            header = view[at : at + _HEADER]
            size = int.from_bytes(header[6:8], "little")
            reader = ByteReader(view[at : at + size], self.name, at, _HEADER)
            following = _following(reader) if header[0] == HEADER_TRACING_DATA else 0
            yield SideRecord(header[0], int.from_bytes(header[4:6], "little"), reader, view[at + size : at + size + following])


def _following(reader: ByteReader) -> int:
    size = reader.u32("size of the tracing data")
    reader.offset -= 4
    return size


def walk(name: str, data: NDArray[np.uint8], start: int, end: int) -> Stream:
    """Check the sizes of all records and find those that are no samples. RecordingError."""
    counted = _walk(name, data, start, end, np.empty(0, np.int64))
    sides = np.empty(counted[layout.W_FOUND], np.int64)
    if len(sides):
        counted = _walk(name, data, start, end, sides)
    return Stream(name, data, start, end, counted[layout.W_SAMPLES], sides)


def without_text(data: NDArray[np.uint8], start: int, end: int) -> int:
    """Where the records of a pipe end: what perf told its user may stand behind them, when both went to one place.

    Only text that is no record is taken for that: whatever else is there stays, and is refused when it is damaged.
    """
    tail = data[max(start, end - _TEXT_LIMIT) : end]
    is_text = (tail >= 0x20) & (tail < 0x7F) | np.isin(tail, np.frombuffer(b"\t\n\r\x1b", np.uint8))
    binary = np.flatnonzero(~is_text)
    first = max(start, end - _TEXT_LIMIT) + (int(binary[-1]) + 1 if len(binary) else 0)
    if first == end:
        return end
    state = _state(data, start, end, np.empty(0, np.int64))
    if not _run(state):
        return end
    stopped = int(state[layout.W_ERROR_AT])
    return stopped if stopped >= first else end


def _walk(name: str, data: NDArray[np.uint8], start: int, end: int, sides: NDArray[np.int64]) -> list[int]:
    state = _state(data, start, end, sides)
    error = _run(state)
    if error:
        raise RecordingError(f"{name}: offset {int(state[layout.W_ERROR_AT]):#x}: {ERRORS[error]}")
    words: list[int] = state.tolist()
    return words


def _state(data: NDArray[np.uint8], start: int, end: int, sides: NDArray[np.int64]) -> NDArray[np.int64]:
    state = np.zeros(layout.W_WORDS, np.int64)
    state[layout.W_DATA], state[layout.W_AT], state[layout.W_END] = data.ctypes.data, start, end
    state[layout.W_LOW] = sum(1 << kind for kind in _WANTED if kind < 64)
    state[layout.W_HIGH] = sum(1 << kind - 64 for kind in _WANTED if kind >= 64)
    state[layout.W_SIDES], state[layout.W_CAPACITY] = sides.ctypes.data if len(sides) else 0, len(sides)
    return state


def _run(state: NDArray[np.int64]) -> int:
    """Walk as a state says; an error's number, 0 for none."""
    from fastrtp.native.library import library

    return int(library().perf_data_walk(state.ctypes.data))


def unpack(stream: Stream, limit: int) -> Stream | None:
    """The records that its compressed records hold; None without any. `limit`: bytes that one of these may unpack to, or 0."""
    import zstandard

    limit = min(limit or CHUNK_LIMIT, CHUNK_LIMIT)
    unpacker = zstandard.ZstdDecompressor().decompressobj()
    plain = bytearray()
    packed_size = 0
    for record in stream.side_records(COMPRESSED, COMPRESSED2):
        reader = record.reader
        size = reader.u64("size of compressed data") if record.kind == COMPRESSED2 else reader.end - reader.offset
        packed = reader.bytes(size, "compressed data")
        packed_size += size
        before = len(plain)
        for at in range(0, size, _UNPACK_STEP):  # little by little, so that what is too much is noticed early
            data: bytes | memoryview = packed[at : at + _UNPACK_STEP]
            while len(data):
                if unpacker.eof:
                    unpacker = zstandard.ZstdDecompressor().decompressobj()
                try:
                    plain += unpacker.decompress(data)
                except (zstandard.ZstdError, MemoryError) as error:
                    raise reader.error(f"compressed data: zstd: {error}", _HEADER) from error
                data = unpacker.unused_data if unpacker.eof else b""
                if len(plain) - before > limit or len(plain) > packed_size * _MOST_PER_BYTE:
                    raise reader.error(f"compressed data: {size} bytes unpack to more than a recorder packs into these", _HEADER)
    if not packed_size:
        return None
    found = walk(f"{stream.name}: unpacked data", np.frombuffer(plain, np.uint8), 0, len(plain))
    if np.isin(found.data[found.sides], (COMPRESSED, COMPRESSED2)).any():
        raise RecordingError(f"{found.name}: compressed records within compressed records")
    return found
