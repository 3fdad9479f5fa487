"""Arithmetic on scalars: what an ALU operation does to the bounds of a register, in 64 and in 32 bits.

Sound: the result contains every value that the operation can give for operands within the arguments' bounds
(tests/test_verifier_bounds.py checks that by drawing operands).
Kernel: kernel/bpf/verifier.c:adjust_scalar_min_max_vals and scalar_min_max_*, scalar32_min_max_*.
"""

from __future__ import annotations

from fastrtp.isa import BPF_ADD, BPF_AND, BPF_ARSH, BPF_LSH, BPF_MUL, BPF_NEG, BPF_OR, BPF_RSH, BPF_SUB, BPF_XOR
from fastrtp.native.intrinsics import device, lshr, stack_bytes, udiv, ule, ult
from fastrtp.verifier.domain.bounds_native import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    bounds_const,
    bounds_copy,
    bounds_unknown,
    coerce_to_size,
    reg_bounds_sanity_check,
    reg_bounds_sync,
    s32_max_of,
    s32_min_of,
    set_ranges32,
    set_ranges64,
    set_tnum,
    umax_of,
    umin_of,
    zext_32_to_64,
)
from fastrtp.verifier.domain.records import VReg
from fastrtp.verifier.domain.tnum_native import (
    S64_MIN,
    U32,
    sx32,
    tnum_add,
    tnum_and,
    tnum_arshift,
    tnum_mul,
    tnum_or,
    tnum_sub,
    tnum_xor,
)


@device
def _const_op(op: int, x: int, y: int, bits: int) -> tuple[int, int]:
    """(whether it is computed, the result) of two constants."""
    if op == BPF_ADD:
        return 1, x + y
    if op == BPF_SUB:
        return 1, x - y
    if op == BPF_MUL:
        return 1, x * y
    if op == BPF_AND:
        return 1, x & y
    if op == BPF_OR:
        return 1, x | y
    if op == BPF_XOR:
        return 1, x ^ y
    if op == BPF_NEG:
        return 1, -x
    if not ult(y, bits):
        return 0, 0
    if op == BPF_LSH:
        return 1, x << y
    if op == BPF_RSH:
        return 1, lshr(x, y)
    if op == BPF_ARSH:
        return 1, (x if bits == 64 else sx32(x)) >> y
    return 0, 0


@device
def _smul_overflows(x: int, y: int) -> int:
    """Whether a signed product leaves 64 bits."""
    if x >= S32_MIN and x <= S32_MAX and y >= S32_MIN and y <= S32_MAX:
        return 0
    a = -x if x < 0 else x
    b = -y if y < 0 else y
    if b != 0 and ult(udiv(-1, b), a):
        return 1
    return 1 if ult(S64_MIN if (x < 0) != (y < 0) else S64_MAX, a * b) else 0


@device
def _tnum_op(op: int, av: int, am: int, bv: int, bm: int) -> tuple[int, int]:
    """Known bits of an operation whose low bits depend on low bits only."""
    if op == BPF_ADD:
        return tnum_add(av, am, bv, bm)
    if op == BPF_SUB:
        return tnum_sub(av, am, bv, bm)
    if op == BPF_MUL:
        return tnum_mul(av, am, bv, bm)
    if op == BPF_AND:
        return tnum_and(av, am, bv, bm)
    if op == BPF_OR:
        return tnum_or(av, am, bv, bm)
    return tnum_xor(av, am, bv, bm)


@device
def _has_tnum(op: int) -> int:
    """Operations of `_tnum_op`."""
    return 1 if op == BPF_ADD or op == BPF_SUB or op == BPF_MUL or op == BPF_AND or op == BPF_OR or op == BPF_XOR else 0


@device
def _limit32(low: int, high: int) -> int:
    """Whether exact unsigned results stay one piece in 32 bits: both ends wrapped by the same multiple."""
    return 1 if (low >> 32) == (high >> 32) else 0


