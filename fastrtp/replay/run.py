"""replay: a recording played through everything that is attached to a kernel."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from fastrtp.errors import ReplayError
from fastrtp.kernel.objects.link import BpfRawTpLink
from fastrtp.kernel.tracing.tracepoint_prog import BpfPerfLink
from fastrtp.maps import LocalStorage
from fastrtp.mem.objects import ObjectSpace
from fastrtp.native.memory import Memory
from fastrtp.record import Recording
from fastrtp.record.recipes.known_types import ROOM_OF
from fastrtp.replay.bind import BoundRecording, Policy, bind
from fastrtp.replay.consumer import Consumer, ConsumerClock, most_kept, parse_consumer
from fastrtp.replay.contexts import add_contexts, forget_contexts
from fastrtp.replay.fidelity import ProgramFidelity, fidelity, refuse_missing, with_runs
from fastrtp.replay.fused import FusedReplay, Tier
from fastrtp.replay.linked import CHUNK, LinkedReplay
from fastrtp.replay.losses import Losses
from fastrtp.replay.order import ORDERS, ExactOrder, Order, order_conflicts, refuse, wants_order
from fastrtp.replay.parallel import WINDOW, ParallelReplay, several_cpus
from fastrtp.replay.raw_syscalls import as_raw_syscalls
from fastrtp.replay.recorded_kernel import match
from fastrtp.replay.report import ProgramReport, ReplayReport
from fastrtp.replay.series import Series
from fastrtp.replay.windows import Cpus, Window, owners, parse_window
from fastrtp.trace import Tracepoint

if TYPE_CHECKING:
    from fastrtp.btf import TracepointProto
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.loader.object import ObjectProgram
    from fastrtp.kernel.objects.prog import BpfProg

Progress = Callable[[int, int], None]
"""progress(events done, events in all)"""


def replay(
    kernel: Kernel,
    source: str | os.PathLike[str] | Recording,
    *,
    missing: Policy = "zero",
    progress: Progress | None = None,
    interruptible: bool = False,
    chunk: int | None = None,
    tier: Tier = "auto",
    cpus: Cpus | None = None,
    window: Window = WINDOW,
    order: Order = "exact",
    consumer: Consumer | str | int | None = None,
    keep: int | None = None,
    every: int | str | None = None,
) -> ReplayReport:
    """Play `source` (a path, or a Recording that is open) in time order, over all its CPUs.

    The clock, CPU, pid and comm that programs see are the events'. `missing`: what programs get where the recording has
    nothing ("zero": zeroed objects, "fault": unreadable pointers, "strict": ReplayError before the first event when a program
    can read one such thing).
    `tier`: "fused" compiles programs and loop into one, "linked" goes through the tracepoints' probes, "auto" fuses when
    the code is in the cache or the recording long enough; results are the same.
    `cpus`: on how many threads: "recorded": one for each recorded CPU; a number; None: one, which keeps the order of all events.
    Threads keep the order of each CPU's events. `order` between CPUs: "exact": results are those of one thread; programs whose
    effects do not commute (fastrtp.effects) are refused with OrderError, which names map, instruction and source line.
    "relaxed": they are played all the same; then order between CPUs is that of windows of so many events, or of so much time
    ("10ms"), `window` None: none (replay/parallel.py says what that means for programs), and programs with timers, objects or
    stacks are still played by one thread. `chunk`: most events between two looks at
    signals, `progress`, and who waits to attach or to read a map.
    `consumer`: who reads ring buffers and perf buffers meanwhile. None: the replay empties what is full on the spot, so that
    consume() gives every record afterwards, in order, however small the ring; up to `keep` bytes of them (None: half of this
    machine's memory). A Consumer, a number of events, or a time ("10ms"): a reader who looks that often; "none": nobody reads.
    What finds no room is lost, and counted in the report's `dropped`. A consumer keeps the order of all events: one thread.
    `every`: keep what all maps hold after every so many events, or so much time ("100ms"): the report's `series`, by map, a table
    (`MapTable`: .arrow()) whose first column is the moment. One thread.
    `interruptible`: Ctrl-C ends the replay early and the report says so, instead of KeyboardInterrupt. RecordingError for
    a damaged file; OrderError; ReplayError when the recording has more CPUs than the kernel.
    """
    if tier not in ("auto", "linked", "fused"):
        raise ReplayError(f"tier {tier!r} is not one of auto, linked, fused")
    parse_window(window)
    if cpus is not None and cpus != "recorded" and (not isinstance(cpus, int) or cpus < 1):
        raise ReplayError(f"cpus {cpus!r} is neither recorded nor a number of threads")
    if order not in ORDERS:
        raise ReplayError(f"order {order!r} is not one of {', '.join(ORDERS)}")
    if chunk is not None and chunk < 1:
        raise ReplayError(f"a chunk has at least 1 event, not {chunk}")
    reader = parse_consumer(consumer)
    if reader is not None and cpus is not None:
        raise ReplayError("a consumer looks at set points in the order of all events: it does not go with cpus")
    if every is not None and cpus is not None:
        raise ReplayError("maps over time are kept at set points in the order of all events: every does not go with cpus")
    begin = time.perf_counter()
    recording, notes = as_raw_syscalls(source if isinstance(source, Recording) else Recording.open(source))
    if recording.cpus > kernel.cpus:
        raise ReplayError(
            f"the recording has {recording.cpus} cpus, the kernel {kernel.cpus}: make it with Kernel(cpus={recording.cpus})"
        )
    for storage in _storages(kernel):
        storage.drop_forgotten()
    objects = ObjectSpace(kernel.memory.arena, kernel.btf, ROOM_OF)
    protos = _protos(kernel, recording)
    kernels = match(kernel, recording)
    linked: LinkedReplay | ParallelReplay | None = None
    around = ExitStack()
    try:
        exact = order == "exact" and cpus is not None and int(owners(recording.cpu, cpus).max()) > 0
        if exact:
            with kernel.lock:
                refuse(order_conflicts(kernel))
        if cpus is not None and _ordered(kernel):
            cpus = None
        if cpus is not None:
            around.enter_context(several_cpus(kernel))
        with kernel.lock:
            wanted = {link.tp_name for link in _raw_tp_links(kernel)}
            split = None if cpus is None or exact else owners(recording.cpu, cpus)
            bound = bind(recording, objects, protos, policy=_binding(missing), wanted=wanted, split=split)
            kept, said = add_contexts(kernel, bound)
            around.callback(kept.clear)
            notes += said
            known = fidelity(kernel, bound, _attached(kernel), missing)
            if missing == "strict":
                refuse_missing(known)
            tracepoints = {name: kernel.tracepoints[name] for name in protos}
            if cpus is not None:
                fuse = None if tier == "auto" else tier == "fused"
                linked = ParallelReplay(kernel, bound, tracepoints, cpus=cpus, window=window, chunk=chunk, fuse=fuse)
                if exact:
                    exactly = ExactOrder(kernel, bound)
                    exactly.check()
                    linked.allowed = exactly.turn
            else:
                clock = None if reader is None else ConsumerClock(reader, kernel.memory.machine_address, bound.time)
                linked = _make(tier, kernel, bound, tracepoints, clock)
        linked.prepare()
        interrupted = False
        times = (int(bound.time[0]), int(bound.time[-1])) if len(bound.time) else (0, 0)
        room = most_kept() if keep is None else keep
        with _virtual_clock(kernel.memory, *times), kernel.memory.draining(room, on_demand=reader is None):
            played, losses = _Counters(kernel), Losses(kernel)
            series = None if every is None else Series(kernel, bound.time, every)
            prepared = time.perf_counter()
            try:
                if series is not None and isinstance(linked, LinkedReplay):
                    events = _in_stretches(linked, series, progress, chunk or CHUNK)
                else:
                    events = linked.run(progress, *([] if chunk is None else [chunk]))
            except KeyboardInterrupt:
                if not interruptible:
                    raise
                events, interrupted = linked.position, True
            seconds = time.perf_counter() - prepared
            programs, faulted_reads = played.programs(), played.faulted_reads()
        return ReplayReport(
            events=events,
            fired=linked.fired,
            seconds=seconds,
            prepare_seconds=prepared - begin,
            programs=programs,
            faulted_reads=faulted_reads,
            lost=dict(recording.lost),
            damaged=dict(recording.damaged),
            notes=(*recording.notes, *kernels.notes(), *notes),
            kernels=kernels,
            missing=tuple(with_runs(known, {name: row.run_cnt for name, row in programs.items()})),
            printk=kernel.memory.trace_pipe(),
            printk_lost=losses.printk,
            dropped=losses.dropped(),
            signals_lost=losses.signals,
            interrupted=interrupted,
            tier=linked.tier,
            threads=linked.threads if isinstance(linked, ParallelReplay) else 1,
            series={} if series is None else series.tables(),
        )
    finally:
        if linked is not None:
            linked.close()
        forget_contexts(kernel)
        around.close()
        for storage in _storages(kernel):
            storage.forget_owners(objects.addresses())
        objects.close()


def _in_stretches(linked: LinkedReplay, series: Series, progress: Progress | None, chunk: int) -> int:
    """Play from moment to moment, and look at the maps at each; how many events were played."""
    for end, moment in series.stretches():
        while linked.position < end:
            linked.play(min(chunk, end - linked.position))
            if progress is not None:
                progress(linked.position, linked.events)
        series.take(moment)
    return linked.position


def _storages(kernel: Kernel) -> list[LocalStorage]:
    """Maps whose values belong to tasks: they outlast those of a replay, to be read, until the next one."""
    return [held.map for held in kernel.maps if isinstance(held.map, LocalStorage)]


def _make(
    tier: Tier, kernel: Kernel, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint], clock: ConsumerClock | None
) -> LinkedReplay:
    """The replay in the tier that is asked for, or that is likely to be done first."""
    if tier != "linked":
        fused = FusedReplay(kernel, bound, tracepoints, eager=tier == "fused", consumer=clock)
        if tier == "fused" or fused.worth:
            return fused
    return LinkedReplay(kernel.memory, bound, tracepoints, consumer=clock)


def _binding(missing: Policy) -> Policy:
    """The policy for what is bound: strict is about what programs read of it."""
    return "zero" if missing == "strict" else missing


def _attached(kernel: Kernel) -> list[tuple[BpfProg, str, str]]:
    """(program, its name in the report, tracepoint) of every link."""
    names = _names(kernel)
    links = [link for link in kernel.links if isinstance(link, (BpfRawTpLink, BpfPerfLink))]
    return [(link.prog, names[link.prog.id], link.tp_name) for link in links]


def _names(kernel: Kernel) -> dict[int, str]:
    """Name of each program by its id; a second program of the same name has its id behind it."""
    names: dict[int, str] = {}
    for prog in kernel.progs:
        names[prog.id] = prog.name if prog.name not in names.values() else f"{prog.name}#{prog.id}"
    return names


def check(
    kernel: Kernel, source: str | os.PathLike[str] | Recording, programs: Iterable[ObjectProgram], *, missing: Policy = "zero"
) -> list[ProgramFidelity]:
    """What a replay of `source` would give the programs of an object, loaded but not run: for each that names its tracepoint,
    what it can read there, and how the recording knows it. RecordingError, ReplayError.
    """
    recording, _notes = as_raw_syscalls(source if isinstance(source, Recording) else Recording.open(source))
    objects = ObjectSpace(kernel.memory.arena, kernel.btf, ROOM_OF)
    try:
        with kernel.lock:
            bound = bind(recording, objects, _protos(kernel, recording), policy=_binding(missing))
            attached = [
                (program.prog, program.name, program.spec.attach_name.rpartition("/")[2])
                for program in programs
                if program.spec.attach_name
            ]
            return fidelity(kernel, bound, attached, missing)
    finally:
        objects.close()


def _protos(kernel: Kernel, recording: Recording) -> dict[str, TracepointProto]:
    names = (table.name for table in recording.tables)
    return {name: kernel.tracepoints.proto(name) for name in names if name in kernel.tracepoints}


def _ordered(kernel: Kernel) -> bool:
    """Whether a program asks for what only the order of all events can give, or works on what one thread may."""
    return any(prog.native.facts.timers or wants_order(prog) for prog in kernel.progs)


def _raw_tp_links(kernel: Kernel) -> list[BpfRawTpLink]:
    return [link for link in kernel.links if isinstance(link, BpfRawTpLink)]


@contextmanager
def _virtual_clock(memory: Memory, first: int, last: int) -> Iterator[None]:
    """The events' time and task for the programs; the caller's again afterwards. A kernel has one time: replays take turns.

    Timers that are armed when the clock changes stay as far away as they were.
    """
    if memory.clock_holder == threading.get_ident():
        raise ReplayError("a replay cannot begin inside another one of the same kernel")
    with memory.clock_lock:
        memory.clock_holder = threading.get_ident()
        current = memory.env["current"].copy()
        memory.set_clock(virtual=True)
        memory.shift_timers(first - time.monotonic_ns())
        try:
            yield
        finally:
            memory.set_clock(virtual=False)
            memory.shift_timers(time.monotonic_ns() - last)
            memory.env["current"] = current
            memory.env["kernel_stack"] = memory.env["user_stack"] = 0
            memory.clock_holder = 0


class _Counters:
    """What programs counted since this was made."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._before = {prog.id: self._now(prog) for prog in kernel.progs}
        self._faulted = self._faults()

    @staticmethod
    def _now(prog: BpfProg) -> tuple[int, int]:
        return prog.record.total("runs"), prog.record.total("misses")

    def _faults(self) -> int:
        return int(self._kernel.memory.env["faulted"].sum())

    def faulted_reads(self) -> int:
        return self._faults() - self._faulted

    def programs(self) -> dict[str, ProgramReport]:
        """By name; a second program of the same name has its id behind it."""
        attached = {link.prog.id for link in _raw_tp_links(self._kernel)}
        rows: dict[str, ProgramReport] = {}
        names = _names(self._kernel)
        for prog in self._kernel.progs:
            runs, misses = self._now(prog)
            runs_before, misses_before = self._before.get(prog.id, (0, 0))
            if prog.id in attached or runs > runs_before:
                rows[names[prog.id]] = ProgramReport(runs - runs_before, misses - misses_before)
        return rows
