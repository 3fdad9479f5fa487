"""fastrtp in notebooks: reports, maps, objects, recordings and tracepoints show as tables.

    from fastrtp.notebook import frame, plot_log2, replay

    report = replay(kernel, "trace.dat")       # with a progress bar
    events(recording, "sched_switch")          # all events of a kind as a pandas DataFrame
    frame(obj.maps["runqlat"])                 # a map as one, with the integer widths of the BTF
    plot_log2(slots, unit="us")                # a log2 histogram with matplotlib

With `%load_ext fastrtp.notebook` a program that the verifier refuses shows its report, and the log folded by source line.

IPython, pandas and matplotlib (the `notebook` extra) are imported when they are used; the layers below know nothing of them.
"""

from __future__ import annotations

import html
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fastrtp.errors import VerifierError

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from matplotlib.axes import Axes

    from fastrtp.kernel import Kernel
    from fastrtp.record import Recording
    from fastrtp.replay import ReplayReport

ROWS = 20
"""Rows of a table that are shown; `frame` has all."""
_PATIENCE = 0.5
"""Seconds that work may take before it gets a bar."""
_PAINT_EVERY = 0.1


def load_ipython_extension(shell: Any) -> None:
    """%load_ext fastrtp.notebook"""
    shell.set_custom_exc((VerifierError,), _refused)


def unload_ipython_extension(shell: Any) -> None:
    """%unload_ext fastrtp.notebook"""
    shell.set_custom_exc((), None)


# data


def frame(held: Any) -> pd.DataFrame:
    """A map as a DataFrame: struct members are columns, integers keep their widths. `held`: obj.maps[...] or its `.map`.

    BpfError for a kind of map that has no elements to list.
    """
    from fastrtp.replay.tables import map_table

    frame: pd.DataFrame = map_table(getattr(held, "map", held), held.name).arrow().to_pandas()
    return frame


def events(recording: Recording, name: str) -> pd.DataFrame:
    """All events of one kind ("sched_switch" or "sched:sched_switch") as a DataFrame, indexed by their time in ns.

    Columns: cpu, pid, then the recorded fields; texts as str, fields of varying length that are no text as bytes. KeyError for a
    kind that the recording has not.
    """
    import pandas as pd

    table = recording.table(name)
    where = recording.positions[next(index for index, other in enumerate(recording.tables) if other is table)]
    columns: dict[str, Any] = {"cpu": recording.cpu[where], "pid": recording.pid[where]}
    for field, column in table.fields.items():
        if field.startswith("common_"):
            continue
        if table.has_strings(field):
            columns[field] = [text.decode("utf-8", "backslashreplace") for text in table.strings(field).tolist()]
        else:
            columns[field] = column if column.ndim == 1 else list(column)
    return pd.DataFrame(columns, index=pd.Index(recording.time[where], name="time"))


def add_slots(rows: Iterable[Sequence[int]]) -> list[int]:
    """The sum of several histograms, slot by slot: a column of a frame, or any rows of equal length."""
    return [int(sum(column)) for column in zip(*rows, strict=True)]


def plot_log2(slots: Sequence[int], unit: str = "us", *, title: str = "", ax: Axes | None = None) -> Axes:
    """Draw a log2 histogram: slot s counts values of [2^s, 2^(s+1)) `unit`, slot 0 from 0. The Axes drawn on."""
    import matplotlib.pyplot as plt

    axes: Axes = ax if ax is not None else plt.subplots(figsize=(8, 3))[1]
    used = [slot for slot, count in enumerate(slots) if count]
    shown = range(used[0], used[-1] + 1) if used else range(0)
    axes.bar([str(slot) for slot in shown], [int(slots[slot]) for slot in shown], width=0.9)
    axes.set_xticks([str(slot) for slot in shown], [f"{1 << slot if slot else 0:,}" for slot in shown], rotation=45, ha="right")
    axes.set_xlabel(f"{unit}, from")
    axes.set_ylabel("count")
    axes.spines[["top", "right"]].set_visible(False)
    if title:
        axes.set_title(title)
    return axes


# progress


class Progress:
    """A progress bar in the cell's output, called with (done, total); it goes when the work ends. A context manager."""

    def __init__(self, what: str = "replaying", count: str = "events") -> None:
        self._what = what
        self._count = count
        self._start = time.monotonic()
        self._painted = self._start + _PATIENCE - _PAINT_EVERY
        self._handle: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._handle is not None:
            self._handle.update(_html(""))

    def __call__(self, done: int, total: int) -> None:
        """So much is done."""
        now = time.monotonic()
        if now - self._painted < _PAINT_EVERY:
            return
        self._painted = now
        text = progress_html(self._what, done, total, self._count, now - self._start)
        if self._handle is None:
            from IPython.display import display  # type: ignore[attr-defined, unused-ignore]

            self._handle = display(_html(text), display_id=True)  # type: ignore[no-untyped-call, unused-ignore]
        else:
            self._handle.update(_html(text))


