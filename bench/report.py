"""Results as a table on the terminal or in markdown, and two documents side by side.

Ratios are what is compared: each was measured against a baseline of its own run, so most of what tells two runs apart (the
machine, its load) is in both parts of it. Rows without a baseline are compared by value, which means something on one
machine alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.cases import Row
from bench.results import Document

THRESHOLD = 1.2
"""Changes below this factor are called none: best rounds of a quiet machine agree within a few hundredths, of a busy one less."""

_NUMBERS = ("value", "baseline", "ratio", "before", "after", "change")


@dataclass(frozen=True)
class Change:
    """One row of both documents. `before`, `after`: ratios, or values where there is no baseline."""

    row: Row
    before: float
    after: float

    @property
    def factor(self) -> float:
        """How many times as much as before: above 1 is worse, for rates too."""
        return self.before / self.after if self.row.rate else self.after / self.before

    def verdict(self, threshold: float) -> str:
        """ "slower", "faster" or "" within the threshold. For bytes and the like: more, less."""
        words = ("slower", "faster") if self.row.timed else ("worse", "better")
        return words[0] if self.factor > threshold else words[1] if self.factor < 1 / threshold else ""


def changes(before: Document, after: Document) -> list[Change]:
    """What both documents have, in the order of the second."""
    old = {(row.suite, row.name): row for row in before.rows}
    found = []
    for row in after.rows:
        other = old.get((row.suite, row.name))
        if other is None or other.unit != row.unit:
            continue
        pair = (other.value, row.value) if row.ratio is None or other.ratio is None else (other.ratio, row.ratio)
        if all(value > 0 for value in pair):
            found.append(Change(row, *pair))
    return found


def text(value: float | None) -> str:
    """A figure as tables show it."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.2g}"


def lines(document: Document) -> Iterator[Sequence[str]]:
    """The cells of the whole table: suite, case, value, unit, baseline, what it is, ratio. A suite's mean is its last line."""
    means = document.geomeans()
    for title, rows in document.suites().items():
        for row in rows:
            yield title, row.name, text(row.value), row.unit, text(row.reference), row.baseline, text(row.ratio)
        if title in means:
            yield title, f"geomean of {len(rows)}", "", "", "", "", text(means[title])


HEADINGS = ("suite", "case", "value", "unit", "baseline", "is", "ratio")
CHANGE_HEADINGS = ("suite", "case", "before", "after", "of", "change", "")


def change_lines(found: Sequence[Change], threshold: float) -> Iterator[Sequence[str]]:
    """The cells of a comparison."""
    for change in found:
        of = change.row.unit if change.row.ratio is None else f"ratio to {change.row.baseline}"
        yield (
            change.row.suite, change.row.name, text(change.before), text(change.after), of, f"{change.factor:.2f}x",
            change.verdict(threshold),
        )  # fmt: skip


def show(title: str, headings: Sequence[str], cells: Iterator[Sequence[str]], console: Any) -> None:
    """A table on the terminal."""
    from rich.table import Table

    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", no_wrap=heading in ("suite", *_NUMBERS))
    last = ""
    for row in cells:
        if last and row[0] != last:
            table.add_section()
        last = row[0]
        table.add_row(*row, style="bold" if row[1].startswith("geomean") else None)
    console.print(table)


def markdown(headings: Sequence[str], cells: Iterator[Sequence[str]]) -> str:
    """The same as a markdown table."""
    rule = ["---:" if heading in _NUMBERS else "---" for heading in headings]
    rows = [headings, rule, *([cell.replace("|", "\\|") for cell in row] for row in cells)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def left_out(document: Document) -> list[str]:
    """Why cases could not be measured here: a line for each reason."""
    reasons: dict[str, list[str]] = {}
    for line in document.left_out:
        case, _, reason = line.partition(": ")
        reasons.setdefault(reason, []).append(case)
    return [f"{cases[0]}{f' and {len(cases) - 1} more' if len(cases) > 1 else ''}: {why}" for why, cases in reasons.items()]


def footnote(document: Document) -> str:
    """The surroundings in one line."""
    return ", ".join(f"{key} {value}" for key, value in document.surroundings.items())
