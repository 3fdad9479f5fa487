"""PerfCall: what perf knows of one event: its probe, its programs, and the perf events that count and sample it.

The probe is on the tracepoint while anything holds the call. Arrays are replaced, never changed: a new one is published
with one store, and the old one freed when nobody walks it any more.

Kernel: kernel/trace/trace_event_perf.c (perf_trace_event_init), include/linux/trace_events.h (struct trace_event_call)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastrtp.maps.ringbuf import Ring
from fastrtp.native.memory import Memory
from fastrtp.trace.probe import ProgRecord
from fastrtp.trace.records import PERF_MAX_TRACE_SIZE, PERF_NR_CONTEXTS, PerfCallRecord, PerfCounter, PerfCpu, ProgArrayItem
from fastrtp.trace.tracepoint import Tracepoint, TracepointFunc, tracepoint_probe_register, tracepoint_probe_unregister


class PerfCpus:
    """The PERF_CPU records of a machine: shared by all its events."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.address, self._record = memory.record(PerfCpu.layout.dtype, memory.cpus)
        self._record["buffers"] = [memory.arena.alloc(PERF_MAX_TRACE_SIZE * PERF_NR_CONTEXTS) for _ in range(memory.cpus)]

    def forget_recorded(self) -> None:
        """A replay is over: what it had recorded is gone."""
        self._record["recorded_call"] = 0


class PerfEventRecord:
    """The native side of a perf event. `cpu` and `pid`: -1 for any. `period`: 0 counts only. `ring`: where samples go."""

    def __init__(self, memory: Memory, *, cpu: int, pid: int, period: int, sample_type: int) -> None:
        self.memory = memory
        self.ring: Ring | None = None
        self.address, self._record = memory.record(PerfCounter.layout.dtype)
        row = self._record[0]
        row["cpu"], row["pid"], row["sample_type"] = cpu, pid, sample_type
        self.set_period(period)

    def set_ring(self, ring: Ring) -> None:
        """Samples go there from now on; the ring is freed with the event."""
        assert self.ring is None
        self.ring = ring
        self._record["ring"] = ring.address

    def set_period(self, period: int) -> None:
        """Sample every `period`-th event."""
        self._record["period"], self._record["period_left"] = period, -period

    @property
    def enabled(self) -> bool:
        """Whether it counts."""
        return bool(self._record["enabled"][0])

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._record["enabled"] = int(value)

    @property
    def count(self) -> int:
        """Events counted."""
        return int(self._record["count"][0])

    @count.setter
    def count(self, value: int) -> None:
        self._record["count"] = value

    def close(self) -> None:
        """Free it and its ring. It is in no call any more."""
        if self.ring is not None:
            self.ring.close()
        self.memory.arena.free(self.address)


class PerfCall:
    """`struct trace_event_call` as far as perf goes. `func`: native perf_trace_<name>."""

    def __init__(self, tp: Tracepoint, func: int, event_type: int, cpus: PerfCpus) -> None:
        self.tp = tp
        self.func = func
        self.events: list[PerfEventRecord] = []
        self.progs: list[tuple[ProgRecord, int]] = []
        self.ctx_size = 0
        """Bytes of a record up to the end of its fields; set by who attaches programs."""
        self._memory = memory = cpus.memory
        self.address, self._record = memory.record(PerfCallRecord.layout.dtype)
        self._record["type"], self._record["cpus"] = event_type, cpus.address
        self.cpus_address = cpus.address
        self._holders = 0
        self._arrays: dict[str, int] = {}
        self._publish("events", np.zeros(1, np.int64))
        self._publish("prog_array", np.zeros(1, ProgArrayItem.layout.dtype))

    def hold(self) -> None:
        """One holder more; the first puts the probe on the tracepoint. BpfError. Kernel: perf_trace_event_reg"""
        if self._holders == 0:
            tracepoint_probe_register(self.tp, TracepointFunc(self.func, self.address))
        self._holders += 1

    def drop(self) -> None:
        """One holder less; the last takes the probe off. Kernel: perf_trace_event_unreg"""
        self._holders -= 1
        if self._holders == 0:
            tracepoint_probe_unregister(self.tp, self.func, self.address)

    def set_events(self, events: Sequence[PerfEventRecord]) -> None:
        """The perf events from now on; when it returns, no other is being written to."""
        self.events = list(events)
        self._publish("events", np.array([event.address for event in events] + [0], np.int64))

    def set_progs(self, progs: Sequence[tuple[ProgRecord, int]]) -> None:
        """The (program, cookie)s from now on, in order; when it returns, no other is running."""
        self.progs = list(progs)
        array = np.zeros(len(progs) + 1, ProgArrayItem.layout.dtype)
        for row, (prog, cookie) in zip(array, progs, strict=False):
            row["ctx_size"] = self.ctx_size
            row["prog"], row["cookie"] = prog.address, np.uint64(cookie).astype(np.int64)
        self._publish("prog_array", array)

    def _publish(self, field: str, rows: np.ndarray) -> None:
        arena = self._memory.arena
        address = arena.alloc(rows.nbytes)
        arena.view(address, rows.nbytes)[:] = rows.view(np.uint8)
        old = self._arrays.get(field, 0)
        self._arrays[field] = address
        self._record[field] = address
        if old:
            self._memory.synchronize_rcu()
            arena.free(old)
