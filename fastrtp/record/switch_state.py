"""What sched_switch's `prev_state` meant: preempted or not, the task's state, its exit state, whatever kernel recorded it.

Which bit means what has changed from kernel to kernel, and so has the one that stands for "preempted". The recorded format
says it: its print format gives each flag a letter, and "+" to a preempted task. So a value is read as the recorded kernel
would have printed it, and the letters are turned into the bits that kernels have had since 4.14.

Differs: a task that was last seen as TASK_DEAD ("x", kernels before 4.14) is a zombie or reaped already, which is not
recorded: its exit_state is 0.
Kernel: include/trace/events/sched.h:__trace_sched_switch_state, include/linux/sched.h
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .columns import EventTable
from .event_format import EventFormat
from .print_fmt import PrintFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

TASK_DEAD, EXIT_DEAD, EXIT_ZOMBIE = 0x80, 0x10, 0x20
STATES = {
    "R": 0, "S": 0x1, "D": 0x2, "T": 0x4, "t": 0x8, "X": TASK_DEAD, "Z": TASK_DEAD, "x": TASK_DEAD, "P": 0x40, "I": 0x402,
    "K": 0x100, "W": 0x200, "N": 0x400, "n": 0x800,
}  # fmt: skip
"""__state by letter. Kernel: include/linux/sched.h (TASK_*)"""
EXITS = {"X": EXIT_DEAD, "Z": EXIT_ZOMBIE}
"""exit_state by letter."""

_PRINTED = re.compile(r"prev_state=([A-Za-z|]*)(\+?)(?:\s|$)")
_MODERN = {1: "S", 2: "D", 4: "T", 8: "t", 0x10: "X", 0x20: "Z", 0x40: "P", 0x80: "I"}
_MODERN_MAX = 0x100
_TABLE_LIMIT = 1 << 16


class SwitchState(NamedTuple):
    """Of one record, or as columns of all."""

    preempt: Any
    state: Any
    exit_state: Any


def switch_states(table: EventTable) -> SwitchState:
    """Columns for every row of a table of sched_switch: uint8, uint32, uint32."""
    column = np.asarray(table.fields["prev_state"])
    if not len(column):
        return SwitchState(np.zeros(0, np.uint8), np.zeros(0, np.uint32), np.zeros(0, np.uint32))
    values, places = _different(column)
    rows = [switch_state(table.fmt, value) for value in values]
    kinds = (np.uint8, np.uint32, np.uint32)
    columns = (np.array(part, kind)[places] for part, kind in zip(zip(*rows, strict=True), kinds, strict=True))
    return SwitchState(*columns)


def _different(column: NDArray[Any]) -> tuple[list[int], NDArray[Any]]:
    """(the different values, for each row the place of its own among them)."""
    if int(column.min()) < 0 or int(column.max()) >= _TABLE_LIMIT:
        values, places = np.unique(column, return_inverse=True)
        return values.tolist(), places.reshape(-1)
    seen = np.zeros(int(column.max()) + 1, np.bool_)
    seen[column] = True
    found = np.flatnonzero(seen)
    place = np.zeros(len(seen), np.intp)
    place[found] = np.arange(len(found))
    return found.tolist(), place[column]


@functools.lru_cache(maxsize=1024)
def switch_state(fmt: EventFormat | None, value: int) -> SwitchState:
    """What one recorded value meant. A preempted task was running, whatever else is set."""
    letters, preempted = _letters(fmt, value)
    if preempted:
        return SwitchState(1, 0, 0)
    states = [STATES.get(letter, 0) for letter in letters]
    exits = [EXITS.get(letter, 0) for letter in letters]
    return SwitchState(0, functools.reduce(int.__or__, states, 0), functools.reduce(int.__or__, exits, 0))


def _letters(fmt: EventFormat | None, value: int) -> tuple[list[str], bool]:
    """(the flags' letters, whether there is a "+") as the recorded kernel prints a value; as a modern one if it does not say."""
    text = _printed(fmt)
    found = _PRINTED.search(text.text(_record(text.fmt, value))) if text is not None else None
    if found is not None:
        return found[1].split("|"), bool(found[2])
    return [letter for bit, letter in _MODERN.items() if value & bit], bool(value & _MODERN_MAX)


@functools.lru_cache(maxsize=64)
def _printed(fmt: EventFormat | None) -> PrintFormat | None:
    if fmt is None or not fmt.print_fmt or fmt.field("prev_state") is None:
        return None
    text = PrintFormat(fmt)
    return None if text.error else text


def _record(fmt: EventFormat, value: int) -> bytes:
    spec = fmt.field("prev_state")
    assert spec is not None
    record = bytearray(fmt.size)
    record[spec.offset : spec.offset + spec.size] = (value & (1 << 8 * spec.size) - 1).to_bytes(spec.size, "little")
    return bytes(record)
