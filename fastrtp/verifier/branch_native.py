"""Conditional jumps on scalars: whether one is decided, and what each way says about the operands.

Functions on VREG records. `op` is the BPF_OP bits of the jump. Kernel: kernel/bpf/verifier.c:is_scalar_branch_taken,
regs_refine_cond_op, reg_set_min_max.
"""

from __future__ import annotations

from fastrtp.isa import BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JLE, BPF_JLT, BPF_JNE, BPF_JSET, BPF_JSGE, BPF_JSGT, BPF_JSLE, BPF_JSLT
from fastrtp.native.intrinsics import device, load32, load64, store32, store64, ult
from fastrtp.verifier.bounds_native import (
    R_MASK,
    R_S32_MAX,
    R_S32_MIN,
    R_SMAX,
    R_SMIN,
    R_U32_MAX,
    R_U32_MIN,
    R_UMAX,
    R_UMIN,
    R_VALUE,
    ranges_unbounded,
    reg_bounds_sanity_check,
    reg_bounds_sync,
    s32_max_of,
    s32_min_of,
    set_ranges32,
    set_ranges64,
    set_tnum,
    umax_of,
    umin_of,
)
from fastrtp.verifier.tnum_native import S64_MIN, U32, sx32


@device
def reversed_op(op: int) -> int:
    """The condition that holds where the jump falls through. Kernel: rev_opcode."""
    if op == BPF_JEQ:
        return BPF_JNE
    if op == BPF_JNE:
        return BPF_JEQ
    if op == BPF_JGT:
        return BPF_JLE
    if op == BPF_JLE:
        return BPF_JGT
    if op == BPF_JGE:
        return BPF_JLT
    if op == BPF_JLT:
        return BPF_JGE
    if op == BPF_JSGT:
        return BPF_JSLE
    if op == BPF_JSLE:
        return BPF_JSGT
    if op == BPF_JSGE:
        return BPF_JSLT
    return BPF_JSGE


@device
def _disjoint32(a: int, b: int) -> int:
    """Whether no value of the low half of one is a value of the other's."""
    return (
        1
        if load32(a + R_U32_MIN) > load32(b + R_U32_MAX)
        or load32(a + R_U32_MAX) < load32(b + R_U32_MIN)
        or s32_min_of(a) > s32_max_of(b)
        or s32_max_of(a) < s32_min_of(b)
        else 0
    )


@device
def _disjoint64(a: int, b: int) -> int:
    """The same for all 64 bits."""
    return (
        1
        if ult(load64(b + R_UMAX), load64(a + R_UMIN))
        or ult(load64(a + R_UMAX), load64(b + R_UMIN))
        or load64(a + R_SMIN) > load64(b + R_SMAX)
        or load64(a + R_SMAX) < load64(b + R_SMIN)
        or _disjoint32(a, b) != 0
        else 0
    )


