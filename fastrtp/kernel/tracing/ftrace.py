"""Ftrace: the trace buffer of a kernel: events switched on and off, read back as records or as text.

Kernel counterpart: kernel/trace/trace.c, kernel/trace/trace_events.c
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError
from fastrtp.trace.ftrace import TraceBuffer, TraceEventFile

if TYPE_CHECKING:
    from fastrtp.kernel.kernel import Kernel
    from fastrtp.record.event_format import EventFormat
    from fastrtp.record.print_fmt import Lookup

BUFFER_SIZE = 1 << 20
"""Bytes for each CPU, unless said otherwise."""


@dataclass(frozen=True)
class TraceRecord:
    """One event in the trace buffer. `time` in ns; `fields` decodes it."""

    time: int
    cpu: int
    data: bytes
    fmt: EventFormat

    @property
    def name(self) -> str:
        """The event."""
        return self.fmt.name

    @property
    def pid(self) -> int:
        """The task that was running."""
        return int.from_bytes(self.data[4:8], "little", signed=True)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """Fields by name, without the common ones: ints, lists of ints, texts as bytes."""
        from fastrtp.record.record_fields import decode_record

        return decode_record(self.fmt, self.data)


class Ftrace:
    """A kernel's trace buffer, made with the first event that is switched on."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._size = BUFFER_SIZE
        self._buffer: TraceBuffer | None = None
        self._files: dict[str, TraceEventFile] = {}

    def __repr__(self) -> str:
        return f"<Ftrace {len(self._files)} events on, {self.entries} records>"

    @property
    def enabled(self) -> list[str]:
        """Names of the events that are on."""
        return list(self._files)

    @property
    def entries(self) -> int:
        """Records written."""
        return self._buffer.entries if self._buffer is not None else 0

    @property
    def overrun(self) -> int:
        """Records overwritten before they were read."""
        return self._buffer.overrun if self._buffer is not None else 0

    @property
    def tracing_on(self) -> bool:
        """Whether events that are on write records."""
        return self._buffer is None or self._buffer.on

    @tracing_on.setter
    def tracing_on(self, value: bool) -> None:
        with self._kernel.lock:
            self._ring().on = value

    def set_buffer_size(self, size: int) -> None:
        """Bytes for each CPU (a power of two): a new, empty buffer. BpfError EINVAL; EBUSY while events are on."""
        with self._kernel.lock:
            if self._files:
                raise BpfError(errno.EBUSY, f"EBUSY: {', '.join(self._files)} write to the buffer")
            new = TraceBuffer(self._kernel.memory, size)
            if self._buffer is not None:
                self._buffer.close()
            self._size, self._buffer = size, new

    def enable(self, *names: str) -> None:
        """Record these events ("sched_switch" or "sched:sched_switch") from now on; those that are on stay so. All or none.

        BpfError ENOENT for a name that is no event, EOPNOTSUPP where nothing says how its arguments are recorded.
        """
        kernel = self._kernel
        with kernel.lock:
            calls = [kernel.trace_events.event(name) for name in names]
            for call in calls:
                call.check_ftrace()
            for call in calls:
                if call.name not in self._files:
                    file = TraceEventFile(call.tp, call.ftrace_func, call.id, self._ring())
                    file.enable()
                    self._files[call.name] = file

    def disable(self, *names: str) -> None:
        """Stop recording these events; without names, all. Records stay. BpfError ENOENT for one that is not on."""
        with self._kernel.lock:
            for name in [name.replace("/", ":").rpartition(":")[2] for name in names] or list(self._files):
                file = self._files.pop(name, None)
                if file is None:
                    raise BpfError(errno.ENOENT, f"ENOENT: event {name!r} is not on")
                file.close()

    def records(self, *, consume: bool = False) -> Iterator[TraceRecord]:
        """The records in time order; `consume` takes them out of the buffer."""
        with self._kernel.lock:
            raw = list(self._ring().read(consume=consume)) if self._buffer is not None else []
        for time, cpu, data in raw:
            yield TraceRecord(time, cpu, data, self._kernel.trace_events.by_id(int.from_bytes(data[:2], "little")).fmt)

    def text(
        self, *, comms: Mapping[int, str] | None = None, symbols: Lookup | None = None, consume: bool = False
    ) -> Iterator[str]:
        """The records as lines, laid out as `trace-cmd report` does, each by its event's own print format.

        `comms`: names of tasks by pid (a recording's `.comms`); `symbols`: (name, offset) of a code address. Enumerators in
        print formats are looked up in the kernel's BTF.
        """
        from fastrtp.record.print_fmt import PrintFormat

        names = dict(comms or {}) | {0: "<idle>"}
        formats: dict[int, PrintFormat] = {}
        for record in self.records(consume=consume):
            fmt = record.fmt
            if fmt.id not in formats:
                formats[fmt.id] = PrintFormat(fmt, self._enumerator, symbols or (lambda _address: None))
            seconds, micros = divmod((record.time + 500) // 1000, 1_000_000)
            place = f"{names.get(record.pid, '<...>'):>16}-{record.pid:<5d} [{record.cpu:03d}] {seconds:5d}.{micros:06d}"
            yield f"{place}: {fmt.name + ':':<21} {formats[fmt.id].text(record.data)}"

    def _enumerator(self, name: str) -> int | None:
        return self._enumerators.get(name)

    @cached_property
    def _enumerators(self) -> dict[str, int]:
        """Every enumerator of the kernel's BTF."""
        from fastrtp.btf import BtfKind

        btf = self._kernel.btf
        kinds = (BtfKind.ENUM, BtfKind.ENUM64)
        types = (btf.type(number) for number in range(1, len(btf)) if btf.kind(number) in kinds)
        return {item.name: item.value for record in types for item in record.values}

    def clear(self) -> None:
        """Take all records out."""
        for _record in self.records(consume=True):
            pass

    def _ring(self) -> TraceBuffer:
        if self._buffer is None:
            self._buffer = TraceBuffer(self._kernel.memory, self._size)
        return self._buffer
