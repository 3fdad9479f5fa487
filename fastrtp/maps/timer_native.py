"""bpf_timer: helpers, and the firing of what is due, in order of expiry (those that expire together in order of start).

Timers fire at defined points, when nothing else runs: in a replay before the first event that is not earlier, otherwise
before an event is fired or a program is test run, and when the kernel is told to. Their callbacks see the time of expiry
(live: the host's clock). While several loops run side by side none fires. Kernel: kernel/bpf/helpers.c:bpf_timer_*, bpf_timer_cb.
"""

from __future__ import annotations

from errno import EBUSY, EDEADLK, EINVAL, ENOMEM, EPERM

from fastrtp.maps.field_rows_native import FIELD_TIMER, field_offset
from fastrtp.maps.htab_elem_native import htab_key
from fastrtp.native.heap_native import heap_alloc, heap_free
from fastrtp.native.intrinsics import call_subprog, clock_gettime, device, load64, native, stack_bytes, store32, store64
from fastrtp.native.layout import ENV, ENV_STRIDE, MACHINE, MAP, NEVER, TIMER, TIMERS, at
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_F_TIMER_ABS, BPF_F_TIMER_CPU_PIN

_TIMERS = at(MACHINE, "timers")
_TIMER_NEXT = at(MACHINE, "timer_next")
_ENVS = at(MACHINE, "env")
_DEPTH = at(MACHINE, "depth")
_QUEUE = at(TIMERS, "queue")
_COUNT = at(TIMERS, "count")
_ROOM = at(TIMERS, "room")
_SEQ_OF = at(TIMERS, "seq")
_LIST = at(TIMERS, "list")
_RUNNING = at(TIMERS, "running")
_LOCK = at(TIMERS, "lock")
_MAP = at(TIMER, "map")
_VALUE = at(TIMER, "value")
_CALLBACK = at(TIMER, "callback")
_EXPIRES = at(TIMER, "expires")
_PLACE = at(TIMER, "place")
_SEQ = at(TIMER, "seq")
_TIMER_CPU = at(TIMER, "cpu")
_TIMER_CLOCK = at(TIMER, "clock")
_PREV = at(TIMER, "prev")
_NEXT = at(TIMER, "next")
_FIELD = at(TIMER, "field")
_SIZE = TIMER.itemsize
_MACHINE = at(ENV, "machine")
_TIME = at(ENV, "time")
_CLOCK = at(ENV, "clock")
_CPU = at(ENV, "cpu")
_BOOT = at(ENV, "boot_offset")
_MAP_TYPE = at(MAP, "map_type")
_VALUE_AT = at(MAP, "value_at")
_ELEM_SIZE = at(MAP, "elem_size")
_VALUES = at(MAP, "values")
_UREF = at(MAP, "uref")

_ARRAY = 2
_REALTIME, _MONOTONIC, _BOOTTIME = 0, 1, 7
_MAX_CLOCKS = 16
_LEAST = 1000
"""ns from one run of a callback to the next: what hardware takes at least, so that virtual time goes on."""


@device
def _now(env: int) -> int:
    if load64(env + _CLOCK) == 0:
        return load64(env + _TIME)
    spec = stack_bytes(16)
    clock_gettime(1, spec)
    return load64(spec) * 1_000_000_000 + load64(spec + 8)


@device
def _before(a: int, b: int) -> bool:
    first, second = load64(a + _EXPIRES), load64(b + _EXPIRES)
    return first < second or (first == second and load64(a + _SEQ) < load64(b + _SEQ))


@device
def _put(queue: int, place: int, timer: int) -> None:
    store64(queue + (place - 1) * 8, timer)
    store64(timer + _PLACE, place)


@device
def _settle(queue: int, count: int, place: int, timer: int) -> None:
    """Move a timer from `place` to where it belongs."""
    while place > 1:
        parent = load64(queue + ((place >> 1) - 1) * 8)
        if not _before(timer, parent):
            break
        _put(queue, place, parent)
        place >>= 1
    while place * 2 <= count:
        below = place * 2
        child = load64(queue + (below - 1) * 8)
        if below < count and _before(load64(queue + below * 8), child):
            child = load64(queue + below * 8)
            below += 1
        if not _before(child, timer):
            break
        _put(queue, place, child)
        place = below
    _put(queue, place, timer)


