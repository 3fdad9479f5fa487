"""The line at a terminal while the native library is built, and its silence elsewhere."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fastrtp.cli import terminal
from fastrtp.native import library
from fastrtp.native.progress import BuildLine, silent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_what_how_far_and_how_long() -> None:
    stream = Terminal()
    with BuildLine(stream) as line:
        for done in range(1, 4):
            line(done, 3, f"function{done}")
    text = stream.getvalue()

    assert text.startswith("fastrtp: the native library is built, once for this version and processor\n")
    assert "3 of 3 steps, 0 s left" in text
    assert text.endswith(" s\n")
    assert "\rfastrtp: built in " in text
    assert max(len(part) for part in text.replace("\n", "\r").split("\r")) < 80


def test_a_build_that_fails_says_no_time() -> None:
    stream = Terminal()
    line = BuildLine(stream)
    line(1, 2, "f")
    line.__exit__(ValueError, ValueError("no"), None)

    assert "built in" not in stream.getvalue()


def test_without_a_terminal_nothing_is_written() -> None:
    stream = io.StringIO()
    with BuildLine(stream) as line:
        line(1, 2, "f")
        line(2, 2, "g")

    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("params", "progress"), [({"form": "table"}, None), ({"form": "json"}, silent), ({"json": True}, silent), ({}, None)]
)
def test_commands_are_silent_where_they_print_for_programs(
    monkeypatch: pytest.MonkeyPatch, params: dict[str, object], progress: object
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(library, "is_built", lambda: False)
    monkeypatch.setattr(library, "ensure_built", asked.append)
    context = click.Context(click.Command("x"))
    context.params = dict(params)
    with context:
        terminal.need_native()

    assert asked == [progress]


BUILDER = """#!{python}
import shutil, sys, time
folder, stem = sys.argv[3:5]
with open(folder + "/builds", "a") as log:
    log.write("built\\n")
for done in range(1, 4):
    print(f"{{done}}/3 function{{done}}", flush=True)
    time.sleep(0.2)
for suffix in ("bc", "o", "verifier.o", "json"):
    shutil.copy("{source}/" + stem + "." + suffix, folder)
"""
"""Stands in for the building process, which takes a quarter of a minute."""

USE = """
import sys
sys.stderr.isatty = lambda: sys.argv[1] == "terminal"
sys.executable = sys.argv[2]
from fastrtp.native import library
print(len(library.library().symbols) > 100, library.is_built())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a script with #!")
def test_first_use_builds_and_another_process_waits_for_it(tmp_path: Path) -> None:
    """From an empty cache, two processes at once: one builds, the other waits; what is a terminal sees it, the other nothing."""
    builder, folder = tmp_path / "builder", tmp_path / "cache"
    builder.write_text(BUILDER.format(python=sys.executable, source=library.library().bitcode_path.parent))
    builder.chmod(0o755)
    environment = os.environ | {"FASTRTP_CACHE": str(folder)}
    command = [sys.executable, "-c", USE]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    pair = [subprocess.Popen([*command, kind, str(builder)], **pipes) for kind in ("terminal", "pipe")]  # type: ignore[call-overload]
    (shown, silence) = [(*one.communicate(timeout=300), one.returncode) for one in pair]

    assert (shown[0], shown[2]) == (silence[0], silence[2]) == ("True True\n", 0), shown[1] + silence[1]
    assert silence[1] == ""
    assert shown[1] == "" or "3 of 3 steps" in shown[1]
    assert (folder / "builds").read_text() == "built\n"
    assert sorted(path.suffix for path in folder.glob("native-*")) == [".bc", ".json", ".o", ".o"]
