"""The formats of bpf_trace_printk, bpf_trace_vprintk and bpf_snprintf, and the ring that trace_pipe reads.

Kernel: kernel/bpf/helpers.c:bpf_bprintf_prepare says what a format may hold: %c %s %d %i %u %x %X (with l or ll, flags
`0+- ` and a width), %p %px %pK %ps %pS %pB as addresses, %pks and %pus strings, %pi4 %pI4 %pi6 %pI6, %%. Anything else is
-EINVAL. Differs: %p shows the address (it is one of this process) and symbols are shown as addresses.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fastrtp.helpers.probe_native import bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user_str
from fastrtp.helpers.time_native import bpf_ktime_get_ns
from fastrtp.native.intrinsics import (
    device,
    load8,
    load32,
    load64,
    memcpy,
    native,
    outline,
    stack_bytes,
    store8,
    store32,
    store64,
    udiv,
    urem,
)
from fastrtp.native.layout import ENV, PRINTK, TRACEPOINT, at
from fastrtp.native.smp_native import add64, spin_lock, spin_unlock

_MOST_ARGS = 12
_TEXT = 1024
_STRING = 512

_PRINTK = at(ENV, "printk")
_NEST = at(ENV, "printk_nest")
_SCRATCH = at(ENV, "scratch")
_CPU = at(ENV, "cpu")
_CURRENT = at(ENV, "current")
_PID_AT = at(ENV, "pid_at")
_TP = at(ENV, "printk_tp")
_RUN_CTX = at(ENV, "run_ctx")
_KEY = at(TRACEPOINT, "key")
_DATA = at(PRINTK, "data")
_SIZE = at(PRINTK, "size")
_HEAD = at(PRINTK, "head")
_LOST = at(PRINTK, "lost")
_LOCK = at(PRINTK, "lock")

# the conversion being written: its flags, its width, and where the format goes on
_LEFT, _ZERO, _PLUS, _WIDTH, _AT = 0, 8, 16, 24, 32

_trace_call1 = outline("trace_call1", 3)


@device
def _put(out: int, room: int, length: int, char: int) -> int:
    """Write one character if it fits; the length it would have."""
    if length < room:
        store8(out + length, char)
    return length + 1


@device
def _pad(out: int, room: int, length: int, char: int, count: int) -> int:
    while count > 0:
        length = _put(out, room, length, char)
        count -= 1
    return length


@device
def _put_number(
    out: int, room: int, length: int, value: int, base: int, upper: bool, sign: int, width: int, left: bool, zero: bool
) -> int:
    """Digits of the unsigned `value`; `sign` is a character or 0."""
    digits = stack_bytes(24)
    count = 0
    while True:
        digit = urem(value, base)
        store8(digits + count, digit + 48 if digit < 10 else digit + (55 if upper else 87))
        count += 1
        value = udiv(value, base)
        if value == 0:
            break
    fill = width - count - (1 if sign != 0 else 0)
    if not left and not zero:
        length = _pad(out, room, length, 32, fill)
    if sign != 0:
        length = _put(out, room, length, sign)
    if not left and zero:
        length = _pad(out, room, length, 48, fill)
    while count > 0:
        count -= 1
        length = _put(out, room, length, load8(digits + count))
    return _pad(out, room, length, 32, fill) if left else length


@device
def _put_string(out: int, room: int, length: int, address: int, user: bool, width: int, left: bool, env: int) -> int:
    text = stack_bytes(512)
    if user:
        count = bpf_probe_read_user_str(text, _STRING, address, env)
    else:
        count = bpf_probe_read_kernel_str(text, _STRING, address, env)
    count = count - 1 if count > 0 else 0
    if not left:
        length = _pad(out, room, length, 32, width - count)
    at = 0
    while at < count:
        length = _put(out, room, length, load8(text + at))
        at += 1
    return _pad(out, room, length, 32, width - count) if left else length


@device
def _put_ip(out: int, room: int, length: int, address: int, version: int, separated: bool, env: int) -> int:
    """%pI4 1.2.3.4, %pi4 001.002.003.004, %pI6 with colons, %pi6 without; zeroes when the address can't be read."""
    data = stack_bytes(16)
    store64(data, 0)
    store64(data + 8, 0)
    bpf_probe_read_kernel(data, 4 if version == 4 else 16, address, env)
    if version == 4:
        for part in range(4):
            if part > 0:
                length = _put(out, room, length, 46)
            length = _put_number(out, room, length, load8(data + part), 10, False, 0, 1 if separated else 3, False, True)
        return length
    for part in range(16):
        if separated and part > 0 and part & 1 == 0:
            length = _put(out, room, length, 58)
        length = _put_number(out, room, length, load8(data + part), 16, False, 0, 2, False, True)
    return length