@device
def _tell_next(machine: int, timers: int) -> None:
    first = NEVER
    if load64(timers + _COUNT) != 0:
        first = load64(load64(load64(timers + _QUEUE)) + _EXPIRES)
    store64(machine + _TIMER_NEXT, first)


@device
def _disarm(machine: int, timer: int) -> int:
    """Take a timer out of the queue; whether it was in it."""
    place = load64(timer + _PLACE)
    if place == 0:
        return 0
    timers = load64(machine + _TIMERS)
    queue = load64(timers + _QUEUE)
    count = load64(timers + _COUNT)
    store64(timer + _PLACE, 0)
    last = load64(queue + (count - 1) * 8)
    store64(timers + _COUNT, count - 1)
    if last != timer:
        _settle(queue, count - 1, place, last)
    _tell_next(machine, timers)
    return 1


@device
def timer_free(machine: int, timer: int) -> None:
    """The value that a timer is in is gone. Kernel: bpf_timer_cancel_and_free."""
    timers = load64(machine + _TIMERS)
    spin_lock(timers + _LOCK)
    _disarm(machine, timer)
    previous, following = load64(timer + _PREV), load64(timer + _NEXT)
    if previous != 0:
        store64(previous + _NEXT, following)
    else:
        store64(timers + _LIST, following)
    if following != 0:
        store64(following + _PREV, previous)
    store64(timer + _CALLBACK, 0)
    spin_unlock(timers + _LOCK)
    heap_free(machine, timer)


@device
def _init(field: int, map: int, flags: int, env: int) -> int:
    if flags < 0 or flags >= _MAX_CLOCKS or (flags != _REALTIME and flags != _MONOTONIC and flags != _BOOTTIME):
        return -EINVAL
    if load64(field) != 0:
        return -EBUSY
    if load64(map + _UREF) == 0:
        return -EPERM
    machine = load64(env + _MACHINE)
    timer = heap_alloc(machine, _SIZE, 0)
    if timer == 0:
        return -ENOMEM
    timers = load64(machine + _TIMERS)
    following = load64(timers + _LIST)
    store64(timer + _NEXT, following)
    if following != 0:
        store64(following + _PREV, timer)
    store64(timers + _LIST, timer)
    store64(timer + _MAP, map)
    store64(timer + _VALUE, field - field_offset(map, FIELD_TIMER))
    store64(timer + _FIELD, field)
    store64(timer + _TIMER_CLOCK, flags)
    store64(field, timer)
    return 0


@native()
def bpf_timer_init(field: int, map: int, flags: int, env: int) -> int:
    """0, -EINVAL (clock), -EBUSY (done before), -EPERM (nobody holds the map) or -ENOMEM."""
    timers = load64(load64(env + _MACHINE) + _TIMERS)
    spin_lock(timers + _LOCK)
    status = _init(field, map, flags, env)
    spin_unlock(timers + _LOCK)
    return status


@device
def _set_callback(field: int, callback: int, env: int) -> int:
    timer = load64(field)
    if timer == 0:
        return -EINVAL
    if load64(load64(timer + _MAP) + _UREF) == 0:
        return -EPERM
    store64(timer + _CALLBACK, callback)
    return 0


@native()
def bpf_timer_set_callback(field: int, callback: int, env: int) -> int:
    """0, -EINVAL (no bpf_timer_init before), -EPERM (nobody holds the map)."""
    timers = load64(load64(env + _MACHINE) + _TIMERS)
    spin_lock(timers + _LOCK)
    status = _set_callback(field, callback, env)
    spin_unlock(timers + _LOCK)
    return status


@device
def _start(field: int, nsecs: int, flags: int, env: int) -> int:
    if (flags & ~(BPF_F_TIMER_ABS | BPF_F_TIMER_CPU_PIN)) != 0:
        return -EINVAL
    timer = load64(field)
    if timer == 0 or load64(timer + _CALLBACK) == 0:
        return -EINVAL
    machine = load64(env + _MACHINE)
    timers = load64(machine + _TIMERS)
    now = _now(env)
    if (flags & BPF_F_TIMER_ABS) != 0:
        expires = nsecs
        if load64(timer + _TIMER_CLOCK) == _BOOTTIME:
            expires -= load64(env + _BOOT)
    else:
        expires = NEVER - 1 if nsecs < 0 or nsecs > NEVER - 1 - now else now + nsecs
    if load64(timers + _RUNNING) != 0 and expires < now + _LEAST:
        expires = now + _LEAST
    _disarm(machine, timer)
    count = load64(timers + _COUNT)
    if count == load64(timers + _ROOM):
        return -ENOMEM
    store64(timer + _EXPIRES, expires)
    store64(timer + _TIMER_CPU, load64(env + _CPU))
    store64(timers + _SEQ_OF, load64(timers + _SEQ_OF) + 1)
    store64(timer + _SEQ, load64(timers + _SEQ_OF))
    store64(timers + _COUNT, count + 1)
    _settle(load64(timers + _QUEUE), count + 1, count + 1, timer)
    _tell_next(machine, timers)
    return 0