def _html(text: str) -> Any:
    from IPython.display import HTML  # type: ignore[attr-defined, unused-ignore]

    return HTML(text)  # type: ignore[no-untyped-call, unused-ignore]


def progress_html(what: str, done: int, total: int, count: str, spent: float) -> str:
    """The bar, what is done, and the rate."""
    rate = f", {done / spent:,.0f} {count}/s" if spent > 0 else ""
    return f"{html.escape(what)} <progress value='{done}' max='{max(total, 1)}'></progress> {done:,} of {total:,}{rate}"


def replay(kernel: Kernel, source: str | os.PathLike[str] | Recording, **options: Any) -> ReplayReport:
    """`fastrtp.replay.replay` with a progress bar; the interrupt button ends it and leaves the results so far."""
    from fastrtp.replay import replay as plain_replay

    with Progress() as progress:
        return plain_replay(kernel, source, progress=progress, interruptible=True, **options)


# tables


def table_html(columns: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> str:
    """An HTML table; everything in it is escaped."""
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    above = f"<caption style='text-align:left;white-space:nowrap'>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
        return f"<td style='text-align:right'>{text}</td>"
    if isinstance(value, bytes):
        value = value.hex(" ")
    if isinstance(value, list) and len(value) >= 8 and all(isinstance(item, int) and item >= 0 for item in value):
        return f"<td>{_bars(value)}</td>"
    return f"<td style='text-align:left'>{html.escape(str(value))}</td>"


def _bars(values: Sequence[int]) -> str:
    """A small bar chart as SVG, up to the last value that is not zero."""
    most = max(values) or 1
    last = max((index for index, value in enumerate(values) if value), default=-1)
    bars = "".join(
        f"<rect x='{5 * index}' y='{16 - height}' width='4' height='{height}'><title>{index}: {value}</title></rect>"
        for index, value in enumerate(values[: last + 1])
        for height in [round(16 * value / most, 1)]
        if value
    )
    return f"<svg width='{5 * (last + 1)}' height='16' fill='currentColor'>{bars}</svg>"


# verification

_SOURCE_LINE = re.compile(r"^; (.*) @ (\S+:\d+)$")
_BRANCH = re.compile(r"^from \d+ to \d+: ")


def log_html(log: str, *, last_open: bool = False) -> str:
    """A verifier's log as folds: one for each source line that the path comes to, or for each branch where there are none.

    `last_open`: the last one is unfolded.
    """
    folds: list[tuple[str, list[str]]] = [("", [])]
    lines = [line for line in log.splitlines() if line.strip()]
    sources = any(_SOURCE_LINE.match(line) for line in lines)
    for line in lines:
        source = _SOURCE_LINE.match(line)
        title = f"{source[2]}: {source[1]}" if source else line if not sources and _BRANCH.match(line) else ""
        if title and title != folds[-1][0]:
            folds.append((title, []))
        if not source:
            folds[-1][1].append(line)
    shown = [(title, body) for title, body in folds if body]
    return "".join(
        f"<details{' open' if last_open and at == len(shown) - 1 else ''}><summary><code>{html.escape(title or 'log')}</code> "
        f"({len(body)})</summary><pre>{html.escape(chr(10).join(body))}</pre></details>"
        for at, (title, body) in enumerate(shown)
    )


def refusal_html(error: VerifierError) -> str:
    """Why a program was refused: the report, and the log in folds."""
    from fastrtp.verifier.report.report import report_of

    report = report_of(error)
    why = str(error.strerror or error) if report is None else str(report)
    return f"<pre>{html.escape(why)}</pre>{log_html(error.log, last_open=True)}"


def verified_html(program: Any) -> str:
    """An accepted program: what it took, its functions, the log in folds where it was asked for."""
    stats = program.stats
    numbers = [(stats.insn_processed, stats.total_states, stats.peak_states, stats.time_ns / 1e6, program.max_ctx_offset)]
    columns = ("instructions processed", "states", "at most", "ms", "bytes of context")
    functions = [(s.name or f"func#{i}", s.end - s.start, s.stack_depth) for i, s in enumerate(program.subprogs)]
    tables = table_html(columns, numbers) + table_html(("function", "instructions", "bytes of stack"), functions)
    return tables + log_html(program.log)


def _refused(
    shell: Any, kind: type[BaseException], error: VerifierError, trace: TracebackType, tb_offset: int | None = None
) -> None:
    """What IPython shows of a refusal that nobody caught."""
    from fastrtp.verifier.report.report import report_of

    shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    shell.display_pub.publish({"text/html": refusal_html(error), "text/plain": str(report_of(error) or "")})


def map_html(held: Any) -> str:
    """A map's most important rows. Rings and program arrays say what they are."""
    from fastrtp.replay.tables import map_table

    contents = getattr(held, "map", held)
    kind = contents.map_type.name.removeprefix("BPF_MAP_TYPE_").lower()
    if not hasattr(contents, "__len__"):
        return f"<p>{html.escape(held.name)} ({kind}, {contents.max_entries:,})</p>"
    rows = map_table(contents, held.name)
    shown = (rows if rows.sort_by else rows.without_zeros()).top(ROWS)
    note = f", {len(shown):,} of {len(rows):,} rows shown" if len(shown) < len(rows) else ""
    caption = f"{held.name} ({kind}): {rows.entries:,} entries{note}"
    return table_html(list(shown.columns), shown.rows(), caption)


def report_html(report: ReplayReport) -> str:
    """A replay's counts, program by program."""
    caption = f"{report.events:,} events, {report.fired:,} with a program, {report.events_per_second / 1e6:,.1f} M events/s"
    notes = [f"{sum(report.lost.values()):,} events lost by the recorder"] if any(report.lost.values()) else []
    notes += [f"{report.faulted_reads:,} reads of memory that the recording does not have"] if report.faulted_reads else []
    notes += [f"{len(report.missing):,} arguments or members that the recording does not have"] if report.missing else []
    notes += [f"{count:,} records of {name} found no room" for name, count in report.dropped.items() if count]
    notes += [f"{report.printk_lost:,} lines of the trace pipe found no room"] if report.printk_lost else []
    notes += [f"{report.signals_lost:,} signals found no room"] if report.signals_lost else []
    notes += ["interrupted"] if report.interrupted else []
    rows = [(name, program.run_cnt, program.recursion_misses) for name, program in report.programs.items()]
    return table_html(("program", "runs", "recursion misses"), rows, "; ".join([caption, *notes]))


def object_html(obj: Any) -> str:
    """An object's programs and maps."""
    programs = [(name, program.spec.section, program.run_cnt) for name, program in obj.programs.items()]
    skipped = [(name, why, "not loaded") for name, why in obj.skipped.items()]
    maps = [
        (name, held.map.map_type.name.removeprefix("BPF_MAP_TYPE_").lower(), held.map.key_size, held.map.value_size,
         held.map.max_entries)
        for name, held in obj.maps.items()
    ]  # fmt: skip
    return table_html(("program", "section", "runs"), [*programs, *skipped], obj.name) + table_html(
        ("map", "type", "key size", "value size", "max entries"), maps
    )


def recording_html(recording: Recording) -> str:
    """A recording's summary and its most frequent events."""
    info = recording.info()
    span = f" in {info['seconds']:.3g} s" if info["seconds"] is not None else ""
    kinds = len(info["by_name"])
    note = f"; {ROWS} of {kinds} kinds shown" if kinds > ROWS else ""
    caption = f"{info['events']:,} events{span}, {info['cpus']} cpus, {info['host']}{note}"
    return table_html(("event", "count"), list(info["by_name"].items())[:ROWS], caption)


def answer_html(answer: Any) -> str:
    """What a tool found: its most important rows, and what is not known."""
    shown = answer.rows()[:ROWS]
    note = f", {len(shown):,} of {len(answer):,} rows shown" if len(shown) < len(answer) else ""
    caption = "; ".join([f"{answer.tool.summary}{note}", *answer.notes])
    return table_html(list(answer.columns), [list(row.values()) for row in shown], caption)


def tracepoint_html(tracepoint: Any) -> str:
    """A tracepoint's arguments and its probes."""
    rows = [
        (f"ctx[{number}]", arg.name, arg.size, "pointer" if arg.is_pointer else "signed" if arg.signed else "unsigned")
        for number, arg in enumerate(tracepoint.proto.args)
    ]
    return table_html(("argument", "name", "bytes", "kind"), rows, f"{tracepoint.name}: {len(tracepoint.funcs)} probes")


def html_of(shown: Any) -> str:
    """What a notebook shows of one of our things."""
    for one in type(shown).__mro__:
        function = _FORMATTERS.get((one.__module__, one.__qualname__))
        if function is not None:
            return function(shown)
    raise TypeError(f"{type(shown).__name__} has no table")


_RECORDING = ("fastrtp.record.recording", "Recording")
_FORMATTERS: dict[tuple[str, str], Callable[[Any], str]] = {
    ("fastrtp.maps.base", "Map"): map_html,
    ("fastrtp.kernel.loader.object_map", "ObjectMap"): map_html,
    ("fastrtp.kernel.loader.object", "BpfObject"): object_html,
    ("fastrtp.replay.report", "ReplayReport"): report_html,
    _RECORDING: recording_html,
    ("fastrtp.trace.tracepoint", "Tracepoint"): tracepoint_html,
    ("fastrtp.tools.tool", "Answer"): answer_html,
    ("fastrtp.errors", "VerifierError"): refusal_html,
    ("fastrtp.verifier.api", "VerifiedProgram"): verified_html,
}
"""(module, class) -> its HTML. By name, so that nothing is imported before it is shown."""
