"""BPF_MAP_TYPE_RINGBUF and the rings behind BPF_MAP_TYPE_PERF_EVENT_ARRAY.

A record is {u32 length | BUSY | DISCARD, u32 1, data}, 8-aligned, at `position & mask`. A record that starts near the end
runs on past it: the data area is twice the ring's size, which stands for the kernel's double mapping. What is consumed is
zeroed, so a header whose second word is 0 has not been written yet.

A perf ring also notes when each record was written: an area of the ring's size beside it (MAP.slots), in which the time has
the place of the record's header, lets a reader put the samples of all CPUs into one order.

A ring that is full while a replay drains (Machine.drains) is emptied on the spot into its backlog, by the producer that finds
it full, a lock in its hand. What is not committed yet ends that: when the first record in the ring is one of these, there is
no room indeed.

Producers on several CPUs take their room with one atomic addition, and fill and commit it on their own. Whoever gets less
than is left gives it back before it looks again, the last first: until then the ring is more than full, which it never is
otherwise, and the others wait, or find that there is room by now. From three quarters on, and for large records, producers
look before they take.

Kernel: kernel/bpf/ringbuf.c (which has a lock there), kernel/trace/bpf_trace.c:bpf_perf_event_output_raw_tp.
"""

from __future__ import annotations

from errno import E2BIG, EAGAIN, EBUSY, EINVAL, ENOENT, ENOSPC

from fastrtp.maps.records import MapRecord, RingConsumer
from fastrtp.native.backlog_native import backlog_drop, backlog_next, backlog_room
from fastrtp.native.intrinsics import (
    cmpxchg64,
    device,
    fetch_add64,
    load32,
    load64,
    load_acquire,
    load_acquire32,
    memcpy,
    memset,
    native,
    outline,
    smp,
    store32,
    store64,
    store_release,
    ult,
)
from fastrtp.native.records import STATS_SMP, Env, Machine
from fastrtp.native.smp_native import add64, spin_lock, spin_unlock, store32_shared, wait_turn
from fastrtp.uapi import BPF_F_CURRENT_CPU, BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT

_PRODUCER = MapRecord.layout.at("producer")
_CONSUMER = MapRecord.layout.at("consumer")
_DROPPED = MapRecord.layout.at("dropped")
_LOCK = MapRecord.layout.at("lock")
_NEXT_RING = MapRecord.layout.at("next_ring")
_RINGS = Machine.layout.at("rings")
_STATS = Env.layout.at("stats")

_MAX_RECORD = 0xFFFFFFFF // 4

_PATIENCE = 1 << 12
"""How often a producer looks whether another CPU's record at the head of a full ring has been committed."""

_reserve_slow = outline("ring_reserve_slow", 4)
_host_time = outline("host_time", 1)


@device
def _reserve(map: MapRecord, need: int, ring: int) -> int:
    """Position of `need` bytes that are the caller's alone, or -1."""
    spare = ring >> 2
    if map.tight != 0 or need > spare:
        return _reserve_slow(int(map), need, -1, 0)
    producer = fetch_add64(int(map) + _PRODUCER, need)
    if producer + need - map.consumer > ring - spare:
        return _reserve_slow(int(map), need, producer, 0)
    return producer


@device
def ring_reserve(map: MapRecord, size: int) -> int:
    """Address of `size` bytes of a new, busy record, or 0 when there is no room."""
    if not ult(size, _MAX_RECORD + 1):
        return 0
    need = (size + 15) & ~7
    ring = map.max_entries
    if smp() == 0:
        producer = map.producer
        if need > ring or producer + need - map.consumer > ring - 1:
            if map.machine.drains == 0:  # said here, or every loss costs a call
                add64(int(map) + _DROPPED, 1)
                return 0
            producer = _reserve_slow(int(map), need, -1, 0)
            if producer < 0:
                return 0
        else:
            map.producer = producer + need
    else:
        producer = _reserve(map, need, ring)
        if producer < 0:
            return 0
    record = map.values + (producer & (ring - 1))
    store32(record, size | BPF_RINGBUF_BUSY_BIT)
    store32_shared(record + 4, 1)
    return record + 8


