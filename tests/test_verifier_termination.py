"""Loops without an end that Linux accepts are refused here; loops whose end is seen are pruned where Linux prunes them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from bench.verifier import MAPS, PROGRAMS, _named
from fastrtp.btf.kfuncs import kfunc_id
from fastrtp.isa import assemble
from fastrtp.uapi import BpfProgType
from fastrtp.verifier import LoadAttr, bpf_check
from tests.fuzz import native
from tests.fuzz.features import ITER_DESTROY, ITER_NEW, ITER_NEXT
from tests.fuzz.generator import Program
from tests.fuzz.host import HostKernel
from tests.fuzz.processed import Counts, counts


def at(place: int) -> str:
    return f"r1 = r10\nr1 += {place}\n"


def new(place: int = -8) -> str:
    return f"{at(place)}r2 = 0\nr3 = 10\ncall kernel-function#{ITER_NEW}\n"


def after(place: int = -8) -> str:
    """The next value."""
    return f"{at(place)}call kernel-function#{ITER_NEXT}\n"


def destroy(place: int = -8) -> str:
    return f"{at(place)}call kernel-function#{ITER_DESTROY}\n"


def each(place: int, label: str, body: str) -> str:
    """`body` for each value of a new iterator."""
    return f"{new(place)}{label}:\n{after(place)}if r0 == 0 goto {label}_end\n{body}goto {label}\n{label}_end:\n{destroy(place)}"


END = "r0 = 0\nexit\n"
CALLBACK = "cb:\nr0 = 0\nexit\n"
LOOP = "r1 = 1000\nr2 = subprog[cb]\nr3 = 0\nr4 = 0\ncall bpf_loop#181\n"
ENDLESS = {
    "made anew": f"again:\n{each(-8, 'a', '')}goto again\n",
    "made anew in another's loop, which is made anew": f"again:\n{each(-8, 'a', each(-16, 'b', ''))}goto again\n",
    "made anew in the loop that asks it": (
        f"{new()}a:\n{after()}if r0 == 0 goto done\n{destroy()}{new()}goto a\ndone:\n{destroy()}{END}"
    ),
    "NULL leads round, too": f"{new(-16)}a:\n{after(-16)}{each(-8, 'b', '')}goto a\n",
    "made anew by a function": f"again:\ncall f\ngoto again\nf:\n{each(-8, 'a', '')}{END}",
    "made anew by a function that is given the place": (
        f"{new()}a:\n{after()}if r0 == 0 goto done\n{at(-8)}call f\ngoto a\ndone:\n{destroy()}{END}"
        f"f:\nr6 = r1\ncall kernel-function#{ITER_DESTROY}\nr1 = r6\nr2 = 0\nr3 = 10\ncall kernel-function#{ITER_NEW}\n{END}"
    ),
    "calls that call back": f"again:\n{LOOP}goto again\n{CALLBACK}",
    "calls that call back, beside an iterator that is not asked": (
        f"{new()}{after()}again:\n{LOOP}goto again\n{CALLBACK}"
    ),
}  # fmt: skip
ENDING = {
    "one in another": (f"{each(-8, 'a', each(-16, 'b', ''))}{END}", 36),
    "three deep": (f"{each(-8, 'a', each(-16, 'b', each(-24, 'c', '')))}{END}", 53),
    "two in one": (f"{each(-8, 'a', each(-16, 'b', '') + each(-24, 'c', ''))}{END}", 53),
    "in a function": (f"{each(-8, 'a', 'call f' + chr(10))}{END}f:\n{each(-8, 'b', '')}{END}", 39),
    "NULL found with !=": (
        f"{new()}a:\n{after()}r6 = r0\nif r6 != 0 goto on\n{destroy()}{END}on:\n{each(-16, 'b', '')}goto a\n", 38,
    ),
    "calls that call back": (f"{each(-8, 'a', LOOP)}{END}{CALLBACK}", 27),
    "a may_goto": (f"a:\nmay_goto done\n{each(-8, 'b', '')}goto a\ndone:\n{END}", 22),
    "jumps out of both": (
        f"r6 = *(u64 *)(r1 +0)\n{each(-8, 'a', each(-16, 'b', 'if r6 > 5 goto out' + chr(10)))}{END}"
        f"out:\n{destroy(-16)}{destroy(-8)}{END}", 46,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def host() -> Iterator[HostKernel]:
    host = HostKernel()
    if not host.usable or not os.uname().release.startswith("6.18."):
        pytest.skip("compared with Linux 6.18 where bpf(2) is allowed")
    yield host
    host.close()


def test_many_rounds_around_a_loop_whose_iterator_is_made_anew() -> None:
    """No end of the outer loop is proved, so its 400 rounds are followed: a round's checkpoint must not be given up before."""
    named = _named(assemble(PROGRAMS["iterators"]), {number: number for number in MAPS}, lambda name: kfunc_id(None, name))

    verified = bpf_check(LoadAttr(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, named, MAPS.__getitem__, log_level=0))

    assert verified.verified_insns == 400 * 41 + 1


def ours(text: str) -> Counts:
    return counts(native.log(Program(assemble(text)), 4, None, 1))


@pytest.mark.parametrize("name", ENDLESS)
def test_a_loop_without_an_end_is_refused(name: str) -> None:
    assert ours(ENDLESS[name]).errno != 0


@pytest.mark.parametrize("name", ENDLESS)
def test_linux_accepts_it(name: str, host: HostKernel) -> None:
    assert counts(host.log(Program(assemble(ENDLESS[name])), 4)).errno == 0


@pytest.mark.parametrize("name", ENDING)
def test_a_loop_that_ends_takes_as_long_as_in_linux(name: str) -> None:
    text, processed = ENDING[name]

    found = ours(text)

    assert (found.errno, found.processed) == (0, processed)


@pytest.mark.parametrize("name", ENDING)
def test_figures_are_the_running_kernel_s(name: str, host: HostKernel) -> None:
    text, processed = ENDING[name]
    found = counts(host.log(Program(assemble(text)), 4))

    assert (found.errno, found.processed) == (0, processed)
