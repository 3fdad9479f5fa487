"""`fastrtp replay`: a program object over a recording, and what its maps hold afterwards."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.introspect import as_text, check_words, run_words
from fastrtp.cli.objects import check_maps, read_spec, tell_skipped
from fastrtp.cli.recordings import open_recording
from fastrtp.cli.selection import Selection, selection_options
from fastrtp.cli.session import save as save_session
from fastrtp.cli.setup import Setup, setup_options
from fastrtp.cli.terminal import Bar, console, number, plain, scaled, seconds, table
from fastrtp.cli.tracepoints import kernel_types
from fastrtp.errors import BpfError, FastrtpError, ObjectError, ReplayError

if TYPE_CHECKING:
    from rich.console import Console

    from fastrtp.btf import Btf
    from fastrtp.cli.introspect import Answer
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.loader.object import BpfObject, ObjectMap
    from fastrtp.obj import ObjectSpec
    from fastrtp.record import Recording
    from fastrtp.replay import ReplayReport
    from fastrtp.replay.fidelity import ReadFidelity
    from fastrtp.replay.tables import MapTable

INTERRUPTED = 130
_TOP = 20
_MISSING_LINES = 6


@dataclass
class Options:
    """What the command was told."""

    form: str
    maps: tuple[str, ...]
    top: int | None
    records: dict[str, str]
    trace_pipe: bool
    output: Path | None
    then: tuple[str, ...] = ()
    stats: bool = False
    cpus: Any = None
    window: Any = None
    order: Any = "exact"
    consumer: str | None = None
    strict: bool = False
    every: str | None = None


@dataclass
class Drained:
    """What was taken out of rings behind the replay."""

    records: dict[str, list[bytes]] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    series: Mapping[str, MapTable] = field(default_factory=dict)


@click.command("replay", short_help="Run the programs of an object over a recording.")
@click.argument("obj", metavar="OBJ", type=click.Path(path_type=Path))
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "arrow"]),
    default="table",
    show_default=True,
    help="How results are written. arrow: an Arrow IPC stream.",
)
@click.option("--map", "maps", multiple=True, metavar="NAME", help="Only this map; may be given several times.")
@click.option(
    "--top",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"Only the N rows of each map with the largest values; 0: all. [default: {_TOP} in tables, else all]",
)
@click.option(
    "--missing",
    type=click.Choice(["zero", "fault", "strict"]),
    default="zero",
    show_default=True,
    help="What programs read where the recording has nothing: zeros, unreadable memory, or an error before the start.",
)
@click.option(
    "--record",
    "records",
    multiple=True,
    metavar="MAP=STRUCT",
    help="Decode the records of a ring buffer or perf event array as this struct of the object.",
)
@click.option("--trace-pipe", is_flag=True, help="Print what the programs wrote with bpf_printk.")
@click.option(
    "--then",
    multiple=True,
    metavar="WORDS",
    help="Afterwards, with the programs still attached: 'prog show', 'map dump id 1', 'link show' and the like.",
)
@click.option(
    "--save",
    type=click.Path(path_type=Path),
    metavar="SESSION",
    help="Keep what the replay leaves behind in this file, for fastrtp prog|map|link|btf -s SESSION.",
)
@click.option(
    "--cpus",
    metavar="recorded|N",
    help="Play on several threads: one for each recorded CPU, or N. Results are those of one thread, or the run is refused.",
)
@click.option(
    "--window",
    metavar="EVENTS|TIME|none",
    default=None,
    help="With --cpus: between CPUs, too, order is kept to so many events, or so much time (10ms). [default: 65536]",
)
@click.option(
    "--order",
    type=click.Choice(["exact", "relaxed"]),
    default=None,
    help="With --cpus: refuse programs that could tell in which order CPUs' events were played, or play them all the same. "
    "[default: exact]",
)
@click.option(
    "--consumer",
    metavar="EVENTS|TIME|none",
    help="Rings have a reader who looks every so many events, or every so much time (10ms), or none; what finds no room is lost "
    "and counted. [default: every record is kept]",
)
@click.option(
    "--every",
    metavar="EVENTS|TIME",
    help="Show what maps held after every so many events, or every so much time (100ms), with the time as the first column.",
)
@click.option("--stats", is_flag=True, help="Count and time the runs of each program (BPF_ENABLE_STATS); that takes time itself.")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file; arrow with several maps: this folder.")
@click.option("--btf", metavar="host|PATH", help="The kernel's types, instead of those that the package ships.")
@click.option(
    "--strict", is_flag=True, help="Refuse the run where a program cannot be loaded or attached, instead of listing it."
)
@setup_options
@selection_options
@click.option("--instance", metavar="NAME", help="One of the recording's trace instances, '' the top one.")
@click.option("--perf-map", "perf_map", flag_value="map", help="Tell perf about compiled code: /tmp/perf-PID.map, which stays.")
@click.option(
    "--perf-dump",
    "perf_map",
    flag_value="dump",
    help="Tell perf annotate, too: /tmp/jit-PID.dump, for perf inject --jit after perf record -k mono.",
)
def replay_command(
    obj: Path, recording: Path, form: str, maps: tuple[str, ...], top: int | None, missing: str, records: tuple[str, ...],
    trace_pipe: bool, then: tuple[str, ...], save: Path | None, stats: bool, output: Path | None, btf: str | None,
    perf_map: str | None, cpus: str | None, window: str | None, instance: str | None, order: str | None,
    consumer: str | None, strict: bool, every: str | None, setup: Setup, selection: Selection,
) -> int:  # fmt: skip
    """Run the programs of OBJ over a RECORDING and show what is in their maps.

    RECORDING is a trace.dat file of trace-cmd, a perf.data file of perf record, or a folder that `fastrtp import` wrote. Ctrl-C
    ends the replay; results so far are shown.
    """
    structs = dict(_pair(text) for text in records)
    options = Options(
        form,
        maps,
        top,
        structs,
        trace_pipe,
        output,
        then,
        stats,
        *_threads(cpus, window, order),
        _reader(consumer, cpus),
        strict,
        every,
    )
    check_words(then)
    data, spec = read_spec(obj, lambda: types_of(btf, recording))
    _check_names(spec, obj, options)
    opened = selection.of(open_recording(recording, instance))
    kernel = make_kernel(btf, opened, perf_map, setup.version)
    try:
        loaded = setup.load(kernel, data, obj.name, strict=strict)
        drained = Drained()
        report, detached = _run(kernel, loaded, opened, missing, drained, options)
        if save is not None:
            save_session(save, kernel, loaded, data, btf if btf is not None else chosen_btf(opened))
        drained.notes += setup.notes
        _write(loaded, report, drained, options)
    except (ObjectError, BpfError, ReplayError):
        explained(kernel, opened)
        raise
    finally:
        kernel.shutdown()
    if report.interrupted:
        click.echo(f"fastrtp: interrupted after {number(report.events)} of {number(opened.events)} events; "
                   f"detached {', '.join(detached)}", err=True)  # fmt: skip
        return INTERRUPTED
    return 0


def make_kernel(btf: str | None, recording: Recording, perf_map: str | None = None, version: str | None = None) -> Kernel:
    """A kernel with as many CPUs as the recording, and with the best types at hand for it unless `btf` names some. `perf_map`:
    "map", "dump", or None: as the environment says.
    """
    from fastrtp.kernel.version import version_code
    from fastrtp.replay.recorded_kernel import kernel_of

    try:
        code = version_code(version) if version is not None else None
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    options = {name: value for name, value in (("btf", btf), ("version", code)) if value is not None}
    return kernel_of(recording, perf_map=perf_map, **options)


def types_of(btf: str | None, recording: Path) -> Btf:
    """The types that `make_kernel` takes for a recording."""
    return kernel_types(btf if btf is not None else chosen_btf(open_recording(recording)))


def chosen_btf(recording: Recording) -> str | None:
    """What --btf would have to be for the types that `make_kernel` takes."""
    from fastrtp.replay.recorded_kernel import types_for

    source = types_for(recording).source
    return None if source is None else str(source)


def explained(kernel: Kernel, recording: Recording) -> None:
    """Say on standard error what may be behind an error: types of another kernel than the recording's."""
    from fastrtp.replay.recorded_kernel import match

    for line in match(kernel, recording).notes():
        click.echo(f"fastrtp: {plain(line)}", err=True)


