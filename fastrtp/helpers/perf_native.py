"""Helpers on perf events that are not output: counters, and the processor's records of branches.

Nothing counts here. The events that a perf event array may hold are those that programs write to, which count nothing in Linux
either. Kernel: kernel/trace/bpf_trace.c, kernel/events/core.c:perf_event_read_local.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT

from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import device, load64, memset, native
from fastrtp.native.records import Env
from fastrtp.uapi import BPF_F_CURRENT_CPU

_VALUE_SIZE = 24
_U32 = 0xFFFFFFFF


@device
def _counter(map: MapRecord, flags: int, env: Env) -> int:
    """0 for an event whose counter may be read here, and is 0. Kernel: get_map_perf_counter."""
    if flags & ~_U32:
        return -EINVAL
    index = flags
    if index == BPF_F_CURRENT_CPU:
        index = env.cpu
    if index >= map.max_entries:
        return -E2BIG
    ring = MapRecord(load64(map.values + 8 * index))
    if not ring:
        return -ENOENT
    return 0 if ring.cpus == env.cpu else -EINVAL


@native()
def bpf_perf_event_read(map: MapRecord, flags: int, env: Env) -> int:
    """The counter, or -EINVAL (flags, another CPU's event), -E2BIG, -ENOENT."""
    return _counter(map, flags, env)


@native()
def bpf_perf_event_read_value(map: MapRecord, flags: int, out: int, size: int, env: Env) -> int:
    """{u64 counter, enabled, running}: zeros. 0, or the same errors, and -EINVAL for another size."""
    size &= _U32
    memset(out, 0, size)
    return _counter(map, flags, env) if size == _VALUE_SIZE else -EINVAL


@native()
def bpf_get_branch_snapshot(entries: int, size: int, flags: int, env: Env) -> int:
    """-ENOENT: there are no records of branches. -EINVAL (flags)."""
    return -EINVAL if flags != 0 else -ENOENT
