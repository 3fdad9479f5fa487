"""Parallel replay: threads that own recorded CPUs play their events at the same time.

Order within a CPU is kept. Between CPUs it is kept to a window: all threads play the events of one stretch of the recording,
each those of its own CPUs, and meet before the next. Without a window they do not wait for each other. So what programs
count does not depend on the order of events of different CPUs, or is off by what happens within a window. Which of the two,
order.py finds out before: unless the user has asked for relaxed order, programs of the second kind are not played here.

Programs run in a form of their own, with real atomics, locked buckets and spin locks (kernel/objects/prog.py: smp_native). A
plain `count++` in a map that CPUs share loses updates, as it does in Linux.

Objects that events describe (the members of a task_struct that a recording supplies) are stored to by the thread whose
event it is, just before its programs run, and are not locked: a program sees what its own CPU's events stored, in order,
and of other CPUs' stores to the same object those that have happened by then, within the window. A member of up to eight
bytes is never seen half written; a string (comm) may be, as in Linux. What else the running task has one of (pt_regs) it
has one of for each thread: what a system call was called with is exact, but a task that changed threads in the middle of
one finds only what its end says.

A turn is one native call a thread, under one hold of the machine: maps, attaching, detaching and signals have their turn
between two. Must not know: programs' contents, file formats.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from fastrtp.native.process import PROCESS
from fastrtp.replay.bind import BoundRecording
from fastrtp.replay.fused import FusedReplay
from fastrtp.replay.linked import LinkedReplay
from fastrtp.replay.records import Lane, Team
from fastrtp.replay.windows import Cpus, Window, boundaries, lane_ends, lanes, own_ends, parse_window
from fastrtp.trace import Tracepoint

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel

WINDOW = 1 << 16
"""Events that a window has unless told otherwise."""
_TURN = 1 << 17
"""Events of the first turn; turns grow until one takes _TURN_SECONDS."""
_TURN_SECONDS = 0.02
_STEP = 1 << 12
"""Events of its own that a thread plays between two looks at what else there is, without a window."""


@contextmanager
def several_cpus(kernel: Kernel) -> Iterator[None]:
    """Programs run in their form for several CPUs, also those that are loaded meanwhile. JitError."""
    memory = kernel.memory
    PROCESS.several_cpus()
    with kernel.lock:
        memory.parallel += 1
        memory.flag_smp(on=True)
    try:
        with kernel.lock:
            for prog in kernel.progs:
                prog.smp_native()  # all are compiled at the same time
            for prog in kernel.progs:
                prog.run_smp()
        yield
    finally:
        with kernel.lock:
            memory.parallel -= 1
            if memory.parallel == 0:
                memory.flag_smp(on=False)
                for prog in kernel.progs:
                    prog.run_alone()


def aligned(count: int, dtype: np.dtype[np.void]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Zeroed records that begin at a cache line."""
    room = np.zeros(count * dtype.itemsize + 64, np.uint8)
    skip = -room.ctypes.data % 64
    return room[skip : skip + count * dtype.itemsize].view(dtype)


