"""A reference interpreter: the second opinion on the JIT. Slow, small, and every memory access is checked.

It shares with the JIT the opcode table, and nothing else: arithmetic is Python's on unbounded integers, masked.
Memory is a set of regions at made-up addresses: the given bytes (r1 points at them), and one frame per call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fastrtp.isa import Insn, Kind, Row, lookup
from fastrtp.uapi import BPF_MAX_LOOPS

U64 = (1 << 64) - 1
STACK_SIZE = 512
MAX_CALL_FRAMES = 8
MEM_BASE = 0x10_0000_0000
STACK_BASE = 0x20_0000_0000
FRAME_STRIDE = 0x1_0000

Helper = Callable[[int, int, int, int, int], int]


class InterpreterError(Exception):
    """The program did something that has no defined result; the message names the instruction."""


def signed(value: int, bits: int = 64) -> int:
    """`value` read as two's complement of `bits` bits."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _quotient(a: int, b: int) -> int:
    """Division that rounds toward zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def arithmetic(op: str, bits: int, a: int, b: int) -> int:
    """`a op b`, both unsigned of `bits` bits; so is the result."""
    sa, sb = signed(a, bits), signed(b, bits)
    match op:
        case "add":
            result = a + b
        case "sub":
            result = a - b
        case "mul":
            result = a * b
        case "or":
            result = a | b
        case "and":
            result = a & b
        case "xor":
            result = a ^ b
        case "lsh":
            result = a << b % bits
        case "rsh":
            result = a >> b % bits
        case "arsh":
            result = sa >> b % bits
        case "div":
            result = a // b if b else 0
        case "mod":
            result = a % b if b else a
        case "sdiv":
            result = _quotient(sa, sb) if b else 0
        case "smod":
            result = sa - sb * _quotient(sa, sb) if b else a
        case _:
            raise AssertionError(op)
    return result & (1 << bits) - 1


def compare(op: str, bits: int, a: int, b: int) -> bool:
    """Whether the branch is taken; operands unsigned of `bits` bits."""
    sa, sb = signed(a, bits), signed(b, bits)
    return {
        "jeq": a == b, "jne": a != b, "jgt": a > b, "jge": a >= b, "jlt": a < b, "jle": a <= b, "jset": bool(a & b),
        "jsgt": sa > sb, "jsge": sa >= sb, "jslt": sa < sb, "jsle": sa <= sb,
    }[op]  # fmt: skip


@dataclass
class Frame:
    """Registers that a call saves, where it returns to, and what is left of the frame's may_goto."""

    saved: list[int]
    back: int
    may_goto: int = BPF_MAX_LOOPS


