"""What is known about a scalar: its bits and its signed and unsigned range, in 64 bits and in the low 32.

`Bounds` is immutable and shared freely between registers and states; `reg_bounds_sync` lets each of the five
descriptions refine the others and is the one place where they are made. A contradiction (a path that cannot
happen) yields the unknown value, which is always sound. Signed members are Python ints in two's complement range.
Kernel: kernel/bpf/verifier.c:reg_bounds_sync and the functions it calls.
"""

from __future__ import annotations

from functools import lru_cache

from fastrtp.verifier.tnum import TNUM_UNKNOWN, U32, U64, Tnum, tnum_in

S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
_BIT63, _BIT31 = 1 << 63, 1 << 31
_TWO64, _TWO32 = 1 << 64, 1 << 32
_HIGH32 = U64 ^ U32


def s64(x: int) -> int:
    """`x` modulo 2**64 as a signed number."""
    x &= U64
    return x - _TWO64 if x & _BIT63 else x


def s32(x: int) -> int:
    """`x` modulo 2**32 as a signed number."""
    x &= U32
    return x - _TWO32 if x & _BIT31 else x


class Bounds:
    """Known bits and ranges of a 64-bit value (members as in struct bpf_reg_state)."""

    __slots__ = (
        "s32_max_value",
        "s32_min_value",
        "smax_value",
        "smin_value",
        "u32_max_value",
        "u32_min_value",
        "umax_value",
        "umin_value",
        "var_off",
    )

    def __init__(
        self, var_off: Tnum, smin: int, smax: int, umin: int, umax: int, s32_min: int, s32_max: int, u32_min: int, u32_max: int
    ) -> None:
        self.var_off = var_off
        self.smin_value = smin
        self.smax_value = smax
        self.umin_value = umin
        self.umax_value = umax
        self.s32_min_value = s32_min
        self.s32_max_value = s32_max
        self.u32_min_value = u32_min
        self.u32_max_value = u32_max

    def key(self) -> tuple[Tnum, int, int, int, int, int, int, int, int]:
        """Every member, for comparisons."""
        return (
            self.var_off,
            self.smin_value,
            self.smax_value,
            self.umin_value,
            self.umax_value,
            self.s32_min_value,
            self.s32_max_value,
            self.u32_min_value,
            self.u32_max_value,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bounds) and self.key() == other.key()

    def __hash__(self) -> int:
        return hash(self.key())

    def __repr__(self) -> str:
        return (
            f"Bounds({self.var_off.value:#x}/{self.var_off.mask:#x} s[{self.smin_value},{self.smax_value}] "
            f"u[{self.umin_value},{self.umax_value}] s32[{self.s32_min_value},{self.s32_max_value}] "
            f"u32[{self.u32_min_value},{self.u32_max_value}])"
        )

    def contains(self, value: int) -> bool:
        """Whether the u64 `value` satisfies every member."""
        value &= U64
        low = value & U32
        return (
            value & ~self.var_off.mask == self.var_off.value
            and self.smin_value <= s64(value) <= self.smax_value
            and self.umin_value <= value <= self.umax_value
            and self.s32_min_value <= s32(value) <= self.s32_max_value
            and self.u32_min_value <= low <= self.u32_max_value
        )


UNKNOWN = Bounds(TNUM_UNKNOWN, S64_MIN, S64_MAX, 0, U64, S32_MIN, S32_MAX, 0, U32)
"""Any 64-bit value."""


@lru_cache(maxsize=1 << 14)
def const_bounds(value: int) -> Bounds:
    """Exactly `value` (modulo 2**64). Kernel: ___mark_reg_known."""
    value &= U64
    low = value & U32
    sv = value - _TWO64 if value & _BIT63 else value
    sl = low - _TWO32 if low & _BIT31 else low
    return Bounds(Tnum(value, 0), sv, sv, value, value, sl, sl, low, low)


ZERO = const_bounds(0)


def const_subreg_bounds(bounds: Bounds, imm: int) -> Bounds:
    """`bounds` with the low 32 bits known to be `imm`. Kernel: __mark_reg32_known."""
    imm &= U32
    var_off = bounds.var_off
    sl = imm - _TWO32 if imm & _BIT31 else imm
    return reg_bounds_sync(
        Tnum(var_off.value & _HIGH32 | imm, var_off.mask & _HIGH32),
        bounds.smin_value,
        bounds.smax_value,
        bounds.umin_value,
        bounds.umax_value,
        sl,
        sl,
        imm,
        imm,
    )


