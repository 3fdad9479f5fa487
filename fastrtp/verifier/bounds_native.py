"""What is known about a scalar: its bits and its signed and unsigned range, in 64 bits and in the low 32.

Functions on VREG records (of which they touch the bounds alone). `reg_bounds_sync` lets each of the five descriptions
refine the others, in Linux's order and no further, so that both see equal states. On a path that cannot happen they may
contradict each other: then `reg_bounds_sanity_check` forgets the ranges.
Kernel: kernel/bpf/verifier.c:reg_bounds_sync and the functions it calls.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load32, load64, lshr, memcpy, store32, store64, ule, ult
from fastrtp.native.layout import at
from fastrtp.native.verifier_layout import VREG
from fastrtp.verifier.tnum_native import S64_MIN, U32, sx32, tnum_in, tnum_range, tnum_step

R_VALUE, R_MASK = at(VREG, "value"), at(VREG, "mask")
R_SMIN, R_SMAX, R_UMIN, R_UMAX = at(VREG, "smin"), at(VREG, "smax"), at(VREG, "umin"), at(VREG, "umax")
R_S32_MIN, R_S32_MAX = at(VREG, "s32_min"), at(VREG, "s32_max")
R_U32_MIN, R_U32_MAX = at(VREG, "u32_min"), at(VREG, "u32_max")

S64_MAX = (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
BIT31 = 1 << 31
HIGH32 = -1 << 32
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
def _update_bounds(r: int) -> None:
    """Known bits bound the ranges. Kernel: __update_reg_bounds."""
    value = load64(r + R_VALUE)
    mask = load64(r + R_MASK)
    v32 = value & U32
    m32 = mask & U32
    set_ranges32(
        r,
        max(s32_min_of(r), sx32(v32 | (m32 & BIT31))),
        min(s32_max_of(r), sx32(v32 | (m32 & S32_MAX))),
        max(load32(r + R_U32_MIN), v32),
        min(load32(r + R_U32_MAX), v32 | m32),
    )
    set_ranges64(
        r,
        max(load64(r + R_SMIN), value | (mask & S64_MIN)),
        min(load64(r + R_SMAX), value | (mask & S64_MAX)),
        umax_of(load64(r + R_UMIN), value),
        umin_of(load64(r + R_UMAX), value | mask),
    )
    # a value that is the only one to have the known bits and to be in the unsigned range
    umin = load64(r + R_UMIN)
    umax = load64(r + R_UMAX)
    following = tnum_step(value, mask, umin)
    if (umin & ~mask) == value:
        if ult(umax, following):
            bounds_const(r, umin)
    elif following == value | mask or (ule(following, umax) and ult(umax, tnum_step(value, mask, following))):
        bounds_const(r, following)


@device
def _deduce_bounds32(r: int) -> None:
    """64-bit ranges bound the 32-bit ones, and these each other. Kernel: __reg32_deduce_bounds."""
    smin = load64(r + R_SMIN)
    smax = load64(r + R_SMAX)
    umin = load64(r + R_UMIN)
    umax = load64(r + R_UMAX)
    s32_min = s32_min_of(r)
    s32_max = s32_max_of(r)
    u32_min = load32(r + R_U32_MIN)
    u32_max = load32(r + R_U32_MAX)
    # the upper half stays the same
    if lshr(umin, 32) == lshr(umax, 32):
        u32_min = max(u32_min, umin & U32)
        u32_max = min(u32_max, umax & U32)
        if sx32(umin) <= sx32(umax):
            s32_min = max(s32_min, sx32(umin))
            s32_max = min(s32_max, sx32(umax))
    if (smin >> 32) == (smax >> 32):
        if (smin & U32) <= (smax & U32):
            u32_min = max(u32_min, smin & U32)
            u32_max = min(u32_max, smax & U32)
        if sx32(smin) <= sx32(smax):
            s32_min = max(s32_min, sx32(smin))
            s32_max = min(s32_max, sx32(smax))
    # it is one of two neighbours, and the lower half goes from negative to positive
    if ((lshr(umin, 32) + 1) & U32) == lshr(umax, 32) and sx32(umin) < 0 and sx32(umax) >= 0:
        s32_min = max(s32_min, sx32(umin))
        s32_max = min(s32_max, sx32(umax))
    if ((lshr(smin, 32) + 1) & U32) == lshr(smax, 32) and sx32(smin) < 0 and sx32(smax) >= 0:
        s32_min = max(s32_min, sx32(smin))
        s32_max = min(s32_max, sx32(smax))
    # the unsigned range does not cross the sign
    if sx32(u32_min) <= sx32(u32_max):
        s32_min = max(s32_min, sx32(u32_min))
        s32_max = min(s32_max, sx32(u32_max))
    # the signed range does not; or it does, and one of its parts alone is in the unsigned one
    if (s32_min & U32) <= (s32_max & U32):
        u32_min = max(u32_min, s32_min & U32)
        u32_max = min(u32_max, s32_max & U32)
    elif u32_max < (s32_min & U32):
        s32_min = sx32(u32_min)
        u32_max = min(u32_max, s32_max & U32)
    elif (s32_max & U32) < u32_min:
        s32_max = sx32(u32_max)
        u32_min = max(u32_min, s32_min & U32)
    set_ranges32(r, s32_min, s32_max, u32_min, u32_max)


@device
def _deduce_bounds64(r: int) -> None:
    """Signed and unsigned ranges bound each other, and 32-bit ranges both.

    Kernel: __reg64_deduce_bounds, __reg_deduce_mixed_bounds
    """
    smin = load64(r + R_SMIN)
    smax = load64(r + R_SMAX)
    umin = load64(r + R_UMIN)
    umax = load64(r + R_UMAX)
    if umin <= umax:
        smin = max(smin, umin)
        smax = min(smax, umax)
    if ule(smin, smax):
        umin = umax_of(smin, umin)
        umax = umin_of(smax, umax)
    elif ult(umax, smin):
        smin = umin
        umax = umin_of(umax, smax)
    elif ult(smax, umin):
        smax = umax
        umin = umax_of(umin, smin)
    s32_min = s32_min_of(r)
    s32_max = s32_max_of(r)
    u32_min = load32(r + R_U32_MIN)
    u32_max = load32(r + R_U32_MAX)
    umin = umax_of(umin, (umin & HIGH32) | u32_min)
    umax = umin_of(umax, (umax & HIGH32) | u32_max)
    smin = max(smin, (smin & HIGH32) | u32_min)
    smax = min(smax, (smax & HIGH32) | u32_max)
    if s32_min >= 0 and smin >= S32_MIN and smax <= S32_MAX:
        # sign-extended, and not negative in 32 bits: the upper half is zero
        set_ranges64(r, s32_min, s32_max, s32_min, s32_max)
        v, m = tnum_range(s32_min, s32_max)
        common = load64(r + R_MASK) & m
        set_tnum(r, (load64(r + R_VALUE) | v) & ~common, common)
        return
    set_ranges64(r, smin, smax, umin, umax)


@device
def _bound_offset(r: int) -> None:
    """Ranges give known bits. Kernel: __reg_bound_offset."""
    value = load64(r + R_VALUE)
    mask = load64(r + R_MASK)
    v, m = tnum_range(load64(r + R_UMIN), load64(r + R_UMAX))
    value, mask = (value | v) & ~(mask & m), mask & m
    v, m = tnum_range(load32(r + R_U32_MIN), load32(r + R_U32_MAX))
    low = mask & m & U32
    set_tnum(r, (value & HIGH32) | ((value | v) & U32 & ~low), (mask & HIGH32) | low)


@device
def reg_bounds_sync(r: int) -> None:
    """Let known bits, 64-bit and 32-bit ranges refine each other, as far as Linux does. Kernel: reg_bounds_sync."""
    _update_bounds(r)
    for _ in range(3):
        _deduce_bounds32(r)
        _deduce_bounds64(r)
    _bound_offset(r)
    _update_bounds(r)


@device
def ranges_unbounded(r: int) -> None:
    """Known bits stay. Kernel: __mark_reg_unbounded."""
    set_ranges64(r, S64_MIN, S64_MAX, 0, -1)
    set_ranges32(r, S32_MIN, S32_MAX, 0, U32)


@device
def reg_bounds_sanity_check(r: int) -> None:
    """Ranges that contradict each other or the known bits, as on a way that is never taken, are forgotten.

    Kernel: reg_bounds_sanity_check
    """
    value = load64(r + R_VALUE)
    mask = load64(r + R_MASK)
    low = value & U32
    smin = load64(r + R_SMIN)
    smax = load64(r + R_SMAX)
    umin = load64(r + R_UMIN)
    umax = load64(r + R_UMAX)
    u32_min = load32(r + R_U32_MIN)
    u32_max = load32(r + R_U32_MAX)
    bad = ult(umax, umin) or smin > smax or u32_min > u32_max or s32_min_of(r) > s32_max_of(r)
    if mask == 0 and (umin != value or umax != value or smin != value or smax != value):
        bad = True
    if (mask & U32) == 0 and (u32_min != low or u32_max != low or s32_min_of(r) != sx32(low) or s32_max_of(r) != sx32(low)):
        bad = True
    if bad:
        ranges_unbounded(r)


@device
def zext_32_to_64(r: int) -> None:
    """The low 32 bits, zero-extended. Kernel: zext_32_to_64."""
    store64(r + R_VALUE, load64(r + R_VALUE) & U32)
    store64(r + R_MASK, load64(r + R_MASK) & U32)
    low = s32_min_of(r)
    high = s32_max_of(r)
    if low < 0 or high < 0:
        low, high = 0, U32
    set_ranges64(r, low, high, load32(r + R_U32_MIN), load32(r + R_U32_MAX))
    reg_bounds_sync(r)


@device
def coerce_to_size(r: int, size: int) -> None:
    """Truncated to `size` bytes and zero-extended. Kernel: coerce_reg_to_size."""
    if size == 8:
        return
    limit = (1 << (size * 8)) - 1
    umin = load64(r + R_UMIN)
    umax = load64(r + R_UMAX)
    store64(r + R_VALUE, load64(r + R_VALUE) & limit)
    store64(r + R_MASK, load64(r + R_MASK) & limit)
    if (umin & ~limit) == (umax & ~limit):
        set_ranges64(r, umin & limit, umax & limit, umin & limit, umax & limit)
    else:
        set_ranges64(r, 0, limit, 0, limit)
    if size < 4:
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
