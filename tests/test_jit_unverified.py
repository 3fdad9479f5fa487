"""fastrtp.jit.run and compile: instructions without the verifier, through the cache and the native library."""

from __future__ import annotations

import ctypes

import pytest
from insn_cases import Case, read_cases

from fastrtp.errors import AsmError, JitError
from fastrtp.isa import assemble, encode
from fastrtp.jit import compile, run

CASES = [case for case in read_cases() if "result" in case.sections and "call 1" not in case.asm]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_run(case: Case) -> None:
    """r0 of each instruction case."""
    assert run(encode(assemble(case.asm)), case.mem) == case.result


def test_compile_runs_on_the_memory_itself() -> None:
    """The compiled program is called with an address and a length, and writes there."""
    program = compile(encode(assemble("*(u8 *)(r1 +1) = 7\nr0 = r2\nexit")))
    buffer = ctypes.create_string_buffer(b"abc", 3)

    assert program(ctypes.addressof(buffer), 3) == 3
    assert buffer.raw == b"a\x07c"


def test_what_is_no_program_is_refused() -> None:
    """Odd lengths are AsmError, everything else JitError."""
    with pytest.raises(AsmError):
        run(bytes(7))
    for insns in (b"", bytes(8), encode(assemble("r0 = 0")), encode(assemble("call 1\nexit"))):
        with pytest.raises(JitError):
            run(insns)
