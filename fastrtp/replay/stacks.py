"""Stacks that a recording has for its events (trace-cmd -T): where bpf_get_stack and its neighbours find them.

ftrace writes a `kernel_stack` and a `user_stack` event right behind the event that they belong to, on the same CPU and
for the same task. Kernel: kernel/trace/trace.c:__ftrace_trace_stack, ftrace_trace_userstack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrtp.record import EventTable, Recording
from fastrtp.record.columns import LOCATION, gather_heap

_NAMES = ("kernel_stack", "user_stack")
_END = np.uint64(0xFFFFFFFFFFFFFFFF)
_CALLER = "caller"

Addresses = NDArray[np.uint64]
Places = NDArray[np.int64]


def _tables(recording: Recording) -> dict[int, int]:
    """Table number -> 0 for kernel stacks, 1 for user stacks."""
    return {
        number: _NAMES.index(table.name)
        for number, table in enumerate(recording.tables)
        if table.system == "ftrace" and table.name in _NAMES and _has_callers(table)
    }


def recorded_stacks(recording: Recording) -> frozenset[str]:
    """Which of "kernel_stack" and "user_stack" the recording has for any event."""
    return frozenset(_NAMES[which] for number, which in _tables(recording).items() if len(recording.tables[number]))


def stack_columns(recording: Recording) -> tuple[Addresses, Addresses] | None:
    """(uint64[events][2], the memory that it points into): for each event the addresses of its kernel and user stack as
    {u64 nr; u64 ip[nr]}, 0 for none. None: the recording has no stacks.
    """
    numbers = _tables(recording)
    if not numbers or not recording.events:
        return None
    owners = _owners(recording, np.isin(recording.event, list(numbers)))
    found = []
    for number, which in numbers.items():
        owner = owners[recording.positions[number]]
        words, counts = _callers(recording.tables[number], which)
        kept = owner >= 0
        found.append((owner[kept], which, words[np.repeat(kept, counts)], counts[kept]))
    memory = np.zeros(max(sum(len(words) + len(counts) for _, _, words, counts in found), 1), np.uint64)
    columns = np.zeros((recording.events, 2), np.uint64)
    size = 0
    for owner, which, words, counts in found:
        heads = size + np.cumsum(counts + 1) - (counts + 1)
        memory[heads] = counts
        memory[_within(heads + 1, counts)] = words
        columns[owner, which] = np.uint64(memory.ctypes.data) + heads.astype(np.uint64) * np.uint64(8)
        size += len(words) + len(counts)
    return columns, memory


def _has_callers(table: EventTable) -> bool:
    column = table.fields.get(_CALLER)
    return column is not None and (column.dtype == LOCATION or column.ndim == 2)


def _within(starts: Places, counts: Places) -> Places:
    """start, start + 1, ... start + count - 1 of every pair, one after the other."""
    ends = np.cumsum(counts)
    return np.repeat(starts - (ends - counts), counts) + np.arange(int(ends[-1]) if len(ends) else 0)


def _callers(table: EventTable, which: int) -> tuple[Addresses, Places]:
    """(the addresses of all rows, innermost first; how many each row has). A user stack ends at the first 0, one of an old
    kernel at ULONG_MAX.
    """
    column: Any = table.fields[_CALLER]
    if column.dtype == LOCATION:
        heap = table.heaps[_CALLER]
        starts = np.minimum(column["offset"], len(heap)).astype(np.int64)
        sizes = np.minimum(column["len"].astype(np.int64), len(heap) - starts) // 8 * 8
        words = gather_heap(heap, starts, sizes)[1].view(np.uint64)
        counts = sizes // 8
    else:
        words = column.astype(np.uint64).reshape(-1)
        counts = np.full(len(column), column.shape[1], np.int64)
    starts = np.cumsum(counts) - counts
    ends = np.flatnonzero((words == _END) | ((words == 0) if which else False))
    rows, first = np.unique(np.repeat(np.arange(len(counts)), counts)[ends], return_index=True)
    kept = counts.copy()
    kept[rows] = ends[first] - starts[rows]
    return words[_within(starts, kept)], kept


def _owners(recording: Recording, is_stack: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each position, the last event on its CPU that is no stack, -1 where there is none of the same task."""
    owners = np.full(recording.events, -1, np.int64)
    for cpu in np.unique(recording.cpu).tolist():
        mine = np.flatnonzero(recording.cpu == cpu)
        last = np.maximum.accumulate(np.where(is_stack[mine], -1, np.arange(len(mine))))
        known = last >= 0
        owners[mine[known]] = mine[last[known]]
    found = np.flatnonzero(owners >= 0)
    other = found[recording.pid[owners[found]] != recording.pid[found]]
    owners[other] = -1
    return owners
