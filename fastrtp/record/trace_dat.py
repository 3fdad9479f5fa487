"""TraceDat: a trace.dat file of trace-cmd, version 6 or 7, opened and indexed.

Owns the container: initial format, sections, options, which bytes are whose trace data. Knows neither events nor columns.
Metadata is read when the file is opened, kallsyms when it is asked for. Format: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastrtp.errors import RecordingError

from . import trace_dat_options as options
from . import trace_dat_sections as sections
from .compression import check_algorithm, decompress
from .reader import ByteReader, map_file
from .trace_dat_options import CpuBuffer, TraceBuffer, TraceOptions
from .trace_dat_sections import FormatText, HeaderPage
from .unknown import name_of

MAGIC = b"\x17\x08\x44tracing"
_SECTION_NAMES = {
    0: "options", 3: "buffer", 16: "headers", 17: "ftrace events", 18: "event formats", 19: "kallsyms", 20: "printk",
    21: "command lines",
}  # fmt: skip
_COMPRESSED = 1
_MAX_CPUS = 1 << 16


class TraceDat:
    """An open trace.dat.

    `data`: the mapped file. `formats`: format text by type id. `buffers`: instances, the top one ("") first.
    `compressed`: whether a CPU's data is a sequence of compressed chunks. `notes`: what was left out because it is damaged, and
    nothing else depends on it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.data = map_file(self.path)
        self.header_page = HeaderPage()
        self.formats: dict[int, FormatText] = {}
        self.options = TraceOptions()
        self.comms: dict[int, str] = {}
        self.printk: dict[int, str] = {}
        self.buffers: list[TraceBuffer] = []
        self.compression = "none"
        self.compressed = False
        self.notes: list[str] = []
        self._kallsyms: Callable[[], bytes] = bytes
        reader = ByteReader(self.data, "initial format")
        if bytes(reader.data[: len(MAGIC)]) != MAGIC:
            named = name_of(bytes(reader.data[:64]), self.path)
            kind = f"it is {named}" if named else f"begins {bytes(reader.data[:10])!r}"
            raise RecordingError(f"{self.path}: neither a trace.dat nor a perf.data file: {kind}")
        reader.offset = len(MAGIC)
        number = reader.string("version", 16)
        if number not in ("6", "7"):
            raise reader.error(f"version {number!r} is not supported: 6 and 7 are", len(MAGIC))
        self.version = int(number)
        if reader.u8("endianness") != 0:
            raise reader.error("a big-endian recording: only little-endian ones are supported", reader.offset - 1)
        self.long_size = reader.u8("size of a long")
        if self.long_size not in (4, 8):
            raise reader.error(f"size of a long is {self.long_size}, expected 4 or 8", reader.offset - 1)
        self.page_size = sections.check_page_size(reader.u32("page size"))
        if self.version == 6:
            self._read_v6(reader)
        else:
            self._read_v7(reader)
        self._check_buffers()

    @property
    def kallsyms(self) -> bytes:
        """The text of the recorded machine's /proc/kallsyms; empty when the file has none, or none that can be read."""
        with self._optional():
            return self._kallsyms()
        return b""

    @contextmanager
    def _optional(self) -> Iterator[None]:
        """A part that costs nothing but itself: when it is damaged, a note says so."""
        try:
            yield
        except RecordingError as error:
            note = f"left out: {error}"
            if note not in self.notes:
                self.notes.append(note)

    @property
    def sub_buffer_size(self) -> int:
        """Bytes of a ring-buffer page, from header_page: larger than a memory page where the kernel was told so."""
        size = self.header_page.data_offset + self.header_page.data_size
        return size if size > self.page_size and size % self.page_size == 0 and size <= 1 << 24 else self.page_size

    # version 6: everything in a fixed order

    def _read_v6(self, reader: ByteReader) -> None:
        reader.where = "headers"
        self.header_page = sections.read_headers(reader)
        reader.where = "ftrace events"
        sections.read_ftrace_formats(reader, self.formats)
        reader.where = "event formats"
        sections.read_event_formats(reader, self.formats)
        reader.where = "kallsyms"
        size = reader.u32("size of kallsyms")
        text = reader.bytes(size, "kallsyms")
        self._kallsyms = lambda: bytes(text)
        reader.where = "printk"
        self.printk = sections.parse_printk_formats(sections.read_sized_text(reader, "printk formats"))
        reader.where = "command lines"
        self.comms = sections.parse_cmdlines(sections.read_sized_text(reader, "command lines", wide=True))
        reader.where = "trace data"
        count = reader.u32("number of CPUs")
        if count > _MAX_CPUS:
            raise reader.error(f"number of CPUs is {count}, the limit is {_MAX_CPUS}", reader.offset - 4)
        kind = bytes(reader.bytes(10, "kind of data"))
        if kind == b"options  \0":
            while (option := reader.u16("option")) != options.DONE:
                size = reader.u32(f"size of option {option}")
                start = reader.offset
                body = ByteReader(reader.bytes(size, f"option {option}"), f"option {option}", start)
                self._apply(option, body, 6)
            kind = bytes(reader.bytes(10, "kind of data"))
        if kind == b"latency  \0":
            raise reader.error("a latency trace holds text, not events", reader.offset - 10)
        if kind != b"flyrecord\0":
            raise reader.error(f"unknown kind of data {kind!r}", reader.offset - 10)
        cpus = tuple(CpuBuffer(cpu, reader.u64("offset of CPU data"), reader.u64("size of CPU data")) for cpu in range(count))
        self.buffers = [TraceBuffer("", 0, self.options.clock, self.sub_buffer_size, cpus), *self.options.buffers]

    # version 7: sections that options point to

    def _read_v7(self, reader: ByteReader) -> None:
        self.compression = check_algorithm(reader.string("compression algorithm", 32))
        reader.string("version of the compression algorithm", 64)
        self._read_options(reader.u64("offset of the options"))
        found = self.options.sections
        if options.HEADER_INFO not in found:
            raise RecordingError(f"{self.path}: no section with the page header")
        self.header_page = sections.read_headers(self._section(options.HEADER_INFO))
        if options.FTRACE_EVENTS in found:
            with self._optional():
                sections.read_ftrace_formats(self._section(options.FTRACE_EVENTS), self.formats)
        if options.EVENT_FORMATS in found:
            sections.read_event_formats(self._section(options.EVENT_FORMATS), self.formats)
        if options.KALLSYMS in found:
            self._kallsyms = lambda: sections.read_sized_text(self._section(options.KALLSYMS), "kallsyms")
        if options.PRINTK in found:
            with self._optional():
                text = sections.read_sized_text(self._section(options.PRINTK), "printk formats")
                self.printk = sections.parse_printk_formats(text)
        if options.CMDLINES in found:
            with self._optional():
                text = sections.read_sized_text(self._section(options.CMDLINES), "command lines", wide=True)
                self.comms = sections.parse_cmdlines(text)
        self.buffers = sorted(self.options.buffers, key=lambda buffer: buffer.name != "")
        if not self.buffers and self.options.text:
            raise RecordingError(f"{self.path}: a latency trace holds text, not events")
        if self.buffers:
            header = self._section_header(self.buffers[0].offset, "buffer")
            self.compressed = bool(header[1] & _COMPRESSED)

    def _read_options(self, offset: int) -> None:
        seen: set[int] = set()
        while offset:
            if offset in seen:
                raise RecordingError(f"{self.path}: options section at {offset:#x} leads back to itself")
            seen.add(offset)
            reader = self._section_at(offset, 0)
            offset = 0
            while reader.offset < reader.end:
                option = reader.u16("option")
                size = reader.u32(f"size of option {option}")
                start = reader.base + reader.offset
                body = ByteReader(reader.bytes(size, f"option {option}"), f"option {option}", start)
                if option == options.DONE:
                    offset = body.u64("offset of the next options") if size >= 8 else 0
                    break
                self._apply(option, body, 7)

    def _apply(self, option: int, body: ByteReader, version: int) -> None:
        if option not in options.OPTIONAL:
            self.options.apply(option, body, version)
            return
        with self._optional():
            self.options.apply(option, body, version)

    def _section_header(self, offset: int, where: str) -> tuple[int, int, int]:
        """(id, flags, size in the file) of the section at `offset`."""
        if offset > len(self.data):
            raise RecordingError(
                f"{self.path}: {where} section at {offset:#x} is past the end of the file at {len(self.data):#x}"
            )
        reader = ByteReader(self.data, f"{where} section", 0, offset)
        section, flags = reader.u16("section id"), reader.u16("section flags")
        reader.u32("section description")
        return section, flags, reader.u64("section size")

    def _section(self, section: int) -> ByteReader:
        return self._section_at(self.options.sections[section], section)

    def _section_at(self, offset: int, expected: int) -> ByteReader:
        where = _SECTION_NAMES[expected]
        section, flags, size = self._section_header(offset, where)
        reader = ByteReader(self.data, f"{where} section", 0, offset + 16)
        if section != expected:
            raise reader.error(f"section id {section}, expected {expected}", offset)
        body = reader.bytes(size, "the section")
        if not flags & _COMPRESSED:
            return ByteReader(body, f"{where} section", offset + 16)
        packed = ByteReader(body, f"{where} section", offset + 16)
        packed_size, plain_size = packed.u32("compressed size"), packed.u32("uncompressed size")
        piece = packed.bytes(packed_size, "compressed data")
        plain = decompress(self.compression, piece, plain_size, f"{self.path}: {where} section at {offset:#x}")
        return ByteReader(memoryview(plain), f"{where} section (unpacked)")

    def _check_buffers(self) -> None:
        for buffer in self.buffers:
            name = f"instance {buffer.name!r}" if buffer.name else "trace data"
            if buffer.cpus:
                sections.check_page_size(buffer.page_size)
            for cpu in buffer.cpus:
                if cpu.cpu >= _MAX_CPUS:
                    raise RecordingError(f"{self.path}: {name}: CPU number {cpu.cpu} is over the limit of {_MAX_CPUS}")
                if cpu.size and cpu.size > len(self.data) - cpu.offset:
                    raise RecordingError(
                        f"{self.path}: truncated: {name} of CPU {cpu.cpu} takes {cpu.size} bytes at offset {cpu.offset:#x}, "
                        f"the file ends at {len(self.data):#x}"
                    )
