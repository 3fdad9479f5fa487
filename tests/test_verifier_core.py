"""The verifier's native core: its limits, its memory, and what Python and it hand each other."""

from __future__ import annotations

import _thread
import threading
import time

import pytest

from fastrtp.errors import VerifierError
from fastrtp.isa import assemble
from fastrtp.uapi import BpfProgType
from fastrtp.verifier import LoadAttr
from fastrtp.verifier.report.log import VerifierLog
from fastrtp.verifier.rules import check
from fastrtp.verifier.rules.check import bpf_check
from fastrtp.verifier.rules.env import BpfVerifierEnv, Limits

RAW_TP = BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT


class Array:
    """A map of 64 values of 16 bytes."""

    map_type, key_size, value_size, max_entries, map_flags = 2, 4, 16, 64, 0
    frozen, name = False, "array"

    def read_value(self, offset: int, size: int) -> bytes:
        """Zeroes."""
        return bytes(size)


ARRAY = Array()


def attr(text: str, level: int = 0) -> LoadAttr:
    """A raw_tp program; every descriptor is the array."""
    return LoadAttr(RAW_TP, assemble(text), lambda _fd: ARRAY, log_level=level)


def message(text: str) -> str:
    """What the program is refused with."""
    with pytest.raises(VerifierError) as caught:
        bpf_check(attr(text))
    return str(caught.value.strerror)


LOOKUP = """
r1 = 0
*(u32 *)(r10 -4) = r1
r2 = r10
r2 += -4
r1 = map[fd:1]
call bpf_map_lookup_elem
if r0 == 0 goto out
"""
LONG = "r6 = 0\nagain:\nr6 += 1\nif r6 < 2000000 goto again\nr0 = 0\nexit"


def test_a_million_instructions_are_the_limit() -> None:
    """A loop of constants that goes on for longer is refused, in bounded time and memory."""
    assert message(LONG) == "BPF program is too large. Processed 1000001 insn"


def test_an_interrupt_ends_a_long_run() -> None:
    """Ctrl-C comes through between two slices of the core's work; the next run is not disturbed."""
    threading.Timer(0.02, _thread.interrupt_main).start()
    began = time.monotonic()

    def until_interrupted() -> None:
        while time.monotonic() - began < 60:
            with pytest.raises(VerifierError):
                bpf_check(attr(LONG))

    with pytest.raises(KeyboardInterrupt):
        until_interrupted()

    assert bpf_check(attr("r0 = 0\nexit")).verified_insns == 2


def test_waiting_branches_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """More branches than may wait are a refusal, not an overrun."""
    branches = "r6 = *(u64 *)(r1 +0)\n" + "if r6 & 1 goto out\nr6 >>= 1\n" * 40 + "out:\nr0 = 0\nexit"
    monkeypatch.setattr(check, "Limits", lambda **limits: Limits(jumps=16, **limits))

    assert message(branches) == "The sequence of 17 jumps is too complex."


def test_memory_of_states_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that would keep more than it may is refused with ENOMEM, and gives all of it back."""
    monkeypatch.setattr(check, "Limits", lambda **limits: Limits(bytes=1 << 17, **limits))
    with pytest.raises(VerifierError) as caught:
        bpf_check(attr(LONG))

    assert caught.value.errno == 12
    assert caught.value.strerror == "no memory for the verifier's states"


def test_everything_is_given_back() -> None:
    """After a run the core holds no bytes and no states."""
    env = BpfVerifierEnv(attr(LOOKUP + "out:\nr0 = 0\nexit"), VerifierLog(0))
    assert check._run(env) is None

    assert not any(env.numbers)


def test_runs_in_threads_do_not_meet() -> None:
    """Each run has memory of its own."""
    found: list[int] = []
    text = "r6 = 0\nagain:\nr6 += 1\nif r6 < 3000 goto again\nr0 = 0\nexit"
    threads = [threading.Thread(target=lambda: found.append(bpf_check(attr(text)).verified_insns)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 1
    assert len(found) == 4


def test_many_constants_that_name_things() -> None:
    """What Python decides for an instruction is remembered for any number of them."""
    program = bpf_check(attr("r1 = map[fd:1]\n" * 700 + "r0 = 0\nexit"))

    assert program.verified_insns == 702


@pytest.mark.parametrize(
    ("bound", "refusal"),
    [
        ("w4 += -4\nif r4 > 8 goto out", ""),
        ("w4 -= 4\nif r4 > 8 goto out", ""),
        ("w4 += -4\nif r4 > 60 goto out", "R0 max value is outside of the allowed memory range"),
    ],
)
def test_sums_of_32_bits_stay_linked(bound: str, refusal: str) -> None:
    """What is learnt of `w4 = w5 + c` holds for r5, where r5 has no upper half."""
    text = LOOKUP + f"r5 = *(u8 *)(r0 +0)\nr4 = r5\n{bound}\nr0 += r5\nr1 = *(u8 *)(r0 +0)\nout:\nr0 = 0\nexit"
    if refusal:
        assert message(text) == refusal
    else:
        assert bpf_check(attr(text)).verified_insns


def test_a_sum_of_32_bits_says_nothing_of_64() -> None:
    """A value that may have an upper half is not bounded by its lower one."""
    text = LOOKUP + "r5 = *(u64 *)(r0 +0)\nr4 = r5\nw4 += -4\nif r4 > 8 goto out\nr0 += r5\nout:\nr0 = 0\nexit"

    assert message(text).startswith("math between map_value pointer and register with unbounded min value")


def test_an_atomic_on_the_context_is_refused_by_name() -> None:
    """Atomics on memory that the core does not know come out with the message of the pointer's kind."""
    assert message("r2 = 1\nlock *(u64 *)(r1 +0) += r2\nr0 = 0\nexit") == "BPF_ATOMIC stores into R1 ctx is not allowed"


def test_the_log_is_the_same_path() -> None:
    """With a log, an instruction at a time: as many instructions, and each of them in it."""
    text = LOOKUP + "r6 = *(u64 *)(r0 +8)\nif r6 == 7 goto out\nr0 = 1\nexit\nout:\nr0 = 0\nexit"
    plain, logged = bpf_check(attr(text)), bpf_check(attr(text, level=2))

    assert plain.verified_insns == logged.verified_insns
    assert "R0=map_value(map=array,ks=4,vs=16)" in logged.log
