"""Which registers hold a known base plus an offset: the forward dataflow behind good addresses.

A register is `None` (an i64 like any other), or `(base, offset)` with a constant offset, or `(base, None)` when the
offset varies. Bases are the frame pointer ("fp"), the context ("ctx") and the memory of a map's values ("@symbol").
Accesses through such a register become a getelementptr on the base, so LLVM knows what they touch: stack slots
become registers, and a store to a map does not make it read the context again.

The dataflow also finds which part of the stack is private: slots that are only ever accessed at constant offsets, below
everything whose address leaves the function (a helper reads upwards from the pointer that it is given).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastrtp.isa import BPF_REG_FP, Insn, Kind, Row
from fastrtp.jit.lower_cfg import Function, refuse

Pointer = tuple[str, int | None] | None
State = list[Pointer]
STACK_SIZE = 512
"""Bytes of a frame (MAX_BPF_STACK)."""

_DERIVING = ("add", "sub")


def transfer(state: State, row: Row, insn: Insn, symbol: Callable[[], tuple[str, int] | None]) -> None:
    """State after `insn`, in place. `symbol` gives (base, offset) of an ld_imm64 that refers to map values."""
    dst = insn.dst_reg
    match row.kind:
        case Kind.LD_IMM64:
            state[dst] = symbol() if row.op in ("map_value", "map_idx_value") else None
        case Kind.MOV if row.x and row.wide:
            state[dst] = state[insn.src_reg]
        case Kind.ALU if row.wide and row.op in _DERIVING:
            state[dst] = _derived(state, row, insn)
        case Kind.ALU | Kind.MOV | Kind.MOVSX | Kind.NEG | Kind.END | Kind.BSWAP | Kind.LOAD:
            state[dst] = None
        case Kind.CALL | Kind.PSEUDO_CALL:
            state[:6] = [None] * 6
        case Kind.ATOMIC:
            if row.op == "load_acquire":
                state[dst] = None
            elif row.op == "cmpxchg":
                state[0] = None
            elif row.op == "xchg" or row.op.startswith("fetch_"):
                state[insn.src_reg] = None


def _derived(state: State, row: Row, insn: Insn) -> Pointer:
    pointer = state[insn.dst_reg]
    if not row.x:
        if pointer is None or pointer[1] is None:
            return pointer
        return pointer[0], pointer[1] + (insn.imm if row.op == "add" else -insn.imm)
    other = state[insn.src_reg]
    if pointer is not None and other is None:
        return pointer[0], None
    if pointer is None and other is not None and row.op == "add":
        return other[0], None
    return None


def _merge(a: Pointer, b: Pointer) -> Pointer:
    if a == b:
        return a
    return (a[0], None) if a is not None and b is not None and a[0] == b[0] else None


def solve(function: Function, insns: Sequence[Insn], entry: State, symbol: Callable[[int], tuple[str, int] | None]) -> dict[int, State]:
    """State at the start of each block."""
    states: dict[int, State] = {function.start: list(entry)}
    pending = [function.start]
    while pending:
        start = pending.pop()
        block = function.blocks[start]
        state = list(states[start])
        for index in range(start, block.end):
            row = function.rows.get(index)
            if row is not None:
                transfer(state, row, insns[index], lambda index=index: symbol(index))  # type: ignore[misc]
        for succ in block.succs:
            known = states.get(succ)
            merged = list(state) if known is None else [_merge(a, b) for a, b in zip(known, state, strict=True)]
            if merged != known:
                states[succ] = merged
                pending.append(succ)
    return states


class StackUse:
    """What a function does with its frame: `used`, and `floor`: accesses that end at or below it are private."""

    def __init__(self) -> None:
        self.used = False
        self.floor = 0
        self._accesses: set[tuple[int, int]] = set()

    def access(self, offset: int | None, size: int) -> bool:
        """Note an access of `size` bytes at fp + offset. False when it is outside the frame."""
        self.used = True
        if offset is None:
            self.floor = -STACK_SIZE
            return True
        self._accesses.add((offset, size))
        return -STACK_SIZE <= offset <= -size

    def escape(self, offset: int | None, *, upwards: bool = False) -> None:
        """Note that fp + offset becomes a number; `upwards`: only bytes at and above it can be reached through it."""
        self.used = True
        self.floor = min(self.floor, offset) if upwards and offset is not None else -STACK_SIZE

    def settle(self) -> None:
        """Lower the floor until no access straddles it."""
        for offset, size in sorted(self._accesses, reverse=True):
            if offset < self.floor < offset + size:
                self.floor = offset


def stack_use(function: Function, insns: Sequence[Insn], states: dict[int, State], call_args: Callable[[int], tuple[int, bool]]) -> StackUse:
    """Walk the function once more with the states known. `call_args`: (number of arguments, has a callback)."""
    use = StackUse()

    def fp(register: int) -> Pointer:
        pointer = state[register]
        return pointer if pointer is not None and pointer[0] == "fp" else None

    def leaves(register: int, *, upwards: bool = False) -> None:
        if pointer := fp(register):
            use.escape(pointer[1], upwards=upwards)

    def touches(register: int) -> None:
        pointer = fp(register)
        if pointer and not use.access(None if pointer[1] is None else pointer[1] + insn.off, row.size // 8):
            raise refuse(index, insns, f"stack access at fp{pointer[1] + insn.off:+d} is outside the frame of {STACK_SIZE} bytes")  # type: ignore[operator]

    for block in function.blocks.values():
        state = list(states[block.start])
        for index in range(block.start, block.end):
            row = function.rows.get(index)
            if row is None:
                continue
            insn = insns[index]
            match row.kind:
                case Kind.LOAD:
                    touches(insn.src_reg)
                case Kind.STORE_IMM:
                    touches(insn.dst_reg)
                case Kind.STORE:
                    touches(insn.dst_reg)
                    leaves(insn.src_reg)
                case Kind.ATOMIC:
                    touches(insn.src_reg if row.op == "load_acquire" else insn.dst_reg)
                    if row.op != "load_acquire":
                        leaves(insn.src_reg)
                    if row.op == "cmpxchg":
                        leaves(0)
                case Kind.CALL:
                    count, callback = call_args(index)
                    for register in range(1, count + 1):
                        leaves(register, upwards=not callback)
                case Kind.PSEUDO_CALL:
                    for register in range(1, 6):
                        leaves(register)
                case Kind.ALU if not (row.wide and row.op in _DERIVING):
                    leaves(insn.dst_reg)
                    if row.x:
                        leaves(insn.src_reg)
                case Kind.ALU if row.x and _derived(state, row, insn) is None:
                    leaves(insn.dst_reg)
                    leaves(insn.src_reg)
                case Kind.MOV if row.x and not row.wide:
                    leaves(insn.src_reg)
                case Kind.MOVSX:
                    leaves(insn.src_reg)
                case Kind.NEG | Kind.END | Kind.BSWAP:
                    leaves(insn.dst_reg)
            transfer(state, row, insn, lambda: None)
        for succ in block.succs:
            for register in range(BPF_REG_FP):
                if function.blocks[succ].live_in >> register & 1 and states[succ][register] is None:
                    leaves(register)
    use.settle()
    return use
