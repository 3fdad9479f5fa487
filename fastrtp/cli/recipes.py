"""`fastrtp recipes`: recipes out of a kernel's source, and what a recording finds among those there are."""

from __future__ import annotations

from pathlib import Path

import click

from fastrtp.cli.terminal import Bar, console, number, plain, table
from fastrtp.errors import RecordingError


@click.group("recipes", short_help="Make recipes from a kernel's source, or try them on a recording.")
def recipes_command() -> None:
    """Recipes turn recorded fields into the arguments that a tracepoint had. They come from the kernel's own source."""


@recipes_command.command("make", short_help="Read a kernel source tree.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", "-o", type=click.Path(path_type=Path), help="The file to write: VERSION.recipes.zst unless given.")
@click.option(
    "--report", "report_file", type=click.Path(path_type=Path), help="Where to list every field that was left, and why."
)
@click.option("--all-arches", is_flag=True, help="Events of other architectures than x86, too.")
def make_command(source: Path, out: Path | None, report_file: Path | None, all_arches: bool) -> None:
    """Read the trace headers of the Linux SOURCE tree and write what they say of every event's fields.

    FASTRTP_RECIPES=FILE (or a folder of files) makes replays use it before the recipes that fastrtp comes with.
    """
    from fastrtp.record.invert.make import make
    from fastrtp.record.invert.write import content, report
    from fastrtp.record.recipes.data import SUFFIX, dump

    try:
        with Bar(f"reading {plain(source)}", "headers") as bar:
            made = make(source, arches=all_arches, progress=bar)
    except ValueError as error:
        raise RecordingError(str(error)) from error
    target = out or Path(f"{made.version}{SUFFIX}")
    target.write_bytes(dump(content(made)))
    for line in report(made, left=False):
        click.echo(line)
    if report_file is not None:
        report_file.write_text("\n".join(report(made)) + "\n")
    click.echo(f"{plain(target)}: {number(target.stat().st_size)} bytes")


@recipes_command.command("check", short_help="Say which recipes a recording finds.")
@click.argument("recording", type=click.Path(path_type=Path))
def check_command(recording: Path) -> None:
    """For each event of a RECORDING: the kernel whose recipe fits best, how many fields tell something, and which do not."""
    from fastrtp.cli.recordings import open_recording
    from fastrtp.record.recipes.choose import choose

    opened = open_recording(recording)
    rows = table("event", "count", "recipe of", "fields", "telling", "left", numbers=("count", "fields", "telling"))
    for item in opened.tables:
        if item.fmt is None or not len(item):
            continue
        names = [spec.name for spec in item.fmt.fields if not spec.name.startswith("common_")]
        row = choose(item.fmt, opened.uname)
        if row is None:
            rows.add_row(
                plain(f"{item.system}:{item.name}"), number(len(item)), "none", number(len(names)), "0", plain(", ".join(names))
            )
            continue
        left = [name for name in names if name in row.left or name not in row.fields]
        why = ", ".join(f"{name}: {row.left.get(name, 'not in that kernel')}" for name in left)
        rows.add_row(plain(f"{item.system}:{item.name}"), number(len(item)), row.kernel, number(len(names)),
                     number(len(names) - len(left)), plain(why))  # fmt: skip
    console().print(rows)


@recipes_command.command("show", short_help="Show what is known of an event.")
@click.argument("event")
@click.option("--kernel", default="", metavar="VERSION", help="The version that the recording is of.")
def show_command(event: str, kernel: str) -> None:
    """Show, for each kernel whose source was read, what the fields of EVENT tell."""
    from fastrtp.record.recipes.data import rows

    found = rows(event, kernel)
    if not found:
        raise RecordingError(f"no recipe of an event {event!r}")
    for row in found:
        click.echo(
            f"{plain(row.system)}:{plain(row.name)} of {plain(row.kernel)}: "
            + ", ".join(f"{kind} {name}" for kind, name in row.args)
        )
        for told in row.told:
            click.echo(f"  {told.field}{told.part}: {' | '.join((told.path, *told.ops))}")
        for name, why in row.left.items():
            click.echo(f"  {name}: left, {why}")


@recipes_command.command("table", short_help="List every event, and what recordings tell of it.")
@click.argument("pattern", default="*")
@click.option("--format", "form", type=click.Choice(["table", "markdown", "json"]), default="table", show_default=True)
def table_command(pattern: str, form: str) -> None:
    """List the events whose name or system:name matches PATTERN ('sched*', 'net:*'): for each kernel whose source was read,
    whether every field tells something (exact), some do not (partial, with their names), or none does.
    """
    import fnmatch
    from dataclasses import asdict

    from fastrtp.record.recipes.survey import markdown, survey

    if form == "markdown":
        if pattern != "*":
            raise click.UsageError("markdown is of all events")
        click.echo(markdown(), nl=False)
        return
    found = [
        row for row in survey() if any(fnmatch.fnmatchcase(name, pattern) for name in (row.event, f"{row.system}:{row.event}"))
    ]
    if not found:
        raise RecordingError(f"no recipe of an event {pattern!r}")
    if form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json([asdict(row) for row in found]))
        return
    rows = table("event", "kernel", "", "lacks")
    for row in found:
        status = f"{row.status}{', by hand' if row.by_hand else ''}"
        rows.add_row(plain(f"{row.system}:{row.event}"), row.kernel, status, plain(", ".join(row.lacks)))
    console().print(rows)
