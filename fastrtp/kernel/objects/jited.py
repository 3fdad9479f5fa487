"""The native code of a program: as bytes for the jited dump, line by line, and by name for profilers.

The address and the size of a function come from the object that was loaded: its symbol table says where it ends.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

from fastrtp.kernel.objects.kallsyms import prog_symbol
from fastrtp.native.perf_map import functions

if TYPE_CHECKING:
    from fastrtp.kernel.objects.prog import BpfProg
    from fastrtp.native.perf_map import PerfMap


class JitedFunction(NamedTuple):
    """One native function: where it is, its bytes, and the tag of the instructions that it came from."""

    address: int
    code: bytes
    tag: bytes


def jited_functions(prog: BpfProg) -> list[JitedFunction]:
    """The functions of a program: one, its subprograms are inside it or beside it as the optimiser pleased.

    Differs: Linux has one for each subprogram.
    """
    from fastrtp.jit.program import ENTRY

    native = prog.native
    size = functions(native.object()).get(ENTRY, (0, 0, 0))[2]
    return [JitedFunction(native.entry, ctypes.string_at(native.entry, size), prog.tag)]


def source_lines(prog: BpfProg) -> dict[int, tuple[str, str, int, int]]:
    """(text, file, line, column) by instruction, from the program's BTF."""
    if prog.aux.btf is None or prog.aux.line_info is None:
        return {}
    btf = prog.aux.btf.btf
    return {
        at: (btf.string(text).strip(), btf.string(file), place >> 10, place & 0x3FF)
        for at, file, text, place in prog.aux.line_info.tolist()
    }


def jited_linfo(prog: BpfProg) -> list[int]:
    """Address of the native code of each row of the program's line info. Kernel: kernel/bpf/core.c:bpf_prog_fill_jited_linfo

    Differs: the optimiser moves code about, so the addresses need not rise; a row without code of its own has that of the row
    before.
    """
    if prog.aux.line_info is None:
        return []
    first = prog.native.annotated.first_addresses()
    starts = [int(row[0]) for row in prog.aux.line_info.tolist()]
    found: list[int] = []
    for start, end in zip(starts, [*starts[1:], len(prog.verified.insns)], strict=True):
        of_row = [first[index] for index in range(start, end) if index in first]
        found.append(min(of_row) if of_row else found[-1] if found else prog.native.entry)
    return found


def profile(prog: BpfProg, perf_map: PerfMap | None) -> None:
    """Tell profilers about a program, under the name that it has in kallsyms."""
    if perf_map is None:
        return
    from fastrtp.jit.program import ENTRY

    lines = source_lines(prog) if perf_map.dump else {}
    named = []
    for address, insn in prog.native.annotated.places() if lines else ():
        at = next((index for index in range(insn, -1, -1) if index in lines), None)
        if at is not None:
            named.append((address, lines[at][1], lines[at][2]))
    prog.native.profile(perf_map, {ENTRY: prog_symbol(prog)}, named)
