"""Events that no recording has: {u64 key, u64 value, u32 flags} of one tracepoint, as columns, for replays of programs made for
them (c/transition.bpf.c and its like).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.replay.bind import BoundRecording
    from fastrtp.replay.parallel import ParallelReplay

NAME = "generated"
PROTO = "u64 key, u64 value, u32 flags"


def bound(kernel: Kernel, cpu: Any, key: Any, value: Any, name: str = NAME) -> BoundRecording:
    """One event for each item, in the order of the columns, a microsecond apart. The tracepoint is added to the kernel.

    `name`: another tracepoint of two arguments, which gets 0 and the value.
    """
    from fastrtp.record import Recording
    from fastrtp.replay.bind import BoundArg, BoundEvent, BoundRecording

    if name == NAME and NAME not in kernel.tracepoints:
        kernel.trace_event(NAME, PROTO)
    count = len(cpu)
    time = np.arange(count, dtype=np.int64) * 1000
    cpus, event, row = np.asarray(cpu, np.uint16), np.zeros(count, np.uint16), np.arange(count, dtype=np.uint32)
    second = BoundArg(np.asarray(value, np.uint64), 0, 8, False)
    args = [BoundArg(np.asarray(key, np.uint32), 0, 8, False), second, BoundArg(None, 1, 4, False)]
    if name != NAME:
        args = [BoundArg(None, 0, 8, False), second]
    recording = Recording(time, cpus, event, row, np.zeros(count, np.int32), [])
    task = np.full(count, int(kernel.memory.env["current"][0]), np.uint64)
    return BoundRecording(recording, time, cpus, event, row, task, [BoundEvent(name, args, [])], [], {})


@contextmanager
def player(kernel: Kernel, events: BoundRecording, *, cpus: int, fuse: bool = True, **options: Any) -> Iterator[ParallelReplay]:
    """What plays these events through the links of the kernel on several threads."""
    from fastrtp.replay.parallel import ParallelReplay, several_cpus

    name = events.events[0].name
    with several_cpus(kernel):
        made = ParallelReplay(kernel, events, {name: kernel.tracepoints[name]}, cpus=cpus, fuse=fuse, **options)
        kernel.memory.set_clock(virtual=True)
        try:
            made.prepare()
            yield made
        finally:
            made.close()
            kernel.memory.set_clock(virtual=False)
