"""Recording: events in global time order as columns, whatever file they came from.

The order columns say when, where and which; each event's own fields are in its `EventTable`. Opening a file of any
supported form gives the same object. Everything in it is read-only for its users.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fastrtp.errors import RecordingError
from fastrtp.shown import Shown

from .columns import EventTable
from .kallsyms import Kallsyms

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .frames import EventFrame

Progress = Callable[[int, int], None]
CLONE_THREAD = 0x10000


class EventCount(int):
    """A number of events that gives them as a table when it is called."""

    recording: Recording

    def __call__(self, *names: str) -> EventFrame:
        """See `Recording.events`."""
        from .frames import EventFrame
        from .select import numbers_of

        patterns = names or ("*",)
        return EventFrame(self.recording, numbers_of(self.recording, patterns) if self.recording.tables else [])

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)


@dataclass(repr=False)
class Recording(Shown):
    """A recording.

    `time`: ns (or the units of `clock`), `cpu`, `pid` (common_pid), `event` (index into `tables`) and `row` (within that
    table) of every event, in time order. `lost`: events that the recorder counted as lost, by CPU; `gaps`: losses of
    unknown number; `damaged`: pages of the file, by CPU, that cannot be read. `unknown`: records whose type has no format, by
    type id. `comms`: names saved at the end of recording; `groups`: thread groups of threads, where the recorder told them.
    `facts`: what else it told of itself, `notes`: what its reader has to say, both for people.
    """

    time: NDArray[np.int64]
    cpu: NDArray[np.uint16]
    event: NDArray[np.uint16]
    row: NDArray[np.uint32]
    pid: NDArray[np.int32]
    tables: list[EventTable]
    comms: dict[int, str] = field(default_factory=dict)
    groups: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)
    damaged: dict[int, int] = field(default_factory=dict)
    overrun: dict[int, int] = field(default_factory=dict)
    unknown: dict[int, int] = field(default_factory=dict)
    clock: str = ""
    uname: str = ""
    cpus: int = 0
    instances: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    printk: dict[int, str] = field(default_factory=dict)
    source: str = ""
    kallsyms_text: Callable[[], bytes] = bytes

    @classmethod
    def open(cls, path: str | os.PathLike[str], progress: Progress | None = None, instance: str | None = None) -> Recording:
        """Read a trace.dat or perf.data file, or what ftrace, `trace-cmd report`, `perf script` or systrace print, or map a
        folder that `save` wrote. RecordingError: what is wrong with it and where.

        `progress(done_bytes, total_bytes)` is called now and then. `instance`: one of the trace instances, "" the top one;
        None: all that have events.

        >>> rtp.Recording.open("trace.dat")
        <Recording 66,152 events of 37 kinds, 2 cpus>
        """
        from .perf_data import is_perf_data

        path = Path(path)
        if is_perf_data(path):
            from .import_perf_data import import_perf_data

            return import_perf_data(path, progress, instance)
        if path.is_dir():
            from .columnar import open_folder

            return open_folder(path)
        from .trace_text import import_trace_text, is_trace_text

        if is_trace_text(path):
            return import_trace_text(path)
        from .import_trace_dat import import_trace_dat

        return import_trace_dat(path, progress, instance)

    @classmethod
    def from_events(cls, events: Iterable[Mapping[str, Any]], **facts: Any) -> Recording:
        """A recording of one's own events, each a mapping: `event` names it, `time` (ns), `cpu`, `pid` and `comm` say when, where
        and who; every other name is a field (`field_pid` for one that is called so, too). Events of the kernel have its format,
        others one of their own. `facts`: `cpus`, `comms`, `uname` and other attributes. RecordingError.

            Recording.from_events([
                {"event": "sched_process_exit", "time": 1000, "pid": 7, "field_comm": "a", "field_pid": 7, "prio": 120},
            ])
        """
        from .made import from_events

        return from_events(events, **facts)

    @classmethod
    def from_table(cls, table: Any, event: str | None = None, **facts: Any) -> Recording:
        """A recording of columns: a mapping, an Arrow, pandas or polars table, or a Parquet, Arrow or CSV file. Columns are as in
        `from_events`; `event` names all rows where no column does. A field has no value in rows of events without it.

            Recording.from_table({"event": ["softirq_entry", "softirq_exit"], "time": [1, 5], "vec": [3, 3]})
        """
        from .made import from_columns
        from .tables import columns_of

        return from_columns(columns_of(table), event, **facts)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the columnar form: Arrow files and a JSON file, to be opened again without a copy."""
        from .columnar import save_folder

        save_folder(self, Path(folder))

    @property
    def events(self) -> EventCount:
        """How many events there are; called with names or patterns ("sched_switch", "irq:*"), these events as a table
        (`EventFrame`: to_arrow, to_pandas, to_polars, to_parquet); with none, all. RecordingError for a name that is not there.

            recording.events("sched_switch").to_pandas()
        """
        count = EventCount(len(self.time))
        count.recording = self
        return count

    def select(
        self,
        *,
        start: str | int | None = None,
        end: str | int | None = None,
        cpus: Iterable[int] | int | None = None,
        pids: Iterable[int] | int | None = None,
        comms: Iterable[str] | str | None = None,
        events: Iterable[str] | str | None = None,
    ) -> Recording:
        """The events from `start` to before `end`, on some CPUs, of some tasks (running ones, by pid, or by a name or pattern of
        names saved with the recording), of some kinds ("sched_*", "irq:*"), as a recording of their own.

        Times: ns of the clock; "1.5s", "20ms": since the first event; "39.257228": seconds of the clock. RecordingError for what
        the recording does not have.
        """
        from .select import select

        return select(self, start=start, end=end, cpus=cpus, pids=pids, comms=comms, events=events)

    @staticmethod
    def concat(recordings: Sequence[Recording], align: Literal["start"] | Sequence[int] | None = None) -> Recording:
        """Several recordings of a machine as one, in time order. `align`: "start" lets all begin at the first one's time; numbers
        of ns move each by so much; None: their clocks are the same. RecordingError.
        """
        from .select import concat

        return concat(recordings, align)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: symbols as bytes, nothing that can be found again."""
        state = {name: value for name, value in vars(self).items() if name not in ("kallsyms", "positions", "tgids")}
        return state | {"kallsyms_text": self.kallsyms_text()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        symbols = state["kallsyms_text"]
        vars(self).update(state | {"kallsyms_text": lambda: symbols})

    def __len__(self) -> int:
        return len(self.time)

    def __repr__(self) -> str:
        return f"<Recording {self.events:,} events of {len(self.tables)} kinds, {self.cpus} cpus>"

    def table(self, name: str) -> EventTable:
        """The table of an event, by "name" or "system:name". KeyError when the recording has none."""
        for table in self.tables:
            if name in (table.name, f"{table.system}:{table.name}"):
                return table
        raise KeyError(name)

    @cached_property
    def kallsyms(self) -> Kallsyms:
        """The recorded machine's symbols."""
        return Kallsyms(self.kallsyms_text())

    @cached_property
    def positions(self) -> list[NDArray[np.int64]]:
        """For every table, the place in time order of each of its rows. RecordingError when a row has none."""
        order = np.argsort(self.event, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(self.event, minlength=len(self.tables)))])
        out = []
        for index in range(len(self.tables)):
            mine = order[bounds[index] : bounds[index + 1]]
            rows = self.row[mine]
            if len(rows) and (rows[0] != 0 or np.any(rows[1:] != rows[:-1] + 1)):
                placed = np.full(len(self.tables[index]), -1, np.int64)
                placed[rows] = mine
                mine = placed
            if len(mine) != len(self.tables[index]) or np.any(mine < 0):
                raise RecordingError(f"{self.source}: not every row of {self.tables[index].name} is an event exactly once")
            out.append(mine)
        return out

    @cached_property
    def tgids(self) -> dict[int, int]:
        """Thread group of every pid that is known to be a thread of another; a pid that is missing here is its own.

        Told by perf, or learnt from the clone flags of task_newtask: then recorded threads only, so a thread older than the
        recording counts as a process of its own.
        """
        tgids = dict(self.groups)
        for index, table in enumerate(self.tables):
            if table.name == "task_newtask" and table.has_integers("pid", "clone_flags"):
                parents = self.pid[self.positions[index]].tolist()
                flags, pids = table.fields["clone_flags"].tolist(), table.fields["pid"].tolist()
                for parent, flag, pid in zip(parents, flags, pids, strict=True):
                    if flag & CLONE_THREAD:
                        tgids[pid] = tgids.get(parent, parent)
                    else:
                        tgids.pop(pid, None)
        return tgids

    def tgid(self, pid: int) -> int:
        """Thread group of a pid, itself where nothing else is known."""
        return self.tgids.get(pid, pid)

    def info(self) -> dict[str, Any]:
        """A summary for people and for JSON: events by name, span, rate, CPUs, losses, clock, host."""
        counts = np.bincount(self.event, minlength=len(self.tables)).tolist()
        by_name = {f"{table.system}:{table.name}": count for table, count in zip(self.tables, counts, strict=True)}
        span = int(self.time[-1] - self.time[0]) if self.events else 0
        nanoseconds = self.clock not in ("counter", "uptime", "x86-tsc")
        return {
            "source": self.source,
            "events": self.events,
            "by_name": dict(sorted(by_name.items(), key=lambda item: (-item[1], item[0]))),
            "seconds": span / 1e9 if nanoseconds else None,
            "events_per_second": self.events / (span / 1e9) if nanoseconds and span else None,
            "cpus": self.cpus,
            "by_cpu": {int(cpu): int(n) for cpu, n in enumerate(np.bincount(self.cpu).tolist()) if n},
            "pids": len(np.unique(self.pid)),
            "clock": self.clock,
            "host": self.uname,
            "facts": dict(self.facts),
            "lost": {cpu: count for cpu, count in self.lost.items() if count},
            "gaps": {cpu: count for cpu, count in self.gaps.items() if count},
            "damaged": {cpu: count for cpu, count in self.damaged.items() if count},
            "overrun": {cpu: count for cpu, count in self.overrun.items() if count},
            "unknown": dict(self.unknown),
            "instances": list(self.instances),
            "notes": list(self.notes),
        }

    def check(self) -> None:
        """RecordingError unless the events name every row of every table once, and only CPUs that there are."""
        arrays = (self.cpu, self.event, self.row, self.pid)
        if any(len(array) != len(self.time) for array in arrays):
            raise RecordingError(f"{self.source}: order columns of different lengths")
        if not self.events:
            return
        if int(self.cpu.max()) >= self.cpus:
            raise RecordingError(f"{self.source}: an event of CPU {int(self.cpu.max())}, but there are {self.cpus} CPUs")
        if int(self.event.max()) >= len(self.tables):
            raise RecordingError(f"{self.source}: event number {int(self.event.max())}, but there are {len(self.tables)} tables")
        rows = np.array([len(table) for table in self.tables], np.uint32)
        bad = np.flatnonzero(self.row >= rows[self.event])
        if len(bad):
            at = int(bad[0])
            name = self.tables[int(self.event[at])].name
            raise RecordingError(
                f"{self.source}: event {at} is row {int(self.row[at])} of {name}, which has {rows[self.event[at]]} rows"
            )
        _ = self.positions
