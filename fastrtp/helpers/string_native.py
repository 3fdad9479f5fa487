"""bpf_strtol, bpf_strtoul, bpf_strncmp. Kernel: kernel/bpf/helpers.c."""

from __future__ import annotations

from errno import EINVAL, ERANGE

from fastrtp.native.intrinsics import device, load8, load64, native, stack_bytes, store64, udiv, ult
from fastrtp.native.records import Env

_BASE_MASK = 0x1F
_MOST = -1  # U64_MAX
_S64_MIN = -9223372036854775808


@device
def _digit(char: int) -> int:
    if 48 <= char <= 57:
        return char - 48
    char |= 32
    if 97 <= char <= 122:
        return char - 87
    return 99


@device
def _is_space(char: int) -> bool:
    return char == 32 or (9 <= char <= 13) or char == 160


@device
def _parse(buf: int, size: int, flags: int, result: int) -> int:
    """__bpf_strtoull: result[0] = magnitude, result[1] = whether a minus stood before it; characters used, or an error."""
    base = flags & _BASE_MASK
    if size == 0 or (base != 0 and base != 8 and base != 10 and base != 16) or flags & ~_BASE_MASK:
        return -EINVAL
    at = 0
    while at < size and _is_space(load8(buf + at)):
        at += 1
    negative = 0
    if at < size and load8(buf + at) == 45:
        negative = 1
        at += 1
    if at >= size:
        return -EINVAL
    # "0x" before a hexadecimal digit, or a leading 0, says the base where none is given
    hex_prefix = at + 2 < size and load8(buf + at) == 48 and load8(buf + at + 1) | 32 == 120 and _digit(load8(buf + at + 2)) < 16
    if base == 0:
        base = 16 if hex_prefix else (8 if load8(buf + at) == 48 else 10)
    if base == 16 and hex_prefix:
        at += 2
    value = 0
    begin = at
    limit = udiv(_MOST, base)
    while at < size:
        digit = _digit(load8(buf + at))
        if digit >= base:
            break
        if ult(limit, value) or (value == limit and ult(_MOST - value * base, digit)):
            return -ERANGE
        value = value * base + digit
        at += 1
    if at == begin:
        return -EINVAL
    store64(result, value)
    store64(result + 8, negative)
    return at


@native()
def bpf_strtoul(buf: int, size: int, flags: int, res: int, env: Env) -> int:
    """Unsigned number at the start of `buf`; characters used, -EINVAL or -ERANGE."""
    parsed = stack_bytes(16)
    used = _parse(buf, size, flags, parsed)
    if used < 0:
        return used
    if load64(parsed + 8) != 0:
        return -EINVAL
    store64(res, load64(parsed))
    return used


@native()
def bpf_strtol(buf: int, size: int, flags: int, res: int, env: Env) -> int:
    """Signed number at the start of `buf`; characters used, -EINVAL or -ERANGE."""
    parsed = stack_bytes(16)
    used = _parse(buf, size, flags, parsed)
    if used < 0:
        return used
    value = load64(parsed)
    if load64(parsed + 8) != 0:
        if value < 0 and value != _S64_MIN:
            return -ERANGE
        store64(res, -value)
        return used
    if value < 0:
        return -ERANGE
    store64(res, value)
    return used


@native()
def bpf_strncmp(s1: int, size: int, s2: int, env: Env) -> int:
    """Compare at most `size` bytes: negative, 0 or positive."""
    at = 0
    while at < size:
        a, b = load8(s1 + at), load8(s2 + at)
        if a != b:
            return -1 if a < b else 1
        if a == 0:
            return 0
        at += 1
    return 0
