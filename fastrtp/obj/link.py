"""Functions of an object and their relocations, joined into programs.

A program is its function with every subprogram that it reaches appended, each at its first use, depth first, so that
instruction indices equal those that libbpf hands to the kernel.
Kernel: tools/lib/bpf/libbpf.c:bpf_program__record_reloc, bpf_object__reloc_code.
Differs: static functions outside .text, which libbpf refuses, are subprograms too.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fastrtp.btf import Btf
from fastrtp.btf.core import CoreRelo
from fastrtp.btf.ext import CORE_RELO, FUNC_INFO, LINE_INFO, BtfExt, Infos
from fastrtp.btf.kfuncs import KFUNCS
from fastrtp.errors import BtfError, ObjectError
from fastrtp.isa import INSN_SIZE, Insn, decode
from fastrtp.uapi import BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, BPF_PSEUDO_KFUNC_CALL, BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE

from .elf import SHF_EXECINSTR, SHN_UNDEF, SHT_PROGBITS, STB_LOCAL, STT_FUNC, STT_SECTION, ElfFile, Reloc, Section
from .externs import Extern, ExternKind
from .spec import MapRef, MapSpec, ProgramSpec

if TYPE_CHECKING:
    import numpy.typing as npt

_CALL = 0x85
_LD_IMM64 = 0x18
POISON_CALL_KFUNC_BASE = 2002000000
"""Helper number of a call to a weak kernel function that is not there. Kernel: libbpf.c"""


@dataclass(eq=False)
class Function:
    """A function symbol: instructions [start, end) of its section."""

    name: str
    section: Section
    start: int
    end: int
    is_local: bool


@dataclass
class Code:
    """An executable section: slots, relocations by instruction index, functions by first instruction."""

    section: Section
    insns: list[Insn]
    relocs: dict[int, Reloc]
    functions: dict[int, Function] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._starts: list[int] = []

    def function_at(self, insn_idx: int) -> Function | None:
        """The function that starts at, or holds, an instruction."""
        exact = self.functions.get(insn_idx)
        if exact is not None:
            return exact
        if len(self._starts) != len(self.functions):
            self._starts = sorted(self.functions)
        at = bisect_right(self._starts, insn_idx) - 1
        found = self.functions[self._starts[at]] if at >= 0 else None
        return found if found is not None and insn_idx < found.end else None


def read_code(elf: ElfFile) -> dict[int, Code]:
    """Every executable section by index, with its functions. Raises `ObjectError`."""
    out: dict[int, Code] = {}
    for section in elf.sections:
        if section.type != SHT_PROGBITS or not section.flags & SHF_EXECINSTR or not section.size:
            continue
        if section.size % INSN_SIZE:
            raise ObjectError(
                f"{section.size} bytes are no whole number of instructions", section=section.name, offset=section.file_offset
            )
        relocs: dict[int, Reloc] = {}
        for reloc in elf.relocs(section):
            if reloc.offset % INSN_SIZE:
                raise ObjectError("relocation inside an instruction", section=section.name, offset=reloc.offset)
            relocs[reloc.offset // INSN_SIZE] = reloc
        out[section.number] = Code(section, decode(section.data), relocs)
    for symbol in elf.symbols:
        code = out.get(symbol.shndx)
        if symbol.type != STT_FUNC or code is None:
            continue
        start, end = symbol.value, symbol.value + symbol.size
        if start % INSN_SIZE or symbol.size % INSN_SIZE or not start < end <= code.section.size:
            raise ObjectError(f"function {symbol.name!r} of {symbol.size} bytes", section=code.section.name, offset=start)
        first = start // INSN_SIZE
        code.functions[first] = Function(symbol.name, code.section, first, end // INSN_SIZE, symbol.bind == STB_LOCAL)
    return out


class UnsupportedProgramError(Exception):
    """The program uses something that cannot be had here; its text is the reason."""


class Linker:
    """Builds programs out of one object's functions."""

    def __init__(
        self,
        codes: Mapping[int, Code],
        maps: Mapping[tuple[str, int], MapSpec],
        data: Mapping[str, MapSpec],
        externs: Mapping[str, Extern],
        kconfig: MapSpec | None,
        elf: ElfFile,
        btf: Btf | None,
        ext: BtfExt | None,
    ) -> None:
        """`maps`: by (section, offset). `data`: maps of data sections by section name."""
        self._codes = codes
        self._maps = maps
        self._data = data
        self._externs = externs
        self._kconfig = kconfig
        self._elf = elf
        self._btf = btf
        self._ext = ext

    def link(self, function: Function, program: ProgramSpec) -> None:
        """Fill in a program's instructions, references and debug tables. Raises `ObjectError`, `UnsupportedProgramError`."""
        placed: dict[Function, int] = {}
        todo: list[tuple[Function, int, Iterator[int]]] = []

        def place(one: Function) -> None:
            base = len(program.insns)
            placed[one] = base
            program.subprogs.append((base, one.name))
            program.insns += self._codes[one.section.number].insns[one.start : one.end]
            todo.append((one, base, self._calls(one)))

        place(function)
        while todo:
            current, base, calls = todo[-1]
            insn_idx = next(calls, -1)
            if insn_idx < 0:
                todo.pop()
                continue
            target = self._callee(current, insn_idx)
            if target not in placed:
                place(target)
            at = base + insn_idx - current.start
            insn = program.insns[at]
            src_reg = BPF_PSEUDO_CALL if insn.code == _CALL else BPF_PSEUDO_FUNC
            program.insns[at] = insn._replace(src_reg=src_reg, imm=placed[target] - at - 1)
        for one, base in placed.items():
            self._relocate(one, base, program)
        self._debug(placed, program)

    def _calls(self, function: Function) -> Iterator[int]:
        """Instructions of a function that name another function, in order."""
        code = self._codes[function.section.number]
        for insn_idx in range(function.start, function.end):
            insn = code.insns[insn_idx]
            if insn.code == _CALL and insn.src_reg == BPF_PSEUDO_CALL:
                reloc = code.relocs.get(insn_idx)
                if reloc is None or reloc.symbol.shndx != SHN_UNDEF:
                    yield insn_idx
            elif insn.code == _LD_IMM64 and self._names_function(code, insn_idx, insn):
                yield insn_idx

    def _names_function(self, code: Code, insn_idx: int, insn: Insn) -> bool:
        reloc = code.relocs.get(insn_idx)
        if reloc is None:
            return insn.src_reg == BPF_PSEUDO_FUNC
        return reloc.symbol.shndx in self._codes and reloc.symbol.type in (STT_FUNC, STT_SECTION)

    def _callee(self, function: Function, insn_idx: int) -> Function:
        """Kernel: libbpf.c:bpf_object__reloc_code (the computation of sub_insn_idx)"""
        code = self._codes[function.section.number]
        insn, reloc = code.insns[insn_idx], code.relocs.get(insn_idx)
        where = insn_idx * INSN_SIZE
        if reloc is None:
            if insn.code != _CALL:
                raise ObjectError("address of a function without relocation", section=code.section.name, offset=where)
            target_code, target = code, insn_idx + insn.imm + 1
        else:
            found = self._codes.get(reloc.symbol.shndx)
            if found is None:
                raise ObjectError(f"call of {reloc.symbol.name!r}, which is no code", section=code.section.name, offset=where)
            target_code = found
            byte = reloc.symbol.value + (INSN_SIZE * (insn.imm + 1) if insn.code == _CALL else insn.imm)
            if byte % INSN_SIZE:
                raise ObjectError(f"call to offset {byte:#x} inside an instruction", section=code.section.name, offset=where)
            target = byte // INSN_SIZE
        callee = target_code.function_at(target)
        if callee is None or callee.start != target:
            text = f"call to instruction {target} of {target_code.section.name!r}, where no function starts"
            raise ObjectError(text, section=code.section.name, offset=where)
        return callee

    def _relocate(self, function: Function, base: int, program: ProgramSpec) -> None:
        """Maps, global data and externs of one placed function."""
        code = self._codes[function.section.number]
        for insn_idx in sorted(idx for idx in code.relocs if function.start <= idx < function.end):
            reloc, insn = code.relocs[insn_idx], code.insns[insn_idx]
            at = base + insn_idx - function.start
            section, offset = code.section.name, insn_idx * INSN_SIZE
            if reloc.symbol.shndx == SHN_UNDEF:
                self._relocate_extern(reloc, insn, at, program)
            elif insn.code == _CALL or (insn.code == _LD_IMM64 and self._names_function(code, insn_idx, insn)):
                if insn.code == _CALL and insn.src_reg != BPF_PSEUDO_CALL:
                    raise ObjectError(f"relocated call with src_reg {insn.src_reg}", section=section, offset=offset)
            elif insn.code != _LD_IMM64 or insn_idx + 1 >= function.end:
                raise ObjectError(f"relocation of {reloc.symbol.name!r} on {insn}", section=section, offset=offset)
            else:
                self._relocate_ld_imm64(reloc, insn, at, program, insn_idx, code)

    def _relocate_ld_imm64(self, reloc: Reloc, insn: Insn, at: int, program: ProgramSpec, insn_idx: int, code: Code) -> None:
        if reloc.symbol.shndx >= len(self._elf.sections):
            raise ObjectError(
                f"symbol {reloc.symbol.name!r} has no section", section=code.section.name, offset=insn_idx * INSN_SIZE
            )
        section = self._elf.sections[reloc.symbol.shndx]
        target = self._maps.get((section.name, reloc.symbol.value + insn.imm))
        if target is not None:
            program.insns[at] = insn._replace(src_reg=BPF_PSEUDO_MAP_FD, imm=0)
            program.map_refs.append(MapRef(at, target.name, None))
            return
        target = self._data.get(section.name)
        if target is None:
            text = f"relocation against {reloc.symbol.name!r} in section {section.name!r}, which is no map and no data"
            raise ObjectError(text, section=code.section.name, offset=insn_idx * INSN_SIZE)
        offset = reloc.symbol.value + insn.imm
        if not 0 <= offset <= target.value_size:
            text = f"offset {offset} is outside the {target.value_size} bytes of {section.name!r}"
            raise ObjectError(text, section=code.section.name, offset=insn_idx * INSN_SIZE)
        self._load_value(program, at, target.name, offset)

    def _load_value(self, program: ProgramSpec, at: int, map_name: str, offset: int) -> None:
        program.insns[at] = program.insns[at]._replace(src_reg=BPF_PSEUDO_MAP_VALUE, imm=0)
        program.insns[at + 1] = program.insns[at + 1]._replace(imm=offset)
        program.map_refs.append(MapRef(at, map_name, offset))

    def _relocate_extern(self, reloc: Reloc, insn: Insn, at: int, program: ProgramSpec) -> None:
        name = reloc.symbol.name
        extern = self._externs.get(name)
        if extern is None:
            raise UnsupportedProgramError(f"symbol {name!r} is not defined")
        if not extern.weak and extern.kind is not ExternKind.OPTION and extern.essential_name not in KFUNCS:
            kind = "(kfunc)" if extern.kind is ExternKind.FUNCTION else "(extern __ksym)"
            raise UnsupportedProgramError(f"{extern.kind.value} {name!r} {kind} is not supported")
        program.externs[name] = extern
        if insn.code == _CALL and insn.src_reg in (BPF_PSEUDO_CALL, BPF_PSEUDO_KFUNC_CALL):
            number = POISON_CALL_KFUNC_BASE + list(self._externs).index(name)
            program.insns[at] = insn._replace(src_reg=0, off=0, imm=number)
            program.kfunc_refs.append((at, name))
        elif insn.code != _LD_IMM64 or at + 1 >= len(program.insns):
            raise UnsupportedProgramError(f"extern {name!r} used by {insn}")
        elif extern.offset >= 0 and self._kconfig is not None:
            self._load_value(program, at, self._kconfig.name, extern.offset)
        else:
            program.insns[at] = insn._replace(src_reg=0, imm=0)
            program.insns[at + 1] = program.insns[at + 1]._replace(imm=0)
            program.ksym_refs.append((at, name))

    def _debug(self, placed: Mapping[Function, int], program: ProgramSpec) -> None:
        """func_info, line_info and CO-RE relocations, moved to the program's instruction indices."""
        if self._ext is None or self._btf is None:
            return
        func_parts, line_parts = [], []
        for one, base in placed.items():
            func_parts.append(_moved(self._ext.func_info, FUNC_INFO, one, base))
            line_parts.append(_moved(self._ext.line_info, LINE_INFO, one, base))
            for insn_off, type_id, access_str_off, kind in _moved(self._ext.core_relos, CORE_RELO, one, base).tolist():
                try:
                    access = self._btf.string(access_str_off)
                except BtfError as error:
                    raise ObjectError(f"CO-RE relocation of insn #{insn_off}: {error}", section=".BTF.ext") from error
                program.core_relos.append(CoreRelo(insn_off, type_id, access, kind))
        program.func_info = np.concatenate(func_parts)
        program.line_info = np.concatenate(line_parts)


def _moved(infos: Infos, dtype: np.dtype[np.void], function: Function, base: int) -> npt.NDArray[np.void]:
    """The records of one function, their instructions counted in the program."""
    rows = infos.get(function.section.name)
    if rows is None:
        return np.zeros(0, dtype)
    inside = rows[(rows["insn_off"] >= function.start) & (rows["insn_off"] < function.end)].copy()
    inside["insn_off"] = inside["insn_off"].astype(np.int64) + (base - function.start)
    return inside
