"""Every helper that a program may call, called by a verified program: what it returns, and what it leaves in memory.

A case is assembly; OUT stands for the fd of an array of one 64-byte value that the program may write to, FMT for one whose
frozen read-only value is the case's text.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fastrtp as rtp
from fastrtp.helpers.table import HELPER_IDS, HELPERS
from fastrtp.isa import assemble, encode
from fastrtp.uapi import BPF_F_RDONLY_PROG, BpfMapType

RAW_TRACEPOINT = 17
MASK = 2**64 - 1
SIZE = 64


@pytest.fixture(scope="module")
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


@dataclass(frozen=True)
class Case:
    """`calls`: helpers that the case is about; `r0`: what it returns; `out`: the bytes that OUT begins with."""

    name: str
    calls: tuple[str, ...]
    text: str
    r0: int | None = None
    out: bytes = b""
    fmt: bytes = b"\0"


VALUE = """
r1 = map[fd:OUT]
r2 = r10
r2 += -4
*(u32 *)(r10 -4) = 0
call bpf_map_lookup_elem
if r0 != 0 goto found
exit
found:
r9 = r0
"""
"""r9 = OUT's value."""


def simple(helper: str) -> str:
    return f"call bpf_{helper}\nexit"


CASES = [
    Case("clocks do not go back", ("ktime_get_ns",), "call bpf_ktime_get_ns\nr6 = r0\ncall bpf_ktime_get_ns\nr0 -= r6\nr0 s>>= 63\nexit", 0),
    Case("boot time is not behind", ("ktime_get_boot_ns",), "call bpf_ktime_get_boot_ns\nr0 s>>= 63\nexit", 0),
    Case("TAI counts", ("ktime_get_tai_ns",), "call bpf_ktime_get_tai_ns\nr0 s>>= 63\nexit", 0),
    Case("jiffies count", ("jiffies64",), "call bpf_jiffies64\nr0 s>>= 63\nexit", 0),
    Case("the CPU is the one asked for", ("get_smp_processor_id",), simple("get_smp_processor_id"), 0),
    Case("there is one node", ("get_numa_node_id",), simple("get_numa_node_id"), 0),
    Case("random numbers have 32 bits", ("get_prandom_u32",), "call bpf_get_prandom_u32\nr0 >>= 32\nexit", 0),
    Case("the current task is somebody", ("get_current_pid_tgid",), "call bpf_get_current_pid_tgid\nw0 = w0\nif r0 != 0 goto +1\nexit\nr0 = 1\nexit", 1),
    Case("uid and gid", ("get_current_uid_gid",), "call bpf_get_current_uid_gid\nr0 >>= 63\nexit", 0),
    Case("the task is the same by both names", ("get_current_task", "get_current_task_btf"), "call bpf_get_current_task\n*(u64 *)(r10 -8) = r0\ncall bpf_get_current_task_btf\n*(u64 *)(r10 -16) = r0\nr1 = r10\nr1 += -24\nr2 = 8\nr3 = r10\nr3 += -16\ncall bpf_probe_read_kernel\nr0 = *(u64 *)(r10 -24)\nr1 = *(u64 *)(r10 -8)\nr0 -= r1\nexit", 0),
    Case("comm is filled", ("get_current_comm",), VALUE + "r1 = r9\nr2 = 16\ncall bpf_get_current_comm\nexit", 0),
    Case("updates are found", ("map_update_elem", "map_lookup_elem"), VALUE + """
        r1 = 77
        *(u64 *)(r10 -72) = r1
        r1 = 0
        *(u64 *)(r10 -64) = r1
        *(u64 *)(r10 -56) = r1
        *(u64 *)(r10 -48) = r1
        *(u64 *)(r10 -40) = r1
        *(u64 *)(r10 -32) = r1
        *(u64 *)(r10 -24) = r1
        *(u64 *)(r10 -16) = r1
        r1 = map[fd:OUT]
        r2 = r10
        r2 += -4
        r3 = r10
        r3 += -72
        r4 = 0
        call bpf_map_update_elem
        if r0 != 0 goto +1
        r0 = *(u64 *)(r9 +0)
        exit""", 77, struct.pack("<Q", 77)),
    Case("an array has no deletion", ("map_delete_elem",), "*(u32 *)(r10 -4) = 0\nr1 = map[fd:OUT]\nr2 = r10\nr2 += -4\ncall bpf_map_delete_elem\nexit", -errno.EINVAL),
    Case("a stack is readable", ("probe_read_kernel",), "r1 = 0x1234\n*(u64 *)(r10 -8) = r1\nr1 = r10\nr1 += -16\nr2 = 8\nr3 = r10\nr3 += -8\ncall bpf_probe_read_kernel\nif r0 != 0 goto +1\nr0 = *(u64 *)(r10 -16)\nexit", 0x1234),
    Case("the context is readable", ("probe_read",), "r3 = r1\nr1 = r10\nr1 += -8\nr2 = 8\ncall bpf_probe_read\nif r0 != 0 goto +1\nr0 = *(u64 *)(r10 -8)\nexit", 0x1111111111111111),
    Case("map values are readable", ("probe_read_kernel",), VALUE + "r1 = 5\n*(u64 *)(r9 +0) = r1\nr3 = r9\nr1 = r10\nr1 += -16\nr2 = 8\ncall bpf_probe_read_kernel\nif r0 != 0 goto +1\nr0 = *(u64 *)(r10 -16)\nexit", 5),
    Case("user memory is not there", ("probe_read_user",), "r1 = r10\nr1 += -8\nr2 = 8\nr3 = 4096\ncall bpf_probe_read_user\nexit", -errno.EFAULT),
    Case("user strings are not there", ("probe_read_user_str",), "r1 = r10\nr1 += -8\nr2 = 8\nr3 = 4096\ncall bpf_probe_read_user_str\nexit", -errno.EFAULT),
    Case("strings are copied to their NUL", ("probe_read_kernel_str", "probe_read_str"), VALUE + "r6 = map[fd:FMT][0]+0\nr1 = r9\nr2 = 16\nr3 = r6\ncall bpf_probe_read_kernel_str\nr1 = r9\nr1 += 16\nr2 = 3\nr3 = r6\nr6 = r0\ncall bpf_probe_read_str\nr0 += r6\nexit", 9, b"hello\0" + bytes(10) + b"he\0", b"hello\0"),
    Case("numbers are read", ("strtol",), "r1 = map[fd:FMT][0]+0\nr2 = 4\nr3 = 10\nr4 = r10\nr4 += -8\ncall bpf_strtol\nif r0 s< 0 goto +1\nr0 = *(u64 *)(r10 -8)\nexit", -42, fmt=b"-42 \0"),
    Case("unsigned numbers are read", ("strtoul",), "r1 = map[fd:FMT][0]+0\nr2 = 4\nr3 = 0\nr4 = r10\nr4 += -8\ncall bpf_strtoul\nif r0 s< 0 goto +1\nr0 = *(u64 *)(r10 -8)\nexit", 0xFF, fmt=b"0xff\0"),
    Case("strings are compared", ("strncmp",), VALUE + "r1 = 0x6968\n*(u64 *)(r9 +0) = r1\nr1 = r9\nr2 = 8\nr3 = map[fd:FMT][0]+0\ncall bpf_strncmp\nexit", 0, fmt=b"hi\0"),
    Case("text is formatted", ("snprintf",), VALUE + "r1 = 7\n*(u64 *)(r10 -16) = r1\nr1 = r9\nr2 = 32\nr3 = map[fd:FMT][0]+0\nr4 = r10\nr4 += -16\nr5 = 8\ncall bpf_snprintf\nexit", 5, b"n=07\0", b"n=%02d\0"),
    Case("above the root there is none", ("get_current_ancestor_cgroup_id",), "r1 = 0\ncall bpf_get_current_ancestor_cgroup_id\nr6 = r0\nr1 = 1\ncall bpf_get_current_ancestor_cgroup_id\nr6 <<= 8\nr6 |= r0\nr1 = -1\ncall bpf_get_current_ancestor_cgroup_id\nr0 |= r6\nexit", 0x100),
    Case("no branches are recorded", ("get_branch_snapshot",), "r1 = r10\nr1 += -48\nr2 = 48\nr3 = 0\ncall bpf_get_branch_snapshot\nexit", -errno.ENOENT),
    Case("branches, with a flag", ("get_branch_snapshot",), "r1 = r10\nr1 += -48\nr2 = 48\nr3 = 1\ncall bpf_get_branch_snapshot\nexit", -errno.EINVAL),
    Case("a task came from user space", ("task_pt_regs",), "call bpf_get_current_task_btf\nr1 = r0\ncall bpf_task_pt_regs\nr0 = *(u64 *)(r0 +136)\nexit", 0x33),
    Case("there are no net_cls classes", ("get_cgroup_classid",), simple("get_cgroup_classid"), 0),
    Case("all tasks are in the root cgroup", ("get_current_cgroup_id",), simple("get_current_cgroup_id"), 1),
    Case("a test run has no cookie", ("get_attach_cookie",), simple("get_attach_cookie"), 0),
    Case("ids in the initial namespace", ("get_ns_current_pid_tgid",), "call bpf_get_current_pid_tgid\nr6 = r0\nr1 = 4\nr2 = 0xeffffffc ll\nr3 = r10\nr3 += -8\nr4 = 8\ncall bpf_get_ns_current_pid_tgid\nif r0 != 0 goto +4\nr0 = *(u32 *)(r10 -4)\nr0 <<= 32\nr1 = *(u32 *)(r10 -8)\nr0 |= r1\nr0 ^= r6\nexit", 0),
    Case("another namespace", ("get_ns_current_pid_tgid",), "r1 = 4\nr2 = 5\nr3 = r10\nr3 += -8\nr4 = 8\ncall bpf_get_ns_current_pid_tgid\nexit", -errno.EINVAL),
    Case("the trace is written", ("trace_printk",), "r1 = map[fd:FMT][0]+0\nr2 = 6\nr3 = 7\nr4 = 0\nr5 = 0\ncall bpf_trace_printk\nexit", 3, fmt=b"n=%lu\0"),
    Case("the trace is written from an array", ("trace_vprintk",), "r1 = 7\n*(u64 *)(r10 -8) = r1\nr1 = map[fd:FMT][0]+0\nr2 = 6\nr3 = r10\nr3 += -8\nr4 = 8\ncall bpf_trace_vprintk\nexit", 3, fmt=b"n=%lu\0"),
]  # fmt: skip

