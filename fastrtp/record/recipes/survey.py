"""What recipes tell of every event, kernel by kernel: the table in RECIPES.md.

exact      every field that is recorded tells an argument, or a member of what one points to
partial    some do not: these fields are named
none       no field tells anything; `-`: that kernel has no such event
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from . import RECIPES
from .data import EventRow, files


@dataclass(frozen=True, slots=True)
class Survey:
    """An event of one kernel. `by_hand`: a recipe of the package's own code goes before; the source alone does not tell all."""

    kernel: str
    system: str
    event: str
    status: str
    lacks: tuple[str, ...]
    by_hand: bool

    @property
    def text(self) -> str:
        """For a cell of the table."""
        lacks = f": {', '.join(self.lacks)}" if self.status == "partial" else ""
        return f"{self.status}{lacks}{', by hand' if self.by_hand else ''}"


def survey() -> Iterator[Survey]:
    """Every event of every file of recipes."""
    for file in files():
        for name in sorted(file.names()):
            for row in file.rows(name):
                yield _judged(row)


def _judged(row: EventRow) -> Survey:
    recipe = RECIPES.get(row.name)
    lacks = tuple(sorted(row.left.keys() - _mentioned(recipe)))
    told = row.fields - set(lacks)
    status = "none" if row.fields and not told else "partial" if lacks else "exact"
    return Survey(row.kernel, row.system, row.name, status, lacks, recipe is not None)


def _mentioned(item: Any) -> set[str]:
    """Every name in a recipe: of fields, and what else is a text."""
    if isinstance(item, str):
        return {item}
    if isinstance(item, Mapping):
        return _mentioned(tuple(item.values()))
    if isinstance(item, tuple):
        return set().union(*map(_mentioned, item)) if item else set()
    if is_dataclass(item):
        return set().union(*(_mentioned(getattr(item, part.name)) for part in fields(item)))
    return set()


def markdown() -> str:
    """RECIPES.md."""
    found = list(survey())
    kernels = sorted({row.kernel for row in found}, key=lambda kernel: [int(part) for part in kernel.split(".")[:2]])
    cells: dict[tuple[str, str], dict[str, str]] = {}
    counts = {kernel: dict.fromkeys(("exact", "partial", "none"), 0) for kernel in kernels}
    for row in found:
        cells.setdefault((row.system, row.event), {})[row.kernel] = row.text
        counts[row.kernel][row.status] += 1
    lines = [
        "# What recordings tell of each event", "",
        "Written by `fastrtp recipes table --format markdown` from the recipes that were read out of the kernels' sources.",
        "exact: every recorded field tells an argument, or a member of what one points to. partial: those named do not.",
        "none: none does. `-`: no such event. What of that a program reads, and what it gets then, `fastrtp check` says.", "",
        *(f"Linux {kernel}: {_counted(counts[kernel])}." for kernel in kernels),
    ]  # fmt: skip
    systems: dict[str, list[str]] = {}
    for system, event in sorted(cells):
        systems.setdefault(system, []).append(event)
    for system, events in systems.items():
        rows = {event: [cells[system, event].get(kernel, "-") for kernel in kernels] for event in events}
        exact = [event for event, texts in rows.items() if set(texts) == {"exact"}]
        lines += ["", f"## {system}", ""]
        if exact:
            lines.append(f"exact in all: {', '.join(exact)}")
        if exact and len(exact) < len(events):
            lines.append("")
        if len(exact) < len(events):
            lines += [f"| event | {' | '.join(kernels)} |", f"|---|{'---|' * len(kernels)}"]
            lines += [f"| {event} | {' | '.join(texts)} |" for event, texts in rows.items() if event not in exact]
    return "\n".join(lines).rstrip("\n") + "\n"


def _counted(counts: dict[str, int]) -> str:
    return f"{sum(counts.values())} events, " + ", ".join(f"{number} {status}" for status, number in counts.items())
