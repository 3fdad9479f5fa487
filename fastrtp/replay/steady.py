"""Which of the kernel's objects events change, and whether a program could see that a change came early or late.

Every event brings the objects up to date that it describes. On several threads a program of another CPU may look before or
after that, so it must not look at what changes. A store that writes what is there from the start changes nothing.

Must not know: programs, threads, native code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.replay.bind import BoundEvent, BoundRecording, BoundStore

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastrtp.mem.arena import Arena


@dataclass(frozen=True)
class Change:
    """Bytes that the events of a tracepoint change. `addresses`: sorted, of `size` bytes each."""

    tracepoint: str
    size: int
    addresses: NDArray[np.uint64]

    def touches(self, bases: NDArray[np.uint64], start: int, end: int | None) -> bool:
        """Whether bytes `start` to `end` behind one of the bases are among those; `end` None: whatever comes behind."""
        if end is None:
            return bool(len(self.addresses))
        first = bases.astype(np.int64) + (start - self.size + 1)
        behind = bases.astype(np.int64) + end
        addresses = self.addresses.astype(np.int64)
        return bool(np.any(np.searchsorted(addresses, behind) > np.searchsorted(addresses, first)))


def changes(bound: BoundRecording, arena: Arena) -> list[Change]:
    """All changes that the recording's events make to objects in `arena`, as these are now."""
    found = []
    for number, event in enumerate(bound.events):
        stores = [*event.stores, *event.after]
        rows = bound.row[bound.event == number] if stores else None
        if rows is None or not len(rows):
            continue
        for store in stores:
            addresses = _changed(event, store, rows, arena)
            if len(addresses):
                found.append(Change(event.name, store.size, addresses))
    return found


def pointers(bound: BoundRecording, tracepoints: set[str]) -> NDArray[np.uint64]:
    """What programs on these tracepoints may have pointers to: their arguments, and the running tasks."""
    parts = [np.unique(bound.current)]
    for number, event in enumerate(bound.events):
        if event.name in tracepoints:
            rows = bound.row[bound.event == number]
            parts += [np.unique(values) for values in _arguments(event, rows)]
    return np.unique(np.concatenate(parts))


def _arguments(event: BoundEvent, rows: NDArray[np.uint32]) -> Iterator[NDArray[np.uint64]]:
    for arg in event.args:
        if arg.size == 8:
            yield np.array([arg.const & (1 << 64) - 1], np.uint64) if arg.column is None else arg.column[rows].astype(np.uint64)


def _changed(event: BoundEvent, store: BoundStore, rows: NDArray[np.uint32], arena: Arena) -> NDArray[np.uint64]:
    """Addresses, sorted, to which the store writes something else than what is there."""
    base = _base(event, store, rows)
    values = _bytes(store, rows)
    there = np.broadcast_to(base, len(rows)) != 0
    addresses = (np.broadcast_to(base, len(rows)) + np.uint64(store.offset))[there]
    values = values[there]
    distinct, which = np.unique(addresses, return_inverse=True)
    if not len(distinct):
        return distinct
    known = np.array([_initial(arena, int(address), store.size) for address in distinct.tolist()], np.uint8)
    differs = (values != known.reshape(len(distinct), store.size)[which.reshape(-1)]).any(axis=1)
    return np.unique(addresses[differs])


def _base(event: BoundEvent, store: BoundStore, rows: NDArray[np.uint32]) -> Any:
    if store.base_arg >= 0:
        arg = event.args[store.base_arg]
        return np.uint64(arg.const) if arg.column is None else arg.column[rows].astype(np.uint64)
    if isinstance(store.base, np.ndarray):
        return store.base[rows].astype(np.uint64)
    return np.uint64(store.base or 0)


def _bytes(store: BoundStore, rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """What each row writes: uint8[rows, size]."""
    size = store.size
    if store.column is None:
        whole = np.frombuffer((store.const & (1 << 8 * size) - 1).to_bytes(size, "little"), np.uint8)
        return np.broadcast_to(whole, (len(rows), size))
    column = np.ascontiguousarray(store.column[rows])
    if column.dtype.kind == "S":
        width = column.dtype.itemsize
        padded = np.zeros((len(rows), size), np.uint8)
        padded[:, : min(width, size)] = column.view(np.uint8).reshape(len(rows), width)[:, :size]
        return padded
    if column.dtype.kind == "b":
        column = column.view(np.uint8)
    wide = column.astype(np.int64 if column.dtype.kind == "i" else np.uint64)
    return np.ascontiguousarray(wide).view(np.uint8).reshape(len(rows), 8)[:, :size]


def _initial(arena: Arena, address: int, size: int) -> Any:
    try:
        return arena.view(address, size).copy()
    except ValueError:  # nobody's memory: it cannot be read either
        return np.zeros(size, np.uint8)