class ParallelReplay:
    """One recording on several threads; the same interface as a LinkedReplay's. `threads`: how many there are.

    `fuse`: play fused what can be. `allowed`: what turns are played in; an error of its ends the replay. The
    caller is in `several_cpus`, and holds the kernel's lock while this is made.
    """

    def __init__(
        self, kernel: Kernel, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint], *, cpus: Cpus,
        window: Window = WINDOW, chunk: int | None = None, fuse: bool | None = None,
    ) -> None:  # fmt: skip
        self.memory = memory = kernel.memory
        self.events = len(bound.time)
        self.meet = parse_window(window)
        self.allowed: Callable[[], AbstractContextManager[None]] = nullcontext
        self._chunk = chunk
        self._played = self._fused_events = 0
        self._pool: ThreadPoolExecutor | None = None
        self._lanes: list[LinkedReplay] = []
        picked = lanes(bound.cpu, cpus)
        for mine in picked:
            part = replace(
                bound, time=bound.time[mine], cpu=bound.cpu[mine], event=bound.event[mine], row=bound.row[mine],
                current=bound.current[mine],
            )  # fmt: skip
            self._lanes.append(_lane(kernel, part, tracepoints, mine, fuse, self.events))
        self.threads = len(self._lanes)
        self._cut(bound, picked)
        self._team = aligned(1, Team.layout.dtype)
        self._team["machine"], self._team["threads"] = memory.machine_address, self.threads
        self._records = aligned(self.threads, Lane.layout.dtype)
        self._records["team"] = self._team.ctypes.data
        for record, lane, ends in zip(self._records, self._lanes, self._ends, strict=True):
            record["replay"], record["ends"] = lane.state_address, ends.ctypes.data

    def _cut(self, bound: BoundRecording, picked: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> None:
        """Where windows end: in the recording (`_bounds`), and among each thread's events (`_ends`)."""
        most = self._chunk or max(self.events, 1)
        if self.meet is not None:
            self._bounds = boundaries(bound.time, self.meet, most)
            self._ends = [lane_ends(mine, self._bounds) for mine in picked]
            return
        step = max(min(_STEP, most // self.threads), 1)
        windows = max(-(-max(len(mine) for mine in picked) // step), 1)
        self._ends = [own_ends(len(mine), step, windows) for mine in picked]
        self._bounds = np.sum(self._ends, axis=0)

    def prepare(self) -> None:
        """Compile what the first turn needs."""
        for lane in self._lanes:
            lane.prepare()

    def run(self, progress: Callable[[int, int], None] | None = None, chunk: int | None = None) -> int:
        """Play to the end; how many events were played. KeyboardInterrupt ends it between turns.

        `chunk`: most events of a turn, if that was not said before; without it turns take about 20 ms.
        """
        before = self.position
        turn = chunk or self._chunk or _TURN
        at = 0
        while at < len(self._bounds):
            begun = int(self._bounds[at - 1]) if at else 0
            last = max(int(np.searchsorted(self._bounds, begun + turn, "right")), at + 1)
            start = time.perf_counter()
            with self.allowed():
                self._turn(at, last)
            time.sleep(0)  # whoever waits for the kernel's lock
            at = last
            if progress is not None:
                progress(self.position, self.events)
            if not (chunk or self._chunk) and time.perf_counter() - start < _TURN_SECONDS:
                turn *= 2
        return self.position - before

    def _turn(self, first: int, last: int) -> None:
        """All threads play the windows [first, last); what a fused loop refused, linked at once."""
        self._play(first, last)
        refused = [int(record["refused"]) for record in self._records]
        if any(refused):
            for lane, why in zip(self._lanes, refused, strict=True):
                if isinstance(lane, FusedReplay) and why == -1:
                    lane.give_up()
            self._play(first, last, linked=True)

    def _play(self, first: int, last: int, *, linked: bool = False) -> None:
        before = [lane.position for lane in self._lanes]
        fused: list[bool] = []
        for record, lane in zip(self._records, self._lanes, strict=True):
            loop = lane.linked_loop if linked else lane.loop
            (record["loop"], record["run"]), record["refused"] = loop(), 0
            fused.append(not linked and isinstance(lane, FusedReplay) and lane.is_fused)
        self._team["arrived"] = self._team["abort"] = 0
        play = self.memory.lib.lane_play
        addresses = [self._records.ctypes.data + number * Lane.layout.size for number in range(self.threads)]
        meet = int(self.meet is not None)
        others = []
        try:
            if self.threads > 1:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self.threads - 1, "replay")
                others = [self._pool.submit(play, address, first, last, meet, 0) for address in addresses[1:]]
            play(addresses[0], first, last, meet, 1)
        finally:
            self._team["abort"] = 1  # who still waits here for a leader that never came
            wait(others)
        for other in others:
            other.result()
        for was_fused, lane, old in zip(fused, self._lanes, before, strict=True):
            self._played += lane.position - old
            self._fused_events += lane.position - old if was_fused else 0

    @property
    def position(self) -> int:
        """How many events have been played."""
        return sum(lane.position for lane in self._lanes)

    @property
    def fired(self) -> int:
        """Events so far whose tracepoint had a probe."""
        return sum(lane.fired for lane in self._lanes)

    @property
    def tier(self) -> str:
        """How events were played so far."""
        if self._fused_events == 0:
            return "linked"
        return "fused" if self._fused_events == self._played else "fused, linked"

    def rewind(self) -> None:
        """Start over: what programs counted stays."""
        for lane in self._lanes:
            lane.rewind()

    def close(self) -> None:
        """End the threads, free the native code."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        for lane in self._lanes:
            lane.close()


def _lane(
    kernel: Kernel, part: BoundRecording, tracepoints: Mapping[str, Tracepoint],
    picked: np.ndarray[tuple[int], np.dtype[np.int64]], fuse: bool | None, events: int,
) -> LinkedReplay:  # fmt: skip
    """One thread's events in the tier that is asked for, or that is likely to be done first for `events` in all."""
    if fuse is not False:
        fused = FusedReplay(kernel, part, tracepoints, picked, eager=bool(fuse))
        if fuse or fused.pays(events):
            return fused
    return LinkedReplay(kernel.memory, part, tracepoints, picked)