@device
def _ranges32(r: VReg, op: int, dst: VReg, src: VReg, v: int, m: int) -> None:
    """The 32-bit ranges of `dst op src`, whose low half has the known bits (v, m), into `r`."""
    a0 = s32_min_of(dst)
    a1 = s32_max_of(dst)
    a2 = dst.u32_min
    a3 = dst.u32_max
    b0 = s32_min_of(src)
    b1 = s32_max_of(src)
    b2 = src.u32_min
    b3 = src.u32_max
    if op == BPF_ADD or op == BPF_SUB or op == BPF_MUL:
        if op == BPF_ADD:
            smin, smax, umin, umax = a0 + b0, a1 + b1, a2 + b2, a3 + b3
        elif op == BPF_SUB:
            smin, smax, umin, umax = a0 - b1, a1 - b0, a2 - b3, a3 - b2
        else:
            smin = min(min(a0 * b0, a0 * b1), min(a1 * b0, a1 * b1))
            smax = max(max(a0 * b0, a0 * b1), max(a1 * b0, a1 * b1))
            umin, umax = a2 * b2, a3 * b3
            if not ule(umax, U32):
                umin, umax = 0, U32
        if smin < S32_MIN or smax > S32_MAX:
            smin, smax = S32_MIN, S32_MAX
        if _limit32(umin, umax):
            umin &= U32
            umax &= U32
        else:
            umin, umax = 0, U32
        set_ranges32(r, smin, smax, umin, umax)
        return
    if op == BPF_AND:
        umin, umax = v, min(a3, b3)
    elif op == BPF_OR:
        umin, umax = max(a2, b2), v | m
    else:
        umin, umax = v, v | m
    if umax <= S32_MAX:
        set_ranges32(r, umin, umax, umin, umax)
    else:
        set_ranges32(r, S32_MIN, S32_MAX, umin, umax)


@device
def _ranges64(r: VReg, op: int, dst: VReg, src: VReg, v: int, m: int) -> None:
    """The 64-bit ranges of `dst op src`, which has the known bits (v, m), into `r`."""
    a0 = dst.smin
    a1 = dst.smax
    a2 = dst.umin
    a3 = dst.umax
    b0 = src.smin
    b1 = src.smax
    b2 = src.umin
    b3 = src.umax
    if op == BPF_ADD:
        smin, smax, umin, umax = a0 + b0, a1 + b1, a2 + b2, a3 + b3
        if ((a0 ^ smin) & (b0 ^ smin)) < 0 or ((a1 ^ smax) & (b1 ^ smax)) < 0:
            smin, smax = S64_MIN, S64_MAX
        if ult(umin, a2) != ult(umax, a3):  # one end wrapped and the other did not
            umin, umax = 0, -1
    elif op == BPF_SUB:
        smin, smax, umin, umax = a0 - b1, a1 - b0, a2 - b3, a3 - b2
        if ((a0 ^ b1) & (a0 ^ smin)) < 0 or ((a1 ^ b0) & (a1 ^ smax)) < 0:
            smin, smax = S64_MIN, S64_MAX
        if ult(a2, b3) != ult(a3, b2):
            umin, umax = 0, -1
    elif op == BPF_MUL:
        if _smul_overflows(a0, b0) or _smul_overflows(a0, b1) or _smul_overflows(a1, b0) or _smul_overflows(a1, b1):
            smin, smax = S64_MIN, S64_MAX
        else:
            smin = min(min(a0 * b0, a0 * b1), min(a1 * b0, a1 * b1))
            smax = max(max(a0 * b0, a0 * b1), max(a1 * b0, a1 * b1))
        umin, umax = a2 * b2, a3 * b3
        if b3 != 0 and ult(udiv(-1, b3), a3):
            umin, umax = 0, -1
    else:
        if op == BPF_AND:
            umin, umax = v, umin_of(a3, b3)
        elif op == BPF_OR:
            umin, umax = umax_of(a2, b2), v | m
        else:
            umin, umax = v, v | m
        smin, smax = umin, umax
        if umax < 0:  # beyond S64_MAX
            smin, smax = S64_MIN, S64_MAX
    set_ranges64(r, smin, smax, umin, umax)


@device
def _lsh32(r: VReg, count: int) -> tuple[int, int]:
    """The unsigned 32-bit range of `r << count`. Kernel: __scalar32_min_max_lsh."""
    umax = r.u32_max
    if count > 31 or umax > (1 << (31 - count)):
        return 0, U32
    return r.u32_min << count, umax << count


