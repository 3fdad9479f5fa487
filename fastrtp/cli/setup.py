"""Options that set an object up between open and load, the same for every command that loads one.

`--set NAME=VALUE`, `--max-entries MAP=N`, `--program NAME`, `--kconfig FILE`, `--kernel-version`; and which of two twins is
taken: tools that carry a tp_btf and a raw_tp program for the same work load one of them, and so do the commands.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.errors import UnknownNameError

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.kernel.loader.object import BpfObject
    from fastrtp.kernel.loader.object_program import ObjectProgram
    from fastrtp.kernel.process import Process


@dataclass(frozen=True)
class Setup:
    """What the command was told. `variables`, `entries`: (name, value) in the order of the command line."""

    variables: tuple[tuple[str, str], ...] = ()
    entries: tuple[tuple[str, int], ...] = ()
    programs: tuple[str, ...] = ()
    kconfig: Path | None = None
    version: str | None = None
    notes: list[str] = field(default_factory=list)
    """What was decided for the user, in a line each."""

    def __bool__(self) -> bool:
        return bool(self.variables or self.entries or self.programs or self.kconfig is not None)

    def open(self, kernel: Kernel | Process, data: bytes, name: str) -> BpfObject:
        """An object, set up. ObjectError, UnknownNameError."""
        from fastrtp.kernel.loader.load import open_object
        from fastrtp.kernel.loader.variables import set_text

        process: Any = getattr(kernel, "current", kernel)
        obj = open_object(process, data, name=name, kconfig=self.kconfig)
        sections = obj.sections
        for path, text in self.variables:
            set_text(sections, path, text)
        for map_name, count in self.entries:
            if map_name not in obj.maps:
                raise UnknownNameError(f"no map {map_name!r}, there are: {', '.join(obj.maps) or 'none'}")
            obj.maps[map_name].max_entries = count
        if self.programs:
            obj.select(self.programs)
        return obj

    def load(self, kernel: Kernel, data: bytes, name: str, *, strict: bool = True, twins: bool = True) -> BpfObject:
        """An object, set up and loaded. `twins`: of those take the tp_btf ones, unless programs were chosen by name."""
        obj = self.open(kernel, data, name)
        if twins and not self.programs:
            self.notes.extend(drop_twins(obj))
        return obj.load(strict=strict)


def drop_twins(obj: BpfObject) -> list[str]:
    """Of programs that attach to one tracepoint and write to the same maps, take those by BTF; the lines that say so.

    Attached both, each event would be counted twice.
    """
    from fastrtp.uapi import BpfProgType

    wanted = [program for program in obj.programs.values() if program.autoload and program.attach_to]
    by_btf: dict[str, list[ObjectProgram]] = {}
    for program in wanted:
        if program.type == BpfProgType.BPF_PROG_TYPE_TRACING:
            by_btf.setdefault(program.attach_to, []).append(program)
    lines = []
    for program in wanted:
        if program.type != BpfProgType.BPF_PROG_TYPE_RAW_TRACEPOINT:
            continue
        maps = _maps(obj, program)
        twin = next((other for other in by_btf.get(program.attach_to, ()) if maps & _maps(obj, other)), None)
        if twin is not None:
            program.autoload = False
            lines.append(
                f"{program.name} is the raw_tp twin of {twin.name} (tp_btf) on {program.attach_to}: taken is {twin.name}; "
                "--program chooses"
            )
    return lines


def _maps(obj: BpfObject, program: ObjectProgram) -> set[str]:
    """Maps that a program may write to."""
    return {ref.map_name for ref in program.spec.map_refs if not obj.maps[ref.map_name].spec.frozen}


def setup_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; its parameter `setup` is what they say."""

    @functools.wraps(command)
    def with_setup(
        variables: tuple[str, ...], entries: tuple[str, ...], programs: tuple[str, ...], kconfig: Path | None,
        version: str | None, **rest: Any,
    ) -> Any:  # fmt: skip
        return command(setup=made(variables, entries, programs, kconfig, version), **rest)

    for option in reversed(OPTIONS):
        with_setup = option(with_setup)
    return with_setup


def setup_params(command: Callable[..., Any]) -> list[click.Parameter]:
    """The options that `setup_options` gave, for a command that is made without decorators."""
    return list(reversed(getattr(command, "__click_params__", [])))


def made(
    variables: tuple[str, ...], entries: tuple[str, ...], programs: tuple[str, ...], kconfig: Path | None, version: str | None
) -> Setup:
    """The options as they are given. UsageError."""
    counts = tuple((name, _count(name, text)) for name, text in (_pair("--max-entries", "MAP=N", one) for one in entries))
    pairs = tuple(_pair("--set", "NAME=VALUE", one) for one in variables)
    if version is not None:
        from fastrtp.kernel.version import version_code

        try:
            version_code(version)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    return Setup(pairs, counts, programs, kconfig, version)


OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option(
        "--set", "variables", multiple=True, metavar="NAME=VALUE",
        help="Set a global variable before the object is loaded: targ_pid=5, filter.comm=bash, cpus[1]=2, bss.hits=0.",
    ),
    click.option(
        "--max-entries", "entries", multiple=True, metavar="MAP=N", help="How many elements a map has room for; bytes of a ring."
    ),
    click.option(
        "--program", "programs", multiple=True, metavar="NAME", help="Load only this program, or all that a pattern (on_*) fits."
    ),
    click.option(
        "--kconfig", type=click.Path(path_type=Path), metavar="FILE",
        help="The kernel's configuration, for options that programs read (CONFIG_HZ): a .config, plain, gzip or zstd.",
    ),
    click.option("--kernel-version", "version", metavar="6.1.192", help="What programs read as LINUX_KERNEL_VERSION."),
)  # fmt: skip


def _pair(option: str, form: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise click.UsageError(f"{option} takes {form}, not {text!r}")
    return name, value


def _count(name: str, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise click.UsageError(f"--max-entries {name}={text}: {text!r} is no number") from None
