"""`fastrtp check`: before a run, how well a recording knows what the programs of an object can read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.objects import read_spec
from fastrtp.cli.recordings import open_recording
from fastrtp.cli.replay import explained, make_kernel, types_of
from fastrtp.cli.selection import Selection, selection_options
from fastrtp.cli.setup import Setup, setup_options
from fastrtp.cli.terminal import console, number, plain, table
from fastrtp.errors import BpfError, ObjectError, ReplayError

if TYPE_CHECKING:
    from fastrtp.kernel.loader.object import BpfObject
    from fastrtp.replay.fidelity import ProgramFidelity
    from fastrtp.replay.recorded_kernel import KernelMatch

MISSING = 1
"""Exit status under --missing strict when a program can read what is not in the recording."""
_STYLES = {"exact": "green", "derived": "", "context": "yellow", "missing": "bold red"}


@click.command("check", short_help="Say what of a recording is exact for the programs of an object.")
@click.argument("obj", metavar="OBJ", type=click.Path(path_type=Path))
@click.argument("recording", type=click.Path(path_type=Path))
@click.option(
    "--missing",
    type=click.Choice(["zero", "fault", "strict"]),
    default="zero",
    show_default=True,
    help="The policy of the replay to come; strict: exit status 1 when anything is missing.",
)
@click.option("--instance", metavar="NAME", help="One of the recording's trace instances, '' the top one.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--btf", metavar="host|PATH", help="The kernel's types, instead of those that the package ships.")
@setup_options
@selection_options
def check_command(
    obj: Path, recording: Path, missing: Any, instance: str | None, form: str, btf: str | None, setup: Setup,
    selection: Selection,
) -> int:  # fmt: skip
    """Say what a replay of RECORDING would give the programs of OBJ, without running them.

    For each program: how many events its tracepoint has in the recording, and for each argument, member or other thing that
    it can read whether that is exact (recorded with this very event), derived (and by which rule), from context (told by
    other events), or missing, and what is read then.
    """
    data, _spec = read_spec(obj, lambda: types_of(btf, recording))
    opened = selection.of(open_recording(recording, instance))
    kernel = make_kernel(btf, opened, version=setup.version)
    try:
        from fastrtp.replay import check
        from fastrtp.replay.recorded_kernel import match

        loaded = setup.load(kernel, data, obj.name, strict=False)
        if not any(program.auto_attachable for program in loaded.programs.values()):
            reasons = "; ".join(f"{name}: {why}" for name, why in loaded.skipped.items())
            raise ReplayError(f"{loaded.name} has no program that names its tracepoint{f' ({reasons})' if reasons else ''}")
        found = check(kernel, opened, loaded.programs.values(), missing=missing)
        _show(loaded, found, match(kernel, opened), form)
    except (ObjectError, BpfError, ReplayError):
        explained(kernel, opened)
        raise
    finally:
        kernel.shutdown()
    return MISSING if missing == "strict" and any(one.missing for one in found) else 0


def _show(loaded: BpfObject, found: list[ProgramFidelity], kernels: KernelMatch, form: str) -> None:
    if form == "json":
        from fastrtp.cli.render import to_json

        programs = [
            {
                "program": one.program,
                "tracepoint": one.tracepoint,
                "events": one.events,
                "reads": [row.as_dict() for row in one.rows],
            }
            for one in found
        ]
        click.echo(
            to_json({"object": loaded.name, "skipped": dict(loaded.skipped), "kernels": kernels.as_dict(), "programs": programs})
        )
        return
    from rich.text import Text

    out = console()
    for line in kernels.notes():
        out.print(plain(line), soft_wrap=True)
    for one in found:
        events = f"{number(one.events)} events" if one.events else "does not occur in the recording"
        out.print(f"{plain(one.program)}  {plain(one.tracepoint)}: {events}", style="bold", soft_wrap=True)
        if one.rows:
            rows = table("reads", "is", "from", "reads as")
            for row in one.rows:
                rows.add_row(plain(row.what), Text(row.status, _STYLES[row.status]), plain(row.why), plain(row.policy))
            out.print(rows)
        elif one.events:
            out.print("  reads nothing of its events")
        out.print()
    for name, why in loaded.skipped.items():
        out.print(f"not loaded: {plain(name)}: {plain(why)}", soft_wrap=True)
