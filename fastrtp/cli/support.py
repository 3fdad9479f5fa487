"""`fastrtp support`: what of Linux 6.18 there is, and where its values come from in a replay; SUPPORT.md is its output."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from typing import NamedTuple

import click


class Row(NamedTuple):
    """`group`: what the thing is; `support`: "yes", "refused" (as by Linux), or "no"; `note`: its source, or the reason."""

    group: str
    name: str
    support: str
    note: str


_PROGRAMS = {
    "raw_tp": "the tracepoint's arguments, made from the record by recipes",
    "raw_tp.w": "the same, and a buffer that it may write to",
    "tp_btf": "the same, typed by BTF",
    "tp": "the record itself, moved by field name where the loaded kernel has fields elsewhere",
}
_MAPS = {
    "ARENA": "no memory that programs and processes share",
    "STRUCT_OPS": "nothing in the kernel is replaced by programs",
    "CGROUP_STORAGE": "for programs of cgroups",
    "PERCPU_CGROUP_STORAGE": "for programs of cgroups",
}
_EMPTY = frozenset({
    "DEVMAP", "DEVMAP_HASH", "CPUMAP", "XSKMAP", "SOCKMAP", "SOCKHASH", "REUSEPORT_SOCKARRAY", "CGROUP_ARRAY", "INODE_STORAGE",
})  # fmt: skip
"""Of things that there are none of here."""
_TITLES = {
    "program type": "Programs",
    "map type": "Maps",
    "helper": "Helpers",
    "kernel function": "Kernel functions",
}
_HEAD = """# What of Linux 6.18 there is

Written by `fastrtp support --format markdown` from the tables that the code itself goes by. `refused`: by Linux, too, for these
program types. "By name" means that `fastrtp check` names it before a run, and the report after it.
"""


def rows() -> Iterator[Row]:
    """Everything, in the order of the document."""
    yield from (Row("program type", name, "yes", note) for name, note in _PROGRAMS.items())
    yield from _map_rows()
    yield from _helper_rows()
    yield from _kfunc_rows()


def _map_rows() -> Iterator[Row]:
    from fastrtp.maps import MAP_OPS
    from fastrtp.uapi import BpfMapType

    for kind in BpfMapType:
        name = kind.name.removeprefix("BPF_MAP_TYPE_").removesuffix("_DEPRECATED")
        if kind == BpfMapType.BPF_MAP_TYPE_UNSPEC:
            continue
        ops = MAP_OPS.get(kind)
        if ops is None:
            yield Row("map type", name, "no", _MAPS[name])
        else:
            yield Row("map type", name, "yes", "can be made, and stays empty" if name in _EMPTY else "what is put into it")


def _helper_rows() -> Iterator[Row]:
    from fastrtp.helpers.sources import HELPER_SOURCES
    from fastrtp.helpers.table import HELPERS

    for proto in HELPERS.values():
        if proto.never:
            yield Row("helper", f"bpf_{proto.name}", "refused", proto.never)
        elif proto.proto:
            yield Row("helper", f"bpf_{proto.name}", "yes", HELPER_SOURCES[proto.name])


def _kfunc_rows() -> Iterator[Row]:
    from fastrtp.btf.kfuncs import BODIES, EVERY
    from fastrtp.helpers.sources import KFUNC_SOURCES

    for name, proto in sorted(EVERY.items()):
        if proto.why:
            yield Row("kernel function", name, "no", proto.why)
            continue
        if name not in BODIES and not name.startswith("bpf_iter_num_"):
            why = "for programs that may sleep" if proto.sleepable else "every call"
            yield Row("kernel function", name, "refused", why)
            continue
        yield Row(
            "kernel function", name, "yes", next(text for pattern, text in KFUNC_SOURCES if fnmatch.fnmatchcase(name, pattern))
        )


def markdown() -> str:
    """SUPPORT.md."""
    lines = [_HEAD]
    every = list(rows())
    for group, title in _TITLES.items():
        mine = [row for row in every if row.group == group]
        counts = {kind: sum(row.support == kind for row in mine) for kind in ("yes", "refused", "no")}
        told = [f"{counts['yes']} of {len(mine)} are there"]
        told += [
            f"{counts[kind]} are {what}"
            for kind, what in (("refused", "refused as by Linux"), ("no", "not there"))
            if counts[kind]
        ]
        lines += [
            f"## {title}\n",
            f"{', '.join(told)}.\n",
            "| name | | where its values come from, or why not |",
            "|---|---|---|",
        ]
        lines += [f"| `{row.name}` | {row.support} | {row.note} |" for row in mine]
        lines.append("")
    return "\n".join(lines)


@click.command("support", short_help="Say which maps, helpers and kernel functions there are.")
@click.argument("pattern", default="*")
@click.option("--format", "form", type=click.Choice(["table", "json", "markdown"]), default="table", show_default=True)
def support_command(pattern: str, form: str) -> None:
    """Say of what matches PATTERN (as in the shell: 'bpf_dynptr*') whether it is there, and where its values come from."""
    from fastrtp.errors import FastrtpError

    found = [row for row in rows() if fnmatch.fnmatchcase(row.name, pattern)]
    if form == "markdown":
        click.echo(markdown(), nl=False)
    elif form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json([row._asdict() for row in found]))
    else:
        width = max((len(row.name) for row in found), default=0)
        for row in found:
            click.echo(f"{row.group:<15}  {row.name:<{width}}  {row.support:<7}  {row.note}".rstrip())
    if not found:
        raise FastrtpError(f"nothing matches {pattern!r}")
