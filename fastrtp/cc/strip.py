"""DWARF taken out of an object, as `llvm-strip --strip-debug` does it: BTF says all that a loader needs, in a tenth of the room.

Kernel counterpart: none; ELF64, little-endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QQ")
_SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS, _SHT_REL = 2, 4, 8, 9
_SHN_LORESERVE = 0xFF00
_GONE = (".debug_", ".rel.debug_", ".rela.debug_", ".llvm_addrsig")


class _Section(NamedTuple):
    name: str
    header: tuple[int, ...]
    data: bytes


def strip_debug(data: bytes) -> bytes:
    """The object without its debugging sections. What is no such ELF file is given back as it is."""
    if len(data) < _EHDR.size or data[:6] != b"\x7fELF\x02\x01":
        return data
    ehdr = _EHDR.unpack_from(data)
    sections = _read(data, ehdr)
    kept = [number for number, section in enumerate(sections) if not section.name.startswith(_GONE)]
    number_of = {old: new for new, old in enumerate(kept)}
    symbols = _symbols(sections, number_of)
    out = bytearray(_EHDR.size)
    headers = []
    for old in kept:
        _, header, body = sections[old]
        name_at, kind, flags, address, _, size, link, info, align, entry = header
        if kind == _SHT_SYMTAB:
            body, info = symbols.table, symbols.locals
        elif kind == _SHT_REL:
            body = b"".join(
                _REL.pack(offset, symbols.number_of[what >> 32] << 32 | what & 0xFFFFFFFF)
                for offset, what in _REL.iter_unpack(body)
            )
        if kind in (_SHT_REL, _SHT_RELA):
            info = number_of.get(info, 0)
        if kind != _SHT_NOBITS and kind:
            out += bytes(-len(out) % max(align, 1))
            size = len(body)
        offset = len(out) if kind else 0
        out += body
        headers.append((name_at, kind, flags, address, offset, size, number_of.get(link, 0), info, align, entry))
    out += bytes(-len(out) % 8)
    at = len(out)
    for header in headers:
        out += _SHDR.pack(*header)
    out[: _EHDR.size] = _EHDR.pack(*ehdr[:6], at, *ehdr[7:12], len(headers), number_of[ehdr[13]])
    return bytes(out)


def _read(data: bytes, ehdr: tuple[int, ...]) -> list[_Section]:
    at, size, count, names_in = ehdr[6], ehdr[11], ehdr[12], ehdr[13]
    headers = [_SHDR.unpack_from(data, at + number * size) for number in range(count)]
    names = data[headers[names_in][4] :]
    return [
        _Section(
            names[header[0] : names.index(0, header[0])].decode("utf-8", "replace"),
            header,
            b"" if header[1] in (0, _SHT_NOBITS) else data[header[4] : header[4] + header[5]],
        )
        for header in headers
    ]


class _Symbols(NamedTuple):
    """`number_of`: new number of each symbol that stays. `locals`: how many come before the first global one."""

    table: bytes
    number_of: dict[int, int]
    locals: int


def _symbols(sections: list[_Section], number_of: dict[int, int]) -> _Symbols:
    """The symbols of what stays. Relocations of what goes are the only ones that name the others."""
    body = next((section.data for section in sections if section.header[1] == _SHT_SYMTAB), b"")
    table = bytearray()
    numbers: dict[int, int] = {}
    local = 0
    for old, (name, info, other, section, value, size) in enumerate(_SYM.iter_unpack(body)):
        if section < _SHN_LORESERVE:
            if section not in number_of:
                continue
            section = number_of[section]
        numbers[old] = len(numbers)
        local += info >> 4 == 0
        table += _SYM.pack(name, info, other, section, value, size)
    return _Symbols(bytes(table), numbers, local)
