"""bpf_snprintf_btf: an object as text, by the kernel's types.

`(struct task_struct){ .pid = (pid_t)7, ...`: names and values of what is not zero, indented. What is said of a type goes by the
state that Linux keeps while it walks (struct btf_show), its oddities included: a struct is walked once to see whether anything
in it is not zero, and once to show it. Kernel: kernel/bpf/btf.c:btf_type_snprintf_show and what it calls.
"""

from __future__ import annotations

from errno import EINVAL, ENOENT

from fastrtp.helpers.bprintf_native import is_alnum, is_punct, put, put_digits
from fastrtp.helpers.probe_native import in_range, nofault_error, stack_room
from fastrtp.native.intrinsics import (
    device,
    load8,
    load16,
    load32,
    load64,
    lshr,
    memset,
    native,
    stack_bytes,
    store8,
    store64,
)
from fastrtp.native.records import BtfTypes, Env

_STRINGS = BtfTypes.layout.at("strings")

INT, PTR, ARRAY, STRUCT, UNION, ENUM, TYPEDEF, VOLATILE, CONST, RESTRICT = 1, 2, 3, 4, 5, 6, 8, 9, 10, 11
VAR, TYPE_TAG, ENUM64 = 14, 18, 19
COMPACT, NONAME, PTR_RAW, ZERO = 1, 2, 4, 8
_ALL_FLAGS = COMPACT | NONAME | PTR_RAW | ZERO
_SIGNED, _CHAR = 1, 2
_MAX_RESOLVE, _MAX_NAMES, _MAX_LEVELS = 32, 10, 64
_NAME_SIZE, _SAFE_SIZE, _BASE_TYPE_SIZE, _INDENTS = 80, 32, 16, 32
_U32 = 0xFFFFFFFF
_UNSUPPORTED_1, _UNSUPPORTED_2, _UNSUPPORTED_3 = (int.from_bytes(part, "little") for part in (b"<unsuppo", b"rted kin", b"d:"))

# struct btf_show: words of 8 bytes
(
    _OUT, _ROOM, _LENGTH, _FLAGS, _DEPTH, _TO_SHOW, _CHECK, _ARRAY_MEMBER, _TERMINATED, _ENCODING, _TYPE_ID, _STATUS, _TYPE,
    _MEMBER, _OBJ_SIZE, _OBJ_HEAD, _OBJ_DATA, _TYPES, _ENV, _NAME,
) = range(0, 160, 8)  # fmt: skip
_SHOW_SIZE = 160 + _NAME_SIZE


@device
def _at(show: int, type_id: int) -> int:
    """The record of a type, 0 for none."""
    btf = BtfTypes(load64(show + _TYPES))
    if type_id <= 0 or type_id >= btf.count:
        return 0
    return btf.words + 4 * load32(btf.offsets + 4 * (type_id - 1))


@device
def _kind(record: int) -> int:
    return load32(record + 4) >> 24 & 0x1F if record != 0 else 0


@device
def _text(show: int, offset: int) -> int:
    """Address of a name."""
    return load64(load64(show + _TYPES) + _STRINGS) + offset


@device
def _skip(show: int, type_id: int, typedefs: int) -> int:
    """The type below modifiers, 0 for none."""
    for _ in range(_MAX_RESOLVE):
        record = _at(show, type_id)
        kind = _kind(record)
        below = kind == VOLATILE or kind == CONST or kind == RESTRICT or kind == TYPE_TAG
        if not below and not (typedefs != 0 and kind == TYPEDEF):
            return type_id
        type_id = load32(record + 8)
    return 0


@device
def _size_of(show: int, type_id: int) -> int:
    """Bytes, -1 for what has no size. Kernel: btf_resolve_size."""
    times = 1
    for _ in range(_MAX_RESOLVE):
        type_id = _skip(show, type_id, 1)
        record = _at(show, type_id)
        kind = _kind(record)
        if kind == INT or kind == STRUCT or kind == UNION or kind == ENUM or kind == ENUM64:
            return times * load32(record + 8)
        if kind == PTR:
            return times * 8
        if kind != ARRAY:
            return -1
        times *= load32(record + 20)
        type_id = load32(record + 12)
    return -1


