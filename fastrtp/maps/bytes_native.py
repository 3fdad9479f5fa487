"""Keys and values as bytes in memory: equality, hash, copy. With a constant size the loops unroll to a few instructions."""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load8, load16, load32, load64, lshr

_MULTIPLIER = -7046029254386353131  # 2**64 / golden ratio
_FINAL = -4417276706812531889


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
    """A 32-bit hash of `size` bytes: multiply and fold, eight bytes a step."""
    value = size * _FINAL
    at = 0
    while size - at >= 8:
        value = (value ^ load64(key + at)) * _MULTIPLIER
        value ^= lshr(value, 32)
        at += 8
    rest = 0
    if size - at >= 4:
        rest = load32(key + at)
        at += 4
    while at < size:
        rest = (rest << 8) | load8(key + at)
        at += 1
    value = (value ^ rest) * _MULTIPLIER
    value ^= lshr(value, 29)
    return lshr(value * _FINAL, 32)