@device
def _drain(map: MapRecord) -> bool:
    """Move what is committed to the backlog, as far as there is room, as {u32 length, u32 0, u64 time, data}, 8-aligned.

    Whether a record that is not committed ended that.
    """
    machine = map.machine
    backlog = map.backlog
    times = map.slots
    values = map.values
    ring = map.max_entries
    consumer = map.consumer
    while consumer != load_acquire(int(map) + _PRODUCER):
        at_ring = consumer & (ring - 1)
        record = values + at_ring
        if load_acquire32(record + 4) == 0:
            return True
        header = load_acquire32(record)
        if header & BPF_RINGBUF_BUSY_BIT:
            return True
        length = header & ~BPF_RINGBUF_DISCARD_BIT
        need = (length + 15) & ~7
        if header & BPF_RINGBUF_DISCARD_BIT == 0:
            out = backlog_room(machine, backlog, need + 8)
            if out == 0:
                return False
            store64(out, length)
            store64(out + 8, load64(times + at_ring) if times != 0 else 0)
            memcpy(out + 16, record + 8, need - 8)
        memset(record, 0, need)
        consumer += need
        store_release(int(map) + _CONSUMER, consumer)
    return False


@device
def _make_room(map: MapRecord) -> bool:
    """Empty a ring that is full, if a replay drains; whether that made room. Another CPU's record at its head is waited for."""
    machine = map.machine
    if machine.drains == 0:
        return False
    alone = load64(int(machine.env) + _STATS) & STATS_SMP == 0
    before = load_acquire(int(map) + _CONSUMER)
    spins = 0
    while True:
        spin_lock(int(map) + _LOCK)
        pending = _drain(map)
        spin_unlock(int(map) + _LOCK)
        if load_acquire(int(map) + _CONSUMER) != before:
            map.tight = 0
            return True
        if not pending or alone or spins == _PATIENCE:
            return False
        wait_turn(spins)
        spins += 1


@native()
def ring_reserve_slow(map: MapRecord, need: int, taken: int, env: Env) -> int:
    """Position of `need` bytes in a ring with little room, or -1. `taken`: where the caller took them without a look, or -1."""
    most = map.max_entries - 1
    spins = 0
    if taken >= 0:
        map.tight = 1
        while True:
            if taken + need - load_acquire(int(map) + _CONSUMER) <= most:
                return taken
            if cmpxchg64(int(map) + _PRODUCER, taken + need, taken) == taken + need:
                break
            wait_turn(spins)  # those who took after that are before us
            spins += 1
    while True:
        consumer = load_acquire(int(map) + _CONSUMER)
        producer = load_acquire(int(map) + _PRODUCER)
        if producer - consumer > most:  # somebody took too much, and is about to give it back, or to find room
            wait_turn(spins)
            spins += 1
        elif producer - consumer + need <= most:
            if cmpxchg64(int(map) + _PRODUCER, producer, producer + need) == producer:
                return producer
        elif need > most or not _make_room(map):
            add64(int(map) + _DROPPED, 1)
            return -1


@native(inline=True)
def bpf_ringbuf_reserve(map: MapRecord, size: int, flags: int, env: Env) -> int:
    """Address of the record's data, or 0."""
    return ring_reserve(map, size) if flags == 0 else 0


@native(inline=True)
def bpf_ringbuf_submit(sample: int, flags: int, env: Env) -> int:
    """Publish a reserved record."""
    store32_shared(sample - 8, load32(sample - 8) & ~BPF_RINGBUF_BUSY_BIT)
    return 0


@native(inline=True)
def bpf_ringbuf_discard(sample: int, flags: int, env: Env) -> int:
    """Give a reserved record up: the consumer skips it."""
    store32_shared(sample - 8, (load32(sample - 8) & ~BPF_RINGBUF_BUSY_BIT) | BPF_RINGBUF_DISCARD_BIT)
    return 0


@native()
def bpf_ringbuf_output(map: MapRecord, data: int, size: int, flags: int, env: Env) -> int:
    """Copy a record in. 0, -EINVAL or -EAGAIN."""
    if flags & ~3:
        return -EINVAL
    record = ring_reserve(map, size)
    if record == 0:
        return -EAGAIN
    memcpy(record, data, size)
    store32_shared(record - 8, size)
    return 0


@device
def _producer_pos(map: MapRecord) -> int:
    """Position of the next record, as it is when nobody has taken too much."""
    producer = load_acquire(int(map) + _PRODUCER)
    spins = 0
    while smp() != 0 and producer - map.consumer >= map.max_entries:
        wait_turn(spins)
        spins += 1
        producer = load_acquire(int(map) + _PRODUCER)
    return producer


