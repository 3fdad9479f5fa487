"""The native code of a program as bytes, for the jited dump.

The address and the size of the function come from the object that was loaded: its symbol table says where it ends.
"""

from __future__ import annotations

import ctypes
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
    native = prog.native
    return [JitedFunction(native.entry, ctypes.string_at(native.entry, native.entry_size), prog.tag)]
