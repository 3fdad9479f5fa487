"""perf_event_open on a tracepoint, and the classic programs that it carries."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastrtp.errors import BpfError, VerifierError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.event_formats import default_formats
from fastrtp.record.record_fields import decode_record
from fastrtp.trace.perf_attr import (
    PERF_EVENT_IOC_DISABLE,
    PERF_EVENT_IOC_ENABLE,
    PERF_EVENT_IOC_PERIOD,
    PERF_EVENT_IOC_RESET,
    PERF_EVENT_IOC_SET_BPF,
    PERF_SAMPLE_CPU,
    PERF_SAMPLE_RAW,
    PERF_TYPE_TRACEPOINT,
    PerfEventAttr,
)
from fastrtp.uapi import BpfCmd, BpfProgType

BOTH = Path(__file__).parent / "data" / "ftrace" / "both.bpf.o"
TRACEPOINT = BpfProgType.BPF_PROG_TYPE_TRACEPOINT
SWITCH = default_formats()["sched_switch"].id


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        yield kernel
        for process in list(kernel.processes.values()):
            process.exit()
        assert not kernel.progs
        assert not kernel.links


def program(kernel: Kernel, text: str) -> int:
    """A classic tracepoint program."""
    return kernel.prog_load(TRACEPOINT, encode(assemble(text)))


def sleeper(kernel: Kernel, result: int = 1) -> int:
    return program(kernel, f"r0 = {result}\nexit")


def attr(**fields: int) -> PerfEventAttr:
    return PerfEventAttr(**{"type": PERF_TYPE_TRACEPOINT, "size": 136, "config": SWITCH, **fields})


# counting and sampling


def test_counts_by_cpu_and_task(kernel: Kernel, recording: Recording) -> None:
    """An event on a CPU counts that CPU's, one for a task those that fire while the task runs."""
    table = next(index for index, table in enumerate(recording.tables) if table.name == "sched_switch")
    mine = recording.event == table
    pid = int(recording.pid[mine][100])
    fds = [kernel.perf_tracepoint_open("sched:sched_switch", cpu=cpu) for cpu in (0, 1)]
    fds.append(kernel.perf_tracepoint_open("sched_switch", cpu=-1, pid=pid))
    fds.append(kernel.perf_tracepoint_open("sched_switch", cpu=1, pid=pid))
    kernel.replay(recording)

    counts = [int.from_bytes(kernel.current.read(fd, 8), "little") for fd in fds]

    on_1 = mine & (recording.cpu == 1)
    expected = [(mine & ~on_1).sum(), on_1.sum(), (mine & (recording.pid == pid)).sum(), (on_1 & (recording.pid == pid)).sum()]
    assert counts == expected
    assert min(counts) > 0


@pytest.mark.parametrize("period", [1, 2, 7, 1000])
def test_every_nth_event_is_sampled(kernel: Kernel, recording: Recording, period: int) -> None:
    """With the time, task, CPU and record of the event."""
    index = next(index for index, table in enumerate(recording.tables) if table.name == "sys_enter")
    table = recording.tables[index]
    fd = kernel.perf_tracepoint_open("sys_enter", cpu=0, period=period, size=1 << 22)
    kernel.replay(recording)
    event = kernel.perf_tracepoint(fd)
    at = ((recording.event == index) & (recording.cpu == 0)).nonzero()[0]
    taken = at[period - 1 :: period]

    samples = list(event.consume())

    assert event.count == len(at)
    assert event.lost == 0
    assert [(sample.time, sample.tid, sample.cpu, sample.period) for sample in samples] == [
        (recording.time[place], recording.pid[place], 0, period) for place in taken
    ]
    assert samples[-1].raw is not None
    fields = decode_record(default_formats()["sys_enter"], samples[-1].raw)
    row = recording.row[taken[-1]]
    assert fields == {"id": table.fields["id"][row], "args": table.fields["args"][row].tolist()}
    assert len(samples[-1].raw) == 68  # the record's 64 bytes, padded to end 4 behind a multiple of 8
    assert list(event.consume()) == []


