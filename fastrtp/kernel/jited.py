"""The native code of a program as bytes, for the jited dump.

The address and the size of the function come from the object that was loaded: its symbol table says where it ends.
"""

from __future__ import annotations

import ctypes
import io
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .prog import BpfProg


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
    size = symbol_sizes(native.object_code()).get(ENTRY, 0)
    return [JitedFunction(native.entry, ctypes.string_at(native.entry, size), prog.tag)]


def symbol_sizes(obj: bytes) -> dict[str, int]:
    """Bytes of each function in an object file, by its symbol; none where the object is not ELF (macOS)."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
    from elftools.elf.sections import SymbolTableSection

    try:
        table = ELFFile(io.BytesIO(obj)).get_section_by_name(".symtab")
    except ELFError:
        return {}
    if not isinstance(table, SymbolTableSection):
        return {}
    return {symbol.name: int(symbol["st_size"]) for symbol in table.iter_symbols() if symbol["st_info"]["type"] == "STT_FUNC"}
