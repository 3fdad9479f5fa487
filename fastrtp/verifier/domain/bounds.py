"""Bounds of a scalar in Python: an immutable record of what the core computes (bounds_native.py, alu_native.py,
branch_native.py), and the core's operations on it.

Signed members are Python ints in two's complement range. Kernel: kernel/bpf/verifier.c:reg_bounds_sync.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

from fastrtp.native.library import library
from fastrtp.verifier.domain.records import (
    REG_SIZE,
    SCALAR_ALU32,
    SCALAR_ALU64,
    SCALAR_BYTE_ORDER,
    SCALAR_COERCE,
    SCALAR_COERCE_SUBREG_SX,
    SCALAR_COERCE_SX,
    SCALAR_REFINE,
    SCALAR_SYNC,
    SCALAR_TAKEN,
    SCALAR_WITHIN,
    SCALAR_ZEXT,
    VReg,
)
from fastrtp.verifier.domain.tnum import TNUM_UNKNOWN, U32, U64, Tnum

S64_MIN, S64_MAX = -(1 << 63), (1 << 63) - 1
S32_MIN, S32_MAX = -(1 << 31), (1 << 31) - 1
_BIT63, _BIT31 = 1 << 63, 1 << 31
_TWO64, _TWO32 = 1 << 64, 1 << 32

_BOUNDS = VReg.layout.packer("value")
_BOUNDS_AT = VReg.layout.at("value")


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

    def members(self) -> tuple[int, int, int, int, int, int, int, int, int, int]:
        """Every member, in the order of a native register."""
        return (
            self.var_off.value,
            self.var_off.mask,
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
        return isinstance(other, Bounds) and self.members() == other.members()

    def __hash__(self) -> int:
        return hash(self.members())

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


@lru_cache(maxsize=1 << 12)
def const_bounds(value: int) -> Bounds:
    """Exactly `value` (modulo 2**64)."""
    value &= U64
    low = value & U32
    return Bounds(Tnum(value, 0), s64(value), s64(value), value, value, s32(low), s32(low), low, low)


ZERO = const_bounds(0)


class _Registers:
    """Three native registers for one operation: two operands and scratch."""

    def __init__(self, a: Bounds, b: Bounds = UNKNOWN) -> None:
        self.data = bytearray(3 * REG_SIZE)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.data))
        _BOUNDS.pack_into(self.data, _BOUNDS_AT, *a.members())
        _BOUNDS.pack_into(self.data, REG_SIZE + _BOUNDS_AT, *b.members())

    def run(self, what: int, arg: int = 0, flag: int = 0, other: int = 0) -> int:
        """The operation on the two operands."""
        a = self.address
        return library().verifier_scalar(what, a, a + REG_SIZE, arg, flag, other, a + 2 * REG_SIZE)

    def bounds(self, number: int = 0) -> Bounds:
        """What became of an operand."""
        value, mask, *ranges = _BOUNDS.unpack_from(self.data, number * REG_SIZE + _BOUNDS_AT)
        return Bounds(Tnum(value, mask), *ranges)


def _apply(what: int, a: Bounds, b: Bounds = UNKNOWN, arg: int = 0, flag: int = 0) -> Bounds:
    registers = _Registers(a, b)
    registers.run(what, arg, flag)
    return registers.bounds()


def reg_bounds_sync(
    var_off: Tnum, smin: int, smax: int, umin: int, umax: int, s32_min: int, s32_max: int, u32_min: int, u32_max: int
) -> Bounds:
    """Let known bits, 64-bit and 32-bit ranges refine each other; contradictory input gives `UNKNOWN`."""
    return _apply(SCALAR_SYNC, Bounds(var_off, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max))


def adjust_scalar64(op: int, dst: Bounds, src: Bounds) -> Bounds:
    """`dst op src` in 64 bits."""
    return _apply(SCALAR_ALU64, dst, src, op)


def adjust_scalar32(op: int, dst: Bounds, src: Bounds) -> Bounds:
    """`(u32)dst op (u32)src`, zero-extended."""
    return _apply(SCALAR_ALU32, dst, src, op)


def byte_order(b: Bounds, size: int, swap: bool) -> Bounds:
    """The low `size` bytes, reversed where `swap`, zero-extended."""
    return _apply(SCALAR_BYTE_ORDER, b, arg=size, flag=int(swap))


def zext_32_to_64(b: Bounds) -> Bounds:
    """The low 32 bits, zero-extended."""
    return _apply(SCALAR_ZEXT, b)


def coerce_to_size(b: Bounds, size: int) -> Bounds:
    """Truncated to `size` bytes and zero-extended."""
    return _apply(SCALAR_COERCE, b, arg=size)


def coerce_to_size_sx(b: Bounds, size: int) -> Bounds:
    """The low `size` bytes, sign-extended to 64 bits."""
    return _apply(SCALAR_COERCE_SX, b, arg=size)


def coerce_subreg_to_size_sx(b: Bounds, size: int) -> Bounds:
    """The low `size` bytes, sign-extended to 32 bits, then zero-extended."""
    return _apply(SCALAR_COERCE_SUBREG_SX, b, arg=size)


def range_within(old: Bounds, cur: Bounds) -> bool:
    """Whether every value that `cur` allows is allowed by `old`."""
    return bool(_Registers(old, cur).run(SCALAR_WITHIN))


def is_branch_taken(a: Bounds, b: Bounds, op: int, is_jmp32: bool) -> int:
    """1: always taken, 0: never, -1: not known."""
    return _Registers(a, b).run(SCALAR_TAKEN, op, int(is_jmp32))


def regs_refine_cond(a: Bounds, b: Bounds, op: int, taken: bool, is_jmp32: bool) -> tuple[Bounds, Bounds]:
    """Bounds of both operands on the way where `a op b` is `taken`."""
    registers = _Registers(a, b)
    registers.run(SCALAR_REFINE, op, int(is_jmp32), int(taken))
    return registers.bounds(0), registers.bounds(1)
