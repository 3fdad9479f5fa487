"""Verdicts that C sources state above their programs (tests/data/verifier/global/README.md)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = re.compile(r"^((?:/\*[^\n]*\*/\n)*)(?:__attribute__[^\n]*\n)?SEC\(\"[^\n]*\nint (\w+)\(", re.MULTILINE)


@dataclass
class Expected:
    """What a source says above a program: errno name and last line ("" where it is accepted), the line before it, and whether
    Linux differs."""

    program: str
    errno: str
    message: str
    before: str
    differs: bool


def expectations(source: Path) -> Iterator[Expected]:
    """One for each program, in order."""
    for comments, name in _PROGRAM.findall(source.read_text()):
        said = re.search(r"expect: (E\w+) (.*) \*/", comments)
        before = re.search(r"says: (.*) \*/", comments)
        yield Expected(
            name, said[1] if said else "", said[2] if said else "", before[1] if before else "", "differs:" in comments
        )