@device
def adjust_scalar64(op: int, dst: VReg, src: VReg) -> None:
    """`dst op src` in 64 bits, into `dst`."""
    dv = dst.value
    dm = dst.mask
    sv = src.value
    sm = src.mask
    if dm == 0 and sm == 0:
        known, result = _const_op(op, dv, sv, 64)
        if known:
            bounds_const(dst, result)
        else:
            bounds_unknown(dst)
        return
    left = dst
    right = src
    if op == BPF_NEG:
        left = VReg(stack_bytes(96))
        bounds_const(left, 0)
        right = dst
        op = BPF_SUB
        sv, sm, dv, dm = dv, dm, 0, 0
    if _has_tnum(op):
        r = VReg(stack_bytes(96))
        v, m = _tnum_op(op, dv, dm, sv, sm)
        _ranges64(r, op, left, right, v, m)
        _ranges32(r, op, left, right, v & U32, m & U32)
        set_tnum(r, v, m)
        reg_bounds_sync(r)
        reg_bounds_sanity_check(r)
        bounds_copy(dst, r)
        return
    if sm != 0 or not ult(sv, 64):
        bounds_unknown(dst)
        return
    smin = dst.smin
    smax = dst.smax
    umin = dst.umin
    umax = dst.umax
    u32_min, u32_max = 0, U32
    if op == BPF_LSH:
        set_tnum(dst, dv << sv, dm << sv)
        # signed ranges last through `<< 32` alone, which compilers extend signs with
        smin, smax = S64_MIN, S64_MAX
        if sv == 32:
            smin, smax = s32_min_of(dst) << 32, s32_max_of(dst) << 32
        if ult(1 << (63 - sv), umax):
            umin, umax = 0, -1
        else:
            umin, umax = umin << sv, umax << sv
        u32_min, u32_max = _lsh32(dst, sv)
    elif op == BPF_RSH:
        set_tnum(dst, lshr(dv, sv), lshr(dm, sv))
        smin, smax, umin, umax = S64_MIN, S64_MAX, lshr(umin, sv), lshr(umax, sv)
    elif op == BPF_ARSH:
        v, m = tnum_arshift(dv, dm, sv, 64)
        set_tnum(dst, v, m)
        smin, smax, umin, umax = smin >> sv, smax >> sv, 0, -1
    else:
        bounds_unknown(dst)
        return
    set_ranges64(dst, smin, smax, umin, umax)
    set_ranges32(dst, S32_MIN, S32_MAX, u32_min, u32_max)
    reg_bounds_sync(dst)
    reg_bounds_sanity_check(dst)


@device
def adjust_scalar32(op: int, dst: VReg, src: VReg) -> None:
    """`(u32)dst op (u32)src`, zero-extended, into `dst`."""
    dv = dst.value & U32
    dm = dst.mask & U32
    sv = src.value & U32
    sm = src.mask & U32
    if dm == 0 and sm == 0:
        known, result = _const_op(op, dv, sv, 32)
        if known:
            bounds_const(dst, result & U32)
        else:
            bounds_unknown(dst)
        return
    left = dst
    right = src
    if op == BPF_NEG:
        left = VReg(stack_bytes(96))
        bounds_const(left, 0)
        right = dst
        op = BPF_SUB
        sv, sm, dv, dm = dv, dm, 0, 0
    if _has_tnum(op):
        v, m = _tnum_op(op, dv, dm, sv, sm)
        v &= U32
        m &= U32
        _ranges32(dst, op, left, right, v, m)
    else:
        if sm != 0 or sv > 31:
            bounds_unknown(dst)
            return
        smin = s32_min_of(dst)
        smax = s32_max_of(dst)
        umin = dst.u32_min
        umax = dst.u32_max
        if op == BPF_LSH:
            v, m = (dv << sv) & U32, (dm << sv) & U32
            umin, umax = _lsh32(dst, sv)
            smin, smax = S32_MIN, S32_MAX
        elif op == BPF_RSH:
            v, m = dv >> sv, dm >> sv
            smin, smax, umin, umax = S32_MIN, S32_MAX, umin >> sv, umax >> sv
        elif op == BPF_ARSH:
            v, m = tnum_arshift(dv, dm, sv, 32)
            smin, smax, umin, umax = smin >> sv, smax >> sv, 0, U32
        else:
            bounds_unknown(dst)
            return
        set_ranges32(dst, smin, smax, umin, umax)
    set_tnum(dst, v, m)
    zext_32_to_64(dst)
    reg_bounds_sanity_check(dst)


@device
def byte_order(r: VReg, size: int, swap: int) -> None:
    """The low `size` bytes, reversed where `swap`, zero-extended. Kernel: scalar_byte_swap."""
    if not swap:
        coerce_to_size(r, size)
        return
    value = r.value
    mask = r.mask
    v = 0
    m = 0
    for _ in range(size):
        v = (v << 8) | (value & 0xFF)
        m = (m << 8) | (mask & 0xFF)
        value >>= 8
        mask >>= 8
    bounds_unknown(r)
    set_tnum(r, v, m)
    reg_bounds_sync(r)
