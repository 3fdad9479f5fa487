"""replay/fidelity.py: what is said of each read before a run, and counted after it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from truth import without

from fastrtp.cli import main
from fastrtp.errors import ReplayError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay import check
from fastrtp.uapi import BpfProgType

RAW_TP = BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT
PROGRAMS = Path(__file__).resolve().parents[1] / "fastrtp" / "programs"
PROBE = "r1 = r10\nr1 += -8\nr2 = {size}\ncall bpf_probe_read_kernel\n"
END = "r0 = 0\nexit"


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


@pytest.fixture
def machine() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        yield kernel


def reader(kernel: Kernel, argument: int, *members: str, struct: str = "task_struct", branch: str = "") -> int:
    """A program that reads members of what an argument points to."""
    lines = [f"r6 = *(u64 *)(r1 +{8 * argument})", branch]
    for member in members:
        spot = kernel.btf.member(struct, member)
        lines.append(f"r3 = r6\nr3 += {spot.offset_bytes}\n" + PROBE.format(size=min(spot.size, 8)).strip())
    return kernel.prog_load(RAW_TP, encode(assemble("\n".join([*lines, END]))), name="reader")


def told(kernel: Kernel, recording: Recording, tracepoint: str, prog: int, policy: str = "zero") -> dict[str, tuple[str, str]]:
    """What a replay's report says is missing: what -> (why, how often)."""
    link = kernel.raw_tracepoint_open(tracepoint, prog)
    report = kernel.replay(recording, missing=policy)
    kernel.close(link)
    return {row.what: (row.why, str(row.count)) for row in report.missing}


def number_of(recording: Recording, name: str) -> int:
    return len(recording.table(name))


def test_what_is_recorded_is_not_missing(machine: Kernel, demo: Recording) -> None:
    prog = reader(machine, 1, "pid", "prio", "__state", "comm")

    assert told(machine, demo, "sched_switch", prog, "strict") == {}


def test_each_member_is_named_and_counted(machine: Kernel, demo: Recording) -> None:
    """The argument is known, two of its members are not: each run read zeros in their place."""
    prog = reader(machine, 1, "pid", "policy", "start_time")
    runs = str(number_of(demo, "sched_switch"))

    assert told(machine, demo, "sched_switch", prog) == {
        "prev->policy": ("not in the recording", runs),
        "prev->start_time": ("not in the recording", runs),
    }


def test_what_only_some_runs_read_has_no_count(machine: Kernel, demo: Recording) -> None:
    """It is at most the number of runs, and said as that."""
    prog = reader(machine, 1, "policy", branch="r2 = *(u8 *)(r1 +0)\nif r2 == 0 goto +6")
    machine.raw_tracepoint_open("sched_switch", prog)

    (row,) = machine.replay(demo).missing

    assert (row.count, row.runs, row.always) == (None, number_of(demo, "sched_switch"), False)
    assert row.as_dict() == {
        "program": "reader", "tracepoint": "sched_switch", "what": "prev->policy", "arg": 1, "member": "policy",
        "status": "missing", "why": "not in the recording", "policy": "0", "count": None, "at_most": row.runs,
    }  # fmt: skip


@pytest.mark.parametrize(("policy", "reads_as"), [("zero", "0"), ("fault", "-EFAULT")])
def test_an_object_that_is_not_recorded(machine: Kernel, demo: Recording, policy: str, reads_as: str) -> None:
    """What is read through the argument says why, once; not the argument beside it."""
    prog = reader(machine, 0, "flags", struct="page")
    machine.raw_tracepoint_open("mm_page_alloc", prog)

    (row,) = machine.replay(without(demo, "mm_page_alloc", "pfn"), missing=policy).missing

    assert (row.what, row.arg, row.why) == ("page->flags", 0, "no recorded field tells what it was")
    assert (row.policy, row.count) == (reads_as, number_of(demo, "mm_page_alloc"))


