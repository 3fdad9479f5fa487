"""Arithmetic on scalars: what an ALU operation does to `Bounds`, in 64 and in 32 bits.

Every function is pure and sound: the result contains every value that the operation can give for operands
within the arguments' bounds (tests/test_verifier_bounds.py checks that by drawing operands).
Kernel: kernel/bpf/verifier.c:adjust_scalar_min_max_vals and scalar_min_max_*, scalar32_min_max_*.
"""

from __future__ import annotations

from collections.abc import Callable

from fastrtp.isa import BPF_ADD, BPF_AND, BPF_ARSH, BPF_DIV, BPF_LSH, BPF_MOD, BPF_MUL, BPF_NEG, BPF_OR, BPF_RSH, BPF_SUB, BPF_XOR
from fastrtp.verifier.bounds import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    UNKNOWN,
    ZERO,
    Bounds,
    coerce_to_size,
    const_bounds,
    reg_bounds_sync,
    s32,
    s64,
    tnum_bounds,
)
from fastrtp.verifier.tnum import (
    U32,
    U64,
    Tnum,
    tnum_add,
    tnum_and,
    tnum_arshift,
    tnum_lshift,
    tnum_mul,
    tnum_or,
    tnum_rshift,
    tnum_sub,
    tnum_subreg,
    tnum_xor,
)

Ranges = tuple[int, int, int, int]
"""smin, smax, umin, umax of one width."""

_FULL64: Ranges = (S64_MIN, S64_MAX, 0, U64)
_FULL32: Ranges = (S32_MIN, S32_MAX, 0, U32)


def _limit(smin: int, smax: int, umin: int, umax: int, full: Ranges) -> Ranges:
    """Exact results of an operation, given up for the whole range where either end leaves the width."""
    if smin < full[0] or smax > full[1]:
        smin, smax = full[0], full[1]
    if umin < 0 or umax > full[3]:
        # both ends wrapped by the same multiple: the range stays one piece
        width = full[3] + 1
        if umin // width == umax // width:
            umin, umax = umin % width, umax % width
        else:
            umin, umax = 0, full[3]
    return smin, smax, umin, umax


def _add(a: Ranges, b: Ranges, full: Ranges) -> Ranges:
    return _limit(a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3], full)


def _sub(a: Ranges, b: Ranges, full: Ranges) -> Ranges:
    return _limit(a[0] - b[1], a[1] - b[0], a[2] - b[3], a[3] - b[2], full)


def _mul(a: Ranges, b: Ranges, full: Ranges) -> Ranges:
    products = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    umin, umax = a[2] * b[2], a[3] * b[3]
    if umax > full[3]:
        umin, umax = 0, full[3]
    return _limit(min(products), max(products), umin, umax, full)


def _and(a: Ranges, b: Ranges, var_off: Tnum, full: Ranges) -> Ranges:
    umin, umax = var_off.value, min(a[3], b[3])
    return (umin, umax, umin, umax) if umax <= full[1] else (full[0], full[1], umin, umax)


def _or(a: Ranges, b: Ranges, var_off: Tnum, full: Ranges) -> Ranges:
    umin, umax = max(a[2], b[2]), var_off.value | var_off.mask
    return (umin, umax, umin, umax) if umax <= full[1] else (full[0], full[1], umin, umax)


def _xor(var_off: Tnum, full: Ranges) -> Ranges:
    umin, umax = var_off.value, var_off.value | var_off.mask
    return (umin, umax, umin, umax) if umax <= full[1] else (full[0], full[1], umin, umax)


def _lsh(a: Ranges, shift: int, full: Ranges) -> Ranges:
    smin, smax = a[0] << shift, a[1] << shift
    umin, umax = a[2] << shift, a[3] << shift
    if umax > full[3]:
        umin, umax = 0, full[3]
    if smin < full[0] or smax > full[1]:
        smin, smax = full[0], full[1]
    return smin, smax, umin, umax


def _rsh(a: Ranges, shift: int, full: Ranges) -> Ranges:
    return full[0], full[1], a[2] >> shift, a[3] >> shift


def _arsh(a: Ranges, shift: int, full: Ranges) -> Ranges:
    return a[0] >> shift, a[1] >> shift, 0, full[3]


_TNUM: dict[int, Callable[[Tnum, Tnum], Tnum]] = {
    BPF_ADD: tnum_add,
    BPF_SUB: tnum_sub,
    BPF_MUL: tnum_mul,
    BPF_AND: tnum_and,
    BPF_OR: tnum_or,
    BPF_XOR: tnum_xor,
}
_ARITH: dict[int, Callable[[Ranges, Ranges, Ranges], Ranges]] = {BPF_ADD: _add, BPF_SUB: _sub, BPF_MUL: _mul}
_BITWISE: dict[int, Callable[[Ranges, Ranges, Tnum, Ranges], Ranges]] = {BPF_AND: _and, BPF_OR: _or}
_SHIFT: dict[int, Callable[[Ranges, int, Ranges], Ranges]] = {BPF_LSH: _lsh, BPF_RSH: _rsh, BPF_ARSH: _arsh}

ALU_SCALAR_OPS = frozenset({*_TNUM, BPF_XOR, *_SHIFT, BPF_NEG, BPF_DIV, BPF_MOD})
"""Operations that `adjust_scalar` knows; any other result is unknown."""


