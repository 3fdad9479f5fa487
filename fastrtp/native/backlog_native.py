"""Backlogs: what a replay takes out of rings that are full, so that nothing is lost; kept until somebody reads it.

A backlog is a chain of chunks from malloc, filled in order. Who fills one holds the lock of what it belongs to; who empties
one has the machine. MACHINE.keep says how many bytes all backlogs together may take yet: when it is used up there is no room,
and what is full stays full. Must not know: what the bytes mean.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, fetch_add64, free, load64, malloc, memcpy, native, store64
from fastrtp.native.layout import BACKLOG, BACKLOG_CHUNK, MACHINE, at

_FIRST = at(BACKLOG, "first")
_LAST = at(BACKLOG, "last")
_NEXT = at(BACKLOG_CHUNK, "next")
_USED = at(BACKLOG_CHUNK, "used")
_ROOM = at(BACKLOG_CHUNK, "room")
_HEAD = BACKLOG_CHUNK.itemsize
_DRAINS = at(MACHINE, "drains")
_KEEP = at(MACHINE, "keep")
_CHUNK = 1 << 18


@device
def backlog_room(machine: int, backlog: int, size: int) -> int:
    """Address of `size` bytes at the end of a backlog, or 0."""
    last = load64(backlog + _LAST)
    if last == 0 or load64(last + _USED) + size > load64(last + _ROOM):
        room = size if size > _CHUNK else _CHUNK
        if fetch_add64(machine + _KEEP, -room) < room:
            fetch_add64(machine + _KEEP, room)
            return 0
        chunk = malloc(_HEAD + room)
        if chunk == 0:
            fetch_add64(machine + _KEEP, room)
            return 0
        store64(chunk + _NEXT, 0)
        store64(chunk + _USED, 0)
        store64(chunk + _ROOM, room)
        store64(last + _NEXT if last != 0 else backlog + _FIRST, chunk)
        store64(backlog + _LAST, chunk)
        last = chunk
    used = load64(last + _USED)
    store64(last + _USED, used + size)
    return last + _HEAD + used


@device
def drain_array(machine: int, backlog: int, data: int, used: int) -> int:
    """Move the `used` bytes at `data` to the backlog, if a replay drains and there is room; how many are left, 0 or `used`."""
    if load64(machine + _DRAINS) == 0 or used == 0:
        return used
    room = backlog_room(machine, backlog, used)
    if room == 0:
        return used
    memcpy(room, data, used)
    return 0


@device
def _drop_first(machine: int, backlog: int, chunk: int) -> None:
    following = load64(chunk + _NEXT)
    store64(backlog + _FIRST, following)
    if following == 0:
        store64(backlog + _LAST, 0)
    fetch_add64(machine + _KEEP, load64(chunk + _ROOM))
    free(chunk)


@device
def backlog_next(machine: int, backlog: int, out: int, room: int) -> int:
    """Move the oldest chunk's bytes to `out`: how many; 0 for an empty backlog, -1 - needed when there is too little room."""
    chunk = load64(backlog + _FIRST)
    if chunk == 0:
        return 0
    used = load64(chunk + _USED)
    if used > room:
        return -1 - used
    memcpy(out, chunk + _HEAD, used)
    _drop_first(machine, backlog, chunk)
    return used


@native()
def backlog_take(machine: int, backlog: int, out: int, room: int) -> int:
    """The same, for Python, which has the machine."""
    return backlog_next(machine, backlog, out, room)


@device
def backlog_drop(machine: int, backlog: int) -> None:
    """Throw all away."""
    while load64(backlog + _FIRST) != 0:
        _drop_first(machine, backlog, load64(backlog + _FIRST))


@native()
def backlog_free(machine: int, backlog: int) -> int:
    """The same, for Python."""
    backlog_drop(machine, backlog)
    return 0