@device
def _has_size(kind: int) -> bool:
    """Kernel: btf_type_has_size."""
    return kind == INT or kind == STRUCT or kind == UNION or kind == ENUM or kind == 15 or kind == 16 or kind == ENUM64


# output


@device
def _char(show: int, char: int) -> None:
    store64(show + _LENGTH, put(load64(show + _OUT), load64(show + _ROOM), load64(show + _LENGTH), char))


@device
def _string(show: int, address: int) -> None:
    while load8(address) != 0:
        _char(show, load8(address))
        address += 1


@device
def _indent(show: int) -> None:
    if load64(show + _FLAGS) & COMPACT == 0:
        for _ in range(min(load64(show + _DEPTH), _INDENTS)):
            _char(show, 32)


@device
def _end_line(show: int) -> None:
    """The delimiter, and a new line."""
    if load64(show + _DEPTH) != 0:
        compact = load64(show + _FLAGS) & COMPACT
        union = _kind(load64(show + _TYPE)) == UNION
        _char(show, 124 if compact != 0 and union else 44)
    if load64(show + _FLAGS) & COMPACT == 0:
        _char(show, 10)


@device
def _name_char(show: int, length: int, char: int) -> int:
    if length < _NAME_SIZE - 1:
        store8(show + _NAME + length, char)
        length += 1
    return length


@device
def _name_string(show: int, length: int, address: int) -> int:
    while load8(address) != 0 and length < _NAME_SIZE - 1:
        length = _name_char(show, length, load8(address))
        address += 1
    return length


@device
def _name_word(show: int, length: int, kind: int) -> int:
    """struct, union or enum."""
    word = 0x746375727473
    if kind == UNION:
        word = 0x6E6F696E75
    elif kind != STRUCT:
        word = 0x6D756E65
    while word != 0:
        length = _name_char(show, length, word & 0xFF)
        word >>= 8
    return length


@device
def _name(show: int) -> None:
    """What stands before a value: `.member = (type)`, and what opens it. Kernel: btf_show_name."""
    if load64(show + _ARRAY_MEMBER) != 0:
        return
    member = load64(show + _MEMBER)
    type_id = load64(show + _TYPE_ID)
    label = 0
    if member != 0:
        label = _text(show, load32(member))
        type_id = load32(member + 4)
    record = _at(show, type_id)
    if record == 0:
        return
    name = 0
    stars = arrays = typedef = 0
    closed = 0
    for _ in range(_MAX_NAMES):
        kind = _kind(record)
        following = 0
        if kind == TYPEDEF:
            if name == 0:
                name = _text(show, load32(record))
            typedef = 1
            following = load32(record + 8)
        elif kind == ARRAY:
            arrays += 1
            following = load32(record + 12)
        elif kind == PTR:
            stars += 1
            following = load32(record + 8)
        if following == 0:
            closed = 1
            break
        record = _at(show, _skip(show, following, 0))
    if closed == 0:
        return
    if name == 0 and record != 0:
        name = _text(show, load32(record))
    kind = _kind(record)
    opening = 0
    if arrays != 0:
        opening = 91
    elif kind == STRUCT or kind == UNION:
        opening = 123
    if stars != 0:
        opening = 0
    length = 0
    if load64(show + _FLAGS) & NONAME == 0:
        if label != 0 and load8(label) != 0:
            length = _name_char(show, length, 46)
            length = _name_string(show, length, label)
            length = _name_char(show, length, 32)
            length = _name_char(show, length, 61)
            length = _name_char(show, length, 32)
        length = _name_char(show, length, 40)
        named = name != 0 and load8(name) != 0
        if typedef == 0 and (kind == STRUCT or kind == UNION or kind == ENUM or kind == ENUM64):
            length = _name_word(show, length, kind)
            if named:
                length = _name_char(show, length, 32)
        if named:
            length = _name_string(show, length, name)
        if stars != 0:
            length = _name_char(show, length, 32)
        for _ in range(stars):
            length = _name_char(show, length, 42)
        for _ in range(arrays):
            length = _name_char(show, length, 91)
            length = _name_char(show, length, 93)
        length = _name_char(show, length, 41)
    if opening != 0:
        length = _name_char(show, length, opening)
    store8(show + _NAME + length, 0)
    _string(show, show + _NAME)


