"""BPF_PROG_TYPE_TRACEPOINT programs on a tracepoint: PERF_EVENT_IOC_SET_BPF, and BPF_LINK_CREATE with a perf event.

The program gets the event's record, laid out by its format, as its context.

Kernel counterpart: kernel/events/core.c (perf_event_set_bpf_prog), kernel/trace/bpf_trace.c (perf_event_attach_bpf_prog),
kernel/bpf/syscall.c (bpf_perf_link_attach)
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError
from fastrtp.kernel.objects.link import BpfLink
from fastrtp.kernel.tracing.perf_tracepoint import TracepointEvent
from fastrtp.uapi import BpfAttachType, BpfLinkType, BpfProgType

if TYPE_CHECKING:
    from fastrtp.kernel.files.file import File
    from fastrtp.kernel.files.idr import Idr
    from fastrtp.kernel.objects.prog import BpfProg
    from fastrtp.kernel.syscall.call import Call

BPF_TRACE_MAX_PROGS = 64
_COOKIE_AT = 16
"""Offset of link_create.perf_event.bpf_cookie in the attr."""


def perf_event_set_bpf_prog(event: TracepointEvent, prog: BpfProg, bpf_cookie: int) -> None:
    """Run the program for every event of the tracepoint from now on; the event holds it. BpfError EEXIST: the event has a
    program, or the tracepoint has this one; EINVAL: not a tracepoint program; EACCES: it reads past the record's fields;
    E2BIG: 64 programs are there. Kernel: kernel/events/core.c:perf_event_set_bpf_prog
    """
    if event.prog is not None:
        raise BpfError(errno.EEXIST, f"EEXIST: the perf event has program {event.prog.id}")
    if prog.type != BpfProgType.BPF_PROG_TYPE_TRACEPOINT:
        raise BpfError(errno.EINVAL, f"EINVAL: programs of type {prog.type} do not go with a tracepoint event")
    call = event.tp_event
    end = call.get_offsets()
    if prog.max_ctx_offset > end:
        raise BpfError(
            errno.EACCES, f"EACCES: the program reads {prog.max_ctx_offset} bytes of the record, {call.name} has {end} of fields"
        )
    progs = call.perf.progs
    if len(progs) >= BPF_TRACE_MAX_PROGS:
        raise BpfError(errno.E2BIG, f"E2BIG: {len(progs)} programs are on {call.name}")
    if any(old is prog.record for old, _cookie in progs):
        raise BpfError(errno.EEXIST, f"EEXIST: program {prog.id} is on {call.name} already")
    call.perf.ctx_size = end
    call.perf.set_progs([*progs, (prog.record, bpf_cookie)])
    prog.get()
    event.prog = prog
    event.bpf_cookie = bpf_cookie


def perf_event_detach_bpf_prog(event: TracepointEvent) -> None:
    """The opposite; nothing for an event without a program. Kernel: kernel/trace/bpf_trace.c:perf_event_detach_bpf_prog"""
    prog, event.prog = event.prog, None
    if prog is None:
        return
    perf = event.tp_event.perf
    perf.set_progs([(old, cookie) for old, cookie in perf.progs if old is not prog.record])
    prog.put()


class BpfPerfLink(BpfLink):
    """`struct bpf_perf_link`: a program on a perf event, whose file it holds."""

    type = BpfLinkType.BPF_LINK_TYPE_PERF_EVENT

    def __init__(self, ids: Idr[BpfLink], prog: BpfProg, attach_type: int, perf_file: File) -> None:
        super().__init__(ids, prog, attach_type)
        self.perf_file = perf_file

    def __repr__(self) -> str:
        return f"<BpfPerfLink {self.id} {self.tp_name} prog {self.prog.id}>"

    @property
    def event(self) -> TracepointEvent:
        """The perf event."""
        found = self.perf_file.private_data
        assert isinstance(found, TracepointEvent)
        return found

    @property
    def tp_name(self) -> str:
        """Name of the tracepoint."""
        return self.event.tp_event.name

    @property
    def cookie(self) -> int:
        """What bpf_get_attach_cookie gives."""
        return self.event.bpf_cookie

    def detach_probe(self) -> None:
        """Kernel: kernel/bpf/syscall.c:bpf_perf_link_release"""
        perf_event_detach_bpf_prog(self.event)
        self.perf_file.fput()


def bpf_perf_link_attach(call: Call, prog: BpfProg) -> int:
    """BPF_LINK_CREATE of a tracepoint program on a perf event: descriptor of a link. BpfError EINVAL, EBADF, EMFILE, and what
    `perf_event_set_bpf_prog` gives. Kernel: kernel/bpf/syscall.c:bpf_perf_link_attach
    """
    attr = call.attr
    if attr.attach_type != BpfAttachType.BPF_PERF_EVENT:
        raise BpfError(errno.EINVAL, f"EINVAL: attach type {attr.attach_type} is not for tracepoint programs")
    if attr.flags:
        raise BpfError(errno.EINVAL, f"EINVAL: flags {attr.flags:#x}, none are allowed")
    perf_file = call.file(attr.target_fd)
    event = perf_file.private_data
    if not isinstance(event, TracepointEvent):
        raise BpfError(errno.EBADF, f"EBADF: file descriptor {attr.target_fd} is not a perf event")
    cookie = int.from_bytes(call.data[_COOKIE_AT : _COOKIE_AT + 8], "little")
    fd = call.link_attach(
        lambda: BpfPerfLink(call.kernel.links, prog, attr.attach_type, perf_file),
        lambda _link: perf_event_set_bpf_prog(event, prog, cookie),
    )
    perf_file.get_file()
    return fd
