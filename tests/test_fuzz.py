"""A small count of generated programs (tests/fuzz); the long runs are `python -m tests.fuzz --seed S --count N --kernel`."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform != "linux", reason="programs run in forked children")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fastrtp.isa import assemble  # noqa: E402
from tests.fuzz.__main__ import run  # noqa: E402
from tests.fuzz.check import FATAL  # noqa: E402
from tests.fuzz.generator import Program, generate  # noqa: E402
from tests.fuzz.host import HostKernel  # noqa: E402
from tests.fuzz.minimise import minimise, without  # noqa: E402
from tests.fuzz.native import verify  # noqa: E402
from tests.fuzz.shadow import InterpreterError, Shadow  # noqa: E402


def test_programs_are_a_function_of_seed_and_number() -> None:
    """The same numbers give the same programs, whatever ran before."""
    first = [generate(7, number) for number in range(5)]
    random.seed(1)

    assert [generate(7, number) for number in range(5)] == first
    assert generate(8, 0) != first[0]


def test_native_code_and_interpreter_agree() -> None:
    """No crash, no access outside an object, no other r0 or memory: between guard pages and in the interpreter."""
    tally = run(11, 0, 100, kernel=False)

    assert tally.counts["programs"] == 100
    assert tally.counts["run: stable"] > 10
    assert [find for find in tally.finds if set(find.kinds) & set(FATAL)] == []


def test_the_running_kernel_agrees() -> None:
    """Nothing that the kernel refuses is accepted, and what both accept gives the same r0 and map contents."""
    host = HostKernel()
    usable = host.usable
    host.close()
    if not usable or not os.uname().release.startswith("6.18"):
        pytest.skip("bpf(2) is not allowed here, or the kernel is not 6.18")
    tally = run(12, 0, 100, kernel=True)

    assert tally.counts["compared with the kernel"] == 100
    assert [find for find in tally.finds if set(find.kinds) & set(FATAL)] == []


def test_the_interpreter_stops_at_the_end_of_a_value() -> None:
    """One byte behind an array's value is nobody's, whatever a verifier might say."""
    insns = assemble("r1 = map[fd:9][0]+15\nr0 = *(u8 *)(r1 +0)\nr0 = *(u8 *)(r1 +1)\nexit")
    insns[0] = insns[0]._replace(imm=0)

    with pytest.raises(InterpreterError, match="insn 3: 1 bytes"):
        Shadow(insns, [9], 0).run()
    assert verify(Program([insn._replace(imm=9) if i == 0 else insn for i, insn in enumerate(insns)]))[0] is None


def test_dropping_instructions_keeps_jumps() -> None:
    """A jump across what goes still reaches its target, and only what the find needs stays."""
    insns = assemble("r1 = 1\nif r1 == 2 goto out\nr2 = 3\nr3 = 4\nout:\nr0 = 0\nexit")

    assert without(insns, 2, 1) == assemble("r1 = 1\nif r1 == 2 goto out\nr3 = 4\nout:\nr0 = 0\nexit")
    assert minimise(Program(insns), lambda small: any(insn.imm == 4 for insn in small.insns)).insns == assemble("r3 = 4")
