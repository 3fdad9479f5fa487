"""`fastrtp conformance` and `fastrtp warmup`: the code generator by itself."""

from __future__ import annotations

import sys
import time

import click

from fastrtp.cli.terminal import need_native, seconds
from fastrtp.errors import AsmError


@click.command(
    "conformance", short_help="Run one program as a bpf_conformance plugin.", context_settings={"ignore_unknown_options": True}
)
@click.argument("memory", default="")
@click.argument("ignored", nargs=-1, type=click.UNPROCESSED)
def conformance_command(memory: str, ignored: tuple[str, ...]) -> None:
    """Run one program as a plugin of the bpf_conformance suite.

    Standard input has the instructions in hex; MEMORY, in hex, is what r1 points to. Prints r0 in hex. There is no verifier
    here: such programs are trusted.
    """
    insns = _hex("instructions", sys.stdin.buffer.read().decode("ascii", "replace"))
    mem = _hex("memory", memory)
    need_native()
    from fastrtp import jit

    click.echo(f"{jit.run(insns, mem):x}")


def _hex(what: str, text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise AsmError(f"{what}: {error}") from None


@click.command("warmup", short_help="Build and compile now what first uses would wait for.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def warmup_command(form: str) -> None:
    """Build and compile now what would otherwise be made at first use, once for this version and processor.

    That is the native library, the index of the kernel's types, and the programs that the package ships.
    """
    import json

    from fastrtp.entry_cache import cache_folder

    took = {"native library": need_native()}
    start = time.perf_counter()
    from fastrtp.kernel import Kernel
    from fastrtp.programs import PROGRAMS, read_object

    with Kernel() as kernel:
        took["kernel's types"] = time.perf_counter() - start
        start = time.perf_counter()
        for name in PROGRAMS:
            kernel.load(read_object(name), name=f"{name}.bpf.o").close()
        took["shipped programs"] = time.perf_counter() - start
    if form == "json":
        click.echo(json.dumps({"folder": str(cache_folder()), "seconds": took}))
        return
    for what, spent in took.items():
        state = f"ready after {seconds(spent)}" if spent else "was there already"
        click.echo(f"{what} {state}")
    click.echo(f"kept in {cache_folder()}")
