"""BPF_MAP_TYPE_RINGBUF and the rings behind BPF_MAP_TYPE_PERF_EVENT_ARRAY.

A record is {u32 length | BUSY | DISCARD, u32 0, data}, 8-aligned, at `position & mask`. A record that starts near the end
runs on past it: the data area is twice the ring's size, which stands for the kernel's double mapping.

Producers on several CPUs take their room with one atomic addition, and fill and commit it on their own. Whoever gets less
than is left gives it back before it looks again, the last first: until then the ring is more than full, which it never is
otherwise, and the others wait. From three quarters on, and for large records, producers look before they take. Nobody
consumes while programs run, so a record whose header is not written yet is never looked at.

Kernel: kernel/bpf/ringbuf.c (which has a lock there), kernel/trace/bpf_trace.c:bpf_perf_event_output_raw_tp.
"""

from __future__ import annotations

from errno import E2BIG, EAGAIN, EBUSY, EINVAL, ENOENT, ENOSPC

from fastrtp.native.intrinsics import (
    cmpxchg64,
    device,
    fetch_add64,
    load32,
    load64,
    load_acquire,
    memcpy,
    memset,
    native,
    outline,
    smp,
    store32,
    store64,
    ult,
)
from fastrtp.native.layout import ENV, MAP, at
from fastrtp.native.smp_native import add64, store32_shared, wait_turn
from fastrtp.uapi import BPF_F_CURRENT_CPU, BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT

_VALUES = at(MAP, "values")
_SIZE = at(MAP, "max_entries")
_PRODUCER = at(MAP, "producer")
_CONSUMER = at(MAP, "consumer")
_TIGHT = at(MAP, "tight")
_DROPPED = at(MAP, "dropped")
_CPU = at(ENV, "cpu")
_NEST = at(ENV, "output_nest")

_MAX_RECORD = 0xFFFFFFFF // 4

_reserve_slow = outline("ring_reserve_slow", 4)


@device
def _reserve(map: int, need: int, ring: int) -> int:
    """Position of `need` bytes that are the caller's alone, or -1."""
    spare = ring >> 2
    if load64(map + _TIGHT) != 0 or need > spare:
        return _reserve_slow(map, need, -1, 0)
    producer = fetch_add64(map + _PRODUCER, need)
    if producer + need - load64(map + _CONSUMER) > ring - spare:
        return _reserve_slow(map, need, producer, 0)
    return producer


@device
def ring_reserve(map: int, size: int) -> int:
    """Address of `size` bytes of a new, busy record, or 0 when there is no room."""
    if not ult(size, _MAX_RECORD + 1):
        return 0
    need = (size + 15) & ~7
    ring = load64(map + _SIZE)
    if smp() == 0:
        producer = load64(map + _PRODUCER)
        if need > ring or producer + need - load64(map + _CONSUMER) > ring - 1:
            add64(map + _DROPPED, 1)
            return 0
        store64(map + _PRODUCER, producer + need)
    else:
        producer = _reserve(map, need, ring)
        if producer < 0:
            return 0
    record = load64(map + _VALUES) + (producer & (ring - 1))
    store32(record, size | BPF_RINGBUF_BUSY_BIT)
    store32(record + 4, 0)
    return record + 8


@native()
def ring_reserve_slow(map: int, need: int, taken: int, env: int) -> int:
    """Position of `need` bytes in a ring with little room, or -1. `taken`: where the caller took them without a look, or -1."""
    most = load64(map + _SIZE) - 1
    consumer = load_acquire(map + _CONSUMER)
    spins = 0
    if taken >= 0:
        store64(map + _TIGHT, 1)
        if taken + need - consumer <= most:
            return taken
        while cmpxchg64(map + _PRODUCER, taken + need, taken) != taken + need:  # those who took after that are before us
            wait_turn(spins)
            spins += 1
    while True:
        producer = load_acquire(map + _PRODUCER)
        if producer - consumer > most:  # somebody took too much, and is about to give it back
            wait_turn(spins)
            spins += 1
        elif producer - consumer + need > most:
            add64(map + _DROPPED, 1)
            return -1
        elif cmpxchg64(map + _PRODUCER, producer, producer + need) == producer:
            return producer


