"""perf_event_open(2) on a tracepoint: counting, sampling into a ring, ioctl(2), read(2), and the program that it may carry.

A tracepoint event is on one CPU, or on all of them for one task. A program belongs to the tracepoint, not to the event: from
PERF_EVENT_IOC_SET_BPF on it runs for every event on every CPU, whether the perf event is enabled or not, as in Linux.

Kernel counterpart: kernel/events/core.c, kernel/trace/trace_event_perf.c
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fastrtp.errors import BpfError
from fastrtp.kernel.files.refs import RefCounted
from fastrtp.kernel.objects.perf_event import perf_event_fd, perf_event_open
from fastrtp.maps.ringbuf import Ring
from fastrtp.trace import perf_attr as uapi
from fastrtp.trace.perf import PerfEventRecord

if TYPE_CHECKING:
    from fastrtp.kernel.files.file import File
    from fastrtp.kernel.kernel import Kernel
    from fastrtp.kernel.objects.prog import BpfProg
    from fastrtp.kernel.process import Process
    from fastrtp.kernel.tracing.trace_event_call import TraceEventCall

_OUTPUT_RING = 1 << 20
_U64 = 8


class PerfSample(NamedTuple):
    """One PERF_RECORD_SAMPLE; None for what the event's sample_type leaves out. `raw`: the record with its padding."""

    pid: int | None
    tid: int | None
    time: int | None
    cpu: int | None
    period: int | None
    raw: bytes | None


