"""bpf_user_ringbuf_drain: samples that user space wrote, given to a callback as dynptrs. Kernel: kernel/bpf/ringbuf.c.

Positions grow for ever, and the data area is twice as long as the ring, so every sample is in one piece. A sample is
{u32 length | busy | discard, u32 0} and its bytes, rounded up to 8; Python's side (user_ringbuf.py) writes them.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import call_subprog, load32, native, stack_bytes, store32, store64
from fastrtp.native.records import Env
from fastrtp.native.smp_native import give64, take64
from fastrtp.uapi import (
    BPF_MAX_USER_RINGBUF_SAMPLES,
    BPF_RB_FORCE_WAKEUP,
    BPF_RB_NO_WAKEUP,
    BPF_RINGBUF_DISCARD_BIT,
    BPF_RINGBUF_HDR_SZ,
)

_BUSY = MapRecord.layout.at("count")
_LENGTH = (1 << 30) - 1


@native()
def bpf_user_ringbuf_drain(map: MapRecord, callback: int, data: int, flags: int, env: Env) -> int:
    """How many samples the callback saw, until it returned 1; -EINVAL (flags), -EBUSY (in a callback of its own, or
    while another CPU drains it)."""
    if (flags & ~(BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP)) != 0:
        return -EINVAL
    if not take64(int(map) + _BUSY):
        return -EBUSY
    dynptr = stack_bytes(16)
    seen = 0
    walked = 0
    stop = 0
    while walked < BPF_MAX_USER_RINGBUF_SAMPLES and stop == 0:
        position = map.consumer
        if position >= map.producer:
            break
        walked += 1
        sample = map.values + (position & (map.max_entries - 1))
        header = load32(sample)
        length = header & _LENGTH
        if (header & BPF_RINGBUF_DISCARD_BIT) == 0:
            store64(dynptr, sample + BPF_RINGBUF_HDR_SZ)
            store32(dynptr + 8, length)
            store32(dynptr + 12, 0)
            stop = call_subprog(callback, dynptr, data, 0, 0, 0, int(env))
            seen += 1
        map.consumer = position + ((length + BPF_RINGBUF_HDR_SZ + 7) & ~7)
    give64(int(map) + _BUSY)
    return seen
