"""Native code beside the BPF instructions that it comes from.

The program is compiled once more with debug information whose line numbers are instruction indices: the assembly's `.loc`
lines say what each native instruction is for, the object's line table where it is. Debug information changes no code; where
it ever did, `exact` says so and addresses are not given.

Kernel counterpart: kernel/bpf/core.c:bpf_prog_fill_jited_linfo.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastrtp.isa import Insn, print_bpf_insn
from fastrtp.jit.lower import LowerInput, lower
from fastrtp.native.compiler import Job, server

_LD_IMM64 = 0x18


@dataclass(frozen=True, slots=True)
class Piece:
    """Native instructions in a row that come from one BPF instruction (None: from none in particular), as assembly text.

    `label`: the one before them, or "". `offset`, `code`: where they are and their bytes, together with those of the pieces
    that follow and have none; -1 and b"" where that is not known.
    """

    insn: int | None
    lines: tuple[str, ...]
    label: str = ""
    offset: int = -1
    code: bytes = b""


@dataclass(frozen=True, slots=True)
class Annotated:
    """Native code in pieces, in its order. `exact`: it is, byte for byte, the code that runs.

    `rows`: (offset, BPF instruction or None) from which on code comes from it, by offset. `base`: address of offset 0.
    """

    pieces: tuple[Piece, ...]
    rows: tuple[tuple[int, int | None], ...]
    exact: bool
    base: int

    def places(self) -> Iterator[tuple[int, int]]:
        """(address, BPF instruction) by address; none unless `exact`."""
        for offset, insn in self.rows if self.exact else ():
            if insn is not None:
                yield self.base + offset, insn

    def first_addresses(self) -> dict[int, int]:
        """The lowest address of what each BPF instruction became; instructions that became nothing are not in it."""
        found: dict[int, int] = {}
        for address, insn in self.places():
            found[insn] = min(address, found.get(insn, address))
        return found

    def text(self, insns: Sequence[Insn], lines: Mapping[int, str] | None = None) -> str:
        """The listing: native instructions under the BPF instruction, and under the source line where `lines` has one."""
        printed = []
        last: int | None = None
        source = ""
        for piece in self.pieces:
            if piece.label:
                printed.append(f"{piece.label}:")
            if piece.insn is not None and piece.insn != last:
                last = piece.insn
                line = source_line(piece.insn, lines or {})
                if line and line != source:
                    source = line
                    printed.append(f"; {line}")
                following = insns[last + 1] if insns[last].code == _LD_IMM64 else None
                printed.append(f"  {last:4}: {print_bpf_insn(insns[last], following)}")
            printed += [f"\t{line}" for line in piece.lines]
        return "\n".join(printed)


def source_line(index: int, lines: Mapping[int, str]) -> str:
    """The line of the last instruction at or before `index` that has one."""
    return next((lines[at] for at in range(index, -1, -1) if at in lines), "")


def annotate(source: LowerInput, job: Job, obj: bytes, entry: int) -> Annotated:
    """The annotated code of a program that `job` made the object `obj` of, loaded with `source.name` at the address `entry`.

    JitError.
    """
    job = job._replace(text=lower(replace(source, debug=True)))
    assembly = server().compile(job, "assembly")[0].decode()
    made = server().compile(job)[0]
    code, at = _function_code(made, source.name)
    exact = bool(code) and code == _function_code(obj, source.name)[0]
    rows = _rows(made)
    return Annotated(tuple(_placed(*_pieces(assembly), rows, code)), tuple(rows[:-1]), exact, entry - at)


def _placed(
    pieces: Sequence[tuple[int, Piece]], count: int, rows: Sequence[tuple[int, int | None]], code: bytes
) -> Iterator[Piece]:
    """Pieces with what the line table says, where it has a row for each of the assembly's `count` lines about lines."""
    known = len(rows) == count + 1
    for number, (row, piece) in enumerate(pieces):
        first = number == 0 or pieces[number - 1][0] != row
        if known and first and row >= 0 and rows[row][1] == piece.insn:
            start, end = rows[row][0], rows[row + 1][0]
            yield replace(piece, offset=start, code=code[start:end])
        else:
            yield piece


def _pieces(assembly: str) -> tuple[list[tuple[int, Piece]], int]:
    """[(number of the line table's row, piece)] of an assembly text, and how many rows there are."""
    pieces: list[tuple[int, Piece]] = []
    insn: int | None = None
    label = ""
    lines: list[str] = []
    row = -1
    code = False

    def end() -> None:
        nonlocal label, lines
        if lines:
            pieces.append((row, Piece(insn, tuple(lines), label)))
            label, lines = "", []

    for line in assembly.splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        if words[0] in (".section", ".text"):
            code = "text" in "".join(words[:2])
        elif not code:
            continue
        elif words[0] == ".loc":
            end()
            row += 1
            insn = int(words[2]) - 1 if int(words[2]) else None
        elif words[0].endswith(":"):
            if not words[0].startswith((".Ltmp", ".Lfunc")):
                end()
                label = words[0][:-1]
                if not label.startswith(".L"):
                    insn = None  # another function; one that has no lines (a probe) comes from no instruction
        elif not words[0].startswith("."):
            lines.append(" ".join(words))
    end()
    return pieces, row + 1


def _function_code(obj: bytes, name: str) -> tuple[bytes, int]:
    """(the section that a function is in, the function's offset in it), before addresses are filled in; (b"", 0) without."""
    elf = _elf(obj)
    table = None if elf is None else elf.get_section_by_name(".symtab")
    if elf is None or table is None:
        return b"", 0
    found = table.get_symbol_by_name(name)
    if not found:
        return b"", 0
    return elf.get_section(found[0]["st_shndx"]).data(), int(found[0]["st_value"])


def _rows(obj: bytes) -> list[tuple[int, int | None]]:
    """The line table: (offset, BPF instruction), and the end's offset with None."""
    elf = _elf(obj)
    if elf is None or not elf.has_dwarf_info():
        return []
    rows: list[tuple[int, int | None]] = []
    dwarf = elf.get_dwarf_info()
    for unit in dwarf.iter_CUs():
        for entry in dwarf.line_program_for_CU(unit).get_entries():
            state = entry.state
            if state is not None:
                rows.append((state.address, None if state.end_sequence or not state.line else state.line - 1))
    return rows


def _elf(obj: bytes) -> Any:
    """The object as ELF; None where it is something else (macOS)."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        return ELFFile(io.BytesIO(obj))
    except ELFError:
        return None
