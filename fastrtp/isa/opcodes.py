"""The instruction set: one table, `OPCODES`, from which everything else about instructions is derived.

    7        4   3   2      0        7      5 4    3 2      0
    +---------+-----+-------+        +-------+------+-------+
    |   op    | src | class |        | mode  | size | class |
    +---------+-----+-------+        +-------+------+-------+
    ALU, ALU64, JMP, JMP32           LD, LDX, ST, STX

A row is one instruction: its opcode, the fixed values that tell it from others of the same opcode (`off` 1 is a signed
division, `imm` the kind of atomic), and its text with the operands as placeholders. A field that is neither fixed nor
an operand is reserved and zero. Assembler, disassembler, lowering and the tests' interpreter read rows, never opcodes.

Placeholders: {r:dst} {r:src} 64-bit registers, {w:dst} {w:src} their lower halves, {off} signed displacement, {imm} s32,
{imm32} s32 or u32, {hex} u32 in hex, {jump} off and {jump32} imm as jump targets, {imm64} both slots' imm, {next} the
second slot's imm, {func} a helper's number.

Kernel: include/uapi/linux/bpf.h, kernel/bpf/disasm.c:print_bpf_insn (6.18).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from fastrtp.isa.insn import Insn
from fastrtp.uapi import (
    BPF_PSEUDO_BTF_ID,
    BPF_PSEUDO_CALL,
    BPF_PSEUDO_FUNC,
    BPF_PSEUDO_KFUNC_CALL,
    BPF_PSEUDO_MAP_FD,
    BPF_PSEUDO_MAP_IDX,
    BPF_PSEUDO_MAP_IDX_VALUE,
    BPF_PSEUDO_MAP_VALUE,
)

__all__ = [
    "BPF_ABS", "BPF_ADD", "BPF_ALU", "BPF_ALU64", "BPF_AND", "BPF_ARSH", "BPF_ATOMIC", "BPF_B", "BPF_CALL", "BPF_CLASS",
    "BPF_CMPXCHG", "BPF_DIV", "BPF_DW", "BPF_END", "BPF_EXIT", "BPF_FETCH", "BPF_H", "BPF_IMM", "BPF_IND", "BPF_JA",
    "BPF_JCOND", "BPF_JEQ", "BPF_JGE", "BPF_JGT", "BPF_JLE", "BPF_JLT", "BPF_JMP", "BPF_JMP32", "BPF_JNE", "BPF_JSET",
    "BPF_JSGE", "BPF_JSGT", "BPF_JSLE", "BPF_JSLT", "BPF_K", "BPF_LD", "BPF_LDX", "BPF_LOAD_ACQ", "BPF_LSH", "BPF_MAY_GOTO",
    "BPF_MEM", "BPF_MEMSX", "BPF_MOD", "BPF_MODE", "BPF_MOV", "BPF_MUL", "BPF_NEG", "BPF_OP", "BPF_OR", "BPF_PSEUDO_BTF_ID",
    "BPF_PSEUDO_CALL", "BPF_PSEUDO_FUNC", "BPF_PSEUDO_KFUNC_CALL", "BPF_PSEUDO_MAP_FD", "BPF_PSEUDO_MAP_IDX",
    "BPF_PSEUDO_MAP_IDX_VALUE", "BPF_PSEUDO_MAP_VALUE", "BPF_REG_FP", "BPF_RSH", "BPF_SIZE", "BPF_SRC", "BPF_ST",
    "BPF_STORE_REL", "BPF_STX", "BPF_SUB", "BPF_TO_BE", "BPF_TO_LE", "BPF_W", "BPF_X", "BPF_XCHG", "BPF_XOR", "MAX_BPF_REG",
    "OPCODES", "PLACEHOLDER", "Kind", "Row", "bpf_opcode_in_insntable", "is_ld_imm64", "lookup",
]  # fmt: skip

BPF_LD, BPF_LDX, BPF_ST, BPF_STX, BPF_ALU, BPF_JMP, BPF_JMP32, BPF_ALU64 = range(8)
BPF_W, BPF_H, BPF_B, BPF_DW = 0x00, 0x08, 0x10, 0x18
BPF_IMM, BPF_ABS, BPF_IND, BPF_MEM, BPF_MEMSX, BPF_ATOMIC = 0x00, 0x20, 0x40, 0x60, 0x80, 0xC0
BPF_K, BPF_X = 0x00, 0x08
BPF_ADD, BPF_SUB, BPF_MUL, BPF_DIV, BPF_OR, BPF_AND, BPF_LSH, BPF_RSH = range(0x00, 0x80, 0x10)
BPF_NEG, BPF_MOD, BPF_XOR, BPF_MOV, BPF_ARSH, BPF_END = range(0x80, 0xE0, 0x10)
BPF_TO_LE, BPF_TO_BE = 0x00, 0x08
BPF_JA, BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET, BPF_JNE, BPF_JSGT, BPF_JSGE = range(0x00, 0x80, 0x10)
BPF_CALL, BPF_EXIT, BPF_JLT, BPF_JLE, BPF_JSLT, BPF_JSLE, BPF_JCOND = range(0x80, 0xF0, 0x10)
BPF_FETCH, BPF_XCHG, BPF_CMPXCHG, BPF_LOAD_ACQ, BPF_STORE_REL = 0x01, 0xE1, 0xF1, 0x100, 0x110
BPF_MAY_GOTO = 0
BPF_REG_FP = 10
MAX_BPF_REG = 11


def BPF_CLASS(code: int) -> int:  # noqa: N802  the kernel's name
    """Class of an opcode, BPF_LD..BPF_ALU64."""
    return code & 0x07


def BPF_OP(code: int) -> int:  # noqa: N802
    """Operation of an ALU or JMP opcode (or of an atomic's imm)."""
    return code & 0xF0


def BPF_SRC(code: int) -> int:  # noqa: N802
    """BPF_K or BPF_X of an ALU or JMP opcode."""
    return code & 0x08


def BPF_SIZE(code: int) -> int:  # noqa: N802
    """BPF_B..BPF_DW of a load or store opcode."""
    return code & 0x18


def BPF_MODE(code: int) -> int:  # noqa: N802
    """BPF_IMM..BPF_ATOMIC of a load or store opcode."""
    return code & 0xE0


class Kind(StrEnum):
    """Family of a row: rows of one kind are decoded, checked and lowered by one function."""

    LD_IMM64 = "ld_imm64"
    ALU = "alu"
    NEG = "neg"
    MOV = "mov"
    MOVSX = "movsx"
    END = "end"
    BSWAP = "bswap"
    LOAD = "load"
    STORE = "store"
    STORE_IMM = "store_imm"
    ATOMIC = "atomic"
    JUMP = "jump"
    BRANCH = "branch"
    MAY_GOTO = "may_goto"
    CALL = "call"
    PSEUDO_CALL = "pseudo_call"
    EXIT = "exit"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class Row:
    """One instruction.

    `op`: operation by name ("add", "sdiv", "jsgt", "fetch_add"); `size`: bits operated on (memory: bits accessed; movsx:
    bits kept of the source); `wide`: the destination register is written (or compared) in full, not as its lower half;
    `signed`: the loaded value is sign-extended; `x`: the second operand is a register; `isa`: the version that brought it.
    `off`, `src_reg`, `imm`: fixed values, None where the field is an operand or reserved. `text` assembles to this row
    alone; `log` is what the kernel prints where that is less.
    """

    name: str
    code: int
    kind: Kind
    text: str
    op: str = ""
    size: int = 64
    wide: bool = True
    signed: bool = False
    x: bool = False
    isa: int = 1
    off: int | None = None
    src_reg: int | None = None
    imm: int | None = None
    log: str = ""

    def matches(self, insn: Insn) -> bool:
        """Opcode and fixed fields are this row's."""
        return (
            insn.code == self.code
            and (self.imm is None or insn.imm == self.imm)
            and (self.off is None or insn.off == self.off)
            and (self.src_reg is None or insn.src_reg == self.src_reg)
        )

    @property
    def operands(self) -> frozenset[str]:
        """Fields of Insn that are operands; `next` stands for the second slot's imm."""
        return _OPERANDS[self.text]

    def reserved(self, insn: Insn) -> tuple[str, ...]:
        """Names of the reserved fields that are not zero in `insn`."""
        return tuple(
            field
            for field in ("dst_reg", "src_reg", "off", "imm")
            if getattr(insn, field) and getattr(self, field, None) is None and field not in self.operands
        )


PLACEHOLDER = re.compile(r"\{([^}]+)\}")
_FIELD_OF = {
    "r:dst": {"dst_reg"}, "w:dst": {"dst_reg"}, "r:src": {"src_reg"}, "w:src": {"src_reg"}, "off": {"off"}, "imm": {"imm"},
    "imm32": {"imm"}, "hex": {"imm"}, "jump": {"off"}, "jump32": {"imm"}, "imm64": {"imm", "next"}, "next": {"next"},
    "func": {"imm"},
}  # fmt: skip

_ALU_OPS = (
    ("add", BPF_ADD, "+="), ("sub", BPF_SUB, "-="), ("mul", BPF_MUL, "*="), ("or", BPF_OR, "|="), ("and", BPF_AND, "&="),
    ("lsh", BPF_LSH, "<<="), ("rsh", BPF_RSH, ">>="), ("xor", BPF_XOR, "^="), ("arsh", BPF_ARSH, "s>>="),
)  # fmt: skip
_DIV_OPS = (("div", BPF_DIV, "/=", 0), ("mod", BPF_MOD, "%=", 0), ("sdiv", BPF_DIV, "s/=", 1), ("smod", BPF_MOD, "s%=", 1))
_JMP_OPS = (
    ("jeq", BPF_JEQ, "=="), ("jgt", BPF_JGT, ">"), ("jge", BPF_JGE, ">="), ("jset", BPF_JSET, "&"), ("jne", BPF_JNE, "!="),
    ("jsgt", BPF_JSGT, "s>"), ("jsge", BPF_JSGE, "s>="), ("jlt", BPF_JLT, "<"), ("jle", BPF_JLE, "<="),
    ("jslt", BPF_JSLT, "s<"), ("jsle", BPF_JSLE, "s<="),
)  # fmt: skip
_JMP_ISA2 = ("jlt", "jle", "jslt", "jsle")
_SIZES = ((8, BPF_B), (16, BPF_H), (32, BPF_W), (64, BPF_DW))
_ATOMIC_OPS = (("add", BPF_ADD, "+="), ("or", BPF_OR, "|="), ("and", BPF_AND, "&="), ("xor", BPF_XOR, "^="))
_PSEUDO_LD = (
    ("map_fd", BPF_PSEUDO_MAP_FD, "map[fd:{imm}]"),
    ("map_value", BPF_PSEUDO_MAP_VALUE, "map[fd:{imm}][0]+{next}"),
    ("btf_id", BPF_PSEUDO_BTF_ID, "btf[id:{imm}][fd:{next}]"),
    ("func", BPF_PSEUDO_FUNC, "subprog[{jump32}]"),
    ("map_idx", BPF_PSEUDO_MAP_IDX, "map[idx:{imm}]"),
    ("map_idx_value", BPF_PSEUDO_MAP_IDX_VALUE, "map[idx:{imm}][0]+{next}"),
)


def _loads_of_constants() -> Iterator[Row]:
    code = BPF_LD | BPF_IMM | BPF_DW
    text = "{r:dst} = {imm64}"
    yield Row("ld_imm64", code, Kind.LD_IMM64, text, "imm", src_reg=0)
    for name, src_reg, operand in _PSEUDO_LD:
        yield Row(f"ld_{name}", code, Kind.LD_IMM64, f"{{r:dst}} = {operand}", name, src_reg=src_reg, log=text)


def _alu() -> Iterator[Row]:
    for alu, size, r in ((BPF_ALU, 32, "w"), (BPF_ALU64, 64, "r")):
        wide = size == 64
        dst, src, imm = f"{{{r}:dst}}", f"{{{r}:src}}", "{imm}" if wide else "{imm32}"
        for name, op, sign in _ALU_OPS:
            yield Row(f"{name}{size}_k", alu | op | BPF_K, Kind.ALU, f"{dst} {sign} {imm}", name, size, wide)
            yield Row(f"{name}{size}_x", alu | op | BPF_X, Kind.ALU, f"{dst} {sign} {src}", name, size, wide, x=True)
        for name, op, sign, off in _DIV_OPS:
            isa = 4 if off else 1
            for x, source, operand in (("k", BPF_K, imm), ("x", BPF_X, src)):
                text = f"{dst} {sign} {operand}"
                yield Row(f"{name}{size}_{x}", alu | op | source, Kind.ALU, text, name, size, wide, x=x == "x", isa=isa, off=off)
        yield Row(f"neg{size}", alu | BPF_NEG, Kind.NEG, f"{dst} = -{dst}", "neg", size, wide)
        yield Row(f"mov{size}_k", alu | BPF_MOV | BPF_K, Kind.MOV, f"{dst} = {imm}", "mov", size, wide)
        yield Row(f"mov{size}_x", alu | BPF_MOV | BPF_X, Kind.MOV, f"{dst} = {src}", "mov", size, wide, x=True, off=0)
        for bits in (8, 16, 32)[: 3 if wide else 2]:
            text = f"{dst} = (s{bits}){src}"
            yield Row(f"movsx{bits}_{size}", alu | BPF_MOV | BPF_X, Kind.MOVSX, text, "movsx", bits, wide, True, True, 4, bits)
    for bits in (16, 32, 64):
        for name, source in (("le", BPF_TO_LE), ("be", BPF_TO_BE)):
            text = f"{{r:dst}} = {name}{bits} {{r:dst}}"
            yield Row(f"{name}{bits}", BPF_ALU | BPF_END | source, Kind.END, text, name, bits, imm=bits)
        text = f"{{r:dst}} = bswap{bits} {{r:dst}}"
        yield Row(f"bswap{bits}", BPF_ALU64 | BPF_END, Kind.BSWAP, text, "bswap", bits, isa=4, imm=bits)


def _memory() -> Iterator[Row]:
    for bits, size in _SIZES:
        yield Row(f"ldx{bits}", BPF_LDX | BPF_MEM | size, Kind.LOAD, f"{{r:dst}} = *(u{bits} *)({{r:src}} {{off}})", "ldx", bits)
        if bits < 64:
            text = f"{{r:dst}} = *(s{bits} *)({{r:src}} {{off}})"
            yield Row(f"ldsx{bits}", BPF_LDX | BPF_MEMSX | size, Kind.LOAD, text, "ldsx", bits, signed=True, isa=4)
        where = f"*(u{bits} *)({{r:dst}} {{off}})"
        yield Row(f"st{bits}", BPF_ST | BPF_MEM | size, Kind.STORE_IMM, f"{where} = {{imm}}", "st", bits)
        yield Row(f"stx{bits}", BPF_STX | BPF_MEM | size, Kind.STORE, f"{where} = {{r:src}}", "stx", bits, x=True)
        yield from _atomic(bits, BPF_STX | BPF_ATOMIC | size)
        if bits < 64:
            text = f"r0 = *(u{bits} *)skb[{{imm}}]"
            yield Row(f"ld_abs{bits}", BPF_LD | BPF_ABS | size, Kind.UNSUPPORTED, text, "ld_abs", bits)
            text = f"r0 = *(u{bits} *)skb[{{r:src}} + {{imm}}]"
            yield Row(f"ld_ind{bits}", BPF_LD | BPF_IND | size, Kind.UNSUPPORTED, text, "ld_ind", bits)


def _atomic(bits: int, code: int) -> Iterator[Row]:
    where = f"(u{bits} *)({{r:dst}} {{off}})"
    if bits >= 32:
        suffix = "64" if bits == 64 else ""
        for name, op, sign in _ATOMIC_OPS:
            text = f"lock *{where} {sign} {{r:src}}"
            yield Row(f"atomic{bits}_{name}", code, Kind.ATOMIC, text, name, bits, x=True, isa=1 if name == "add" else 3, imm=op)
            text = f"{{r:src}} = atomic{suffix}_fetch_{name}({where}, {{r:src}})"
            fetch = f"fetch_{name}"
            yield Row(f"atomic{bits}_{fetch}", code, Kind.ATOMIC, text, fetch, bits, x=True, isa=3, imm=op | BPF_FETCH)
        text = f"{{r:src}} = atomic{suffix}_xchg({where}, {{r:src}})"
        yield Row(f"atomic{bits}_xchg", code, Kind.ATOMIC, text, "xchg", bits, x=True, isa=3, imm=BPF_XCHG)
        text = f"r0 = atomic{suffix}_cmpxchg({where}, r0, {{r:src}})"
        yield Row(f"atomic{bits}_cmpxchg", code, Kind.ATOMIC, text, "cmpxchg", bits, x=True, isa=3, imm=BPF_CMPXCHG)
    text = f"{{r:dst}} = load_acquire((u{bits} *)({{r:src}} {{off}}))"
    yield Row(f"load_acquire{bits}", code, Kind.ATOMIC, text, "load_acquire", bits, isa=4, imm=BPF_LOAD_ACQ)
    text = f"store_release({where}, {{r:src}})"
    yield Row(f"store_release{bits}", code, Kind.ATOMIC, text, "store_release", bits, x=True, isa=4, imm=BPF_STORE_REL)


def _jumps() -> Iterator[Row]:
    yield Row("ja", BPF_JMP | BPF_JA, Kind.JUMP, "goto {jump}", "ja")
    yield Row("ja32", BPF_JMP32 | BPF_JA, Kind.JUMP, "gotol {jump32}", "ja", isa=4)
    yield Row("may_goto", BPF_JMP | BPF_JCOND, Kind.MAY_GOTO, "may_goto {jump}", "may_goto", isa=4, src_reg=BPF_MAY_GOTO)
    for jmp, size, r in ((BPF_JMP32, 32, "w"), (BPF_JMP, 64, "r")):
        for name, op, sign in _JMP_OPS:
            isa = 3 if size == 32 else 2 if name in _JMP_ISA2 else 1
            text = f"if {{{r}:dst}} {sign} {{hex}} goto {{jump}}"
            yield Row(f"{name}{size}_k", jmp | op | BPF_K, Kind.BRANCH, text, name, size, size == 64, isa=isa)
            text = f"if {{{r}:dst}} {sign} {{{r}:src}} goto {{jump}}"
            yield Row(f"{name}{size}_x", jmp | op | BPF_X, Kind.BRANCH, text, name, size, size == 64, x=True, isa=isa)
    yield Row("call_pseudo", BPF_JMP | BPF_CALL, Kind.PSEUDO_CALL, "call {jump32}", "call", src_reg=BPF_PSEUDO_CALL)
    yield Row("call", BPF_JMP | BPF_CALL, Kind.CALL, "call {func}", "call", src_reg=0)
    text = "call kernel-function#{imm}"
    yield Row("call_kfunc", BPF_JMP | BPF_CALL, Kind.CALL, text, "kfunc", src_reg=BPF_PSEUDO_KFUNC_CALL)
    yield Row("callx", BPF_JMP | BPF_CALL | BPF_X, Kind.UNSUPPORTED, "callx {r:dst}", "callx")
    yield Row("exit", BPF_JMP | BPF_EXIT, Kind.EXIT, "exit", "exit")


OPCODES: tuple[Row, ...] = (*_loads_of_constants(), *_alu(), *_memory(), *_jumps())
"""Every instruction. Where two texts could mean the same, the earlier row is the one that is assembled."""

_OPERANDS = {row.text: frozenset().union(*(_FIELD_OF[p] for p in PLACEHOLDER.findall(row.text))) for row in OPCODES}
_BY_CODE: dict[int, tuple[Row, ...]] = {
    code: tuple(row for row in OPCODES if row.code == code) for code in sorted({row.code for row in OPCODES})
}


def lookup(insn: Insn) -> Row | None:
    """Row of `insn`, None where no instruction has its opcode and fixed fields. Reserved fields are not looked at."""
    for row in _BY_CODE.get(insn.code, ()):
        if row.matches(insn):
            return row
    return None


def bpf_opcode_in_insntable(code: int) -> bool:
    """Whether an opcode exists on 6.18, whatever its other fields. Kernel: kernel/bpf/core.c:bpf_opcode_in_insntable."""
    return code in _BY_CODE and code != BPF_JMP | BPF_CALL | BPF_X


def is_ld_imm64(insn: Insn) -> bool:
    """The instruction takes two slots."""
    return insn.code == BPF_LD | BPF_IMM | BPF_DW
