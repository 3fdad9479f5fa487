"""The JIT without the verifier: test vectors and benchmarks. What runs here is trusted with the process's memory.

r1 is the address of the memory, r2 its length. There is one helper, number 5, which the bpf_conformance suite brings.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from fastrtp.isa import Insn, decode
from fastrtp.jit.lower import CallTarget, LowerInput, find_subprogs
from fastrtp.jit.options import DEFAULT, CodeOptions
from fastrtp.jit.program import ENTRY, NativeProgram

_PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64)


_UNWIND = 5


def _resolve(index: int, insn: Insn) -> CallTarget:
    if insn.src_reg:
        raise KeyError(insn.imm)  # a kernel function: the verifier says which
    if insn.imm != _UNWIND:
        raise KeyError(index)
    return CallTarget("conformance_unwind", args=1)


class Compiled:
    """A compiled program: call it with an address and a length; the result is r0 as an unsigned number."""

    def __init__(self, insns: bytes, options: CodeOptions = DEFAULT) -> None:
        program = decode(insns)
        source = LowerInput(name=ENTRY, insns=program, subprogs=find_subprogs(program), resolve=_resolve, options=options)
        self.native = NativeProgram("run", source)
        self._function = _PROTOTYPE(self.native.entry)

    def __call__(self, address: int, length: int) -> int:
        """Run it."""
        return int(self._function(address, length))


def compile(insns: bytes) -> Callable[[int, int], int]:
    """Compile instructions once; callable(address, length) -> r0. AsmError or JitError for what is no program."""
    return Compiled(insns)


def run(insns: bytes, mem: bytes = b"") -> int:
    """Run instructions on a copy of `mem`; r0 as an unsigned 64-bit number.

    >>> rtp.jit.run(bytes.fromhex("bf 20 00 00 00 00 00 00  95 00 00 00 00 00 00 00"), bytes(5))    # r0 = r2; exit
    5
    """
    buffer = ctypes.create_string_buffer(mem, max(len(mem), 1))
    return Compiled(insns)(ctypes.addressof(buffer), len(mem))