@native(inline=True)
def bpf_ringbuf_reserve(map: int, size: int, flags: int, env: int) -> int:
    """Address of the record's data, or 0."""
    return ring_reserve(map, size) if flags == 0 else 0


@native(inline=True)
def bpf_ringbuf_submit(sample: int, flags: int, env: int) -> int:
    """Publish a reserved record."""
    store32_shared(sample - 8, load32(sample - 8) & ~BPF_RINGBUF_BUSY_BIT)
    return 0


@native(inline=True)
def bpf_ringbuf_discard(sample: int, flags: int, env: int) -> int:
    """Give a reserved record up: the consumer skips it."""
    store32_shared(sample - 8, (load32(sample - 8) & ~BPF_RINGBUF_BUSY_BIT) | BPF_RINGBUF_DISCARD_BIT)
    return 0


@native()
def bpf_ringbuf_output(map: int, data: int, size: int, flags: int, env: int) -> int:
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
def _producer_pos(map: int) -> int:
    """Position of the next record, as it is when nobody has taken too much."""
    producer = load_acquire(map + _PRODUCER)
    spins = 0
    while smp() != 0 and producer - load64(map + _CONSUMER) >= load64(map + _SIZE):
        wait_turn(spins)
        spins += 1
        producer = load_acquire(map + _PRODUCER)
    return producer


@native()
def bpf_ringbuf_query(map: int, what: int, env: int) -> int:
    """BPF_RB_AVAIL_DATA, RING_SIZE, CONS_POS, PROD_POS; 0 for anything else."""
    if what == 0:
        return _producer_pos(map) - load64(map + _CONSUMER)
    if what == 1:
        return load64(map + _SIZE)
    if what == 2:
        return load64(map + _CONSUMER)
    return _producer_pos(map) if what == 3 else 0


@native()
def bpf_perf_event_output(ctx: int, map: int, flags: int, data: int, size: int, env: int) -> int:
    """Copy a sample into the ring of the index's CPU. 0, -EINVAL, -E2BIG, -ENOENT, -EBUSY or -ENOSPC."""
    if flags & ~0xFFFFFFFF:
        return -EINVAL
    if load64(env + _NEST) >= 3:
        return -EBUSY
    index = flags
    if index == BPF_F_CURRENT_CPU:
        index = load64(env + _CPU)
    if index >= load64(map + _SIZE):
        return -E2BIG
    ring = load64(load64(map + _VALUES) + index * 8)
    if ring == 0:
        return -ENOENT
    # perf pads a raw sample so that its u32 length and the data fill whole u64s; readers see the padded size
    padded = ((size + 11) & ~7) - 4
    record = ring_reserve(ring, padded)
    if record == 0:
        return -ENOSPC
    memcpy(record, data, size)
    memset(record + size, 0, padded - size)
    store32_shared(record - 8, padded)
    return 0


@native()
def ring_consume(map: int, out: int, room: int) -> int:
    """Move committed records to `out` as {u32 length, u32 0, data}, 8-aligned.

    Bytes written, or -1 - needed when the first has no room.
    """
    written = 0
    ring = load64(map + _SIZE)
    store64(map + _TIGHT, 0)
    while True:
        consumer = load64(map + _CONSUMER)
        if consumer == load64(map + _PRODUCER):
            return written
        record = load64(map + _VALUES) + (consumer & (ring - 1))
        header = load32(record)
        if header & BPF_RINGBUF_BUSY_BIT:
            return written
        length = header & ~BPF_RINGBUF_DISCARD_BIT
        need = (length + 15) & ~7
        if header & BPF_RINGBUF_DISCARD_BIT == 0:
            if written + need > room:
                return written if written != 0 else -1 - need
            memcpy(out + written, record, need)
            written += need
        store64(map + _CONSUMER, consumer + need)