@device
def _begin_value(show: int, value: int) -> bool:
    """Whether a value is shown; what stands before it."""
    if value == 0 and load64(show + _FLAGS) & ZERO == 0 and load64(show + _DEPTH) != 0:
        return False
    if load64(show + _DEPTH) > load64(show + _TO_SHOW):
        store64(show + _TO_SHOW, load64(show + _DEPTH))
    if load64(show + _CHECK) != 0:
        return False
    _indent(show)
    _name(show)
    return True


@device
def _digits(show: int, value: int, base: int, least: int) -> None:
    length = put_digits(load64(show + _OUT), load64(show + _ROOM), load64(show + _LENGTH), value, base, False, least)
    store64(show + _LENGTH, length)


@device
def _number(show: int, value: int, signed: int) -> None:
    if _begin_value(show, value):
        if signed != 0 and value < 0:
            _char(show, 45)
            value = -value
        _digits(show, value, 10, 1)
        _end_line(show)


@device
def _hexadecimal(show: int, upper: int, lower: int, least: int) -> None:
    """0x and a number of up to 128 bits. Kernel: btf_int128_print, btf_ptr_show."""
    if _begin_value(show, upper | lower):
        _char(show, 48)
        _char(show, 120)
        if upper != 0:
            _digits(show, upper, 16, 1)
            least = 16
        _digits(show, lower, 16, least)
        _end_line(show)


# the walk


@device
def _readable(show: int, data: int, size: int) -> bool:
    env = Env(load64(show + _ENV))
    if in_range(data, size, env.arena_base, env.arena_size):
        return True
    here = stack_bytes(16)
    return in_range(data, size, here, stack_room(here, env))


@device
def _start(show: int, record: int, type_id: int, sized: int, data: int) -> bool:
    """Whether there is memory to show a type from. Kernel: btf_show_start_type, btf_show_obj_safe."""
    store64(show + _TYPE, record)
    store64(show + _TYPE_ID, type_id)
    size = _size_of(show, sized)
    if size < 0:
        store64(show + _STATUS, -EINVAL)
        return False
    if load64(show + _DEPTH) == 0:
        store64(show + _OBJ_SIZE, size)
        store64(show + _OBJ_HEAD, data)
    else:
        copied = load64(show + _OBJ_DATA)
        if copied != 0 and data >= copied and data + min(size, _BASE_TYPE_SIZE) < copied + _SAFE_SIZE:
            return True
    left = min(load64(show + _OBJ_HEAD) + load64(show + _OBJ_SIZE) - data, _SAFE_SIZE)
    if left > 0 and not _readable(show, data, left):
        store64(show + _STATUS, nofault_error(data))
        return False
    store64(show + _STATUS, 0)
    store64(show + _OBJ_DATA, data)
    return True


@device
def _finish(show: int) -> None:
    store64(show + _TYPE, 0)
    store64(show + _TYPE_ID, 0)


@device
def _open(show: int, record: int, type_id: int, sized: int, data: int) -> bool:
    """Begin a struct, union or array."""
    if not _start(show, record, type_id, sized, data):
        return False
    if load64(show + _CHECK) == 0:
        _indent(show)
        _name(show)
        if load64(show + _FLAGS) & COMPACT == 0:
            _char(show, 10)
    store64(show + _DEPTH, load64(show + _DEPTH) + 1)
    return True


@device
def _close(show: int, suffix: int) -> None:
    store64(show + _DEPTH, load64(show + _DEPTH) - 1)
    if load64(show + _CHECK) == 0:
        _indent(show)
        _char(show, suffix)
        _end_line(show)
    _finish(show)


@device
def _bits(show: int, data: int, first: int, count: int) -> None:
    """A bit-field of up to 64 bits, from bit `first` (0 to 7) of a byte on. Kernel: btf_bitfield_show."""
    value = 0
    taken = 0
    at_bit = first
    while taken < count and taken < 64:
        byte = load8(data + (at_bit >> 3))
        value |= (byte >> (at_bit & 7) & 1) << taken
        taken += 1
        at_bit += 1
    _hexadecimal(show, 0, value, 1)


