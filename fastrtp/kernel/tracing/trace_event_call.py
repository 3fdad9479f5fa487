"""TraceEventCall: what ftrace and perf know of a tracepoint: its format, its id, and the compiled probes that make records.

The events are those of the shipped formats that the kernel has a tracepoint for, others whose records its types tell of, those of
single system calls, which sys_enter and sys_exit fire, and the tracepoints added with Kernel.trace_event, whose fields are their
arguments. Where no recipe says how an event's arguments are recorded, there are records of a replay's recorded events alone.
Everything is made when first asked for.

Kernel counterpart: include/linux/trace_events.h (struct trace_event_call), kernel/trace/trace_events.c
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError
from fastrtp.jit.program import NativeText
from fastrtp.once import once_property
from fastrtp.trace.ftrace_assign import Assignment, probe_names, probes
from fastrtp.trace.perf import PerfCall, PerfCpus
from fastrtp.trace.syscalls import raw_event

if TYPE_CHECKING:
    from fastrtp.kernel.kernel import Kernel
    from fastrtp.record.event_format import EventFormat
    from fastrtp.trace.tracepoint import Tracepoint

_FIRST_OWN_ID = 4096
"""Ids of added events start here: the shipped ones are below."""


class TraceEventCall:
    """`struct trace_event_call`. `fmt`: the record's layout; `assignment`: where its fields come from."""

    def __init__(self, tp: Tracepoint, fmt: EventFormat, assignment: Assignment, cpus: PerfCpus, end: int = 0) -> None:
        """`end`: of the last field in this kernel, where that is not as in `fmt`."""
        self.tp = tp
        self.fmt = fmt
        self.assignment = assignment
        self._cpus = cpus
        self._end = end

    def __repr__(self) -> str:
        return f"<TraceEventCall {self.system}:{self.name} id {self.id}>"

    @property
    def name(self) -> str:
        """Name of the event: the tracepoint's, or a system call's."""
        return self.fmt.name

    @property
    def system(self) -> str:
        """Name of the group that it is listed under: "sched"."""
        return self.fmt.system

    @property
    def id(self) -> int:
        """What perf_event_open takes, and records have as common_type."""
        return self.fmt.id

    def get_offsets(self) -> int:
        """End of the last field, which programs may read up to. Kernel: kernel/trace/trace_events.c:trace_event_get_offsets"""
        last = self.fmt.fields[-1]
        return self._end or last.offset + last.size

    @once_property
    def code(self) -> NativeText:
        """The native probes."""
        return NativeText(self.name, probes(self.assignment), probe_names(self.name))

    def check_ftrace(self) -> None:
        """BpfError EOPNOTSUPP where the trace buffer cannot have its records."""
        if self.assignment.recorded_only:
            raise BpfError(errno.EOPNOTSUPP, f"EOPNOTSUPP: no recipe says how the arguments of {self.name} are recorded")
        if self.assignment.only is not None:
            raise BpfError(errno.EOPNOTSUPP, f"EOPNOTSUPP: {self.name} is for programs and perf: trace {self.tp.name}")

    @property
    def ftrace_func(self) -> int:
        """Native trace_event_raw_event_<name>."""
        return self.code.addresses[probe_names(self.name)[0]]

    @property
    def in_use(self) -> bool:
        """Whether programs or perf events are waiting for its records."""
        perf = self.__dict__.get("perf")
        return perf is not None and bool(perf.progs or perf.events)

    @once_property
    def perf(self) -> PerfCall:
        """Its perf side."""
        return PerfCall(self.tp, self.code.addresses[probe_names(self.name)[1]], self.id, self._cpus)


