"""`fastrtp dump`: a program's instructions, its LLVM IR, or the native code made from it."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastrtp.cli.objects import check_programs, read_spec, tell_skipped
from fastrtp.cli.setup import Setup, setup_options
from fastrtp.cli.terminal import need_native
from fastrtp.cli.tracepoints import kernel_types
from fastrtp.errors import ObjectError

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.obj import ObjectSpec


@click.command("dump", short_help="Print a program: instructions, LLVM IR, native code.")
@click.argument("obj", metavar="OBJ", type=click.Path(path_type=Path))
@click.argument("prog", required=False)
@click.option(
    "--what",
    type=click.Choice(["insns", "llvm", "native"]),
    default="insns",
    show_default=True,
    help="insns: BPF instructions, relocated; llvm: optimised IR, helpers inlined; native: this machine's assembly.",
)
@click.option("--btf", metavar="host|PATH", help="The kernel's types, instead of those that the package ships.")
@setup_options
def dump_command(obj: Path, prog: str | None, what: str, btf: str | None, setup: Setup) -> None:
    """Print PROG of OBJ, or all its programs; what cannot run here is named on standard error."""
    data, spec = read_spec(obj, lambda: kernel_types(btf))
    check_programs(spec, obj, [prog] if prog is not None else [])
    names = [prog] if prog is not None else list(spec.programs)
    if setup.programs:
        names = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in setup.programs)]
    if not names:
        reasons = "; ".join(f"{name}: {why}" for name, why in spec.skipped.items())
        raise ObjectError(f"{obj}: no programs{f' that can run here ({reasons})' if reasons else ''}")
    if prog is None and not setup.programs:
        tell_skipped(spec.skipped, "not printed")
    if what == "insns":
        types = kernel_types(btf)
        for name in names:
            click.echo("\n".join([f"{name}: ; {spec.programs[name].section}", *_insns(spec, name, types)]))
        return
    from fastrtp.kernel import Kernel

    need_native()
    with Kernel(btf, version=setup.version) as kernel, setup.open(kernel, data, obj.name) as loaded:
        loaded.select(names)
        loaded.load()
        for name in names:
            program = loaded.programs[name]
            click.echo(f"; {name} {program.spec.section}" if what == "llvm" else f"# {name} {program.spec.section}")
            click.echo(program.ir() if what == "llvm" else program.assembly())


def _insns(spec: ObjectSpec, name: str, types: Btf) -> list[str]:
    """Lines of the disassembly: functions by name, maps that are loaded named behind the instruction."""
    from fastrtp.isa import dump

    program = spec.programs[name]
    maps = {ref.insn_idx: ref for ref in program.map_refs}
    functions = {start: function for start, function in program.subprogs if start}
    lines = []
    for line in dump(spec.relocated(program, types)):
        index = int(line.partition(":")[0])
        if index in functions:
            lines.append(f"{functions[index]}:")
        ref = maps.get(index)
        offset = "" if ref is None or ref.value_offset is None else f"+{ref.value_offset}"
        lines.append(line if ref is None else f"{line}  ; map {ref.map_name}{offset}")
    return lines
