"""The sections of a trace.dat file that v6 and v7 share: page header, event formats, symbols, command lines.

Each function reads one section from a `ByteReader` and gives plain values; none knows where the section came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from fastrtp.errors import RecordingError

from .reader import ByteReader

_HEADER_FIELD = re.compile(r"field:\s*(?P<decl>[^;]*?)(?P<name>\w+);\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);")
_FORMAT_ID = re.compile(r"^ID:\s*(\d{1,9})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HeaderPage:
    """Layout of a ring-buffer page, from tracefs' events/header_page; sizes in bytes. `commit_size` is the kernel's long."""

    commit_size: int = 8
    data_offset: int = 16
    data_size: int = 4080


class FormatText(NamedTuple):
    """An event's format file, not parsed yet."""

    system: str
    text: str


def read_headers(reader: ByteReader) -> HeaderPage:
    """The header_page and header_event files. RecordingError when the page layout is not one that can be walked."""
    for name in ("header_page", "header_event"):
        found = bytes(reader.bytes(len(name) + 1, f"the word {name}"))
        if found != name.encode() + b"\0":
            raise reader.error(f"expected {name!r}, found {found[:32]!r}", reader.offset - len(found))
        size = reader.u64(f"size of {name}")
        text = bytes(reader.bytes(size, name)).decode("ascii", "replace")
        if name == "header_page":
            page = _header_page(text, reader)
    return page


def _header_page(text: str, reader: ByteReader) -> HeaderPage:
    fields = {match["name"]: (int(match["offset"][:9]), int(match["size"][:9])) for match in _HEADER_FIELD.finditer(text)}
    if fields.get("timestamp") != (0, 8):
        raise reader.error("header_page: no 8-byte timestamp at offset 0")
    commit_offset, commit_size = fields.get("commit", (0, 0))
    if commit_offset != 8 or commit_size not in (4, 8):
        raise reader.error(f"header_page: commit of {commit_size} bytes at offset {commit_offset}, expected 4 or 8 at 8")
    data_offset, data_size = fields.get("data", (8 + commit_size, 4096 - 8 - commit_size))
    if not 8 + commit_size <= data_offset <= 64:
        raise reader.error(f"header_page: data at offset {data_offset}")
    return HeaderPage(commit_size, data_offset, data_size)


def read_ftrace_formats(reader: ByteReader, formats: dict[int, FormatText]) -> None:
    """ftrace's own events, added to `formats` by type id."""
    for _ in range(reader.count(8, "number of ftrace events")):
        _read_format(reader, "ftrace", formats)


def read_event_formats(reader: ByteReader, formats: dict[int, FormatText]) -> None:
    """The formats of all event systems, added to `formats` by type id."""
    for _ in range(reader.count(5, "number of event systems")):
        system = reader.string("name of an event system", 256)
        for _ in range(reader.count(8, f"number of events of {system}")):
            _read_format(reader, system, formats)


def _read_format(reader: ByteReader, system: str, formats: dict[int, FormatText]) -> None:
    size = reader.u64(f"size of a format of {system}")
    text = bytes(reader.bytes(size, f"format of an event of {system}")).decode("utf-8", "replace")
    found = _FORMAT_ID.search(text)
    if found is None or int(found[1]) > 0xFFFF:
        raise reader.error(f"format of an event of {system!r} has no 16-bit ID")
    formats[int(found[1])] = FormatText(system, text)


def read_sized_text(reader: ByteReader, what: str, wide: bool = False) -> bytes:
    """A text behind its size, 64-bit where `wide`: kallsyms, printk formats, saved command lines."""
    size = reader.u64(f"size of {what}") if wide else reader.u32(f"size of {what}")
    return bytes(reader.bytes(size, what))


def parse_cmdlines(text: bytes) -> dict[int, str]:
    """tracefs' saved_cmdlines: `pid comm` a line."""
    comms: dict[int, str] = {}
    for line in text.rstrip(b"\0").decode("utf-8", "replace").splitlines():
        pid, _, comm = line.partition(" ")
        if pid.isdigit() and len(pid) <= 10:
            comms[int(pid)] = comm[:15]
    return comms


def parse_printk_formats(text: bytes) -> dict[int, str]:
    """tracefs' printk_formats: `0xaddress : "format"` a line."""
    formats: dict[int, str] = {}
    for line in text.rstrip(b"\0").decode("utf-8", "replace").splitlines():
        address, _, quoted = line.partition(" : ")
        try:
            formats[int(address, 16)] = quoted.strip().strip('"')
        except ValueError:
            continue
    return formats


def check_page_size(page_size: int) -> int:
    """RecordingError unless the page size is a power of two that a kernel could have."""
    if not 1 << 10 <= page_size <= 1 << 24 or page_size & (page_size - 1):
        raise RecordingError(f"page size {page_size} is not a power of two from 1024 to {1 << 24}")
    return page_size
