"""BPF_MAP_TYPE_BLOOM_FILTER: bits at jhash(value, seed + i). With BPF_F_ZERO_SEED the false positives are Linux's own.

Linux draws another seed for each map without that flag; here it is 0, too.

Kernel: kernel/bpf/bloom_filter.c, include/linux/jhash.h.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT

from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import cmpxchg64, device, load8, load32, load64, smp, store64

_U32 = 0xFFFFFFFF
_JHASH_INITVAL = 0xDEADBEEF


@device
def _rol(word: int, shift: int) -> int:
    return ((word << shift) | (word >> (32 - shift))) & _U32


@device
def _final(a: int, b: int, c: int) -> int:
    c = ((c ^ b) - _rol(b, 14)) & _U32
    a = ((a ^ c) - _rol(c, 11)) & _U32
    b = ((b ^ a) - _rol(a, 25)) & _U32
    c = ((c ^ b) - _rol(b, 16)) & _U32
    a = ((a ^ c) - _rol(c, 4)) & _U32
    b = ((b ^ a) - _rol(a, 14)) & _U32
    return ((c ^ b) - _rol(b, 24)) & _U32


@device
def _part(key: int, size: int) -> int:
    """Up to four bytes, little-endian."""
    if size >= 4:
        return load32(key)
    word = 0
    for index in range(size):
        word |= load8(key + index) << (8 * index)
    return word


@device
def jhash(key: int, size: int, initval: int) -> int:
    """Bob Jenkins' hash of `size` bytes, to 32 bits. Kernel: jhash, and jhash2 for whole words, which give the same."""
    a = (_JHASH_INITVAL + size + initval) & _U32
    b, c = a, a
    while size > 12:
        a = (a + load32(key)) & _U32
        b = (b + load32(key + 4)) & _U32
        c = (c + load32(key + 8)) & _U32
        a = ((a - c) & _U32) ^ _rol(c, 4)
        c = (c + b) & _U32
        b = ((b - a) & _U32) ^ _rol(a, 6)
        a = (a + c) & _U32
        c = ((c - b) & _U32) ^ _rol(b, 8)
        b = (b + a) & _U32
        a = ((a - c) & _U32) ^ _rol(c, 16)
        c = (c + b) & _U32
        b = ((b - a) & _U32) ^ _rol(a, 19)
        a = (a + c) & _U32
        c = ((c - b) & _U32) ^ _rol(b, 4)
        b = (b + a) & _U32
        size -= 12
        key += 12
    if size == 0:
        return c
    a = (a + _part(key, size)) & _U32
    if size > 4:
        b = (b + _part(key + 4, size - 4)) & _U32
    if size > 8:
        c = (c + _part(key + 8, size - 8)) & _U32
    return _final(a, b, c)


@device
def _bit(map: MapRecord, value: int, index: int) -> int:
    return jhash(value, map.value_size, index) & map.slot_mask


@device
def bloom_map_peek_elem(map: MapRecord, value: int) -> int:
    """0: the value may have been put in; -ENOENT: it was not."""
    for index in range(map.limit):
        bit = _bit(map, value, index)
        if load64(map.values + 8 * (bit >> 6)) >> (bit & 63) & 1 == 0:
            return -ENOENT
    return 0


@device
def bloom_map_push_elem(map: MapRecord, value: int, flags: int) -> int:
    """0, or -EINVAL for flags."""
    if flags != 0:
        return -EINVAL
    for index in range(map.limit):
        bit = _bit(map, value, index)
        word = map.values + 8 * (bit >> 6)
        old = load64(word)
        if smp() == 0:
            store64(word, old | 1 << (bit & 63))
        else:
            while cmpxchg64(word, old, old | 1 << (bit & 63)) != old:
                old = load64(word)
    return 0
