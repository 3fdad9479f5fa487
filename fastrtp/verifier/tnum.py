"""Tracked numbers: which bits of a 64-bit value are known, and what they are.

`Tnum(value, mask)`: a bit set in `mask` is unknown; a bit clear in `mask` has the value it has in `value`.
`value & mask == 0` always. The empty set cannot be expressed. Everything is an unsigned 64-bit Python int.
Kernel: kernel/bpf/tnum.c, include/linux/tnum.h.
"""

from __future__ import annotations

from typing import NamedTuple

U64 = (1 << 64) - 1
U32 = (1 << 32) - 1


class Tnum(NamedTuple):
    """Known bits (`value`) and unknown bits (`mask`) of a u64."""

    value: int
    mask: int


TNUM_UNKNOWN = Tnum(0, U64)


def tnum_const(value: int) -> Tnum:
    """The one value `value` (taken modulo 2**64)."""
    return Tnum(value & U64, 0)


def tnum_range(low: int, high: int) -> Tnum:
    """The tightest tnum that contains every value of `low..high` (unsigned)."""
    chi = low ^ high
    bits = chi.bit_length()
    if bits > 63:
        return TNUM_UNKNOWN
    delta = (1 << bits) - 1
    return Tnum(low & ~delta, delta)


def tnum_is_const(a: Tnum) -> bool:
    """Whether every bit is known."""
    return not a.mask


def tnum_lshift(a: Tnum, shift: int) -> Tnum:
    """Shifted left by a known amount."""
    return Tnum((a.value << shift) & U64, (a.mask << shift) & U64)


def tnum_rshift(a: Tnum, shift: int) -> Tnum:
    """Shifted right, zeros from above."""
    return Tnum(a.value >> shift, a.mask >> shift)


def tnum_arshift(a: Tnum, min_shift: int, insn_bitness: int) -> Tnum:
    """Arithmetic shift right of the low `insn_bitness` bits: value and mask both drag their top bit along."""
    limit = (1 << insn_bitness) - 1
    sign = 1 << (insn_bitness - 1)

    def shifted(x: int) -> int:
        x &= limit
        return ((x - (limit + 1) if x & sign else x) >> min_shift) & limit

    return Tnum(shifted(a.value), shifted(a.mask))


def tnum_add(a: Tnum, b: Tnum) -> Tnum:
    """Sum modulo 2**64: a bit is unknown where an operand bit or a carry into it is."""
    sm = a.mask + b.mask
    sv = a.value + b.value
    mu = (sm + sv ^ sv | a.mask | b.mask) & U64
    return Tnum(sv & ~mu & U64, mu)


def tnum_sub(a: Tnum, b: Tnum) -> Tnum:
    """Difference modulo 2**64."""
    dv = (a.value - b.value) & U64
    mu = (((dv + a.mask) ^ (dv - b.mask)) | a.mask | b.mask) & U64
    return Tnum(dv & ~mu, mu)


def tnum_neg(a: Tnum) -> Tnum:
    """Two's complement negation."""
    return tnum_sub(Tnum(0, 0), a)


def tnum_and(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise and."""
    alpha = a.value | a.mask
    beta = b.value | b.mask
    v = a.value & b.value
    return Tnum(v, alpha & beta & ~v)


def tnum_or(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise or."""
    v = a.value | b.value
    return Tnum(v, (a.mask | b.mask) & ~v)


def tnum_xor(a: Tnum, b: Tnum) -> Tnum:
    """Bitwise exclusive or."""
    v = a.value ^ b.value
    mu = a.mask | b.mask
    return Tnum(v & ~mu, mu)


def tnum_mul(a: Tnum, b: Tnum) -> Tnum:
    """Long multiplication: each unknown bit of `a` adds `b` with every bit of `b`'s possible ones unknown."""
    acc_v = (a.value * b.value) & U64
    acc_m = Tnum(0, 0)
    av, am, bv, bm = a.value, a.mask, b.value, b.mask
    while av or am:
        if av & 1:
            acc_m = tnum_add(acc_m, Tnum(0, bm))
        elif am & 1:
            acc_m = tnum_add(acc_m, Tnum(0, bv | bm))
        av >>= 1
        am >>= 1
        bv = (bv << 1) & U64
        bm = (bm << 1) & U64
    return tnum_add(Tnum(acc_v, 0), acc_m)


def tnum_intersect(a: Tnum, b: Tnum) -> Tnum:
    """Bits known in either; where both know a bit and differ, the result is arbitrary (there is no empty tnum)."""
    mu = a.mask & b.mask
    return Tnum((a.value | b.value) & ~mu, mu)


def tnum_cast(a: Tnum, size: int) -> Tnum:
    """Truncated to `size` bytes, zero-extended."""
    limit = (1 << size * 8) - 1
    return Tnum(a.value & limit, a.mask & limit)


def tnum_subreg(a: Tnum) -> Tnum:
    """The low 32 bits."""
    return Tnum(a.value & U32, a.mask & U32)


def tnum_clear_subreg(a: Tnum) -> Tnum:
    """The low 32 bits made zero."""
    return Tnum(a.value & ~U32, a.mask & ~U32)


def tnum_in(a: Tnum, b: Tnum) -> bool:
    """Whether every value of `b` is a value of `a`."""
    return not (b.mask & ~a.mask) and a.value == b.value & ~a.mask


def tnum_is_aligned(a: Tnum, size: int) -> bool:
    """Whether every value is a multiple of `size` (a power of two)."""
    return not ((a.value | a.mask) & (size - 1))


def tnum_strn(a: Tnum) -> str:
    """As the log prints it: one number when constant, else (value; mask)."""
    if not a.mask:
        return hex(a.value) if a.value else "0"
    return f"({hex(a.value) if a.value else '0x0'}; {hex(a.mask)})"