ELSEWHERE = {
    "loop": "test_callbacks_run",
    "for_each_map_elem": "test_callbacks_run",
    "tail_call": "tests of program arrays",
    "ringbuf_output": "test_ring_buffers_take_records",
    "ringbuf_reserve": "test_ring_buffers_take_records",
    "ringbuf_submit": "test_ring_buffers_take_records",
    "ringbuf_discard": "test_ring_buffers_take_records",
    "ringbuf_query": "test_ring_buffers_take_records",
    "perf_event_output": "test_perf_samples_are_written",
    "map_lookup_percpu_elem": "test_values_of_other_cpus",
    "per_cpu_ptr": "needs a kernel variable, which objects cannot name yet",
    "spin_lock": "test_spin_lock.py: raw tracepoints may not take locks",
    "spin_unlock": "test_spin_lock.py",
    **dict.fromkeys(("dynptr_from_mem", "dynptr_read", "dynptr_write", "dynptr_data"), "test_dynptr.py"),
    **dict.fromkeys(("ringbuf_reserve_dynptr", "ringbuf_submit_dynptr", "ringbuf_discard_dynptr"), "test_dynptr.py"),
    **dict.fromkeys(("get_stack", "get_stackid", "get_task_stack"), "test_stackmap.py"),
    **dict.fromkeys(("timer_init", "timer_set_callback", "timer_start", "timer_cancel"), "test_timer.py"),
    "kptr_xchg": "test_kptr.py",
    **dict.fromkeys(("map_push_elem", "map_pop_elem", "map_peek_elem", "current_task_under_cgroup"), "test_map_types.py"),
    **dict.fromkeys(
        (f"{owner}_storage_{verb}" for owner in ("task", "cgrp", "sk") for verb in ("get", "delete")), "test_map_types.py"
    ),
    **dict.fromkeys(("send_signal", "send_signal_thread", "find_vma", "user_ringbuf_drain"), "test_callbacks.py"),
    **dict.fromkeys(("perf_event_read", "perf_event_read_value"), "test_counters_of_events"),
    **dict.fromkeys((name for name in HELPER_IDS if name.startswith("skc_to_")), "test_kinds_of_sockets"),
    **dict.fromkeys(("get_socket_cookie", "sock_from_file"), "test_kinds_of_sockets"),
    **dict.fromkeys(("skb_output", "xdp_output", "xdp_get_buff_len"), "test_packets"),
    "snprintf_btf": "test_btf_show.py",
    "this_cpu_ptr": "needs a kernel variable, which objects cannot name yet",
}


