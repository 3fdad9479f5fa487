"""EventTable: all records of one event as columns, and the gathering of them from ring-buffer pages.

Scalars become integer columns, fixed arrays two-dimensional ones, char arrays S columns. A field whose length varies
(__data_loc, __rel_loc, an open tail) becomes a column of (offset, len) into a heap of bytes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .event_format import EventFormat, FieldKind, FormatField

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOCATION = np.dtype([("offset", "<u8"), ("len", "<u4")])
"""One value of a variable-length column: a place in the column's heap."""
_WIDE = 1 << 26
"""Bytes that the texts of a column may take, each as wide as the widest, to be made all at once."""
_LEFT_OUT = frozenset({"common_type", "common_pid"})


@dataclass(slots=True)
class EventTable:
    """The events of one type, in time order. `fields`: columns by name; `heaps`: bytes of the variable-length ones."""

    name: str
    system: str
    fields: Mapping[str, NDArray[Any]]
    fmt: EventFormat | None
    heaps: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    rows: int = 0
    _clean: dict[str, NDArray[np.bytes_]] = field(default_factory=dict, repr=False, compare=False)
    """Texts that have been cut already."""

    def __len__(self) -> int:
        return self.rows

    def has_integers(self, *names: str) -> bool:
        """Whether all of these are columns of one integer a row."""
        columns = [self.fields.get(name) for name in names]
        return all(column is not None and column.ndim == 1 and column.dtype.kind in "iu" for column in columns)

    def has_strings(self, name: str) -> bool:
        """Whether this is a column of texts, whatever way they were recorded."""
        column = self.fields.get(name)
        return column is not None and (column.dtype == LOCATION or (column.ndim == 1 and column.dtype.kind == "S"))

    def bytes_at(self, name: str, row: int) -> bytes:
        """The value of a variable-length field in one row."""
        at = self.fields[name][row]
        start = int(at["offset"])
        return self.heaps[name][start : start + int(at["len"])].tobytes()

    def strings(self, name: str) -> NDArray[np.bytes_]:
        """A string column as an S array, whatever way it was recorded; cut at the first NUL."""
        column = self.fields[name]
        if column.dtype != LOCATION:
            if name not in self._clean:
                self._clean[name] = cut_strings(column)
            return self._clean[name]
        if len(column) * int(column["len"].max(initial=0)) > _WIDE:
            text = [self.bytes_at(name, row).partition(b"\0")[0] for row in range(len(column))]
            return np.array(text, dtype=f"S{max(map(len, text), default=0) or 1}")
        return cut_strings(self.rows_of_bytes(name))

    def rows_of_bytes(self, name: str) -> NDArray[np.bytes_]:
        """A variable-length column as an S array as wide as its longest row, zeros behind shorter ones."""
        column, heap = self.fields[name], self.heaps[name]
        starts = np.minimum(column["offset"].astype(np.int64), len(heap))
        sizes = np.minimum(column["len"].astype(np.int64), len(heap) - starts)
        width = max(int(sizes.max()), 1) if len(sizes) else 1
        within = np.arange(width)
        there = within < sizes[:, None]
        out = np.zeros((len(sizes), width), np.uint8)
        out[there] = heap[(starts[:, None] + within)[there]]
        rows: NDArray[np.bytes_] = out.view(f"S{width}").reshape(-1)
        return rows