@native()
def bpf_ringbuf_query(map: MapRecord, what: int, env: Env) -> int:
    """BPF_RB_AVAIL_DATA, RING_SIZE, CONS_POS, PROD_POS; 0 for anything else."""
    if what == 0:
        return _producer_pos(map) - map.consumer
    if what == 1:
        return map.max_entries
    if what == 2:
        return map.consumer
    return _producer_pos(map) if what == 3 else 0


@device
def perf_sample(map: MapRecord, index: int, data: int, size: int, more: int, extra: int, env: Env) -> int:
    """Put a sample into the ring of the index's CPU: the data, and `extra` bytes behind it, from `more` (0: nobody knows them).

    0, -E2BIG, -ENOENT, -EBUSY or -ENOSPC. Kernel: kernel/trace/bpf_trace.c:__bpf_perf_event_output, bpf_event_output.
    """
    if env.output_nest >= 3:
        return -EBUSY
    if index == BPF_F_CURRENT_CPU:
        index = env.cpu
    if index >= map.max_entries:
        return -E2BIG
    ring = MapRecord(load64(map.values + index * 8))
    if not ring:
        return -ENOENT
    # perf pads a raw sample so that its u32 length and the data fill whole u64s; readers see the padded size
    padded = ((size + extra + 11) & ~7) - 4
    record = ring_reserve(ring, padded)
    if record == 0:
        return -ENOSPC
    memcpy(record, data, size)
    if more != 0:
        memcpy(record + size, more, extra)
        size += extra
    memset(record + size, 0, padded - size)
    now = env.time if env.clock == 0 else _host_time(int(env))
    store64(ring.slots + record - 8 - ring.values, now)
    store32_shared(record - 8, padded)
    return 0


@native()
def bpf_perf_event_output(ctx: int, map: MapRecord, flags: int, data: int, size: int, env: Env) -> int:
    """Copy a sample into the ring of the index's CPU. 0, -EINVAL, -E2BIG, -ENOENT, -EBUSY or -ENOSPC."""
    if flags & ~0xFFFFFFFF:
        return -EINVAL
    return perf_sample(map, flags, data, size, 0, 0, env)


@native()
def ring_consume(map: MapRecord, out: int, room: int) -> int:
    """Move committed records to `out` as {u32 length, u32 0, u64 time, data}, 8-aligned: the backlog's first.

    Bytes written, or -1 - needed when the first has no room.
    """
    backlog = map.backlog
    written = backlog_next(map.machine, backlog, out, room)
    if written != 0:
        return written
    times = map.slots
    ring = map.max_entries
    map.tight = 0
    while True:
        consumer = map.consumer
        if consumer == map.producer:
            return written
        at_ring = consumer & (ring - 1)
        record = map.values + at_ring
        header = load32(record)
        if header & BPF_RINGBUF_BUSY_BIT:
            return written
        length = header & ~BPF_RINGBUF_DISCARD_BIT
        need = (length + 15) & ~7
        if header & BPF_RINGBUF_DISCARD_BIT == 0:
            if written + need + 8 > room:
                return written if written != 0 else -9 - need
            store64(out + written, length)
            store64(out + written + 8, load64(times + at_ring) if times != 0 else 0)
            memcpy(out + written + 16, record + 8, need - 8)
            written += need + 8
        memset(record, 0, need)
        map.consumer = consumer + need


@native()
def ring_open(machine: Machine, ring: MapRecord) -> int:
    """A ring is there for readers."""
    ring.next_ring = MapRecord(machine.rings)
    machine.rings = int(ring)
    return 0


@native()
def ring_close(machine: Machine, ring: MapRecord) -> int:
    """It is not any more; what nobody has read is thrown away."""
    link = int(machine) + _RINGS
    while load64(link) != 0 and load64(link) != int(ring):
        link = load64(link) + _NEXT_RING
    if load64(link) == int(ring):
        store64(link, int(ring.next_ring))
    backlog_drop(machine, ring.backlog)
    return 0


@native()
def consumer_wake(consumer: RingConsumer, now: int) -> int:
    """A reader's time has come: everything that is committed goes to the backlogs."""
    ring = MapRecord(consumer.machine.rings)
    while ring:
        _drain(ring)
        ring = ring.next_ring
    due = consumer.due
    step = consumer.step
    consumer.due = due + ((now - due) // step + 1) * step
    return 0