def _threads(cpus: str | None, window: str | None, order: str | None) -> tuple[Any, Any, str]:
    """What replay() takes for --cpus, --window and --order. UsageError."""
    from fastrtp.replay.parallel import WINDOW
    from fastrtp.replay.windows import parse_cpus, parse_window

    if cpus is None:
        if window is not None:
            raise click.UsageError("--window goes with --cpus")
        if order is not None:
            raise click.UsageError("--order goes with --cpus")
        return None, WINDOW, "exact"
    try:
        parse_window(window)
        return parse_cpus(cpus), WINDOW if window is None else window, order or "exact"
    except ReplayError as error:
        raise click.UsageError(str(error)) from error


def _reader(consumer: str | None, cpus: str | None) -> str | None:
    """What replay() takes for --consumer. UsageError."""
    from fastrtp.replay.consumer import parse_consumer

    try:
        parse_consumer(consumer)
    except ReplayError as error:
        raise click.UsageError(str(error)) from error
    if consumer is not None and cpus is not None:
        raise click.UsageError("--consumer keeps the order of all events: it does not go with --cpus")
    return consumer


def _pair(text: str) -> tuple[str, str]:
    name, equals, struct = text.partition("=")
    if not (name and equals and struct):
        raise click.UsageError(f"--record takes MAP=STRUCT, not {text!r}")
    return name, struct


