"""`fastrtp import` and `fastrtp info`: recordings."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastrtp.cli.selection import Selection, selection_options
from fastrtp.cli.terminal import Bar, console, need_native, number, plain, scaled, seconds, table
from fastrtp.errors import RecordingError

if TYPE_CHECKING:
    from fastrtp.record import Recording

_EVENT_ROWS = 40


def open_recording(path: Path, instance: str | None = None) -> Recording:
    """Open a recording with a progress bar. OSError for one that is not there, RecordingError for what is none."""
    path.stat()
    need_native()
    from fastrtp.record import Recording

    with Bar(f"reading {plain(path.name)}", "B") as bar:
        return Recording.open(path, bar, instance)


@click.command("import", short_help="Turn a recording into columns that open in no time.")
@click.argument("recording", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@selection_options
@click.option("--instance", metavar="NAME", help="One of the file's trace instances, '' the top one.")
def import_command(recording: Path, out: Path, instance: str | None, selection: Selection) -> None:
    """Turn a RECORDING into columns in the folder OUT, which opens in no time."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecordingError(f"{out}: exists and is no empty folder")
    recording.stat()
    need_native()
    start = time.perf_counter()
    opened = selection.of(open_recording(recording, instance))
    read = time.perf_counter()
    opened.save(out)
    done = time.perf_counter()
    rate = scaled(opened.events / max(read - start, 1e-9), "events/s")
    click.echo(f"{number(opened.events)} events of {len(opened.tables)} kinds read in {seconds(read - start)} ({rate}), "
               f"written to {plain(out)} in {seconds(done - read)}")  # fmt: skip


@click.command("info", short_help="Show what is in a recording.")
@click.argument("recording", type=click.Path(path_type=Path))
@selection_options
@click.option("--instance", metavar="NAME", help="One of the file's trace instances, '' the top one.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option(
    "--top",
    type=click.IntRange(min=0),
    default=_EVENT_ROWS,
    show_default=True,
    metavar="N",
    help="Only the N most frequent events; 0: all.",
)
def info_command(recording: Path, instance: str | None, form: str, top: int, selection: Selection) -> None:
    """Show what is in a RECORDING."""
    opened = selection.of(open_recording(recording, instance))
    info = opened.info()
    if form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json(info))
        return
    out = console()
    span = f" in {seconds(info['seconds'])}" if info["seconds"] is not None else ""
    rate = f", {scaled(info['events_per_second'], 'events/s')}" if info["events_per_second"] else ""
    out.print(f"{plain(recording)}: {number(info['events'])} events{span}{rate}", style="bold", soft_wrap=True)
    rows = table("", "", header=False)
    facts = {
        "host": info["host"], **info["facts"], "clock": info["clock"], "cpus": f"{info['cpus']} ({_by_cpu(info['by_cpu'])})",
        "pids": info["pids"],
        "lost": _by_cpu(info["lost"]) or "nothing", "gaps": _by_cpu(info["gaps"]),
        "damaged pages": _by_cpu(info["damaged"]), "overrun": _by_cpu(info["overrun"]),
        "of unknown kind": _by_kind(info["unknown"]), "instances": ", ".join(info["instances"]),
        "notes": "; ".join(info["notes"]),
    }  # fmt: skip
    for name, value in facts.items():
        if value not in ("", None):
            rows.add_row(name, plain(value))
    out.print(rows)
    out.print()
    events = table("event", "count", "share", numbers=("count", "share"))
    by_name = list(info["by_name"].items())
    for name, count in by_name[: top or None]:
        events.add_row(plain(name), number(count), f"{100 * count / max(info['events'], 1):.1f} %")
    out.print(events)
    if top and len(by_name) > top:
        out.print(f"{len(by_name) - top} more: --top 0 shows all", style="dim")


def _by_cpu(counts: dict[int, int]) -> str:
    return ", ".join(f"cpu {cpu}: {number(count)}" for cpu, count in counts.items())


def _by_kind(counts: dict[int, int]) -> str:
    return ", ".join(f"type {kind}: {number(count)}" for kind, count in counts.items())
