"""Control flow and liveness of one function (a program's main part or a subprogram), for lowering.

Only what can be reached is looked at: an instruction that the verifier did not see, or that no path leads to, does not
exist. JitError for a jump out of the function, a path that falls off its end, and instructions without a lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fastrtp.errors import JitError
from fastrtp.isa import Insn, Kind, Row, lookup, print_bpf_insn

_R0 = 1
R1_TO_R5 = 0b111110
_CALLER_SAVED = 0b111111
_FP = 1 << 10
ENDS_BLOCK = (Kind.JUMP, Kind.BRANCH, Kind.MAY_GOTO, Kind.EXIT)


class InsnFacts(Protocol):
    """What lowering reads of the verifier's facts about one instruction."""

    @property
    def seen(self) -> bool:
        """Some path reaches the instruction."""

    @property
    def access(self) -> str | None:
        """Kind of memory that a load or store touches; "btf" loads are range-checked."""

    @property
    def callback(self) -> int | None:
        """First instruction of the callback of a helper call."""


@dataclass(slots=True)
class Block:
    """Instructions [start, end) with one entry; `succs` are the starts of the blocks that follow."""

    start: int
    end: int
    succs: tuple[int, ...]
    live_in: int = 0
    live_out: int = 0

    def insns(self, function: Function) -> list[int]:
        """Indices of the block's instructions; second slots are none."""
        return [index for index in range(self.start, self.end) if index in function.rows]


@dataclass(slots=True)
class Function:
    """Reachable part of the instructions [start, end). `rows` by instruction index; `blocks` in address order."""

    start: int
    end: int
    rows: dict[int, Row]
    blocks: dict[int, Block] = field(default_factory=dict)


def refuse(index: int, insns: Sequence[Insn], why: str) -> JitError:
    """A JitError that names the instruction."""
    insn = insns[index]
    following = insns[index + 1] if index + 1 < len(insns) else None
    return JitError(f"insn {index}: {print_bpf_insn(insn, following)}: {why}")


def find_subprogs(insns: Sequence[Insn]) -> list[tuple[int, int]]:
    """[start, end) of each function, from the targets of calls and function references. The first starts at 0."""
    starts = {0}
    for index, insn in enumerate(insns):
        row = lookup(insn)
        if row is not None and (row.kind is Kind.PSEUDO_CALL or row.op == "func"):
            target = index + 1 + insn.imm
            if not 0 <= target < len(insns):
                raise refuse(index, insns, f"calls insn {target}, outside 0..{len(insns) - 1}")
            starts.add(target)
    ordered = sorted(starts)
    return list(zip(ordered, [*ordered[1:], len(insns)], strict=True))


def build(insns: Sequence[Insn], start: int, end: int, aux: Sequence[InsnFacts] | None) -> Function:
    """Rows and blocks of what can be reached from `start`."""
    if not 0 <= start < end <= len(insns):
        raise JitError(f"a function of insns {start}..{end - 1} does not fit a program of {len(insns)} instructions")
    function = Function(start, end, {})
    succs: dict[int, tuple[int, ...]] = {}
    leaders = {start}
    pending = [start]
    while pending:
        index = pending.pop()
        if index in succs:
            continue
        row = _row(index, insns)
        function.rows[index] = row
        following = _successors(index, insns, row)
        for target in following:
            if not start <= target < end:
                why = "falls off the end of the function" if target == end else f"jumps to insn {target}"
                raise refuse(index, insns, f"{why}, outside {start}..{end - 1}")
        if aux is not None and len(following) > 1:
            following = tuple(target for target in following if aux[target].seen) or following
        succs[index] = following
        pending += following
        if row.kind in ENDS_BLOCK:
            leaders.update(following)
    current: Block | None = None
    for index in sorted(succs):
        if current is None or index in leaders:
            current = function.blocks[index] = Block(index, index, ())
        current.end = index + 1
        current.succs = succs[index]
        if function.rows[index].kind in ENDS_BLOCK:
            current = None
    return function