def test_an_address_is_known_and_nothing_behind_it(machine: Kernel, demo: Recording) -> None:
    """kmalloc's pointer is the recorded number: as a key exact, as an address not readable."""
    key = machine.prog_load(RAW_TP, encode(assemble(f"r2 = *(u64 *)(r1 +8)\n{END}")), name="key")
    text = f"r3 = *(u64 *)(r1 +8)\n{PROBE.format(size=8)}{END}"
    behind = machine.prog_load(RAW_TP, encode(assemble(text)), name="behind")

    assert told(machine, demo, "kmalloc", key, "strict") == {}
    assert list(told(machine, demo, "kmalloc", behind)) == ["*ptr"]


@pytest.mark.parametrize(("code", "what"), [
    ("call bpf_get_current_uid_gid", "current uid and gid"),
    ("r2 = 0\nr3 = 0\nr1 = r10\nr1 += -8\nr2 = 8\ncall bpf_probe_read_user", "memory of the process"),
    ("call bpf_ktime_get_ns\nr3 = r0\nr1 = r10\nr1 += -8\nr2 = 8\ncall bpf_probe_read_kernel",
     "memory at an address of unknown origin"),
])  # fmt: skip
def test_what_helpers_ask_for(machine: Kernel, demo: Recording, code: str, what: str) -> None:
    prog = machine.prog_load(RAW_TP, encode(assemble(f"{code}\n{END}")), name="asks")

    assert list(told(machine, demo, "sched_switch", prog)) == [what]
    with pytest.raises(ReplayError, match=f"the recording cannot supply: asks: sched_switch: {what}"):
        told(machine, demo, "sched_switch", prog, "strict")


def test_stacks_that_were_not_recorded(machine: Kernel, demo: Recording) -> None:
    """Said once, with the way out, and counted; not -14 by the thousand."""
    stacks = machine.map_create(7, 4, 8 * 16, 64)
    text = f"r2 = map[fd:{stacks}]\nr3 = 0\ncall bpf_get_stackid\n{END}"
    prog = machine.prog_load(RAW_TP, encode(assemble(text)), name="stacks")

    found = told(machine, demo, "sys_enter", prog)

    assert list(found) == ["kernel stack"]
    assert found["kernel stack"][0] == "the recording has no kernel stacks: record with trace-cmd -T, perf -g"
    assert found["kernel stack"][1] == str(number_of(demo, "sys_enter"))


def test_a_tracepoint_that_does_not_occur(machine: Kernel, demo: Recording) -> None:
    """Nothing of it is read, so nothing of it is missing: strict runs the rest."""
    prog = reader(machine, 0, "policy")

    assert told(machine, demo, "sched_pi_setprio", prog, "strict") == {}


@pytest.mark.parametrize("policy", ["zero", "fault", "strict"])
def test_before_a_run_as_after_it(machine: Kernel, demo: Recording, policy: str) -> None:
    """check() of an object says what the report of its replay says."""
    for path in sorted(PROGRAMS.glob("*.bpf.o")):
        with machine.load(path) as obj:
            before = check(machine, demo, obj.programs.values(), missing=policy)  # type: ignore[arg-type]
            assert {one.tracepoint for one in before} == {program.spec.attach_name for program in obj.programs.values()}
            missing = {(row.program, row.what, row.why) for one in before for row in one.missing}
            with obj.attach():
                if policy == "strict" and missing:
                    with pytest.raises(ReplayError, match="the recording cannot supply"):
                        machine.replay(demo, missing=policy)
                    continue
                after = machine.replay(demo, missing=policy).missing
            assert {(row.program, row.what, row.why) for row in after} == missing


def test_the_command(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """One table a program; JSON has the rows."""
    obj, recording = str(PROGRAMS / "runqlat.bpf.o"), str(demo_recording())

    with pytest.raises(SystemExit) as ended:
        main(["check", obj, recording, "--format", "json", "--missing", "strict"])
    out = json.loads(capsysbinary.readouterr().out)

    assert ended.value.code == 0
    rows = {row["what"]: row for program in out["programs"] for row in program["reads"]}
    assert {program["tracepoint"]: program["events"] for program in out["programs"]}["sched_switch"] == 5069
    assert rows["next->comm"]["status"] == "exact"
    assert rows["prev->__state"] == {
        "program": "on_switch", "tracepoint": "sched_switch", "what": "prev->__state", "arg": 1, "member": "__state",
        "status": "derived", "why": "computed from prev_state",
    }  # fmt: skip
