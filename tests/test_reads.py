"""verifier/reads.py: which arguments and members a program can read, whatever way their addresses take."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from fastrtp.btf.tracepoints import argument_names
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.uapi import BpfProgType
from fastrtp.verifier.reads import Read, describe, member_at
from fastrtp.verifier.reads_flow import program_reads


@pytest.fixture(scope="module")
def machine() -> Iterator[Kernel]:
    with Kernel(cpus=1) as kernel:
        yield kernel


def off(kernel: Kernel, path: str, struct: str = "task_struct") -> int:
    return kernel.btf.member(struct, path).offset_bytes


def reads(kernel: Kernel, text: str, tracepoint: str = "sched_switch") -> dict[str, bool]:
    """What a program can read, in C's words, and whether each run does it once. `{struct.member}` stands for an offset."""
    fd = kernel.prog_load(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, encode(assemble(text)))
    prog = list(kernel.progs)[-1]
    proto = kernel.tracepoints.proto(tracepoint)
    found = prog.reads(kernel.btf, tuple(arg.type_id for arg in proto.args))
    kernel.close(fd)
    assert found.complete
    names = argument_names(kernel.btf, proto)
    return {describe(kernel.btf, read, names): read in found.always for read in found.insns}


PROBE = "r1 = r10\nr1 += -8\nr2 = 8\ncall bpf_probe_read_kernel\n"
END = "r0 = 0\nexit"


def probe(offset: int) -> str:
    """8 bytes at r3 + offset to the stack."""
    return f"r3 += {offset}\n{PROBE}"


def test_arguments(machine: Kernel) -> None:
    """Loads from the context, of any width."""
    assert reads(machine, f"r2 = *(u8 *)(r1 +0)\nr3 = *(u64 *)(r1 +24)\n{END}") == {"preempt": True, "prev_state": True}


def test_a_chain_of_pointers(machine: Kernel) -> None:
    """What one read puts on the stack is where the next one reads."""
    text = (
        f"r3 = *(u64 *)(r1 +8)\n{probe(off(machine, 'mm'))}r3 = *(u64 *)(r10 -8)\n{probe(off(machine, 'pgd', 'mm_struct'))}{END}"
    )

    assert reads(machine, text) == {"prev": True, "prev->mm": True, "prev->mm->pgd": True}


def test_a_branch_is_not_every_run(machine: Kernel) -> None:
    """What only one way leads to is not read always; what both ways lead to is, whichever object it is of."""
    text = (
        "r6 = *(u64 *)(r1 +8)\nr7 = *(u64 *)(r1 +16)\nr2 = *(u32 *)(r1 +24)\nif r2 == 0 goto +1\nr6 = r7\nr3 = r6\n"
        f"{probe(off(machine, 'pid'))}{END}"
    )

    found = reads(machine, text)

    assert found == {"prev": True, "next": True, "prev_state": True, "prev->pid..tgid": True, "next->pid..tgid": True}


def test_what_a_branch_skips(machine: Kernel) -> None:
    text = f"r3 = *(u64 *)(r1 +8)\nr2 = *(u8 *)(r1 +0)\nif r2 == 0 goto +5\n{probe(off(machine, 'flags'))}{END}"

    assert reads(machine, text)["prev->flags..ptrace"] is False


def test_the_current_task(machine: Kernel) -> None:
    """A helper's pointer is followed as an argument is."""
    text = f"call bpf_get_current_task\nr3 = r0\n{probe(off(machine, 'real_parent'))}{END}"

    assert reads(machine, text) == {"current->real_parent": True}


def test_what_helpers_tell(machine: Kernel) -> None:
    """They ask the machine for things that are no memory."""
    text = f"call bpf_get_current_uid_gid\ncall bpf_get_current_pid_tgid\n{END}"

    assert reads(machine, text) == {"current uid and gid": True, "current pid": True}


def test_memory_of_processes(machine: Kernel) -> None:
    text = f"r3 = *(u64 *)(r1 +8)\nr1 = r10\nr1 += -8\nr2 = 8\ncall bpf_probe_read_user\n{END}"

    assert reads(machine, text) == {"prev": True, "memory of the process": True}


def test_an_address_from_anywhere(machine: Kernel) -> None:
    """What was computed from a number has no type: said, not left out."""
    text = f"call bpf_ktime_get_ns\nr3 = r0\n{PROBE}{END}"

    assert reads(machine, text) == {"memory at an address of unknown origin": True}


