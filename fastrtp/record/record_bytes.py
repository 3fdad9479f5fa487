"""Records as bytes again, out of a table's columns: as they were recorded, or with the fields moved, by name, to where another
kernel has them. What stood between fields is not kept by importing, and reads as 0.

Must not know: programs, replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .columns import LOCATION, EventTable
from .event_format import EventFormat, FieldKind, FormatField

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS = 1 << 14
"""Records of variable length that are put together at a time."""
_COMMON = 8


class Contexts(NamedTuple):
    """The records of one kind of event. `flat`: their bytes, each from `starts` on, `sizes` long; `notes`: what was moved."""

    flat: NDArray[np.uint8]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    notes: list[str]


def contexts(table: EventTable, here: EventFormat | None) -> Contexts:
    """The records of a table, laid out as in the kernel (`here`), or (None) as they were recorded."""
    assert table.fmt is not None
    recorded = {spec.name: spec for spec in table.fmt.fields if not spec.name.startswith("common_")}
    wanted = recorded if here is None else {spec.name: spec for spec in here.fields if not spec.name.startswith("common_")}
    notes = list(_differences(recorded, wanted))
    fixed = max((spec.offset + spec.size for spec in wanted.values()), default=_COMMON)
    stride = -(-fixed // 8) * 8
    head = np.zeros((len(table), stride), np.uint8)
    variable: list[tuple[FormatField, FormatField]] = []
    for name, spec in wanted.items():
        source = recorded.get(name)
        if source is None or name not in table.fields:
            continue
        if source.variable:
            variable.append((source, spec))
        else:
            _put_fixed(head, table.fields[name], spec)
    if not variable:
        starts = np.arange(len(table), dtype=np.int64) * stride
        return Contexts(head.reshape(-1), starts, np.full(len(table), fixed, np.int64), notes)
    return _with_variable(table, head[:, :fixed], variable, notes)


def _differences(recorded: dict[str, FormatField], wanted: dict[str, FormatField]) -> Iterator[str]:
    moved = [
        f"{name} ({recorded[name].offset} to {spec.offset})"
        for name, spec in wanted.items()
        if name in recorded and (recorded[name].offset, recorded[name].size) != (spec.offset, spec.size)
    ]
    if moved:
        yield f"the loaded kernel's record differs from the recorded one: moved by name are {', '.join(moved)}"
    lacking = [name for name in wanted if name not in recorded]
    if lacking:
        yield f"the recorded record has no {', '.join(lacking)}, which the loaded kernel's has: read as 0"


def _put_fixed(head: NDArray[np.uint8], column: NDArray[Any], spec: FormatField) -> None:
    """A column into the place of a field; a number of another size is widened or cut, text cut or filled up."""
    width = column.dtype.itemsize * int(np.prod(column.shape[1:], dtype=np.int64))
    if width != spec.size and column.ndim == 1 and column.dtype.kind in "iu" and spec.size in (1, 2, 4, 8):
        column, width = column.astype(f"<i{spec.size}"), spec.size
    raw = np.ascontiguousarray(column).view(np.uint8).reshape(len(column), width)
    size = min(width, spec.size)
    head[:, spec.offset : spec.offset + size] = raw[:, :size]


def _with_variable(
    table: EventTable, head: NDArray[np.uint8], variable: list[tuple[FormatField, FormatField]], notes: list[str]
) -> Contexts:
    """Records with texts and arrays behind their fixed fields, in the order of the fields; location words say where."""
    rows, fixed = head.shape
    words = []
    at = np.full(rows, fixed, np.int64)
    for source, spec in variable:
        lengths = table.fields[source.name]["len"].astype(np.int64)
        words.append((at.copy(), lengths))
        if spec.kind in (FieldKind.DATA_LOC, FieldKind.REL_LOC):
            place = at - (spec.offset + 4) if spec.kind is FieldKind.REL_LOC else at
            word = (lengths << 16 | place & 0xFFFF).astype("<u4")
            head[:, spec.offset : spec.offset + 4] = word.view(np.uint8).reshape(rows, 4)
        at += lengths
    starts = np.concatenate([[0], np.cumsum(-(-at // 8) * 8)])
    flat = np.zeros(int(starts[-1]), np.uint8)
    for first in range(0, rows, _ROWS):
        part = slice(first, min(first + _ROWS, rows))
        flat[starts[:-1][part, None] + np.arange(fixed)] = head[part]
        for (source, _spec), (places, lengths) in zip(variable, words, strict=True):
            column, heap = table.fields[source.name][part], table.heaps[source.name]
            assert column.dtype == LOCATION
            counts = lengths[part]
            within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
            into = np.repeat(starts[:-1][part] + places[part], counts) + within
            flat[into] = heap[np.repeat(column["offset"].astype(np.int64), counts) + within]
    return Contexts(flat, starts[:-1], at, notes)
