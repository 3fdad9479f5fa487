"""PerfEvent: a perf event of the kind that bpf_perf_event_output writes to (PERF_COUNT_SW_BPF_OUTPUT), with its ring.

Kernel counterpart: kernel/events/core.c, kernel/trace/bpf_trace.c:__bpf_perf_event_output
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .refs import RefCounted

if TYPE_CHECKING:
    from fastrtp.native.memory import Memory

    from .file import File


class PerfEvent(RefCounted):
    """An event on one CPU. `ring`: where samples go."""

    def __init__(self, memory: Memory, cpu: int, size: int) -> None:
        from fastrtp.maps.ringbuf import Ring

        super().__init__()
        self.cpu = cpu
        self.ring = Ring(memory, size)

    def consume(self) -> Iterator[bytes]:
        """Samples as bytes, consumed."""
        return self.ring.consume()

    def release_file(self, _file: File) -> None:
        """The last descriptor of an open file of it is closed. Kernel: perf_release"""
        self.put()

    def release(self) -> None:
        """Free the ring."""
        self.ring.close()
