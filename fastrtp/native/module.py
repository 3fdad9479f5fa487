"""NativeModule: an object's code in memory, its symbols bound, until it is closed.

Objects that want nothing but whole addresses, which is all that the engine emits for x86-64, are loaded here: read-only
sections one after the other in a mapping of their own, bound while it is writable, and executable only after that. It
takes a twentieth of the time of LLVM's loader, which everything else goes through, and no LLVM in the process.

Kernel counterpart: kernel/module/main.c (layout_and_allocate, apply_relocations), kernel/bpf/core.c (bpf_jit_binary_alloc).
Must not know: BPF, maps, what the symbols mean.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastrtp.errors import JitError
from fastrtp.once import once

_EM_X86_64 = 62
_ET_REL = 1
_R_X86_64_64 = 1
_SHT_PROGBITS, _SHT_SYMTAB, _SHT_RELA = 1, 2, 4
_SHF_WRITE, _SHF_ALLOC, _SHF_TLS = 1, 2, 0x400
_SHN_UNDEF = 0
_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_RELA = struct.Struct("<QQq")
_U64 = struct.Struct("<Q")
_WORD = 1 << 64
_MIN_ALIGN = 16


@dataclass(frozen=True)
class Image:
    """An object laid out: `content`, where its exports are in it, and the words to add addresses to.

    `bound`: (offset of the word, symbol, or "" for the image itself, what to add).
    """

    content: bytearray
    exports: dict[str, int]
    bound: tuple[tuple[int, str, int], ...]


def lay_out(obj: bytes) -> Image | None:
    """The image of an ELF object for x86-64; None for any other, and for one that needs more than whole addresses.

    JitError for a damaged one.
    """
    if obj[:6] != b"\x7fELF\x02\x01" or len(obj) < _EHDR.size:
        return None
    try:
        return _lay_out(obj)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise JitError(f"damaged object: {error}") from error


def _lay_out(obj: bytes) -> Image | None:
    head = _EHDR.unpack_from(obj)
    if head[1:3] != (_ET_REL, _EM_X86_64):
        return None
    shoff, shnum, names = head[6], head[12], head[13]
    headers = [_SHDR.unpack_from(obj, shoff + number * _SHDR.size) for number in range(shnum)]
    names_at = headers[names][4]
    content = bytearray()
    places: dict[int, int] = {}
    for number, (name, kind, flags, _, at, size, _, _, align, _) in enumerate(headers):
        if not flags & _SHF_ALLOC or not size or _string(obj, names_at + name) == ".eh_frame":
            continue  # nothing unwinds through compiled code
        if kind != _SHT_PROGBITS or flags & (_SHF_WRITE | _SHF_TLS) or align > mmap.PAGESIZE:
            return None
        if at + size > len(obj):
            raise ValueError(f"section {number} passes the end")
        content += bytes(-len(content) % max(align, _MIN_ALIGN))
        places[number] = len(content)
        content += obj[at : at + size]
    tables = [header for header in headers if header[1] == _SHT_SYMTAB]
    symbols = _symbols(obj, headers, tables[0]) if tables else []
    exports = {name: places[section] + value for name, section, value in symbols if name and section in places}
    bound: list[tuple[int, str, int]] = []
    for header in headers:
        if header[1] != _SHT_RELA or header[7] not in places:
            continue
        base, size = places[header[7]], headers[header[7]][5]
        for offset, info, addend in _RELA.iter_unpack(obj[header[4] : header[4] + header[5]]):
            if info & 0xFFFFFFFF != _R_X86_64_64:
                return None
            if offset + 8 > size:
                raise ValueError(f"relocation of offset {offset:#x} outside its section")
            name, section, value = symbols[info >> 32]
            if section == _SHN_UNDEF:
                bound.append((base + offset, name, addend))
            elif section in places:
                bound.append((base + offset, "", places[section] + value + addend))
            else:
                return None
    return Image(content, exports, tuple(bound))


def _symbols(obj: bytes, headers: Sequence[tuple[int, ...]], table: tuple[int, ...]) -> list[tuple[str, int, int]]:
    """(name, section, value) of every symbol."""
    strings = headers[table[6]][4]
    rows = _SYM.iter_unpack(obj[table[4] : table[4] + table[5]])
    return [(_string(obj, strings + name), section, value) for name, _, _, section, value, _ in rows]


def _string(obj: bytes, at: int) -> str:
    return obj[at : obj.index(0, at)].decode("ascii", "backslashreplace")


class NativeModule:
    """An object in memory: `addresses` of the symbols asked for, until close() (or the last reference goes).

    `symbols`: addresses of what it names and does not define; what is not there is looked up in the process (memcpy).
    `size`: bytes of the object.
    """

    def __init__(self, obj: bytes, exports: Sequence[str], symbols: Mapping[str, int], name: str = "module") -> None:
        self.size = len(obj)
        self._finalizer: weakref.finalize[Any, Any]
        image = lay_out(obj) if _loads_here() else None
        if image is None:
            from fastrtp.native import engine

            self.addresses, release = engine.load(obj, exports, symbols, name)
            self._finalizer = weakref.finalize(self, release)
            return
        absent = [symbol for symbol in exports if symbol not in image.exports]
        if absent:
            raise JitError(f"{name}: the object has no {', '.join(absent)}")
        words = [(offset, _address(symbol, symbols, name) if symbol else None, add) for offset, symbol, add in image.bound]
        base = _map(image.content, words)
        self._finalizer = weakref.finalize(self, _unmap, base, max(len(image.content), 1))
        self._finalizer.atexit = False  # threads may still be running in it
        self.addresses = {symbol: base + image.exports[symbol] for symbol in exports}

    def close(self) -> None:
        """Free the code. Nobody may be running in it: the caller waits for that."""
        self._finalizer()


def _map(content: bytearray, words: Sequence[tuple[int, int | None, int]]) -> int:
    """Address of an executable copy of an image, with its words bound. JitError when there is no memory."""
    size = max(len(content), 1)
    libc = _libc()
    base = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    if base == ctypes.c_void_p(-1).value:
        raise JitError(f"no memory for {size} bytes of code (errno {ctypes.get_errno()})")
    for offset, address, add in words:
        _U64.pack_into(content, offset, ((base if address is None else address) + add) % _WORD)
    ctypes.memmove(base, bytes(content), len(content))
    if libc.mprotect(base, size, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        reason = ctypes.get_errno()
        libc.munmap(base, size)
        raise JitError(f"memory may not be made executable (errno {reason})")
    return int(base)


def _address(symbol: str, symbols: Mapping[str, int], name: str) -> int:
    known = symbols.get(symbol)
    if known is not None:
        return known
    function = getattr(_libc(), symbol, None)
    found = ctypes.cast(function, ctypes.c_void_p).value if function is not None else None
    if not found:
        raise JitError(f"{name}: nothing defines {symbol}")
    return found


def _unmap(base: int, size: int) -> None:
    _libc().munmap(base, size)


@once
def _loads_here() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


@once
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    for function in (libc.munmap, libc.mprotect):
        function.restype = ctypes.c_int
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc
