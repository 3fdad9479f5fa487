"""Kernel functions: number iterators, RCU and preemption sections: rules, loops, results; the same on Linux."""

# ruff: noqa: E501 - a case is a row of a table

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_verifier import Case
from test_verifier_host import fds, verdict

import fastrtp as rtp
from fastrtp.btf import BtfKind, host_btf
from fastrtp.btf.kfuncs import kfunc_id
from fastrtp.errors import VerifierError
from fastrtp.isa import Insn, assemble, encode
from fastrtp.uapi import BpfProgType

RAW_TRACEPOINT = 17
ELF = Path(__file__).parent / "data" / "elf"
IT = "r1 = r10\nr1 += -8\n"
NEW = IT + "r2 = 1\nr3 = 11\ncall bpf_iter_num_new\n"
NEXT = IT + "call bpf_iter_num_next\n"
DESTROY = IT + "call bpf_iter_num_destroy\n"
END = "r0 = 0\nexit\n"
SUM = NEW + "r6 = 0\nloop:\n" + NEXT + "if r0 == 0 goto done\nr1 = *(u32 *)(r0 +0)\nr6 += r1\ngoto loop\ndone:\n" + DESTROY
LEAK = "BPF_EXIT instruction in main prog would lead to reference leak"

REFUSED = {
    "an iterator that is not destroyed": (NEW + END, LEAK),
    "next without new": (NEXT + END, "expected an initialized iter_num as arg #0"),
    "destroy without new": (DESTROY + END, "expected an initialized iter_num as arg #0"),
    "new twice": (NEW + NEW + DESTROY + END, "expected uninitialized iter_num as arg #0"),
    "destroyed twice": (NEW + DESTROY + DESTROY + END, "expected an initialized iter_num as arg #0"),
    "stored over": (NEW + "*(u64 *)(r10 -8) = 0\n" + DESTROY + END, "expected an initialized iter_num as arg #0"),
    "read as data": (NEW + "r0 = *(u64 *)(r10 -8)\n" + DESTROY + END, "invalid read from stack off -8+0 size 8"),
    "not on the stack": ("call bpf_iter_num_next\n" + END, "arg#0 expected pointer to an iterator on stack"),
    "a number that is used after destroy": (
        NEW + NEXT + "if r0 == 0 goto out\nr6 = r0\n" + DESTROY + "r0 = *(u32 *)(r6 +0)\nexit\nout:\n" + DESTROY + END,
        "R6 invalid mem access 'scalar'",
    ),
    "a number that was not checked": (NEW + NEXT + "r0 = *(u32 *)(r0 +0)\n" + DESTROY + END, "R0 invalid mem access 'scalar'"),
    "a number that is written to": (
        NEW + NEXT + "if r0 == 0 goto out\n*(u32 *)(r0 +0) = 5\nout:\n" + DESTROY + END, "R0 cannot write into rdonly_mem"),
    "past the number": (
        NEW + NEXT + "if r0 == 0 goto out\nr0 = *(u64 *)(r0 +0)\nout:\n" + DESTROY + END,
        "R0 min value is outside of the allowed memory range",
    ),
    "rcu not unlocked": (
        "call bpf_rcu_read_lock\n" + END, "BPF_EXIT instruction in main prog cannot be used inside bpf_rcu_read_lock-ed region"),
    "rcu not locked": ("call bpf_rcu_read_unlock\n" + END, "unmatched rcu read unlock (kernel function bpf_rcu_read_unlock)"),
    "preemption not enabled": (
        "call bpf_preempt_disable\n" + END, "BPF_EXIT instruction in main prog cannot be used inside bpf_preempt_disable-ed region"),
    "preemption not disabled": (
        "call bpf_preempt_enable\n" + END, "unmatched attempt to enable preemption (kernel function bpf_preempt_enable)"),
}  # fmt: skip
ACCEPTED = {
    "a sum": (SUM + "r0 = r6\nexit\n", 55),
    "an empty range": (SUM.replace("r3 = 11", "r3 = 1") + "r0 = r6\nexit\n", 0),
    "a range that runs backwards": (SUM.replace("r3 = 11", "r3 = -5").replace("r6 = 0", "r6 = r0") + "r0 = r6\nexit\n", -errno.EINVAL),
    "negative numbers": (SUM.replace("r2 = 1\n", "r2 = -3\n").replace("r3 = 11", "r3 = 1") + "r0 = r6\nexit\n", -6),
    "more than eight million": (SUM.replace("r3 = 11", "r3 = 9000000").replace("r6 = 0", "r6 = r0") + "r0 = r6\nexit\n", -errno.E2BIG),
    "sections": ("call bpf_rcu_read_lock\ncall bpf_preempt_disable\ncall bpf_preempt_disable\ncall bpf_preempt_enable\n"
                 "call bpf_preempt_enable\ncall bpf_rcu_read_unlock\n" + END, 0),
}  # fmt: skip

__all__ = ["fds"]


def assembled(text: str, btf: Any) -> list[Insn]:
    names = r"call (bpf_(?:iter|rcu|preempt)_\w+)"
    return assemble(re.sub(names, lambda found: f"call kernel-function#{kfunc_id(btf, found[1])}", text))


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def load(kernel: rtp.Kernel, text: str) -> int:
    return kernel.prog_load(RAW_TRACEPOINT, encode(assembled(text, kernel.btf)), license="GPL", log_level=1)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(kernel: rtp.Kernel, name: str) -> None:
    text, expected = REFUSED[name]
    with pytest.raises(VerifierError) as caught:
        load(kernel, text)

    assert [line for line in caught.value.log.splitlines() if not line.startswith("processed")][-1] == expected


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(kernel: rtp.Kernel, name: str) -> None:
    text, expected = ACCEPTED[name]

    assert kernel.prog_test_run(load(kernel, text)) == expected & 0xFFFFFFFF


@pytest.mark.parametrize("name", [*REFUSED, *ACCEPTED])
def test_like_the_running_kernel(fds: dict[int, int], name: str) -> None:
    text = (REFUSED.get(name) or ACCEPTED[name])[0]
    number, message = verdict(Case(name, {}, assembled(text, host_btf())), fds)

    assert message == (REFUSED[name][1] if name in REFUSED else "")
    assert bool(number) == (name in REFUSED)


def test_a_loop_around_an_iterator_does_not_end(kernel: rtp.Kernel) -> None:
    """Each iterator is bounded, the endless loop that makes them is not."""
    with pytest.raises(VerifierError):
        load(kernel, "again:\n" + SUM + "goto again\n")


def test_bpf_for(kernel: rtp.Kernel) -> None:
    """An object with nested bpf_for loops, called by weak and strong symbols."""
    loaded = kernel.load(ELF / "iterators.bpf.o")

    assert loaded.programs["loops"].test_run(struct.pack("<12Q", 60, *[0] * 11)) == 60
    data = loaded.maps[".bss"].lookup(bytes(4))
    values = struct.unpack("<65Q", data[: 65 * 8])
    assert sorted(values) == sorted([*(i * i for i in range(60)), 0, 0, 0, 0, 5000])


def test_unknown_functions(kernel: rtp.Kernel) -> None:
    """Other kernel functions are refused by name."""
    known = kernel.btf.find("bpf_task_release") or kernel.btf.find("schedule")
    assert known is not None
    with pytest.raises(VerifierError) as caught:
        kernel.prog_load(
            RAW_TRACEPOINT, encode(assemble(f"call kernel-function#{known}\nr0 = 0\nexit")), license="GPL", log_level=1
        )

    assert "is not allowed" in caught.value.log


def cast(btf: Any, type_id: int, load: str) -> bytes:
    """A program that reads through its second argument, cast to a type."""
    ident = kfunc_id(btf, "bpf_rdonly_cast")
    text = f"r1 = *(u64 *)(r1 +8)\nr2 = {type_id}\ncall kernel-function#{ident}\n{load}\nr0 = 0\nexit"
    return encode(assemble(text))


@pytest.mark.parametrize("kind", ["void", "struct", "union"])
def test_a_cast_reads_nothing_where_nothing_is(kernel: rtp.Kernel, kind: str) -> None:
    """Of a struct, a union or anything (void): an address that nothing is behind reads as zero, and the program goes on."""
    ids = {"void": 0, "struct": kernel.btf.find("task_struct") or 0}
    ids["union"] = next(record.id for record in kernel.btf if record.kind == BtfKind.UNION and record.name and record.size >= 8)
    fd = kernel.prog_load(RAW_TRACEPOINT, cast(kernel.btf, ids[kind], "r3 = *(u64 *)(r0 +0)"), license="GPL", log_level=1)

    assert kernel.prog_test_run(fd, struct.pack("<12Q", *[0xFFFF888000000000] * 12)) == 0


def test_void_is_read_only(kernel: rtp.Kernel) -> None:
    with pytest.raises(VerifierError) as caught:
        kernel.prog_load(RAW_TRACEPOINT, cast(kernel.btf, 0, "*(u64 *)(r0 +0) = 1"), license="GPL", log_level=1)

    assert caught.value.strerror == "R0 cannot write into rdonly_untrusted_mem"


def test_classic_tracepoint_programs_call_what_tracing_programs_call(kernel: rtp.Kernel) -> None:
    acquire, release = (kfunc_id(kernel.btf, name) for name in ("bpf_task_from_pid", "bpf_task_release"))
    text = f"""
        r1 = 1
        call kernel-function#{acquire}
        if r0 == 0 goto out
        r1 = r0
        call kernel-function#{release}
        out:
        r0 = 0
        exit
    """
    code = encode(assemble(text))

    assert kernel.prog_load(BpfProgType.BPF_PROG_TYPE_TRACEPOINT, code, license="GPL", log_level=1) >= 0
    with pytest.raises(VerifierError, match="calling kernel function bpf_task_from_pid is not allowed"):
        kernel.prog_load(RAW_TRACEPOINT, code, license="GPL", log_level=1)