class TraceEvents(Mapping[str, TraceEventCall]):
    """The events of a kernel by name; listed are those that have records."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._made: dict[str, TraceEventCall] = {}
        self._making = threading.RLock()
        self._cpus = PerfCpus(kernel.memory)

    def __getitem__(self, name: str) -> TraceEventCall:
        try:
            return self.event(name)
        except BpfError as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        from fastrtp.record.event_formats import default_formats
        from fastrtp.record.recipes import RECIPES

        tracepoints = self._kernel.tracepoints
        formats = default_formats()
        yield from (name for name in RECIPES if name in formats and name in tracepoints)
        yield from (name for name in self._kernel.modules if name in tracepoints)

    def __len__(self) -> int:
        return sum(1 for _name in self)

    @property
    def made(self) -> list[TraceEventCall]:
        """Those that somebody has asked for so far."""
        return list(self._made.values())

    def event(self, name: str) -> TraceEventCall:
        """The event, by "name", "system:name" or "system/name". BpfError ENOENT."""
        system, separator, short = name.replace("/", ":").rpartition(":")
        with self._making:
            found = self._made.get(short)
            if found is None:
                found = self._make(short, name)
            if separator and found.system and system != found.system:
                raise BpfError(errno.ENOENT, f"ENOENT: no event {name!r}: {short} is in {found.system!r}")
            self._made[short] = found
            return found

    def by_id(self, event_id: int) -> TraceEventCall:
        """The event with this id. BpfError EINVAL, EOPNOTSUPP."""
        from fastrtp.record.event_formats import default_formats

        own = next((call for call in list(self._made.values()) if call.id == event_id), None)
        if own is not None:
            return own
        name = default_formats().ids.get(event_id)
        if name is None or not (name in self._kernel.tracepoints or raw_event(name)):
            raise BpfError(errno.EINVAL, f"EINVAL: no event with id {event_id}")
        return self.event(name)

    def layout(self, name: str) -> EventFormat | None:
        """What an event's record looks like in this kernel, None where nothing tells."""
        from fastrtp.record.btf_format import btf_format
        from fastrtp.record.event_formats import default_formats

        if self._kernel.has_shipped_types:
            return default_formats().get(name)
        return btf_format(self._kernel.btf, name)

    def forget_recorded(self) -> None:
        """A replay is over: no event has a recorded record."""
        self._cpus.forget_recorded()

    def _own_id(self) -> int:
        return _FIRST_OWN_ID + sum(call.id >= _FIRST_OWN_ID for call in self._made.values())

    def _make(self, short: str, name: str) -> TraceEventCall:
        from fastrtp.record.assign import assignment, plain_assignment, plain_format, syscall_assignment
        from fastrtp.record.event_formats import default_formats

        kernel = self._kernel
        formats = default_formats()
        raw = raw_event(short)
        if raw is not None and short not in kernel.tracepoints and raw[0] in kernel.tracepoints and short in formats:
            fmt = formats[short]
            return TraceEventCall(kernel.tracepoints[raw[0]], fmt, syscall_assignment(kernel.btf, fmt, *raw), self._cpus)
        if short not in kernel.tracepoints:
            raise BpfError(errno.ENOENT, f"ENOENT: no event {name!r}")
        proto = kernel.tracepoints.proto(short)
        module = kernel.modules.get(short)
        here = self.layout(short) if module is None else None
        if module is not None:
            fmt = plain_format(module.btf, proto, self._own_id())
            plan: Assignment | None = plain_assignment(module.btf, proto, fmt)
        elif short in formats:
            fmt = formats[short]
            plan = assignment(kernel.btf, proto, fmt)
        elif here is not None:
            fmt = replace(here, id=self._own_id())
            plan = assignment(kernel.btf, proto, fmt)
        else:
            raise BpfError(errno.ENOENT, f"ENOENT: no event {name!r}: the tracepoint has no record format")
        if plan is None:
            plan = Assignment(short, len(proto.args), 0, 0, (), recorded_only=True)
        end = max((one.offset + one.size for one in here.fields), default=0) if here is not None else 0
        return TraceEventCall(kernel.tracepoints[short], fmt, plan, self._cpus, end)
