"""The log at level 1, line by line, here and on the running kernel: joins, numbers that are linked, callbacks, tail calls."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from fastrtp.isa import assemble
from tests.fuzz import native
from tests.fuzz.generator import Program
from tests.fuzz.host import HostKernel

LOOKUP = "*(u64 *)(r10 -8) = 0\nr2 = r10\nr2 += -8\nr1 = map[fd:1]\ncall bpf_map_lookup_elem#1\n"
BAD = "r0 = *(u8 *)(r9 +0)\nexit\n"
PROGRAMS = {
    "a join": f"r9 = 1\n{LOOKUP}if r0 != 0 goto on\nr0 = 0\nexit\non:\n{BAD}",
    "a join behind a join": (
        f"r9 = 1\n{LOOKUP}if r0 == 0 goto out\nr8 = *(u64 *)(r0 +0)\nif r8 > 7 goto on\nout:\nr0 = 0\nexit\non:\n{BAD}"
    ),
    "a join where nothing was said of the other way": (
        f"r9 = 1\nr8 = *(u64 *)(r1 +0)\nif r8 & 1 goto on\nr0 = 0\nexit\non:\n{BAD}"
    ),
    "a number in two slots": (
        "r9 = 1\nr8 = *(u64 *)(r1 +0)\n*(u64 *)(r10 -8) = r8\n*(u64 *)(r10 -16) = r8\n"
        f"if r8 > 8 goto on\n{BAD}on:\nr0 = 0\nexit\n"
    ),
    "a callback": (
        f"r9 = 1\n*(u64 *)(r10 -8) = 5\nr1 = 4\nr2 = subprog[cb]\nr3 = 0\nr4 = 0\ncall bpf_loop#181\n{BAD}cb:\nr0 = 0\nexit\n"
    ),
    "a tail call in a function": (
        f"r9 = 1\ncall f\n{BAD}f:\nr2 = map[fd:4]\nr3 = 1\ncall bpf_tail_call#12\nr0 = 0\nexit\n"
    ),
    "a function": f"r9 = 1\ncall f\n{BAD}f:\nr0 = 3\nexit\n",
    "a value of an array that is known to be there": (
        "r9 = 1\n*(u32 *)(r10 -4) = 0\nr2 = r10\nr2 += -4\nr1 = map[fd:2]\ncall bpf_map_lookup_elem#1\n"
        f"r8 = *(u64 *)(r0 +0)\n*(u64 *)(r10 -16) = r8\n{BAD}"
    ),
    "a dynptr that is read": (
        f"r9 = 1\nr1 = map[fd:9][0]+0\nr2 = 8\nr3 = 0\nr4 = r10\nr4 += -16\ncall bpf_dynptr_from_mem#197\n"
        f"r1 = r10\nr1 += -16\nr2 = 0\nr3 = 8\ncall bpf_dynptr_data#203\n{BAD}"
    ),
    "a result that is not one": f"r9 = r1\nr2 = map[fd:4]\nr3 = 1\ncall bpf_tail_call#12\nr9 = 1\n{BAD}",
    "byte order": f"r9 = 1\nr0 = 3\nr8 = *(u64 *)(r1 +0)\nr8 = be16 r8\n{BAD}",
}  # fmt: skip
JOIN = """\
0: R1=ctx() R10=fp0
0: (b7) r9 = 1                        ; R9=1
1: (7a) *(u64 *)(r10 -8) = 0          ; R10=fp0 fp-8=0
2: (bf) r2 = r10                      ; R2=fp0 R10=fp0
3: (07) r2 += -8                      ; R2=fp-8
4: (18) r1 = map[fd:0]                ; R1=map_ptr(ks=8,vs=48)
6: (85) call bpf_map_lookup_elem#1    ; R0=map_value_or_null(id=1,ks=8,vs=48)
7: (55) if r0 != 0x0 goto pc+2 10: R0=map_value(ks=8,vs=48) R9=1 R10=fp0 fp-8=0
10: (71) r0 = *(u8 *)(r9 +0)
R9 invalid mem access 'scalar'
"""


def lines(log: str) -> list[str]:
    """Without addresses, and the statistics."""
    text = re.sub(r"(r\d) = (0x[0-9a-f]+|map\[fd:\d+\](\[0\]\+\d+)?|subprog\S*)( *);", r"\1 = X ;", log)
    said = [line.rstrip() for line in text.splitlines() if line.strip()]
    return [line for line in said if not line.startswith(("processed ", "verification time", "stack depth"))]


def ours(name: str) -> str:
    return native.log(Program(assemble(PROGRAMS[name])), 1, None, 1)[1]


def test_a_join_goes_on_in_the_line_of_its_jump() -> None:
    """Where the newline was there is a space, as bpf_vlog_reset leaves it."""
    assert lines(ours("a join")) == lines(JOIN)


@pytest.fixture(scope="module")
def host() -> Iterator[HostKernel]:
    host = HostKernel()
    if not host.usable or not os.uname().release.startswith("6.18."):
        pytest.skip("compared with Linux 6.18 where bpf(2) is allowed")
    yield host
    host.close()


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_log_is_linux_s(name: str, host: HostKernel) -> None:
    theirs = host.log(Program(assemble(PROGRAMS[name])), 1)[1]

    assert lines(ours(name)) == lines(theirs)