@device
def _is_graph(char: int) -> bool:
    return 33 <= char <= 126


@device
def _parse_flags(fmt: int, at: int, spec: int) -> int:
    """Flags and width of the conversion at `at` into `spec`; where its letter is."""
    left = 0
    zero = 0
    plus = 0
    while True:
        char = load8(fmt + at)
        if char == 45:
            left = 1
        elif char == 48:
            zero = 1
        elif char == 43:
            plus = 43
        elif char == 32:
            plus = 32 if plus == 0 else plus
        else:
            break
        at += 1
    width = 0
    while 48 <= load8(fmt + at) <= 57:
        if width < _TEXT:
            width = width * 10 + load8(fmt + at) - 48
        at += 1
    store64(spec + _LEFT, left)
    store64(spec + _ZERO, zero)
    store64(spec + _PLUS, plus)
    store64(spec + _WIDTH, width)
    return at


@device
def _put_pointer(out: int, room: int, length: int, fmt: int, spec: int, value: int, env: int) -> int:
    """%p and what may follow it; the letters taken are added to spec's position. -EINVAL for an unknown form."""
    at = load64(spec + _AT)
    kind = load8(fmt + at)
    after = load8(fmt + at + 1) if kind != 0 else 0
    width = load64(spec + _WIDTH)
    if (kind == 107 or kind == 117) and after == 115:
        store64(spec + _AT, at + 2)
        return _put_string(out, room, length, value, kind == 117, width, load64(spec + _LEFT) != 0, env)
    if kind == 105 or kind == 73:
        if after != 52 and after != 54:
            return -EINVAL
        store64(spec + _AT, at + 2)
        return _put_ip(out, room, length, value, after - 48, kind == 73, env)
    if kind == 115 or kind == 83 or kind == 66:
        store64(spec + _AT, at + 1)
        length = _put(out, room, _put(out, room, length, 48), 120)
        return _put_number(out, room, length, value, 16, False, 0, width, load64(spec + _LEFT) != 0, load64(spec + _ZERO) != 0)
    if kind == 120 or kind == 75:
        store64(spec + _AT, at + 1)
    elif _is_graph(kind) and (48 <= kind <= 57 or 65 <= kind <= 90 or 97 <= kind <= 122):
        return -EINVAL
    return _put_number(out, room, length, value, 16, False, 0, 16, False, True)


@device
def _put_integer(out: int, room: int, length: int, fmt: int, spec: int, value: int, char: int) -> int:
    """%d %i %u %x %X with l or ll before the letter. -EINVAL for any other letter."""
    wide = char == 108
    if wide:
        at = load64(spec + _AT)
        char = load8(fmt + at)
        at += 1
        if char == 108:
            char = load8(fmt + at)
            at += 1
        store64(spec + _AT, at)
    width = load64(spec + _WIDTH)
    left = load64(spec + _LEFT) != 0
    zero = load64(spec + _ZERO) != 0
    if char == 100 or char == 105:
        if not wide:
            value = ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
        sign = load64(spec + _PLUS)
        if value < 0:
            sign = 45
            value = -value
        return _put_number(out, room, length, value, 10, False, sign, width, left, zero)
    if not wide:
        value &= 0xFFFFFFFF
    if char == 117:
        return _put_number(out, room, length, value, 10, False, 0, width, left, zero)
    if char == 120 or char == 88:
        return _put_number(out, room, length, value, 16, char == 88, 0, width, left, zero)
    return -EINVAL


@device
def _put_conversion(out: int, room: int, length: int, fmt: int, spec: int, value: int, env: int) -> int:
    """One conversion, from behind its %; the length then, or -EINVAL."""
    at = _parse_flags(fmt, load64(spec + _AT), spec)
    char = load8(fmt + at)
    store64(spec + _AT, at + 1)
    width = load64(spec + _WIDTH)
    left = load64(spec + _LEFT) != 0
    if char == 112:
        return _put_pointer(out, room, length, fmt, spec, value, env)
    if char == 115:
        return _put_string(out, room, length, value, False, width, left, env)
    if char == 99:
        length = _pad(out, room, length, 32, 0 if left else width - 1)
        length = _put(out, room, length, value & 0xFF)
        return _pad(out, room, length, 32, width - 1 if left else 0)
    return _put_integer(out, room, length, fmt, spec, value, char)


