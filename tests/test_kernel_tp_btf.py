"""tp_btf programs from end to end: direct loads of recorded objects, pointers that lead nowhere, arguments that may be NULL."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrtp.errors import VerifierError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.kernel.loader.object import BpfObject
from fastrtp.record.demo import demo_recording
from fastrtp.uapi import BpfAttachType, BpfProgType

BOTH_WAYS = Path(__file__).parent / "data" / "kernel" / "both_ways.bpf.o"
SWITCHES = 5_069
TIERS = ["linked", "fused"]


@pytest.fixture
def machine() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


@pytest.fixture
def loaded(machine: Kernel) -> BpfObject:
    return machine.load(BOTH_WAYS)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("missing", ["zero", "fault"])
def test_direct_loads_count_what_core_reads_count(machine: Kernel, loaded: BpfObject, tier: str, missing: str):
    with loaded.attach():
        report = machine.replay(demo_recording(), tier=tier, missing=missing)
    raw, btf, mixed = (dict(loaded.maps[name].raw_items()) for name in ("raw", "btf", "mixed"))

    assert report.tier == tier
    assert sum(int.from_bytes(value, "little") for value in raw.values()) == SWITCHES
    assert len(raw) > 100
    assert raw == btf == mixed


def sums(kernel: Kernel, code: str, prog_type: int, **fields: int) -> int:
    """An array; to whose first value an attached program adds what `code` leaves in r6, and to its second 1."""
    array = kernel.map_create(2, 4, 16, 1)
    text = f"""{code}
        *(u32 *)(r10 -4) = 0
        r1 = map[fd:{array}]
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        if r0 == 0 goto +6
        r1 = *(u64 *)(r0 +0)
        r1 += r6
        *(u64 *)(r0 +0) = r1
        r1 = *(u64 *)(r0 +8)
        r1 += 1
        *(u64 *)(r0 +8) = r1
        r0 = 0
        exit"""
    prog = kernel.prog_load(prog_type, encode(assemble(text)), **fields)
    kernel.raw_tracepoint_open(None if fields else "sched_switch", prog)
    return array


@pytest.mark.parametrize("tier", TIERS)
def test_a_load_that_faults_gives_zero_and_is_counted(machine: Kernel, tier: str):
    """mm of some recorded tasks leads nowhere: the load gives 0, where bpf_probe_read_kernel gives -EFAULT."""
    mm = machine.btf.member("task_struct", "mm").offset_bytes
    total_vm = machine.btf.member("mm_struct", "total_vm").offset_bytes
    next_mm = f"""
        r3 = *(u64 *)(r1 +16)
        r3 += {mm}
        r1 = r10
        r1 += -16
        r2 = 8
        call bpf_probe_read_kernel
        r3 = *(u64 *)(r10 -16)
        r3 += {total_vm}
        r1 = r10
        r1 += -16
        r2 = 8
        call bpf_probe_read_kernel
        r6 = 0
        if r0 == 0 goto +1
        r6 = 1"""
    array = sums(machine, next_mm, BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT)
    machine.replay(demo_recording(), tier=tier, missing="fault")
    failed, runs = struct.unpack("<QQ", machine.map_lookup_elem(array, bytes(4)))
    for link in [fd for fd in machine.current.files if machine.current.fd_name(fd) == "anon_inode:bpf_link"]:
        machine.close(link)

    array = sums(machine, f"r2 = *(u64 *)(r1 +16)\nr2 = *(u64 *)(r2 +{mm})\nr6 = *(u64 *)(r2 +{total_vm})",
                 BpfProgType.BPF_PROG_TYPE_TRACING, expected_attach_type=BpfAttachType.BPF_TRACE_RAW_TP,
                 attach_btf_id=machine.tracepoints.proto("sched_switch").btf_id)  # fmt: skip
    report = machine.replay(demo_recording(), tier=tier, missing="fault")

    assert runs == SWITCHES
    assert report.faulted_reads == failed > 0
    assert struct.unpack("<QQ", machine.map_lookup_elem(array, bytes(4))) == (0, SWITCHES)


def test_an_argument_that_may_be_null_has_to_be_checked(machine: Kernel):
    with pytest.raises(VerifierError) as caught:
        machine.prog_load(
            BpfProgType.BPF_PROG_TYPE_TRACING, encode(assemble("r2 = *(u64 *)(r1 +8)\nr0 = *(u32 *)(r2 +0)\nexit")),
            expected_attach_type=BpfAttachType.BPF_TRACE_RAW_TP,
            attach_btf_id=machine.tracepoints.proto("sched_pi_setprio").btf_id,
        )  # fmt: skip

    assert "R2 invalid mem access 'trusted_ptr_or_null_'" in caught.value.log


def test_and_is_null_or_not(machine: Kernel, loaded: BpfObject):
    first, second = (int(task) for task in machine.objects.tasks([100, 7], comms=[b"a", b"b"]))
    trace = machine.trace("sched_pi_setprio")
    with loaded.attach():
        trace(first, second)
        trace(first, 0)
        trace(first, 0)

    assert struct.unpack("<QQ", loaded.maps[".bss"].lookup(bytes(4))) in ((7, 200), (200, 7))
