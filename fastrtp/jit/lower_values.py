"""Instructions that compute: arithmetic, comparison, extension, byte order. At 32 bits wherever that is all that matters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrtp.isa import Insn, Row
from fastrtp.jit.lower_alu import PREDICATE, alu, is_number, signed
from fastrtp.jit.lower_bits import ALL, LOW
from fastrtp.jit.lower_registers import MemoryBytes

if TYPE_CHECKING:
    from fastrtp.jit.lower_function import FunctionLowering

_UNSIGNED = {"jsgt": "jgt", "jsge": "jge", "jslt": "jlt", "jsle": "jle"}


def arithmetic(out: FunctionLowering, index: int, insn: Insn, row: Row) -> None:
    """An ALU operation."""
    regs, dst, src = out.regs, insn.dst_reg, insn.src_reg
    if row.wide and row.op in ("add", "sub") and _derive(out, insn, row):
        return
    made = _bytes(out, insn, row)
    op = row.op if not row.wide else _narrow(out, index, insn, row)
    if op:
        operand = regs.low(src) if row.x else str(insn.imm)
        regs.set_low(dst, alu(op, 32, regs.low(dst), operand, out.emit))
    else:
        operand = regs.full(src) if row.x else str(insn.imm)
        regs.set_full(dst, alu(row.op, 64, regs.full(dst), operand, out.emit))
    if made is not None:
        _load_again(out, dst, made)


def _bytes(out: FunctionLowering, insn: Insn, row: Row) -> MemoryBytes | None:
    """What the result is made of, where it is bytes of memory. Registers of 32 bits lose what is shifted out."""
    loaded = out.regs.bytes_of(insn.dst_reg)
    if loaded is None:
        return None
    made = None
    if row.op == "lsh" and not row.x:
        made = loaded.shifted(insn.imm & (63 if row.wide else 31))
    elif row.op == "or" and row.x and (other := out.regs.bytes_of(insn.src_reg)) is not None:
        made = loaded.joined(other)
    return made if made is None or row.wide or made.shift + made.count <= 4 else None


def _load_again(out: FunctionLowering, dst: int, made: MemoryBytes) -> None:
    """Bytecode reads what may not be aligned byte by byte; one load is what the bytes put together mean."""
    regs, bits = out.regs, made.count * 8
    if made.shift == 0 and bits in (16, 32, 64):
        value = out.emit(f"load i{bits}, ptr {regs.pointer_to(made.start, made.at)}, align 1")
        if bits == 64:
            regs.set_full(dst, value)
        else:
            regs.set_low(dst, value if bits == 32 else out.emit(f"zext i16 {value} to i32"))
    regs.set_bytes(dst, made)


def _narrow(out: FunctionLowering, index: int, insn: Insn, row: Row) -> str:
    """The 32-bit operation that does all of the 64-bit operation that matters, or "" where there is none."""
    useful = out.bits.useful(index)
    dst, src = out.bits.possible(index)
    if useful > LOW:
        return ""
    count = insn.imm & 63
    match row.op:
        case "add" | "sub" | "mul" | "and" | "or" | "xor":
            return row.op
        case "div" | "mod" if dst <= LOW and (src <= LOW if row.x else insn.imm >= 0):
            return row.op
        case "lsh" if not row.x and count < 32:
            return "lsh"
        case "rsh" | "arsh" if not row.x and count < 32 and useful << count & (dst | ~ALL) <= LOW:
            return "rsh"  # no copy of the sign among the bits that matter
    return ""


def _derive(out: FunctionLowering, insn: Insn, row: Row) -> bool:
    """Arithmetic on a register whose base is known; False where the result has none."""
    regs, dst, src = out.regs, insn.dst_reg, insn.src_reg
    pointer, other = regs.state[dst], regs.state[src] if row.x else None
    if pointer is None and other is not None and row.op == "add":
        regs.set_offset(dst, other[0], _sum(out, "add", regs.offset(src), regs.full(dst)))
    elif pointer is not None and other is None:
        operand = regs.full(src) if row.x else str(insn.imm)
        regs.set_offset(dst, pointer[0], _sum(out, row.op, regs.offset(dst), operand))
    elif pointer is not None and other is not None and pointer[0] == other[0] and row.op == "sub":
        regs.set_full(dst, _sum(out, "sub", regs.offset(dst), regs.offset(src)))
    else:
        return False
    return True


def _sum(out: FunctionLowering, op: str, a: str, b: str) -> str:
    if is_number(a) and is_number(b):
        return str(signed(int(a) + int(b) if op == "add" else int(a) - int(b), 64))
    if a == "0" and op == "add":
        return b
    return out.emit(f"{op} i64 {a}, {b}")


def negate(out: FunctionLowering, index: int, insn: Insn, row: Row) -> None:
    """dst = -dst."""
    regs, dst = out.regs, insn.dst_reg
    if row.wide and out.bits.useful(index) > LOW:
        regs.set_full(dst, out.emit(f"sub i64 0, {regs.full(dst)}"))
    else:
        regs.set_low(dst, out.emit(f"sub i32 0, {regs.low(dst)}"))


def movsx(out: FunctionLowering, insn: Insn, row: Row) -> None:
    """dst = the lower part of src, sign-extended."""
    regs = out.regs
    part = regs.low(insn.src_reg)
    if row.size < 32:
        part = out.emit(f"trunc i32 {part} to i{row.size}")
    if row.wide:
        regs.set_full(insn.dst_reg, out.emit(f"sext i{row.size} {part} to i64"))
    else:
        regs.set_low(insn.dst_reg, out.emit(f"sext i{row.size} {part} to i32"))


def byte_order(out: FunctionLowering, dst: int, row: Row) -> None:
    """Conversion from and to little and big endian, and byte swaps."""
    regs, bits = out.regs, row.size
    if bits == 64:
        full = regs.full(dst)
        regs.set_full(dst, full if row.op == "le" else out.emit(f"call i64 @llvm.bswap.i64(i64 {full})"))
        return
    part = regs.low(dst)
    if bits == 16:
        part = out.emit(f"trunc i32 {part} to i16")
    if row.op != "le":
        part = out.emit(f"call i{bits} @llvm.bswap.i{bits}(i{bits} {part})")
    regs.set_low(dst, part if bits == 32 else out.emit(f"zext i16 {part} to i32"))


def condition(out: FunctionLowering, index: int, insn: Insn, row: Row) -> str:
    """The i1 that a conditional jump depends on."""
    regs, dst, src = out.regs, insn.dst_reg, insn.src_reg
    pointer, other = regs.state[dst], regs.state[src] if row.x else None
    if row.op in ("jeq", "jne") and row.wide and pointer is not None and other is not None and pointer[0] == other[0]:
        return out.emit(f"icmp {PREDICATE[row.op]} i64 {regs.offset(dst)}, {regs.offset(src)}")
    left, right = out.bits.possible(index)
    small = row.wide and left <= LOW and (right <= LOW if row.x else insn.imm >= 0)
    # without anything in the upper halves, signed comparison of 64 bits is unsigned comparison of 32
    op = _UNSIGNED.get(row.op, row.op) if small else row.op
    wide = row.wide and not small
    kind = "i64" if wide else "i32"
    a = regs.full(dst) if wide else regs.low(dst)
    b = str(insn.imm) if not row.x else regs.full(src) if wide else regs.low(src)
    if op == "jset":
        bits = out.emit(f"and {kind} {a}, {b}")
        return out.emit(f"icmp ne {kind} {bits}, 0")
    return out.emit(f"icmp {PREDICATE[op]} {kind} {a}, {b}")