def _check_names(spec: ObjectSpec, path: Path, options: Options) -> None:
    """The maps and structs that were asked for are there; and an Arrow stream has one table. Before anything is run."""
    check_maps(spec, path, (*options.maps, *options.records))
    for name, struct in options.records.items():
        if spec.btf is None or spec.btf.find(struct) is None:
            raise ObjectError(f"{path}: its BTF has no type {struct!r} for the records of {name}")
    if options.form == "arrow" and options.output is None:
        if sys.stdout.isatty():
            raise click.UsageError("an Arrow stream is no text: use --output FILE, or a pipe")
        if len(options.maps) != 1 and len(spec.maps) != 1:
            raise click.UsageError(
                f"an Arrow stream holds one table: choose with --map one of {', '.join(spec.maps)}; or --output FOLDER"
            )


def _run(
    kernel: Kernel, loaded: BpfObject, recording: Recording, missing: Any, drained: Drained, options: Options
) -> tuple[ReplayReport, list[str]]:
    """Attach, replay, detach; the report, and what was attached."""
    from fastrtp.replay import replay
    from fastrtp.replay.tables import RINGS

    if not any(program.auto_attachable for program in loaded.programs.values()):
        reasons = "; ".join(f"{name}: {why}" for name, why in loaded.skipped.items())
        raise ReplayError(f"{loaded.name} has no program that names its tracepoint{f' ({reasons})' if reasons else ''}")
    rings = [held for held in loaded.maps.values() if held.map.map_type in RINGS]
    stats = kernel.enable_stats() if options.stats else -1
    with Bar("replaying", "events") as bar, loaded.attach(strict=options.strict) as links:
        report = replay(
            kernel, recording, missing=missing, progress=bar, interruptible=True, cpus=options.cpus, window=options.window,
            order=options.order, consumer=options.consumer, every=options.every,
        )  # fmt: skip
        drained.series = report.series
        drained.records = {held.name: list(held.consume()) for held in rings}
        drained.answers = {line: run_words(kernel, line) for line in options.then}
        if options.stats:
            kernel.close(stats)
        return report, [f"{link.program} from {link.tp_name}" for link in links]


def _write(loaded: BpfObject, report: ReplayReport, drained: Drained, options: Options) -> None:
    if options.form == "json":
        from fastrtp.cli.render import to_json

        _put((to_json(as_json(loaded, report, drained, options)) + "\n").encode(), options.output)
    elif options.form == "arrow":
        _write_arrow(loaded, drained, options)
        tell_skipped(loaded.skipped, "not loaded")
        click.echo(f"fastrtp: {summary(report)}", err=True)
    elif options.output is not None:
        from rich.console import Console

        with options.output.open("w", encoding="utf-8") as file:
            out = Console(file=file, width=200, no_color=True, highlight=False, markup=False, emoji=False)
            _print(out, loaded, report, drained, options)
    else:
        _print(console(), loaded, report, drained, options)


def _put(data: bytes, path: Path | None) -> None:
    if path is None:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
    else:
        path.write_bytes(data)


def chosen(loaded: BpfObject, options: Options) -> list[ObjectMap]:
    """The maps to show: those that were named; or all that have something to show besides constants."""
    if options.maps:
        return [loaded.maps[name] for name in options.maps]
    return [held for held in loaded.maps.values() if not held.spec.frozen]


