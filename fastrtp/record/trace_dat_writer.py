"""Write trace.dat files, version 6 or 7: for cutting a recording down and for the reader's tests.

The counterpart of trace_dat.py; what it writes `trace-cmd report` reads too. Format: trace-cmd.dat.v6(5), trace-cmd.dat.v7(5).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from . import trace_dat_options as options
from .trace_dat import MAGIC
from .trace_dat_sections import FormatText

_BUFFER_SECTION = 3
_STRINGS_SECTION = 15
_PAGES_IN_CHUNK = 10
HEADER_EVENT = (
    "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n"
    "\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n"
)


def header_page_text(page_size: int = 4096, long_size: int = 8) -> str:
    """tracefs' events/header_page for a kernel with longs of `long_size` bytes."""
    data = 8 + long_size
    return (
        "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
        f"\tfield: local_t commit;\toffset:8;\tsize:{long_size};\tsigned:1;\n"
        "\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
        f"\tfield: char data;\toffset:{data};\tsize:{page_size - data};\tsigned:1;\n"
    )


@dataclass
class TraceContent:
    """What goes into a file. `buffers`: by instance name, each CPU's whole pages. `options`: extra (id, data) records."""

    formats: Mapping[int, FormatText]
    buffers: Mapping[str, Sequence[bytes]]
    kallsyms: bytes = b""
    printk: bytes = b""
    cmdlines: bytes = b""
    clock: str = "mono"
    options: Sequence[tuple[int, bytes]] = ()
    page_size: int = 4096
    long_size: int = 8
    kernel_long: int = 8

    def headers(self) -> bytes:
        """Body of the section with header_page and header_event."""
        page = header_page_text(self.page_size, self.kernel_long).encode()
        event = HEADER_EVENT.encode()
        return b"header_page\0" + _u64(len(page)) + page + b"header_event\0" + _u64(len(event)) + event

    def ftrace_formats(self) -> bytes:
        """Body of the section with ftrace's own events."""
        return _formats([fmt for fmt in self.formats.values() if fmt.system == "ftrace"])

    def event_formats(self) -> bytes:
        """Body of the section with all other events, by system."""
        systems: dict[str, list[FormatText]] = {}
        for fmt in self.formats.values():
            if fmt.system != "ftrace":
                systems.setdefault(fmt.system, []).append(fmt)
        return _u32(len(systems)) + b"".join(name.encode() + b"\0" + _formats(rows) for name, rows in systems.items())


def _u16(value: int) -> bytes:
    return struct.pack("<H", value)


def _u32(value: int) -> bytes:
    return struct.pack("<I", value)


def _u64(value: int) -> bytes:
    return struct.pack("<Q", value)


def _formats(rows: Sequence[FormatText]) -> bytes:
    texts = [row.text.encode() for row in rows]
    return _u32(len(texts)) + b"".join(_u64(len(text)) + text for text in texts)


def _initial(content: TraceContent, version: int) -> bytes:
    return MAGIC + b"%d\0" % version + b"\0" + bytes([content.long_size]) + _u32(content.page_size)


def _option(number: int, data: bytes) -> bytes:
    return _u16(number) + _u32(len(data)) + data


def _all_options(content: TraceContent) -> bytes:
    records = [(options.TRACECLOCK, f"[{content.clock}]\n\0".encode()), *content.options]
    return b"".join(_option(number, data) for number, data in records)


def write_v6(content: TraceContent) -> bytes:
    """A version 6 file with the top instance's data."""
    out = bytearray(_initial(content, 6))
    out += content.headers() + content.ftrace_formats() + content.event_formats()
    out += _u32(len(content.kallsyms)) + content.kallsyms + _u32(len(content.printk)) + content.printk
    out += _u64(len(content.cmdlines)) + content.cmdlines
    cpus = content.buffers[""]
    out += _u32(len(cpus)) + b"options  \0" + _all_options(content) + _u16(options.DONE) + b"flyrecord\0"
    at = _aligned(len(out) + 16 * len(cpus), content.page_size)
    table = bytearray()
    data = bytearray()
    for pages in cpus:
        table += _u64(at + len(data)) + _u64(len(pages))
        data += pages
    out += table
    return bytes(out) + bytes(at - len(out)) + bytes(data)


