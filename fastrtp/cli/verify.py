"""`fastrtp verify`: what the verifier says of each program of an object."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from fastrtp.cli.objects import check_programs, read_spec
from fastrtp.cli.terminal import console, need_native, number, plain, seconds, table
from fastrtp.errors import BpfError, ObjectError

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.process import Process
    from fastrtp.obj import ProgramSpec
    from fastrtp.verifier import VerifiedProgram
    from fastrtp.verifier.report import Report

STATUS_REJECTED = 1


@dataclass
class Verdict:
    """One program's. Without a number: the verifier did not come so far, or says none of a program that it rejects."""

    program: str
    section: str
    verdict: str
    insns: int
    processed: int | None = None
    states: int | None = None
    peak_states: int | None = None
    time_ns: int | None = None
    errno: int = 0
    message: str = ""
    log: str = ""
    report: Report | None = None


class _Logged:
    """A process whose PROG_LOADs ask for a log, and which remembers what was verified; everything else is the process's own."""

    def __init__(self, process: Process, level: int) -> None:
        self._inner = process
        self._level = level
        self.verified: VerifiedProgram | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def prog_load(self, *args: Any, **fields: Any) -> int:
        """PROG_LOAD at the level."""
        fd = self._inner.prog_load(*args, **fields | {"log_level": self._level})
        self.verified = self._inner.files.fget(fd).private_data.verified
        return fd


@click.command("verify", short_help="Say what the verifier thinks of each program.")
@click.argument("obj", metavar="OBJ", type=click.Path(path_type=Path))
@click.argument("programs", metavar="[PROG]...", nargs=-1)
@click.option("--log-level", type=click.IntRange(0, 2), default=0, show_default=True,
              help="Print the verifier's log: 1 the path that failed, 2 every state.")
@click.option("--btf", metavar="host|PATH", help="The kernel's types, instead of those that the package ships.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def verify_command(obj: Path, programs: tuple[str, ...], log_level: int, btf: str | None, form: str) -> int:
    """Verify the programs of OBJ, or only those named. Exit status 1 when one is rejected."""
    from fastrtp.kernel import Kernel

    data, spec = read_spec(obj)
    check_programs(spec, obj, programs)
    need_native()
    with Kernel(btf) as kernel:
        verdicts = [_verify(kernel, data, obj.name, spec.programs[name], log_level) for name in programs or spec.programs]
    if form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json({"object": obj.name, "programs": [asdict(row) for row in verdicts], "skipped": spec.skipped}))
    else:
        _print(verdicts, spec.skipped if not programs else {}, log_level)
    return STATUS_REJECTED if any(row.verdict == "rejected" for row in verdicts) else 0


def _verify(kernel: Kernel, data: bytes, name: str, spec: ProgramSpec, log_level: int) -> Verdict:
    """Load the object with this program alone. BpfError for what fails before the program is looked at: its maps, its BTF."""
    from fastrtp.kernel.loader import load

    process = _Logged(kernel.current, max(log_level, 1))  # the report of a rejection is made from the log
    verdict = Verdict(spec.name, spec.section, "rejected", len(spec.insns))
    try:
        load(cast("Process", process), data, name=name, autoload={spec.name}).close()
    except BpfError as error:
        if process.verified is None and not str(error.strerror).startswith("load program"):
            raise
        verdict.errno, verdict.message, verdict.log = error.errno or 0, _reason(str(error.strerror), spec.name), error.log
        verdict.processed, verdict.report = _processed(error.log), getattr(error, "report", None)
    except ObjectError as error:  # a tail-call table may name programs that are not loaded now
        if process.verified is None:
            verdict.message = str(error)
    if process.verified is not None:
        stats = process.verified.stats
        verdict.verdict, verdict.errno, verdict.message, verdict.log = "accepted", 0, "", process.verified.log
        verdict.processed, verdict.states = stats.insn_processed, stats.total_states
        verdict.peak_states, verdict.time_ns = stats.peak_states, stats.time_ns
    if not log_level:
        verdict.log = ""
    return verdict


def _reason(text: str, program: str) -> str:
    return text.removeprefix(f"load program {program}: ")


def _processed(log: str) -> int | None:
    """Instructions processed, out of the log's last line."""
    for line in reversed(log.splitlines()):
        words = line.split()
        if words[:1] == ["processed"] and len(words) > 1 and words[1].isdigit():
            return int(words[1])
    return None


def _print(verdicts: list[Verdict], skipped: dict[str, str], log_level: int) -> None:
    out = console()
    if log_level:
        for row in verdicts:
            out.print(f"{plain(row.program)}: {row.verdict}", style="bold")
            click.echo("\n".join(plain(line) for line in row.log.splitlines()))
            click.echo()
    columns = ("program", "section", "verdict", "insns", "processed", "states", "peak", "time")
    rows = table(*columns, numbers=columns[3:])
    for row in verdicts:
        style = "red" if row.verdict == "rejected" else ""
        numbers = (row.insns, row.processed, row.states, row.peak_states)
        took = "" if row.time_ns is None else seconds(row.time_ns / 1e9)
        rows.add_row(plain(row.program), plain(row.section), row.verdict,
                     *("" if value is None else number(value) for value in numbers), took, style=style)  # fmt: skip
    out.print(rows)
    for row in verdicts:
        if row.report is not None and row.report.message in row.message:
            out.print(f"{plain(row.program)}:", style="bold")
            click.echo("\n".join(plain(line) for line in str(row.report).splitlines()))
        elif row.message:
            out.print(f"{plain(row.program)}: {plain(row.message)}", soft_wrap=True)
    for name, why in skipped.items():
        out.print(f"{plain(name)}: not verified: {plain(why)}", style="dim", soft_wrap=True)
