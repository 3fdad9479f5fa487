"""`fastrtp verify`: what the verifier says of each program of one or several objects."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from fastrtp.cli import verify_table
from fastrtp.cli.objects import check_programs, read_spec
from fastrtp.cli.setup import Setup, setup_options
from fastrtp.cli.terminal import console, need_native, plain
from fastrtp.cli.tracepoints import kernel_types
from fastrtp.cli.verify_effects import effect_rows, print_effects
from fastrtp.errors import BpfError, ObjectError

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.objects.prog import BpfProg
    from fastrtp.kernel.process import Process
    from fastrtp.obj import ObjectSpec, ProgramSpec
    from fastrtp.verifier import VerifiedProgram
    from fastrtp.verifier.report.report import Report

STATUS_REJECTED = 1
NOT_VERIFIED = "not verified"


@dataclass
class Verdict:
    """One program's: "accepted", "rejected", or NOT_VERIFIED for one of a kind that cannot run here.

    Without a number: the verifier did not come so far, or says none of a program that it rejects.
    `effects`: what it does to each map; `ordered`: why the order of CPUs' events matters to what it leaves behind, if it does.
    """

    file: str
    program: str
    section: str
    verdict: str
    insns: int | None
    processed: int | None = None
    states: int | None = None
    peak_states: int | None = None
    time_ns: int | None = None
    errno: int = 0
    message: str = ""
    log: str = ""
    report: Report | None = None
    effects: list[dict[str, Any]] | None = None
    ordered: list[str] | None = None


class _Logged:
    """A process whose PROG_LOADs ask for a log, and which remembers what was verified; everything else is the process's own."""

    def __init__(self, process: Process, level: int) -> None:
        self._inner = process
        self._level = level
        self.verified: VerifiedProgram | None = None
        self.prog: BpfProg | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def prog_load(self, *args: Any, **fields: Any) -> int:
        """PROG_LOAD at the level."""
        fd = self._inner.prog_load(*args, **fields | {"log_level": self._level})
        self.prog = self._inner.files.fget(fd).private_data
        self.verified = self.prog.verified
        return fd


@click.command("verify", short_help="Say what the verifier thinks of each program.")
@click.argument("objects", metavar="OBJ... [PROG]...", nargs=-1, required=True)
@click.option(
    "--log-level",
    type=click.IntRange(0, 2),
    default=0,
    show_default=True,
    help="Print the verifier's log: 1 the path that failed, 2 every state.",
)
@click.option("--btf", metavar="host|PATH", help="The kernel's types, instead of those that the package ships.")
@click.option("--sort", metavar="[-]COLUMN", default="", help="Order of the rows; with - the largest first.")
@click.option(
    "--filter",
    "filters",
    metavar="TEST",
    multiple=True,
    help="Only rows with e.g. processed>1000, verdict=rejected, file=a*, or a program's name like on_*.",
)
@click.option(
    "--compare",
    metavar="OLD.json",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Show the differences to an earlier run's --format json.",
)
@click.option(
    "--effects",
    is_flag=True,
    help="Say what each program does to maps, and whether that commutes between CPUs: what --cpus of replay asks.",
)
@click.option("--format", "form", type=click.Choice(["table", "json", "csv"]), default="table", show_default=True)
@setup_options
def verify_command(
    objects: tuple[str, ...], log_level: int, btf: str | None, sort: str, filters: tuple[str, ...], compare: Path | None,
    effects: bool, form: str, setup: Setup,
) -> int:  # fmt: skip
    """Verify the programs of each OBJ, or only those named PROG. Exit status 1 unless all of them are accepted: also when one
    is of a kind that cannot run here, and was not verified.

    An argument is a program's name when it is no path and there is no file of that name.
    """
    from fastrtp.kernel import Kernel

    verify_table.ordered([], sort)
    verify_table.keep([], filters)
    old = verify_table.read_rows(compare) if compare is not None else []
    paths, programs = _split(objects)
    specs = [(path, *read_spec(path, lambda: kernel_types(btf))) for path in paths]
    wanted = _wanted(specs, [*programs, *_named(specs, setup.programs)])
    need_native()
    with Kernel(btf, version=setup.version) as kernel:
        verdicts = [
            _verify(kernel, data, path.name, spec.programs[name], log_level, effects, setup) for path, data, spec, name in wanted
        ]
    if not (programs or setup.programs):
        verdicts += [
            Verdict(path.name, name, "", NOT_VERIFIED, None, message=why)
            for path, _, spec in specs
            for name, why in spec.skipped.items()
        ]
    rows = [asdict(verdict) for verdict in verdicts]
    shown = verify_table.ordered(verify_table.keep(rows, filters), sort)
    if compare is not None:
        _print_comparison(verify_table.compared(verify_table.keep(old, filters), shown), form)
    elif form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json({"objects": [path.name for path in paths], "programs": shown}))
    elif form == "csv":
        click.echo(verify_table.to_csv(shown, (*verify_table.COLUMNS, "errno", "message")), nl=False)
    else:
        kept = {id(row): verdict for row, verdict in zip(rows, verdicts, strict=True)}
        _print(shown, [kept[id(row)] for row in shown], log_level, len(paths) > 1)
        if effects:
            print_effects(console(), [kept[id(row)] for row in shown])
    return 0 if all(row.verdict == "accepted" for row in verdicts) else STATUS_REJECTED


