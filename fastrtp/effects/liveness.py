"""Which registers' new values are read later: whether what an atomic operation fetched matters to anybody. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from fastrtp.isa import Insn
from fastrtp.isa.opcodes import Kind, Row

_ARGUMENTS = 0b111110
_CALLER_SAVED = 0b111111


def read_later(insns: Sequence[Insn], rows: Sequence[Row | None]) -> set[tuple[int, int]]:
    """(instruction, register) of every atomic operation that leaves something in a register which a path from there reads."""
    live = [0] * (len(insns) + 1)
    changed = True
    while changed:
        changed = False
        for index in range(len(insns) - 1, -1, -1):
            row = rows[index]
            if row is None:  # second slot of a wide load
                now = live[index + 1]
            else:
                reads, writes = _registers(insns[index], row)
                now = reads | (_behind(insns[index], row, index, live) & ~writes)
            if now != live[index]:
                live[index], changed = now, True
    found = set()
    for index, (insn, row) in enumerate(zip(insns, rows, strict=True)):
        if row is not None and row.kind is Kind.ATOMIC and live[index + 1] >> insn.src_reg & 1:
            found.add((index, insn.src_reg))
    return found


def _behind(insn: Insn, row: Row, index: int, live: Sequence[int]) -> int:
    if row.kind is Kind.EXIT:
        return 0
    if row.kind is Kind.JUMP:
        return live[index + 1 + (insn.imm if row.name == "ja32" else insn.off)]
    if row.kind in (Kind.BRANCH, Kind.MAY_GOTO):
        return live[index + 1] | live[index + 1 + insn.off]
    return live[index + 1]


def _registers(insn: Insn, row: Row) -> tuple[int, int]:
    """(read, written whole) as bits."""
    dst, src = 1 << insn.dst_reg, 1 << insn.src_reg
    if row.kind is Kind.EXIT:
        return 1, 0
    if row.kind in (Kind.CALL, Kind.PSEUDO_CALL):
        return _ARGUMENTS, _CALLER_SAVED
    if row.kind is Kind.LD_IMM64:
        return 0, dst
    if row.kind in (Kind.MOV, Kind.MOVSX):
        return (src if row.x else 0), dst
    if row.kind is Kind.LOAD:
        return src, dst
    if row.kind is Kind.ATOMIC:
        if row.op == "load_acquire":
            return src, dst
        fetched = 1 if row.op == "cmpxchg" else src if row.op.startswith("fetch_") or row.op == "xchg" else 0
        return dst | src | (1 if row.op == "cmpxchg" else 0), fetched
    if row.kind in (Kind.JUMP, Kind.MAY_GOTO):
        return 0, 0
    return dst | (src if row.x else 0), 0