class TracepointEvent(RefCounted):
    """`struct perf_event` of PERF_TYPE_TRACEPOINT. `tp_event`: the event that it counts; `prog`: its program, if any."""

    def __init__(self, kernel: Kernel, tp_event: TraceEventCall, attr: uapi.PerfEventAttr, cpu: int, pid: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.tp_event = tp_event
        self.sample_type = int(attr.sample_type)
        self.read_format = int(attr.read_format)
        self.prog: BpfProg | None = None
        self.bpf_cookie = 0
        self.record = PerfEventRecord(
            kernel.memory, cpu=cpu, pid=pid, period=int(attr.sample_period), sample_type=self.sample_type
        )
        self.record.enabled = not attr.flags & uapi.ATTR_DISABLED
        try:
            tp_event.perf.hold()
        except BaseException:
            self.record.close()
            raise
        tp_event.perf.set_events([*tp_event.perf.events, self.record])

    @property
    def count(self) -> int:
        """Events counted while it was enabled."""
        return self.record.count

    @property
    def lost(self) -> int:
        """Samples that found the ring full."""
        return self.record.ring.lost if self.record.ring is not None else 0

    def mmap(self, size: int) -> None:
        """Give it a ring of `size` bytes. BpfError EINVAL: no power of two, or it has one."""
        if self.record.ring is not None:
            raise BpfError(errno.EINVAL, "EINVAL: the event has a ring already")
        self.record.set_ring(Ring(self.kernel.memory, size))

    def consume(self) -> Iterator[PerfSample]:
        """The samples in the ring, consumed."""
        for record in self.record.ring.consume() if self.record.ring is not None else ():
            yield self._sample(record)

    def _sample(self, record: bytes) -> PerfSample:
        at = 8
        values: dict[int, int] = {}
        for bit in (uapi.PERF_SAMPLE_TID, uapi.PERF_SAMPLE_TIME, uapi.PERF_SAMPLE_CPU, uapi.PERF_SAMPLE_PERIOD):
            if self.sample_type & bit:
                values[bit] = int.from_bytes(record[at : at + _U64], "little")
                at += _U64
        both = values.get(uapi.PERF_SAMPLE_TID)
        raw = record[at + 4 :] if self.sample_type & uapi.PERF_SAMPLE_RAW else None
        return PerfSample(
            None if both is None else both & 0xFFFFFFFF, None if both is None else both >> 32,
            values.get(uapi.PERF_SAMPLE_TIME), values.get(uapi.PERF_SAMPLE_CPU), values.get(uapi.PERF_SAMPLE_PERIOD), raw,
        )  # fmt: skip

    def read_file(self, size: int) -> bytes:
        """read(2): the count, and the id where read_format asks for it. BpfError ENOSPC. Kernel: perf_read"""
        data = self.count.to_bytes(_U64, "little")
        if self.read_format & uapi.PERF_FORMAT_ID:
            data += self.record.address.to_bytes(_U64, "little")
        if size < len(data):
            raise BpfError(errno.ENOSPC, f"ENOSPC: {len(data)} bytes to read, room for {size}")
        return data

    def release_file(self, _file: File) -> None:
        """The last descriptor of an open file of it is closed. Kernel: perf_release"""
        self.put()

    def release(self) -> None:
        """Program, probe, record: nothing of it runs any more afterwards. Kernel: tp_perf_event_destroy"""
        from fastrtp.kernel.tracing.tracepoint_prog import perf_event_detach_bpf_prog

        perf_event_detach_bpf_prog(self)
        perf = self.tp_event.perf
        perf.set_events([event for event in perf.events if event is not self.record])
        perf.drop()
        self.record.close()


def sys_perf_event_open(
    process: Process, attr: uapi.PerfEventAttr, pid: int, cpu: int, group_fd: int = -1, flags: int = 0
) -> int:
    """perf_event_open(2): a descriptor of a tracepoint event, or of one for bpf_perf_event_output. BpfError EINVAL, E2BIG,
    EACCES, ENOENT, EOPNOTSUPP, EMFILE.

    Differs: events without groups, frequencies, registers and stacks only; any pid can be counted, those of recordings too.
    Kernel: kernel/events/core.c:perf_event_open
    """
    kernel = process.kernel
    with kernel.lock:
        _check(process, attr, pid, cpu, group_fd, flags)
        if attr.type == uapi.PERF_TYPE_SOFTWARE and attr.config == uapi.PERF_COUNT_SW_BPF_OUTPUT:
            return perf_event_open(process, cpu, _OUTPUT_RING)
        if attr.type != uapi.PERF_TYPE_TRACEPOINT:
            raise BpfError(errno.ENOENT, f"ENOENT: no event of type {attr.type}, config {attr.config}")
        tp_event = kernel.trace_events.by_id(attr.config)
        cloexec = bool(flags & uapi.PERF_FLAG_FD_CLOEXEC)
        return perf_event_fd(process, lambda: TracepointEvent(kernel, tp_event, attr, cpu, pid or process.pid), cloexec)


def _check(process: Process, attr: uapi.PerfEventAttr, pid: int, cpu: int, group_fd: int, flags: int) -> None:
    if flags & ~uapi.PERF_FLAG_ALL:
        raise _invalid(f"flags {flags:#x}, {uapi.PERF_FLAG_ALL:#x} are known")
    if attr.size and attr.size < uapi.PERF_ATTR_SIZE_VER0:
        raise BpfError(errno.E2BIG, f"E2BIG: attr of {attr.size} bytes, at least {uapi.PERF_ATTR_SIZE_VER0}")
    if not process.capable:
        raise BpfError(errno.EACCES, "EACCES: perf_event_open of a tracepoint takes CAP_PERFMON")
    if attr.flags & uapi.ATTR_FREQ:
        raise _invalid("sampling by frequency: give a period")
    if attr.sample_type & ~uapi.PERF_SAMPLE_KNOWN:
        raise _invalid(f"sample_type {attr.sample_type:#x}, {uapi.PERF_SAMPLE_KNOWN:#x} can be had")
    if attr.read_format & ~uapi.PERF_FORMAT_ID:
        raise _invalid(f"read_format {attr.read_format:#x}, only PERF_FORMAT_ID can be had")
    if attr.sample_period >> 63:
        raise _invalid(f"sample_period {attr.sample_period}")
    if (cpu == -1 and pid == -1) or not -1 <= cpu < process.kernel.cpus or pid < -1:
        raise _invalid(f"pid {pid} on cpu {cpu}, there are {process.kernel.cpus}")
    if group_fd != -1:
        raise _invalid(f"group_fd {group_fd}: there are no groups")


def perf_ioctl(process: Process, fd: int, request: int, arg: int) -> int:
    """ioctl(2) on a tracepoint event. BpfError EBADF, ENOTTY, EINVAL, and what SET_BPF gives.

    Kernel: kernel/events/core.c:_perf_ioctl
    """
    from fastrtp.kernel.tracing.tracepoint_prog import perf_event_set_bpf_prog

    with process.kernel.lock:
        event = tracepoint_event_of(process, fd)
        record = event.record
        if request in (uapi.PERF_EVENT_IOC_ENABLE, uapi.PERF_EVENT_IOC_DISABLE):
            record.enabled = request == uapi.PERF_EVENT_IOC_ENABLE
        elif request == uapi.PERF_EVENT_IOC_RESET:
            record.count = 0
        elif request == uapi.PERF_EVENT_IOC_PERIOD:
            if not 0 < arg < 1 << 63:
                raise _invalid(f"period {arg}")
            record.set_period(arg)
        elif request == uapi.PERF_EVENT_IOC_ID:
            return record.address
        elif request == uapi.PERF_EVENT_IOC_SET_BPF:
            perf_event_set_bpf_prog(event, _prog_of(process, arg), 0)
        else:
            raise BpfError(errno.ENOTTY, f"ENOTTY: request {request:#x} on a perf event")
        return 0


def _prog_of(process: Process, fd: int) -> BpfProg:
    from fastrtp.kernel.objects.prog import BpfProg

    prog = process.files.fget(fd).private_data
    if not isinstance(prog, BpfProg):
        raise _invalid(f"file descriptor {fd} is not a program")
    return prog


def tracepoint_event_of(process: Process, fd: int) -> TracepointEvent:
    """The event behind a descriptor. BpfError EBADF, EINVAL."""
    event = process.files.fget(fd).private_data
    if not isinstance(event, TracepointEvent):
        raise _invalid(f"file descriptor {fd} is not a tracepoint event")
    return event


def _invalid(why: str) -> BpfError:
    return BpfError(errno.EINVAL, f"EINVAL: {why}")
