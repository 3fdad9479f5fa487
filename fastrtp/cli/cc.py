"""`fastrtp cc`: C source to a BPF object, with the headers that the package brings."""

from __future__ import annotations

from pathlib import Path

import click

from fastrtp.cli.tracepoints import kernel_types


@click.command("cc", short_help="Compile C source to a BPF object.")
@click.argument("sources", nargs=-1, metavar="SOURCE...", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write to this file. [default: beside each source]")
@click.option("--include", "-I", multiple=True, metavar="DIR", help="Look for headers there, too: before those of the package.")
@click.option("--define", "-D", multiple=True, metavar="NAME[=VALUE]", help="Define a macro.")
@click.option("--flag", "-f", "flags", multiple=True, metavar="FLAG", help="Give the compiler this flag: -f -mcpu=v1.")
@click.option("--btf", metavar="host|PATH", help="The types of vmlinux.h, instead of those that the package ships.")
@click.option(
    "--headers",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write all headers there (vmlinux.h, bpf/*.h), for a compiler that is run by other means.",
)
def cc_command(
    sources: tuple[Path, ...], output: Path | None, include: tuple[str, ...], define: tuple[str, ...], flags: tuple[str, ...],
    btf: str | None, headers: Path | None,
) -> None:  # fmt: skip
    """Compile each SOURCE (of a folder: its *.bpf.c) to a BPF object.

    vmlinux.h, bpf/bpf_helpers.h, bpf/bpf_core_read.h, bpf/bpf_tracing.h and bpf/bpf_endian.h come with the package. The compiler
    is a clang of the system that has the BPF target, or else the one of the ziglang package (pip install 'fastrtp[cc]'). A source
    may say what else it wants in a line `// build: -flags`. Commands that take an object take such a source, too.
    """
    if not sources and headers is None:
        raise click.UsageError("give a source, a folder of them, or --headers DIR")
    from fastrtp.cc import compile_source, write_headers

    files = [file for path in sources for file in (sorted(path.glob("*.bpf.c")) if path.is_dir() else [path])]
    if output is not None and len(files) != 1:
        raise click.UsageError(f"-o is for one source, and there are {len(files)}")
    types = kernel_types(btf)
    if headers is not None:
        headers.mkdir(parents=True, exist_ok=True)
        write_headers(headers, types)
        click.echo(f"{headers}: vmlinux.h, bpf/*.h, linux/bpf.h")
    for file in files:
        found = compile_source(file, types, include=include, flags=[*(f"-D{name}" for name in define), *flags])
        if found.diagnostics:
            click.echo(found.diagnostics, err=True)
        target = output if output is not None else file.with_suffix(".o")
        target.write_bytes(found.data)
        click.echo(f"{target}: {len(found.data)} bytes")
