"""ELF as clang writes it for BPF: sections, symbols, relocations of a 64-bit little-endian relocatable file.

Every offset and index is checked here, so that the rest of the package can trust them; what is wrong is an `ObjectError` with
section and offset. Kernel: none (libbpf takes libelf). Must not know: BPF, BTF, maps.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from fastrtp.errors import ObjectError

EM_NONE = 0
EM_BPF = 247
ET_REL = 1

SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_NOBITS = 8
SHT_REL = 9

SHF_ALLOC = 2
SHF_EXECINSTR = 4

STB_LOCAL = 0
STB_GLOBAL = 1
STB_WEAK = 2

STT_NOTYPE = 0
STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3

STV_INTERNAL = 1
STV_HIDDEN = 2

SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_REL = struct.Struct("<QQ")
_MAX_NOBITS = 1 << 28
"""Bytes that a section without contents (.bss) may ask for."""


class Section(NamedTuple):
    """A section; `data` is empty for one without contents, whose `size` still counts."""

    number: int
    name: str
    type: int
    flags: int
    file_offset: int
    size: int
    link: int
    info: int
    data: bytes


class Symbol(NamedTuple):
    """A symbol; `value` is an offset in section `shndx`."""

    name: str
    type: int
    bind: int
    visibility: int
    shndx: int
    value: int
    size: int


class Reloc(NamedTuple):
    """A relocation: byte offset in its section, the symbol and R_BPF_*."""

    offset: int
    symbol: Symbol
    type: int


class ElfFile:
    """The file's sections by index and its symbols. `section(name)` gives the first of that name."""

    def __init__(self, data: bytes) -> None:
        """Read the headers and the symbol table. Raises `ObjectError`."""
        self._data = data
        self.sections = self._read_sections()
        self._by_name: dict[str, Section] = {}
        for section in reversed(self.sections):
            self._by_name[section.name] = section
        self.symbols = self._read_symbols()
        self._rels: dict[int, list[Section]] = {}
        for section in self.sections:
            if section.type == SHT_REL:
                self._rels.setdefault(section.info, []).append(section)

    def section(self, name: str) -> Section | None:
        """The first section with a name."""
        return self._by_name.get(name)

    def _read_sections(self) -> list[Section]:
        data = self._data
        if data[:4] != b"\x7fELF":
            raise ObjectError("is no ELF file", offset=0)
        if len(data) < _EHDR.size:
            raise ObjectError(f"ELF header truncated at {len(data)} bytes", offset=0)
        ident, e_type, machine, *_, shoff, _flags, _ehsize, _phentsize, _phnum, shentsize, shnum, shstrndx = _EHDR.unpack_from(
            data
        )
        if ident[4] != 2:
            raise ObjectError(f"ELF class {ident[4]}, only 64-bit objects are supported", offset=4)
        if ident[5] == 2:
            raise ObjectError("big-endian objects are not supported", offset=5)
        if ident[5] != 1:
            raise ObjectError(f"unknown byte order {ident[5]}", offset=5)
        if machine not in (EM_BPF, EM_NONE):
            raise ObjectError(f"machine {machine} is not BPF ({EM_BPF})", offset=18)
        if e_type != ET_REL:
            raise ObjectError(f"type {e_type} is no relocatable object ({ET_REL})", offset=16)
        if shnum == 0 or shentsize != _SHDR.size:
            raise ObjectError(f"{shnum} section headers of {shentsize} bytes, expected {_SHDR.size}", offset=58)
        if shoff + shnum * shentsize > len(data):
            raise ObjectError(f"{shnum} section headers pass the end of the file at {len(data):#x}", offset=shoff)
        headers = list(_SHDR.iter_unpack(data[shoff : shoff + shnum * shentsize]))
        if shstrndx >= shnum:
            raise ObjectError(f"section name table {shstrndx} does not exist, there are {shnum} sections", offset=62)
        names_at, names_size = headers[shstrndx][4:6]
        if names_at + names_size > len(data):
            raise ObjectError(f"section name table of {names_size} bytes passes the end of the file", offset=names_at)
        names = data[names_at : names_at + names_size]
        out = []
        for index, (name_off, sh_type, flags, _addr, offset, size, link, info, _align, _entsize) in enumerate(headers):
            name = _string(names, name_off, "section name table", names_at)
            if sh_type == SHT_NOBITS:
                if size > _MAX_NOBITS:
                    raise ObjectError(f"{size} bytes, at most {_MAX_NOBITS}", section=name, offset=offset)
                contents = b""
            elif sh_type == 0:
                contents, size = b"", 0
            else:
                if offset + size > len(data):
                    raise ObjectError(f"{size} bytes pass the end of the file at {len(data):#x}", section=name, offset=offset)
                contents = data[offset : offset + size]
            out.append(Section(index, name, sh_type, flags, offset, size, link, info, contents))
        return out

    def _read_symbols(self) -> list[Symbol]:
        table = next((section for section in self.sections if section.type == SHT_SYMTAB), None)
        if table is None:
            return []
        if table.size % _SYM.size:
            raise ObjectError(f"{table.size} bytes are no whole number of symbols", section=table.name, offset=table.file_offset)
        if table.link >= len(self.sections):
            raise ObjectError(f"string table {table.link} does not exist", section=table.name, offset=table.file_offset)
        strings = self.sections[table.link]
        out = []
        for at, (name_off, info, other, shndx, value, size) in enumerate(_SYM.iter_unpack(table.data)):
            where = table.file_offset + at * _SYM.size
            if shndx < SHN_LORESERVE and shndx >= len(self.sections):
                raise ObjectError(f"symbol {at} is in section {shndx}, which does not exist", section=table.name, offset=where)
            name = _string(strings.data, name_off, strings.name, strings.file_offset)
            if info & 15 == STT_SECTION and not name and shndx < SHN_LORESERVE:
                name = self.sections[shndx].name
            out.append(Symbol(name, info & 15, info >> 4, other & 3, shndx, value, size))
        return out

    def relocs(self, section: Section) -> Iterator[Reloc]:
        """The relocations of a section, in file order. Raises `ObjectError` when it comes to a bad one."""
        for rel in self._rels.get(section.number, ()):
            if rel.size % _REL.size:
                raise ObjectError(
                    f"{rel.size} bytes are no whole number of relocations", section=rel.name, offset=rel.file_offset
                )
            for at, (offset, info) in enumerate(_REL.iter_unpack(rel.data)):
                symbol = info >> 32
                if symbol >= len(self.symbols) or offset >= section.size:
                    raise ObjectError(
                        f"relocation {at} of offset {offset:#x}, symbol {symbol}: outside the section or the symbol table",
                        section=rel.name,
                        offset=rel.file_offset + at * _REL.size,
                    )
                yield Reloc(offset, self.symbols[symbol], info & 0xFFFFFFFF)


def _string(table: bytes, offset: int, name: str, table_at: int) -> str:
    end = table.find(b"\0", offset)
    if offset >= len(table) or end < 0:
        if offset == 0 and not table:
            return ""
        raise ObjectError(f"string offset {offset} passes the end at {len(table)}", section=name, offset=table_at)
    return table[offset:end].decode("utf-8", "backslashreplace")
