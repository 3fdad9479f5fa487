"""One instruction slot and its eight bytes.

    byte 0     byte 1          bytes 2-3   bytes 4-7
    +--------+---------------+-----------+-----------+
    |  code  | src:4 | dst:4 |    off    |    imm    |      little endian
    +--------+---------------+-----------+-----------+

Kernel: include/uapi/linux/bpf.h:struct bpf_insn. A `BPF_LD | BPF_IMM | BPF_DW` takes two slots, the second with code 0,
so an index into a list of Insn is the kernel's instruction index. Must not know: what an opcode means (opcodes.py).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from fastrtp.errors import AsmError

_SLOT = struct.Struct("<BBhi")
INSN_SIZE = _SLOT.size
"""Bytes per slot."""


class Insn(NamedTuple):
    """One slot. `code` u8, `dst_reg` and `src_reg` 0..15, `off` s16, `imm` s32."""

    code: int
    dst_reg: int = 0
    src_reg: int = 0
    off: int = 0
    imm: int = 0


_FIELDS = {
    "code": (0, 0xFF),
    "dst_reg": (0, 15),
    "src_reg": (0, 15),
    "off": (-(1 << 15), (1 << 15) - 1),
    "imm": (-(1 << 31), (1 << 31) - 1),
}


def decode(data: bytes) -> list[Insn]:
    """Slots of `data`. AsmError when the length is no multiple of 8."""
    if len(data) % INSN_SIZE:
        raise AsmError(f"{len(data)} bytes are no whole number of {INSN_SIZE}-byte instructions")
    new = tuple.__new__  # past NamedTuple's own __new__, which takes as long again
    return [new(Insn, (code, regs & 15, regs >> 4, off, imm)) for code, regs, off, imm in _SLOT.iter_unpack(data)]


def encode(insns: Iterable[Insn]) -> bytes:
    """Bytes of `insns`. AsmError names the instruction and the field that does not fit."""
    insns = list(insns)
    pack = _SLOT.pack
    try:
        out = b"".join([pack(code, dst_reg | src_reg << 4, off, imm) for code, dst_reg, src_reg, off, imm in insns])
    except struct.error:
        out = b""
    if len(out) != INSN_SIZE * len(insns) or any(dst_reg >> 4 for _, dst_reg, *_ in insns):
        raise next(_misfit(index, insn) for index, insn in enumerate(insns) if not _fits(insn))
    return out


def _fits(insn: Insn) -> bool:
    return all(low <= value <= high for value, (low, high) in zip(insn, _FIELDS.values(), strict=True))


def _misfit(index: int, insn: Insn) -> AsmError:
    for name, value in zip(insn._fields, insn, strict=True):
        low, high = _FIELDS[name]
        if not low <= value <= high:
            return AsmError(f"insn {index}: {name} {value} is outside {low}..{high}")
    return AsmError(f"insn {index}: {insn} has no encoding")