def reg_bounds_sync(
    var_off: Tnum, smin: int, smax: int, umin: int, umax: int, s32_min: int, s32_max: int, u32_min: int, u32_max: int
) -> Bounds:
    """Let known bits, 64-bit and 32-bit ranges refine each other; contradictory input gives `UNKNOWN`.

    Kernel: reg_bounds_sync (__update_reg_bounds, __reg_deduce_bounds, __reg_bound_offset).
    """
    value, mask = var_off
    if not mask:
        return (
            const_bounds(value)
            if (
                umin <= value <= umax
                and u32_min <= value & U32 <= u32_max
                and smin <= s64(value) <= smax
                and s32_min <= s32(value) <= s32_max
            )
            else UNKNOWN
        )
    for _ in range(3):
        before = (smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max, value, mask)
        # known bits bound the ranges (__update_reg64_bounds, __update_reg32_bounds)
        top = value | mask
        if value > umin:
            umin = value
        if top < umax:
            umax = top
        low = s64(value | mask & _BIT63)
        high = s64(value | mask & ~_BIT63)
        if low > smin:
            smin = low
        if high < smax:
            smax = high
        v32, m32 = value & U32, mask & U32
        top = v32 | m32
        if v32 > u32_min:
            u32_min = v32
        if top < u32_max:
            u32_max = top
        low = s32(v32 | m32 & _BIT31)
        high = s32(v32 | m32 & ~_BIT31)
        if low > s32_min:
            s32_min = low
        if high < s32_max:
            s32_max = high
        if umin > umax or smin > smax or u32_min > u32_max or s32_min > s32_max:
            return UNKNOWN
        # 64-bit ranges bound the 32-bit ones where the upper half stays the same (__reg32_deduce_bounds)
        for lo, hi in ((umin, umax), (smin, smax)):
            delta = (hi >> 32) - (lo >> 32)
            if delta > 1:
                continue
            a, b = lo & U32, hi & U32
            sa = a - _TWO32 if a & _BIT31 else a
            sb = b - _TWO32 if b & _BIT31 else b
            if not delta:
                if a > u32_min:
                    u32_min = a
                if b < u32_max:
                    u32_max = b
            if (not delta and sa <= sb) or (delta and sa < 0 <= sb):
                if sa > s32_min:
                    s32_min = sa
                if sb < s32_max:
                    s32_max = sb
        # unsigned and signed 32-bit ranges that do not cross the other's wrap bound each other
        if u32_max < _BIT31 or u32_min >= _BIT31:
            shift = _TWO32 if u32_min >= _BIT31 else 0
            if u32_min - shift > s32_min:
                s32_min = u32_min - shift
            if u32_max - shift < s32_max:
                s32_max = u32_max - shift
        if s32_min >= 0 or s32_max < 0:
            shift = _TWO32 if s32_max < 0 else 0
            if s32_min + shift > u32_min:
                u32_min = s32_min + shift
            if s32_max + shift < u32_max:
                u32_max = s32_max + shift
        # the same in 64 bits (__reg64_deduce_bounds)
        if umax < _BIT63 or umin >= _BIT63:
            shift = _TWO64 if umin >= _BIT63 else 0
            if umin - shift > smin:
                smin = umin - shift
            if umax - shift < smax:
                smax = umax - shift
        if smin >= 0 or smax < 0:
            shift = _TWO64 if smax < 0 else 0
            if smin + shift > umin:
                umin = smin + shift
            if smax + shift < umax:
                umax = smax + shift
        elif umax < smin + _TWO64:  # the range crosses zero and only its non-negative part is in [umin, umax]
            smin = max(smin, umin) if umin < _BIT63 else smin
            umax = min(umax, smax)
        elif smax < umin:  # only its negative part is
            smax = min(smax, umax - _TWO64)
            umin = max(umin, smin + _TWO64)
        # 32-bit ranges bound the 64-bit ones (__reg_deduce_mixed_bounds)
        low = umin & _HIGH32 | u32_min
        high = umax & _HIGH32 | u32_max
        if low > umin:
            umin = low
        if high < umax:
            umax = high
        low = (smin >> 32 << 32) | u32_min
        high = (smax >> 32 << 32) | u32_max
        if low > smin:
            smin = low
        if high < smax:
            smax = high
        if smin >= S32_MIN and smax <= S32_MAX:
            if s32_min > smin:
                smin = s32_min
            if s32_max < smax:
                smax = s32_max
        if umin > umax or smin > smax or u32_min > u32_max or s32_min > s32_max:
            return UNKNOWN
        # ranges give known bits (__reg_bound_offset)
        bits = (umin ^ umax).bit_length()
        if bits < 64:
            known = U64 ^ ((1 << bits) - 1)
            if (value ^ umin) & known & ~mask:
                return UNKNOWN
            value |= umin & known
            mask &= ~known
        bits = (u32_min ^ u32_max).bit_length()
        if bits < 32:
            known = U32 ^ ((1 << bits) - 1)
            if (value ^ u32_min) & known & ~mask:
                return UNKNOWN
            value = value & ~(known & mask) | u32_min & known
            mask &= ~known
        if not mask:
            return reg_bounds_sync(Tnum(value, 0), smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max)
        if before == (smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max, value, mask):
            break
    return Bounds(Tnum(value, mask), smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max)


