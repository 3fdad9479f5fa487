"""Compiled code for profilers: /tmp/perf-PID.map, which `perf report` reads, and jit-PID.dump, which `perf inject --jit` does.

The map has names; the dump has the code and its source lines as well, for `perf annotate`, and survives the code's end.
perf reads both after the process is gone, so nobody here removes them.

    perf record -k mono -g python analysis.py      with FASTRTP_PERF_MAP=1: perf report
    perf inject --jit -i perf.data -o jit.data     with FASTRTP_PERF_MAP=dump: perf report -i jit.data, perf annotate -i jit.data

Formats: Linux tools/perf/Documentation/jit-interface.txt, jitdump-specification.txt.
Must not know: programs, kernels.
"""

from __future__ import annotations

import ctypes
import io
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from fastrtp.once import after_fork

ENVIRONMENT = "FASTRTP_PERF_MAP"
"""Environment variable: 1 writes the map, "dump" the dump as well."""

_HEADER = struct.Struct("<IIIIIIQQ")
_PREFIX = struct.Struct("<IIQ")
_LOAD = struct.Struct("<IIQQQQ")
_DEBUG = struct.Struct("<QQ")
_ENTRY = struct.Struct("<Qii")
_MAGIC = 0x4A695444
_VERSION = 1
_JIT_CODE_LOAD, _JIT_CODE_DEBUG_INFO = 0, 2

Line = tuple[int, str, int]
"""(address, file, line) of code from there on."""


def requested() -> str:
    """What the environment asks for: "", "map" or "dump"."""
    value = os.environ.get(ENVIRONMENT, "")
    return "" if value in ("", "0") else "dump" if value == "dump" else "map"


def functions(obj: bytes) -> dict[str, tuple[int, int, int]]:
    """(section, offset, bytes) of each function in an object, by symbol; none where it is not ELF (macOS)."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        table = ELFFile(io.BytesIO(obj)).get_section_by_name(".symtab")
    except ELFError:
        return {}
    found = {symbol.name: symbol for symbol in table.iter_symbols()} if isinstance(table, SymbolTableSection) else {}
    return {
        name: (int(symbol["st_shndx"]), int(symbol["st_value"]), int(symbol["st_size"]))
        for name, symbol in found.items()
        if symbol["st_info"]["type"] == "STT_FUNC" and isinstance(symbol["st_shndx"], int)
    }


_files = threading.Lock()
"""Held by whoever writes: all kernels of the process write to the same files."""


def _renew() -> None:
    global _files
    _files = threading.Lock()


after_fork(_renew)


class PerfMap:
    """The files of this process in `folder`; several may write to them, one call after the other. `dump`: the dump, too.

    OSError where they cannot be written, and where there is no /proc: perf is Linux's.
    """

    def __init__(self, folder: Path | None = None, *, dump: bool = False) -> None:
        folder = folder or Path("/tmp")
        self.path = folder / f"perf-{os.getpid()}.map"
        self.dump_path = folder / f"jit-{os.getpid()}.dump"
        self.dump = dump
        self._mark: mmap.mmap | None = None
        with _files:
            for path in (self.path, self.dump_path):
                if path.exists() and path.stat().st_mtime < _process_start():
                    path.unlink()  # of an earlier process with the same number
            if dump:
                self._begin()
        with self._open(self.path):
            pass

    def add(self, obj: bytes, addresses: Mapping[str, int], names: Mapping[str, str], lines: Iterable[Line] = ()) -> None:
        """Name the functions of an object that is loaded with its exports at `addresses`.

        `names`: what to call a symbol; what stands before a dot decides for the others ("entry.sub1"). `lines`: of its code.
        """
        found = functions(obj)
        ranges: list[tuple[int, int, str]] = []
        for symbol, (section, offset, size) in found.items():
            near = next((export for export in addresses if export in found and found[export][0] == section), None)
            if near is not None and size:
                stem, dot, rest = symbol.partition(".")
                name = names.get(symbol) or names.get(stem, stem) + dot + rest
                ranges.append((addresses[near] - found[near][1] + offset, size, name))
        self.add_ranges(ranges, lines)

    def add_ranges(self, ranges: Iterable[tuple[int, int, str]], lines: Iterable[Line] = ()) -> None:
        """Name code: (address, bytes, name) each."""
        rows = list(ranges)
        with _files:
            with self._open(self.path) as file:
                file.write("".join(f"{address:x} {size:x} {name}\n" for address, size, name in rows).encode())
            if self.dump:
                places = list(lines)
                with self._open(self.dump_path) as file:
                    written = os.fstat(file.fileno()).st_size
                    for row in rows:
                        mine = [place for place in places if row[0] <= place[0] < row[0] + row[1]]
                        written += file.write(self._record(*row, written, mine))  # the size so far numbers the code

    def add_symbols(self, symbols: Mapping[str, int], most: int = 1 << 16) -> None:
        """Name functions of which only the addresses are known: each reaches to the next, `most` bytes at most."""
        ordered = sorted((address, name) for name, address in symbols.items())
        ends = [address for address, _ in ordered[1:]] + [ordered[-1][0] + 1 if ordered else 0]
        self.add_ranges(
            (address, min(end - address, most), name) for (address, name), end in zip(ordered, ends, strict=True) if end > address
        )

    def _open(self, path: Path) -> IO[bytes]:
        # whole records in one write at the end: other kernels of this process write to the same file
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600), "wb")

    def _begin(self) -> None:
        """Write the header, and map the file executable: the mark in perf's recording by which it finds the dump."""
        if not self.dump_path.exists():
            with self._open(self.dump_path) as file:
                head = _HEADER.pack(_MAGIC, _VERSION, _HEADER.size, _machine(), 0, os.getpid(), time.monotonic_ns(), 0)
                file.write(head)
        with self.dump_path.open("rb") as file:
            self._mark = mmap.mmap(file.fileno(), _HEADER.size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)

    def _record(self, address: int, size: int, name: str, index: int, lines: list[Line]) -> bytes:
        record = b""
        if lines:
            entries = b"".join(_ENTRY.pack(at, line, 0) + file.encode() + b"\0" for at, file, line in lines)
            body = _DEBUG.pack(address, len(lines)) + entries
            record = _PREFIX.pack(_JIT_CODE_DEBUG_INFO, _PREFIX.size + len(body), time.monotonic_ns()) + body
        body = _LOAD.pack(os.getpid(), threading.get_native_id(), address, address, size, index)
        body += name.encode() + b"\0" + ctypes.string_at(address, size)
        return record + _PREFIX.pack(_JIT_CODE_LOAD, _PREFIX.size + len(body), time.monotonic_ns()) + body


def _process_start() -> float:
    """When this process started, seconds since the epoch, rounded down."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime "))
    return int(boot.split()[1]) + ticks // os.sysconf("SC_CLK_TCK")


def _machine() -> int:
    """ELF machine number of this process's code."""
    with Path("/proc/self/exe").open("rb") as file:
        return int.from_bytes(file.read(20)[18:20], "little")
