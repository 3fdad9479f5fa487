"""`fastrtp list`: the tracepoints that a kernel has, with their prototypes."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING

import click

from fastrtp.cli.terminal import plain
from fastrtp.errors import FastrtpError

if TYPE_CHECKING:
    from fastrtp.btf import Btf


@click.command("list", short_help="List tracepoints with their prototypes.")
@click.argument("pattern", default="*")
@click.option("--btf", metavar="host|PATH", help="The kernel's types, instead of those that the package ships.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--shims", is_flag=True, help="Instead, the sizes of the compiled cast shims (__bpf_trace_*).")
def list_command(pattern: str, btf: str | None, form: str, shims: bool) -> None:
    """List the tracepoints whose name matches PATTERN (as in the shell: 'sched_*'), with the arguments of their programs."""
    if shims:
        return _list_shims(btf, form)
    from fastrtp.btf import tracepoints

    types = kernel_types(btf)
    found = tracepoints(types)
    names = sorted(name for name in found if fnmatch.fnmatchcase(name, pattern))
    if form == "json":
        from fastrtp.cli.render import to_json

        rows = [
            {
                "name": name,
                "prototype": prototype(types, found[name].btf_id, name),
                "args": [
                    {"type": types.c_type(arg.type_id), "size": arg.size, "pointer": arg.is_pointer, "signed": arg.signed}
                    for arg in found[name].args
                ],
            }
            for name in names
        ]
        click.echo(to_json(rows))
    elif names:
        click.echo("\n".join(plain(prototype(types, found[name].btf_id, name)) for name in names))
    if not names:
        raise FastrtpError(f"no tracepoint matches {pattern!r}: the kernel has {len(found):,}")
    return None


def _list_shims(btf: str | None, form: str) -> None:
    """The cast shims by number of arguments: how many tracepoints they serve and how big they are."""
    from fastrtp.cli.terminal import console, need_native, number, table
    from fastrtp.kernel import Kernel

    need_native()
    with Kernel(btf) as kernel:
        report = kernel.shim_report()
    if form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json(report.as_dict()))
        return
    columns = ("arguments", "tracepoints", "shims", "bytes each", "bpf_trace_run")
    rows = table(*columns, numbers=columns)
    for count, (served, shims, smallest, largest) in report.by_arity().items():
        size = str(smallest) if smallest == largest else f"{smallest}-{largest}"
        rows.add_row(str(count), number(served), str(shims), size, str(report.runs.get(count, 0)))
    out = console()
    out.print(rows)
    out.print(report.summary(), soft_wrap=True)


def kernel_types(source: str | None) -> Btf:
    """The shipped BTF, the host's ("host"), or a file's."""
    from fastrtp.btf import default_btf, host_btf, load_btf

    if source is None:
        return default_btf()
    return host_btf() if source == "host" else load_btf(source)


def prototype(types: Btf, btf_id: int, name: str) -> str:
    """C prototype of a tracepoint's probe, without the probe's own data argument: `void sched_switch(bool, ...)`."""
    text = types.c_proto(btf_id, name)
    head, paren, arguments = text.partition("(")
    _data, comma, rest = arguments.partition(", ")
    return f"{head}{paren}{rest if comma else 'void)'}".removesuffix(";")
