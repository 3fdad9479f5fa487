"""Dynptrs: an area whose size is known at run time only, described by 16 bytes on the program's stack.

{u64 data, u32 size, u32 offset}; data 0: a dynptr that could not be made, on which everything fails softly.
Kernel: kernel/bpf/helpers.c:bpf_dynptr_from_mem and its neighbours, kernel/bpf/ringbuf.c:bpf_ringbuf_reserve_dynptr.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ERANGE

from fastrtp.helpers.probe_native import (
    bpf_probe_read_kernel,
    bpf_probe_read_kernel_str,
    bpf_probe_read_user,
    bpf_probe_read_user_str,
)
from fastrtp.maps.records import MapRecord
from fastrtp.maps.ringbuf_native import ring_reserve
from fastrtp.native.intrinsics import device, load8, load32, load64, memcpy, memset, native, store8, store32, store64, ult
from fastrtp.native.records import Env
from fastrtp.native.smp_native import store32_shared
from fastrtp.uapi import BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT

_SIZE = 8
_OFFSET = 12
_MAX_SIZE = (1 << 24) - 1
_U32 = 0xFFFFFFFF


@device
def _init(ptr: int, data: int, size: int) -> None:
    store64(ptr, data)
    store32(ptr + _SIZE, size)
    store32(ptr + _OFFSET, 0)


@device
def _outside(ptr: int, offset: int, length: int) -> bool:
    """Kernel: bpf_dynptr_check_off_len."""
    size = load32(ptr + _SIZE)
    return length > size or offset > size - length


@device
def _memmove(dst: int, src: int, size: int) -> None:
    """Copy areas that may overlap."""
    if not ult(dst - src, size) and not ult(src - dst, size):
        memcpy(dst, src, size)
    elif ult(dst - src, size):
        index = size
        while index > 0:
            index -= 1
            store8(dst + index, load8(src + index))
    else:
        index = 0
        while index < size:
            store8(dst + index, load8(src + index))
            index += 1


@native()
def bpf_dynptr_from_mem(data: int, size: int, flags: int, ptr: int, env: Env) -> int:
    """0, -E2BIG or -EINVAL (flags)."""
    size &= _U32
    if size > _MAX_SIZE:
        _init(ptr, 0, 0)
        return -E2BIG
    if flags != 0:
        _init(ptr, 0, 0)
        return -EINVAL
    _init(ptr, data, size)
    return 0


@native()
def bpf_dynptr_read(dst: int, length: int, ptr: int, offset: int, flags: int, env: Env) -> int:
    """Copy out of the area. 0, -EINVAL or -E2BIG."""
    length &= _U32
    offset &= _U32
    if load64(ptr) == 0 or flags != 0:
        return -EINVAL
    if _outside(ptr, offset, length):
        return -E2BIG
    _memmove(dst, load64(ptr) + load32(ptr + _OFFSET) + offset, length)
    return 0


@native()
def bpf_dynptr_write(ptr: int, offset: int, src: int, length: int, flags: int, env: Env) -> int:
    """Copy into the area. 0, -EINVAL or -E2BIG."""
    length &= _U32
    offset &= _U32
    if load64(ptr) == 0:
        return -EINVAL
    if _outside(ptr, offset, length):
        return -E2BIG
    if flags != 0:
        return -EINVAL
    _memmove(load64(ptr) + load32(ptr + _OFFSET) + offset, src, length)
    return 0


@native()
def bpf_dynptr_data(ptr: int, offset: int, length: int, env: Env) -> int:
    """Address of a part of the area, or 0."""
    length &= _U32
    offset &= _U32
    if load64(ptr) == 0 or _outside(ptr, offset, length):
        return 0
    return load64(ptr) + load32(ptr + _OFFSET) + offset


# kernel functions


@native(inline=True)
def bpf_dynptr_size(ptr: int, env: Env) -> int:
    """Bytes of the area, or -EINVAL."""
    return load32(ptr + _SIZE) if load64(ptr) != 0 else -EINVAL & _U32


@native(inline=True)
def bpf_dynptr_is_null(ptr: int, env: Env) -> int:
    """Whether there is no area."""
    return 1 if load64(ptr) == 0 else 0


@native(inline=True)
def bpf_dynptr_is_rdonly(ptr: int, env: Env) -> int:
    """0: there are no read-only areas."""
    return 0


@native()
def bpf_dynptr_adjust(ptr: int, start: int, end: int, env: Env) -> int:
    """From now on the part [start, end) of the area. 0, -EINVAL or -ERANGE."""
    start &= _U32
    end &= _U32
    if load64(ptr) == 0 or start > end:
        return -EINVAL & _U32
    size = load32(ptr + _SIZE)
    if start > size or end > size:
        return -ERANGE & _U32
    store32(ptr + _OFFSET, load32(ptr + _OFFSET) + start)
    store32(ptr + _SIZE, end - start)
    return 0


@native()
def bpf_dynptr_clone(ptr: int, clone: int, env: Env) -> int:
    """The same area once more. 0 or -EINVAL."""
    if load64(ptr) == 0:
        _init(clone, 0, 0)
        return -EINVAL & _U32
    store64(clone, load64(ptr))
    store64(clone + _SIZE, load64(ptr + _SIZE))
    return 0


@device
def _slice(ptr: int, offset: int, length: int) -> int:
    if load64(ptr) == 0 or _outside(ptr, offset, length):
        return 0
    return load64(ptr) + load32(ptr + _OFFSET) + offset


@native()
def bpf_dynptr_slice(ptr: int, offset: int, buffer: int, length: int, env: Env) -> int:
    """Address of a part of the area, or 0. The buffer would be for an area in pieces."""
    return _slice(ptr, offset & _U32, length & _U32)


@native()
def bpf_dynptr_slice_rdwr(ptr: int, offset: int, buffer: int, length: int, env: Env) -> int:
    """The same, to be written to."""
    return _slice(ptr, offset & _U32, length & _U32)


@native()
def bpf_dynptr_copy(dst: int, dst_off: int, src: int, src_off: int, size: int, env: Env) -> int:
    """From one area to another, or within one. 0, -EINVAL or -E2BIG."""
    size &= _U32
    target = _slice(dst, dst_off & _U32, size)
    source = _slice(src, src_off & _U32, size)
    if target != 0 and source != 0:
        _memmove(target, source, size)
        return 0
    if (source != 0 and load64(dst) == 0) or (target != 0 and load64(src) == 0):
        return -EINVAL & _U32
    outside = _outside(dst, dst_off & _U32, size) or _outside(src, src_off & _U32, size)
    return -E2BIG & _U32 if outside else 0


@native()
def bpf_dynptr_memset(ptr: int, offset: int, size: int, value: int, env: Env) -> int:
    """Fill a part of the area with a byte. 0 or -E2BIG."""
    size &= _U32
    target = _slice(ptr, offset & _U32, size)
    if target == 0:
        return -E2BIG & _U32 if _outside(ptr, offset & _U32, size) else 0
    memset(target, value, size)
    return 0


@native()
def bpf_probe_read_kernel_dynptr(ptr: int, offset: int, size: int, src: int, env: Env) -> int:
    """Copy kernel memory into the area. 0, -E2BIG, -ERANGE or -EFAULT."""
    size &= _U32
    target = _slice(ptr, offset & _U32, size)
    if target == 0:
        return -E2BIG & _U32 if _outside(ptr, offset & _U32, size) else 0
    return bpf_probe_read_kernel(target, size, src, env) & _U32


@native()
def bpf_probe_read_kernel_str_dynptr(ptr: int, offset: int, size: int, src: int, env: Env) -> int:
    """Copy a string into the area: its length with the NUL, -E2BIG, -ERANGE or -EFAULT."""
    size &= _U32
    target = _slice(ptr, offset & _U32, size)
    if target == 0:
        return -E2BIG & _U32 if _outside(ptr, offset & _U32, size) else 0
    return bpf_probe_read_kernel_str(target, size, src, env) & _U32


@native()
def bpf_probe_read_user_dynptr(ptr: int, offset: int, size: int, src: int, env: Env) -> int:
    """Copy memory of the process into the area. 0, -E2BIG or -EFAULT."""
    size &= _U32
    target = _slice(ptr, offset & _U32, size)
    if target == 0:
        return -E2BIG & _U32 if _outside(ptr, offset & _U32, size) else 0
    return bpf_probe_read_user(target, size, src, env) & _U32


@native()
def bpf_probe_read_user_str_dynptr(ptr: int, offset: int, size: int, src: int, env: Env) -> int:
    """Copy a string of the process into the area: its length with the NUL, -E2BIG or -EFAULT."""
    size &= _U32
    target = _slice(ptr, offset & _U32, size)
    if target == 0:
        return -E2BIG & _U32 if _outside(ptr, offset & _U32, size) else 0
    return bpf_probe_read_user_str(target, size, src, env) & _U32


@native()
def bpf_ringbuf_reserve_dynptr(map: MapRecord, size: int, flags: int, ptr: int, env: Env) -> int:
    """A record of the ring as a dynptr. 0, -EINVAL (flags, no room) or -E2BIG; it has to be given back in any case."""
    size &= _U32
    if flags != 0:
        _init(ptr, 0, 0)
        return -EINVAL
    if size > _MAX_SIZE:
        _init(ptr, 0, 0)
        return -E2BIG
    sample = ring_reserve(map, size)
    if sample == 0:
        _init(ptr, 0, 0)
        return -EINVAL
    _init(ptr, sample, size)
    return 0


@device
def _commit(ptr: int, discard: int) -> int:
    sample = load64(ptr)
    if sample != 0:
        store32_shared(sample - 8, (load32(sample - 8) & ~BPF_RINGBUF_BUSY_BIT) | discard)
        _init(ptr, 0, 0)
    return 0


@native()
def bpf_ringbuf_submit_dynptr(ptr: int, flags: int, env: Env) -> int:
    """Publish the record."""
    return _commit(ptr, 0)


@native()
def bpf_ringbuf_discard_dynptr(ptr: int, flags: int, env: Env) -> int:
    """Give the record up."""
    return _commit(ptr, BPF_RINGBUF_DISCARD_BIT)