def test_switching_on_and_off(kernel: Kernel) -> None:
    """ENABLE, DISABLE, RESET and PERIOD; a full ring loses samples and keeps counting."""
    fire = kernel.trace("sched_wake_idle_without_ipi")
    fd = kernel.perf_tracepoint_open("sched_wake_idle_without_ipi", period=1, size=4096, sample_type=PERF_SAMPLE_CPU)
    event = kernel.perf_tracepoint(fd)
    for request, arg in ((0, 0), (PERF_EVENT_IOC_DISABLE, 0), (PERF_EVENT_IOC_ENABLE, 0), (PERF_EVENT_IOC_PERIOD, 5)):
        if request:
            kernel.ioctl(fd, request, arg)
        for number in range(10):
            fire(number)

    assert event.count == 30
    assert len(list(event.consume())) == 22
    kernel.ioctl(fd, PERF_EVENT_IOC_RESET)
    kernel.ioctl(fd, PERF_EVENT_IOC_PERIOD, 1)
    for number in range(1000):
        fire(number)
    kept = len(list(event.consume()))
    assert event.count == 1000
    assert event.lost == 1000 - kept > 0
    kernel.close(fd)
    assert not kernel.tracepoints["sched_wake_idle_without_ipi"].enabled


@pytest.mark.parametrize(
    ("fields", "pid", "cpu", "code"),
    [
        ({"config": 1}, -1, 0, "EINVAL: no event with id 1"),
        ({"config": 1 << 40}, -1, 0, "EINVAL: no event with id"),
        ({"type": 7}, -1, 0, "ENOENT: no event of type 7"),
        ({}, -1, -1, "EINVAL: pid -1 on cpu -1"),
        ({}, -1, 2, "EINVAL: pid -1 on cpu 2"),
        ({"size": 8}, -1, 0, "E2BIG"),
        ({"sample_type": 1}, -1, 0, "EINVAL: sample_type 0x1"),
        ({"flags": 1 << 10}, -1, 0, "EINVAL: sampling by frequency"),
        ({"read_format": 1}, -1, 0, "EINVAL: read_format"),
        ({"sample_period": 1 << 63}, -1, 0, "EINVAL: sample_period"),
    ],
)
def test_attrs_that_are_refused(kernel: Kernel, fields: dict[str, int], pid: int, cpu: int, code: str) -> None:
    """Nothing is left behind."""
    with pytest.raises(BpfError, match=code):
        kernel.sys_perf_event_open(attr(**fields), pid, cpu)

    assert list(kernel.current.files) == [0, 1, 2]
    assert not kernel.tracepoints["sched_switch"].enabled


def test_rights_and_descriptors(kernel: Kernel) -> None:
    """Who may not open one, and what is no perf event."""
    poor = kernel.new_process(capable=False)
    with pytest.raises(BpfError, match="EACCES"):
        poor.sys_perf_event_open(attr(), -1, 0)
    for fd, code in ((0, "EINVAL"), (99, "EBADF")):
        with pytest.raises(BpfError, match=code):
            kernel.ioctl(fd, PERF_EVENT_IOC_ENABLE)
    fd = kernel.perf_tracepoint_open("sched_switch")
    with pytest.raises(BpfError, match="ENOTTY"):
        kernel.ioctl(fd, 0x1234)
    with pytest.raises(BpfError, match="ENOSPC"):
        kernel.current.read(fd, 7)
    event = kernel.perf_tracepoint(fd)
    event.mmap(4096)
    with pytest.raises(BpfError, match="EINVAL: the event has a ring"):
        event.mmap(4096)


# programs


