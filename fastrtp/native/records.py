"""The records of a running machine: what Python, the numba-compiled library and the generated LLVM IR agree on.

One declaration a record (native/record.py); every offset is derived from it. All addresses are int64 (two's complement),
because numba mixes int64 and uint64 into float64.

Must not know: BTF, programs, maps, replays.
"""

from __future__ import annotations

from fastrtp.native.record import Array, Pointer, Record, array, i64, u32

STATS_TIMED = 1
"""BPF_ENABLE_STATS is held: run_time_ns and run_cnt are kept."""
STATS_SMP = 2
"""Programs run in their form for several CPUs: by Prog.entry, not by what probes of their own have inside."""
NEVER = (1 << 63) - 1
"""An expiry that no clock reaches."""


class Machine(Record):
    """One per Kernel: what all its CPUs share."""

    owner: i64  # thread that runs native code now, 0 for none: one at a time, as on a UP machine
    depth: i64  # how often that thread has entered
    waiters: i64  # threads that wait for their turn
    env: Pointer[Array[Env]]  # Env[cpus]
    cpus: i64
    arena_base: i64
    arena_size: i64
    generation: i64  # grows whenever the probes of a tracepoint change
    timer_next: i64  # when the next bpf_timer expires, NEVER for none
    timers: Pointer[Timers]  # the machine's
    heap: Pointer[Heap]  # the machine's
    signals: Pointer[Signals]  # the machine's
    deferred: i64  # freed objects that wait for the end of this turn, linked through their headers
    drains: i64  # a replay that loses nothing is under way: what is full is emptied into its backlog on the spot
    keep: i64  # bytes that backlogs may take yet
    rings: i64  # first of the Maps that are rings for user space, linked through next_ring
    btf: i64  # BTF_TYPES, once a program has asked for it


class BtfTypes(Record):
    """The kernel's types: the type section, the strings, how many there are, and where each one's record is, in words (u32[])."""

    words: i64
    strings: i64
    count: i64
    offsets: i64


class Heap(Record):
    """Where programs' objects come from: memory never used so far, objects in use, freed ones by size (32 << n bytes)."""

    next: i64
    end: i64
    live: i64
    free: Array[i64] = array(12)
    lock: i64


class Backlog(Record):
    """What was taken out of something that was full, for whoever reads it later: BacklogChunks, oldest first."""

    first: Pointer[BacklogChunk]
    last: Pointer[BacklogChunk]


class BacklogChunk(Record):
    """What `room` bytes of a backlog begin with."""

    next: Pointer[BacklogChunk]
    used: i64
    room: i64
    pad: i64


class Signals(Record):
    """What bpf_send_signal would have sent: `count` records of 32 bytes at `data` (helpers/signal_native.py)."""

    data: i64
    room: i64
    count: i64
    lost: i64
    lock: i64
    backlog: Pointer[Backlog]


class Timers(Record):
    """The machine's bpf_timers: a binary heap of Timer addresses by (expires, seq), and the list of all that there are."""

    queue: Pointer[Array[i64]]
    count: i64
    room: i64
    seq: i64
    list: Pointer[Timer]
    running: i64
    lock: i64


class Timer(Record):
    """`struct bpf_hrtimer`: what the first 8 bytes of a struct bpf_timer point at."""

    map: i64
    value: i64  # start of the map value
    callback: i64
    expires: i64  # ns
    place: i64  # place in the queue, from 1; 0: not armed
    seq: i64  # order of those that expire together
    cpu: i64
    clock: i64
    prev: Pointer[Timer]
    next: Pointer[Timer]
    field: i64  # address of the struct bpf_timer


class Env(Record):
    """One per CPU: what a running program's helpers ask about their surroundings (`struct task_struct *current` and friends)."""

    time: i64  # ns: what bpf_ktime_get_ns returns while the clock is virtual
    clock: i64  # 0: virtual, the recording's; 1: the host's CLOCK_MONOTONIC
    boot_offset: i64  # ns, CLOCK_BOOTTIME - CLOCK_MONOTONIC
    tai_offset: i64  # ns, CLOCK_TAI - CLOCK_MONOTONIC
    cpu: i64
    numa_node: i64
    current: i64  # address of the current task_struct object, 0 for none
    pid_at: i64  # offsets of task_struct members in the loaded BTF
    tgid_at: i64
    comm_at: i64
    uid_gid: i64
    arena_base: i64
    arena_size: i64
    user_base: i64  # the part of the arena that stands for user memory
    user_size: i64
    run_ctx: Pointer[RunCtx]  # RunCtx of the running program (stale when none runs); the stack below is what the program may name
    stats: i64  # what is special about runs now: STATS_TIMED, STATS_SMP
    rng: i64
    output_nest: i64  # perf_event_output nests at most 3 deep
    printk_nest: i64  # so does bpf_trace_printk
    faulted: i64  # reads of synthetic memory that gave -EFAULT or 0
    printk: Pointer[Printk]  # ring of the machine
    machine: Pointer[Machine]
    printk_tp: Pointer[TracepointRecord]  # of bpf_trace_printk, 0 when the kernel has none
    kernel_stack: i64  # {u64 nr; u64 ip[nr]} recorded with the event, 0 for none
    user_stack: i64
    scratch: i64  # 3 buffers of 1,024 bytes for bpf_trace_printk, one a nesting level
    pad: Array[i64] = array(5)  # whole cache lines, so that no two CPUs share one


class RunCtx(Record):
    """`struct bpf_trace_run_ctx`: on the stack of bpf_trace_run, above args[]."""

    cookie: i64
    tail_calls: u32
    ctx_size: u32  # bytes of context that there are: what a program that is tail-called reads beyond them is nobody's


class TracepointFuncRecord(Record):
    """`struct tracepoint_func`; an array of them ends with func == 0."""

    func: i64
    data: i64


class TracepointRecord(Record):
    """`struct tracepoint`: the static key (probe count), the first probe, and the address of the TracepointFunc array of the
    others, 0 for none. The first one is here as it is the target of the kernel's static call: most tracepoints have no second.
    """

    key: i64
    first: TracepointFuncRecord
    others: Pointer[Array[TracepointFuncRecord]]


class Link(Record):
    """`struct bpf_raw_tp_link`: the probe's private data. `stats`: the program's, so that they are one load away. What a RunCtx
    starts as: `cookie`, `tail_calls` (always 0) and `ctx_size`.
    """

    prog: Pointer[Prog]
    stats: Pointer[Array[ProgStats]]
    cookie: i64
    tail_calls: u32
    ctx_size: u32
    id: i64
    tp: Pointer[TracepointRecord]


class Prog(Record):
    """`struct bpf_prog`: native entry point, the address of ProgStats[cpus], and how much of its context it reads, in bytes."""

    entry: i64
    stats: Pointer[Array[ProgStats]]
    cpus: i64
    id: i64
    ctx_size: i64


class ProgStats(Record):
    """Per program and CPU, a cache line each: recursion guard, runs (always counted), misses, and what BPF_ENABLE_STATS keeps."""

    active: i64
    runs: i64
    misses: i64
    run_cnt: i64
    run_time_ns: i64
    pad0: i64
    pad1: i64
    pad2: i64


class Printk(Record):
    """The ring that bpf_trace_printk writes to: records {u64 time, u32 cpu, u32 pid, u32 length, text}, 8-aligned."""

    data: i64
    size: i64
    head: i64
    lost: i64
    lock: i64
    backlog: Pointer[Backlog]
