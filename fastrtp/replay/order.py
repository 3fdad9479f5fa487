"""Whether several threads give what one gives, by the effects of the programs of a run; and which programs want one in any case.

Exact: what programs leave behind does not depend on the order of events on different CPUs, or the run is refused with the
instructions that make it so. Relaxed: the user has said that order between CPUs may be lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np

from fastrtp.btf.kfuncs import KFUNCS
from fastrtp.effects import Conflict, KernelRead, conflicts
from fastrtp.errors import OrderError
from fastrtp.helpers.table import HELPER_IDS
from fastrtp.kernel.objects.link import BpfRawTpLink
from fastrtp.maps.fields import FieldKind
from fastrtp.replay.steady import Change, changes, pointers
from fastrtp.uapi import BpfMapType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastrtp.kernel import Kernel
    from fastrtp.kernel.objects.prog import BpfProg
    from fastrtp.replay.bind import BoundRecording

Order = Literal["exact", "relaxed"]
ORDERS = ("exact", "relaxed")
_SHOWN = 3
_TASK_MEMBERS = {"comm": ("comm_at", 16), "pid": ("pid_at", 4), "tgid": ("tgid_at", 4)}
_CALL = 0x85
_HELPERS = frozenset(
    HELPER_IDS[name]
    for name in (
        "kptr_xchg", "get_stack", "get_stackid", "get_task_stack", "user_ringbuf_drain", "send_signal", "send_signal_thread",
        "timer_init", "timer_start", "timer_cancel", "task_pt_regs",
    )
)  # fmt: skip
"""Helpers whose bodies take no lock, or that ask for the stack of an event by its place in the whole recording, or for registers
that each thread has its own of.
"""
_FAMILIES = frozenset({"obj_new", "obj_drop", "refcount_acquire", "list", "rbtree"})


def wants_order(prog: BpfProg) -> bool:
    """Timers, objects of programs (and values that hold some), stacks, signals, samples from user space: not for several threads
    at a time, whatever the user allows.
    """
    if any(field.kind != FieldKind.LOCK for used in prog.used_maps for field in used.map.fields):
        return True
    for insn, aux in zip(prog.verified.insns, prog.verified.aux, strict=True):
        if insn.code != _CALL or not aux.seen:
            continue
        if insn.src_reg == 0 and insn.imm in _HELPERS:
            return True
        known = KFUNCS.get(aux.kfunc)
        if known is not None and (known.family in _FAMILIES or known.name.startswith("bpf_cpumask_")):
            return True
    return False


def programs_of_run(kernel: Kernel) -> list[BpfProg]:
    """Programs that events reach: those that are attached, and those that they tail-call."""
    found: dict[int, BpfProg] = {}
    pending = [link.prog for link in kernel.links if isinstance(link, BpfRawTpLink)]
    while pending:
        prog = pending.pop()
        if prog.id not in found:
            found[prog.id] = prog
            pending += [target for index in prog.effects.tail_calls for target in prog.used_maps[index].programs.values()]
    return [found[number] for number in sorted(found)]


def order_conflicts(kernel: Kernel) -> list[Conflict]:
    """What keeps the programs of a kernel from running on several CPUs in any order, kernel objects aside."""
    programs = programs_of_run(kernel)
    found = conflicts([prog.effects_member() for prog in programs])
    return [*_instruments(kernel), *found, *_shared_rings(programs)]


def refuse(found: Sequence[Conflict]) -> None:
    """OrderError, if there is anything to refuse."""
    if found:
        raise OrderError(_message(found), found)


class ExactOrder:
    """Refuses what does not commute: `check()` now, and again when what is attached, or what is tail-called, has changed.

    `bound`: before the first event. To be made with the kernel's lock held.
    """

    def __init__(self, kernel: Kernel, bound: BoundRecording) -> None:
        self._kernel = kernel
        self._bound = bound
        self._changes = changes(bound, kernel.memory.arena)
        self._allowed: tuple[int, ...] = ()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Events may be played meanwhile: nobody attaches what was not asked about. OrderError."""
        with self._kernel.lock:
            self.check()
            yield

    def check(self) -> None:
        """OrderError. The kernel's lock is held."""
        now = (int(self._kernel.memory.machine["generation"][0]), *(prog.id for prog in programs_of_run(self._kernel)))
        if now != self._allowed:
            refuse([*order_conflicts(self._kernel), *self._object_conflicts()])
            self._allowed = now

    def _object_conflicts(self) -> Iterator[Conflict]:
        if not self._changes:
            return
        tracepoints = {link.tp_name for link in self._kernel.links if isinstance(link, BpfRawTpLink)}
        bases = pointers(self._bound, tracepoints)
        for prog in programs_of_run(self._kernel):
            member = prog.effects_member()
            for read in prog.effects.kernel_reads:
                change = self._seen(read, bases)
                if change is not None:
                    what = f"reads {_place(read)}, which {change.tracepoint} events of other CPUs change"
                    yield Conflict(prog.name, read.insn, member.source(read.insn), "", 0, what)
                    break

    def _seen(self, read: KernelRead, bases: NDArray[np.uint64]) -> Change | None:
        """A change that the read may see."""
        if read.member:
            field, size = _TASK_MEMBERS[read.member]
            start = int(self._kernel.memory.env[field][0])
            tasks = np.unique(self._bound.current)
            return next((change for change in self._changes if change.touches(tasks, start, start + size)), None)
        if read.start is None:
            return self._changes[0]
        return next((change for change in self._changes if change.touches(bases, read.start, read.end)), None)


def _place(read: KernelRead) -> str:
    if read.member:
        return f"{read.member} of the running task"
    if read.start is None:
        return "a kernel object"
    return f"a kernel object from byte {read.start} on" if read.end is None else f"bytes {read.start} to {read.end} of an object"


def _instruments(kernel: Kernel) -> Iterator[Conflict]:
    """What records events besides programs."""
    if "ftrace" in kernel.__dict__ and kernel.ftrace.enabled:
        yield Conflict(kernel.ftrace.enabled[0], 0, "", "", 0, "is written to the trace buffer, with what objects are like then")
    for call in kernel.trace_events.made if "trace_events" in kernel.__dict__ else ():
        if "perf" in call.__dict__ and (call.perf.events or call.perf.progs):
            yield Conflict(call.name, 0, "", "", 0, "is counted by perf, or has classic tracepoint programs")


def _shared_rings(programs: Sequence[BpfProg]) -> Iterator[Conflict]:
    """Rings that stand in the slots of several CPUs."""
    for prog in programs:
        for used in prog.used_maps:
            slots = used.map.slots() if used.map_type == BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY else []
            rings = [address for address in slots if address]
            if len(set(rings)) < len(rings):
                what = "outputs to it, and one ring is there for several CPUs: its records have one order for all"
                yield Conflict(prog.name, 0, "", used.name, used.map_type, what)


def _message(found: Sequence[Conflict]) -> str:
    lines = [str(conflict) for conflict in found[:_SHOWN]]
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return (
        "several threads would give other results than one: "
        + "; ".join([*lines, *more])
        + '; order="relaxed" (--order relaxed) plays them all the same'
    )
