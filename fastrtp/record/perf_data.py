"""PerfData: a perf.data file of perf record, or the folder that it writes with several files, opened and indexed.

Owns the container: header or leading records of a pipe, attrs, features, streams of records. Knows neither events nor
columns. Format: tools/perf/Documentation/perf.data-file-format.txt; Kernel: tools/perf/util/header.c.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrtp.errors import RecordingError

from .perf_data_attr import ATTR_LIMIT, PerfAttr, read_attr
from .perf_data_features import TRACING_DATA, PerfFeatures, TracingData, read_tracing_data
from .perf_data_streams import (
    EVENT_UPDATE,
    HEADER_ATTR,
    HEADER_FEATURE,
    HEADER_TRACING_DATA,
    SideRecord,
    Stream,
    unpack,
    walk,
    without_text,
)
from .reader import ByteReader, map_file

MAGIC = b"PERFILE2"
_REFUSED = {
    MAGIC[::-1]: "a big-endian perf.data file: only little-endian ones are supported",
    b"PERFFILE": "a perf.data file of version 1: version 2 is supported",
}
_PIPE_HEADER = 16
_FILE_HEADER = 104
_SECTION = 16
_FEATURE_BYTES = 32
_UPDATE_NAME = 2
_MAIN_FILE = "data"
_KALLSYMS_LIMIT = 1 << 28


class _Section(NamedTuple):
    offset: int
    size: int


def is_perf_data(path: Path) -> bool:
    """Whether this is one, of any kind, supported or not; False for what cannot be read."""
    try:
        with open(path / _MAIN_FILE if path.is_dir() else path, "rb") as file:
            magic = file.read(len(MAGIC))
    except OSError:
        return False
    return magic == MAGIC or magic in _REFUSED


class PerfData:
    """An open perf.data.

    `attrs`: its events; `features`: what its header says; `tracing`: the formats of its tracepoints, None without any;
    `streams`: all records, those that were compressed in streams of their own.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.attrs: list[PerfAttr] = []
        self.features = PerfFeatures()
        self.tracing: TracingData | None = None
        main = self.path / _MAIN_FILE if self.path.is_dir() else self.path
        self.data = map_file(main)
        self.size = len(self.data)
        reader = ByteReader(self.data, f"{main}: header")
        magic = bytes(reader.data[: len(MAGIC)])
        if magic != MAGIC:
            raise RecordingError(f"{main}: {_REFUSED.get(magic, f'not a perf.data file: begins with {magic!r}')}")
        reader.offset = len(MAGIC)
        size = reader.u64("size of the header")
        self.pipe = size == _PIPE_HEADER
        if self.pipe:
            records = _Section(_PIPE_HEADER, len(self.data) - _PIPE_HEADER)
        elif size == _FILE_HEADER:
            records = self._read_header(reader)
        else:
            raise reader.error(f"size of the header is {size}, expected {_FILE_HEADER} or, of a pipe, {_PIPE_HEADER}", len(MAGIC))
        self.notes: list[str] = []
        everything = np.frombuffer(self.data, np.uint8)
        end = records.offset + records.size
        if self.pipe:
            end = without_text(everything, records.offset, end)
            if end < records.offset + records.size:
                self.notes.append(f"{records.offset + records.size - end} bytes of text behind the last record were left out")
        self.streams = [walk(str(main), everything, records.offset, end)]
        self._add_files()
        self._read_metadata(self.streams[0])
        for stream in list(self.streams):
            plain = unpack(stream, self.features.unpacked_limit)
            if plain is not None:
                self.streams.append(plain)
        self._name_attrs()
        if not self.attrs:
            raise RecordingError(f"{self.path}: a perf.data file without events")
        for attr in self.attrs:
            attr.check(self.path)

    def kallsyms(self) -> bytes:
        """The recorded machine's symbols: beside the records of a folder, or with the formats; empty without any."""
        beside = self.path / "kcore_dir" / "kallsyms"
        if self.path.is_dir() and beside.is_file():
            with open(beside, "rb") as file:
                return file.read(_KALLSYMS_LIMIT)
        return self.tracing.kallsyms if self.tracing is not None else b""

    # a file: sections that the header points to

    def _read_header(self, reader: ByteReader) -> _Section:
        room = reader.u64("size of an attr") - _SECTION
        attrs, records = self._section(reader, "attrs"), self._section(reader, "data")
        self._section(reader, "event types")
        flags = int.from_bytes(reader.bytes(_FEATURE_BYTES, "flags"), "little")
        if not records.size:
            raise RecordingError(f"{self.path}: data of 0 bytes: perf record did not end, so that event formats are missing")
        self._read_attrs(attrs, room)
        index = ByteReader(self.data, f"{self.path}: feature sections", 0, records.offset + records.size)
        for feature in range(8 * _FEATURE_BYTES):
            if flags >> feature & 1:
                section = self._section(index, f"feature {feature}")
                body = self.data[section.offset : section.offset + section.size]
                self._apply(feature, ByteReader(body, f"{self.path}: feature {feature}", section.offset))
        return records

    def _section(self, reader: ByteReader, what: str) -> _Section:
        section = _Section(reader.u64(f"offset of {what}"), reader.u64(f"size of {what}"))
        if section.size > len(self.data) or section.offset > len(self.data) - section.size:
            raise reader.error(
                f"truncated: {what} takes {section.size} bytes at {section.offset:#x}, the file ends at {len(self.data):#x}",
                reader.offset - _SECTION,
            )
        return section

    def _read_attrs(self, section: _Section, room: int) -> None:
        reader = ByteReader(self.data[: section.offset + section.size], f"{self.path}: attrs", 0, section.offset)
        if not 0 < room <= ATTR_LIMIT or section.size % (room + _SECTION):
            raise reader.error(f"{section.size} bytes of attrs, each of {room} and {_SECTION}")
        left = len(self.data)
        while reader.offset < reader.end:
            attr = read_attr(reader, room)
            ids = self._section(reader, "ids of an attr")
            left -= ids.size
            if ids.size % 8 or left < 0:
                raise reader.error(f"ids of an attr take {ids.size} bytes", reader.offset - _SECTION)
            self.attrs.append(PerfAttr(attr, np.frombuffer(self.data, "<u8", ids.size // 8, ids.offset)))

    def _apply(self, feature: int, reader: ByteReader) -> None:
        if feature == TRACING_DATA:
            self.tracing = read_tracing_data(reader)
        else:
            self.features.apply(feature, reader)

    # a folder: more files, records alone

    def _add_files(self) -> None:
        if not self.path.is_dir():
            return
        files = [path for path in self.path.iterdir() if re.fullmatch(r"data\.\d{1,9}", path.name)]
        for path in sorted(files, key=lambda path: int(path.name.removeprefix("data."))):
            if path.stat().st_size:
                data = np.frombuffer(map_file(path), np.uint8)
                self.size += len(data)
                self.streams.append(walk(str(path), data, 0, len(data)))

    # a pipe: the same as records

    def _read_metadata(self, stream: Stream) -> None:
        for record in stream.side_records(HEADER_ATTR, HEADER_TRACING_DATA, HEADER_FEATURE):
            if record.kind == HEADER_FEATURE:
                feature = record.reader.u64("number of a feature")
                body = record.reader.data[record.reader.offset :]
                where = f"{stream.name}: feature {feature}"
                self._apply(feature, ByteReader(body, where, record.reader.base + record.reader.offset))
            elif record.kind == HEADER_TRACING_DATA:
                end = record.reader.base + record.reader.end
                self.tracing = read_tracing_data(ByteReader(record.extra, f"{stream.name}: tracing data", end))
            elif self.pipe:
                self.attrs.append(_piped_attr(record))

    def _name_attrs(self) -> None:
        by_id = dict(self._named_ids())
        for attr in self.attrs:
            attr.name = next((by_id[ident] for ident in attr.ids[:1].tolist() if ident in by_id), "")

    def _named_ids(self) -> Iterator[tuple[int, str]]:
        for name, ids in self.features.names:
            yield from ((ident, name) for ident in ids)
        for record in self.streams[0].side_records(EVENT_UPDATE):
            if record.reader.u64("kind of an update") == _UPDATE_NAME:
                yield record.reader.u64("id of an event"), record.reader.string("name of an event")


def _piped_attr(record: SideRecord) -> PerfAttr:
    reader = record.reader
    start = reader.offset
    reader.u32("type of an attr")
    room = reader.u32("size of an attr") or 64
    reader.offset = start
    attr = read_attr(reader, room)
    ids = reader.bytes((reader.end - reader.offset) // 8 * 8, "ids of an attr")
    return PerfAttr(attr, np.frombuffer(ids, "<u8"))
