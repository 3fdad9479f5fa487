"""Soundness of the verifier's arithmetic: every concrete result lies within the abstract result."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrtp.isa import BPF_ADD, BPF_AND, BPF_ARSH, BPF_LSH, BPF_MUL, BPF_NEG, BPF_OR, BPF_RSH, BPF_SUB, BPF_XOR
from fastrtp.verifier.domain.bounds import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    UNKNOWN,
    Bounds,
    adjust_scalar32,
    adjust_scalar64,
    coerce_subreg_to_size_sx,
    coerce_to_size,
    coerce_to_size_sx,
    const_bounds,
    is_branch_taken,
    range_within,
    reg_bounds_sync,
    regs_refine_cond,
    s32,
    s64,
    zext_32_to_64,
)
from fastrtp.verifier.domain.tnum import U32, U64, Tnum, tnum_in, tnum_op

EDGES = [
    0,
    1,
    2,
    7,
    8,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x100000000,
    0x17FFFFFFF,
    0x180000000,
    S64_MAX,
    1 << 63,
    (1 << 63) + 1,
    U64 - 0x80000000,
    U64 - 0x7FFFFFFF,
    U64 - 1,
    U64,
]
values = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, U64),
    st.integers(0, 300),
    st.integers(U64 - 300, U64),
    st.integers(0x7FFFFF00, 0x80000100),
    st.integers(0xFFFFFF00, 0x100000100),
)


@st.composite
def tnums(draw: st.DrawFn) -> tuple[Tnum, int]:
    """A tnum and one of its values."""
    value = draw(values)
    mask = draw(values)
    return Tnum(value & ~mask, mask), value


@st.composite
def bounded(draw: st.DrawFn) -> tuple[Bounds, int]:
    """Bounds and one value within them, in the forms that programs make: constants, ranges, masks, several at once."""
    value = draw(values)
    if draw(st.integers(0, 4)) == 0:
        return const_bounds(value), value
    var_off, low, high, slow, shigh = Tnum(0, U64), 0, U64, S64_MIN, S64_MAX
    l32, h32, sl32, sh32 = 0, U32, S32_MIN, S32_MAX
    kinds = draw(st.integers(1, 63))
    if kinds & 1:
        mask = draw(values)
        var_off = Tnum(value & ~mask, mask)
    if kinds & 2:
        low, high = max(0, value - draw(values)), min(U64, value + draw(values))
    if kinds & 4:
        slow, shigh = max(S64_MIN, s64(value) - draw(values)), min(S64_MAX, s64(value) + draw(values))
    small = st.one_of(st.integers(0, 300), st.integers(0, U32))
    if kinds & 8:
        l32, h32 = max(0, (value & U32) - draw(small)), min(U32, (value & U32) + draw(small))
    if kinds & 16:
        sl32, sh32 = max(S32_MIN, s32(value) - draw(small)), min(S32_MAX, s32(value) + draw(small))
    return reg_bounds_sync(var_off, slow, shigh, low, high, sl32, sh32, l32, h32), value


def test_sync_keeps_the_value() -> None:
    """`reg_bounds_sync` never excludes a value that all its inputs allow."""

    @settings(max_examples=1000, deadline=None)
    @given(bounded())
    def check(case: tuple[Bounds, int]) -> None:
        bounds, value = case
        assert bounds.contains(value), bounds
        assert range_within(UNKNOWN, bounds)
        assert range_within(bounds, const_bounds(value))

    check()


TNUM_OPS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
}


@pytest.mark.parametrize("name", TNUM_OPS)
def test_tnum_operation_is_sound(name: str) -> None:
    """A tnum operation contains the result of any two values."""
    concrete = TNUM_OPS[name]

    @settings(max_examples=500, deadline=None)
    @given(tnums(), tnums())
    def check(a: tuple[Tnum, int], b: tuple[Tnum, int]) -> None:
        result = tnum_op(name, a[0], b[0])
        value = concrete(a[1], b[1]) & U64
        assert value & ~result.mask == result.value
        assert result.value & result.mask == 0

    check()


@settings(max_examples=800, deadline=None)
@given(tnums(), st.integers(0, 63))
def test_tnum_shifts_are_sound(a: tuple[Tnum, int], shift: int) -> None:
    """Shifts of a tnum contain the shifted value, arithmetic ones in both widths."""
    for result, value in (
        (tnum_op("lshift", a[0], shift), a[1] << shift & U64),
        (tnum_op("rshift", a[0], shift), a[1] >> shift),
        (tnum_op("arshift64", a[0], shift), s64(a[1]) >> shift & U64),
        (tnum_op("arshift32", a[0], shift & 31), s32(a[1]) >> (shift & 31) & U32),
    ):
        assert value & ~result.mask == result.value


@settings(max_examples=500, deadline=None)
@given(values, values, values)
def test_tnum_range_contains_its_values(x: int, y: int, z: int) -> None:
    """`tnum_range` contains the ends and what lies between; intersection keeps common values."""
    low, middle, high = sorted((x, y, z))
    t = tnum_op("range", Tnum(low, 0), high)
    for v in (low, middle, high):
        assert tnum_in(t, Tnum(v, 0))
    both = tnum_op("intersect", t, Tnum(middle & ~0xFF, 0xFF))
    assert tnum_in(both, Tnum(middle, 0))


OPS64 = {
    BPF_ADD: lambda x, y: x + y,
    BPF_SUB: lambda x, y: x - y,
    BPF_MUL: lambda x, y: x * y,
    BPF_AND: lambda x, y: x & y,
    BPF_OR: lambda x, y: x | y,
    BPF_XOR: lambda x, y: x ^ y,
    BPF_NEG: lambda x, y: -x,
    BPF_LSH: lambda x, y: x << (y & 63),
    BPF_RSH: lambda x, y: x >> (y & 63),
    BPF_ARSH: lambda x, y: s64(x) >> (y & 63),
}
OPS32 = OPS64 | {
    BPF_LSH: lambda x, y: x << (y & 31),
    BPF_RSH: lambda x, y: x >> (y & 31),
    BPF_ARSH: lambda x, y: s32(x) >> (y & 31),
}


@pytest.mark.parametrize("op", OPS64)
def test_alu64_is_sound(op: int) -> None:
    """The bounds of a 64-bit result contain the result."""

    @settings(max_examples=700, deadline=None)
    @given(bounded(), bounded())
    def check(a: tuple[Bounds, int], b: tuple[Bounds, int]) -> None:
        result = adjust_scalar64(op, a[0], b[0])
        value = OPS64[op](a[1], b[1]) & U64
        assert result.contains(value), (hex(a[1]), hex(b[1]), a[0], b[0], result)

    check()


@pytest.mark.parametrize("op", OPS32)
def test_alu32_is_sound(op: int) -> None:
    """The bounds of a 32-bit result contain the zero-extended result."""

    @settings(max_examples=700, deadline=None)
    @given(bounded(), bounded())
    def check(a: tuple[Bounds, int], b: tuple[Bounds, int]) -> None:
        result = adjust_scalar32(op, a[0], b[0])
        value = OPS32[op](a[1] & U32, b[1] & U32) & U32
        assert result.contains(value), (hex(a[1]), hex(b[1]), a[0], b[0], result)

    check()


@settings(max_examples=1300, deadline=None)
@given(bounded(), st.sampled_from([8, 16, 32, 64]))
def test_casts_are_sound(a: tuple[Bounds, int], bits: int) -> None:
    """Truncations and sign extensions contain the converted value."""
    bounds, value = a
    limit, sign = (1 << bits) - 1, 1 << (bits - 1)
    low = value & limit
    extended = (low - limit - 1 if low & sign else low) & U64

    assert coerce_to_size(bounds, bits // 8).contains(low)
    assert coerce_to_size_sx(bounds, bits // 8).contains(extended)
    if bits <= 32:
        assert coerce_subreg_to_size_sx(bounds, bits // 8).contains(extended & U32)
    assert zext_32_to_64(bounds).contains(value & U32)


CONDITIONS = {
    "==": lambda x, y, sx, sy: x == y,
    "!=": lambda x, y, sx, sy: x != y,
    "&": lambda x, y, sx, sy: bool(x & y),
    ">": lambda x, y, sx, sy: x > y,
    ">=": lambda x, y, sx, sy: x >= y,
    "<": lambda x, y, sx, sy: x < y,
    "<=": lambda x, y, sx, sy: x <= y,
    "s>": lambda x, y, sx, sy: sx > sy,
    "s>=": lambda x, y, sx, sy: sx >= sy,
    "s<": lambda x, y, sx, sy: sx < sy,
    "s<=": lambda x, y, sx, sy: sx <= sy,
}
OPCODES = {
    "==": 0x10,
    "!=": 0x50,
    "&": 0x40,
    ">": 0x20,
    ">=": 0x30,
    "<": 0xA0,
    "<=": 0xB0,
    "s>": 0x60,
    "s>=": 0x70,
    "s<": 0xC0,
    "s<=": 0xD0,
}


@pytest.mark.parametrize("is_jmp32", [False, True])
@pytest.mark.parametrize("name", CONDITIONS)
def test_branches_are_sound(name: str, is_jmp32: bool) -> None:
    """A decided branch is decided right, and refined bounds keep the values that go each way."""
    op = OPCODES[name]

    @settings(max_examples=800, deadline=None)
    @given(bounded(), bounded())
    def check(a: tuple[Bounds, int], b: tuple[Bounds, int]) -> None:
        x, y = a[1], b[1]
        if is_jmp32:
            x, y = x & U32, y & U32
            taken = CONDITIONS[name](x, y, s32(x), s32(y))
        else:
            taken = CONDITIONS[name](x, y, s64(x), s64(y))
        decided = is_branch_taken(a[0], b[0], op, is_jmp32)
        assert decided in (-1, int(taken)), (a, b)
        first, second = regs_refine_cond(a[0], b[0], op, taken, is_jmp32)
        assert first.contains(a[1]), (hex(a[1]), hex(b[1]), a[0], b[0], first)
        assert second.contains(b[1]), (hex(a[1]), hex(b[1]), a[0], b[0], second)

    check()


@given(values)
def test_constants_in_python_are_those_of_the_core(value: int) -> None:
    """`const_bounds` is what the core makes of a value whose bits are all known."""
    assert reg_bounds_sync(Tnum(value, 0), S64_MIN, S64_MAX, 0, U64, S32_MIN, S32_MAX, 0, U32) == const_bounds(value)


@settings(max_examples=500, deadline=None)
@given(tnums(), tnums())
def test_tnum_in_is_the_core_s(a: tuple[Tnum, int], b: tuple[Tnum, int]) -> None:
    """Ranges that say nothing are within each other where the known bits are."""
    unknown = [Bounds(one[0], S64_MIN, S64_MAX, 0, U64, S32_MIN, S32_MAX, 0, U32) for one in (a, b)]
    assert range_within(*unknown) == tnum_in(a[0], b[0])
