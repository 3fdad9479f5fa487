"""Which bits of the registers matter: two dataflows that say where 32 bits are enough.

Bytecode without 32-bit instructions computes 32-bit values in 64-bit registers, with anything in the upper half, and
cleans up by masks and shifts where it matters. Taken literally, that hides rotations and spends 64-bit multiplications
and divisions. So, for each point of a function:

- *possible* (forward): the bits of each register that can be set;
- *demanded* (backward): those of each register, and of each private stack slot of 8 bytes, that can reach a result.

An operation whose result has no bit above the 31st that is both runs on i32, and a register that has none is carried
between blocks as an i32. What `lower_values` emits relies on it: whoever asks for all of a register whose upper half is
not demanded gets zeroes there and lets them reach nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastrtp.isa import MAX_BPF_REG, Insn, Kind, Row
from fastrtp.jit.lower_cfg import Block, Function

LOW = 0xFFFFFFFF
ALL = 0xFFFFFFFF_FFFFFFFF

Demand = dict[int, int]
"""Demanded bits by register, and by stack slot (its negative offset from the frame pointer); none where absent."""


def up_to(mask: int) -> int:
    """The highest bit of the mask and all below."""
    return (1 << mask.bit_length()) - 1


class BitFlow:
    """The dataflows over one function.

    `arguments(index)`: mask of the registers that a call reads. `slot(index)`: offset of the private 8-byte stack slot that
    the load or store at `index` is about, or None. `narrow_slots`: those of which only 32 bits matter.
    """

    def __init__(
        self, function: Function, insns: Sequence[Insn], arguments: Callable[[int], int], slot: Callable[[int], int | None]
    ) -> None:
        self._function = function
        self._insns = insns
        self._arguments = arguments
        self._slot = slot
        self._possible: dict[int, list[int]] = {}
        self._operands: dict[int, tuple[int, int, int]] = {}
        self._demand: dict[int, Demand] = {start: {} for start in function.blocks}
        self._demanded: dict[int, int] = {}
        self.narrow_slots: set[int] = set()
        self._solve_possible()
        self._solve_demand()
        self._narrow = {start: self._narrow_at(start) for start in function.blocks}

    def narrow(self, start: int) -> int:
        """Mask of the registers that the block at `start` can take as 32 bits."""
        return self._narrow[start]

    def _narrow_at(self, start: int) -> int:
        demand, mask = self._demand[start], 0
        for register, bits in enumerate(self._possible[start]):
            if bits <= LOW or bits & demand.get(register, 0) <= LOW:
                mask |= 1 << register
        return mask

    def useful(self, index: int) -> int:
        """Bits that can be set and matter of what the instruction at `index` leaves in its destination."""
        return self._demanded[index] & self._operands[index][2]

    def possible(self, index: int) -> tuple[int, int]:
        """Bits that can be set of the destination and source registers before the instruction at `index`."""
        return self._operands[index][:2]

    def _solve_possible(self) -> None:
        start = self._function.start
        self._possible[start] = [ALL] * MAX_BPF_REG
        pending = [start]
        while pending:
            block = self._function.blocks[pending.pop()]
            state = list(self._possible[block.start])
            for index in block.insns(self._function):
                row, insn = self._function.rows[index], self._insns[index]
                dst, src = state[insn.dst_reg], state[insn.src_reg]
                _possible(row, insn, self._insns, index, state)
                self._operands[index] = dst, src, state[insn.dst_reg]
            for succ in block.succs:
                known = self._possible.get(succ)
                if known is None:
                    self._possible[succ] = list(state)
                    pending.append(succ)
                elif any(bits & ~had for bits, had in zip(state, known, strict=True)):
                    # what grows does so to the next half, or a shift in a loop would go round for each bit
                    merged = [had if not bits & ~had else _half(bits | had) for bits, had in zip(state, known, strict=True)]
                    self._possible[succ] = merged
                    pending.append(succ)

    def _solve_demand(self) -> None:
        function = self._function
        preds: dict[int, list[int]] = {start: [] for start in function.blocks}
        for block in function.blocks.values():
            for succ in block.succs:
                preds[succ].append(block.start)
        pending = list(function.blocks)
        waiting = set(pending)
        slots: set[int] = set()
        wide: set[int] = set()
        while pending:
            start = pending.pop()
            waiting.discard(start)
            block = function.blocks[start]
            demand = self._leaving(block)
            for index in reversed(block.insns(function)):
                row, insn = function.rows[index], self._insns[index]
                self._demanded[index] = demand.get(insn.dst_reg, 0)
                slot = self._slot(index)
                if slot is None:
                    _demand(row, insn, demand, self._operands[index], self._arguments(index) if row.kind in _CALLS else 0)
                    continue
                slots.add(slot)
                if row.kind is Kind.LOAD:
                    demand[slot] = demand.get(slot, 0) | demand.pop(insn.dst_reg, 0)
                    wide |= {slot} if demand[slot] > LOW else set()
                else:
                    bits = demand.pop(slot, 0)
                    if row.kind is Kind.STORE:
                        demand[insn.src_reg] = demand.get(insn.src_reg, 0) | bits & self._operands[index][1]
            if demand != self._demand[start]:
                self._demand[start] = demand
                for pred in preds[start]:
                    if pred not in waiting:
                        waiting.add(pred)
                        pending.append(pred)
        self.narrow_slots = slots - wide

    def _leaving(self, block: Block) -> Demand:
        demand: Demand = {}
        for succ in block.succs:
            for what, bits in self._demand[succ].items():
                demand[what] = demand.get(what, 0) | bits
        return demand


class EveryBit(BitFlow):
    """No dataflow: every bit can be set and matters. For measurements of what the other is worth."""

    def __init__(self, *_: object) -> None:
        self.narrow_slots = set()

    def narrow(self, start: int) -> int:
        """None."""
        return 0

    def useful(self, index: int) -> int:
        """All."""
        return ALL

    def possible(self, index: int) -> tuple[int, int]:
        """All of both."""
        return ALL, ALL


_CALLS = (Kind.CALL, Kind.PSEUDO_CALL)
_NOTHING_WRITTEN = (Kind.STORE, Kind.STORE_IMM, Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO, Kind.EXIT)


def _half(mask: int) -> int:
    return ALL if mask > LOW else LOW


def _possible(row: Row, insn: Insn, insns: Sequence[Insn], index: int, state: list[int]) -> None:
    """Possible bits after an instruction, from those before, in place."""
    if row.kind in _NOTHING_WRITTEN:
        return
    if row.kind in _CALLS:
        state[:6] = [ALL] * 6
    elif row.kind is Kind.ATOMIC:
        bits = (1 << row.size) - 1
        if row.op == "load_acquire":
            state[insn.dst_reg] = bits
        elif row.op == "cmpxchg":
            state[0] = bits
        elif row.op == "xchg" or row.op.startswith("fetch_"):
            state[insn.src_reg] = bits
    elif row.kind is Kind.LD_IMM64:
        number = (insns[index + 1].imm & LOW) << 32 | insn.imm & LOW
        state[insn.dst_reg] = number if row.op == "imm" else ALL
    else:
        state[insn.dst_reg] = _result(row, insn, state[insn.dst_reg], state[insn.src_reg])


def _result(row: Row, insn: Insn, dst: int, src: int) -> int:
    most = ALL if row.wide else LOW
    kept = (1 << row.size) - 1
    other = src if row.x else insn.imm & ALL
    match row.kind:
        case Kind.LOAD:
            return ALL if row.signed else kept
        case Kind.MOV:
            return other & most
        case Kind.MOVSX:
            return src if src < 1 << row.size - 1 else most
        case Kind.END | Kind.BSWAP:
            return dst & kept if row.op == "le" else kept
        case Kind.ALU:
            return _alu_result(row, insn, dst & most, other & most) & most
    return most


def _alu_result(row: Row, insn: Insn, dst: int, other: int) -> int:
    width = 64 if row.wide else 32
    most, count = (1 << width) - 1, insn.imm & width - 1
    match row.op:
        case "and":
            return dst & other
        case "or" | "xor":
            return dst | other
        case "add":
            return up_to(dst | other) << 1 | 1
        case "lsh" if not row.x:
            return dst << count
        case "rsh" if not row.x:
            return dst >> count
        case "arsh" if not row.x and not dst >> width - 1:
            return dst >> count
        case "rsh" | "div" | "mod":
            return up_to(dst)
    return most


def _demand(row: Row, insn: Insn, demand: Demand, possible: tuple[int, int, int], arguments: int) -> None:
    """Demanded bits before an instruction, from those after it, in place. `arguments`: registers that a call reads, as a mask."""
    dst, src = insn.dst_reg, insn.src_reg

    def want(register: int, bits: int) -> None:
        bits &= possible[0] if register == dst else possible[1] if register == src else ALL
        if bits:
            demand[register] = demand.get(register, 0) | bits

    match row.kind:
        case Kind.ALU:
            _alu(row, insn, demand.pop(dst, 0), possible, want)
        case Kind.MOV:
            bits = demand.pop(dst, 0)
            if row.x:
                want(src, bits if row.wide else bits & LOW)
        case Kind.MOVSX:
            bits = demand.pop(dst, 0) & (ALL if row.wide else LOW)
            sign = 1 << row.size - 1
            want(src, bits & sign - 1 | (sign if bits >= sign else 0))
        case Kind.NEG:
            want(dst, up_to(demand.pop(dst, 0) & (ALL if row.wide else LOW)))
        case Kind.END | Kind.BSWAP:
            bits, kept = demand.pop(dst, 0), (1 << row.size) - 1
            want(dst, bits & kept if row.op == "le" else kept if bits else 0)
        case Kind.LOAD:
            demand.pop(dst, None)
            want(src, ALL)
        case Kind.STORE | Kind.STORE_IMM:
            want(dst, ALL)
            if row.kind is Kind.STORE:
                want(src, (1 << row.size) - 1)
        case Kind.ATOMIC:
            _atomic(row, insn, demand, want)
        case Kind.LD_IMM64:
            demand.pop(dst, None)
        case Kind.CALL | Kind.PSEUDO_CALL:
            for register in range(6):
                demand.pop(register, None)
            for register in range(1, 6):
                if arguments >> register & 1:
                    demand[register] = ALL
        case Kind.EXIT:
            want(0, ALL)
        case Kind.BRANCH:
            bits = ALL if row.wide else LOW
            want(dst, insn.imm & bits if row.op == "jset" and not row.x else bits)
            if row.x:
                want(src, bits)


def _alu(row: Row, insn: Insn, bits: int, possible: tuple[int, int, int], want: Callable[[int, int], None]) -> None:
    dst, src = insn.dst_reg, insn.src_reg
    width, most = (64, ALL) if row.wide else (32, LOW)
    bits &= most
    if not bits:
        return
    imm, count = insn.imm & most, insn.imm & width - 1
    match row.op:
        case "add" | "sub" | "mul":
            want(dst, up_to(bits))
            if row.x:
                want(src, up_to(bits))
        case "and" | "or" | "xor":
            if row.x:
                want(dst, bits & possible[1] if row.op == "and" else bits)
                want(src, bits & possible[0] if row.op == "and" else bits)
            else:
                want(dst, bits & imm if row.op == "and" else bits & ~imm if row.op == "or" else bits)
        case "lsh" | "rsh" | "arsh" if row.x:
            want(dst, up_to(bits) if row.op == "lsh" else most)
            want(src, width - 1)
        case "lsh":
            want(dst, bits >> count)
        case "rsh":
            want(dst, bits << count & most)
        case "arsh":
            sign = 1 << width - 1
            want(dst, bits << count & most | (sign if bits >> width - 1 - count else 0))
        case _:
            want(dst, most)
            if row.x:
                want(src, most)


def _atomic(row: Row, insn: Insn, demand: Demand, want: Callable[[int, int], None]) -> None:
    operand = (1 << row.size) - 1
    if row.op == "load_acquire":
        demand.pop(insn.dst_reg, None)
        want(insn.src_reg, ALL)
        return
    if row.op == "cmpxchg":
        demand.pop(0, None)
        want(0, operand)
    elif row.op == "xchg" or row.op.startswith("fetch_"):
        demand.pop(insn.src_reg, None)
    want(insn.dst_reg, ALL)
    want(insn.src_reg, operand)
