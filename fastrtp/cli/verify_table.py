"""Verdicts as rows: which are shown, in which order, as table or CSV, and beside those of an earlier run.

A row is a mapping with the columns of COLUMNS; a value is None where the verifier says nothing.
"""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from fastrtp.cli.terminal import number, plain, seconds, table

Row = Mapping[str, Any]
NUMBERS = ("insns", "processed", "states", "peak_states", "time_ns")
COLUMNS = ("file", "program", "section", "verdict", *NUMBERS)
COMPARED = ("processed", "states", "time_ns")
_TITLES = {"peak_states": "peak", "time_ns": "time"}
_NAMES = {**{name: name for name in COLUMNS}, "peak": "peak_states", "time": "time_ns"}
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "!=": operator.ne, "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "=": operator.eq,
}  # fmt: skip
_CONDITION = re.compile(r"^(\w+)(!=|<=|>=|=|<|>)(.*)$")


def column(name: str) -> str:
    """A column by the name that it has in tables. UsageError for none."""
    if name not in _NAMES:
        raise click.UsageError(f"no column {name!r}, there are: {', '.join(_NAMES)}")
    return _NAMES[name]


def keep(rows: Sequence[Row], filters: Sequence[str]) -> list[Row]:
    """Rows for which every filter holds: `COLUMN OPERATOR VALUE` without blanks, or a pattern of a program's name."""
    found = list(rows)
    for text in filters:
        match = _CONDITION.match(text)
        if match is None:
            found = [row for row in found if fnmatch.fnmatchcase(row["program"], text)]
            continue
        name, compare = column(match[1]), _OPERATORS[match[2]]
        if name not in NUMBERS:
            if match[2] not in ("=", "!="):
                raise click.UsageError(f"{text!r}: {match[1]} is no number, only = and != are for it")
            found = [row for row in found if fnmatch.fnmatchcase(row[name], match[3]) is (match[2] == "=")]
            continue
        try:
            value = float(match[3])
        except ValueError as error:
            raise click.UsageError(f"{text!r}: {match[3]!r} is no number") from error
        found = [row for row in found if row[name] is not None and compare(row[name], value)]
    return found


def ordered(rows: Sequence[Row], sort: str) -> list[Row]:
    """Sorted by a column, `-column`: the largest first. Without a value: last."""
    if not sort:
        return list(rows)
    name = column(sort.removeprefix("-"))
    known = sorted((row for row in rows if row[name] is not None), key=lambda row: row[name], reverse=sort.startswith("-"))
    return [*known, *(row for row in rows if row[name] is None)]


def to_csv(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Comma-separated values under a line of names."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([["" if row[name] is None else row[name] for name in columns] for row in rows])
    return out.getvalue()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "time_ns":
        return seconds(value / 1e9)
    return number(value) if name in NUMBERS else plain(value)


def verdict_table(rows: Sequence[Row], with_file: bool) -> Any:
    """The rows as a table; programs that are not accepted in red."""
    shown = [name for name in COLUMNS if with_file or name != "file"]
    titles = [_TITLES.get(name, name) for name in shown]
    made = table(*titles, numbers=tuple(_TITLES.get(name, name) for name in NUMBERS))
    for row in rows:
        made.add_row(*(_cell(name, row[name]) for name in shown), style="" if row["verdict"] == "accepted" else "red")
    return made


def read_rows(path: Path) -> list[Row]:
    """Rows that `--format json` wrote. UsageError for a file that is no such."""
    try:
        rows = json.loads(path.read_text())["programs"]
        return [{name: row.get(name) for name in COLUMNS} | {"program": str(row["program"])} for row in rows]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise click.UsageError(f"{path}: not what `fastrtp verify --format json` writes ({error})") from error


def compared(old: Sequence[Row], new: Sequence[Row]) -> list[dict[str, Any]]:
    """One row for each program of either run: both verdicts, and each number with its change. None where a run lacks it."""
    before = {(row["file"], row["program"]): row for row in old}
    after = {(row["file"], row["program"]): row for row in new}
    rows = []
    for key in dict.fromkeys([*after, *before]):
        a, b = before.get(key), after.get(key)
        row: dict[str, Any] = {"file": key[0], "program": key[1]}
        row["verdict_old"], row["verdict"] = a and a["verdict"], b and b["verdict"]
        for name in COMPARED:
            was: Any = None if a is None else a[name]
            now: Any = None if b is None else b[name]
            row[f"{name}_old"], row[name] = was, now
            row[f"{name}_change"] = None if was is None or now is None else now - was
        rows.append(row)
    return rows


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Old and new of each number, and the change in per cent; another verdict in red."""
    titles = [f"{_TITLES.get(name, name)}{what}" for name in COMPARED for what in (" (old)", " (new)", " (change)")]
    made = table("file", "program", "verdict (old)", "verdict (new)", *titles, numbers=tuple(titles))
    for row in rows:
        cells = [plain(row["file"] or ""), plain(row["program"]), row["verdict_old"] or "missing", row["verdict"] or "missing"]
        for name in COMPARED:
            was, now = row[f"{name}_old"], row[name]
            change = row[f"{name}_change"]
            percent = "" if change is None else f" ({100 * change / was:+.1f} %)" if was else ""
            sign = "+" if change is not None and change > 0 else "-" if change else ""
            text = "" if change is None else f"{sign}{_cell(name, abs(change))}{percent}"
            cells += [_cell(name, was), _cell(name, now), text]
        made.add_row(*cells, style="red" if row["verdict_old"] != row["verdict"] else "")
    return made


COMPARISON_COLUMNS = (
    "file", "program", "verdict_old", "verdict",
    *(f"{name}{what}" for name in COMPARED for what in ("_old", "", "_change")),
)  # fmt: skip
