"""Keys as bytes in memory: equality and hash. With a constant size the loops unroll to a few instructions."""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load16, load32, load64, mix

_FIRST = -7046029254386353131  # 2**64 / golden ratio
_SECOND = -4417276706812531889


@device
def bytes_equal(a: int, b: int, size: int) -> bool:
    """Whether `size` bytes at `a` and `b` are the same."""
    at = 0
    while size - at >= 8:
        if load64(a + at) != load64(b + at):
            return False
        at += 8
    if size - at >= 4:
        if load32(a + at) != load32(b + at):
            return False
        at += 4
    if size - at >= 2:
        if load16(a + at) != load16(b + at):
            return False
        at += 2
    return size == at or load8(a + at) == load8(b + at)


@device
def bytes_hash(key: int, size: int) -> int:
    """A hash of `size` bytes, good in its low bits: a multiplication to 128 bits, folded, for every eight of them."""
    value = size * _SECOND
    at = 0
    while size - at >= 8:
        value = mix(value ^ load64(key + at), _FIRST)
        at += 8
    if size == at and size > 0:
        return value
    rest = 0
    if size - at >= 4:
        rest = load32(key + at)
        at += 4
    while at < size:
        rest = (rest << 8) | load8(key + at)
        at += 1
    return mix(value ^ rest, _FIRST)