def assembled(text: str, fds: dict[str, int]) -> bytes:
    for name, fd in fds.items():
        text = text.replace(f"fd:{name}]", f"fd:{fd}]")
    return encode(assemble(text))


def run(kernel: rtp.Kernel, text: str, fds: dict[str, int]) -> int:
    fd = kernel.prog_load(RAW_TRACEPOINT, assembled(text, fds), license="GPL")
    ctx = struct.pack("<12Q", *(0x1111111111111111 * (n + 1) & MASK for n in range(12)))
    result = kernel.prog_test_run(fd, ctx_in=ctx)
    kernel.close(fd)
    return result


def map_of(kernel: rtp.Kernel, fd: int) -> Any:
    return kernel.current.files.fget(fd).private_data.map


def test_every_helper_has_a_case() -> None:
    covered = {name for case in CASES for name in case.calls} | ELSEWHERE.keys()

    assert {row.name for row in HELPERS.values() if row.proto and not row.never} - covered == set()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_helper(kernel: rtp.Kernel, case: Case) -> None:
    out = kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, SIZE, 1)
    fmt = kernel.map_create(BpfMapType.BPF_MAP_TYPE_ARRAY, 4, len(case.fmt), 1, BPF_F_RDONLY_PROG)
    kernel.map_update_elem(fmt, bytes(4), case.fmt)
    kernel.map_freeze(fmt)

    result = run(kernel, case.text, {"OUT": out, "FMT": fmt})

    if case.r0 is not None:
        assert result & 0xFFFFFFFF == case.r0 & 0xFFFFFFFF
    assert kernel.map_lookup_elem(out, bytes(4)).startswith(case.out)