def _split(arguments: tuple[str, ...]) -> tuple[list[Path], list[str]]:
    """Paths, and programs' names. The first is a path."""
    paths, programs = [Path(arguments[0])], []
    for text in arguments[1:]:
        if "/" in text or text.endswith((".o", ".c")) or Path(text).is_file():
            paths.append(Path(text))
        else:
            programs.append(text)
    return paths, programs


def _named(specs: list[tuple[Path, bytes, ObjectSpec]], patterns: Sequence[str]) -> list[str]:
    """The programs that patterns name. ObjectError for a pattern that names none."""
    out = []
    for pattern in patterns:
        found = [name for _, _, spec in specs for name in fnmatch.filter(spec.programs, pattern)]
        if not found:
            raise ObjectError(f"no program {pattern!r} in any of the {len(specs)} objects")
        out += found
    return out


def _wanted(specs: list[tuple[Path, bytes, ObjectSpec]], programs: list[str]) -> list[tuple[Path, bytes, ObjectSpec, str]]:
    """What is to be verified. ObjectError for a name that no object has, and for an object without programs."""
    for spec, path in ((spec, path) for path, _, spec in specs):
        if not spec.programs and not spec.skipped:
            raise ObjectError(f"{path}: no programs")
    if len(specs) == 1:
        check_programs(specs[0][2], specs[0][0], programs)
    for name in programs:
        if not any(name in spec.programs for _, _, spec in specs):
            raise ObjectError(f"no program {name!r} in any of the {len(specs)} objects")
    return [(*one, name) for one in specs for name in one[2].programs if not programs or name in programs]


def _print_comparison(rows: list[dict[str, Any]], form: str) -> None:
    if form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json({"programs": rows}))
    elif form == "csv":
        click.echo(verify_table.to_csv(rows, verify_table.COMPARISON_COLUMNS), nl=False)
    else:
        console().print(verify_table.comparison_table(rows))


def _verify(
    kernel: Kernel, data: bytes, name: str, spec: ProgramSpec, log_level: int, effects: bool, setup: Setup
) -> Verdict:  # fmt: skip
    """Load the object with this program alone. BpfError for what fails before the program is looked at: its maps, its BTF."""
    process = _Logged(kernel.current, max(log_level, 1))  # the report of a rejection is made from the log
    verdict = Verdict(name, spec.name, spec.section, "rejected", len(spec.insns))
    try:
        obj = setup.open(cast("Process", process), data, name)
        for program in obj.programs.values():
            program.autoload = program.name == spec.name
        obj.load().close()
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
        if effects and process.prog is not None:
            verdict.effects, verdict.ordered = effect_rows(process.prog)
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


def _print(rows: list[verify_table.Row], verdicts: list[Verdict], log_level: int, with_file: bool) -> None:
    out = console()
    if log_level:
        for row in (row for row in verdicts if row.verdict != NOT_VERIFIED):
            out.print(f"{plain(row.program)}: {row.verdict}", style="bold")
            click.echo("\n".join(plain(line) for line in row.log.splitlines()))
            click.echo()
    out.print(verify_table.verdict_table(rows, with_file))
    for row in verdicts:
        if row.report is not None and row.report.message in row.message:
            out.print(f"{plain(row.program)}:", style="bold")
            click.echo("\n".join(plain(line) for line in str(row.report).splitlines()))
        elif row.message:
            what = f"{NOT_VERIFIED}: " if row.verdict == NOT_VERIFIED else ""
            out.print(f"{plain(row.program)}: {what}{plain(row.message)}", soft_wrap=True)