def _const_op(op: int, x: int, y: int, bits: int) -> int | None:
    """The result of two constants, or None where the verifier does not compute it."""
    limit = (1 << bits) - 1
    if op == BPF_ADD:
        return x + y & limit
    if op == BPF_SUB:
        return x - y & limit
    if op == BPF_MUL:
        return x * y & limit
    if op == BPF_AND:
        return x & y
    if op == BPF_OR:
        return x | y
    if op == BPF_XOR:
        return x ^ y
    if op == BPF_NEG:
        return -x & limit
    if y >= bits:
        return None
    if op == BPF_LSH:
        return x << y & limit
    if op == BPF_RSH:
        return x >> y
    if op == BPF_ARSH:
        return (s64(x) if bits == 64 else s32(x)) >> y & limit
    return None


def adjust_scalar64(op: int, dst: Bounds, src: Bounds) -> Bounds:
    """`dst op src` in 64 bits."""
    if not dst.var_off.mask and not src.var_off.mask:
        result = _const_op(op, dst.var_off.value, src.var_off.value, 64)
        return UNKNOWN if result is None else const_bounds(result)
    if op == BPF_NEG:
        return adjust_scalar64(BPF_SUB, ZERO, dst)
    a: Ranges = (dst.smin_value, dst.smax_value, dst.umin_value, dst.umax_value)
    b: Ranges = (src.smin_value, src.smax_value, src.umin_value, src.umax_value)
    if op in _SHIFT:
        if src.var_off.mask or src.var_off.value > 63:
            return UNKNOWN
        shift = src.var_off.value
        r = _SHIFT[op](a, shift, _FULL64)
        if op == BPF_LSH:
            var_off = tnum_lshift(dst.var_off, shift)
        elif op == BPF_RSH:
            var_off = tnum_rshift(dst.var_off, shift)
        else:
            var_off = tnum_arshift(dst.var_off, shift, 64)
    elif op in _TNUM:
        var_off = _TNUM[op](dst.var_off, src.var_off)
        if op in _ARITH:
            r = _ARITH[op](a, b, _FULL64)
        elif op in _BITWISE:
            r = _BITWISE[op](a, b, var_off, _FULL64)
        else:
            r = _xor(var_off, _FULL64)
    else:
        return UNKNOWN
    # the low half of add, sub, mul and the bitwise operations depends on the low halves only
    low = _ranges32(op, dst, src, tnum_subreg(var_off)) if op in _TNUM else _FULL32
    return reg_bounds_sync(var_off, *r, *low)


def _ranges32(op: int, dst: Bounds, src: Bounds, var_off: Tnum) -> Ranges:
    a: Ranges = (dst.s32_min_value, dst.s32_max_value, dst.u32_min_value, dst.u32_max_value)
    b: Ranges = (src.s32_min_value, src.s32_max_value, src.u32_min_value, src.u32_max_value)
    if op in _ARITH:
        return _ARITH[op](a, b, _FULL32)
    if op in _BITWISE:
        return _BITWISE[op](a, b, var_off, _FULL32)
    return _xor(var_off, _FULL32)


def adjust_scalar32(op: int, dst: Bounds, src: Bounds) -> Bounds:
    """`(u32)dst op (u32)src`, zero-extended."""
    dst_off, src_off = tnum_subreg(dst.var_off), tnum_subreg(src.var_off)
    if not dst_off.mask and not src_off.mask:
        result = _const_op(op, dst_off.value, src_off.value, 32)
        return UNKNOWN if result is None else const_bounds(result)
    if op == BPF_NEG:
        return adjust_scalar32(BPF_SUB, ZERO, dst)
    if op in _SHIFT:
        if src_off.mask or src_off.value > 31:
            return UNKNOWN
        shift = src_off.value
        a: Ranges = (dst.s32_min_value, dst.s32_max_value, dst.u32_min_value, dst.u32_max_value)
        low = _SHIFT[op](a, shift, _FULL32)
        if op == BPF_LSH:
            var_off = tnum_subreg(tnum_lshift(dst_off, shift))
        elif op == BPF_RSH:
            var_off = tnum_rshift(dst_off, shift)
        else:
            var_off = tnum_arshift(dst_off, shift, 32)
    elif op in _TNUM:
        var_off = tnum_subreg(_TNUM[op](dst_off, src_off))
        low = _ranges32(op, dst, src, var_off)
    else:
        return UNKNOWN
    return reg_bounds_sync(var_off, 0, U32, 0, U32, *low)


def add_bounds(a: Bounds, b: Bounds) -> Bounds:
    """64-bit sum; what pointer arithmetic does to the variable part of an offset."""
    return adjust_scalar64(BPF_ADD, a, b)


def sub_bounds(a: Bounds, b: Bounds) -> Bounds:
    """64-bit difference."""
    return adjust_scalar64(BPF_SUB, a, b)


def byte_order(b: Bounds, size: int, swap: bool) -> Bounds:
    """The low `size` bytes, reversed where `swap`, zero-extended. Kernel: scalar_byte_swap."""
    if not swap:
        return coerce_to_size(b, size)
    limit = (1 << 8 * size) - 1
    value, mask = ((x & limit).to_bytes(size, "little") for x in b.var_off)
    return tnum_bounds(Tnum(int.from_bytes(value, "big"), int.from_bytes(mask, "big")))