@device
def is_branch_taken(a: int, b: int, op: int, is_jmp32: int) -> int:
    """1: always taken, 0: never, -1: not known. Kernel: is_scalar_branch_taken."""
    half = U32 if is_jmp32 else -1
    av = load64(a + R_VALUE) & half
    am = load64(a + R_MASK) & half
    bv = load64(b + R_VALUE) & half
    bm = load64(b + R_MASK) & half
    if op == BPF_JEQ or op == BPF_JNE:
        if am == 0 and bm == 0:
            equal = 1 if av == bv else 0
        elif ((av ^ bv) & ~(am | bm)) != 0 or (_disjoint32(a, b) if is_jmp32 else _disjoint64(a, b)) != 0:
            equal = 0
        else:
            return -1
        return equal if op == BPF_JEQ else 1 - equal
    if op == BPF_JSET:
        if am != 0 and bm != 0:
            return -1
        if (av & bv) != 0:
            return 1
        return 0 if ((av | am) & (bv | bm)) == 0 else -1
    if op == BPF_JGT or op == BPF_JGE or op == BPF_JLT or op == BPF_JLE:
        if is_jmp32:
            min1, max1, min2, max2 = load32(a + R_U32_MIN), load32(a + R_U32_MAX), load32(b + R_U32_MIN), load32(b + R_U32_MAX)
        else:  # the top bit flipped, unsigned numbers compare as signed ones
            min1 = load64(a + R_UMIN) ^ S64_MIN
            max1 = load64(a + R_UMAX) ^ S64_MIN
            min2 = load64(b + R_UMIN) ^ S64_MIN
            max2 = load64(b + R_UMAX) ^ S64_MIN
    elif is_jmp32:
        min1, max1, min2, max2 = s32_min_of(a), s32_max_of(a), s32_min_of(b), s32_max_of(b)
    else:
        min1, max1, min2, max2 = load64(a + R_SMIN), load64(a + R_SMAX), load64(b + R_SMIN), load64(b + R_SMAX)
    if op == BPF_JGT or op == BPF_JSGT:
        return 1 if min1 > max2 else 0 if max1 <= min2 else -1
    if op == BPF_JGE or op == BPF_JSGE:
        return 1 if min1 >= max2 else 0 if max1 < min2 else -1
    if op == BPF_JLT or op == BPF_JSLT:
        return 1 if max1 < min2 else 0 if min1 >= max2 else -1
    if op == BPF_JLE or op == BPF_JSLE:
        return 1 if max1 <= min2 else 0 if min1 > max2 else -1
    return -1


@device
def _intersect(a: int, b: int, half: int) -> None:
    """Of the known bits under `half`, both have what either has. Kernel: tnum_intersect."""
    av = load64(a + R_VALUE)
    am = load64(a + R_MASK)
    bv = load64(b + R_VALUE)
    bm = load64(b + R_MASK)
    mask = am & bm & half
    value = (av | bv) & half & ~mask
    set_tnum(a, (av & ~half) | value, (am & ~half) | mask)
    set_tnum(b, (bv & ~half) | value, (bm & ~half) | mask)


@device
def _refine_equal(a: int, b: int, is_jmp32: int) -> None:
    """Both operands have what the two have in common."""
    if is_jmp32:
        smin = max(s32_min_of(a), s32_min_of(b))
        smax = min(s32_max_of(a), s32_max_of(b))
        umin = max(load32(a + R_U32_MIN), load32(b + R_U32_MIN))
        umax = min(load32(a + R_U32_MAX), load32(b + R_U32_MAX))
        set_ranges32(a, smin, smax, umin, umax)
        set_ranges32(b, smin, smax, umin, umax)
        _intersect(a, b, U32)
        return
    smin = max(load64(a + R_SMIN), load64(b + R_SMIN))
    smax = min(load64(a + R_SMAX), load64(b + R_SMAX))
    umin = umax_of(load64(a + R_UMIN), load64(b + R_UMIN))
    umax = umin_of(load64(a + R_UMAX), load64(b + R_UMAX))
    set_ranges64(a, smin, smax, umin, umax)
    set_ranges64(b, smin, smax, umin, umax)
    _intersect(a, b, -1)


@device
def _is_const(r: int, is_jmp32: int) -> int:
    """Whether the compared half is known. Kernel: is_reg_const."""
    return 1 if (load64(r + R_MASK) & (U32 if is_jmp32 else -1)) == 0 else 0


