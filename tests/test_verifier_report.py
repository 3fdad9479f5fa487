"""What a refusal says beyond the kernel's line: place, source, branches, the register's history, a hint."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest
import static_funcs

from fastrtp.btf import default_btf
from fastrtp.btf.kfuncs import kfunc_id
from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import assemble
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType, BpfProgType
from fastrtp.verifier import AttachTarget, LoadAttr, bpf_check
from fastrtp.verifier.report.hints import HINTS, hint
from fastrtp.verifier.report.report import Report, for_tracepoint, report_of

LOOKUP = "r2 = r10\nr2 += -8\n*(u64 *)(r10 -8) = 0\nr1 = map[fd:1]\ncall bpf_map_lookup_elem\n"


def shape(map_type: int, key_size: int, value_size: int, max_entries: int = 4, map_flags: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        map_type=map_type, key_size=key_size, value_size=value_size, max_entries=max_entries, map_flags=map_flags, frozen=False,
        name="counts",
    )  # fmt: skip


MAPS = {
    1: shape(BpfMapType.BPF_MAP_TYPE_HASH, 8, 16),
    2: shape(BpfMapType.BPF_MAP_TYPE_RINGBUF, 0, 0),
    3: shape(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, 16, 1, BPF_F_RDONLY_PROG),
}
RESERVE = "r1 = map[fd:2]\nr2 = 16\nr3 = 0\ncall bpf_ringbuf_reserve\n"
DYNPTR = "r1 = map[fd:2]\nr2 = 16\nr3 = 0\nr4 = r10\nr4 += -16\ncall bpf_ringbuf_reserve_dynptr\n"
LOOP = "r1 = 10\nr2 = subprog[pc+6]\nr3 = 0\nr4 = 0\ncall bpf_loop\nr0 = 0\nexit\n"
KFUNC = "call kernel-function#{}\n"
STRINGS = {1: "/src/prog.bpf.c", 2: "  value->count++;", 3: "if (cpu > 4)"}


def refused(text: str, log_level: int = 1, **settings: object) -> Report:
    def fd_to_map(fd: int) -> SimpleNamespace:
        if fd not in MAPS:
            raise BpfError(9)
        return MAPS[fd]

    text = re.sub(r"call (bpf_(?:iter|rcu|preempt)_\w+)", lambda found: f"call kernel-function#{kfunc_id(None, found[1])}", text)
    insns = assemble(text)
    types = {} if "btf" in settings else {"btf": static_funcs.btf(), "func_info": static_funcs.func_info(insns)}
    fields: dict[str, object] = {"prog_type": BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, **types, **settings}
    with pytest.raises(VerifierError) as caught:
        bpf_check(LoadAttr(insns=insns, fd_to_map=fd_to_map, log_level=log_level, **fields))  # type: ignore[arg-type]
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
    ("no return value", "exit"),
    ("uninitialised register", "r0 = r2\nexit"),
    ("nullable argument", LOOKUP + "r2 = r0\nr1 = map[fd:1]\ncall bpf_map_lookup_elem\nr0 = 0\nexit"),
    ("zero size", "r2 = *(u64 *)(r1 +0)\nr2 &= 7\n"
     "r1 = r10\nr1 += -8\n*(u64 *)(r10 -8) = 0\ncall bpf_trace_printk\nr0 = 0\nexit"),
    ("stack at a variable place", "r2 = *(u64 *)(r1 +0)\nr2 &= 255\nr3 = r10\nr3 += r2\nr0 = *(u8 *)(r3 -8)\nexit"),
    ("uninitialised stack", DYNPTR + "r0 = *(u64 *)(r10 -16)\nexit"),
    ("missing submit", RESERVE + "r0 = 0\nexit"),
    ("a record changed before it is given back",
     RESERVE + "if r0 == 0 goto out\nr1 = r0\nr1 += 8\nr2 = 0\ncall bpf_ringbuf_submit\nout:\nr0 = 0\nexit"),
    ("section left open", "call bpf_rcu_read_lock\nr0 = 0\nexit"),
    ("dynptr", "*(u64 *)(r10 -16) = 0\n*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -16\nr2 = 0\nr3 = 8\n"
     "call bpf_dynptr_data\nr0 = 0\nexit"),
    ("too complex", "r6 = *(u64 *)(r1 +0)\n" + "if r6 == 5 goto pc+1\nr0 = 1\n" * 8200 + "r0 = 0\nexit"),
    ("iterator", "r1 = r10\nr1 += -8\ncall bpf_iter_num_next\nr0 = 0\nexit"),
    ("recursion", "call self\nexit\nself:\ncall self\nexit"),
    ("division by zero", "r0 = 1\nr0 /= 0\nexit"),
    ("no constant format", "*(u64 *)(r10 -8) = 0\nr1 = r10\nr1 += -8\nr2 = 8\nr3 = map[fd:3][0]+0\nr4 = 0\nr5 = 0\n"
     "call bpf_snprintf\nr0 = 0\nexit"),
    ("value that is no constant", "r2 = *(u64 *)(r1 +0)\nr1 = map[fd:2]\nr3 = 0\ncall bpf_ringbuf_reserve\nr0 = 0\nexit"),
    ("kernel function", KFUNC.format(1) + "r0 = 0\nexit"),
    ("two kinds of pointer", LOOKUP.replace("r2 = r10", "r6 = r1\nr2 = r10", 1) +
     "r7 = r6\nif r0 == 0 goto pc+1\nr7 = r0\nr0 = *(u64 *)(r7 +0)\nexit"),
    ("stack pointer that leaves its function", "call inner\nexit\ninner:\nr0 = r10\nexit"),
    ("callback", LOOP + "r0 = 0\nexit"),
    ("bad return of a callback", LOOP + "r0 = 2\nexit"),
    ("read-only data", "r1 = map[fd:3][0]+0\n*(u64 *)(r1 +0) = 1\nr0 = 0\nexit"),
    ("expected memory", "r1 = 5\nr2 = 8\ncall bpf_trace_printk\nr0 = 0\nexit"),
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
    report = refused(text, **({"func_info": None} if mistake == "callback" else {}))

    assert report.mistake == mistake
    assert str(report).splitlines()[-1] == f"  hint: {report.hint}"


ELSEWHERE = [
    ("lock held", "function calls are not allowed while holding a lock"),
    ("lock held", "use static function instead"),
    ("licence", "cannot call GPL-restricted function from non-GPL compatible program"),
    ("argument of a global function", "arg#0 is expected to be non-NULL\nCaller passes invalid args into func#1 ('f')"),
    ("argument of a global function", "R1 type=???\nCaller passes invalid args into func#1 ('f')"),
    ("tail call in a function", "tail_call is only allowed in functions that return 'int'."),
    ("tail call in a function", "tail_call is not allowed in subprogs without BTF"),
    ("expected memory", "R1 type=scalar expected=fp\nCaller passes invalid args into func#1 ('f')"),
]
"""Programs that end in these lines are in test_spin_lock.py and test_verifier_global.py."""


@pytest.mark.parametrize(("mistake", "lines"), ELSEWHERE)
def test_hint_of_a_line(mistake: str, lines: str) -> None:
    """The last line is asked first, and those before it where it says too little."""
    attr = LoadAttr(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, (), lambda _fd: None)

    name, advice = hint(attr, lines.split("\n"))

    assert name == mistake
    assert len(advice) > 20


def test_every_hint_is_tested() -> None:
    """Each mistake of the table has a case."""
    assert {name for name, _, _ in HINTS} - {name for name, _ in (*CASES, *ELSEWHERE)} == set()


def test_a_raw_tracepoint_is_named_when_its_object_is_loaded() -> None:
    """The section says which: the hint is the prototype."""
    text = "r0 = *(u64 *)(r1 +96)\nexit"
    report = for_tracepoint(refused(text), default_btf(), "sched_switch")

    assert "sched_switch(bool, struct task_struct *, struct task_struct *" in report.hint
    assert for_tracepoint(report, default_btf(), "no_such_tracepoint") is report


def test_licence() -> None:
    """The line to write is part of the hint."""
    report = refused("r1 = r10\nr1 += -8\n*(u64 *)(r10 -8) = 0\nr2 = 8\ncall bpf_trace_printk\nr0 = 0\nexit", license="MIT")

    assert 'SEC("license")' in report.hint


def test_arguments_of_a_known_tracepoint_are_named() -> None:
    """The prototype is the hint of a context access past it."""
    btf = default_btf()
    target = AttachTarget("sched_switch", btf.find("btf_trace_sched_switch") or 0)
    report = refused("r0 = *(u64 *)(r1 +40)\nexit", prog_type=BpfProgType.BPF_PROG_TYPE_TRACING, attach=target, kernel_btf=btf)

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

    assert (report.insn_idx, report.mistake, report.branches) == (0, "no return value", [])


def test_the_table() -> None:
    """Names are unique, patterns compile."""
    assert len({name for name, _, _ in HINTS}) == len(HINTS) >= 20
    assert all(re.compile(pattern) for _, pattern, _ in HINTS)
