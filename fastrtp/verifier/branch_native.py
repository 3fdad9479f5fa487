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
    S32_MAX,
    S32_MIN,
    S64_MAX,
    bounds_copy,
    bounds_unknown,
    reg_bounds_sync,
    s32_max_of,
    s32_min_of,
    set_tnum,
    umax_of,
    umin_of,
)
from fastrtp.verifier.tnum_native import S64_MIN, U32, sx32

CHANGED_A, CHANGED_B = 1, 2


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
def _common(a: int, b: int, only32: int) -> None:
    """`a` keeps what it has in common with `b`."""
    store32(a + R_S32_MIN, max(s32_min_of(a), s32_min_of(b)))
    store32(a + R_S32_MAX, min(s32_max_of(a), s32_max_of(b)))
    store32(a + R_U32_MIN, max(load32(a + R_U32_MIN), load32(b + R_U32_MIN)))
    store32(a + R_U32_MAX, min(load32(a + R_U32_MAX), load32(b + R_U32_MAX)))
    half = U32 if only32 else -1
    v = load64(a + R_VALUE)
    m = load64(a + R_MASK)
    mask = m & load64(b + R_MASK) & half
    value = (v | load64(b + R_VALUE)) & half & ~mask
    set_tnum(a, (v & ~half) | value, (m & ~half) | mask)
    if not only32:
        store64(a + R_SMIN, max(load64(a + R_SMIN), load64(b + R_SMIN)))
        store64(a + R_SMAX, min(load64(a + R_SMAX), load64(b + R_SMAX)))
        store64(a + R_UMIN, umax_of(load64(a + R_UMIN), load64(b + R_UMIN)))
        store64(a + R_UMAX, umin_of(load64(a + R_UMAX), load64(b + R_UMAX)))


@device
def _refine_equal(a: int, b: int, is_jmp32: int, scratch: int) -> int:
    """Both operands have what the two have in common."""
    bounds_copy(scratch, a)
    _common(a, b, is_jmp32)
    reg_bounds_sync(a)
    if is_jmp32:
        _common(b, scratch, 1)
        reg_bounds_sync(b)
    else:
        bounds_copy(b, a)
    return CHANGED_A | CHANGED_B


@device
def _refine_not_equal(a: int, v: int, m: int, is_jmp32: int) -> int:
    """An end of `a`'s range that equals the constant (v, m == 0) goes away. Whether `a` changed."""
    if is_jmp32:
        if (m & U32) != 0:
            return 0
        low = v & U32
        signed = sx32(v)
        if s32_min_of(a) == signed and s32_max_of(a) == signed:
            bounds_unknown(a)  # no value is left: this way is never taken
            return 1
        if s32_min_of(a) == signed:
            store32(a + R_S32_MIN, signed + 1)
        if s32_max_of(a) == signed:
            store32(a + R_S32_MAX, signed - 1)
        if load32(a + R_U32_MIN) == low:
            store32(a + R_U32_MIN, low + 1)
        if load32(a + R_U32_MAX) == low:
            store32(a + R_U32_MAX, low - 1)
        reg_bounds_sync(a)
        return 1
    if m != 0:
        return 0
    umin = load64(a + R_UMIN)
    umax = load64(a + R_UMAX)
    smin = load64(a + R_SMIN)
    smax = load64(a + R_SMAX)
    if umin != v and umax != v and smin != v and smax != v:
        return 0
    if (umin == v and umax == v) or (smin == v and smax == v):
        bounds_unknown(a)
        return 1
    if umin == v:
        store64(a + R_UMIN, v + 1)
    if umax == v:
        store64(a + R_UMAX, v - 1)
    if smin == v:
        store64(a + R_SMIN, v + 1)
    if smax == v:
        store64(a + R_SMAX, v - 1)
    reg_bounds_sync(a)
    return 1


