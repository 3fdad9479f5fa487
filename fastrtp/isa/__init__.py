"""The BPF instruction set: instructions and their bytes, the opcode table, assembler and disassembler in kernel syntax.

Kernel: include/uapi/linux/bpf.h, kernel/bpf/disasm.c. Must not know: maps, programs, what a helper does.
"""

from fastrtp.isa import opcodes
from fastrtp.isa.asm import assemble
from fastrtp.isa.disasm import disassemble, dump, print_bpf_insn
from fastrtp.isa.func_id import FUNC_IDS, FUNC_NAMES, func_id_name
from fastrtp.isa.insn import INSN_SIZE, Insn, decode, encode
from fastrtp.isa.opcodes import *  # noqa: F403  the kernel's constants and the table: opcodes.__all__

__all__ = [
    "FUNC_IDS", "FUNC_NAMES", "INSN_SIZE", "Insn", "assemble", "decode", "disassemble", "dump", "encode", "func_id_name",
    "print_bpf_insn",
]  # fmt: skip
__all__ += opcodes.__all__