@pytest.mark.parametrize("tier", ["auto", "linked"])
def test_both_kinds_see_the_same(kernel: Kernel, recording: Recording, tier: str) -> None:
    """The same logic over arguments and over records, in one object: equal maps over the shipped recording."""
    obj = kernel.load(BOTH)
    with obj.attach():
        report = kernel.replay(recording, tier=tier)

        runs = {name: row.run_cnt for name, row in report.programs.items()}
        assert [runs[f"raw_{name}"] for name in ("switch", "enter", "exec", "rename")] == [5069, 13654, 3, 25]
        for name in ("switches", "calls", "names"):
            raw, classic = (dict(obj.maps[f"{kind}_{name}"].raw_items()) for kind in ("raw", "tp"))
            assert len(raw) > 10
            assert raw == classic
        assert all(runs[f"tp_{name}"] == runs[f"raw_{name}"] for name in ("switch", "enter", "exec", "rename"))
    obj.close()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("r0 = *(u64 *)(r1 +0)\nexit", "invalid bpf_context access off=0 size=8"),
        ("r0 = *(u32 *)(r1 +4)\nexit", "invalid bpf_context access off=4 size=4"),
        ("r0 = *(u32 *)(r1 +10)\nexit", "invalid bpf_context access off=10 size=4"),
        ("r0 = *(u8 *)(r1 +8192)\nexit", "invalid bpf_context access off=8192 size=1"),
        ("r0 = 0\n*(u64 *)(r1 +8) = r0\nexit", "invalid bpf_context access off=8 size=8"),
    ],
)
def test_context_accesses_that_are_refused(kernel: Kernel, text: str, error: str) -> None:
    """Reads only, behind the first 8 bytes, aligned, within the largest record."""
    with pytest.raises(VerifierError, match=error):
        program(kernel, text)


def test_the_fields_are_the_limit(kernel: Kernel) -> None:
    """How far a program may read is known when it is attached: to the end of the last field."""
    whole = program(kernel, "r0 = *(u32 *)(r1 +60)\nexit")
    past = program(kernel, "r0 = *(u64 *)(r1 +64)\nexit")
    fd = kernel.perf_tracepoint_open("sched_switch")

    with pytest.raises(BpfError, match="EACCES: the program reads 72 bytes of the record, sched_switch has 64"):
        kernel.ioctl(fd, PERF_EVENT_IOC_SET_BPF, past)
    kernel.ioctl(fd, PERF_EVENT_IOC_SET_BPF, whole)
    assert kernel.task_fd_query(kernel.current.pid, fd) == ("sched_switch", next(iter(kernel.ids("prog"))))


def test_set_bpf_errors(kernel: Kernel) -> None:
    """One program an event, each once on a tracepoint, and only of this type."""
    one, two = sleeper(kernel), sleeper(kernel)
    raw = kernel.prog_load(BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT, encode(assemble("r0 = 0\nexit")))
    fds = [kernel.perf_tracepoint_open("sched_switch") for _ in range(2)]
    kernel.ioctl(fds[0], PERF_EVENT_IOC_SET_BPF, one)

    for fd, prog, code in ((fds[0], two, "EEXIST: the perf event"), (fds[1], one, "EEXIST: program"), (fds[1], raw, "EINVAL"),
                           (fds[1], 0, "EINVAL"), (fds[1], 99, "EBADF")):  # fmt: skip
        with pytest.raises(BpfError, match=code):
            kernel.ioctl(fd, PERF_EVENT_IOC_SET_BPF, prog)
    with pytest.raises(BpfError, match="EINVAL: programs of type 5"):
        kernel.raw_tracepoint_open("sched_switch", one)
    with pytest.raises(BpfError, match="ENOENT: the perf event"):
        kernel.task_fd_query(kernel.current.pid, fds[1])


