"""Backlogs: what a replay takes out of rings that are full, so that nothing is lost; kept until somebody reads it.

A backlog is a chain of chunks from malloc, filled in order. Who fills one holds the lock of what it belongs to; who empties
one has the machine. Machine.keep says how many bytes all backlogs together may take yet: when it is used up there is no room,
and what is full stays full. Must not know: what the bytes mean.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, fetch_add64, free, malloc, memcpy, native, store64
from fastrtp.native.records import Backlog, BacklogChunk, Machine

_FIRST = Backlog.layout.at("first")
_NEXT = BacklogChunk.layout.at("next")
_HEAD = BacklogChunk.layout.size
_KEEP = Machine.layout.at("keep")
_CHUNK = 1 << 18


@device
def backlog_room(machine: Machine, backlog: Backlog, size: int) -> int:
    """Address of `size` bytes at the end of a backlog, or 0."""
    last = backlog.last
    if not last or last.used + size > last.room:
        room = size if size > _CHUNK else _CHUNK
        if fetch_add64(int(machine) + _KEEP, -room) < room:
            fetch_add64(int(machine) + _KEEP, room)
            return 0
        chunk = BacklogChunk(malloc(_HEAD + room))
        if not chunk:
            fetch_add64(int(machine) + _KEEP, room)
            return 0
        chunk.next = BacklogChunk(0)
        chunk.used = 0
        chunk.room = room
        store64(int(last) + _NEXT if last else int(backlog) + _FIRST, int(chunk))
        backlog.last = chunk
        last = chunk
    used = last.used
    last.used = used + size
    return int(last) + _HEAD + used


@device
def drain_array(machine: Machine, backlog: Backlog, data: int, used: int) -> int:
    """Move the `used` bytes at `data` to the backlog, if a replay drains and there is room; how many are left, 0 or `used`."""
    if machine.drains == 0 or used == 0:
        return used
    room = backlog_room(machine, backlog, used)
    if room == 0:
        return used
    memcpy(room, data, used)
    return 0


@device
def _drop_first(machine: Machine, backlog: Backlog, chunk: BacklogChunk) -> None:
    following = chunk.next
    backlog.first = following
    if not following:
        backlog.last = BacklogChunk(0)
    fetch_add64(int(machine) + _KEEP, chunk.room)
    free(int(chunk))


@device
def backlog_next(machine: Machine, backlog: Backlog, out: int, room: int) -> int:
    """Move the oldest chunk's bytes to `out`: how many; 0 for an empty backlog, -1 - needed when there is too little room."""
    chunk = backlog.first
    if not chunk:
        return 0
    used = chunk.used
    if used > room:
        return -1 - used
    memcpy(out, int(chunk) + _HEAD, used)
    _drop_first(machine, backlog, chunk)
    return used


@native()
def backlog_take(machine: Machine, backlog: Backlog, out: int, room: int) -> int:
    """The same, for Python, which has the machine."""
    return backlog_next(machine, backlog, out, room)


@device
def backlog_drop(machine: Machine, backlog: Backlog) -> None:
    """Throw all away."""
    while backlog.first:
        _drop_first(machine, backlog, backlog.first)


@native()
def backlog_free(machine: Machine, backlog: Backlog) -> int:
    """The same, for Python."""
    backlog_drop(machine, backlog)
    return 0
