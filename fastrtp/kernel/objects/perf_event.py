"""PerfEvent: a perf event of the kind that bpf_perf_event_output writes to (PERF_COUNT_SW_BPF_OUTPUT), with its ring.

Kernel counterpart: kernel/events/core.c, kernel/trace/bpf_trace.c:__bpf_perf_event_output
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError
from fastrtp.kernel.files.file import O_CLOEXEC
from fastrtp.kernel.files.refs import RefCounted

if TYPE_CHECKING:
    from fastrtp.kernel.files.file import File
    from fastrtp.kernel.process import Process
    from fastrtp.kernel.tracing.perf_tracepoint import TracepointEvent
    from fastrtp.native.memory import Memory


class PerfEvent(RefCounted):
    """An event on one CPU. `ring`: where samples go."""

    def __init__(self, memory: Memory, cpu: int, size: int) -> None:
        from fastrtp.maps.ringbuf import Ring

        super().__init__()
        self.cpu = cpu
        self.ring = Ring(memory, size, cpu)

    def consume(self) -> Iterator[bytes]:
        """Samples as bytes, consumed."""
        return self.ring.consume()

    def release_file(self, _file: File) -> None:
        """The last descriptor of an open file of it is closed. Kernel: perf_release"""
        self.put()

    def release(self) -> None:
        """Free the ring."""
        self.ring.close()


def perf_event_open(process: Process, cpu: int, size: int) -> int:
    """A descriptor of a new event. BpfError EINVAL, EMFILE, ENFILE. Kernel: kernel/events/core.c:perf_event_open"""
    kernel = process.kernel
    with kernel.lock:
        if not 0 <= cpu < kernel.cpus:
            raise BpfError(errno.EINVAL, f"EINVAL: no cpu {cpu}, there are {kernel.cpus}")
        return perf_event_fd(process, lambda: PerfEvent(kernel.memory, cpu, size), cloexec=True)


def perf_event_fd(process: Process, make: Callable[[], PerfEvent | TracepointEvent], cloexec: bool) -> int:
    """A descriptor of the event that `make` makes. BpfError EMFILE, ENFILE. Kernel: kernel/events/core.c:perf_event_open"""
    mode = os.O_RDWR | (O_CLOEXEC if cloexec else 0)
    with process.files.reserved(cloexec) as fd:
        event = make()
        try:
            file = process.kernel.file_table.open("anon_inode:[perf_event]", event, mode, event.release_file)
        except BpfError:
            event.put()
            raise
    return process.files.fd_install(fd, file)


def perf_event_of(process: Process, fd: int) -> PerfEvent:
    """The event behind a descriptor. BpfError EBADF, EINVAL."""
    event = process.files.fget(fd).private_data
    if not isinstance(event, PerfEvent):
        raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {fd} is not a perf event")
    return event