def unsigned_bounds(umin: int, umax: int) -> Bounds:
    """Any value of `umin..umax`."""
    return reg_bounds_sync(TNUM_UNKNOWN, S64_MIN, S64_MAX, umin, umax, S32_MIN, S32_MAX, 0, U32)


def signed_bounds(smin: int, smax: int) -> Bounds:
    """Any value of `smin..smax`."""
    return reg_bounds_sync(TNUM_UNKNOWN, smin, smax, 0, U64, S32_MIN, S32_MAX, 0, U32)


def tnum_bounds(var_off: Tnum) -> Bounds:
    """Any value that the known bits allow."""
    return reg_bounds_sync(var_off, S64_MIN, S64_MAX, 0, U64, S32_MIN, S32_MAX, 0, U32)


def zext_32_to_64(b: Bounds) -> Bounds:
    """The low 32 bits, zero-extended. Kernel: zext_32_to_64."""
    if b.umax_value <= U32:
        return b
    var_off = Tnum(b.var_off.value & U32, b.var_off.mask & U32)
    return reg_bounds_sync(
        var_off, 0, U32, b.u32_min_value, b.u32_max_value, b.s32_min_value, b.s32_max_value, b.u32_min_value, b.u32_max_value
    )


def coerce_to_size(b: Bounds, size: int) -> Bounds:
    """Truncated to `size` bytes and zero-extended. Kernel: coerce_reg_to_size."""
    if size == 8:
        return b
    limit = (1 << size * 8) - 1
    if b.umax_value <= limit:
        return b
    if size == 4:
        return zext_32_to_64(b)
    var_off = Tnum(b.var_off.value & limit, b.var_off.mask & limit)
    if b.umin_value & ~limit == b.umax_value & ~limit:
        umin, umax = b.umin_value & limit, b.umax_value & limit
    else:
        umin, umax = 0, limit
    return reg_bounds_sync(var_off, S64_MIN, S64_MAX, umin, umax, S32_MIN, S32_MAX, 0, U32)


def coerce_to_size_sx(b: Bounds, size: int) -> Bounds:
    """The low `size` bytes, sign-extended to 64 bits. Kernel: coerce_reg_to_size_sx."""
    if size == 8:
        return b
    bits = size * 8
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    if b.smin_value >= low and b.smax_value <= high:
        return b
    limit, sign = (1 << bits) - 1, 1 << (bits - 1)
    upper = U64 ^ limit
    value, mask = b.var_off.value & limit, b.var_off.mask & limit
    if mask & sign:
        mask |= upper
    elif value & sign:
        value |= upper
    smin, smax = low, high
    if b.smin_value >> bits == b.smax_value >> bits:
        first, last = b.smin_value & limit, b.smax_value & limit
        first, last = (x - limit - 1 if x & sign else x for x in (first, last))
        if first <= last:
            smin, smax = first, last
    return reg_bounds_sync(Tnum(value, mask), smin, smax, 0, U64, S32_MIN, S32_MAX, 0, U32)


def coerce_subreg_to_size_sx(b: Bounds, size: int) -> Bounds:
    """The low `size` bytes, sign-extended to 32 bits, then zero-extended. Kernel: coerce_subreg_to_size_sx."""
    return zext_32_to_64(coerce_to_size_sx(b, size))


def range_within(old: Bounds, cur: Bounds) -> bool:
    """Whether every value that `cur` allows is allowed by `old`."""
    if old is cur or old is UNKNOWN:
        return True
    return (
        old.umin_value <= cur.umin_value
        and old.umax_value >= cur.umax_value
        and old.smin_value <= cur.smin_value
        and old.smax_value >= cur.smax_value
        and old.u32_min_value <= cur.u32_min_value
        and old.u32_max_value >= cur.u32_max_value
        and old.s32_min_value <= cur.s32_min_value
        and old.s32_max_value >= cur.s32_max_value
        and tnum_in(old.var_off, cur.var_off)
    )