def tables(loaded: BpfObject, drained: Drained, options: Options) -> list[MapTable]:
    """The chosen maps' tables, rings' records among them. Arrays of programs and maps of maps have none."""
    from fastrtp.replay.tables import RINGS, map_table, record_table
    from fastrtp.uapi import BpfMapType

    made = []
    for held in chosen(loaded, options):
        if held.map.map_type in RINGS:
            btf, struct = loaded.spec.btf, options.records.get(held.name)
            type_id = (btf.find(struct) or 0) if btf is not None and struct else 0
            made.append(record_table(held.name, held.map.map_type, drained.records[held.name], btf, type_id))
        elif held.map.map_type != BpfMapType.BPF_MAP_TYPE_PROG_ARRAY and not held.bpf_map.is_map_of_maps:
            made.append(drained.series.get(held.map.name) or map_table(held.map, held.name))
    return made


def as_json(loaded: BpfObject, report: ReplayReport, drained: Drained, options: Options) -> dict[str, Any]:
    """Report and maps as JSON-ready values: keys and values nested as their types are."""
    from fastrtp.replay.tables import RINGS

    maps: dict[str, Any] = {}
    rings = {rows.name: rows for rows in tables(loaded, drained, options) if rows.map_type in RINGS}
    for held in chosen(loaded, options):
        row: dict[str, Any] = {"type": held.map.map_type.name, "max_entries": held.map.max_entries}
        if held.name in rings:
            names = list(rings[held.name].columns)
            rows = [dict(zip(names, cells, strict=True)) for cells in rings[held.name].rows()]
            row |= {"lost": held.map.lost, "records": rows[: options.top or None]}
        elif held.bpf_map.is_map_of_maps:
            row["maps"] = {key.hex(): inner.id for key, inner in held.bpf_map.inners.items()}
        elif hasattr(held.map, "set_slot"):
            row["programs"] = {str(slot): prog.name for slot, prog in held.bpf_map.programs.items()}
        else:
            items = [{"key": key, "value": value} for key, value in held.items()]
            if options.top:
                items.sort(key=lambda item: _weight(item["value"]), reverse=True)
            row["items"] = items[: options.top or None]
        maps[held.name] = row
    pipe = [{"time": at, "cpu": cpu, "pid": pid, "text": text.decode("utf-8", "backslashreplace")}
            for at, cpu, pid, text in report.printk]  # fmt: skip
    return (
        {
            "object": loaded.name,
            "report": report.as_dict(),
            "attached": {
                program.name: program.spec.attach_name for program in loaded.programs.values() if program.auto_attachable
            },
            "skipped": loaded.skipped,
            "notes": drained.notes,
            "maps": maps,
        }
        | ({"trace_pipe": pipe} if options.trace_pipe else {})
        | _more_json(loaded, drained, options)
    )


def _more_json(loaded: BpfObject, drained: Drained, options: Options) -> dict[str, Any]:
    """What --stats and --then add."""
    more: dict[str, Any] = {}
    if options.stats:
        counted = {program.name: program.prog.stats() for program in loaded.programs.values()}
        more["stats"] = {name: {"run_time_ns": time_ns, "run_cnt": count} for name, (time_ns, count, _misses) in counted.items()}
    if drained.series:
        more["series"] = {
            name: [dict(zip(rows.columns, cells, strict=True)) for cells in rows.rows()] for name, rows in drained.series.items()
        }
    if options.then:
        more["then"] = {line: answer.rows for line, answer in drained.answers.items()}
    return more