@device
def _refine_not_equal(a: int, b: int, is_jmp32: int) -> None:
    """An end of one operand's range that equals the other, a constant, goes away."""
    if not _is_const(b, is_jmp32):
        a, b = b, a
    if not _is_const(b, is_jmp32):
        return
    v = load64(b + R_VALUE)
    if is_jmp32:
        low = v & U32
        signed = sx32(v)
        if load32(a + R_U32_MIN) == low:
            store32(a + R_U32_MIN, low + 1)
        if load32(a + R_U32_MAX) == low:
            store32(a + R_U32_MAX, low - 1)
        if s32_min_of(a) == signed:
            store32(a + R_S32_MIN, signed + 1)
        if s32_max_of(a) == signed:
            store32(a + R_S32_MAX, signed - 1)
        return
    if load64(a + R_UMIN) == v:
        store64(a + R_UMIN, v + 1)
    if load64(a + R_UMAX) == v:
        store64(a + R_UMAX, v - 1)
    if load64(a + R_SMIN) == v:
        store64(a + R_SMIN, v + 1)
    if load64(a + R_SMAX) == v:
        store64(a + R_SMAX, v - 1)


@device
def _refine_jset(a: int, b: int, taken: int, is_jmp32: int) -> None:
    """A single tested bit is known afterwards; a test that failed clears every tested bit, and the ranges are forgotten."""
    if not _is_const(b, is_jmp32):
        a, b = b, a
    if not _is_const(b, is_jmp32):
        return
    bits = load64(b + R_VALUE) & (U32 if is_jmp32 else -1)
    value = load64(a + R_VALUE)
    mask = load64(a + R_MASK)
    if not taken:
        ranges_unbounded(a)
        set_tnum(a, value & ~bits, mask & ~bits)
    elif bits != 0 and (bits & (bits - 1)) == 0:
        set_tnum(a, value | bits, mask & ~bits)


@device
def _refine_less(a: int, b: int, strict: int, signed: int, is_jmp32: int) -> None:
    """`a` is less than `b` (or equal, where not `strict`)."""
    if is_jmp32 and signed:
        store32(a + R_S32_MAX, min(s32_max_of(a), sx32(s32_max_of(b) - strict)))
        store32(b + R_S32_MIN, max(sx32(s32_min_of(a) + strict), s32_min_of(b)))
    elif is_jmp32:
        store32(a + R_U32_MAX, min(load32(a + R_U32_MAX), (load32(b + R_U32_MAX) - strict) & U32))
        store32(b + R_U32_MIN, max((load32(a + R_U32_MIN) + strict) & U32, load32(b + R_U32_MIN)))
    elif signed:
        store64(a + R_SMAX, min(load64(a + R_SMAX), load64(b + R_SMAX) - strict))
        store64(b + R_SMIN, max(load64(a + R_SMIN) + strict, load64(b + R_SMIN)))
    else:
        store64(a + R_UMAX, umin_of(load64(a + R_UMAX), load64(b + R_UMAX) - strict))
        store64(b + R_UMIN, umax_of(load64(a + R_UMIN) + strict, load64(b + R_UMIN)))


@device
def regs_refine_cond(a: int, b: int, op: int, taken: int, is_jmp32: int) -> None:
    """Refine both operands for the way where `a op b` is `taken`. Kernel: reg_set_min_max, regs_refine_cond_op."""
    if not taken and op != BPF_JSET:
        op = reversed_op(op)
    if op == BPF_JSET:
        _refine_jset(a, b, taken, is_jmp32)
    elif op == BPF_JEQ:
        _refine_equal(a, b, is_jmp32)
    elif op == BPF_JNE:
        _refine_not_equal(a, b, is_jmp32)
    else:
        strict = 1 if op == BPF_JGT or op == BPF_JSGT or op == BPF_JLT or op == BPF_JSLT else 0
        signed = 1 if op == BPF_JSGT or op == BPF_JSGE or op == BPF_JSLT or op == BPF_JSLE else 0
        if op == BPF_JLE or op == BPF_JLT or op == BPF_JSLE or op == BPF_JSLT:
            _refine_less(a, b, strict, signed, is_jmp32)
        else:
            _refine_less(b, a, strict, signed, is_jmp32)
    reg_bounds_sync(a)
    reg_bounds_sync(b)
    reg_bounds_sanity_check(a)
    reg_bounds_sanity_check(b)
