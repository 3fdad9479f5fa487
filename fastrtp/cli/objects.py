"""Object files as commands take them: errors name the file, programs and maps are asked for by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastrtp.cli.terminal import plain
from fastrtp.errors import ObjectError

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.obj import ObjectSpec


def read_spec(path: Path, types: Callable[[], Btf] | None = None) -> tuple[bytes, ObjectSpec]:
    """An object file's bytes, and what it says; C source is compiled, with `types` (None: the shipped ones) as its vmlinux.h.

    What the compiler remarks goes to standard error. OSError; ObjectError with the path in front; CompilerError.
    """
    from fastrtp.obj import ObjectSpec

    data = compiled(path, types) if path.name.endswith(".c") else path.read_bytes()
    try:
        return data, ObjectSpec.parse(data, path.name)
    except ObjectError as error:
        raise ObjectError(f"{path}: {error}") from error


def compiled(path: Path, types: Callable[[], Btf] | None = None) -> bytes:
    """The object that a source is compiled to. OSError, CompilerError."""
    from fastrtp.cc import compile_source

    found = compile_source(path, types() if types is not None else None)
    if found.diagnostics:
        click.echo(found.diagnostics, err=True)
    return found.data


def check_programs(spec: ObjectSpec, path: Path, programs: Iterable[str]) -> None:
    """ObjectError for a program that the object has not, or that is of a kind that cannot run here."""
    for name in programs:
        if name in spec.skipped:
            raise ObjectError(f"{path}: no program {name!r}: {spec.skipped[name]}")
        if name not in spec.programs:
            raise ObjectError(f"{path}: no program {name!r}, there are: {', '.join(spec.programs) or 'none'}")


def tell_skipped(skipped: Mapping[str, str], what: str) -> None:
    """Name on standard error each program that a command leaves out ("not printed"), and why."""
    for name, why in skipped.items():
        click.echo(f"fastrtp: {plain(name)}: {what}: {plain(why)}", err=True)


def check_maps(spec: ObjectSpec, path: Path, maps: Iterable[str]) -> None:
    """ObjectError for a map that the object has not."""
    for name in maps:
        if name not in spec.maps:
            raise ObjectError(f"{path}: no map {name!r}, there are: {', '.join(spec.maps) or 'none'}")