def cut_strings(column: NDArray[np.bytes_]) -> NDArray[np.bytes_]:
    """The strings without what stands behind their first NUL: what was in the recorder's buffer before. The same array where
    nothing does.
    """
    width = column.dtype.itemsize
    if not len(column) or width < 2:
        return column
    padded = -(-width // 8) * 8
    words = np.ascontiguousarray(column, f"S{padded}").view("<u8").reshape(len(column), padded // 8)
    ended: NDArray[Any] | None = None
    dirty = np.zeros(len(column), np.bool_)
    for word in words.T:
        zeros = (word - _ONES) & ~word & _HIGHS  # bit 7 of the first zero byte, and of some behind it
        kept = ((zeros & (~zeros + _ONE)) >> _SEVEN) - _ONE
        dirty |= (word & ~kept) != 0
        if ended is not None:
            dirty |= ended & (word != 0)
        ended = zeros != 0 if ended is None else ended | (zeros != 0)
    bad = np.flatnonzero(dirty)
    if not len(bad):
        return column
    out = column.copy()
    rows = out[bad].view(np.uint8).reshape(len(bad), width)
    rows[np.logical_or.accumulate(rows == 0, axis=1)] = 0
    out[bad] = rows.view(column.dtype).reshape(-1)
    return out


_ONE, _SEVEN = np.uint64(1), np.uint64(7)
_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)


def unreadable(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int32], fmt: EventFormat
) -> tuple[NDArray[np.int64], str]:
    """(records that are shorter than their format, or than what their location words say; what is wrong with the first)."""
    bad = np.flatnonzero(lengths < fmt.size)
    why = ""
    if len(bad):
        row = int(bad[0])
        why = (
            f"event {fmt.system}/{fmt.name}: record {row} at byte {int(offsets[row]):#x} of the pages "
            f"has {int(lengths[row])} bytes, its format needs {fmt.size}"
        )
    located = [spec for spec in fmt.fields if spec.kind in (FieldKind.DATA_LOC, FieldKind.REL_LOC)]
    if not located:
        return bad, why
    whole = np.flatnonzero(lengths >= fmt.size)
    words = [(spec, np.empty(len(whole), np.uint32)) for spec in located]
    _gather_fixed(data, np.ascontiguousarray(offsets[whole]), list(words))
    found = [bad]
    for spec, column in words:
        starts, sizes = _location(spec, column)
        past = np.flatnonzero((sizes > 0) & (starts + sizes > lengths[whole]))
        if len(past):
            row = int(past[0])
            why = why or (
                f"event {fmt.system}/{fmt.name}: record {int(whole[row])}: {spec.name} takes {int(sizes[row])} bytes at "
                f"{int(starts[row])}, the record has {int(lengths[whole[row]])}"
            )
            found.append(whole[past])
    return (np.unique(np.concatenate(found)) if len(found) > 1 else bad), why


def _location(spec: FormatField, words: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(start within the record, length) as location words say."""
    starts = (words & 0xFFFF).astype(np.int64)
    sizes = (words >> 16).astype(np.int64)
    return (starts + spec.offset + 4 if spec.kind is FieldKind.REL_LOC else starts), sizes


def gather_table(data: NDArray[np.uint8], offsets: NDArray[np.int64], lengths: NDArray[np.int32], fmt: EventFormat) -> EventTable:
    """Read every field of the records at `offsets`, none of which is `unreadable`."""
    fields: dict[str, NDArray[Any]] = {}
    fixed: list[tuple[FormatField, NDArray[Any]]] = []
    for spec in fmt.fields:
        if spec.name in _LEFT_OUT:
            continue
        if spec.kind is not FieldKind.TAIL:
            fixed.append((spec, np.empty(len(offsets), spec.dtype)))
            fields[spec.name] = fixed[-1][1]
    _gather_fixed(data, offsets, fixed)
    heaps: dict[str, NDArray[np.uint8]] = {}
    for spec in fmt.fields:
        if spec.variable:
            starts, sizes = _locate(spec, fields.get(spec.name), lengths)
            fields[spec.name], heaps[spec.name] = gather_heap(data, offsets + starts, sizes)
    return EventTable(fmt.name, fmt.system, fields, fmt, heaps, len(offsets))


def _gather_fixed(data: NDArray[np.uint8], offsets: NDArray[np.int64], fixed: list[tuple[FormatField, NDArray[Any]]]) -> None:
    from fastrtp.native.library import library

    rows = [(spec.offset, spec.size, column.ctypes.data) for spec, column in fixed if spec.size]
    if rows and len(offsets):
        plan = np.array(rows, np.int64)
        library().ring_buffer_gather(data.ctypes.data, offsets.ctypes.data, len(offsets), plan.ctypes.data, len(rows))


def _locate(
    spec: FormatField, words: NDArray[Any] | None, lengths: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(start within the record, length) of a variable field in every record."""
    if words is None:
        record = lengths.astype(np.int64)
        starts = np.full(len(record), spec.offset, np.int64)
        return starts, record - spec.offset
    starts, sizes = _location(spec, words)
    return np.where(sizes > 0, starts, 0), sizes


def gather_heap(
    data: NDArray[np.uint8], starts: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Pieces of `data` as a variable-length column and its heap."""
    from fastrtp.native.library import library

    column = np.empty(len(sizes), LOCATION)
    ends = np.cumsum(sizes)
    column["offset"] = ends - sizes
    column["len"] = sizes
    heap = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    library().ring_buffer_gather_bytes(data.ctypes.data, starts.ctypes.data, sizes.ctypes.data, len(sizes), heap.ctypes.data)
    return column, heap
