"""Calls with odd arguments and functions that are never entered: errno and last line, here and on the running kernel."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from fastrtp.isa import assemble
from tests.fuzz import native
from tests.fuzz.features import ITER_DESTROY, ITER_NEW, ITER_NEXT
from tests.fuzz.generator import Program
from tests.fuzz.host import HostKernel

END = "r0 = 0\nexit\n"
NULL = "Possibly NULL pointer passed to trusted arg0"
NOT_AN_ITERATOR = "arg#0 expected pointer to an iterator on stack"
MAYBE = "*(u64 *)(r10 -8) = 0\nr2 = r10\nr2 += -8\nr1 = map[fd:1]\ncall bpf_map_lookup_elem#1\nr1 = r0"


def iterate(function: int, pointer: str, begin: str = "r2 = 0") -> str:
    """A call of one of the three."""
    return f"{pointer}\n{begin}\nr3 = 10\ncall kernel-function#{function}\n{END}"


def loop(callback: str, times: int = 0) -> str:
    return f"r1 = {times}\nr2 = subprog[{callback}]\nr3 = 0\nr4 = 0\ncall bpf_loop#181\n"


CASES: dict[str, tuple[str, int, str]] = {
    "a new iterator at NULL": (iterate(ITER_NEW, "r1 = 0"), 13, NULL),
    "NULL counts before the numbers": (iterate(ITER_NEW, "r1 = 0", "r2 = r10"), 13, NULL),
    "the next value of NULL": (iterate(ITER_NEXT, "r1 = 0"), 13, NULL),
    "the end of NULL": (iterate(ITER_DESTROY, "r1 = 0"), 13, NULL),
    "a value that may be NULL": (iterate(ITER_NEXT, MAYBE), 13, NULL),
    "a number for an iterator": (iterate(ITER_NEW, "r1 = 5"), 22, NOT_AN_ITERATOR),
    "the context for an iterator": (iterate(ITER_NEXT, "r1 = r1"), 22, NOT_AN_ITERATOR),
    "a new iterator above the stack": (iterate(ITER_NEW, "r1 = r10"), 13, "invalid write to stack R1 off=0 size=8"),
    "the next value of what is above the stack": (
        iterate(ITER_NEXT, "r1 = r10"), 22, "expected an initialized iter_num as arg #0",
    ),
    "a beginning that was never set": (iterate(ITER_NEW, "r1 = r10\nr1 += -8", ""), 22, "R2 is not a scalar"),
    "a callback that is never entered, by itself": (f"{loop('cb')}{END}cb:\n{END}", 0, ""),
    "a callback that is never entered, behind a function": (
        f"call f\n{loop('cb')}{END}f:\n{END}cb:\n{END}", 14, "verifier bug: No program to jit at insn 29 (subprog < 0)",
    ),
    "a callback that is never entered, before a function": (f"call f\n{loop('cb')}{END}cb:\n{END}f:\n{END}", 0, ""),
    "two that are never entered, before a function": (
        f"call f\n{loop('a')}{loop('b')}{END}a:\n{END}b:\n{END}f:\n{END}", 14,
        "verifier bug: No program to jit at insn 53 (subprog < 0)",
    ),
    "two that are never entered, as long as a function": (
        f"call f\ncall g\n{loop('a')}{loop('b')}{END}a:\n{END}b:\n{END}f:\n{END}g:\n{END}", 0, "",
    ),
    "a callback that nobody is given": (
        f"call f\nr2 = subprog[cb]\n{END}f:\n{END}cb:\n{END}", 14, "verifier bug: No program to jit at insn 7 (subprog < 0)",
    ),
    "a callback that is entered": (f"call f\n{loop('cb', 1)}{END}f:\n{END}cb:\n{END}", 0, ""),
}  # fmt: skip


@pytest.fixture(scope="module")
def host() -> Iterator[HostKernel]:
    host = HostKernel()
    if not host.usable or not os.uname().release.startswith("6.18."):
        pytest.skip("compared with Linux 6.18 where bpf(2) is allowed")
    yield host
    host.close()


@pytest.mark.parametrize("name", CASES)
def test_verdict(name: str) -> None:
    text, errno, message = CASES[name]
    verdict = native.verify(Program(assemble(text)))[1]

    assert (verdict.errno, verdict.message) == (errno, message)


@pytest.mark.parametrize("name", CASES)
def test_verdict_of_linux(name: str, host: HostKernel) -> None:
    text, errno, message = CASES[name]
    fd, verdict = host.load(Program(assemble(text)))
    if fd >= 0:
        host.close_prog(fd)

    assert (verdict.errno, verdict.message) == (errno, message)