def test_a_text_ends_with_its_member(machine: Kernel) -> None:
    """However large the buffer."""
    text = (
        f"r3 = *(u64 *)(r1 +8)\nr3 += {off(machine, 'comm')}\nr1 = r10\nr1 += -64\nr2 = 64\ncall bpf_probe_read_kernel_str\n{END}"
    )

    assert reads(machine, text) == {"prev": True, "prev->comm": True}


def test_a_list_that_is_walked(machine: Kernel) -> None:
    """A loop over parents ends, and is one member of many tasks."""
    at = off(machine, "real_parent")
    text = f"r3 = *(u64 *)(r1 +8)\nr6 = 8\nr3 += {at}\n{PROBE}r3 = *(u64 *)(r10 -8)\nr6 += -1\nif r6 != 0 goto -8\n{END}"

    found = reads(machine, text)

    assert set(found) == {"prev", "prev->real_parent", "prev->real_parent->real_parent"}
    assert not found["prev->real_parent"]


def test_functions_are_followed(machine: Kernel) -> None:
    """An argument goes in, a result comes out."""
    at = off(machine, "start_time")
    text = f"r1 = *(u64 *)(r1 +16)\ncall pc+2\nr0 = 0\nexit\nr3 = r1\n{probe(at)}r0 = *(u64 *)(r10 -8)\nexit"

    assert set(reads(machine, text)) == {"next", "next->start_time"}


def test_an_offset_that_varies(machine: Kernel) -> None:
    """The struct is known, the member is not."""
    text = f"r3 = *(u64 *)(r1 +8)\nr2 = *(u32 *)(r1 +24)\nr3 += r2\n{PROBE}{END}"

    assert set(reads(machine, text)) == {"prev", "prev_state", "prev->"}


@pytest.mark.parametrize(("struct", "path"), [
    ("task_struct", "comm"), ("task_struct", "se.vruntime"), ("task_struct", "thread_info.cpu"), ("pt_regs", "di"),
    ("mm_struct", "exe_file"), ("sk_buff", "len"), ("request", "__sector"), ("signal_struct", "oom_score_adj"),
])  # fmt: skip
def test_members_have_their_names(machine: Kernel, struct: str, path: str) -> None:
    """The name of a place is what leads there."""
    found = member_at(machine.btf, machine.btf.find(struct) or 0, off(machine, path, struct))

    assert found is not None
    assert (found.name, found.off) == (path, off(machine, path, struct))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_read_is_among_the_reads(machine: Kernel, seed: int) -> None:
    """Random programs of moves, spills, branches and probe reads: each member that a straight way reads is found."""
    rng = random.Random(seed)
    members = ["pid", "prio", "mm", "real_parent", "flags", "start_time", "group_leader"]
    lines = ["r6 = *(u64 *)(r1 +8)", "r7 = *(u64 *)(r1 +16)", "*(u64 *)(r10 -16) = r6", "*(u64 *)(r10 -24) = r7"]
    expected = set()
    held = {"r6": "prev", "r7": "next", "-16": "prev", "-24": "next"}
    for _ in range(rng.randrange(2, 12)):
        what = rng.randrange(4)
        if what == 0:
            lines.append("r8 = r6\nr6 = r7\nr7 = r8")
            held["r6"], held["r7"] = held["r7"], held["r6"]
        elif what == 1:
            register, slot = rng.choice(["r6", "r7"]), rng.choice(["-16", "-24"])
            lines.append(f"*(u64 *)(r10 {slot}) = {register}")
            held[slot] = held[register]
        elif what == 2:
            register, slot = rng.choice(["r6", "r7"]), rng.choice(["-16", "-24"])
            lines.append(f"{register} = *(u64 *)(r10 {slot})")
            held[register] = held[slot]
        else:
            register, member = rng.choice(["r6", "r7"]), rng.choice(members)
            lines.append(f"r3 = {register}\n{probe(off(machine, member))}".rstrip())
            expected.add((held[register], member))

    found = reads(machine, "\n".join([*lines, END]))

    got = {tuple(text.split("->", 1)) for text in found if "->" in text}
    assert {(root, member.partition("..")[0]) for root, member in got} == expected


def test_a_program_too_large_to_be_followed_says_so(machine: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may read more than what was found."""
    monkeypatch.setattr("fastrtp.verifier.reads_flow._LIMIT", 2)
    fd = machine.prog_load(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, encode(assemble(f"r2 = *(u64 *)(r1 +0)\nr3 = 0\n{END}")))

    found = program_reads(list(machine.progs)[-1].verified, machine.btf, (1,))

    machine.close(fd)
    assert not found.complete
    assert Read("argument", 0) in found.insns
