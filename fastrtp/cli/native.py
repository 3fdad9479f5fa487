"""`fastrtp conformance` and `fastrtp warmup`: the code generator by itself."""

from __future__ import annotations

import sys

import click

from fastrtp.cli.terminal import need_native, seconds
from fastrtp.errors import AsmError


@click.command("conformance", short_help="Run one program as a bpf_conformance plugin.",
               context_settings={"ignore_unknown_options": True})
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


@click.command("warmup", short_help="Build the native library now, not at first use.")
def warmup_command() -> None:
    """Build the native library now instead of at first use."""
    took = need_native()
    from fastrtp.native import library

    state = f"built in {seconds(took)}" if took else "was there already"
    click.echo(f"native library {state}: {library.cache_folder()}/native-{library.key()}.o")
