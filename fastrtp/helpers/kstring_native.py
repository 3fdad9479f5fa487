"""Strings of the kernel: bpf_strcmp and its neighbours, which read byte by byte, and stop at what cannot be read.

Nothing is read beyond XATTR_SIZE_MAX bytes. A char has no sign, as in Linux. Results are ints: an index, or an error.
Kernel: kernel/bpf/helpers.c:bpf_strcmp, bpf_strnchr, bpf_strnlen, bpf_strspn, bpf_strnstr.
"""

from __future__ import annotations

from errno import E2BIG, EFAULT, ENOENT, ERANGE

from fastrtp.helpers.probe_native import in_range, nofault_error, stack_room
from fastrtp.native.intrinsics import device, load8, native, stack_bytes, ult
from fastrtp.native.records import Env

_MOST = 65536
_U32 = 0xFFFFFFFF


@device
def _room(address: int, env: Env) -> int:
    """Bytes that can be read from here on; -ERANGE for an address that is not the kernel's."""
    base = env.arena_base
    size = env.arena_size
    if in_range(address, 1, base, size):
        return base + size - address
    here = stack_bytes(16)
    room = stack_room(here, env)
    if in_range(address, 1, here, room):
        return here + room - address
    return -ERANGE if nofault_error(address) == -ERANGE else 0


@device
def _lower(char: int) -> int:
    """Kernel: lib/ctype.c: Latin 1."""
    if (char >= 65 and char <= 90) or (char >= 0xC0 and char <= 0xDE and char != 0xD7):
        return char + 32
    return char


@device
def _compare(one: int, other: int, ignore_case: int, env: Env) -> int:
    room = _room(one, env)
    left = _room(other, env)
    if room < 0 or left < 0:
        return -ERANGE
    at = 0
    while at < _MOST:
        if at >= room or at >= left:
            return -EFAULT
        first = load8(one + at)
        second = load8(other + at)
        if ignore_case != 0:
            first = _lower(first)
            second = _lower(second)
        if first != second:
            return -1 if first < second else 1
        if first == 0:
            return 0
        at += 1
    return -E2BIG


@native()
def bpf_strcmp(one: int, other: int, env: Env) -> int:
    """-1, 0 or 1; an error."""
    return _compare(one, other, 0, env) & _U32


@native()
def bpf_strcasecmp(one: int, other: int, env: Env) -> int:
    """The same, whatever the case."""
    return _compare(one, other, 1, env) & _U32


@device
def _find(string: int, count: int, char: int, or_end: int, env: Env) -> int:
    """Index of a byte among the first `count`; `or_end`: or that of the end."""
    room = _room(string, env)
    if room < 0:
        return -ERANGE
    char &= 0xFF
    at = 0
    while ult(at, count) and at < _MOST:
        if at >= room:
            return -EFAULT
        found = load8(string + at)
        if found == char or (or_end != 0 and found == 0):
            return at
        if found == 0:
            return -ENOENT
        at += 1
    return -E2BIG if at == _MOST else -ENOENT


@native()
def bpf_strnchr(string: int, count: int, char: int, env: Env) -> int:
    """Index of the first such byte, -ENOENT, or another error."""
    return _find(string, count, char, 0, env) & _U32


@native()
def bpf_strchr(string: int, char: int, env: Env) -> int:
    """The same of the whole string."""
    return _find(string, _MOST, char, 0, env) & _U32


@native()
def bpf_strchrnul(string: int, char: int, env: Env) -> int:
    """Index of the first such byte, or of the end."""
    return _find(string, _MOST, char, 1, env) & _U32


@native()
def bpf_strrchr(string: int, char: int, env: Env) -> int:
    """Index of the last such byte, -ENOENT, or another error."""
    room = _room(string, env)
    if room < 0:
        return -ERANGE & _U32
    char = ((char & _U32) ^ 0x80000000) - 0x80000000
    last = -ENOENT
    at = 0
    while at < _MOST:
        if at >= room:
            return -EFAULT & _U32
        found = load8(string + at)
        if found == char:
            last = at
        if found == 0:
            return last & _U32
        at += 1
    return -E2BIG & _U32


@device
def _length(string: int, count: int, env: Env) -> int:
    room = _room(string, env)
    if room < 0:
        return -ERANGE
    at = 0
    while ult(at, count) and at < _MOST:
        if at >= room:
            return -EFAULT
        if load8(string + at) == 0:
            return at
        at += 1
    return -E2BIG if at == _MOST else at


@native()
def bpf_strnlen(string: int, count: int, env: Env) -> int:
    """Bytes before the NUL, at most `count`; an error."""
    return _length(string, count, env) & _U32


@native()
def bpf_strlen(string: int, env: Env) -> int:
    """Bytes before the NUL; an error."""
    return _length(string, _MOST, env) & _U32


@device
def _span(string: int, chars: int, wanted: int, env: Env) -> int:
    """How many bytes from the beginning on are among `chars` (`wanted` 1) or are not."""
    room = _room(string, env)
    left = _room(chars, env)
    if room < 0 or left < 0:
        return -ERANGE
    at = 0
    while at < _MOST:
        if at >= room:
            return -EFAULT
        char = load8(string + at)
        if char == 0:
            return at
        among = 0
        other = 1
        while among < _MOST:
            if among >= left:
                return -EFAULT
            other = load8(chars + among)
            if other == char or other == 0:
                break
            among += 1
        if among == _MOST:
            return -E2BIG
        if (1 if other != 0 else 0) != wanted:
            return at
        at += 1
    return -E2BIG


@native()
def bpf_strspn(string: int, accept: int, env: Env) -> int:
    """Length of the beginning that is made of these bytes; an error."""
    return _span(string, accept, 1, env) & _U32


@native()
def bpf_strcspn(string: int, reject: int, env: Env) -> int:
    """Length of the beginning that has none of these bytes; an error."""
    return _span(string, reject, 0, env) & _U32


@device
def ule_sum(one: int, other: int, limit: int) -> bool:
    """one + other <= limit, unsigned."""
    return not ult(limit, one + other)


@device
def _search(string: int, part: int, length: int, env: Env) -> int:
    """Index of a string in the first `length` bytes of another."""
    room = _room(string, env)
    left = _room(part, env)
    if room < 0 or left < 0:
        return -ERANGE
    at = 0
    while at < _MOST:
        within = 0
        while ule_sum(at, within, length) and within < _MOST:
            if within >= left:
                return -EFAULT
            second = load8(part + within)
            if second == 0:
                return at
            if at + within == length:
                break
            if at + within >= room:
                return -EFAULT
            first = load8(string + at + within)
            if first == 0:
                return -ENOENT
            if first != second:
                break
            within += 1
        if within == _MOST:
            return -E2BIG
        if at + within == length:
            return -ENOENT
        at += 1
    return -E2BIG


@native()
def bpf_strstr(string: int, part: int, env: Env) -> int:
    """Index of a string in another, -ENOENT, or another error."""
    return _search(string, part, _MOST, env) & _U32


@native()
def bpf_strnstr(string: int, part: int, length: int, env: Env) -> int:
    """The same within the first `length` bytes."""
    return _search(string, part, length, env) & _U32
