"""Conditional jumps on scalars: whether one is decided, and what each way says about the operands.

Pure functions on `Bounds`. `op` is the BPF_OP bits of the jump. Kernel: kernel/bpf/verifier.c:is_scalar_branch_taken,
regs_refine_cond_op, reg_set_min_max.
"""

from __future__ import annotations

from fastrtp.isa import BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JLE, BPF_JLT, BPF_JNE, BPF_JSET, BPF_JSGE, BPF_JSGT, BPF_JSLE, BPF_JSLT
from fastrtp.verifier.bounds import Bounds, reg_bounds_sync, s32, s64
from fastrtp.verifier.tnum import U32, U64, Tnum

REVERSED = {
    BPF_JEQ: BPF_JNE,
    BPF_JNE: BPF_JEQ,
    BPF_JGT: BPF_JLE,
    BPF_JLE: BPF_JGT,
    BPF_JGE: BPF_JLT,
    BPF_JLT: BPF_JGE,
    BPF_JSGT: BPF_JSLE,
    BPF_JSLE: BPF_JSGT,
    BPF_JSGE: BPF_JSLT,
    BPF_JSLT: BPF_JSGE,
}
"""The condition that holds where the jump falls through (rev_opcode)."""

FLIPPED = {
    BPF_JEQ: BPF_JEQ,
    BPF_JNE: BPF_JNE,
    BPF_JSET: BPF_JSET,
    BPF_JGT: BPF_JLT,
    BPF_JLT: BPF_JGT,
    BPF_JGE: BPF_JLE,
    BPF_JLE: BPF_JGE,
    BPF_JSGT: BPF_JSLT,
    BPF_JSLT: BPF_JSGT,
    BPF_JSGE: BPF_JSLE,
    BPF_JSLE: BPF_JSGE,
}
"""The same condition with its operands exchanged (flip_opcode)."""


def is_branch_taken(a: Bounds, b: Bounds, op: int, is_jmp32: bool) -> int:
    """1: always taken, 0: never, -1: not known. Kernel: is_scalar_branch_taken."""
    if is_jmp32:
        av, am = a.var_off.value & U32, a.var_off.mask & U32
        bv, bm = b.var_off.value & U32, b.var_off.mask & U32
        umin1, umax1, umin2, umax2 = a.u32_min_value, a.u32_max_value, b.u32_min_value, b.u32_max_value
        smin1, smax1, smin2, smax2 = a.s32_min_value, a.s32_max_value, b.s32_min_value, b.s32_max_value
    else:
        av, am = a.var_off
        bv, bm = b.var_off
        umin1, umax1, umin2, umax2 = a.umin_value, a.umax_value, b.umin_value, b.umax_value
        smin1, smax1, smin2, smax2 = a.smin_value, a.smax_value, b.smin_value, b.smax_value
    if op in (BPF_JEQ, BPF_JNE):
        if not am and not bm:
            equal = av == bv
        elif (av ^ bv) & ~(am | bm) or umin1 > umax2 or umax1 < umin2 or smin1 > smax2 or smax1 < smin2:
            equal = False
        else:
            if not is_jmp32:
                # the low halves alone can tell two values apart
                low = (
                    a.u32_min_value > b.u32_max_value
                    or a.u32_max_value < b.u32_min_value
                    or a.s32_min_value > b.s32_max_value
                    or a.s32_max_value < b.s32_min_value
                )
                if low:
                    return int(op == BPF_JNE)
            return -1
        return int(equal == (op == BPF_JEQ))
    if op == BPF_JSET:
        if bm:
            return -1
        if av & bv:
            return 1
        return 0 if not (av | am) & bv else -1
    if op == BPF_JGT:
        return 1 if umin1 > umax2 else 0 if umax1 <= umin2 else -1
    if op == BPF_JGE:
        return 1 if umin1 >= umax2 else 0 if umax1 < umin2 else -1
    if op == BPF_JLT:
        return 1 if umax1 < umin2 else 0 if umin1 >= umax2 else -1
    if op == BPF_JLE:
        return 1 if umax1 <= umin2 else 0 if umin1 > umax2 else -1
    if op == BPF_JSGT:
        return 1 if smin1 > smax2 else 0 if smax1 <= smin2 else -1
    if op == BPF_JSGE:
        return 1 if smin1 >= smax2 else 0 if smax1 < smin2 else -1
    if op == BPF_JSLT:
        return 1 if smax1 < smin2 else 0 if smin1 >= smax2 else -1
    if op == BPF_JSLE:
        return 1 if smax1 <= smin2 else 0 if smin1 > smax2 else -1
    return -1


