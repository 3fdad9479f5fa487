"""What programs wrote and nobody could keep, counted over a replay: by map, by perf event, in the trace buffer, of signals.

Must not know: programs, the loop, recordings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.maps.ringbuf import Ring

RINGBUF, PERF_EVENT_ARRAY, STACK_TRACE = 27, 4, 7
"""BPF_MAP_TYPE_*."""
TRACE_BUFFER = "trace buffer"
"""What the report calls records that ftrace overwrote."""


class Losses:
    """Counts from when it was made."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._before = self._now()
        self._printk, self._signals = kernel.memory.printk_lost, kernel.memory.signals_lost

    @property
    def printk(self) -> int:
        """Lines that found no room in the trace pipe."""
        return self._kernel.memory.printk_lost - self._printk

    @property
    def signals(self) -> int:
        """Signals that found no room in the list of those asked for."""
        return self._kernel.memory.signals_lost - self._signals

    def dropped(self) -> dict[str, int]:
        """Records that found no room by name of the map (a second map of the same name has its id behind it): of rings, of perf
        event arrays, and stacks whose bucket was taken or whose map was full; "perf event NAME"; TRACE_BUFFER. 0 is listed, too.
        """
        rows: dict[str, int] = {}
        for (name, number), count in self._now().items():
            row = name if name not in rows else f"{name}#{number}"
            rows[row] = count - self._before.get((name, number), 0)
        return rows

    def _now(self) -> dict[tuple[str, int], int]:
        """By (name, id)."""
        found: dict[tuple[str, int], int] = {}
        for bpf_map in self._kernel.maps:
            if bpf_map.map_type in (RINGBUF, PERF_EVENT_ARRAY, STACK_TRACE):
                outside = sum(event.ring.lost for event, _file in bpf_map.events.values())
                found[bpf_map.name, bpf_map.id] = bpf_map.map.lost + outside
        for name, number, ring in _tracepoint_events(self._kernel):
            found[f"perf event {name}", number] = ring.lost
        if "ftrace" in self._kernel.__dict__:
            found[TRACE_BUFFER, 0] = self._kernel.ftrace.overrun
        return found


def _tracepoint_events(kernel: Kernel) -> Iterator[tuple[str, int, Ring]]:
    """(tracepoint, address, ring) of perf events that sample one."""
    if "trace_events" not in kernel.__dict__:
        return
    for call in kernel.trace_events.made:
        for event in call.perf.events if "perf" in call.__dict__ else ():
            if event.ring is not None:
                yield call.name, event.address, event.ring
