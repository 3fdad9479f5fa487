"""bpf_trace_printk, bpf_trace_vprintk and bpf_snprintf: arguments made into text, and the ring that trace_pipe reads.

A format is read twice, as in Linux: `bpf_bprintf_prepare` checks it and puts the arguments into a buffer, `bstr_printf` takes
them out of it. What one takes and the other does not explains the odder results: letters behind %px or %pI4 are swallowed,
%5pI4 is no wider, and where the output is full an address is not even taken out of the buffer.
Differs: the key by which %p and %pK hide addresses is always the same one, and symbols are shown as addresses.

Kernel: lib/vsprintf.c:bstr_printf, format_decode, number, pointer; kernel/trace/bpf_trace.c; kernel/bpf/helpers.c.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL

from fastrtp.helpers.bprintf_native import (
    BIN_ARGS,
    bpf_bprintf_prepare,
    char_at,
    is_alnum,
    put,
    put_digits,
    symbol_text,
)
from fastrtp.helpers.siphash_native import ptr_to_hashval
from fastrtp.helpers.time_native import bpf_ktime_get_ns
from fastrtp.native.backlog_native import drain_array
from fastrtp.native.intrinsics import (
    device,
    load8,
    load32,
    load64,
    memcpy,
    memset,
    native,
    outline,
    stack_bytes,
    store8,
    store32,
    store64,
    udiv,
)
from fastrtp.native.records import Env, Printk
from fastrtp.native.smp_native import add64, spin_lock, spin_unlock

_MOST_ARGS = 12
_TEXT = 1024
_MOST_NESTED = 3

_LOST = Printk.layout.at("lost")
_LOCK = Printk.layout.at("lock")

# the conversion being written: its flags, its width (-1: none), where the format and the buffer of arguments go on
_LEFT, _ZERO, _SIGN, _WIDTH, _AT, _ARG = 0, 8, 16, 24, 32, 40

_trace_call1 = outline("trace_call1", 3)


@device
def _pad(out: int, room: int, length: int, char: int, count: int) -> int:
    """`count` times the same character; what does not fit is only counted."""
    if count <= 0:
        return length
    fits = room - length
    if fits > 0:
        memset(out + length, char, count if count < fits else fits)
    return length + count


@device
def _sign_extend(value: int) -> int:
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000


@device
def _decode(fmt: int, end: int, spec: int) -> int:
    """Flags and width of the conversion behind the % into `spec`; its letter, behind which the format goes on.

    Kernel: lib/vsprintf.c:format_decode
    """
    at = load64(spec + _AT)
    left = 0
    zero = 0
    sign = 0
    while True:
        char = char_at(fmt, end, at)
        if char == 45:
            left = 1
        elif char == 48:
            zero = 1
        elif char == 43:
            sign = 43
        elif char == 32:
            sign = 32 if sign == 0 else sign
        else:
            break
        at += 1
    width = -1
    if 48 <= char_at(fmt, end, at) <= 57:
        width = 0
    while 48 <= char_at(fmt, end, at) <= 57:
        width = _sign_extend(width * 10 + char_at(fmt, end, at) - 48)
        at += 1
    store64(spec + _LEFT, left)
    store64(spec + _ZERO, 0 if left != 0 else zero)
    store64(spec + _SIGN, sign)
    store64(spec + _WIDTH, width)
    store64(spec + _AT, at + 1)
    return char_at(fmt, end, at)


@device
def _count_digits(value: int, base: int) -> int:
    count = 1
    value = udiv(value, base)
    while value != 0:
        count += 1
        value = udiv(value, base)
    return count


@device
def _number(out: int, room: int, length: int, spec: int, value: int, base: int, upper: bool, sign: int) -> int:
    """Digits of the unsigned `value` in the conversion's width; `sign` is a character or 0. Kernel: number"""
    fill = load64(spec + _WIDTH) - _count_digits(value, base) - (1 if sign != 0 else 0)
    left = load64(spec + _LEFT) != 0
    zero = load64(spec + _ZERO) != 0
    if not left and not zero:
        length = _pad(out, room, length, 32, fill)
    if sign != 0:
        length = put(out, room, length, sign)
    if zero:
        length = _pad(out, room, length, 48, fill)
    length = put_digits(out, room, length, value, base, upper, 1)
    return _pad(out, room, length, 32, fill) if left else length