@native()
def bpf_bprintf(out: int, room: int, fmt: int, size: int, args: int, nargs: int, env: int) -> int:
    """Format into `out`; the length it would have (without NUL), or -EINVAL. `fmt` must hold a NUL within `size`."""
    end = 0
    while end < size and load8(fmt + end) != 0:
        end += 1
    if end == size:
        return -EINVAL
    spec = stack_bytes(48)
    length = 0
    used = 0
    at = 0
    while at < end:
        char = load8(fmt + at)
        at += 1
        if char != 37:
            if not (_is_graph(char) or char == 32 or 9 <= char <= 13):
                return -EINVAL
            length = _put(out, room, length, char)
        elif load8(fmt + at) == 37:
            length = _put(out, room, length, 37)
            at += 1
        else:
            if used >= nargs:
                return -EINVAL
            store64(spec + _AT, at)
            length = _put_conversion(out, room, length, fmt, spec, load64(args + 8 * used), env)
            if length < 0:
                return -EINVAL
            used += 1
            at = load64(spec + _AT)
    return length


_bprintf = outline("bpf_bprintf", 7)


@device
def _append(text: int, length: int, env: int) -> None:
    ring = load64(env + _PRINTK)
    need = (20 + length + 7) & ~7
    spin_lock(ring + _LOCK)
    head = load64(ring + _HEAD)
    full = head + need > load64(ring + _SIZE)
    if not full:
        store64(ring + _HEAD, head + need)
    spin_unlock(ring + _LOCK)
    if full:
        add64(ring + _LOST, 1)
        return
    record = load64(ring + _DATA) + head
    task = load64(env + _CURRENT)
    store64(record, bpf_ktime_get_ns(env))
    store32(record + 8, load64(env + _CPU))
    store32(record + 12, load32(task + load64(env + _PID_AT)) if task != 0 else 0)
    store32(record + 16, length)
    memcpy(record + 20, text, length)


@device
def _emit(fmt: int, fmt_size: int, args: int, nargs: int, env: int) -> int:
    """Format one trace_printk, put it into the ring, and fire the tracepoint bpf_trace_printk."""
    nest = load64(env + _NEST)
    if nest >= 3:
        return -EBUSY
    store64(env + _NEST, nest + 1)
    text = load64(env + _SCRATCH) + nest * _TEXT
    length = _bprintf(text, _TEXT - 1, fmt, fmt_size, args, nargs, env)
    if length >= 0:
        stored = length if length < _TEXT - 1 else _TEXT - 1
        store8(text + stored, 0)
        _append(text, stored, env)
        tracepoint = load64(env + _TP)
        if tracepoint != 0 and load64(tracepoint + _KEY) != 0:
            arguments = stack_bytes(8)
            store64(arguments, text)
            run_ctx = load64(env + _RUN_CTX)
            _trace_call1(tracepoint, arguments, env)
            store64(env + _RUN_CTX, run_ctx)
    store64(env + _NEST, nest)
    return length


@native()
def bpf_trace_printk(fmt: int, fmt_size: int, a1: int, a2: int, a3: int, env: int) -> int:
    """Format at most three arguments into the trace; the text's length, -EINVAL or -EBUSY."""
    args = stack_bytes(24)
    store64(args, a1)
    store64(args + 8, a2)
    store64(args + 16, a3)
    return _emit(fmt, fmt_size, args, 3, env)


@native()
def bpf_trace_vprintk(fmt: int, fmt_size: int, data: int, data_len: int, env: int) -> int:
    """The same with up to twelve arguments in an array of u64."""
    if data_len & 7 or data_len > 8 * _MOST_ARGS or (data_len != 0 and data == 0):
        return -EINVAL
    return _emit(fmt, fmt_size, data, data_len >> 3, env)


@native()
def bpf_snprintf(out: int, room: int, fmt: int, data: int, data_len: int, env: int) -> int:
    """Format into a buffer; the length with NUL that it would have, -EINVAL or -EBUSY."""
    if data_len & 7 or data_len > 8 * _MOST_ARGS or (data_len != 0 and data == 0):
        return -EINVAL
    length = _bprintf(out, room - 1 if room > 0 else 0, fmt, 0x7FFFFFFF, data, data_len >> 3, env)
    if length < 0:
        return length
    if room > 0:
        store8(out + (length if length < room - 1 else room - 1), 0)
    return length + 1
