"""bpf_timer: helpers, and the firing of what is due, in order of expiry (those that expire together in order of start).

Timers fire at defined points, when nothing else runs: in a replay before the first event that is not earlier, otherwise
before an event is fired or a program is test run, and when the kernel is told to. Their callbacks see the time of expiry
(live: the host's clock). While several loops run side by side none fires. Kernel: kernel/bpf/helpers.c:bpf_timer_*, bpf_timer_cb.
"""

from __future__ import annotations

from errno import EBUSY, EDEADLK, EINVAL, ENOMEM, EPERM

from fastrtp.maps.field_rows_native import FIELD_TIMER, field_offset
from fastrtp.maps.htab_elem_native import htab_key
from fastrtp.maps.records import MapRecord
from fastrtp.native.heap_native import heap_alloc, heap_free
from fastrtp.native.intrinsics import call_subprog, clock_gettime, device, load64, native, stack_bytes, store32, store64
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import NEVER, Env, Machine, Timer, Timers
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_F_TIMER_ABS, BPF_F_TIMER_CPU_PIN

_LOCK = Timers.layout.at("lock")
_EXPIRES = Timer.layout.at("expires")
_SIZE = Timer.layout.size
_CLOCK = Env.layout.at("clock")
_UREF = MapRecord.layout.at("uref")

_ARRAY = 2
_REALTIME, _MONOTONIC, _BOOTTIME = 0, 1, 7
_MAX_CLOCKS = 16
_LEAST = 1000
"""ns from one run of a callback to the next: what hardware takes at least, so that virtual time goes on."""


@device
def _now(env: Env) -> int:
    if env.clock == 0:
        return env.time
    spec = stack_bytes(16)
    clock_gettime(1, spec)
    return load64(spec) * 1_000_000_000 + load64(spec + 8)


@device
def _before(a: Timer, b: Timer) -> bool:
    first, second = a.expires, b.expires
    return first < second or (first == second and a.seq < b.seq)


@device
def _put(queue: int, place: int, timer: Timer) -> None:
    store64(queue + (place - 1) * 8, int(timer))
    timer.place = place


@device
def _settle(queue: int, count: int, place: int, timer: Timer) -> None:
    """Move a timer from `place` to where it belongs."""
    while place > 1:
        parent = Timer(load64(queue + ((place >> 1) - 1) * 8))
        if not _before(timer, parent):
            break
        _put(queue, place, parent)
        place >>= 1
    while place * 2 <= count:
        below = place * 2
        child = Timer(load64(queue + (below - 1) * 8))
        if below < count and _before(Timer(load64(queue + below * 8)), child):
            child = Timer(load64(queue + below * 8))
            below += 1
        if not _before(child, timer):
            break
        _put(queue, place, child)
        place = below
    _put(queue, place, timer)


@device
def _tell_next(machine: Machine, timers: Timers) -> None:
    first = NEVER
    if timers.count != 0:
        first = load64(load64(int(timers.queue)) + _EXPIRES)
    machine.timer_next = first


@device
def _disarm(machine: Machine, timer: Timer) -> int:
    """Take a timer out of the queue; whether it was in it."""
    place = timer.place
    if place == 0:
        return 0
    timers = machine.timers
    queue = timers.queue
    count = timers.count
    timer.place = 0
    last = Timer(queue[count - 1])
    timers.count = count - 1
    if last != timer:
        _settle(int(queue), count - 1, place, last)
    _tell_next(machine, timers)
    return 1


@device
def timer_free(machine: Machine, timer: Timer) -> None:
    """The value that a timer is in is gone. Kernel: bpf_timer_cancel_and_free."""
    timers = machine.timers
    spin_lock(int(timers) + _LOCK)
    _disarm(machine, timer)
    previous, following = timer.prev, timer.next
    if previous:
        previous.next = following
    else:
        timers.list = following
    if following:
        following.prev = previous
    timer.callback = 0
    spin_unlock(int(timers) + _LOCK)
    heap_free(machine, int(timer))


@device
def _init(field: int, map: MapRecord, flags: int, env: Env) -> int:
    if flags < 0 or flags >= _MAX_CLOCKS or (flags != _REALTIME and flags != _MONOTONIC and flags != _BOOTTIME):
        return -EINVAL
    if load64(field) != 0:
        return -EBUSY
    if map.uref == 0:
        return -EPERM
    machine = env.machine
    timer = Timer(heap_alloc(machine, _SIZE, 0))
    if not timer:
        return -ENOMEM
    timers = machine.timers
    following = timers.list
    timer.next = following
    if following:
        following.prev = timer
    timers.list = timer
    timer.map = int(map)
    timer.value = field - field_offset(map, FIELD_TIMER)
    timer.field = field
    timer.clock = flags
    store64(field, int(timer))
    return 0


@native()
def bpf_timer_init(field: int, map: MapRecord, flags: int, env: Env) -> int:
    """0, -EINVAL (clock), -EBUSY (done before), -EPERM (nobody holds the map) or -ENOMEM."""
    timers = env.machine.timers
    spin_lock(int(timers) + _LOCK)
    status = _init(field, map, flags, env)
    spin_unlock(int(timers) + _LOCK)
    return status


