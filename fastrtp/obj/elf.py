"""ELF as clang writes it for BPF: sections, symbols, relocations of a 64-bit little-endian relocatable file.

pyelftools reads the structures, one by one: its ELFFile trusts the file and costs ten times as much. Every offset, index,
count and string is checked before or as it is used, and the rest of the package can trust them. What is wrong is an
`ObjectError` with section and offset. Time and memory are bounded by the limits below and by sections not overlapping.
Kernel: none (libbpf takes libelf). Must not know: BPF, BTF, maps.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from fastrtp.errors import ObjectError
from fastrtp.once import once

if TYPE_CHECKING:
    from elftools.construct.lib.container import Container
    from elftools.elf.structs import ELFStructs

EM_NONE = 0
EM_BPF = 247
ET_REL = 1

SHT_NULL = 0
SHT_PROGBITS = 1
SHT_SYMTAB = 2
SHT_NOBITS = 8
SHT_REL = 9

SHF_EXECINSTR = 4

STB_LOCAL = 0
STB_WEAK = 2

STT_OBJECT = 1
STT_FUNC = 2
STT_SECTION = 3

STV_INTERNAL = 1
STV_HIDDEN = 2

SHN_UNDEF = 0
SHN_LORESERVE = 0xFF00

_EHDR_SIZE = 64
_MAX_SECTIONS = 4096
_MAX_SYMBOLS = 16384
_MAX_RELOCS = 16384
"""Relocations that are read from one file, in all sections together."""
_MAX_NAME = 1024
_MAX_NOBITS = 1 << 28
"""Bytes that all sections without contents (.bss) may ask for."""


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
        self._relocs_left = _MAX_RELOCS
        _check_identity(data)
        self._headers, self._names = _read_headers(data)
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
        from elftools.elf.enums import ENUM_SH_TYPE_BASE

        names = _Strings(self._headers[self._names], "section name table", self._data)
        out = []
        stored = unstored = 0
        for index, header in enumerate(self._headers):
            name = names.get(header["sh_name"])
            sh_type, offset, size = _number(header["sh_type"], ENUM_SH_TYPE_BASE), header["sh_offset"], header["sh_size"]
            contents = b""
            if sh_type == SHT_NOBITS:
                unstored += size
                if unstored > _MAX_NOBITS:
                    raise ObjectError(f"{size} bytes, at most {_MAX_NOBITS}", section=name, offset=offset)
            elif sh_type == SHT_NULL:
                size = 0
            else:
                if offset + size > len(self._data):
                    raise ObjectError(
                        f"{size} bytes pass the end of the file at {len(self._data):#x}", section=name, offset=offset
                    )
                stored += size
                if stored > len(self._data):
                    raise ObjectError(f"{size} bytes overlap other sections", section=name, offset=offset)
                contents = self._data[offset : offset + size]
            out.append(
                Section(index, name, sh_type, header["sh_flags"], offset, size, header["sh_link"], header["sh_info"], contents)
            )
        return out

    def _read_symbols(self) -> list[Symbol]:
        from elftools.elf.enums import ENUM_ST_INFO_BIND, ENUM_ST_INFO_TYPE, ENUM_ST_SHNDX, ENUM_ST_VISIBILITY

        table = next((section for section in self.sections if section.type == SHT_SYMTAB), None)
        if table is None:
            return []
        entry_size = _structs().Elf_Sym.sizeof()
        _check_table(table, self._headers[table.number], entry_size, "symbols", _MAX_SYMBOLS)
        if table.link >= len(self.sections):
            raise ObjectError(f"string table {table.link} does not exist", section=table.name, offset=table.file_offset)
        names = _Strings(self._headers[table.link], self.sections[table.link].name, self._data)
        out = []
        for at, entry in enumerate(_entries(_structs().Elf_Sym, table.data)):
            shndx = _number(entry["st_shndx"], ENUM_ST_SHNDX)
            if shndx < SHN_LORESERVE and shndx >= len(self.sections):
                raise ObjectError(
                    f"symbol {at} is in section {shndx}, which does not exist",
                    section=table.name,
                    offset=table.file_offset + at * entry_size,
                )
            name, sym_type = names.get(entry["st_name"]), _number(entry["st_info"]["type"], ENUM_ST_INFO_TYPE)
            if sym_type == STT_SECTION and not name and shndx < SHN_LORESERVE:
                name = self.sections[shndx].name
            bind = _number(entry["st_info"]["bind"], ENUM_ST_INFO_BIND)
            visibility = _number(entry["st_other"]["visibility"], ENUM_ST_VISIBILITY)
            out.append(Symbol(name, sym_type, bind, visibility, shndx, entry["st_value"], entry["st_size"]))
        return out

    def relocs(self, section: Section) -> Iterator[Reloc]:
        """The relocations of a section, in file order. Raises `ObjectError` when it comes to a bad one."""
        for rel in self._rels.get(section.number, ()):
            entry_size = _structs().Elf_Rel.sizeof()
            _check_table(rel, self._headers[rel.number], entry_size, "relocations", self._relocs_left)
            self._relocs_left -= rel.size // entry_size
            for at, entry in enumerate(_entries(_structs().Elf_Rel, rel.data)):
                offset, symbol = entry["r_offset"], entry["r_info_sym"]
                if symbol >= len(self.symbols) or offset >= section.size:
                    raise ObjectError(
                        f"relocation {at} of offset {offset:#x}, symbol {symbol}: outside the section or the symbol table",
                        section=rel.name,
                        offset=rel.file_offset + at * entry_size,
                    )
                yield Reloc(offset, self.symbols[symbol], entry["r_info_type"])


class _Strings:
    """A string table."""

    def __init__(self, header: Container, name: str, data: bytes) -> None:
        self._name, self._at, self._size, self._data = name, header["sh_offset"], header["sh_size"], data
        if self._at + self._size > len(data):
            raise ObjectError(f"{name} of {self._size} bytes passes the end of the file", offset=self._at)
        # without a zero at its end the last string would go on behind the table
        self._end = data.rfind(b"\0", self._at, self._at + self._size) - self._at

    def get(self, offset: int) -> str:
        """The string at an offset. Raises `ObjectError`."""
        if not 0 <= offset <= self._end:
            if offset == 0 and not self._size:
                return ""
            raise ObjectError(f"string offset {offset} passes the end at {self._size}", section=self._name, offset=self._at)
        start = self._at + offset
        string = self._data[start : self._data.index(0, start)].decode("utf-8", "replace")
        if len(string) > _MAX_NAME:
            raise ObjectError(f"name of {len(string)} characters, at most {_MAX_NAME}", section=self._name, offset=start)
        return string


@once
def _structs() -> ELFStructs:
    """The structures of 64-bit little-endian files."""
    from elftools.elf.structs import ELFStructs

    structs = ELFStructs(little_endian=True, elfclass=64)
    structs.create_basic_structs()
    structs.create_advanced_structs()
    return structs


def _entries(structure: Any, data: bytes) -> list[Container]:
    """Data whose size was checked, as a table of one structure."""
    stream = io.BytesIO(data)
    return [structure.parse_stream(stream) for _ in range(len(data) // structure.sizeof())]


def _number(value: int | str, names: Mapping[str, Any]) -> int:
    """pyelftools gives the name where it knows the number."""
    return int(names[value]) if isinstance(value, str) else value


def _read_headers(data: bytes) -> tuple[list[Container], int]:
    """(the section headers of a file that is a BPF object, the number of the one with their names)."""
    from elftools.elf.enums import ENUM_E_MACHINE, ENUM_E_TYPE

    elf, header = _structs().Elf_Ehdr.parse(data[:_EHDR_SIZE]), _structs().Elf_Shdr
    machine, e_type = _number(elf["e_machine"], ENUM_E_MACHINE), _number(elf["e_type"], ENUM_E_TYPE)
    shoff, shentsize, shnum, shstrndx = elf["e_shoff"], elf["e_shentsize"], elf["e_shnum"], elf["e_shstrndx"]
    if machine not in (EM_BPF, EM_NONE):
        raise ObjectError(f"machine {machine} is not BPF ({EM_BPF})", offset=18)
    if e_type != ET_REL:
        raise ObjectError(f"type {e_type} is no relocatable object ({ET_REL})", offset=16)
    if shnum == 0 or shentsize != header.sizeof():
        raise ObjectError(f"{shnum} section headers of {shentsize} bytes, expected {header.sizeof()}", offset=58)
    if shnum > _MAX_SECTIONS:
        raise ObjectError(f"{shnum} sections, at most {_MAX_SECTIONS}", offset=60)
    if shoff + shnum * shentsize > len(data):
        raise ObjectError(f"{shnum} section headers pass the end of the file at {len(data):#x}", offset=shoff)
    if shstrndx >= shnum:
        raise ObjectError(f"section name table {shstrndx} does not exist, there are {shnum} sections", offset=62)
    return _entries(header, data[shoff : shoff + shnum * shentsize]), shstrndx


def _check_identity(data: bytes) -> None:
    if data[:4] != b"\x7fELF":
        raise ObjectError("is no ELF file", offset=0)
    if len(data) < _EHDR_SIZE:
        raise ObjectError(f"ELF header truncated at {len(data)} bytes", offset=0)
    if data[4] != 2:
        raise ObjectError(f"ELF class {data[4]}, only 64-bit objects are supported", offset=4)
    if data[5] == 2:
        raise ObjectError("big-endian objects are not supported", offset=5)
    if data[5] != 1:
        raise ObjectError(f"unknown byte order {data[5]}", offset=5)


def _check_table(section: Section, header: Container, entry_size: int, what: str, limit: int) -> None:
    """The section is a table of entries of a size, not too many. Raises `ObjectError`."""
    if section.size % entry_size:
        raise ObjectError(f"{section.size} bytes are no whole number of {what}", section=section.name, offset=section.file_offset)
    if header["sh_entsize"] != entry_size:
        text = f"{what} of {header['sh_entsize']} bytes, expected {entry_size}"
        raise ObjectError(text, section=section.name, offset=section.file_offset)
    if section.size // entry_size > limit:
        text = f"{section.size // entry_size} {what}, at most {limit}"
        raise ObjectError(text, section=section.name, offset=section.file_offset)
