"""Tracked numbers: which bits of a 64-bit value are known, and what they are.

A tnum is a pair (value, mask): a bit set in `mask` is unknown; a bit clear there has the value it has in `value`.
`value & mask == 0` always. The empty set cannot be expressed. Both are u64 in an int64.
Kernel: kernel/bpf/tnum.c, include/linux/tnum.h.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, lshr, native, store64, ule
from fastrtp.verifier.domain.records import (
    TNUM_ADD,
    TNUM_AND,
    TNUM_ARSHIFT32,
    TNUM_ARSHIFT64,
    TNUM_INTERSECT,
    TNUM_LSHIFT,
    TNUM_MUL,
    TNUM_OR,
    TNUM_RANGE,
    TNUM_RSHIFT,
    TNUM_SUB,
    TNUM_XOR,
)

U32 = 0xFFFFFFFF
S64_MIN = -(1 << 63)


@device
def sx32(x: int) -> int:
    """The low 32 bits, sign-extended."""
    return (x << 32) >> 32


@device
def smear(x: int) -> int:
    """All bits from the highest set one down."""
    x |= lshr(x, 1)
    x |= lshr(x, 2)
    x |= lshr(x, 4)
    x |= lshr(x, 8)
    x |= lshr(x, 16)
    return x | lshr(x, 32)


@device
def tnum_range(low: int, high: int) -> tuple[int, int]:
    """The tightest tnum that contains every value of `low..high` (unsigned)."""
    delta = smear(low ^ high)
    return low & ~delta, delta


@device
def tnum_step(value: int, mask: int, after: int) -> int:
    """The smallest member greater than `after` (unsigned), the greatest member where there is none. Kernel: tnum_step."""
    top = value | mask
    if ule(top, after):
        return top
    least = after + 1
    wrong = (least ^ value) & ~mask
    if wrong == 0:
        return least
    below = smear(wrong)  # the highest bit that is not as it has to be, and those below it
    if (least & below & ~lshr(below, 1)) == 0:
        return (least & ~below) | (value & below)
    # that bit has to be cleared, so the lowest free bit above it that is clear counts up
    free = mask & ~least & ~below
    free &= -free
    return (least & ~(free | (free - 1))) | free | (value & (free - 1))


@device
def tnum_add(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Sum: a bit is unknown where an operand bit or a carry into it is."""
    sv = av + bv
    mu = ((am + bm + sv) ^ sv) | am | bm
    return sv & ~mu, mu


@device
def tnum_sub(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Difference."""
    dv = av - bv
    mu = ((dv + am) ^ (dv - bm)) | am | bm
    return dv & ~mu, mu


@device
def tnum_and(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Bitwise and."""
    v = av & bv
    return v, (av | am) & (bv | bm) & ~v


@device
def tnum_or(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Bitwise or."""
    v = av | bv
    return v, (am | bm) & ~v


@device
def tnum_xor(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Bitwise exclusive or."""
    mu = am | bm
    return (av ^ bv) & ~mu, mu


@device
def tnum_mul(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Long multiplication: each unknown bit of `a` adds `b` with every bit of `b`'s possible ones unknown."""
    acc_v = av * bv
    mv = 0
    mm = 0
    while av != 0 or am != 0:
        if av & 1:
            mv, mm = tnum_add(mv, mm, 0, bm)
        elif am & 1:
            mv, mm = tnum_add(mv, mm, 0, bv | bm)
        av = lshr(av, 1)
        am = lshr(am, 1)
        bv <<= 1
        bm <<= 1
    return tnum_add(acc_v, 0, mv, mm)


@device
def tnum_intersect(av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Bits known in either; where both know a bit and differ, the result is arbitrary (there is no empty tnum)."""
    mu = am & bm
    return (av | bv) & ~mu, mu


@device
def tnum_arshift(v: int, m: int, shift: int, bits: int) -> tuple[int, int]:
    """Arithmetic shift right of the low `bits` (32 or 64): value and mask both drag their top bit along."""
    if bits == 32:
        return (sx32(v) >> shift) & U32, (sx32(m) >> shift) & U32
    return v >> shift, m >> shift


@device
def tnum_in(av: int, am: int, bv: int, bm: int) -> int:
    """Whether every value of `b` is a value of `a`."""
    return 1 if (bm & ~am) == 0 and av == bv & ~am else 0


@native()
def verifier_tnum(op: int, av: int, am: int, bv: int, bm: int, result: int) -> int:
    """One operation for Python: the tnum goes to two words at `result`. A shift's amount is in `bv`."""
    v, m = av, am
    if op == TNUM_ADD:
        v, m = tnum_add(av, am, bv, bm)
    elif op == TNUM_SUB:
        v, m = tnum_sub(av, am, bv, bm)
    elif op == TNUM_AND:
        v, m = tnum_and(av, am, bv, bm)
    elif op == TNUM_OR:
        v, m = tnum_or(av, am, bv, bm)
    elif op == TNUM_XOR:
        v, m = tnum_xor(av, am, bv, bm)
    elif op == TNUM_MUL:
        v, m = tnum_mul(av, am, bv, bm)
    elif op == TNUM_INTERSECT:
        v, m = tnum_intersect(av, am, bv, bm)
    elif op == TNUM_LSHIFT:
        v, m = av << bv, am << bv
    elif op == TNUM_RSHIFT:
        v, m = lshr(av, bv), lshr(am, bv)
    elif op == TNUM_ARSHIFT64:
        v, m = tnum_arshift(av, am, bv, 64)
    elif op == TNUM_ARSHIFT32:
        v, m = tnum_arshift(av, am, bv, 32)
    elif op == TNUM_RANGE:
        v, m = tnum_range(av, bv)
    store64(result, v)
    store64(result + 8, m)
    return 0
