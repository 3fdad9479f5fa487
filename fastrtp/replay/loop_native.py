"""The linked replay loop: events in time order, their objects brought up to date, their tracepoints fired.

Must not know: programs, links, BTF. It calls trace_call<N> through the address in REPLAY_EVENT.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import (
    call_trace,
    device,
    load8,
    load8s,
    load16,
    load16s,
    load32,
    load32s,
    load64,
    memcpy,
    memset,
    native,
    stack_bytes,
    store8,
    store16,
    store32,
    store64,
)
from fastrtp.native.layout import ENV, ENV_STRIDE, MACHINE, REPLAY, REPLAY_ARG, REPLAY_EVENT, REPLAY_STORE, TRACEPOINT, at
from fastrtp.native.machine_native import enter, leave

_MACHINE = at(REPLAY, "machine")
_TIMES = at(REPLAY, "time")
_CPUS = at(REPLAY, "cpu")
_EVENTS_OF = at(REPLAY, "event")
_ROWS = at(REPLAY, "row")
_CURRENTS = at(REPLAY, "current")
_KINDS = at(REPLAY, "events")
_POSITION = at(REPLAY, "position")
_END = at(REPLAY, "end")
_FIRED = at(REPLAY, "fired")
_ENVS = at(MACHINE, "env")
_STOP = at(MACHINE, "stop")
_TRACEPOINT = at(REPLAY_EVENT, "tracepoint")
_TRACE = at(REPLAY_EVENT, "trace")
_NUM_ARGS = at(REPLAY_EVENT, "num_args")
_ARGS = at(REPLAY_EVENT, "args")
_NUM_STORES = at(REPLAY_EVENT, "num_stores")
_STORES = at(REPLAY_EVENT, "stores")
_KIND_SIZE = REPLAY_EVENT.itemsize
_ARG_COLUMN = at(REPLAY_ARG, "column")
_ARG_WIDTH = at(REPLAY_ARG, "width")
_ARG_CONST = at(REPLAY_ARG, "const")
_ARG_SIZE = REPLAY_ARG.itemsize
_STORE_ARG = at(REPLAY_STORE, "base_arg")
_STORE_BASE = at(REPLAY_STORE, "base")
_STORE_CONST = at(REPLAY_STORE, "base_const")
_STORE_OFFSET = at(REPLAY_STORE, "offset")
_STORE_COLUMN = at(REPLAY_STORE, "column")
_STORE_WIDTH = at(REPLAY_STORE, "width")
_STORE_SIZE = at(REPLAY_STORE, "size")
_STORE_ITEM = REPLAY_STORE.itemsize
_KEY = at(TRACEPOINT, "key")
_TIME = at(ENV, "time")
_CURRENT = at(ENV, "current")


@device
def column_item(column, width, row):
    """Item `row` of an integer column as int64; a negative width says signed items."""
    if width == 8:
        return load64(column + row * 8)
    if width == 4:
        return load32(column + row * 4)
    if width == -4:
        return load32s(column + row * 4)
    if width == 2:
        return load16(column + row * 2)
    if width == -2:
        return load16s(column + row * 2)
    if width == -1:
        return load8s(column + row)
    return load8(column + row)


@device
def _store_field(item, args, row):
    arg = load64(item + _STORE_ARG)
    if arg >= 0:
        base = load64(args + arg * 8)
    else:
        column = load64(item + _STORE_BASE)
        base = load64(column + row * 8) if column != 0 else load64(item + _STORE_CONST)
    if base == 0:
        return
    target = base + load64(item + _STORE_OFFSET)
    column = load64(item + _STORE_COLUMN)
    width = load64(item + _STORE_WIDTH)
    size = load64(item + _STORE_SIZE)
    if width == 16 and size == 16:  # a comm
        store64(target, load64(column + row * 16))
        store64(target + 8, load64(column + row * 16 + 8))
    elif width > 8:
        count = width if width < size else size
        memcpy(target, column + row * width, count)
        if count < size:
            memset(target + count, 0, size - count)
    else:
        value = column_item(column, width, row)
        if size == 8:
            store64(target, value)
        elif size == 4:
            store32(target, value)
        elif size == 2:
            store16(target, value)
        else:
            store8(target, value)


@device
def materialize(kind, row, args):
    """Arguments of one event into args[], recorded fields into their objects."""
    item = load64(kind + _ARGS)
    count = load64(kind + _NUM_ARGS)
    index = 0
    while index < count:
        column = load64(item + _ARG_COLUMN)
        value = column_item(column, load64(item + _ARG_WIDTH), row) if column != 0 else load64(item + _ARG_CONST)
        store64(args + index * 8, value)
        item += _ARG_SIZE
        index += 1
    item = load64(kind + _STORES)
    count = load64(kind + _NUM_STORES)
    while count > 0:
        _store_field(item, args, row)
        item += _STORE_ITEM
        count -= 1


@native()
def replay_run(replay, limit):
    """Play at most `limit` events; how many were played. Stops early when the machine is told to."""
    machine = load64(replay + _MACHINE)
    enter(machine)
    times = load64(replay + _TIMES)
    cpus = load64(replay + _CPUS)
    events = load64(replay + _EVENTS_OF)
    rows = load64(replay + _ROWS)
    currents = load64(replay + _CURRENTS)
    kinds = load64(replay + _KINDS)
    envs = load64(machine + _ENVS)
    first = load64(replay + _POSITION)
    position = first
    end = load64(replay + _END)
    if end > position + limit:
        end = position + limit
    fired = 0
    args = stack_bytes(96)
    while position < end:
        kind = kinds + load16(events + position * 2) * _KIND_SIZE
        tracepoint = load64(kind + _TRACEPOINT)
        live = tracepoint != 0 and load64(tracepoint + _KEY) != 0
        if live or load64(kind + _NUM_STORES) != 0:
            materialize(kind, load32(rows + position * 4), args)
            if live:
                env = envs + load16(cpus + position * 2) * ENV_STRIDE
                store64(env + _TIME, load64(times + position * 8))
                store64(env + _CURRENT, load64(currents + position * 8))
                call_trace(load64(kind + _TRACE), tracepoint, args, env)
                fired += 1
                if load64(machine + _STOP) != 0:
                    position += 1
                    break
        position += 1
    store64(replay + _POSITION, position)
    store64(replay + _FIRED, load64(replay + _FIRED) + fired)
    leave(machine)
    return position - first
