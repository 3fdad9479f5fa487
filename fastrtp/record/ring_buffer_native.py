"""Walk ring-buffer pages and copy record fields into columns: the two loops that touch every event.

All numbers come from a file that may be hostile: every read stays inside [at, end) of the page or the record that was
checked before. `state` is the int64 array laid out by the S_* constants below, shared with ring_buffer.py.
Kernel: kernel/trace/ring_buffer.c (struct buffer_data_page, struct ring_buffer_event).
"""

from __future__ import annotations

from fastrtp.native.intrinsics import load8, load16, load32, load64, lshr, memcpy, native, store8, store16, store32, store64

S_DATA = 0
S_AT = 1
S_END = 2
S_PAGE_SIZE = 3
S_COMMIT_SIZE = 4
S_HEADER_SIZE = 5
S_TYPE_OFFSET = 6
S_PID_OFFSET = 7
S_MIN_RECORD = 8
S_OUT_OFFSET = 9
S_OUT_TIME = 10
S_OUT_TYPE = 11
S_OUT_PID = 12
S_OUT_LENGTH = 13
S_CAPACITY = 14
S_COUNT = 15
S_ERROR_AT = 16
S_LOST = 17
S_GAPS = 18
S_WORDS = 19

OK = 0
BAD_COMMIT = 1
BAD_LENGTH = 2
BAD_CAPACITY = 3
SHORT_RECORD = 4
SHORT_PAGE = 5

COMMIT_MASK = (1 << 27) - 1
MISSED_EVENTS = 1 << 31
MISSED_STORED = 1 << 30
TS_MSB = -(1 << 59)
TS_MASK = (1 << 59) - 1


@native()
def ring_buffer_scan(state: int) -> int:
    """Find every record of one CPU's pages: offset, length, time, type id and common_pid. Gives an error number, 0 is none."""
    data = load64(state + 8 * S_DATA)
    page = load64(state + 8 * S_AT)
    end = load64(state + 8 * S_END)
    page_size = load64(state + 8 * S_PAGE_SIZE)
    commit_size = load64(state + 8 * S_COMMIT_SIZE)
    header_size = load64(state + 8 * S_HEADER_SIZE)
    type_offset = load64(state + 8 * S_TYPE_OFFSET)
    pid_offset = load64(state + 8 * S_PID_OFFSET)
    min_record = load64(state + 8 * S_MIN_RECORD)
    out_offset = load64(state + 8 * S_OUT_OFFSET)
    out_time = load64(state + 8 * S_OUT_TIME)
    out_type = load64(state + 8 * S_OUT_TYPE)
    out_pid = load64(state + 8 * S_OUT_PID)
    out_length = load64(state + 8 * S_OUT_LENGTH)
    capacity = load64(state + 8 * S_CAPACITY)
    count = 0
    lost = 0
    gaps = 0
    error = OK
    error_at = 0
    while page < end and error == OK:
        page_end = min(page + page_size, end)
        if page_end - page < header_size:
            error = SHORT_PAGE
            error_at = page
            break
        time = load64(data + page)
        commit_word = load64(data + page + 8) if commit_size == 8 else load32(data + page + 8)
        at = page + header_size
        stop = at + (commit_word & COMMIT_MASK)
        if stop > page_end:
            error = BAD_COMMIT
            error_at = page
            break
        if commit_word & MISSED_EVENTS:
            if commit_word & MISSED_STORED and page_end - stop >= commit_size:
                lost += load64(data + stop) if commit_size == 8 else load32(data + stop)
            else:
                gaps += 1
        while at < stop:
            if stop - at < 4:
                error = BAD_LENGTH
                error_at = at
                break
            word = load32(data + at)
            type_len = word & 31
            delta = lshr(word, 5)
            body = at + 4
            if type_len == 29:
                if delta == 0:
                    break
                if stop - body < 4:
                    error = BAD_LENGTH
                    error_at = at
                    break
                size = load32(data + body)
                if size < 4 or size > stop - body:
                    error = BAD_LENGTH
                    error_at = at
                    break
                time += delta
                at = body + size
                continue
            if type_len >= 30:
                if stop - body < 4:
                    error = BAD_LENGTH
                    error_at = at
                    break
                value = (load32(data + body) << 27) + delta
                if type_len == 30:
                    time += value
                else:
                    value = (value & TS_MASK) | (time & TS_MSB)
                    if value < time:
                        value += 1 << 59
                    time = value
                at = body + 4
                continue
            if type_len == 0:
                if stop - body < 4:
                    error = BAD_LENGTH
                    error_at = at
                    break
                size = load32(data + body) - 4
                body += 4
            else:
                size = type_len * 4
            if size < 0 or size > stop - body:
                error = BAD_LENGTH
                error_at = at
                break
            if size < min_record:
                error = SHORT_RECORD
                error_at = at
                break
            if count >= capacity:
                error = BAD_CAPACITY
                error_at = at
                break
            time += delta
            store64(out_offset + 8 * count, body)
            store64(out_time + 8 * count, time)
            store16(out_type + 2 * count, load16(data + body + type_offset))
            store32(out_pid + 4 * count, load32(data + body + pid_offset))
            store32(out_length + 4 * count, size)
            count += 1
            at = body + ((size + 3) & -4)
        page += page_size
    store64(state + 8 * S_COUNT, count)
    store64(state + 8 * S_ERROR_AT, error_at)
    store64(state + 8 * S_LOST, lost)
    store64(state + 8 * S_GAPS, gaps)
    return error


@native()
def ring_buffer_gather(data: int, offsets: int, count: int, fields: int, n_fields: int) -> int:
    """Copy the fields of `count` records at data + offsets[i] to columns. `fields`: int64 rows of (offset, size, column)."""
    for index in range(count):
        record = data + load64(offsets + 8 * index)
        for number in range(n_fields):
            row = fields + 24 * number
            source = record + load64(row)
            size = load64(row + 8)
            target = load64(row + 16) + size * index
            if size == 4:
                store32(target, load32(source))
            elif size == 8:
                store64(target, load64(source))
            elif size == 1:
                store8(target, load8(source))
            elif size == 16:
                store64(target, load64(source))
                store64(target + 8, load64(source + 8))
            elif size == 2:
                store16(target, load16(source))
            else:
                memcpy(target, source, size)
    return 0


@native()
def ring_buffer_gather_bytes(data: int, starts: int, lengths: int, count: int, out: int) -> int:
    """Copy `count` pieces of lengths[i] bytes at data + starts[i] one behind the other to `out`."""
    at = out
    for index in range(count):
        size = load64(lengths + 8 * index)
        memcpy(at, data + load64(starts + 8 * index), size)
        at += size
    return 0
