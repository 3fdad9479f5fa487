"""Helpers on packets: samples that end in a packet's first bytes, and a packet's length.

Members of struct sk_buff and struct xdp_buff are found by their offsets, which come behind env. Recordings have no packets: the
bytes of one whose data cannot be read are 0, and the reports say so. Kernel: net/core/filter.c:bpf_skb_event_output,
bpf_xdp_event_output, bpf_xdp_get_buff_len.
"""

from __future__ import annotations

from errno import EFAULT, EINVAL

from fastrtp.helpers.probe_native import in_range
from fastrtp.maps.records import MapRecord
from fastrtp.maps.ringbuf_native import perf_sample
from fastrtp.native.intrinsics import device, load32, load64, native
from fastrtp.native.records import Env

_CTXLEN_SHIFT, _CTXLEN_MASK = 32, 0xFFFFF
_U32 = 0xFFFFFFFF


@device
def _readable(address: int, size: int, env: Env) -> bool:
    return in_range(address, size, env.arena_base, env.arena_size)


@device
def _word(object: int, offset: int, env: Env) -> int:
    """A member of four bytes, 0 where it cannot be read."""
    return load32(object + offset) if offset >= 0 and _readable(object + offset, 4, env) else 0


@device
def _pointer(object: int, offset: int, env: Env) -> int:
    return load64(object + offset) if offset >= 0 and _readable(object + offset, 8, env) else 0


@device
def _output(map: MapRecord, flags: int, meta: int, size: int, packet: int, extra: int, env: Env) -> int:
    if extra != 0 and not _readable(packet, extra, env):
        packet = 0
        env.faulted = env.faulted + 1
    return perf_sample(map, flags & _U32, meta, size, packet, extra, env)


@native()
def bpf_skb_output(
    skb: int, map: MapRecord, flags: int, meta: int, size: int, env: Env, len: int, data_len: int, data: int
) -> int:
    """Write a sample with the packet's first bytes behind it. 0, -EINVAL, -EFAULT, and the errors of bpf_perf_event_output."""
    extra = flags >> _CTXLEN_SHIFT & _CTXLEN_MASK
    if flags & ~(_CTXLEN_MASK << _CTXLEN_SHIFT | _U32):
        return -EINVAL
    if skb == 0 or extra > _word(skb, len, env):
        return -EFAULT
    linear = _word(skb, len, env) - _word(skb, data_len, env)
    return _output(map, flags, meta, size, _pointer(skb, data, env) if extra <= linear else 0, extra, env)


@device
def _xdp_length(xdp: int, data: int, data_end: int, flags: int, env: Env) -> int:
    """Of the linear part: what is in fragments is not known."""
    return (_pointer(xdp, data_end, env) - _pointer(xdp, data, env)) & _U32


@native()
def bpf_xdp_output(
    xdp: int, map: MapRecord, flags: int, meta: int, size: int, env: Env, data: int, data_end: int, frags: int
) -> int:
    """As bpf_skb_output, of a packet that XDP has."""
    extra = flags >> _CTXLEN_SHIFT & _CTXLEN_MASK
    if flags & ~(_CTXLEN_MASK << _CTXLEN_SHIFT | _U32):
        return -EINVAL
    if xdp == 0 or extra > _xdp_length(xdp, data, data_end, frags, env):
        return -EFAULT
    return _output(map, flags, meta, size, _pointer(xdp, data, env), extra, env)


@native()
def bpf_xdp_get_buff_len(xdp: int, env: Env, data: int, data_end: int, frags: int) -> int:
    """Bytes of a packet that XDP has."""
    return _xdp_length(xdp, data, data_end, frags, env)
