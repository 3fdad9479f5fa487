"""What a refusal says beyond the kernel's line: place, source, branches, the register's history, a hint."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from fastrtp.btf import default_btf
from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import assemble
from fastrtp.uapi import BpfMapType, BpfProgType
from fastrtp.verifier import AttachTarget, LoadAttr, bpf_check
from fastrtp.verifier.hints import HINTS
from fastrtp.verifier.report import Report, report_of

LOOKUP = "r2 = r10\nr2 += -8\n*(u64 *)(r10 -8) = 0\nr1 = map[fd:1]\ncall bpf_map_lookup_elem\n"
MAP = SimpleNamespace(
    map_type=BpfMapType.BPF_MAP_TYPE_HASH, key_size=8, value_size=16, max_entries=4, map_flags=0, frozen=False, name="counts"
)
STRINGS = {1: "/src/prog.bpf.c", 2: "  value->count++;", 3: "if (cpu > 4)"}


def refused(text: str, log_level: int = 1, **settings: object) -> Report:
    def fd_to_map(fd: int) -> SimpleNamespace:
        if fd != 1:
            raise BpfError(9)
        return MAP

    fields: dict[str, object] = {"prog_type": BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, **settings}
    with pytest.raises(VerifierError) as caught:
        bpf_check(LoadAttr(insns=assemble(text), fd_to_map=fd_to_map, log_level=log_level, **fields))  # type: ignore[arg-type]
    found = report_of(caught.value)
    assert isinstance(found, Report)
    return found


CASES = [
    ("null check missing", LOOKUP + "r0 = *(u64 *)(r0 +0)\nexit"),
    ("null check missing before arithmetic", LOOKUP + "r0 += 8\nexit"),
    ("scalar dereference", "r1 = *(u64 *)(r1 +0)\nr0 = *(u64 *)(r1 +0)\nexit"),
    ("negative index", "r6 = *(u64 *)(r1 +0)\n" + LOOKUP +
     "if r0 == 0 goto pc+4\nif r6 s> 4 goto pc+3\nif r6 s< -100 goto pc+2\nr0 += r6\nr0 = *(u8 *)(r0 +0)\nexit"),
    ("unbounded index", "r6 = *(u64 *)(r1 +0)\nr6 &= 255\n" + LOOKUP +
     "if r0 == 0 goto pc+2\nr0 += r6\nr0 = *(u8 *)(r0 +0)\nexit"),
    ("beyond the value", LOOKUP + "if r0 == 0 goto pc+1\nr0 = *(u64 *)(r0 +16)\nexit"),
    ("context access", "r0 = *(u64 *)(r1 +96)\nexit"),
    ("modified context pointer", "r1 += 8\nr0 = *(u64 *)(r1 +0)\nexit"),
    ("uninitialised register", "exit"),
    ("too much stack", "*(u64 *)(r10 -520) = 0\nr0 = 0\nexit"),
    ("infinite loop", "r0 = 0\nagain:\nr2 = 0\nr3 = 0\nr4 = 0\nr5 = 0\nif r0 == 0 goto again\nexit"),
    ("helper of other programs", "call bpf_skb_load_bytes\nr0 = 0\nexit"),
    ("unknown helper", "call unknown#9999\nr0 = 0\nexit"),
    ("poisoned relocation", "call unknown#195896080\nr0 = 0\nexit"),
    ("unaligned", "*(u64 *)(r10 -12) = 0\nr0 = 0\nexit"),
    ("pointer arithmetic", "r1 *= 8\nr0 = 0\nexit"),
    ("wrong map", "*(u64 *)(r10 -8) = 0\n"
     "r1 = map[fd:1]\nr2 = r10\nr2 += -8\nr3 = 8\nr4 = 0\ncall bpf_ringbuf_output\nr0 = 0\nexit"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "text"), CASES, ids=[name for name, _ in CASES])
def test_common_mistakes(mistake: str, text: str) -> None:
    """Each is recognised by what the verifier says of it, and the report ends in advice."""
    report = refused(text)

    assert report.mistake == mistake
    assert str(report).splitlines()[-1] == f"  hint: {report.hint}"


def test_licence() -> None:
    """The line to write is part of the hint."""
    report = refused("r1 = r10\nr1 += -8\n*(u64 *)(r10 -8) = 0\nr2 = 8\ncall bpf_trace_printk\nr0 = 0\nexit", license="MIT")

    assert 'SEC("license")' in report.hint


def test_arguments_of_a_known_tracepoint_are_named() -> None:
    """The prototype is the hint of a context access past it."""
    btf = default_btf()
    target = AttachTarget("sched_switch", btf.find("btf_trace_sched_switch") or 0)
    report = refused(
        "r0 = *(u64 *)(r1 +40)\nexit", prog_type=BpfProgType.BPF_PROG_TYPE_TRACING, attach=target, kernel_btf=btf
    )

    assert "sched_switch(bool, struct task_struct *, struct task_struct *" in report.hint


def test_branches_history_and_source() -> None:
    """The way to the instruction, each value of the register, and the C lines of both."""
    text = "r6 = *(u64 *)(r1 +0)\nif r6 > 4 goto pc+2\nr0 = 0\nexit\nr6 = 0\nr0 = *(u64 *)(r6 +0)\nexit"
    report = refused(
        text,
        btf=SimpleNamespace(string=lambda offset: STRINGS[offset]),
        line_info=[(0, 1, 3, 7 << 10), (5, 1, 2, 9 << 10 | 3)],
    )

    assert (report.insn_idx, report.regno) == (5, 6)
    assert report.source == "prog.bpf.c:9: value->count++;"
    assert [(step.insn_idx, step.effect) for step in report.branches] == [(1, "taken, to 4")]
    assert report.branches[0].source == "prog.bpf.c:7: if (cpu > 4)"
    assert [(step.insn_idx, step.effect) for step in report.history][-1] == (4, "R6=0")


def test_a_loop_is_one_line() -> None:
    """A branch that was gone many times is said once, with the number."""
    report = refused("r6 = 0\nagain:\nr6 += 1\nif r6 < 50 goto again\nr0 = *(u64 *)(r6 +0)\nexit")

    assert [(step.effect, step.times) for step in report.branches] == [("taken, to 1", 49), ("not taken", 1)]
    assert len(report.history) <= 12


def test_without_a_log_there_is_still_a_hint() -> None:
    """Level 0 keeps no path."""
    report = refused("exit", log_level=0)

    assert (report.insn_idx, report.mistake, report.branches) == (0, "uninitialised register", [])


def test_the_table() -> None:
    """Names are unique, patterns compile."""
    assert len({name for name, _, _ in HINTS}) == len(HINTS) >= 20
    assert all(re.compile(pattern) for _, pattern, _ in HINTS)