def regs_refine_cond(a: Bounds, b: Bounds, op: int, taken: bool, is_jmp32: bool) -> tuple[Bounds, Bounds]:
    """Bounds of both operands on the way where `a op b` is `taken`. Kernel: reg_set_min_max, regs_refine_cond_op."""
    if op == BPF_JSET:
        return _refine_jset(a, b, taken, is_jmp32)
    if not taken:
        op = REVERSED[op]
    if op in (BPF_JLE, BPF_JLT, BPF_JSLE, BPF_JSLT):
        second, first = regs_refine_cond(b, a, FLIPPED[op], True, is_jmp32)
        return first, second
    if op == BPF_JEQ:
        return _refine_equal(a, b, is_jmp32)
    if op == BPF_JNE:
        return _refine_not_equal(a, b, is_jmp32), _refine_not_equal(b, a, is_jmp32)
    strict = 1 if op in (BPF_JGT, BPF_JSGT) else 0
    if op in (BPF_JGT, BPF_JGE):
        if is_jmp32:
            return (
                _sync(a, u32_min=max(a.u32_min_value, b.u32_min_value + strict)),
                _sync(b, u32_max=min(b.u32_max_value, a.u32_max_value - strict)),
            )
        return (_sync(a, umin=max(a.umin_value, b.umin_value + strict)), _sync(b, umax=min(b.umax_value, a.umax_value - strict)))
    if is_jmp32:
        return (
            _sync(a, s32_min=max(a.s32_min_value, b.s32_min_value + strict)),
            _sync(b, s32_max=min(b.s32_max_value, a.s32_max_value - strict)),
        )
    return (_sync(a, smin=max(a.smin_value, b.smin_value + strict)), _sync(b, smax=min(b.smax_value, a.smax_value - strict)))


def _sync(
    r: Bounds,
    var_off: Tnum | None = None,
    smin: int | None = None,
    smax: int | None = None,
    umin: int | None = None,
    umax: int | None = None,
    s32_min: int | None = None,
    s32_max: int | None = None,
    u32_min: int | None = None,
    u32_max: int | None = None,
) -> Bounds:
    """`r` with some members replaced, then synchronised."""
    return reg_bounds_sync(
        r.var_off if var_off is None else var_off,
        r.smin_value if smin is None else smin,
        r.smax_value if smax is None else smax,
        r.umin_value if umin is None else umin,
        r.umax_value if umax is None else umax,
        r.s32_min_value if s32_min is None else s32_min,
        r.s32_max_value if s32_max is None else s32_max,
        r.u32_min_value if u32_min is None else u32_min,
        r.u32_max_value if u32_max is None else u32_max,
    )


def _refine_equal(a: Bounds, b: Bounds, is_jmp32: bool) -> tuple[Bounds, Bounds]:
    """Both operands have what the two have in common."""
    u32_min, u32_max = max(a.u32_min_value, b.u32_min_value), min(a.u32_max_value, b.u32_max_value)
    s32_min, s32_max = max(a.s32_min_value, b.s32_min_value), min(a.s32_max_value, b.s32_max_value)
    if is_jmp32:
        mask = a.var_off.mask & b.var_off.mask & U32
        value = (a.var_off.value | b.var_off.value) & U32 & ~mask
        high = U64 ^ U32
        first, second = (
            _sync(
                r,
                Tnum(r.var_off.value & high | value, r.var_off.mask & high | mask),
                s32_min=s32_min,
                s32_max=s32_max,
                u32_min=u32_min,
                u32_max=u32_max,
            )
            for r in (a, b)
        )
        return first, second
    mask = a.var_off.mask & b.var_off.mask
    both = reg_bounds_sync(
        Tnum((a.var_off.value | b.var_off.value) & ~mask, mask),
        max(a.smin_value, b.smin_value),
        min(a.smax_value, b.smax_value),
        max(a.umin_value, b.umin_value),
        min(a.umax_value, b.umax_value),
        s32_min,
        s32_max,
        u32_min,
        u32_max,
    )
    return both, both


def _refine_not_equal(a: Bounds, b: Bounds, is_jmp32: bool) -> Bounds:
    """An end of the range that equals a constant goes away."""
    if is_jmp32:
        if b.var_off.mask & U32:
            return a
        low = b.var_off.value & U32
        signed = s32(low)
        u32_min, u32_max = a.u32_min_value + (a.u32_min_value == low), a.u32_max_value - (a.u32_max_value == low)
        s32_min, s32_max = a.s32_min_value + (a.s32_min_value == signed), a.s32_max_value - (a.s32_max_value == signed)
        return _sync(a, u32_min=u32_min, u32_max=u32_max, s32_min=s32_min, s32_max=s32_max)
    if b.var_off.mask:
        return a
    value = b.var_off.value
    signed = s64(value)
    umin, umax = a.umin_value + (a.umin_value == value), a.umax_value - (a.umax_value == value)
    smin, smax = a.smin_value + (a.smin_value == signed), a.smax_value - (a.smax_value == signed)
    if umin == a.umin_value and umax == a.umax_value and smin == a.smin_value and smax == a.smax_value:
        return a
    return _sync(a, umin=umin, umax=umax, smin=smin, smax=smax)


def _refine_jset(a: Bounds, b: Bounds, taken: bool, is_jmp32: bool) -> tuple[Bounds, Bounds]:
    """A single tested bit is known afterwards; a test that failed clears every tested bit."""
    if b.var_off.mask & (U32 if is_jmp32 else U64):
        if a.var_off.mask & (U32 if is_jmp32 else U64):
            return a, b
        second, first = _refine_jset(b, a, taken, is_jmp32)
        return first, second
    bits = b.var_off.value & (U32 if is_jmp32 else U64)
    value, mask = a.var_off
    if taken:
        if not bits or bits & (bits - 1) or not mask & bits:
            return a, b
        return _sync(a, Tnum(value | bits, mask & ~bits)), b
    return _sync(a, Tnum(value & ~bits, mask & ~bits)), b
