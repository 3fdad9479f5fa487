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
def list_command(pattern: str, btf: str | None, form: str) -> None:
    """List the tracepoints whose name matches PATTERN (as in the shell: 'sched_*'), with the arguments of their programs."""
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
