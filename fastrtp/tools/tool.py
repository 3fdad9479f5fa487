"""What a tool is: a program in C of this folder, the options that it takes, and how its answer is named.

A tool's answer is one map, `answer`: histograms by key, rows by key, or events in order. Everything that counts is in the C
source; here are names for people. Must not know: the command line.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any

from fastrtp.errors import ReplayError
from fastrtp.shown import Shown

if TYPE_CHECKING:
    import os

    import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]

    from fastrtp.kernel.loader.object import BpfObject
    from fastrtp.record import Recording
    from fastrtp.replay import ReplayReport

HISTS, ROWS, EVENTS = "hists", "rows", "events"
SLOTS = "slots"


@dataclass(frozen=True)
class Option:
    """An option of a tool: `flags` on the command line, `name` in Python. `set`: the variables of the program that it sets; a
    callable is asked with what was given.
    """

    name: str
    flags: tuple[str, ...]
    help: str
    kind: type = bool
    set: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Tool:
    """A tool. `needs`: events without which there is no answer, `uses`: those that make it better. `form`: HISTS, ROWS or EVENTS.

    `sort`: the column that says which rows matter most. `named`: columns that are added or replaced, each made of a row.
    `hidden`: columns that say nothing, given the options.
    """

    name: str
    summary: str
    needs: tuple[str, ...]
    form: str
    options: tuple[Option, ...] = ()
    uses: tuple[str, ...] = ()
    sort: str = ""
    named: Mapping[str, Callable[[dict[str, Any]], Any]] = field(default_factory=dict)
    hidden: Callable[[dict[str, Any]], frozenset[str]] = lambda _: frozenset()

    def read_object(self) -> bytes:
        """The compiled program."""
        return resources.files(__package__).joinpath(f"{self.name}.bpf.o").read_bytes()

    def read_source(self) -> str:
        """Its C."""
        return resources.files(__package__).joinpath(f"{self.name}.bpf.c").read_text()

    @property
    def signature(self) -> inspect.Signature:
        """Of the function in Python."""
        given = inspect.Parameter("recording", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        named = [
            inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=False if one.kind is bool else None)
            for one in self.options
        ]
        return inspect.Signature([given, *named])

    def answer(self, recording: str | os.PathLike[str] | Recording, **options: Any) -> Answer:
        """Play a recording (a path, or one that is open) through the tool.

        TypeError for an option that it has not, ValueError for what none can be; ReplayError for a recording without the events
        that it needs; RecordingError.
        """
        from fastrtp.kernel import Kernel
        from fastrtp.record import Recording as Opened

        rodata = self.variables(options)
        opened = recording if isinstance(recording, Opened) else Opened.open(recording)
        self._check_events(opened)
        with Kernel.of(opened) as kernel, kernel.load(self.read_object(), name=self.name, rodata=rodata) as obj:
            with obj.attach():
                report = kernel.replay(opened)
            columns = self._columns(obj, rodata)
        return Answer(self, columns, int(rodata.get("unit_ns", 1000)), report, self._notes(opened, report))

    def variables(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The variables of the program that options set. TypeError for one that it has not, ValueError for what none can be."""
        known = {one.name: one for one in self.options}
        found: dict[str, Any] = {}
        for name, value in options.items():
            if name not in known:
                raise TypeError(f"{self.name} has no option {name!r}, there are: {', '.join(known) or 'none'}")
            if value is not None and value is not False:
                found |= {where: one(value) if callable(one) else one for where, one in known[name].set.items()}
        return found

    def _check_events(self, recording: Recording) -> None:
        there = {table.name for table in recording.tables if len(table)}
        missing = [name for name in self.needs if name not in there]
        if missing:
            wanted = " ".join(f"-e {name}" for name in (*self.needs, *self.uses))
            there_not = ", ".join(missing)
            raise ReplayError(f"{self.name} needs events that the recording has not: {there_not}; trace-cmd record {wanted}")

    def _notes(self, recording: Recording, report: ReplayReport) -> list[str]:
        """What is not known, for people."""
        there = {table.name for table in recording.tables if len(table)}
        notes = [
            f"the recording has no {name}: what it would add is not in the answer" for name in self.uses if name not in there
        ]
        notes += [f"{row.program} read {row.what} {row.runs:,} times, which is {row.why}: {row.policy}" for row in report.missing]
        if any(report.lost.values()):
            notes.append(
                f"{sum(report.lost.values()):,} events were lost by the recorder: what they would say is not in the answer"
            )
        notes += [f"{count:,} records of {name} found no room" for name, count in report.dropped.items() if count]
        return notes

    def _columns(self, obj: BpfObject, rodata: dict[str, Any]) -> dict[str, list[Any]]:
        from fastrtp.replay.tables import record_table

        held = obj.maps["answer"]
        if self.form == EVENTS:
            btf = obj.spec.btf
            type_id = btf.find("event") if btf is not None else None
            columns = record_table("answer", held.map_type, list(held.consume()), btf, type_id or 0).columns
        else:
            columns = held.table().top(0).columns
        count = len(next(iter(columns.values()), []))
        rows = [{name: column[row] for name, column in columns.items()} for row in range(count)]
        made = {name: [make(row) for row in rows] for name, make in self.named.items()}
        columns = {name: column for name, column in made.items() if name not in columns} | columns | {
            name: column for name, column in made.items() if name in columns
        }  # fmt: skip
        hidden = self.hidden(rodata)
        columns = {name: column for name, column in columns.items() if name not in hidden}
        if self.sort and self.sort in columns:
            order = sorted(range(count), key=lambda row: columns[self.sort][row], reverse=True)
            columns = {name: [column[row] for row in order] for name, column in columns.items()}
        return columns


@dataclass(frozen=True, repr=False)
class Answer(Shown):
    """What a tool found. `columns`: lists by name; `unit_ns`: nanoseconds in a unit of the histograms; `notes`: what is not
    known.
    """

    tool: Tool
    columns: dict[str, list[Any]]
    unit_ns: int
    report: ReplayReport
    notes: list[str]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))

    def __repr__(self) -> str:
        return f"<Answer of {self.tool.name}: {len(self):,} rows{f', {len(self.notes)} notes' if self.notes else ''}>"

    @property
    def unit(self) -> str:
        """Of the histograms: "ns", "us", "ms"."""
        return {1: "ns", 1000: "us", 1_000_000: "ms"}.get(self.unit_ns, f"{self.unit_ns} ns")

    def rows(self) -> list[dict[str, Any]]:
        """Rows as mappings."""
        return [dict(zip(self.columns, values, strict=True)) for values in zip(*self.columns.values(), strict=True)]

    def frame(self) -> pd.DataFrame:
        """As a pandas DataFrame; `.attrs` has the unit of its histograms and the notes."""
        import pandas as pd

        frame = pd.DataFrame(self.columns)
        frame.attrs = {"tool": self.tool.name, "unit": self.unit, "notes": self.notes}
        return frame
