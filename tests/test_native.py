"""The engine and the compiler's own routines."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrtp.errors import JitError
from fastrtp.native import compiler_rt, engine

WORDS = st.integers(0, 2**64 - 1)
HIGH = st.just(0) | WORDS
_FUNCTION = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3)

CALLS = """
define void @divide(ptr %n, ptr %d, ptr %out) {
  %a = load i128, ptr %n, align 8
  %b = load i128, ptr %d, align 8
  %q = udiv i128 %a, %b
  %r = urem i128 %a, %b
  store i128 %q, ptr %out, align 8
  %more = getelementptr i8, ptr %out, i64 16
  store i128 %r, ptr %more, align 8
  ret void
}
"""


@pytest.fixture(scope="module")
def divide() -> engine.NativeModule:
    code = engine.emit_object(engine.parse(CALLS))
    return engine.NativeModule(code, ["divide"], compiler_rt.symbols(code))


@given(HIGH, WORDS, HIGH, WORDS)
def test_128_bit_division_is_exact(divide: engine.NativeModule, a: int, b: int, c: int, d: int) -> None:
    numerator, divisor = a << 64 | b, (c << 64 | d) or 1
    n, m, out = ((ctypes.c_uint64 * 4)() for _ in range(3))
    n[:2], m[:2] = (b, a), (divisor & (2**64 - 1), divisor >> 64)

    _FUNCTION(divide.addresses["divide"])(n, m, out)

    assert (out[0] | out[1] << 64, out[2] | out[3] << 64) == divmod(numerator, divisor)


def test_an_object_that_names_no_routine_gets_none() -> None:
    code = engine.emit_object(engine.parse("define void @nothing() { ret void }"))

    assert compiler_rt.symbols(code) == {}


def test_text_that_is_no_module_says_why() -> None:
    with pytest.raises(JitError, match="expected"):
        engine.parse("define nonsense")


def test_a_symbol_that_is_nowhere_is_an_error() -> None:
    text = "declare void @nowhere()\ndefine void @f() {\n  call void @nowhere()\n  ret void\n}"
    code = engine.emit_object(engine.parse(text))

    with pytest.raises(JitError):
        engine.NativeModule(code, ["f"], {})
