"""Series: what maps hold at set moments of a replay, one table for each map, with the moment as its first column.

Counts go on from moment to moment: nothing is reset. Rings, program arrays and maps of maps have no rows to keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import ReplayError
from fastrtp.replay.tables import RINGS, MapTable, map_table
from fastrtp.replay.windows import parse_window
from fastrtp.uapi import BpfMapType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fastrtp.kernel import Kernel

TIME = "time"
"""The column of moments: ns of the recording's clock."""
MOST = 100_000
"""Moments of one replay."""
_ROWLESS = RINGS | {
    BpfMapType.BPF_MAP_TYPE_PROG_ARRAY, BpfMapType.BPF_MAP_TYPE_ARRAY_OF_MAPS, BpfMapType.BPF_MAP_TYPE_HASH_OF_MAPS,
    BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY,
}  # fmt: skip


class Series:
    """Of one replay. `every`: so many events, or a time ("100ms"). ReplayError for anything else, and for over MOST moments."""

    def __init__(self, kernel: Kernel, time: NDArray[np.int64], every: int | str) -> None:
        found = parse_window(every)
        if found is None:
            raise ReplayError(f"every {every!r} is neither a number of events nor a time such as 100ms")
        size, in_ns = found
        self._kernel = kernel
        self._tables: dict[int, list[tuple[int, MapTable]]] = {}
        first, last = (int(time[0]), int(time[-1])) if len(time) else (0, 0)
        steps = -(-(last - first + 1) // size) if in_ns else -(-len(time) // size)
        if steps > MOST:
            raise ReplayError(f"every {every!r} makes {steps} tables of each map, {MOST} are the most")
        self._time = time
        if in_ns:
            self._moments = first + size * np.arange(1, steps + 1, dtype=np.int64)
            self._ends = np.searchsorted(time, self._moments)
        else:
            self._ends = np.minimum(size * np.arange(1, steps + 1, dtype=np.int64), len(time))
            self._moments = time[self._ends - 1] if len(time) else np.zeros(0, np.int64)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """(place of the first event that is behind a moment, the moment), one after the other."""
        return zip(self._ends.tolist(), self._moments.tolist(), strict=True)

    def take(self, moment: int) -> None:
        """Keep what all maps hold now."""
        for held in self._kernel.maps:
            if held.map.map_type not in _ROWLESS:
                self._tables.setdefault(held.id, []).append((moment, map_table(held.map).top(0)))

    def tables(self) -> dict[str, MapTable]:
        """By name of the map; a second map of the same name has its id behind it."""
        found: dict[str, MapTable] = {}
        for number, taken in self._tables.items():
            name = taken[0][1].name
            found[name if name not in found else f"{name}#{number}"] = joined(taken)
        return found


def top_of_each(rows: MapTable, count: int) -> MapTable:
    """The `count` first rows of each moment, those with the largest values; 0: all."""
    times = np.array(rows.columns[TIME], np.int64)
    starts = np.flatnonzero(np.r_[True, times[1:] != times[:-1]]) if len(times) else np.zeros(0, np.int64)
    nth = np.arange(len(times)) - np.repeat(starts, np.diff(np.r_[starts, len(times)]))
    kept = np.flatnonzero(nth < count).tolist() if count else range(len(times))
    return replace(rows, columns={name: [column[row] for row in kept] for name, column in rows.columns.items()})


def joined(taken: list[tuple[int, MapTable]]) -> MapTable:
    """Tables of one map, with the moment of each as the first column."""
    columns: dict[str, list[Any]] = {TIME: []}
    last = taken[-1][1]
    columns |= {name: [] for name in last.columns}
    for moment, table in taken:
        columns[TIME] += [moment] * len(table)
        for name in last.columns:
            columns[name] += table.columns[name]
    types = {TIME: None, **last.types}
    return replace(
        last, columns=columns, types=types, key_columns=(TIME, *last.key_columns), sort_by="", entries=len(columns[TIME])
    )
