"""Stacks that a recording has for its events (trace-cmd -T): where bpf_get_stack and its neighbours find them.

ftrace writes a `kernel_stack` and a `user_stack` event right behind the event that they belong to, on the same CPU and
for the same task. Kernel: kernel/trace/trace.c:__ftrace_trace_stack, ftrace_trace_userstack.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrtp.record import EventTable, Recording
from fastrtp.record.columns import LOCATION

_NAMES = ("kernel_stack", "user_stack")
_END = np.uint64(0xFFFFFFFFFFFFFFFF)
_CALLER = "caller"

Addresses = NDArray[np.uint64]


def _tables(recording: Recording) -> dict[int, int]:
    """Table number -> 0 for kernel stacks, 1 for user stacks."""
    return {
        number: _NAMES.index(table.name)
        for number, table in enumerate(recording.tables)
        if table.system == "ftrace" and table.name in _NAMES and _has_callers(table)
    }


def stack_columns(recording: Recording) -> tuple[Addresses, Addresses] | None:
    """(uint64[events][2], the memory that it points into): for each event the addresses of its kernel and user stack as
    {u64 nr; u64 ip[nr]}, 0 for none. None: the recording has no stacks.
    """
    numbers = _tables(recording)
    if not numbers or not recording.events:
        return None
    owners = _owners(recording, np.isin(recording.event, list(numbers)))
    stacks: list[NDArray[np.uint64]] = []
    places: list[tuple[int, int, int]] = []
    size = 0
    for number, which in numbers.items():
        table = recording.tables[number]
        for row, position in enumerate(recording.positions[number].tolist()):
            owner = int(owners[position])
            if owner < 0:
                continue
            callers = _callers(table, row, which)
            places.append((owner, which, size))
            stacks += [np.array([len(callers)], np.uint64), callers]
            size += 1 + len(callers)
    memory = np.concatenate(stacks) if stacks else np.zeros(1, np.uint64)
    columns = np.zeros((recording.events, 2), np.uint64)
    for owner, which, at in places:
        columns[owner, which] = memory.ctypes.data + 8 * at
    return columns, memory


def _has_callers(table: EventTable) -> bool:
    column = table.fields.get(_CALLER)
    return column is not None and (column.dtype == LOCATION or column.ndim == 2)


def _callers(table: EventTable, row: int, which: int) -> NDArray[np.uint64]:
    """Addresses, innermost first; a user stack ends at the first 0, one of an old kernel at ULONG_MAX."""
    column: Any = table.fields[_CALLER]
    if column.dtype == LOCATION:
        data = table.bytes_at(_CALLER, row)
        callers = np.frombuffer(data[: len(data) // 8 * 8], np.uint64)
    else:
        callers = column[row].astype(np.uint64)
    ends = np.flatnonzero((callers == _END) | ((callers == 0) if which else False))
    return callers[: int(ends[0])] if len(ends) else callers


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
