"""What is known about a scalar: its bits and its signed and unsigned range, in 64 bits and in the low 32.

Functions on VREG records (of which they touch the bounds alone). `reg_bounds_sync` lets each of the five descriptions
refine the others. A contradiction (a path that cannot happen) yields the unknown value, which is always sound.
Kernel: kernel/bpf/verifier.c:reg_bounds_sync and the functions it calls.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load32, load64, lshr, memcpy, store32, store64, ule, ult
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import VREG
from fastrtp.verifier.tnum_native import S64_MIN, U32, smear, sx32, tnum_in, tnum_range

R_VALUE, R_MASK = at(VREG, "value"), at(VREG, "mask")
R_SMIN, R_SMAX, R_UMIN, R_UMAX = at(VREG, "smin"), at(VREG, "smax"), at(VREG, "umin"), at(VREG, "umax")
R_S32_MIN, R_S32_MAX = at(VREG, "s32_min"), at(VREG, "s32_max")
R_U32_MIN, R_U32_MAX = at(VREG, "u32_min"), at(VREG, "u32_max")

S64_MAX = (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
BIT31 = 1 << 31
HIGH32 = -1 << 32
TWO32 = 1 << 32
BOUNDS_SIZE = VREG.itemsize - R_VALUE


@device
def umin_of(a: int, b: int) -> int:
    """The smaller, unsigned."""
    return a if ult(a, b) else b


@device
def umax_of(a: int, b: int) -> int:
    """The larger, unsigned."""
    return b if ult(a, b) else a


@device
def set_ranges64(r: int, smin: int, smax: int, umin: int, umax: int) -> None:
    """Store the 64-bit ranges."""
    store64(r + R_SMIN, smin)
    store64(r + R_SMAX, smax)
    store64(r + R_UMIN, umin)
    store64(r + R_UMAX, umax)


@device
def set_ranges32(r: int, smin: int, smax: int, umin: int, umax: int) -> None:
    """Store the 32-bit ranges."""
    store32(r + R_S32_MIN, smin)
    store32(r + R_S32_MAX, smax)
    store32(r + R_U32_MIN, umin)
    store32(r + R_U32_MAX, umax)


@device
def set_tnum(r: int, value: int, mask: int) -> None:
    """Store the known bits."""
    store64(r + R_VALUE, value)
    store64(r + R_MASK, mask)


@device
def bounds_unknown(r: int) -> None:
    """Any 64-bit value."""
    set_tnum(r, 0, -1)
    set_ranges64(r, S64_MIN, S64_MAX, 0, -1)
    set_ranges32(r, S32_MIN, S32_MAX, 0, U32)


@device
def bounds_const(r: int, value: int) -> None:
    """Exactly `value`. Kernel: ___mark_reg_known."""
    set_tnum(r, value, 0)
    set_ranges64(r, value, value, value, value)
    set_ranges32(r, value, value, value, value)


@device
def bounds_copy(to: int, source: int) -> None:
    """The bounds of another register."""
    memcpy(to + R_VALUE, source + R_VALUE, BOUNDS_SIZE)


@device
def s32_min_of(r: int) -> int:
    """Signed minimum of the low half."""
    return sx32(load32(r + R_S32_MIN))


@device
def s32_max_of(r: int) -> int:
    """Signed maximum of the low half."""
    return sx32(load32(r + R_S32_MAX))


@device
def reg_bounds_sync(r: int) -> None:
    """Let known bits, 64-bit and 32-bit ranges refine each other; contradictory input gives the unknown value.

    Kernel: reg_bounds_sync (__update_reg_bounds, __reg_deduce_bounds, __reg_bound_offset).
    """
    value = load64(r + R_VALUE)
    mask = load64(r + R_MASK)
    smin = load64(r + R_SMIN)
    smax = load64(r + R_SMAX)
    umin = load64(r + R_UMIN)
    umax = load64(r + R_UMAX)
    s32_min = s32_min_of(r)
    s32_max = s32_max_of(r)
    u32_min = load32(r + R_U32_MIN)
    u32_max = load32(r + R_U32_MAX)
    rounds = 0
    while mask != 0 and rounds < 3:
        rounds += 1
        v0, m0, smin0, smax0, umin0, umax0 = value, mask, smin, smax, umin, umax
        s32_min0, s32_max0, u32_min0, u32_max0 = s32_min, s32_max, u32_min, u32_max
        # known bits bound the ranges (__update_reg64_bounds, __update_reg32_bounds)
        umin = umax_of(umin, value)
        umax = umin_of(umax, value | mask)
        smin = max(smin, value | (mask & S64_MIN))
        smax = min(smax, value | (mask & S64_MAX))
        v32 = value & U32
        m32 = mask & U32
        u32_min = max(u32_min, v32)
        u32_max = min(u32_max, v32 | m32)
        s32_min = max(s32_min, sx32(v32 | (m32 & BIT31)))
        s32_max = min(s32_max, sx32(v32 | (m32 & S32_MAX)))
        if ult(umax, umin) or smin > smax or u32_min > u32_max or s32_min > s32_max:
            bounds_unknown(r)
            return
        # 64-bit ranges bound the 32-bit ones where the upper half stays the same (__reg32_deduce_bounds)
        for signed in range(2):
            lo = smin if signed else umin
            hi = smax if signed else umax
            delta = (hi >> 32) - (lo >> 32) if signed else lshr(hi, 32) - lshr(lo, 32)
            if delta > 1:
                continue
            a = lo & U32
            b = hi & U32
            sa = sx32(a)
            sb = sx32(b)
            if delta == 0:
                u32_min = max(u32_min, a)
                u32_max = min(u32_max, b)
            if (delta == 0 and sa <= sb) or (delta != 0 and sa < 0 and sb >= 0):
                s32_min = max(s32_min, sa)
                s32_max = min(s32_max, sb)
        # unsigned and signed 32-bit ranges that do not cross the other's wrap bound each other
        if u32_max < BIT31 or u32_min >= BIT31:
            shift = TWO32 if u32_min >= BIT31 else 0
            s32_min = max(s32_min, u32_min - shift)
            s32_max = min(s32_max, u32_max - shift)
        if s32_min >= 0 or s32_max < 0:
            shift = TWO32 if s32_max < 0 else 0
            u32_min = max(u32_min, s32_min + shift)
            u32_max = min(u32_max, s32_max + shift)
        elif u32_max < s32_min + TWO32:  # the range crosses zero and only its non-negative part is in [u32_min, u32_max]
            s32_min = max(s32_min, u32_min)
            u32_max = min(u32_max, s32_max)
        elif s32_max < u32_min:  # only its negative part is
            s32_max = min(s32_max, u32_max - TWO32)
            u32_min = max(u32_min, s32_min + TWO32)
        # the same in 64 bits (__reg64_deduce_bounds)
        if umax >= 0 or umin < 0:  # as signed numbers: neither, or both, have the top bit
            smin = max(smin, umin)
            smax = min(smax, umax)
        if smin >= 0 or smax < 0:
            umin = umax_of(umin, smin)
            umax = umin_of(umax, smax)
        elif ult(umax, smin):  # the range crosses zero and only its non-negative part is in [umin, umax]
            if umin >= 0:
                smin = max(smin, umin)
            umax = umin_of(umax, smax)
        elif ult(smax, umin):  # only its negative part is
            smax = min(smax, umax)
            umin = umax_of(umin, smin)
        # 32-bit ranges bound the 64-bit ones (__reg_deduce_mixed_bounds)
        umin = umax_of(umin, (umin & HIGH32) | u32_min)
        umax = umin_of(umax, (umax & HIGH32) | u32_max)
        smin = max(smin, (smin & HIGH32) | u32_min)
        smax = min(smax, (smax & HIGH32) | u32_max)
        if smin >= S32_MIN and smax <= S32_MAX:
            smin = max(smin, s32_min)
            smax = min(smax, s32_max)
        if ult(umax, umin) or smin > smax or u32_min > u32_max or s32_min > s32_max:
            bounds_unknown(r)
            return
        # ranges give known bits (__reg_bound_offset)
        known = ~smear(umin ^ umax)
        if ((value ^ umin) & known & ~mask) != 0:
            bounds_unknown(r)
            return
        value |= umin & known & mask
        mask &= ~known
        known = U32 & ~smear(u32_min ^ u32_max)
        if ((value ^ u32_min) & known & ~mask) != 0:
            bounds_unknown(r)
            return
        value |= u32_min & known & mask
        mask &= ~known
        if (
            mask == m0
            and value == v0
            and smin == smin0
            and smax == smax0
            and umin == umin0
            and umax == umax0
            and s32_min == s32_min0
            and s32_max == s32_max0
            and u32_min == u32_min0
            and u32_max == u32_max0
        ):
            break
    if mask == 0:
        low = value & U32
        if (
            ule(umin, value)
            and ule(value, umax)
            and smin <= value
            and value <= smax
            and u32_min <= low
            and low <= u32_max
            and s32_min <= sx32(low)
            and sx32(low) <= s32_max
        ):
            bounds_const(r, value)
        else:
            bounds_unknown(r)
        return
    set_tnum(r, value, mask)
    set_ranges64(r, smin, smax, umin, umax)
    set_ranges32(r, s32_min, s32_max, u32_min, u32_max)


@device
def zext_32_to_64(r: int) -> None:
    """The low 32 bits, zero-extended. Kernel: zext_32_to_64."""
    if ule(load64(r + R_UMAX), U32):
        return
    store64(r + R_VALUE, load64(r + R_VALUE) & U32)
    store64(r + R_MASK, load64(r + R_MASK) & U32)
    set_ranges64(r, 0, U32, load32(r + R_U32_MIN), load32(r + R_U32_MAX))
    reg_bounds_sync(r)


@device
def coerce_to_size(r: int, size: int) -> None:
    """Truncated to `size` bytes and zero-extended. Kernel: coerce_reg_to_size."""
    if size == 8:
        return
    limit = (1 << (size * 8)) - 1
    if ule(load64(r + R_UMAX), limit):
        return
    if size == 4:
        zext_32_to_64(r)
        return
    umin = load64(r + R_UMIN)
    umax = load64(r + R_UMAX)
    store64(r + R_VALUE, load64(r + R_VALUE) & limit)
    store64(r + R_MASK, load64(r + R_MASK) & limit)
    if (umin & ~limit) == (umax & ~limit):
        set_ranges64(r, S64_MIN, S64_MAX, umin & limit, umax & limit)
    else:
        set_ranges64(r, S64_MIN, S64_MAX, 0, limit)
    set_ranges32(r, S32_MIN, S32_MAX, 0, U32)
    reg_bounds_sync(r)


@device
def coerce_to_size_sx(r: int, size: int) -> None:
    """The low `size` bytes, sign-extended to 64 bits, as coarse as Linux has it. Kernel: coerce_reg_to_size_sx."""
    if size == 8:
        return
    bits = size * 8
    up = 64 - bits
    if load64(r + R_MASK) == 0:
        bounds_const(r, (load64(r + R_VALUE) << up) >> up)
        return
    smin = load64(r + R_SMIN)
    smax = load64(r + R_SMAX)
    first = (smin << up) >> up
    last = (smax << up) >> up
    if (smin >> bits) == (smax >> bits) and (first < 0) == (last < 0):
        value, mask = tnum_range(first, last)
        set_tnum(r, value, mask)
        set_ranges64(r, first, last, first, last)
        set_ranges32(r, first, last, first, last)
        return
    low = -(1 << (bits - 1))
    high = (1 << (bits - 1)) - 1
    set_tnum(r, 0, -1)
    set_ranges64(r, low, high, 0, -1)
    set_ranges32(r, low, high, 0, U32)


@device
def coerce_subreg_to_size_sx(r: int, size: int) -> None:
    """The low `size` bytes, sign-extended to 32 bits, then zero-extended. Kernel: coerce_subreg_to_size_sx, zext_32_to_64."""
    bits = size * 8
    up = 64 - bits
    if load64(r + R_MASK) == 0:
        bounds_const(r, ((load64(r + R_VALUE) << up) >> up) & U32)
        return
    s32_min = s32_min_of(r)
    s32_max = s32_max_of(r)
    first = (s32_min << up) >> up
    last = (s32_max << up) >> up
    if (s32_min >> bits) == (s32_max >> bits) and (first < 0) == (last < 0):
        value, mask = tnum_range(first, last)
        set_tnum(r, value & U32, mask & U32)
        set_ranges32(r, first, last, first, last)
    else:
        set_tnum(r, 0, U32)
        set_ranges32(r, -(1 << (bits - 1)), (1 << (bits - 1)) - 1, 0, U32)
    set_ranges64(r, 0, U32, load32(r + R_U32_MIN), load32(r + R_U32_MAX))
    reg_bounds_sync(r)


@device
def range_within(old: int, cur: int) -> int:
    """Whether every value that `cur` allows is allowed by `old`."""
    return (
        1
        if ule(load64(old + R_UMIN), load64(cur + R_UMIN))
        and ule(load64(cur + R_UMAX), load64(old + R_UMAX))
        and load64(old + R_SMIN) <= load64(cur + R_SMIN)
        and load64(old + R_SMAX) >= load64(cur + R_SMAX)
        and load32(old + R_U32_MIN) <= load32(cur + R_U32_MIN)
        and load32(old + R_U32_MAX) >= load32(cur + R_U32_MAX)
        and s32_min_of(old) <= s32_min_of(cur)
        and s32_max_of(old) >= s32_max_of(cur)
        and tnum_in(load64(old + R_VALUE), load64(old + R_MASK), load64(cur + R_VALUE), load64(cur + R_MASK)) != 0
        else 0
    )
