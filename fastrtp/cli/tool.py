"""`fastrtp tool NAME RECORDING`: a question that is asked again and again, as a command with its own options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.recordings import open_recording
from fastrtp.cli.selection import Selection

if TYPE_CHECKING:
    from fastrtp.tools import Answer, Tool

_TOP = 20
_SLOTS = "slots"


class Tools(click.Group):
    """The tools as commands, each made from its row of the table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        from fastrtp.tools import TOOLS

        return list(TOOLS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A tool's command."""
        from fastrtp.tools import TOOLS

        tool = TOOLS.get(cmd_name)
        return _command(tool) if tool is not None else None


@click.command("tool", cls=Tools, short_help="Answer a common question: runqlat, syscount, ...")
def tool_command() -> None:
    """Answer a common question about a recording: fastrtp tool runqlat trace.dat

    Each tool is a BPF program of the package, its source beside it. In Python: rtp.tools.runqlat("trace.dat").
    """


def _command(tool: Tool) -> click.Command:
    @click.argument("recording", type=click.Path(path_type=Path))
    @click.option("--top", type=int, metavar="N", help=f"Only the N most important rows, 0 for all. [default: {_TOP} in a table]")
    @click.option("--format", "form", type=click.Choice(["table", "json", "csv", "arrow"]), default="table", show_default=True)
    @click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file.")
    @click.option("--source", is_flag=True, help="Print the C source of the tool instead.")
    @click.option(
        "--from", "start", metavar="TIME", help="Only events from this time on: 1.5s since the first event, or 39.2572."
    )
    @click.option("--to", "end", metavar="TIME", help="Only events before this time.")
    def ask(
        recording: Path, top: int | None, form: str, output: Path | None, source: bool, start: str | None, end: str | None,
        **options: Any,
    ) -> None:  # fmt: skip
        if source:
            click.echo(tool.read_source(), nl=False)
            return
        try:
            tool.variables(options)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        selection = Selection(start, end, (), (), (), ())
        answer = tool.answer(selection.of(open_recording(recording)), **options)
        for note in answer.notes:
            click.echo(f"fastrtp: {note}", err=True)
        _write(answer, form, top, output)

    for option in reversed(tool.options):
        kind: dict[str, Any] = {"is_flag": True} if option.kind is bool else {"type": option.kind, "metavar": option.name.upper()}
        ask = click.option(*option.flags, option.name, help=option.help, **kind)(ask)
    return click.command(tool.name, short_help=tool.summary, help=_help(tool))(ask)


def _help(tool: Tool) -> str:
    more = f" (better with {', '.join(tool.uses)})" if tool.uses else ""
    return f"{tool.summary}\n\nThe recording has to have the events {', '.join(tool.needs)}{more}."


def _write(answer: Answer, form: str, top: int | None, output: Path | None) -> None:
    rows = answer.rows()
    shown = rows[: top or None] if top is not None else rows
    if form == "arrow":
        _write_arrow(answer, shown, output)
        return
    if form == "json":
        from fastrtp.cli.render import to_json

        text = to_json({"tool": answer.tool.name, "unit": answer.unit, "rows": shown, "notes": answer.notes}) + "\n"
    elif form == "csv":
        from fastrtp.cli.verify_table import to_csv

        flat = [
            {name: " ".join(map(str, value)) if isinstance(value, list) else value for name, value in row.items()}
            for row in shown
        ]
        text = to_csv(flat, tuple(answer.columns))
    else:
        _print(answer, rows, _TOP if top is None else top, output)
        return
    if output is not None:
        output.write_text(text)
    else:
        click.echo(text, nl=False)


def _write_arrow(answer: Answer, rows: list[dict[str, Any]], output: Path | None) -> None:
    import pyarrow as pa

    table = pa.table({name: [row[name] for row in rows] for name in answer.columns})
    table = table.replace_schema_metadata({"tool": answer.tool.name, "unit": answer.unit})
    if output is None and sys.stdout.isatty():
        raise click.UsageError("arrow is no text: give -o FILE, or a pipe")
    sink = pa.OSFile(str(output), "wb") if output is not None else pa.PythonFile(sys.stdout.buffer)
    with sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _print(answer: Answer, rows: list[dict[str, Any]], top: int, output: Path | None) -> None:
    from rich.console import Console

    from fastrtp.cli.terminal import console

    if output is None:
        _print_to(console(), answer, rows, top)
        return
    with output.open("w") as file:
        _print_to(Console(file=file, width=200), answer, rows, top)


def _print_to(out: Any, answer: Answer, rows: list[dict[str, Any]], top: int) -> None:
    from fastrtp.cli.render import cell, log2_lines
    from fastrtp.cli.terminal import number, plain, seconds, table

    shown = rows[: top or None]
    out.print(answer.tool.summary, style="bold")
    if not rows:
        out.print("nothing", style="dim")
        return
    if _SLOTS in answer.columns and len(rows) == 1:
        row = rows[0]
        for line in log2_lines(row[_SLOTS], answer.unit):
            out.print(line)
        mean = seconds(row["total_ns"] / max(row["count"], 1) / 1e9)
        out.print(f"{number(row['count'])} times, {mean} on average, {seconds(row['longest_ns'] / 1e9)} at most", style="dim")
        return
    names = list(answer.columns)
    titles = [name.removesuffix("_ns").replace("_", " ") if name != _SLOTS else f"log2({answer.unit})" for name in names]
    numbers = tuple(title for title, name in zip(titles, names, strict=True) if all(
        isinstance(row[name], int | float) for row in rows))  # fmt: skip
    printed = table(*(plain(title) for title in titles), numbers=numbers)
    start = min((row["time_ns"] for row in rows), default=0) if "time_ns" in names else 0
    for row in shown:
        cells = []
        for name in names:
            value = row[name]
            if name == "time_ns":
                cells.append(f"{(value - start) / 1e9:.6f} s")
            elif name.endswith("_ns"):
                cells.append(seconds(value / 1e9) if value is not None else "")
            else:
                cells.append("" if value is None else cell(value))
        printed.add_row(*cells)
    out.print(printed)
    if len(shown) < len(rows):
        out.print(f"{len(rows) - len(shown):,} more: --top 0 shows all", style="dim")
