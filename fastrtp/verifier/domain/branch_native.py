"""Conditional jumps on scalars: whether one is decided, and what each way says about the operands.

Functions on VReg records. `op` is the BPF_OP bits of the jump. Kernel: kernel/bpf/verifier.c:is_scalar_branch_taken,
regs_refine_cond_op, reg_set_min_max.
"""

from __future__ import annotations

from fastrtp.isa import BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JLE, BPF_JLT, BPF_JNE, BPF_JSET, BPF_JSGE, BPF_JSGT, BPF_JSLE, BPF_JSLT
from fastrtp.native.intrinsics import device, ult
from fastrtp.verifier.domain.bounds_native import (
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
from fastrtp.verifier.domain.records import VReg
from fastrtp.verifier.domain.tnum_native import S64_MIN, U32, sx32


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
def _disjoint32(a: VReg, b: VReg) -> int:
    """Whether no value of the low half of one is a value of the other's."""
    return (
        1
        if a.u32_min > b.u32_max or a.u32_max < b.u32_min or s32_min_of(a) > s32_max_of(b) or s32_max_of(a) < s32_min_of(b)
        else 0
    )


@device
def _disjoint64(a: VReg, b: VReg) -> int:
    """The same for all 64 bits."""
    return 1 if ult(b.umax, a.umin) or ult(a.umax, b.umin) or a.smin > b.smax or a.smax < b.smin or _disjoint32(a, b) != 0 else 0


@device
def is_branch_taken(a: VReg, b: VReg, op: int, is_jmp32: int) -> int:
    """1: always taken, 0: never, -1: not known. Kernel: is_scalar_branch_taken."""
    half = U32 if is_jmp32 else -1
    av = a.value & half
    am = a.mask & half
    bv = b.value & half
    bm = b.mask & half
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
            min1, max1, min2, max2 = a.u32_min, a.u32_max, b.u32_min, b.u32_max
        else:  # the top bit flipped, unsigned numbers compare as signed ones
            min1 = a.umin ^ S64_MIN
            max1 = a.umax ^ S64_MIN
            min2 = b.umin ^ S64_MIN
            max2 = b.umax ^ S64_MIN
    elif is_jmp32:
        min1, max1, min2, max2 = s32_min_of(a), s32_max_of(a), s32_min_of(b), s32_max_of(b)
    else:
        min1, max1, min2, max2 = a.smin, a.smax, b.smin, b.smax
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
def _intersect(a: VReg, b: VReg, half: int) -> None:
    """Of the known bits under `half`, both have what either has. Kernel: tnum_intersect."""
    av = a.value
    am = a.mask
    bv = b.value
    bm = b.mask
    mask = am & bm & half
    value = (av | bv) & half & ~mask
    set_tnum(a, (av & ~half) | value, (am & ~half) | mask)
    set_tnum(b, (bv & ~half) | value, (bm & ~half) | mask)


@device
def _refine_equal(a: VReg, b: VReg, is_jmp32: int) -> None:
    """Both operands have what the two have in common."""
    if is_jmp32:
        smin = max(s32_min_of(a), s32_min_of(b))
        smax = min(s32_max_of(a), s32_max_of(b))
        umin = max(a.u32_min, b.u32_min)
        umax = min(a.u32_max, b.u32_max)
        set_ranges32(a, smin, smax, umin, umax)
        set_ranges32(b, smin, smax, umin, umax)
        _intersect(a, b, U32)
        return
    smin = max(a.smin, b.smin)
    smax = min(a.smax, b.smax)
    umin = umax_of(a.umin, b.umin)
    umax = umin_of(a.umax, b.umax)
    set_ranges64(a, smin, smax, umin, umax)
    set_ranges64(b, smin, smax, umin, umax)
    _intersect(a, b, -1)


@device
def _is_const(r: VReg, is_jmp32: int) -> int:
    """Whether the compared half is known. Kernel: is_reg_const."""
    return 1 if (r.mask & (U32 if is_jmp32 else -1)) == 0 else 0


@device
def _refine_not_equal(a: VReg, b: VReg, is_jmp32: int) -> None:
    """An end of one operand's range that equals the other, a constant, goes away."""
    if not _is_const(b, is_jmp32):
        a, b = b, a
    if not _is_const(b, is_jmp32):
        return
    v = b.value
    if is_jmp32:
        low = v & U32
        signed = sx32(v)
        if a.u32_min == low:
            a.u32_min = low + 1
        if a.u32_max == low:
            a.u32_max = low - 1
        if s32_min_of(a) == signed:
            a.s32_min = signed + 1
        if s32_max_of(a) == signed:
            a.s32_max = signed - 1
        return
    if a.umin == v:
        a.umin = v + 1
    if a.umax == v:
        a.umax = v - 1
    if a.smin == v:
        a.smin = v + 1
    if a.smax == v:
        a.smax = v - 1


@device
def _refine_jset(a: VReg, b: VReg, taken: int, is_jmp32: int) -> None:
    """A single tested bit is known afterwards; a test that failed clears every tested bit, and the ranges are forgotten."""
    if not _is_const(b, is_jmp32):
        a, b = b, a
    if not _is_const(b, is_jmp32):
        return
    bits = b.value & (U32 if is_jmp32 else -1)
    value = a.value
    mask = a.mask
    if not taken:
        ranges_unbounded(a)
        set_tnum(a, value & ~bits, mask & ~bits)
    elif bits != 0 and (bits & (bits - 1)) == 0:
        set_tnum(a, value | bits, mask & ~bits)


@device
def _refine_less(a: VReg, b: VReg, strict: int, signed: int, is_jmp32: int) -> None:
    """`a` is less than `b` (or equal, where not `strict`)."""
    if is_jmp32 and signed:
        a.s32_max = min(s32_max_of(a), sx32(s32_max_of(b) - strict))
        b.s32_min = max(sx32(s32_min_of(a) + strict), s32_min_of(b))
    elif is_jmp32:
        a.u32_max = min(a.u32_max, (b.u32_max - strict) & U32)
        b.u32_min = max((a.u32_min + strict) & U32, b.u32_min)
    elif signed:
        a.smax = min(a.smax, b.smax - strict)
        b.smin = max(a.smin + strict, b.smin)
    else:
        a.umax = umin_of(a.umax, b.umax - strict)
        b.umin = umax_of(a.umin + strict, b.umin)


@device
def regs_refine_cond(a: VReg, b: VReg, op: int, taken: int, is_jmp32: int) -> None:
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
