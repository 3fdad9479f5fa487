"""Disassembler: the text of a verifier's log, out of the opcode table.

`print_bpf_insn` is what the kernel prints, to the letter. `disassemble` differs in one place: the kernel prints every
ld_imm64 as a number, which hides what it refers to; here a map, a subprogram or a BTF id is spelled out so that the text
assembles to the same instruction.

Kernel: kernel/bpf/disasm.c:print_bpf_insn. Never fails: what is no instruction is printed as `BUG_xx`, as the kernel does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fastrtp.isa.func_id import func_id_name
from fastrtp.isa.insn import Insn
from fastrtp.isa.opcodes import BPF_ALU64, BPF_CLASS, BPF_END, BPF_LD, BPF_LDX, BPF_OP, BPF_ST, PLACEHOLDER, is_ld_imm64, lookup

_ZERO = Insn(0)
_Operand = Callable[[Insn, Insn], str]
_OPERAND: dict[str, _Operand] = {
    "r:dst": lambda insn, _: f"r{insn.dst_reg}",
    "w:dst": lambda insn, _: f"w{insn.dst_reg}",
    "r:src": lambda insn, _: f"r{insn.src_reg}",
    "w:src": lambda insn, _: f"w{insn.src_reg}",
    "off": lambda insn, _: f"{insn.off:+d}",
    "imm": lambda insn, _: f"{insn.imm}",
    "imm32": lambda insn, _: f"{insn.imm}",
    "hex": lambda insn, _: f"{insn.imm & 0xFFFFFFFF:#x}",
    "jump": lambda insn, _: f"pc{insn.off:+d}",
    "jump32": lambda insn, _: f"pc{insn.imm:+d}",
    "imm64": lambda insn, following: f"{(following.imm & 0xFFFFFFFF) << 32 | insn.imm & 0xFFFFFFFF:#x}",
    "next": lambda _, following: f"{following.imm}",
    "func": lambda insn, _: f"{func_id_name(insn.imm)}#{insn.imm}",
}


def disassemble(insn: Insn, next: Insn | None = None) -> str:
    """Text of `insn` in the kernel's syntax; `next` is the slot after it, needed for the upper half of an ld_imm64."""
    row = lookup(insn)
    return _bug(insn) if row is None else _format(row.text, insn, next or _ZERO)


def print_bpf_insn(insn: Insn, next: Insn | None = None) -> str:
    """Line of the verifier's log without the index: `(61) r1 = *(u32 *)(r0 +0)`. Kernel: disasm.c:print_bpf_insn."""
    row = lookup(insn)
    text = _bug(insn) if row is None else _format(row.log or row.text, insn, next or _ZERO)
    return text if text.startswith("BUG_") else f"({insn.code:02x}) {text}"


def dump(insns: Sequence[Insn]) -> Iterator[str]:
    """`<index>: (<code>) <text>` for each instruction; the second slot of an ld_imm64 has no line."""
    index = 0
    while index < len(insns):
        insn = insns[index]
        following = insns[index + 1] if index + 1 < len(insns) else None
        yield f"{index}: ({insn.code:02x}) {disassemble(insn, following)}"
        index += 1 + is_ld_imm64(insn)


def _format(text: str, insn: Insn, following: Insn) -> str:
    return PLACEHOLDER.sub(partial(_operand, insn, following), text)


def _operand(insn: Insn, following: Insn, placeholder: re.Match[str]) -> str:
    return _OPERAND[placeholder[1]](insn, following)


def _bug(insn: Insn) -> str:
    code = insn.code
    kind = {BPF_ST: "st_", BPF_LDX: "ldx_", BPF_LD: "ld_"}.get(BPF_CLASS(code), "")
    if BPF_CLASS(code) == BPF_ALU64 and BPF_OP(code) == BPF_END:
        kind = "alu64_"
    return f"BUG_{kind}{code:02x}"
