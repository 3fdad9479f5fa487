"""Walk the records of a perf.data file and take samples apart: the loops that touch every record.

All numbers come from a file that may be hostile: every read stays inside the record, and the record inside [at, end).
The int64 arrays `state` and the rows of `layouts` are laid out by perf_data_layout.py.
Kernel: include/uapi/linux/perf_event.h (enum perf_event_type), kernel/events/core.c:perf_output_sample.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load16, load32, load64, native, store16, store32, store64
from fastrtp.trace.perf_attr import PERF_RECORD_SAMPLE

from . import perf_data_layout as layout


@device
def _step(record: int, left: int) -> int:
    """Bytes up to the next record, with what follows some records without being one; an error number, negated."""
    if left < 8:
        return -layout.NO_HEADER
    kind = load32(record)
    size = load16(record + 6)
    if size < 8:
        return -layout.BAD_SIZE
    if size > left:
        return -layout.PAST_END
    extra = 0
    if kind == layout.RECORD_AUXTRACE:
        if size < 16:
            return -layout.BAD_SIZE
        extra = load64(record + 8)
    elif kind == layout.RECORD_HEADER_TRACING_DATA:
        if size < 12:
            return -layout.BAD_SIZE
        extra = (load32(record + 8) + 7) & -8
    if extra < 0 or extra > left - size:
        return -layout.PAST_END
    return size + extra


@native()
def perf_data_walk(state: int) -> int:
    """Check the sizes of all records, count the samples, find the records whose types are in the masks (up to 63, up to 127).

    `W_SIDES` 0: only count these. Gives an error number, 0 is none.
    """
    data = load64(state + 8 * layout.W_DATA)
    at = load64(state + 8 * layout.W_AT)
    end = load64(state + 8 * layout.W_END)
    low = load64(state + 8 * layout.W_LOW)
    high = load64(state + 8 * layout.W_HIGH)
    sides = load64(state + 8 * layout.W_SIDES)
    capacity = load64(state + 8 * layout.W_CAPACITY)
    samples = 0
    found = 0
    error = layout.OK
    while at < end:
        step = _step(data + at, end - at)
        if step < 0:
            error = -step
            break
        kind = load32(data + at)
        if kind == PERF_RECORD_SAMPLE:
            samples += 1
        elif kind < 128:
            mask = low if kind < 64 else high
            if (mask >> (kind & 63)) & 1:
                if sides != 0:
                    if found >= capacity:
                        error = layout.BAD_CAPACITY
                        break
                    store64(sides + 8 * found, at)
                found += 1
        at += step
    store64(state + 8 * layout.W_SAMPLES, samples)
    store64(state + 8 * layout.W_FOUND, found)
    store64(state + 8 * layout.W_ERROR_AT, at)
    return error


@device
def _find(ids: int, count: int, ident: int) -> int:
    """Place of `ident` in the sorted `ids`, -1 for none."""
    first = 0
    last = count
    while first < last:
        middle = (first + last) >> 1
        if load64(ids + 8 * middle) < ident:
            first = middle + 1
        else:
            last = middle
    if first < count and load64(ids + 8 * first) == ident:
        return first
    return -1


@native()
def perf_data_samples(state: int) -> int:
    """Take the samples of records [at, stop) apart: raw data, time, type id, pid, tgid, cpu, callchain.

    Samples of attrs that are not wanted are counted only. Gives an error number, 0 is none.
    """
    data = load64(state + 8 * layout.S_DATA)
    at = load64(state + 8 * layout.S_AT)
    limit = load64(state + 8 * layout.S_STOP)
    end = load64(state + 8 * layout.S_END)
    id_at = load64(state + 8 * layout.S_ID_AT)
    ids = load64(state + 8 * layout.S_IDS)
    id_attrs = load64(state + 8 * layout.S_ID_ATTRS)
    n_ids = load64(state + 8 * layout.S_N_IDS)
    layouts = load64(state + 8 * layout.S_LAYOUTS)
    type_offset = load64(state + 8 * layout.S_TYPE_OFFSET)
    pid_offset = load64(state + 8 * layout.S_PID_OFFSET)
    min_record = load64(state + 8 * layout.S_MIN_RECORD)
    out_offset = load64(state + 8 * layout.S_OUT_OFFSET)
    out_time = load64(state + 8 * layout.S_OUT_TIME)
    out_type = load64(state + 8 * layout.S_OUT_TYPE)
    out_pid = load64(state + 8 * layout.S_OUT_PID)
    out_length = load64(state + 8 * layout.S_OUT_LENGTH)
    out_cpu = load64(state + 8 * layout.S_OUT_CPU)
    out_tgid = load64(state + 8 * layout.S_OUT_TGID)
    out_chain = load64(state + 8 * layout.S_OUT_CHAIN)
    capacity = load64(state + 8 * layout.S_CAPACITY)
    count = load64(state + 8 * layout.S_COUNT)
    unknown = load64(state + 8 * layout.S_UNKNOWN)
    last_id = 0
    attr = layouts
    known = id_at == 0
    error = layout.OK
    while at < limit:
        record = data + at
        step = _step(record, end - at)
        if step < 0:
            error = -step
            break
        if load32(record) != PERF_RECORD_SAMPLE:
            at += step
            continue
        if id_at != 0:
            if step < id_at + 8:
                error = layout.SHORT_SAMPLE
                break
            ident = load64(record + id_at)
            if ident != last_id or not known:
                place = _find(ids, n_ids, ident)
                known = place >= 0
                last_id = ident
                if known:
                    attr = layouts + 8 * layout.L_WORDS * load64(id_attrs + 8 * place)
            if not known:
                unknown += 1
                at += step
                continue
        store64(attr + 8 * layout.L_SEEN, load64(attr + 8 * layout.L_SEEN) + 1)
        if load64(attr + 8 * layout.L_WANTED) == 0:
            at += step
            continue
        here = load64(attr + 8 * layout.L_FIXED)
        if here > step:
            error = layout.SHORT_SAMPLE
            break
        size = load64(attr + 8 * layout.L_READ_SIZE)
        if size != 0:
            if size > step - here:
                error = layout.BAD_READ
                break
            unit = load64(attr + 8 * layout.L_READ_UNIT)
            number = load64(record + here) if unit != 0 else 0
            here += size
            if number < 0 or number > step:
                error = layout.BAD_READ
                break
            here += number * unit
            if here > step:
                error = layout.BAD_READ
                break
        chain = -1
        if load64(attr + 8 * layout.L_CALLCHAIN) != 0:
            if step - here < 8:
                error = layout.BAD_CALLCHAIN
                break
            number = load64(record + here)
            if number < 0 or number > (step - here - 8) >> 3:
                error = layout.BAD_CALLCHAIN
                break
            chain = at + here
            here += 8 + 8 * number
        if step - here < 4:
            error = layout.BAD_RAW
            break
        size = load32(record + here)
        here += 4
        if size > step - here:
            error = layout.BAD_RAW
            break
        if size < min_record:
            error = layout.SHORT_RAW
            break
        cpu = 0
        where = load64(attr + 8 * layout.L_CPU_AT)
        if where != 0:
            cpu = load32(record + where)
            if cpu > layout.MAX_CPU:
                error = layout.BAD_CPU
                break
        if count >= capacity:
            error = layout.BAD_CAPACITY
            break
        raw = record + here
        pid = load32(raw + pid_offset)
        tgid = pid
        where = load64(attr + 8 * layout.L_TID_AT)
        if where != 0 and load32(record + where + 4) == pid:
            tgid = load32(record + where)
        store64(out_offset + 8 * count, at + here)
        store64(out_time + 8 * count, load64(record + load64(attr + 8 * layout.L_TIME_AT)))
        store16(out_type + 2 * count, load16(raw + type_offset))
        store32(out_pid + 4 * count, pid)
        store32(out_length + 4 * count, size)
        store16(out_cpu + 2 * count, cpu)
        store32(out_tgid + 4 * count, tgid)
        if out_chain != 0:
            store64(out_chain + 8 * count, chain)
        count += 1
        at += step
    store64(state + 8 * layout.S_AT, at)
    store64(state + 8 * layout.S_COUNT, count)
    store64(state + 8 * layout.S_ERROR_AT, at)
    store64(state + 8 * layout.S_UNKNOWN, unknown)
    return error


@native()
def perf_data_callchains(data: int, chains: int, count: int, out: int) -> int:
    """Where the kernel's and the user's part of each callchain are. `out`: int64 rows of (start, bytes, start, bytes).

    A chain at data + chains[i] is {u64 nr; u64 ip[nr]} with markers between the addresses, -1 is none. Kernel:
    kernel/events/callchain.c:get_perf_callchain.
    """
    for index in range(count):
        row = out + 32 * index
        for word in range(4):
            store64(row + 8 * word, 0)
        chain = load64(chains + 8 * index)
        if chain < 0:
            continue
        part = 0
        for number in range(load64(data + chain)):
            at = chain + 8 + 8 * number
            address = load64(data + at)
            if layout.CONTEXT_MAX <= address < 0:
                part = 0
                if address == layout.CONTEXT_KERNEL:
                    part = row
                elif address == layout.CONTEXT_USER:
                    part = row + 16
                if part != 0 and load64(part + 8) != 0:
                    part = 0
                if part != 0:
                    store64(part, at + 8)
            elif part != 0:
                store64(part + 8, load64(part + 8) + 8)
    return 0
