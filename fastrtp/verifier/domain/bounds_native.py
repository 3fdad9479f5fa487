"""What is known about a scalar: its bits and its signed and unsigned range, in 64 bits and in the low 32.

Functions on VReg records (of which they touch the bounds alone). `reg_bounds_sync` lets each of the five descriptions
refine the others, in Linux's order and no further, so that both see equal states. On a path that cannot happen they may
contradict each other: then `reg_bounds_sanity_check` forgets the ranges.
Kernel: kernel/bpf/verifier.c:reg_bounds_sync and the functions it calls.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, lshr, memcpy, ule, ult
from fastrtp.verifier.domain.records import VReg
from fastrtp.verifier.domain.tnum_native import S64_MIN, U32, sx32, tnum_in, tnum_range, tnum_step

R_VALUE = VReg.layout.at("value")

S64_MAX = (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
BIT31 = 1 << 31
HIGH32 = -1 << 32
BOUNDS_SIZE = VReg.layout.size - R_VALUE


@device
def umin_of(a: int, b: int) -> int:
    """The smaller, unsigned."""
    return a if ult(a, b) else b


@device
def umax_of(a: int, b: int) -> int:
    """The larger, unsigned."""
    return b if ult(a, b) else a


@device
def set_ranges64(r: VReg, smin: int, smax: int, umin: int, umax: int) -> None:
    """Store the 64-bit ranges."""
    r.smin = smin
    r.smax = smax
    r.umin = umin
    r.umax = umax


@device
def set_ranges32(r: VReg, smin: int, smax: int, umin: int, umax: int) -> None:
    """Store the 32-bit ranges."""
    r.s32_min = smin
    r.s32_max = smax
    r.u32_min = umin
    r.u32_max = umax


@device
def set_tnum(r: VReg, value: int, mask: int) -> None:
    """Store the known bits."""
    r.value = value
    r.mask = mask


@device
def bounds_unknown(r: VReg) -> None:
    """Any 64-bit value."""
    set_tnum(r, 0, -1)
    set_ranges64(r, S64_MIN, S64_MAX, 0, -1)
    set_ranges32(r, S32_MIN, S32_MAX, 0, U32)


@device
def bounds_const(r: VReg, value: int) -> None:
    """Exactly `value`. Kernel: ___mark_reg_known."""
    set_tnum(r, value, 0)
    set_ranges64(r, value, value, value, value)
    set_ranges32(r, value, value, value, value)


@device
def bounds_copy(to: VReg, source: VReg) -> None:
    """The bounds of another register."""
    memcpy(int(to) + R_VALUE, int(source) + R_VALUE, BOUNDS_SIZE)


@device
def s32_min_of(r: VReg) -> int:
    """Signed minimum of the low half."""
    return r.s32_min


@device
def s32_max_of(r: VReg) -> int:
    """Signed maximum of the low half."""
    return r.s32_max


@device
def _update_bounds(r: VReg) -> None:
    """Known bits bound the ranges. Kernel: __update_reg_bounds."""
    value = r.value
    mask = r.mask
    v32 = value & U32
    m32 = mask & U32
    set_ranges32(
        r,
        max(s32_min_of(r), sx32(v32 | (m32 & BIT31))),
        min(s32_max_of(r), sx32(v32 | (m32 & S32_MAX))),
        max(r.u32_min, v32),
        min(r.u32_max, v32 | m32),
    )
    set_ranges64(
        r,
        max(r.smin, value | (mask & S64_MIN)),
        min(r.smax, value | (mask & S64_MAX)),
        umax_of(r.umin, value),
        umin_of(r.umax, value | mask),
    )
    # a value that is the only one to have the known bits and to be in the unsigned range
    umin = r.umin
    umax = r.umax
    following = tnum_step(value, mask, umin)
    if (umin & ~mask) == value:
        if ult(umax, following):
            bounds_const(r, umin)
    elif following == value | mask or (ule(following, umax) and ult(umax, tnum_step(value, mask, following))):
        bounds_const(r, following)


@device
def _deduce_bounds32(r: VReg) -> None:
    """64-bit ranges bound the 32-bit ones, and these each other. Kernel: __reg32_deduce_bounds."""
    smin = r.smin
    smax = r.smax
    umin = r.umin
    umax = r.umax
    s32_min = s32_min_of(r)
    s32_max = s32_max_of(r)
    u32_min = r.u32_min
    u32_max = r.u32_max
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
def _deduce_bounds64(r: VReg) -> None:
    """Signed and unsigned ranges bound each other, and 32-bit ranges both.

    Kernel: __reg64_deduce_bounds, __reg_deduce_mixed_bounds
    """
    smin = r.smin
    smax = r.smax
    umin = r.umin
    umax = r.umax
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
    u32_min = r.u32_min
    u32_max = r.u32_max
    umin = umax_of(umin, (umin & HIGH32) | u32_min)
    umax = umin_of(umax, (umax & HIGH32) | u32_max)
    smin = max(smin, (smin & HIGH32) | u32_min)
    smax = min(smax, (smax & HIGH32) | u32_max)
    if s32_min >= 0 and smin >= S32_MIN and smax <= S32_MAX:
        # sign-extended, and not negative in 32 bits: the upper half is zero
        set_ranges64(r, s32_min, s32_max, s32_min, s32_max)
        v, m = tnum_range(s32_min, s32_max)
        common = r.mask & m
        set_tnum(r, (r.value | v) & ~common, common)
        return
    set_ranges64(r, smin, smax, umin, umax)


@device
def _bound_offset(r: VReg) -> None:
    """Ranges give known bits. Kernel: __reg_bound_offset."""
    value = r.value
    mask = r.mask
    v, m = tnum_range(r.umin, r.umax)
    value, mask = (value | v) & ~(mask & m), mask & m
    v, m = tnum_range(r.u32_min, r.u32_max)
    low = mask & m & U32
    set_tnum(r, (value & HIGH32) | ((value | v) & U32 & ~low), (mask & HIGH32) | low)


@device
def reg_bounds_sync(r: VReg) -> None:
    """Let known bits, 64-bit and 32-bit ranges refine each other, as far as Linux does. Kernel: reg_bounds_sync."""
    _update_bounds(r)
    for _ in range(3):
        _deduce_bounds32(r)
        _deduce_bounds64(r)
    _bound_offset(r)
    _update_bounds(r)


@device
def ranges_unbounded(r: VReg) -> None:
    """Known bits stay. Kernel: __mark_reg_unbounded."""
    set_ranges64(r, S64_MIN, S64_MAX, 0, -1)
    set_ranges32(r, S32_MIN, S32_MAX, 0, U32)


@device
def reg_bounds_sanity_check(r: VReg) -> None:
    """Ranges that contradict each other or the known bits, as on a way that is never taken, are forgotten.

    Kernel: reg_bounds_sanity_check
    """
    value = r.value
    mask = r.mask
    low = value & U32
    smin = r.smin
    smax = r.smax
    umin = r.umin
    umax = r.umax
    u32_min = r.u32_min
    u32_max = r.u32_max
    bad = ult(umax, umin) or smin > smax or u32_min > u32_max or s32_min_of(r) > s32_max_of(r)
    if mask == 0 and (umin != value or umax != value or smin != value or smax != value):
        bad = True
    if (mask & U32) == 0 and (u32_min != low or u32_max != low or s32_min_of(r) != sx32(low) or s32_max_of(r) != sx32(low)):
        bad = True
    if bad:
        ranges_unbounded(r)


@device
def zext_32_to_64(r: VReg) -> None:
    """The low 32 bits, zero-extended. Kernel: zext_32_to_64."""
    r.value &= U32
    r.mask &= U32
    low = s32_min_of(r)
    high = s32_max_of(r)
    if low < 0 or high < 0:
        low, high = 0, U32
    set_ranges64(r, low, high, r.u32_min, r.u32_max)
    reg_bounds_sync(r)


@device
def coerce_to_size(r: VReg, size: int) -> None:
    """Truncated to `size` bytes and zero-extended. Kernel: coerce_reg_to_size."""
    if size == 8:
        return
    limit = (1 << (size * 8)) - 1
    umin = r.umin
    umax = r.umax
    r.value &= limit
    r.mask &= limit
    if (umin & ~limit) == (umax & ~limit):
        set_ranges64(r, umin & limit, umax & limit, umin & limit, umax & limit)
    else:
        set_ranges64(r, 0, limit, 0, limit)
    if size < 4:
        set_ranges32(r, S32_MIN, S32_MAX, 0, U32)
    reg_bounds_sync(r)


@device
def coerce_to_size_sx(r: VReg, size: int) -> None:
    """The low `size` bytes, sign-extended to 64 bits, as coarse as Linux has it. Kernel: coerce_reg_to_size_sx."""
    if size == 8:
        return
    bits = size * 8
    up = 64 - bits
    if r.mask == 0:
        bounds_const(r, (r.value << up) >> up)
        return
    smin = r.smin
    smax = r.smax
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
def coerce_subreg_to_size_sx(r: VReg, size: int) -> None:
    """The low `size` bytes, sign-extended to 32 bits, then zero-extended. Kernel: coerce_subreg_to_size_sx, zext_32_to_64."""
    bits = size * 8
    up = 64 - bits
    if r.mask == 0:
        bounds_const(r, ((r.value << up) >> up) & U32)
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
    set_ranges64(r, 0, U32, r.u32_min, r.u32_max)
    reg_bounds_sync(r)


@device
def range_within(old: VReg, cur: VReg) -> int:
    """Whether every value that `cur` allows is allowed by `old`."""
    return (
        1
        if ule(old.umin, cur.umin)
        and ule(cur.umax, old.umax)
        and old.smin <= cur.smin
        and old.smax >= cur.smax
        and old.u32_min <= cur.u32_min
        and old.u32_max >= cur.u32_max
        and s32_min_of(old) <= s32_min_of(cur)
        and s32_max_of(old) >= s32_max_of(cur)
        and tnum_in(old.value, old.mask, cur.value, cur.mask) != 0
        else 0
    )
