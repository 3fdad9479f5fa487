"""Memory of kernel objects given to helpers that read it: who may, as Linux has it; what is read, and what is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import said, said_by_linux

import fastrtp as rtp
from fastrtp.record.demo import demo_recording

OBJECT = Path(__file__).parent / "data" / "elf" / "areas.bpf.o"
EXPECTED = "expected=fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"
SAID = {
    "output": "",
    "perf_output": "",
    "output_some": "",
    "output_either": "",
    "compare": "",
    "parse": "",
    "print": "",
    "write_dynptr": "",
    "current_output": "",
    "none_of_it": "struct task_struct doesn't have field at offset N",
    "two_members": "access beyond the end of member pid (mend:N) in struct task_struct with off N size 8",
    "too_much": "access beyond the end of member comm (mend:N) in struct task_struct with off N size 15",
    "into_it": "bpf_probe_read_kernel() may write into memory pointed by R1 type=trusted_ptr_",
    "as_key": "bpf_map_lookup_elem() may write into memory pointed by R2 type=trusted_ptr_",
    "as_value": "bpf_map_update_elem() may write into memory pointed by R3 type=trusted_ptr_",
    "of_leader": f"R2 type=rcu_ptr_ {EXPECTED}",
    "of_wakee": f"R2 type=ptr_ {EXPECTED}",
}
NOWHERE = (0, 1, 0x7FFF_FFFF_F000, 0xFFFF_FFFF_FFFF_F000)


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


def without_offsets(message: str) -> str:
    """Offsets are those of the kernel at hand."""
    return re.sub(r"(offset |mend:|off )\d+", r"\1N", message)


@pytest.mark.parametrize("name", SAID)
def test_verdicts(kernel: rtp.Kernel, name: str) -> None:
    assert without_offsets(said(kernel, OBJECT, name)) == SAID[name]


def test_verdicts_of_linux() -> None:
    assert {name: without_offsets(message) for name, message in said_by_linux(OBJECT).items()} == SAID


def task(kernel: rtp.Kernel, pid: int, comm: bytes) -> int:
    """Address of a task."""
    return int(kernel.objects.tasks([pid], comms=[comm])[0])


def names() -> list[bytes]:
    """What the recording says that each woken task is called."""
    table = rtp.Recording.open(demo_recording()).table("sched_wakeup")
    return [bytes(name).ljust(16, b"\0") for name in table.fields["comm"]]


@pytest.mark.parametrize("tier", ["linked", "fused"])
def test_a_ring_gets_what_was_recorded(kernel: rtp.Kernel, tier: str) -> None:
    with kernel.load(OBJECT, autoload=["output"]) as obj:
        with obj.attach():
            report = kernel.replay(demo_recording(), tier=tier)
        records = [bytes(record) for record in obj.maps["ring"].consume()]

    assert len(records) > 100
    assert records == names()
    assert report.faulted_reads == 0
    assert not [row for row in report.missing if "comm" in row.what]


def test_what_is_not_recorded_is_named(kernel: rtp.Kernel) -> None:
    """A helper's read of it is a read like any other."""
    with kernel.load(OBJECT, autoload=["print"]) as obj, obj.attach():
        report = kernel.replay(demo_recording())

    assert [row.what for row in report.missing] == ["p->start_time"]


@pytest.mark.parametrize("address", NOWHERE)
def test_memory_that_is_not_there_is_zeros_and_counted(kernel: rtp.Kernel, address: int) -> None:
    """As a load of it gives 0."""
    with kernel.load(OBJECT, autoload=["output", "write_dynptr", "compare"]) as obj, obj.attach():
        before = int(kernel.memory.env["faulted"].sum())
        kernel.trace("sched_wakeup")(address)

        assert [bytes(record) for record in obj.maps["ring"].consume()] == [bytes(16)]
        assert int(kernel.memory.env["faulted"].sum()) - before == 3


def test_the_stack_is_read_by_the_same_call(kernel: rtp.Kernel) -> None:
    """Where one path gives the object's memory and another the stack's."""
    with kernel.load(OBJECT, autoload=["output_either"]) as obj, obj.attach():
        for pid, name in ((1000, b"even"), (1001, b"odd")):
            kernel.trace("sched_wakeup")(task(kernel, pid, name))
        records = [bytes(record).rstrip(b"\0") for record in obj.maps["ring"].consume()]

    assert records == [b"even", b"on the stack"]
    assert int(kernel.memory.env["faulted"].sum()) == 0


def test_other_helpers_read_it_too(kernel: rtp.Kernel) -> None:
    with kernel.load(OBJECT, autoload=["parse", "write_dynptr", "current_output"]) as obj, obj.attach():
        kernel.trace("sched_wakeup")(task(kernel, 1000, b"4711"))
        kernel.trace("sys_enter")(0, 0)
        bss = obj.bss
        assert (bss.out[1], bss.text) == (4711, "4711")
        assert [bytes(record) for record in obj.maps["ring"].consume()] == [kernel.current.comm.encode().ljust(16, b"\0")]
