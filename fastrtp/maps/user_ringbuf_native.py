"""bpf_user_ringbuf_drain: samples that user space wrote, given to a callback as dynptrs. Kernel: kernel/bpf/ringbuf.c.

Positions grow for ever, and the data area is twice as long as the ring, so every sample is in one piece. A sample is
{u32 length | busy | discard, u32 0} and its bytes, rounded up to 8; Python's side (user_ringbuf.py) writes them.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fastrtp.native.intrinsics import call_subprog, load32, load64, native, stack_bytes, store32, store64
from fastrtp.native.layout import MAP, at
from fastrtp.native.smp_native import give64, take64
from fastrtp.uapi import (
    BPF_MAX_USER_RINGBUF_SAMPLES,
    BPF_RB_FORCE_WAKEUP,
    BPF_RB_NO_WAKEUP,
    BPF_RINGBUF_DISCARD_BIT,
    BPF_RINGBUF_HDR_SZ,
)

_VALUES = at(MAP, "values")
_SIZE = at(MAP, "max_entries")
_PRODUCER = at(MAP, "producer")
_CONSUMER = at(MAP, "consumer")
_BUSY = at(MAP, "count")
_LENGTH = (1 << 30) - 1


@native()
def bpf_user_ringbuf_drain(map: int, callback: int, data: int, flags: int, env: int) -> int:
    """How many samples the callback saw, until it returned 1; -EINVAL (flags), -EBUSY (in a callback of its own, or
    while another CPU drains it)."""
    if (flags & ~(BPF_RB_NO_WAKEUP | BPF_RB_FORCE_WAKEUP)) != 0:
        return -EINVAL
    if not take64(map + _BUSY):
        return -EBUSY
    dynptr = stack_bytes(16)
    seen = 0
    walked = 0
    stop = 0
    while walked < BPF_MAX_USER_RINGBUF_SAMPLES and stop == 0:
        position = load64(map + _CONSUMER)
        if position >= load64(map + _PRODUCER):
            break
        walked += 1
        sample = load64(map + _VALUES) + (position & (load64(map + _SIZE) - 1))
        header = load32(sample)
        length = header & _LENGTH
        if (header & BPF_RINGBUF_DISCARD_BIT) == 0:
            store64(dynptr, sample + BPF_RINGBUF_HDR_SZ)
            store32(dynptr + 8, length)
            store32(dynptr + 12, 0)
            stop = call_subprog(callback, dynptr, data, 0, 0, 0, env)
            seen += 1
        store64(map + _CONSUMER, position + ((length + BPF_RINGBUF_HDR_SZ + 7) & ~7))
    give64(map + _BUSY)
    return seen