@device
def _text(out: int, room: int, length: int, spec: int, text: int, count: int) -> int:
    """`count` characters in the conversion's width. Kernel: string_nocheck, widen_string"""
    fill = load64(spec + _WIDTH) - count
    left = load64(spec + _LEFT) != 0
    if not left:
        length = _pad(out, room, length, 32, fill)
    at = 0
    while at < count:
        length = put(out, room, length, load8(text + at))
        at += 1
    return _pad(out, room, length, 32, fill) if left else length


@device
def _bin_string(bins: int, spec: int) -> int:
    """Length of the string that is next in the buffer."""
    arg = load64(spec + _ARG)
    count = 0
    while arg + count < BIN_ARGS and load8(bins + arg + count) != 0:
        count += 1
    return count


@device
def _bin_number(bins: int, spec: int, size: int) -> int:
    """The number that is next in the buffer, taken out: 8, 4 (signed) or 1 bytes."""
    arg = load64(spec + _ARG)
    if size > 1:
        arg = (arg + 3) & ~3
    if arg + size > BIN_ARGS:  # only where the format has changed meanwhile
        return 0
    store64(spec + _ARG, arg + size)
    if size == 1:
        return load8(bins + arg)
    return load64(bins + arg) if size == 8 else _sign_extend(load32(bins + arg))


@device
def _pointer(out: int, room: int, length: int, fmt: int, end: int, spec: int, bins: int) -> int:
    """%p and what follows it, all letters and digits of which are taken."""
    kind = char_at(fmt, end, load64(spec + _AT))
    while is_alnum(char_at(fmt, end, load64(spec + _AT))):
        store64(spec + _AT, load64(spec + _AT) + 1)
    if is_alnum(kind) and kind not in (83, 115, 120, 75):
        # a text that stands in the buffer; neither wider for a width, nor taken out where there is no room for it
        if length < room:
            count = _bin_string(bins, spec)
            text = bins + load64(spec + _ARG)
            store64(spec + _ARG, load64(spec + _ARG) + count + 1)
            at = 0
            while at < count:
                length = put(out, room, length, load8(text + at))
                at += 1
        return length
    value = _bin_number(bins, spec, 8)
    if kind != 115 and kind != 83 and kind != 120:
        value = ptr_to_hashval(value)
    if kind == 115 or kind == 83:
        symbol = stack_bytes(32)
        return _text(out, room, length, spec, symbol, symbol_text(symbol, 32, value))
    if load64(spec + _WIDTH) == -1:
        store64(spec + _WIDTH, 16)
        store64(spec + _ZERO, 1 if load64(spec + _LEFT) == 0 else 0)
    return _number(out, room, length, spec, value, 16, False, 0)


@device
def _integer(out: int, room: int, length: int, fmt: int, end: int, spec: int, bins: int, char: int) -> int:
    """%d %i %u %x %X with l or ll before the letter."""
    wide = char == 108
    while char == 108:
        at = load64(spec + _AT)
        char = char_at(fmt, end, at)
        store64(spec + _AT, at + 1)
    value = _bin_number(bins, spec, 8 if wide else 4)
    if char == 100 or char == 105:
        sign = load64(spec + _SIGN)
        if value < 0:
            return _number(out, room, length, spec, -value, 10, False, 45)
        return _number(out, room, length, spec, value, 10, False, sign)
    if not wide:
        value &= 0xFFFFFFFF
    return _number(out, room, length, spec, value, 10 if char == 117 else 16, char == 88, 0)


@device
def bstr_printf(out: int, room: int, fmt: int, end: int, bins: int) -> int:
    """A format of `end` bytes, checked, with the arguments in `bins`, into `out`; the length it would have (without NUL)."""
    spec = stack_bytes(48)
    store64(spec + _ARG, 0)
    length = 0
    i = 0
    while i < end:
        char = char_at(fmt, end, i)
        i += 1
        if char != 37:
            length = put(out, room, length, char)
            continue
        store64(spec + _AT, i)
        char = _decode(fmt, end, spec)
        if char == 37:
            length = put(out, room, length, 37)
        elif char == 112:
            length = _pointer(out, room, length, fmt, end, spec, bins)
        elif char == 115:
            count = _bin_string(bins, spec)
            arg = load64(spec + _ARG)
            store64(spec + _ARG, arg + count + 1)
            length = _text(out, room, length, spec, bins + arg, count)
        elif char == 99:
            left = load64(spec + _LEFT) != 0
            width = load64(spec + _WIDTH)
            length = _pad(out, room, length, 32, 0 if left else width - 1)
            length = put(out, room, length, _bin_number(bins, spec, 1))
            length = _pad(out, room, length, 32, width - 1 if left else 0)
        else:
            length = _integer(out, room, length, fmt, end, spec, bins, char)
        i = load64(spec + _AT)
    if room > 0:
        store8(out + (length if length < room else room - 1), 0)
    return length


