"""Arithmetic: the LLVM text of each ALU operation on i32 or i64 operands. No state but the names that it is given."""

from __future__ import annotations

from collections.abc import Callable

Emit = Callable[[str], str]
"""Appends `%new = <text>` and gives the new name."""

BINARY = {"add": "add", "sub": "sub", "mul": "mul", "or": "or", "and": "and", "xor": "xor"}
SHIFT = {"lsh": "shl", "rsh": "lshr", "arsh": "ashr"}
PREDICATE = {
    "jeq": "eq", "jne": "ne", "jgt": "ugt", "jge": "uge", "jlt": "ult", "jle": "ule",
    "jsgt": "sgt", "jsge": "sge", "jslt": "slt", "jsle": "sle",
}  # fmt: skip


def is_number(value: str) -> bool:
    """The operand is a literal."""
    return value[0] in "-0123456789"


def signed(number: int, bits: int) -> int:
    """`number` as a `bits`-wide two's complement."""
    sign = 1 << bits - 1
    return (number & (1 << bits) - 1 ^ sign) - sign


def alu(op: str, bits: int, a: str, b: str, emit: Emit) -> str:
    """`a op b` at `bits` width, defined for all operands."""
    kind = f"i{bits}"
    if op in BINARY:
        return emit(f"{BINARY[op]} {kind} {a}, {b}")
    if op in SHIFT:
        count = str(int(b) & bits - 1) if is_number(b) else emit(f"and {kind} {b}, {bits - 1}")
        return emit(f"{SHIFT[op]} {kind} {a}, {count}")
    return _DIVISION[op](kind, a, b, emit)


def _div(kind: str, a: str, b: str, emit: Emit) -> str:
    if is_number(b):
        return emit(f"udiv {kind} {a}, {b}") if int(b) else "0"
    zero = emit(f"icmp eq {kind} {b}, 0")
    safe = emit(f"select i1 {zero}, {kind} 1, {kind} {b}")
    quotient = emit(f"udiv {kind} {a}, {safe}")
    return emit(f"select i1 {zero}, {kind} 0, {kind} {quotient}")


def _mod(kind: str, a: str, b: str, emit: Emit) -> str:
    if is_number(b):
        return emit(f"urem {kind} {a}, {b}") if int(b) else a
    zero = emit(f"icmp eq {kind} {b}, 0")
    safe = emit(f"select i1 {zero}, {kind} 1, {kind} {b}")
    remainder = emit(f"urem {kind} {a}, {safe}")
    return emit(f"select i1 {zero}, {kind} {a}, {kind} {remainder}")


def _sdiv(kind: str, a: str, b: str, emit: Emit) -> str:
    if is_number(b) and int(b) not in (0, -1):
        return emit(f"sdiv {kind} {a}, {b}")
    zero, minus_one, safe = _safe_divisor(kind, b, emit)
    quotient = emit(f"sdiv {kind} {a}, {safe}")
    negated = emit(f"sub {kind} 0, {a}")
    quotient = emit(f"select i1 {minus_one}, {kind} {negated}, {kind} {quotient}")
    return emit(f"select i1 {zero}, {kind} 0, {kind} {quotient}")


def _smod(kind: str, a: str, b: str, emit: Emit) -> str:
    if is_number(b) and int(b) not in (0, -1):
        return emit(f"srem {kind} {a}, {b}")
    zero, _, safe = _safe_divisor(kind, b, emit)
    remainder = emit(f"srem {kind} {a}, {safe}")
    return emit(f"select i1 {zero}, {kind} {a}, {kind} {remainder}")


def _safe_divisor(kind: str, b: str, emit: Emit) -> tuple[str, str, str]:
    # x / 1 stands in for the two divisions that trap: by zero, and S64_MIN by -1
    zero = emit(f"icmp eq {kind} {b}, 0")
    minus_one = emit(f"icmp eq {kind} {b}, -1")
    traps = emit(f"or i1 {zero}, {minus_one}")
    return zero, minus_one, emit(f"select i1 {traps}, {kind} 1, {kind} {b}")


_DIVISION = {"div": _div, "mod": _mod, "sdiv": _sdiv, "smod": _smod}