@device
def _set_callback(field: int, callback: int, env: Env) -> int:
    timer = Timer(load64(field))
    if not timer:
        return -EINVAL
    if load64(timer.map + _UREF) == 0:
        return -EPERM
    timer.callback = callback
    return 0


@native()
def bpf_timer_set_callback(field: int, callback: int, env: Env) -> int:
    """0, -EINVAL (no bpf_timer_init before), -EPERM (nobody holds the map)."""
    timers = env.machine.timers
    spin_lock(int(timers) + _LOCK)
    status = _set_callback(field, callback, env)
    spin_unlock(int(timers) + _LOCK)
    return status


@device
def _start(field: int, nsecs: int, flags: int, env: Env) -> int:
    if (flags & ~(BPF_F_TIMER_ABS | BPF_F_TIMER_CPU_PIN)) != 0:
        return -EINVAL
    timer = Timer(load64(field))
    if not timer or timer.callback == 0:
        return -EINVAL
    machine = env.machine
    timers = machine.timers
    now = _now(env)
    if (flags & BPF_F_TIMER_ABS) != 0:
        expires = nsecs
        if timer.clock == _BOOTTIME:
            expires -= env.boot_offset
    else:
        expires = NEVER - 1 if nsecs < 0 or nsecs > NEVER - 1 - now else now + nsecs
    if timers.running != 0 and expires < now + _LEAST:
        expires = now + _LEAST
    _disarm(machine, timer)
    count = timers.count
    if count == timers.room:
        return -ENOMEM
    timer.expires = expires
    timer.cpu = env.cpu
    timers.seq = timers.seq + 1
    timer.seq = timers.seq
    timers.count = count + 1
    _settle(int(timers.queue), count + 1, count + 1, timer)
    _tell_next(machine, timers)
    return 0


@native()
def bpf_timer_start(field: int, nsecs: int, flags: int, env: Env) -> int:
    """0 or -EINVAL (flags; no callback). One that is armed is armed anew."""
    timers = env.machine.timers
    spin_lock(int(timers) + _LOCK)
    status = _start(field, nsecs, flags, env)
    spin_unlock(int(timers) + _LOCK)
    return status


@device
def _cancel(field: int, env: Env) -> int:
    timer = Timer(load64(field))
    if not timer:
        return -EINVAL
    machine = env.machine
    if machine.timers.running == int(timer):
        return -EDEADLK
    timer.callback = 0
    return _disarm(machine, timer)


@native()
def bpf_timer_cancel(field: int, env: Env) -> int:
    """1 when it was armed, 0 when not; -EINVAL (no bpf_timer_init before), -EDEADLK (in its own callback)."""
    timers = env.machine.timers
    spin_lock(int(timers) + _LOCK)
    status = _cancel(field, env)
    spin_unlock(int(timers) + _LOCK)
    return status


@native()
def timers_run(machine: Machine, until: int) -> int:
    """Run the callbacks of all timers that expire at `until` or before; how many. The machine is the caller's."""
    timers = machine.timers
    if timers.running != 0:
        return 0
    key = stack_bytes(8)
    fired = 0
    while machine.timer_next <= until:
        timer = Timer(load64(int(timers.queue)))
        _disarm(machine, timer)
        env = machine.env[timer.cpu]
        map, value = MapRecord(timer.map), timer.value
        if map.map_type == _ARRAY:
            store32(key, (value - map.values) // map.elem_size)
            at_key = key
        else:
            at_key = htab_key(map, value - map.value_at)
        if env.clock == 0:
            env.time = timer.expires
        timers.running = int(timer)
        call_subprog(timer.callback, int(map), at_key, value, 0, 0, int(env))
        timers.running = 0
        fired += 1
    return fired


@device
def run_due_timers(machine: Machine) -> int:
    """Those that are due by the host's clock, where that is the clock and nothing else is running."""
    env = int(machine.env)
    if machine.timer_next == NEVER or load64(env + _CLOCK) == 0 or machine.depth != 1:
        return 0
    return timers_run(machine, _now(Env(env)))


@native()
def machine_run_timers(machine: Machine) -> int:
    """Let due timers fire; how many did."""
    enter(machine)
    fired = run_due_timers(machine)
    leave(machine)
    return fired


@native()
def timers_shift(machine: Machine, delta: int) -> int:
    """The clock jumps by `delta` ns: what is armed stays as far away as it was."""
    enter(machine)
    timers = machine.timers
    queue = timers.queue
    for number in range(timers.count):
        timer = Timer(queue[number])
        if timer.expires < NEVER - 1:
            timer.expires = timer.expires + delta
    _tell_next(machine, timers)
    leave(machine)
    return 0


@native()
def timers_within(machine: Machine, low: int, high: int) -> int:
    """How many timers have a callback in [low, high)."""
    enter(machine)
    found = 0
    timer = machine.timers.list
    while timer:
        if low <= timer.callback < high:
            found += 1
        timer = timer.next
    leave(machine)
    return found