@native()
def bpf_timer_start(field: int, nsecs: int, flags: int, env: int) -> int:
    """0 or -EINVAL (flags; no callback). One that is armed is armed anew."""
    timers = load64(load64(env + _MACHINE) + _TIMERS)
    spin_lock(timers + _LOCK)
    status = _start(field, nsecs, flags, env)
    spin_unlock(timers + _LOCK)
    return status


@device
def _cancel(field: int, env: int) -> int:
    timer = load64(field)
    if timer == 0:
        return -EINVAL
    machine = load64(env + _MACHINE)
    if load64(load64(machine + _TIMERS) + _RUNNING) == timer:
        return -EDEADLK
    store64(timer + _CALLBACK, 0)
    return _disarm(machine, timer)


@native()
def bpf_timer_cancel(field: int, env: int) -> int:
    """1 when it was armed, 0 when not; -EINVAL (no bpf_timer_init before), -EDEADLK (in its own callback)."""
    timers = load64(load64(env + _MACHINE) + _TIMERS)
    spin_lock(timers + _LOCK)
    status = _cancel(field, env)
    spin_unlock(timers + _LOCK)
    return status


@native()
def timers_run(machine: int, until: int) -> int:
    """Run the callbacks of all timers that expire at `until` or before; how many. The machine is the caller's."""
    timers = load64(machine + _TIMERS)
    if load64(timers + _RUNNING) != 0:
        return 0
    key = stack_bytes(8)
    fired = 0
    while load64(machine + _TIMER_NEXT) <= until:
        timer = load64(load64(timers + _QUEUE))
        _disarm(machine, timer)
        env = load64(machine + _ENVS) + load64(timer + _TIMER_CPU) * ENV_STRIDE
        map, value = load64(timer + _MAP), load64(timer + _VALUE)
        if load64(map + _MAP_TYPE) == _ARRAY:
            store32(key, (value - load64(map + _VALUES)) // load64(map + _ELEM_SIZE))
            at_key = key
        else:
            at_key = htab_key(map, value - load64(map + _VALUE_AT))
        if load64(env + _CLOCK) == 0:
            store64(env + _TIME, load64(timer + _EXPIRES))
        store64(timers + _RUNNING, timer)
        call_subprog(load64(timer + _CALLBACK), map, at_key, value, 0, 0, env)
        store64(timers + _RUNNING, 0)
        fired += 1
    return fired


@device
def run_due_timers(machine: int) -> int:
    """Those that are due by the host's clock, where that is the clock and nothing else is running."""
    env = load64(machine + _ENVS)
    if load64(machine + _TIMER_NEXT) == NEVER or load64(env + _CLOCK) == 0 or load64(machine + _DEPTH) != 1:
        return 0
    return timers_run(machine, _now(env))


@native()
def machine_run_timers(machine: int) -> int:
    """Let due timers fire; how many did."""
    enter(machine)
    fired = run_due_timers(machine)
    leave(machine)
    return fired


@native()
def timers_shift(machine: int, delta: int) -> int:
    """The clock jumps by `delta` ns: what is armed stays as far away as it was."""
    enter(machine)
    timers = load64(machine + _TIMERS)
    queue = load64(timers + _QUEUE)
    for number in range(load64(timers + _COUNT)):
        timer = load64(queue + number * 8)
        if load64(timer + _EXPIRES) < NEVER - 1:
            store64(timer + _EXPIRES, load64(timer + _EXPIRES) + delta)
    _tell_next(machine, timers)
    leave(machine)
    return 0


@native()
def timers_within(machine: int, low: int, high: int) -> int:
    """How many timers have a callback in [low, high)."""
    enter(machine)
    found = 0
    timer = load64(load64(machine + _TIMERS) + _LIST)
    while timer != 0:
        if low <= load64(timer + _CALLBACK) < high:
            found += 1
        timer = load64(timer + _NEXT)
    leave(machine)
    return found