@device
def _signed(value: int, bits: int) -> int:
    sign = 1 << (bits - 1)
    return (value ^ sign) - sign


@device
def _is_print(char: int) -> bool:
    return char == 32 or char == 0xA0 or is_alnum(char) or is_punct(char)


@device
def _int(show: int, record: int, type_id: int, sized: int, data: int, first: int) -> None:
    """Kernel: btf_int_show."""
    if not _start(show, record, type_id, sized, data):
        return
    word = load32(record + 12)
    encoding = word >> 24 & 0xF
    offset = word >> 16 & 0xFF
    bits = word & 0xFF
    signed = encoding & _SIGNED
    whole = bits == 8 or bits == 16 or bits == 32 or bits == 64 or bits == 128
    if first != 0 or offset != 0 or not whole:
        total = first + offset
        _bits(show, data + (total >> 3), total & 7, bits)
    elif bits == 128:
        _hexadecimal(show, load64(data + 8), load64(data), 1)
    elif bits == 64:
        value = load64(data)
        if signed != 0 or value >= 0:
            _number(show, value, signed)
        elif _begin_value(show, value):
            _digits(show, value, 10, 1)
            _end_line(show)
    elif bits == 32:
        value = load32(data)
        _number(show, _signed(value, 32) if signed != 0 else value, signed)
    elif bits == 16:
        value = load16(data)
        _number(show, _signed(value, 16) if signed != 0 else value, signed)
    else:
        value = load8(data)
        text = load64(show + _ENCODING) == _CHAR
        if text and (load64(show + _TERMINATED) != 0 or value == 0):
            store64(show + _TERMINATED, 1)
        elif text and _is_print(value):
            if _begin_value(show, value):
                _char(show, 39)
                _char(show, value)
                _char(show, 39)
                _end_line(show)
        else:
            _number(show, _signed(value, 8) if signed != 0 else value, signed)
    _finish(show)


@device
def _enum(show: int, record: int, type_id: int, sized: int, data: int, wide: int) -> None:
    """Kernel: btf_enum_show, btf_enum64_show."""
    if not _start(show, record, type_id, sized, data):
        return
    value = load64(data) if wide != 0 else load32(data)
    name = 0
    entry = record + 12
    for _ in range(load32(record + 4) & 0xFFFF):
        known = load32(entry + 4)
        if wide != 0:
            known |= load32(entry + 8) << 32
        if known == value:
            name = _text(show, load32(entry))
            break
        entry += 12 if wide != 0 else 8
    signed = lshr(load32(record + 4), 31)
    if name != 0:
        if _begin_value(show, name):
            _string(show, name)
            _end_line(show)
    elif wide == 0 and signed != 0:
        _number(show, _signed(value, 32), 1)
    elif wide == 0 or signed != 0 or value >= 0:
        _number(show, value, signed)
    elif _begin_value(show, value):
        _digits(show, value, 10, 1)
        _end_line(show)
    _finish(show)


@device
def _unsupported(show: int, kind: int) -> None:
    """Kernel: btf_df_show."""
    if load64(show + _CHECK) == 0:
        for part in (_UNSUPPORTED_1, _UNSUPPORTED_2, _UNSUPPORTED_3):
            word = part
            while word != 0:
                _char(show, word & 0xFF)
                word >>= 8
        _digits(show, kind, 10, 1)
        _char(show, 62)