def test_ring_buffers_take_records(kernel: rtp.Kernel) -> None:
    ring = kernel.map_create(BpfMapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    text = """
        r1 = map[fd:RING]
        r2 = 8
        r3 = 0
        call bpf_ringbuf_reserve
        if r0 == 0 goto out
        r1 = 1
        *(u64 *)(r0 +0) = r1
        r1 = r0
        r2 = 0
        call bpf_ringbuf_submit
        r1 = map[fd:RING]
        r2 = 16
        r3 = 0
        call bpf_ringbuf_reserve
        if r0 == 0 goto out
        r1 = r0
        r2 = 0
        call bpf_ringbuf_discard
        r1 = 2
        *(u64 *)(r10 -8) = r1
        r1 = map[fd:RING]
        r2 = r10
        r2 += -8
        r3 = 8
        r4 = 0
        call bpf_ringbuf_output
        r1 = map[fd:RING]
        r2 = 0
        call bpf_ringbuf_query
        exit
        out:
        r0 = 0
        exit"""

    waiting = run(kernel, text, {"RING": ring})

    assert waiting == 16 + 24 + 16
    assert [struct.unpack("<Q", blob)[0] for blob in map_of(kernel, ring).consume()] == [1, 2]


def test_perf_samples_are_written(kernel: rtp.Kernel) -> None:
    perf = kernel.map_create(BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 2)
    text = """
        r2 = 5
        *(u64 *)(r10 -8) = r2
        r2 = map[fd:PERF]
        r3 = 0xffffffff ll
        r4 = r10
        r4 += -8
        r5 = 8
        call bpf_perf_event_output
        exit"""

    assert run(kernel, text, {"PERF": perf}) & 0xFFFFFFFF == -errno.ENOENT & 0xFFFFFFFF
    event = kernel.perf_event_open(0)
    kernel.map_update_elem(perf, bytes(4), struct.pack("<I", event))
    assert run(kernel, text, {"PERF": perf}) == 0
    assert [struct.unpack_from("<Q", blob)[0] for blob in kernel.perf_event_consume(event)] == [5]


def test_values_of_other_cpus(kernel: rtp.Kernel) -> None:
    percpu = kernel.map_create(BpfMapType.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 8, 1)
    kernel.map_update_elem(percpu, bytes(4), struct.pack("<2Q", 10, 20))
    text = """
        *(u32 *)(r10 -4) = 0
        r1 = map[fd:PERCPU]
        r2 = r10
        r2 += -4
        r3 = CPU
        call bpf_map_lookup_percpu_elem
        if r0 == 0 goto +1
        r0 = *(u64 *)(r0 +0)
        exit"""

    assert [run(kernel, text.replace("CPU\n", f"{cpu}\n"), {"PERCPU": percpu}) for cpu in (0, 1, 2)] == [10, 20, 0]


def test_callbacks_run(kernel: rtp.Kernel) -> None:
    """bpf_loop adds numbers[1] + i for i below 10; bpf_for_each_map_elem adds every element."""
    obj = kernel.load(Path(__file__).parent / "data" / "elf" / "subprogs.bpf.o")
    numbers = obj.maps["numbers"]
    for index, value in enumerate((7, 100, 3, 5)):
        kernel.map_update_elem(numbers.fd, struct.pack("<I", index), struct.pack("<Q", value))

    assert kernel.prog_test_run(obj.programs["loops"].fd, ctx_in=bytes(96)) == 10 * 100 + 45 + 115