def _row(index: int, insns: Sequence[Insn]) -> Row:
    insn = insns[index]
    row = lookup(insn)
    if row is None:
        raise refuse(index, insns, f"unknown opcode {insn.code:02x}")
    if row.kind is Kind.UNSUPPORTED:
        raise refuse(index, insns, f"{row.name} is not supported")
    if insn.dst_reg > 10 or insn.src_reg > 10:
        raise refuse(index, insns, "there are registers r0 to r10 only")
    if row.kind is Kind.LD_IMM64 and (index + 1 >= len(insns) or insns[index + 1].code):
        raise refuse(index, insns, "has no second slot")
    if _defines(row, insn) & _FP:
        raise refuse(index, insns, "the frame pointer is read-only")
    return row


def _successors(index: int, insns: Sequence[Insn], row: Row) -> tuple[int, ...]:
    insn = insns[index]
    match row.kind:
        case Kind.EXIT:
            return ()
        case Kind.JUMP:
            return (index + 1 + (insn.imm if row.name == "ja32" else insn.off),)
        case Kind.BRANCH | Kind.MAY_GOTO:
            return (index + 1, index + 1 + insn.off)
        case Kind.LD_IMM64:
            return (index + 2,)
    return (index + 1,)


def _defines(row: Row, insn: Insn) -> int:
    match row.kind:
        case Kind.CALL | Kind.PSEUDO_CALL:
            return _CALLER_SAVED
        case Kind.STORE | Kind.STORE_IMM | Kind.JUMP | Kind.BRANCH | Kind.MAY_GOTO | Kind.EXIT:
            return 0
        case Kind.ATOMIC:
            if row.op == "load_acquire":
                return 1 << insn.dst_reg
            if row.op == "cmpxchg":
                return _R0
            return 1 << insn.src_reg if row.op == "xchg" or row.op.startswith("fetch_") else 0
    return 1 << insn.dst_reg


def _uses(row: Row, insn: Insn, arguments: Callable[[int], int], index: int) -> int:
    dst, src = 1 << insn.dst_reg, 1 << insn.src_reg
    match row.kind:
        case Kind.LD_IMM64 | Kind.JUMP | Kind.MAY_GOTO:
            return 0
        case Kind.LOAD | Kind.MOVSX:
            return src
        case Kind.MOV:
            return src if row.x else 0
        case Kind.STORE_IMM | Kind.NEG | Kind.END | Kind.BSWAP:
            return dst
        case Kind.CALL | Kind.PSEUDO_CALL:
            return arguments(index)
        case Kind.EXIT:
            return _R0
        case Kind.ATOMIC:
            return src if row.op == "load_acquire" else dst | src | (_R0 if row.op == "cmpxchg" else 0)
    return dst | src if row.x else dst


def liveness(function: Function, insns: Sequence[Insn], arguments: Callable[[int], int]) -> None:
    """Fill in each block's live registers (bit masks). `arguments` gives the registers that the call at an index reads."""
    effects: dict[int, tuple[int, int]] = {}
    preds: dict[int, list[int]] = {start: [] for start in function.blocks}
    for block in function.blocks.values():
        use = define = 0
        for index in block.insns(function):
            row = function.rows[index]
            use |= _uses(row, insns[index], arguments, index) & ~define
            define |= _defines(row, insns[index])
        effects[block.start] = use, define
        for succ in block.succs:
            preds[succ].append(block.start)
    pending = list(function.blocks)
    while pending:
        block = function.blocks[pending.pop()]
        block.live_out = 0
        for succ in block.succs:
            block.live_out |= function.blocks[succ].live_in
        use, define = effects[block.start]
        live_in = use | block.live_out & ~define
        if live_in != block.live_in:
            block.live_in = live_in
            pending += preds[block.start]
