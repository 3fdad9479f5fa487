"""Every instruction case, on the reference interpreter and on the JIT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from insn_cases import Case, read_cases
from interpreter import Interpreter, InterpreterError, run
from native_code import NativeCode

from fastrtp.errors import JitError
from fastrtp.isa import OPCODES, assemble, decode, is_ld_imm64, lookup

CASES = read_cases()
HELPERS = {1: lambda *args: sum(factor * arg for factor, arg in enumerate(args, 1)) & (1 << 64) - 1}
NEEDS_A_MAP = {"ld_map_fd", "ld_map_value", "ld_map_idx", "ld_map_idx_value", "ld_btf_id"}


def case_id(case: Case) -> str:
    """Name of a case, for pytest."""
    return case.name


@pytest.mark.parametrize("case", [case for case in CASES if "result" in case.sections], ids=case_id)
def test_case_on_the_interpreter(case: Case) -> None:
    """r0 and the memory at exit are the case's."""
    interpreter = Interpreter(assemble(case.asm), bytearray(case.mem), HELPERS)

    assert interpreter.run() == case.result
    assert interpreter.mem == bytes.fromhex(case.sections.get("after", case.mem.hex()))


@pytest.mark.parametrize("smp", [False, True], ids=["up", "smp"])
@pytest.mark.parametrize("case", [case for case in CASES if "result" in case.sections], ids=case_id)
def test_case_on_the_jit(case: Case, smp: bool) -> None:
    """r0 and the memory at exit are the case's, with one CPU's atomics and with several CPUs'."""
    code = NativeCode(assemble(case.asm), smp=smp, helpers=HELPERS)

    assert code.run(case.mem) == (case.result, bytes.fromhex(case.sections.get("after", case.mem.hex())))


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case.sections], ids=case_id)
def test_case_that_is_refused(case: Case) -> None:
    """The JIT names the instruction and says why it cannot be compiled."""
    with pytest.raises(JitError) as caught:
        NativeCode(assemble(case.asm), helpers=HELPERS)

    assert case.sections["error"].strip() in str(caught.value)


def test_every_row_has_a_case() -> None:
    """No instruction of the table goes without."""
    used = set()
    for case in CASES:
        insns = assemble(case.asm)
        slots = [index for index in range(len(insns)) if not (index and is_ld_imm64(insns[index - 1]))]
        used |= {row.name for index in slots if (row := lookup(insns[index]))}

    assert {row.name for row in OPCODES} - used == set()


def vectors(shared: Path) -> list[dict[str, str]]:
    """The ISA vectors of the bpf_conformance project."""
    return [json.loads(line) for line in (shared / "oracle" / "isa.jsonl").read_text().splitlines()]


def test_conformance_vectors_on_the_interpreter(shared: Path) -> None:
    """All 157 give the expected r0."""
    helpers = {5: lambda r1, r2, r3, r4, r5: r1}
    wrong = {}
    cases = vectors(shared)
    for case in cases:
        try:
            result: object = run(decode(bytes.fromhex(case["insns"])), bytes.fromhex(case["mem"]), helpers)
        except InterpreterError as error:
            result = error
        if result != int(case["result"], 0):
            wrong[case["name"]] = result

    assert (len(cases), wrong) == (157, {})


@pytest.mark.parametrize("smp", [False, True], ids=["up", "smp"])
def test_conformance_vectors_on_the_jit(shared: Path, smp: bool) -> None:
    """All 157 give the expected r0."""
    helpers = {5: lambda r1, r2, r3, r4, r5: r1}
    wrong = {}
    for case in vectors(shared):
        code = NativeCode(decode(bytes.fromhex(case["insns"])), smp=smp, helpers=helpers)
        result, _ = code.run(bytes.fromhex(case["mem"]))
        if result != int(case["result"], 0):
            wrong[case["name"]] = result

    assert wrong == {}