@device
def _refine_jset(a: int, b: int, taken: int, is_jmp32: int) -> int:
    """A single tested bit is known afterwards; a test that failed clears every tested bit. 1: `a` changed, 2: `b`."""
    half = U32 if is_jmp32 else -1
    known = CHANGED_A
    if (load64(b + R_MASK) & half) != 0:
        if (load64(a + R_MASK) & half) != 0:
            return 0
        a, b = b, a
        known = CHANGED_B
    bits = load64(b + R_VALUE) & half
    value = load64(a + R_VALUE)
    mask = load64(a + R_MASK)
    if taken:
        if bits == 0 or (bits & (bits - 1)) != 0 or (mask & bits) == 0:
            return 0
        set_tnum(a, value | bits, mask & ~bits)
    else:
        set_tnum(a, value & ~bits, mask & ~bits)
    reg_bounds_sync(a)
    return known


@device
def _refine_greater(a: int, b: int, strict: int, signed: int, is_jmp32: int) -> None:
    """`a` is greater than `b` (or equal, where not `strict`). An end that would leave the width: no value is left."""
    if is_jmp32:
        if signed:
            low, high = s32_min_of(b) + strict, s32_max_of(a) - strict
            a_low, b_high = max(s32_min_of(a), low), min(s32_max_of(b), high)
            if low > S32_MAX or high < S32_MIN:
                bounds_unknown(a)
                bounds_unknown(b)
                return
            store32(a + R_S32_MIN, a_low)
            store32(b + R_S32_MAX, b_high)
        else:
            low, high = load32(b + R_U32_MIN) + strict, load32(a + R_U32_MAX) - strict
            a_low, b_high = max(load32(a + R_U32_MIN), low), min(load32(b + R_U32_MAX), high)
            if low > U32 or high < 0:
                bounds_unknown(a)
                bounds_unknown(b)
                return
            store32(a + R_U32_MIN, a_low)
            store32(b + R_U32_MAX, b_high)
    elif signed:
        low, high = load64(b + R_SMIN), load64(a + R_SMAX)
        if strict and (low == S64_MAX or high == S64_MIN):
            bounds_unknown(a)
            bounds_unknown(b)
            return
        store64(a + R_SMIN, max(load64(a + R_SMIN), low + strict))
        store64(b + R_SMAX, min(load64(b + R_SMAX), high - strict))
    else:
        low, high = load64(b + R_UMIN), load64(a + R_UMAX)
        if strict and (low == -1 or high == 0):
            bounds_unknown(a)
            bounds_unknown(b)
            return
        store64(a + R_UMIN, umax_of(load64(a + R_UMIN), low + strict))
        store64(b + R_UMAX, umin_of(load64(b + R_UMAX), high - strict))
    reg_bounds_sync(a)
    reg_bounds_sync(b)


@device
def regs_refine_cond(a: int, b: int, op: int, taken: int, is_jmp32: int, scratch: int) -> int:
    """Refine both operands for the way where `a op b` is `taken`; which changed (CHANGED_A, CHANGED_B).

    `scratch`: a VREG. Kernel: reg_set_min_max, regs_refine_cond_op.
    """
    if op == BPF_JSET:
        return _refine_jset(a, b, taken, is_jmp32)
    if not taken:
        op = reversed_op(op)
    if op == BPF_JEQ:
        return _refine_equal(a, b, is_jmp32, scratch)
    if op == BPF_JNE:
        av = load64(a + R_VALUE)
        am = load64(a + R_MASK)
        changed = CHANGED_A if _refine_not_equal(a, load64(b + R_VALUE), load64(b + R_MASK), is_jmp32) else 0
        return changed | (CHANGED_B if _refine_not_equal(b, av, am, is_jmp32) else 0)
    strict = 1 if op == BPF_JGT or op == BPF_JSGT or op == BPF_JLT or op == BPF_JSLT else 0
    signed = 1 if op == BPF_JSGT or op == BPF_JSGE or op == BPF_JSLT or op == BPF_JSLE else 0
    if op == BPF_JLE or op == BPF_JLT or op == BPF_JSLE or op == BPF_JSLT:
        a, b = b, a
    _refine_greater(a, b, strict, signed, is_jmp32)
    return CHANGED_A | CHANGED_B
