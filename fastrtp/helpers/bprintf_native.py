"""bpf_bprintf_prepare: what a format may hold, and its arguments put into a buffer as bstr_printf will take them out.

Allowed are %c %s %d %i %u %x %X (with l or ll, flags `0+- ` and a width), %p %px %pK %ps %pS %pB, %pks and %pus strings,
%pi4 %pI4 %pi6 %pI6, %%; bytes from 0x80 on pass as text. Anything else is -EINVAL, and then nothing is written anywhere.
Strings and addresses of the network are read here, once, and go into the buffer as text.

Kernel: kernel/bpf/helpers.c:bpf_bprintf_prepare, lib/ctype.c. The verifier's own reading of a constant format is
verifier/rules/format.py. Formats may lie in memory that others write to meanwhile: nothing here reads behind `end`.
"""

from __future__ import annotations

from errno import EINVAL, ENOSPC

from fastrtp.helpers.probe_native import bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user_str
from fastrtp.native.intrinsics import device, load8, load64, stack_bytes, store8, store32, store64, udiv, urem
from fastrtp.native.records import Env

BIN_ARGS = 512
"""Bytes of all arguments of a format together. Kernel: MAX_BPRINTF_BIN_ARGS."""


@device
def is_space(char: int) -> bool:
    """isspace() of the kernel's Latin-1 table."""
    return char == 32 or 9 <= char <= 13 or char == 0xA0


@device
def is_alnum(char: int) -> bool:
    """isalnum() of the kernel's Latin-1 table."""
    if char >= 0xC0:
        return char not in (0xD7, 0xF7)
    return 48 <= char <= 57 or 65 <= char <= 90 or 97 <= char <= 122


@device
def is_punct(char: int) -> bool:
    """ispunct() of the kernel's Latin-1 table."""
    if char >= 0x80:
        return char > 0xA0 and not is_alnum(char)
    return 33 <= char <= 126 and not is_alnum(char)


@device
def char_at(fmt: int, end: int, at: int) -> int:
    """The format's byte `at`, 0 from its end on."""
    return load8(fmt + at) if at < end else 0


@device
def put(out: int, room: int, length: int, char: int) -> int:
    """Write one character if it fits; the length it would have."""
    if length < room:
        store8(out + length, char)
    return length + 1


@device
def put_digits(out: int, room: int, length: int, value: int, base: int, upper: bool, least: int) -> int:
    """Digits of the unsigned `value`, at least so many."""
    digits = stack_bytes(24)
    count = 0
    while True:
        digit = urem(value, base)
        store8(digits + count, digit + 48 if digit < 10 else digit + (55 if upper else 87))
        count += 1
        value = udiv(value, base)
        if value == 0:
            break
    while count < least:
        store8(digits + count, 48)
        count += 1
    while count > 0:
        count -= 1
        length = put(out, room, length, load8(digits + count))
    return length


@device
def _ip_text(out: int, room: int, address: int, version: int, separated: bool, env: Env) -> int:
    """%pI4 1.2.3.4, %pi4 001.002.003.004, %pI6 with colons, %pi6 without; zeroes when the address can't be read."""
    data = stack_bytes(16)
    store64(data, 0)
    store64(data + 8, 0)
    bpf_probe_read_kernel(data, 4 if version == 4 else 16, address, env)
    length = 0
    if version == 4:
        for part in range(4):
            if part > 0:
                length = put(out, room, length, 46)
            length = put_digits(out, room, length, load8(data + part), 10, False, 1 if separated else 3)
        return length
    for part in range(16):
        if separated and part > 0 and part & 1 == 0:
            length = put(out, room, length, 58)
        length = put_digits(out, room, length, load8(data + part), 16, False, 2)
    return length


@device
def _end_text(out: int, room: int, length: int) -> int:
    """A NUL behind what snprintf wrote; the bytes that it says it took, which may be more than there were."""
    store8(out + (length if length < room else room - 1), 0)
    return length + 1


@device
def symbol_text(out: int, room: int, address: int) -> int:
    """The length of "0x..." for an address without a symbol. Kernel: kernel/kallsyms.c:__sprint_symbol"""
    length = put(out, room, put(out, room, 0, 48), 120)
    return put_digits(out, room, length, address, 16, False, 1)


@device
def _ends_word(char: int) -> bool:
    return char == 0 or is_space(char) or is_punct(char)


@device
def _put_string(out: int, room: int, address: int, user: bool, env: Env) -> int:
    """Bytes taken by a string with its NUL, an empty one where it can't be read."""
    count = bpf_probe_read_user_str(out, room, address, env) if user else bpf_probe_read_kernel_str(out, room, address, env)
    if count <= 0:
        store8(out, 0)
        return 1
    return count


@device
def bpf_bprintf_prepare(fmt: int, end: int, args: int, nargs: int, bins: int, env: Env) -> int:
    """Check a format of `end` bytes and put its arguments into `bins` (BIN_ARGS bytes). 0, -EINVAL or -ENOSPC."""
    used = 0
    spot = 0
    i = -1
    while i + 1 < end:
        i += 1
        char = char_at(fmt, end, i)
        if char < 128 and not (32 <= char <= 126 or is_space(char)):
            return -EINVAL
        if char != 37:
            continue
        if char_at(fmt, end, i + 1) == 37:
            i += 1
            continue
        if used >= nargs:
            return -EINVAL
        i += 1
        while char_at(fmt, end, i) in (48, 43, 45, 32):
            i += 1
        while 48 <= char_at(fmt, end, i) <= 57:
            i += 1
        char = char_at(fmt, end, i)
        value = load64(args + 8 * used)
        used += 1
        room = BIN_ARGS - spot
        size = 4
        string = 115 if char == 115 else 0
        if char == 112:
            size = 8
            kind = char_at(fmt, end, i + 1)
            if _ends_word(kind):
                pass
            elif (kind == 107 or kind == 117) and char_at(fmt, end, i + 2) == 115:
                string = kind
                i += 2
            elif kind == 75 or kind == 120 or kind == 115 or kind == 83:
                i += 1
            elif kind == 66:
                if room <= 0:
                    return -ENOSPC
                spot += _end_text(bins + spot, room, symbol_text(bins + spot, room, value))
                i += 1
                continue
            else:
                version = char_at(fmt, end, i + 2) - 48
                if (kind != 105 and kind != 73) or (version != 4 and version != 6):
                    return -EINVAL
                i += 2
                if room < (4 if version == 4 else 16):
                    return -ENOSPC
                spot += _end_text(bins + spot, room, _ip_text(bins + spot, room, value, version, kind == 73, env))
                continue
        if string != 0:
            if not _ends_word(char_at(fmt, end, i + 1)):
                return -EINVAL
            if room <= 0:
                return -ENOSPC
            spot += _put_string(bins + spot, room, value, string == 117, env)
            continue
        if char == 99:
            if room <= 0:
                return -ENOSPC
            store8(bins + spot, value & 0xFF)
            spot += 1
            continue
        if char != 112:
            if char == 108:
                size = 8
                i += 1
            if char_at(fmt, end, i) == 108 and size == 8:
                i += 1
            char = char_at(fmt, end, i)
            if char not in (105, 100, 117, 120, 88):
                return -EINVAL
        spot = (spot + 3) & ~3
        if BIN_ARGS - spot < size:
            return -ENOSPC
        if size == 8:
            store64(bins + spot, value)
        else:
            store32(bins + spot, value)
        spot += size
    return 0
