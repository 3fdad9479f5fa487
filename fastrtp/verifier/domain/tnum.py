"""Tracked numbers in Python: `Tnum(value, mask)`, as the core computes them (tnum_native.py).

A bit set in `mask` is unknown; a bit clear there has the value it has in `value`. Both are unsigned 64-bit.
Kernel: kernel/bpf/tnum.c, include/linux/tnum.h.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

from fastrtp.native.library import library

U64 = (1 << 64) - 1
U32 = (1 << 32) - 1


class Tnum(NamedTuple):
    """Known bits (`value`) and unknown bits (`mask`) of a u64."""

    value: int
    mask: int


TNUM_UNKNOWN = Tnum(0, U64)

TNUM_OPS = ("add", "sub", "and", "or", "xor", "mul", "intersect", "lshift", "rshift", "arshift64", "arshift32", "range")
"""Operations of the native `verifier_tnum`, in its order."""


def tnum_op(name: str, a: Tnum, b: Tnum | int = 0) -> Tnum:
    """One of TNUM_OPS; a shift takes a number, `range` the tnum (low, 0) and the highest value."""
    result = (ctypes.c_uint64 * 2)()
    bv, bm = b if isinstance(b, Tnum) else (b, 0)
    library().verifier_tnum(TNUM_OPS.index(name), a.value, a.mask, bv, bm, ctypes.addressof(result))
    return Tnum(result[0], result[1])


def tnum_in(a: Tnum, b: Tnum) -> bool:
    """Whether every value of `b` is a value of `a`."""
    return not (b.mask & ~a.mask) and a.value == b.value & ~a.mask


def tnum_strn(a: Tnum) -> str:
    """As the log prints it: one number when constant (decimal where short), else (value; mask)."""
    if not a.mask:
        return unum(a.value)
    return f"({a.value:#x}; {a.mask:#x})"


def unum(value: int) -> str:
    """Unsigned number: decimal where short. Kernel: verbose_unum."""
    return str(value) if value <= 0xFFFF else hex(value)