@device
def _show(show: int, type_id: int, data: int, first: int, level: int) -> int:
    """A value of a type, and what it holds. `first`: its first bit in a byte. Kernel: the `show` of btf_kind_operations."""
    resolved = _skip(show, type_id, 1)
    record = _at(show, resolved)
    kind = _kind(record)
    if record == 0 or level > _MAX_LEVELS:
        return 0
    if kind == VAR:
        return _show(show, load32(record + 8), data, first, level + 1)
    if kind == INT:
        _int(show, record, type_id, resolved, data, first)
        return 0
    if kind == PTR:
        if _start(show, record, type_id, resolved, data):
            _hexadecimal(show, 0, load64(data), 16)
            _finish(show)
        return 0
    if kind == ENUM or kind == ENUM64:
        _enum(show, record, type_id, resolved, data, 1 if kind == ENUM64 else 0)
        return 0
    if kind != STRUCT and kind != UNION and kind != ARRAY:
        _unsupported(show, kind)
        return 0
    member = load64(show + _MEMBER)
    checks = load64(show + _DEPTH) > 0 and load64(show + _FLAGS) & ZERO == 0
    if checks and load64(show + _CHECK) == 0:
        store64(show + _CHECK, load64(show + _DEPTH) + 1)
        store64(show + _TO_SHOW, 0)
    passes = 2 if checks else 1
    while True:
        if kind == ARRAY:
            element = load32(record + 12)
            below = _at(show, _skip(show, element, 1))
            size = load32(below + 8) if _has_size(_kind(below)) else 0
            encoding = 0
            if _kind(below) == INT:
                encoding = _CHAR if size == 1 else load32(below + 12) >> 24 & 0xF
            store64(show + _ENCODING, encoding)
            store64(show + _TERMINATED, 0)
            if _open(show, record, type_id, resolved, data):
                count = load32(record + 20) if below != 0 else 0
                index = 0
                while index < count:
                    store64(show + _ARRAY_MEMBER, 1)
                    store64(show + _MEMBER, 0)
                    _show(show, element, data + index * size, first, level + 1)
                    store64(show + _ARRAY_MEMBER, 0)
                    store64(show + _MEMBER, 0)
                    if load64(show + _TERMINATED) != 0 or load64(show + _STATUS) != 0:
                        break
                    index += 1
                store64(show + _ENCODING, 0)
                store64(show + _TERMINATED, 0)
                _close(show, 93)
        elif _open(show, record, type_id, resolved, data):
            entry = record + 12
            for _ in range(load32(record + 4) & 0xFFFF):
                store64(show + _MEMBER, entry)
                place = load32(entry + 8)
                width = 0
                if lshr(load32(record + 4), 31) != 0:
                    width = place >> 24
                    place &= 0xFFFFFF
                inner = data + (place >> 3)
                if width != 0:
                    below = load32(entry + 4)
                    if _start(show, _at(show, below), below, below, inner):
                        _bits(show, inner, place & 7, width)
                    _finish(show)
                else:
                    _show(show, load32(entry + 4), inner, place & 7, level + 1)
                store64(show + _MEMBER, 0)
                entry += 12
            _close(show, 125)
        passes -= 1
        if passes == 0:
            return 0
        store64(show + _MEMBER, member)
        if load64(show + _CHECK) != load64(show + _DEPTH) + 1:
            return 0
        store64(show + _CHECK, 0)
        if load64(show + _TO_SHOW) <= load64(show + _DEPTH):
            return 0


@native()
def bpf_snprintf_btf(out: int, room: int, ptr: int, ptr_size: int, flags: int, env: Env) -> int:
    """The text of {void *ptr, u32 type_id, u32 flags}: its whole length, of which `room` has what fits. -EINVAL, -ENOENT, and
    -ERANGE or -EFAULT for an object that cannot be read.
    """
    room &= _U32
    types = BtfTypes(env.machine.btf)
    if flags & ~_ALL_FLAGS or ptr_size & _U32 != 16 or not types:
        return -EINVAL
    type_id = (load32(ptr + 8) ^ 0x80000000) - 0x80000000
    if type_id == 0:
        return -EINVAL
    if type_id < 0 or type_id >= types.count:
        return -ENOENT
    show = stack_bytes(256)
    memset(show, 0, _SHOW_SIZE)
    store64(show + _OUT, out)
    store64(show + _ROOM, max(room - 1, 0))
    store64(show + _FLAGS, flags)
    store64(show + _TYPES, int(types))
    store64(show + _ENV, int(env))
    _show(show, type_id, load64(ptr), 0, 0)
    length = load64(show + _LENGTH)
    if length != 0 and room != 0:
        store8(out + min(length, room - 1), 0)
    status = load64(show + _STATUS)
    return status if status != 0 else length