def test_a_program_belongs_to_the_tracepoint(kernel: Kernel) -> None:
    """It runs on every CPU, whether its event is on or not, until the event is closed; and decides what events see."""
    fd = kernel.sys_perf_event_open(attr(flags=1), -1, 0)
    kernel.ioctl(fd, PERF_EVENT_IOC_SET_BPF, prog := sleeper(kernel, 0))
    kernel.close(prog)
    counter = kernel.perf_tracepoint_open("sched_switch", cpu=1)
    fire = kernel.trace("sched_switch", 1)
    held = next(iter(kernel.progs))
    for _ in range(3):
        fire(0, 0, 0, 0)

    assert held.runs == 3
    assert kernel.perf_tracepoint(counter).count == 0
    kernel.close(fd)
    assert not kernel.progs
    fire(0, 0, 0, 0)
    assert kernel.perf_tracepoint(counter).count == 1


def test_a_perf_link_holds_its_event(kernel: Kernel) -> None:
    """BPF_LINK_CREATE with a perf event: closing the event's descriptor detaches nothing, closing the link does."""
    prog = sleeper(kernel)
    link, event = kernel.tracepoint_attach("sched/sched_switch", prog, cookie=1 << 63 | 5)
    kernel.close(event)
    fire = kernel.trace("sched_switch")
    fire(0, 0, 0, 0)
    info = kernel.obj_get_info_by_fd(link)

    assert (info.type, info.prog_id) == (7, next(iter(kernel.progs)).id)
    assert "link_type:\tperf" in kernel.current.fdinfo(link)
    assert next(iter(kernel.links)).cookie == 1 << 63 | 5  # type: ignore[attr-defined]
    kernel.close(link)
    fire(0, 0, 0, 0)
    assert next(iter(kernel.progs)).runs == 1
    assert not kernel.tracepoints["sched_switch"].enabled


@pytest.mark.parametrize(
    ("attach_type", "target", "flags", "code"), [(0, 3, 0, "EINVAL"), (41, 3, 1, "EINVAL"), (41, 0, 0, "EBADF")]
)
def test_perf_links_that_are_refused(kernel: Kernel, attach_type: int, target: int, flags: int, code: str) -> None:
    """Attach type, flags, and what the target is."""
    fd = kernel.perf_tracepoint_open("sched_switch")
    prog = sleeper(kernel)
    buffer = (ctypes.c_uint32 * 16)(prog, fd if target else 0, attach_type, flags)

    with pytest.raises(BpfError, match=code):
        kernel.bpf(BpfCmd.BPF_LINK_CREATE, buffer)
    assert not kernel.links


def test_classic_programs_do_not_nest(kernel: Kernel) -> None:
    """One runs at a time on a CPU, whichever it is: a second one, called by an event inside, is a miss."""
    text = b"%d\0"
    outer = program(kernel, f"r1 = {int.from_bytes(text, 'little')}\n*(u32 *)(r10 -4) = r1\nr1 = r10\nr1 += -4\nr2 = 3\nr3 = 1\n"
                            "call bpf_trace_printk#6\nr0 = 1\nexit")  # fmt: skip
    inner = sleeper(kernel)
    kernel.tracepoint_attach("sched_switch", outer)
    kernel.tracepoint_attach("bpf_trace_printk", inner)
    kernel.trace("sched_switch")(0, 0, 0, 0)
    by_fd = [kernel.current.files.fget(fd).private_data for fd in (outer, inner)]

    assert [prog.runs for prog in by_fd] == [1, 0]
    assert [prog.stats()[2] for prog in by_fd] == [0, 1]


def test_raw_samples_only_when_asked(kernel: Kernel) -> None:
    """sample_type decides what a sample has."""
    fd = kernel.perf_tracepoint_open("softirq_raise", period=1, sample_type=PERF_SAMPLE_RAW)
    kernel.trace("softirq_raise")(3)
    (sample,) = kernel.perf_tracepoint(fd).consume()

    assert sample[:5] == (None, None, None, None, None)
    assert sample.raw is not None
    assert sample.raw[:2] == default_formats()["softirq_raise"].id.to_bytes(2, "little")
    assert sample.raw[8:12] == (3).to_bytes(4, "little")