def _weight(value: Any) -> float:
    """What --top sorts decoded values by: the first number in them; of a per-CPU value the sum."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, list):
        return sum(_weight(item) for item in value)
    if isinstance(value, dict):
        return next((_weight(item) for item in value.values() if isinstance(item, int | float)), 0)
    return 0


def _write_arrow(loaded: BpfObject, drained: Drained, options: Options) -> None:
    import pyarrow as pa

    made = [rows.top(options.top) if options.top else rows for rows in tables(loaded, drained, options)]
    if not made:
        raise FastrtpError(f"{loaded.name}: no map has anything to write")
    one_file = options.output is None or (len(made) == 1 and not options.output.is_dir())
    for rows in made:
        contents = rows.arrow()
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, contents.schema) as stream:
            stream.write_table(contents)
        data = sink.getvalue().to_pybytes()
        if one_file:
            _put(data, options.output)
        else:
            assert options.output is not None
            options.output.mkdir(parents=True, exist_ok=True)
            (options.output / f"{rows.name.replace('/', '_')}.arrows").write_bytes(data)


def summary(report: ReplayReport) -> str:
    """One line on the whole replay."""
    return (
        f"{number(report.events)} events, {number(report.fired)} with a program, in {seconds(report.seconds)}: "
        f"{scaled(report.events_per_second, 'events/s')} (prepared in {seconds(report.prepare_seconds)})"
    )


def _print(out: Console, loaded: BpfObject, report: ReplayReport, drained: Drained, options: Options) -> None:
    from fastrtp.cli.render import print_map
    from fastrtp.replay.series import top_of_each

    out.print(summary(report))
    out.print()
    print_programs(out, loaded, stats=options.stats)
    for line in [*map(plain, drained.notes), *notes(loaded, report)]:
        out.print(line, style="dim")
    out.print()
    for rows in tables(loaded, drained, options):
        held = loaded.maps[rows.name]
        top = _TOP if options.top is None else options.top
        if held.map.name in drained.series:
            rows, top = top_of_each(rows, top), 0
        print_map(out, rows, top, lost=getattr(held.map, "lost", 0))
    if options.trace_pipe:
        print_trace_pipe(out, report)
    for line, answer in drained.answers.items():
        out.print(plain(line), style="bold")
        out.print(as_text(answer, "plain"), soft_wrap=True)
        out.print()


def print_programs(out: Console, loaded: BpfObject, *, stats: bool = False) -> None:
    """Programs, what they are attached to, and how often they ran; with `stats` the mean time of a run."""
    columns = ("runs", "misses", "ns/run") if stats else ("runs", "misses")
    rows = table("program", "tracepoint", *columns, numbers=columns)
    for program in loaded.programs.values():
        if program.auto_attachable:
            run_time_ns, run_cnt, misses = program.prog.stats()
            timed = [number(run_time_ns / run_cnt) if run_cnt else "-"] if stats else []
            rows.add_row(plain(program.name), plain(program.spec.attach_name), number(program.run_cnt), number(misses), *timed)
    out.print(rows)


def notes(loaded: BpfObject, report: ReplayReport) -> list[str]:
    """What a reader has to know about how exact the results are."""
    lines = [f"not loaded: {plain(name)}: {plain(why)}" for name, why in loaded.skipped.items()]
    lost = {cpu: count for cpu, count in report.lost.items() if count}
    if lost:
        by_cpu = ", ".join(f"cpu {cpu}: {number(count)}" for cpu, count in lost.items())
        lines.append(f"lost by the recorder: {number(sum(lost.values()))} events ({by_cpu})")
    damaged = sum(report.damaged.values())
    if damaged:
        lines.append(f"{number(damaged)} pages of the recording are damaged: their events are not there")
    lines += map(plain, report.notes)
    if report.faulted_reads:
        lines.append(f"{number(report.faulted_reads)} reads of memory that the recording does not have")
    lacks: dict[tuple[str, str], list[str]] = {}
    for row in report.missing:
        lacks.setdefault((row.program, row.tracepoint), []).append(_lack(row))
    for (program, tracepoint), members in list(lacks.items())[:_MISSING_LINES]:
        some = ", ".join(members[:_MISSING_LINES])
        more = f" and {len(members) - _MISSING_LINES} more" if len(members) > _MISSING_LINES else ""
        lines.append(plain(f"not in the recording: {program} at {tracepoint} reads {some}{more}"))
    if len(lacks) > _MISSING_LINES:
        lines.append(f"not in the recording: what {len(lacks) - _MISSING_LINES} more programs read (fastrtp check has all)")
    lines += [f"{number(count)} records of {plain(name)} found no room" for name, count in report.dropped.items() if count]
    if report.signals_lost:
        lines.append(f"{number(report.signals_lost)} signals found no room")
    if report.printk_lost:
        lines.append(f"{number(report.printk_lost)} lines of the trace pipe found no room")
    return lines


def _lack(row: ReadFidelity) -> str:
    """One thing that a program reads, how often, and why it is not there."""
    times = f"{number(row.count)} times" if row.count is not None else f"up to {number(row.runs)} times" if row.runs else ""
    return f"{row.what} ({f'{times}, ' if times else ''}{row.why})"


def print_trace_pipe(out: Console, report: ReplayReport) -> None:
    """The lines of bpf_printk as the kernel's trace_pipe shows them."""
    out.print("trace_pipe", style="bold")
    for at, cpu, pid, text in report.printk:
        message = text.decode("utf-8", "backslashreplace").rstrip("\n\0")
        out.print(f"{pid:>7} [{cpu:03d}] {at / 1e9:.6f}: bpf_trace_printk: {plain(message)}", soft_wrap=True)
    out.print()
