"""choose: of all kernels' recipes of an event, the one that fits a recording's format."""

from __future__ import annotations

from collections.abc import Sequence

from fastrtp.record.event_format import EventFormat

from .data import EventRow, rows


def choose(fmt: EventFormat, kernel: str = "") -> EventRow | None:
    """The row that tells most of what a format records: many of its fields, few that it has not. None without one.

    Where several do, an added row, then the user's, then that of the nearest version.
    """
    names = frozenset(spec.name for spec in fmt.fields if not spec.name.startswith("common_"))
    return best(rows(fmt.name, kernel), names, fmt.system)


def best(found: Sequence[EventRow], names: frozenset[str], system: str) -> EventRow | None:
    """The best of the rows, which come in order of preference."""
    if not found:
        return None
    return max(
        found,
        key=lambda row: (
            row.kernel == "added",
            row.system in (system, ""),
            len(row.fields & names) - len(row.fields ^ names) / 100,
        ),
    )
