"""Results as text and as JSON: map tables, histograms, bars."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastrtp.cli.terminal import plain, table, unicode_output

if TYPE_CHECKING:
    from rich.console import Console

    from fastrtp.replay.tables import MapTable

_STEPS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_SPARK_FROM = 8
"""Lists of so many integers or more are drawn as a row of bars."""
_LIST_CELLS = 8
_MAX_CPU_COLUMNS = 8


def print_map(out: Console, rows: MapTable, top: int, lost: int = 0) -> None:
    """A map's table: its `top` most important rows, how many more there are, and what a ring lost."""
    shown = rows.without_zeros() if not rows.sort_by else rows
    zeros = len(rows) - len(shown)
    shown = shown.top(top)
    from fastrtp.replay.tables import RINGS

    kind = rows.map_type.name.removeprefix("BPF_MAP_TYPE_").lower()
    things = ("record", "records") if rows.map_type in RINGS else ("entry", "entries")
    title = f"{plain(rows.name)}  ({kind}, {rows.entries:,} {things[rows.entries != 1]})"
    out.print(title, style="bold")
    if len(shown):
        names = _visible(shown)
        if len(shown) == 1 and len(names) > 6:
            printed = table("", "", header=False)
            for name in names:
                printed.add_row(plain(name), cell(shown.columns[name][0]))
        else:
            numbers = tuple(name for name in names if _is_number(shown.columns[name]))
            printed = table(*(plain(name) for name in names), numbers=numbers)
            for row in zip(*(shown.columns[name] for name in names), strict=True):
                printed.add_row(*(cell(value) for value in row))
        out.print(printed)
    left = len(rows) - zeros - len(shown)
    notes = [f"{left:,} more: --top 0 shows all"] * (left > 0) + [f"{zeros:,} all zero"] * (zeros > 0)
    notes += [f"{lost:,} more found no room"] * (lost > 0)
    if notes:
        out.print("; ".join(notes), style="dim")
    out.print()


def _visible(rows: MapTable) -> list[str]:
    """Columns for a terminal: not each CPU's where there are many."""
    cpus = [name for name in rows.columns if name.startswith("cpu") and name[3:].isdigit()]
    hidden = set(cpus) if "total" in rows.columns and len(cpus) > _MAX_CPU_COLUMNS else set()
    return [name for name in rows.columns if name not in hidden]


def cell(value: Any) -> str:
    """One value: numbers in full, bytes in hex, long lists of integers as small bars."""
    if isinstance(value, bytes):
        return value.hex(" ") if len(value) <= 32 else f"{value[:32].hex(' ')} ... {len(value)} bytes"
    if isinstance(value, list):
        if len(value) >= _SPARK_FROM and all(isinstance(item, int) and item >= 0 for item in value):
            return spark(value)
        text = ", ".join(cell(item) for item in value[:_LIST_CELLS])
        return f"[{text}{', ...' if len(value) > _LIST_CELLS else ''}]"
    return plain(value)


def spark(values: Sequence[int]) -> str:
    """A row of bars, one a value, up to the last that is not zero: a dot for zero."""
    last = max((index for index, value in enumerate(values) if value), default=-1)
    most = max(values, default=0)
    if not unicode_output():
        return " ".join(str(value) for value in values[: last + 1])
    return "".join("·" if value == 0 else _STEPS[(value * (len(_STEPS) - 1) + most // 2) // most] for value in values[: last + 1])


def bar(value: float, most: float, width: int) -> str:
    """A bar of `width` cells for `most`."""
    if most <= 0:
        return ""
    if not unicode_output():
        return "#" * round(width * value / most)
    eighths = round(8 * width * value / most)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def log2_lines(slots: Sequence[int], unit: str, width: int = 50) -> list[str]:
    """A log2 histogram as lines: slot s has values of [2^s, 2^(s+1)), slot 0 from 0."""
    used = [index for index, count in enumerate(slots) if count]
    if not used:
        return ["(empty)"]
    most = max(slots)
    bounds = [(0 if slot == 0 else 1 << slot, (2 << slot) - 1) for slot in range(used[0], used[-1] + 1)]
    wide = len(f"{bounds[-1][1]:,}")
    counts = len(f"{most:,}")
    return [
        f"{low:>{wide},} - {high:>{wide},} {unit}  {slots[slot]:>{counts},} {bar(slots[slot], most, width)}"
        for slot, (low, high) in zip(range(used[0], used[-1] + 1), bounds, strict=True)
    ]


def to_json(value: Any) -> str:
    """JSON text; bytes as hex."""
    return json.dumps(value, indent=2, default=_json_value, ensure_ascii=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def _is_number(column: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) for value in column)