@native()
def bpf_bprintf(out: int, room: int, fmt: int, size: int, args: int, nargs: int, env: Env) -> int:
    """Format into `out`, with a NUL; the length it would have (without NUL), -EINVAL or -ENOSPC and nothing written.

    `fmt` must hold a NUL within `size`.
    """
    end = 0
    while end < size and load8(fmt + end) != 0:
        end += 1
    if end == size:
        return -EINVAL
    bins = stack_bytes(512)
    error = bpf_bprintf_prepare(fmt, end, args, nargs, bins, env)
    return error if error < 0 else _sign_extend(bstr_printf(out, room, fmt, end, bins))


_bprintf = outline("bpf_bprintf", 7)


@device
def _append(text: int, length: int, env: Env) -> None:
    """One record more; a ring that is full is emptied into its backlog while a replay drains."""
    ring = env.printk
    need = (20 + length + 7) & ~7
    spin_lock(int(ring) + _LOCK)
    head = ring.head
    if head + need > ring.size:
        head = drain_array(env.machine, ring.backlog, ring.data, head)
    if head + need > ring.size:
        add64(int(ring) + _LOST, 1)
        spin_unlock(int(ring) + _LOCK)
        return
    ring.head = head + need
    record = ring.data + head
    task = env.current
    store64(record, bpf_ktime_get_ns(env))
    store32(record + 8, env.cpu)
    store32(record + 12, load32(task + env.pid_at) if task != 0 else 0)
    store32(record + 16, length)
    memcpy(record + 20, text, length)
    spin_unlock(int(ring) + _LOCK)


@device
def _emit(fmt: int, fmt_size: int, args: int, nargs: int, env: Env) -> int:
    """Format one trace_printk, put it into the ring, and fire the tracepoint bpf_trace_printk."""
    nest = env.printk_nest
    if nest >= _MOST_NESTED:
        return -EBUSY
    env.printk_nest = nest + 1
    text = env.scratch + nest * _TEXT
    length = _bprintf(text, _TEXT, fmt, fmt_size, args, nargs, int(env))
    if length >= 0:
        stored = length if length < _TEXT - 1 else _TEXT - 1
        _append(text, stored, env)
        tracepoint = env.printk_tp
        if tracepoint and tracepoint.key != 0:
            arguments = stack_bytes(8)
            store64(arguments, text)
            run_ctx = env.run_ctx
            _trace_call1(int(tracepoint), arguments, int(env))
            env.run_ctx = run_ctx
    env.printk_nest = nest
    return length


@native()
def bpf_trace_printk(fmt: int, fmt_size: int, a1: int, a2: int, a3: int, env: Env) -> int:
    """Format at most three arguments into the trace; the text's length, -EINVAL, -ENOSPC or -EBUSY."""
    args = stack_bytes(24)
    store64(args, a1)
    store64(args + 8, a2)
    store64(args + 16, a3)
    return _emit(fmt, fmt_size, args, 3, env)


@native()
def bpf_trace_vprintk(fmt: int, fmt_size: int, data: int, data_len: int, env: Env) -> int:
    """The same with up to twelve arguments in an array of u64."""
    if data_len & 7 or data_len > 8 * _MOST_ARGS or (data_len != 0 and data == 0):
        return -EINVAL
    return _emit(fmt, fmt_size, data, data_len >> 3, env)


@native()
def bpf_snprintf(out: int, room: int, fmt: int, data: int, data_len: int, env: Env) -> int:
    """Format into a buffer; the length with NUL that it would have, -EINVAL, -ENOSPC or -EBUSY."""
    if data_len & 7 or data_len > 8 * _MOST_ARGS or (data_len != 0 and data == 0):
        return -EINVAL
    if data_len != 0 and env.printk_nest >= _MOST_NESTED:
        return -EBUSY
    length = _bprintf(out, room, fmt, 0x7FFFFFFF, data, data_len >> 3, int(env))
    return length if length < 0 else length + 1