@dataclass
class Interpreter:
    """One run. `mem` is changed in place; `helpers` by number; `numbers`: value of each ld_imm64 that is no plain number."""

    insns: Sequence[Insn]
    mem: bytearray = field(default_factory=bytearray)
    helpers: Mapping[int, Helper] = field(default_factory=dict)
    numbers: Mapping[int, int] = field(default_factory=dict)
    max_steps: int = 1_000_000

    def run(self) -> int:
        """r0 at exit, unsigned."""
        regs = [0] * 11
        regs[1], regs[2] = MEM_BASE, len(self.mem)
        self.regs = regs
        self.regions: dict[int, bytearray] = {MEM_BASE: self.mem}
        self.frames = [Frame([], -1)]
        self._push_stack()
        index = 0
        for _ in range(self.max_steps):
            if not 0 <= index < len(self.insns):
                raise InterpreterError(f"insn {index} is outside the program")
            following = self._step(index)
            if following is None:
                return regs[0]
            index = following
        raise InterpreterError(f"no exit after {self.max_steps} instructions")

    def _push_stack(self) -> None:
        base = STACK_BASE + len(self.frames) * FRAME_STRIDE
        self.regions[base] = bytearray(STACK_SIZE)
        self.regs[10] = base + STACK_SIZE

    def _step(self, index: int) -> int | None:
        insn = self.insns[index]
        row = lookup(insn)
        if row is None or row.kind is Kind.UNSUPPORTED or (row.kind is Kind.LD_IMM64 and index + 1 >= len(self.insns)):
            raise InterpreterError(f"insn {index} cannot be run: {insn}")
        regs = self.regs
        dst, src = regs[insn.dst_reg], regs[insn.src_reg]
        operand = src if row.x else insn.imm & U64
        match row.kind:
            case Kind.ALU:
                mask = (1 << row.size) - 1
                self._write(insn.dst_reg, arithmetic(row.op, row.size, dst & mask, operand & mask))
            case Kind.MOV:
                self._write(insn.dst_reg, operand & ((1 << row.size) - 1))
            case Kind.MOVSX:
                self._write(insn.dst_reg, signed(src, row.size) & (U64 if row.wide else U64 >> 32))
            case Kind.NEG:
                self._write(insn.dst_reg, -dst & ((1 << row.size) - 1))
            case Kind.END | Kind.BSWAP:
                data = (dst & ((1 << row.size) - 1)).to_bytes(row.size // 8, "little")
                self._write(insn.dst_reg, int.from_bytes(data, "little" if row.op == "le" else "big"))
            case Kind.LD_IMM64:
                number = (self.insns[index + 1].imm & 0xFFFFFFFF) << 32 | insn.imm & 0xFFFFFFFF
                self._write(insn.dst_reg, number if row.op == "imm" else self.numbers[index])
                return index + 2
            case Kind.LOAD:
                value = self._load(index, src + insn.off, row.size)
                self._write(insn.dst_reg, (signed(value, row.size) if row.signed else value) & U64)
            case Kind.STORE | Kind.STORE_IMM:
                self._store(index, dst + insn.off, row.size, operand)
            case Kind.ATOMIC:
                self._atomic(index, insn, row)
            case Kind.JUMP:
                return index + 1 + (insn.imm if row.name == "ja32" else insn.off)
            case Kind.MAY_GOTO:
                if self.frames[-1].may_goto == 0:
                    return index + 1 + insn.off
                self.frames[-1].may_goto -= 1
            case Kind.BRANCH:
                mask = (1 << row.size) - 1
                if compare(row.op, row.size, dst & mask, operand & mask):
                    return index + 1 + insn.off
            case Kind.CALL:
                if insn.imm not in self.helpers:
                    raise InterpreterError(f"insn {index}: there is no helper {insn.imm}")
                self._write(0, self.helpers[insn.imm](*regs[1:6]) & U64)
                regs[1:6] = [0] * 5
            case Kind.PSEUDO_CALL:
                if len(self.frames) == MAX_CALL_FRAMES:
                    raise InterpreterError(f"insn {index}: more than {MAX_CALL_FRAMES} frames")
                self.frames.append(Frame(regs[6:11], index + 1))
                self._push_stack()
                regs[0], regs[6:10] = 0, [0] * 4
                return index + 1 + insn.imm
            case Kind.EXIT:
                frame = self.frames.pop()
                if not self.frames:
                    return None
                del self.regions[STACK_BASE + (len(self.frames) + 1) * FRAME_STRIDE]
                regs[6:11] = frame.saved
                regs[1:6] = [0] * 5
                return frame.back
        return index + 1

    def _write(self, register: int, value: int) -> None:
        if register == 10:
            raise InterpreterError("the frame pointer is read-only")
        self.regs[register] = value

    def _find(self, index: int, address: int, size: int) -> tuple[bytearray, int]:
        address &= U64
        for base, region in self.regions.items():
            if base <= address and address + size <= base + len(region):
                return region, address - base
        raise InterpreterError(f"insn {index}: {size} bytes at {address:#x} are no memory of the program")

    def _load(self, index: int, address: int, bits: int) -> int:
        region, at = self._find(index, address, bits // 8)
        return int.from_bytes(region[at : at + bits // 8], "little")

    def _store(self, index: int, address: int, bits: int, value: int) -> None:
        region, at = self._find(index, address, bits // 8)
        region[at : at + bits // 8] = (value & ((1 << bits) - 1)).to_bytes(bits // 8, "little")

    def _atomic(self, index: int, insn: Insn, row: Row) -> None:
        regs, bits = self.regs, row.size
        if row.op == "load_acquire":
            self._write(insn.dst_reg, self._load(index, regs[insn.src_reg] + insn.off, bits))
            return
        address, value = regs[insn.dst_reg] + insn.off, regs[insn.src_reg] & ((1 << bits) - 1)
        if row.op == "store_release":
            self._store(index, address, bits, value)
            return
        old = self._load(index, address, bits)
        if row.op == "cmpxchg":
            if old == regs[0] & ((1 << bits) - 1):
                self._store(index, address, bits, value)
            self._write(0, old)
        elif row.op == "xchg":
            self._store(index, address, bits, value)
            self._write(insn.src_reg, old)
        else:
            self._store(index, address, bits, arithmetic(row.op.removeprefix("fetch_"), bits, old, value))
            if row.op.startswith("fetch_"):
                self._write(insn.src_reg, old)


def run(insns: Sequence[Insn], mem: bytes = b"", helpers: Mapping[int, Helper] | None = None) -> int:
    """r0 of a program with r1 = address and r2 = length of `mem`. InterpreterError for anything that has no result."""
    return Interpreter(insns, bytearray(mem), helpers or {}).run()