def write_v7(content: TraceContent, compression: str = "zstd") -> bytes:
    """A version 7 file with every instance. `compression`: zstd, zlib or none."""
    return _WriterV7(content, compression).write()


class _WriterV7:
    def __init__(self, content: TraceContent, compression: str) -> None:
        self.content = content
        self.compression = compression
        self.out = bytearray()
        self.strings = bytearray()

    def write(self) -> bytes:
        content = self.content
        self.out += _initial(content, 7) + self.compression.encode() + b"\0" + b"1\0"
        first = len(self.out)
        self.out += _u64(0)
        pieces = {
            options.HEADER_INFO: ("headers", content.headers()),
            options.FTRACE_EVENTS: ("ftrace events", content.ftrace_formats()),
            options.EVENT_FORMATS: ("events format", content.event_formats()),
            options.KALLSYMS: ("kallsyms", _u32(len(content.kallsyms)) + content.kallsyms),
            options.PRINTK: ("printk", _u32(len(content.printk)) + content.printk),
            options.CMDLINES: ("command lines", _u64(len(content.cmdlines)) + content.cmdlines),
        }
        records = b""
        for number, (name, data) in pieces.items():
            records += _option(number, _u64(self._section(number, name, data)))
        records += _all_options(content)
        at = self._section(0, "options", records + _option(options.DONE, _u64(0)), packed=False)
        self.out[first : first + 8] = _u64(at)
        buffers = b"".join(self._buffer(name, cpus) for name, cpus in content.buffers.items())
        more = self._section(0, "options", buffers + _option(options.DONE, _u64(0)), packed=False)
        self.out[at + 16 + len(records) + 6 : at + 16 + len(records) + 14] = _u64(more)
        itself = self._string("strings")
        self.out += _u16(_STRINGS_SECTION) + _u16(0) + _u32(itself) + _u64(len(self.strings)) + self.strings
        return bytes(self.out)

    def _string(self, text: str) -> int:
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def _pack(self, data: bytes) -> bytes:
        if self.compression == "zlib":
            return zlib.compress(data, 9)
        import zstandard

        return zstandard.ZstdCompressor(level=19).compress(data)

    def _section(self, number: int, name: str, data: bytes, packed: bool = True) -> int:
        at = len(self.out)
        flags = int(packed and self.compression != "none")
        if flags:
            squeezed = self._pack(data)
            data = _u32(len(squeezed)) + _u32(len(data)) + squeezed
        self.out += _u16(number) + _u16(flags) + _u32(self._string(name)) + _u64(len(data)) + data
        return at

    def _buffer(self, name: str, cpus: Sequence[bytes]) -> bytes:
        """Append a buffer section; gives its BUFFER option."""
        content = self.content
        at = len(self.out)
        flags = int(self.compression != "none")
        self.out += _u16(_BUFFER_SECTION) + _u16(flags) + _u32(self._string(f"buffer flyrecord {name}")) + _u64(0)
        table = b""
        for cpu, pages in enumerate(cpus):
            self.out += bytes(_aligned(len(self.out), content.page_size) - len(self.out))
            start = len(self.out)
            data = self._chunks(pages) if flags else pages
            self.out += data
            table += _u32(cpu) + _u64(start) + _u64(len(data) - 4 * flags)
        self.out[at + 8 : at + 16] = _u64(len(self.out) - at - 16)
        head = _u64(at) + name.encode() + b"\0" + content.clock.encode() + b"\0"
        return _option(options.BUFFER, head + _u32(content.page_size) + _u32(len(cpus)) + table)

    def _chunks(self, pages: bytes) -> bytes:
        step = _PAGES_IN_CHUNK * self.content.page_size
        plain = [pages[at : at + step] for at in range(0, len(pages), step)]
        packed = [(self._pack(piece), len(piece)) for piece in plain]
        return _u32(len(packed)) + b"".join(_u32(len(data)) + _u32(size) + data for data, size in packed)


def _aligned(offset: int, unit: int) -> int:
    return -(-offset // unit) * unit
