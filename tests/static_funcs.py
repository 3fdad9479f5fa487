"""BTF that calls every function of a program `static int f(void)`: what a program with functions needs to be loaded."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence

from fastrtp.btf import Btf
from fastrtp.isa import BPF_CALL, BPF_JMP, BPF_PSEUDO_CALL, BPF_PSEUDO_FUNC, Insn

BLOB = (
    struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 40, 40, 7)
    + struct.pack("<IIII", 3, 1 << 24, 4, 1 << 24 | 32)
    + struct.pack("<III", 0, 13 << 24, 1)
    + struct.pack("<III", 1, 12 << 24, 2)
    + b"\0f\0int\0"
)
_FUNC = 3
_REFERENCES = ((BPF_JMP | BPF_CALL, BPF_PSEUDO_CALL), (0x18, BPF_PSEUDO_FUNC))


@functools.cache
def btf() -> Btf:
    """The blob, parsed."""
    return Btf.parse(BLOB)


def func_info(insns: Sequence[Insn]) -> list[tuple[int, int]]:
    """(first instruction, FUNC id) of each function."""
    starts = {i + insn.imm + 1 for i, insn in enumerate(insns) if (insn.code, insn.src_reg) in _REFERENCES}
    return [(start, _FUNC) for start in sorted({0, *(start for start in starts if 0 <= start < len(insns))})]
