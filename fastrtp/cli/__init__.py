"""The `fastrtp` command: one module for each group of commands, imported when the command is used.

Here: the list of commands, and how every error ends: one line on standard error and a non-zero status, never a traceback.
`fastrtp --help` imports click and nothing else that is large.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from fastrtp import __version__
from fastrtp.errors import BpfError, CompilerError, FastrtpError, ObjectWarning

COMMANDS = {
    "demo": "demo",
    "replay": "replay",
    "check": "check",
    "tool": "tool",
    "cc": "cc",
    "import": "recordings",
    "info": "recordings",
    "events": "events",
    "list": "tracepoints",
    "support": "support",
    "verify": "verify",
    "dump": "dump",
    "prog": "introspect",
    "map": "introspect",
    "link": "introspect",
    "btf": "introspect",
    "recipes": "recipes",
    "bench": "bench",
    "conformance": "native",
    "warmup": "native",
}
"""Command -> the module of this package that has it, as `<name>_command`."""

STATUS_ERROR = 1
STATUS_USAGE = 2
STATUS_INTERRUPTED = 130


class Fastrtp(click.Group):
    """The group of all commands."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"fastrtp.cli.{COMMANDS[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any) -> NoReturn:
        """Run one command and exit with its status."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        status = self._run(args, prog_name or "fastrtp", extra)
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            status = _pipe_closed()
        sys.exit(status)

    def _run(self, args: Sequence[str] | None, prog_name: str, extra: dict[str, Any]) -> int:
        extra["standalone_mode"] = False
        warnings.simplefilter("always", ObjectWarning)
        warnings.showwarning = _show_warning
        try:
            result = super().main(args, prog_name, **extra)
            return result if isinstance(result, int) else 0
        except click.exceptions.Exit as ending:
            return ending.exit_code
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else prog_name
            say(f"{_first_down(error.format_message().removesuffix('.'))} (see {path} --help)")
            return STATUS_USAGE
        except click.ClickException as error:
            say(_first_down(error.format_message().removesuffix(".")))
            return STATUS_ERROR
        except (click.Abort, KeyboardInterrupt):
            say("interrupted")
            return STATUS_INTERRUPTED
        except BrokenPipeError:
            return _pipe_closed()
        except CompilerError as error:
            if error.diagnostics:
                click.echo(error.diagnostics, err=True)
            say(error.summary)
            return STATUS_ERROR
        except (FastrtpError, OSError) as error:
            say(describe(error))
            return STATUS_ERROR
        except MemoryError as error:
            say(f"out of memory{f': {error}' if str(error) else ''}")
            return STATUS_ERROR


def describe(error: BaseException) -> str:
    """An error in one line."""
    text = str(error)
    if isinstance(error, BpfError):
        name = errno.errorcode.get(error.errno or 0, str(error.errno))
        text = str(error.strerror)
        text = text if name in text else f"{text} ({name})"
    elif isinstance(error, OSError) and error.strerror:
        named = f"{os.fsdecode(error.filename)}: " if error.filename else ""
        text = f"{named}{error.strerror.lower()}"
    return "; ".join(line.strip() for line in text.splitlines() if line.strip()) or type(error).__name__


def say(text: str) -> None:
    """One line on standard error, control characters made visible."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    click.echo(f"fastrtp: {shown}", err=True)


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """A warning in one line, each once. What is no warning of ours goes where warnings go."""
    if not issubclass(category, ObjectWarning):
        _SHOW(message, category, *place, **more)
    elif str(message) not in _shown:
        _shown.add(str(message))
        say(f"warning: {message}")


_SHOW = warnings.showwarning
_shown: set[str] = set()


def _pipe_closed() -> int:
    """Whoever read our output has gone, having seen enough: `| head` is no error. Nothing more to write, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _first_down(text: str) -> str:
    return text[:1].lower() + text[1:]


@click.group("fastrtp", cls=Fastrtp, invoke_without_command=True,
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})  # fmt: skip
@click.version_option(__version__, prog_name="fastrtp")
@click.pass_context
def main(ctx: click.Context) -> int:
    """Linux raw tracepoint BPF programs in user space: verified, compiled to native code, fed with recordings."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return STATUS_USAGE
    return 0
