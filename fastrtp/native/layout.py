"""The native records: what Python, the numba-compiled library and the generated LLVM IR agree on.

One table of NumPy structured dtypes; every offset that native code uses is derived from it with `at()`.
All addresses are int64 (two's complement), because numba mixes int64 and uint64 into float64.

Must not know: BTF, programs, maps' Python side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

I8 = "<i8"
I4 = "<i4"

MACHINE = np.dtype(
    [
        ("owner", I8),  # thread that runs native code now, 0 for none: one at a time, as on a UP machine
        ("depth", I8),  # how often that thread has entered
        ("waiters", I8),  # threads that wait for their turn
        ("env", I8),  # Env[cpus]
        ("cpus", I8),
        ("arena_base", I8),
        ("arena_size", I8),
        ("generation", I8),  # grows whenever the probes of a tracepoint change
        ("timer_next", I8),  # when the next bpf_timer expires, NEVER for none
        ("timers", I8),  # TIMERS record
        ("heap", I8),  # HEAP record
        ("signals", I8),  # SIGNALS record
        ("deferred", I8),  # freed objects that wait for the end of this turn, linked through their headers
        ("drains", I8),  # a replay that loses nothing is under way: what is full is emptied into its backlog on the spot
        ("keep", I8),  # bytes that backlogs may take yet
        ("rings", I8),  # first of the MAPs that are rings for user space, linked through next_ring
        ("btf", I8),  # BTF_TYPES, once a program has asked for it
    ]
)
"""One per Kernel: what all its CPUs share."""

BTF_TYPES = np.dtype([("words", I8), ("strings", I8), ("count", I8), ("offsets", I8)])
"""The kernel's types: the type section, the strings, how many there are, and where each one's record is, in words (u32[])."""

STATS_TIMED = 1
"""BPF_ENABLE_STATS is held: run_time_ns and run_cnt are kept."""
STATS_SMP = 2
"""Programs run in their form for several CPUs: by PROG.entry, not by what probes of their own have inside."""
NEVER = (1 << 63) - 1
"""An expiry that no clock reaches."""

HEAP = np.dtype([("next", I8), ("end", I8), ("live", I8), ("free", I8, (12,)), ("lock", I8)])
"""Where programs' objects come from: memory never used so far, objects in use, freed ones by size (32 << n bytes)."""

BACKLOG = np.dtype([("first", I8), ("last", I8)])
"""What was taken out of something that was full, for whoever reads it later: BACKLOG_CHUNKs, oldest first."""

BACKLOG_CHUNK = np.dtype([("next", I8), ("used", I8), ("room", I8), ("pad", I8)])
"""What `room` bytes of a backlog begin with."""

CONSUMER = np.dtype([("machine", I8), ("due", I8), ("step", I8)])
"""A reader of all rings of a machine who looks at set times: when next, and how long until then again; in events or in ns."""

SIGNALS = np.dtype([("data", I8), ("room", I8), ("count", I8), ("lost", I8), ("lock", I8), ("backlog", I8)])
"""What bpf_send_signal would have sent: `count` records of 32 bytes at `data` (helpers/signal_native.py)."""

TIMERS = np.dtype([("queue", I8), ("count", I8), ("room", I8), ("seq", I8), ("list", I8), ("running", I8), ("lock", I8)])
"""The machine's bpf_timers: a binary heap of TIMER addresses by (expires, seq), and the list of all that there are."""

TIMER = np.dtype(
    [
        ("map", I8),
        ("value", I8),  # start of the map value
        ("callback", I8),
        ("expires", I8),  # ns
        ("place", I8),  # place in the queue, from 1; 0: not armed
        ("seq", I8),  # order of those that expire together
        ("cpu", I8),
        ("clock", I8),
        ("prev", I8),
        ("next", I8),
        ("field", I8),  # address of the struct bpf_timer
    ]
)
"""`struct bpf_hrtimer`: what the first 8 bytes of a struct bpf_timer point at."""

ENV = np.dtype(
    [
        ("time", I8),  # ns: what bpf_ktime_get_ns returns while the clock is virtual
        ("clock", I8),  # 0: virtual, the recording's; 1: the host's CLOCK_MONOTONIC
        ("boot_offset", I8),  # ns, CLOCK_BOOTTIME - CLOCK_MONOTONIC
        ("tai_offset", I8),  # ns, CLOCK_TAI - CLOCK_MONOTONIC
        ("cpu", I8),
        ("numa_node", I8),
        ("current", I8),  # address of the current task_struct object, 0 for none
        ("pid_at", I8),  # offsets of task_struct members in the loaded BTF
        ("tgid_at", I8),
        ("comm_at", I8),
        ("uid_gid", I8),
        ("arena_base", I8),
        ("arena_size", I8),
        ("user_base", I8),  # the part of the arena that stands for user memory
        ("user_size", I8),
        ("run_ctx", I8),  # RUN_CTX of the running program (stale when none runs); the stack below is what the program may name
        ("stats", I8),  # what is special about runs now: STATS_TIMED, STATS_SMP
        ("rng", I8),
        ("output_nest", I8),  # perf_event_output nests at most 3 deep
        ("printk_nest", I8),  # so does bpf_trace_printk
        ("faulted", I8),  # reads of synthetic memory that gave -EFAULT or 0
        ("printk", I8),  # PRINTK ring of the machine
        ("machine", I8),
        ("printk_tp", I8),  # TRACEPOINT record of bpf_trace_printk, 0 when the kernel has none
        ("kernel_stack", I8),  # {u64 nr; u64 ip[nr]} recorded with the event, 0 for none
        ("user_stack", I8),
        ("scratch", I8),  # 3 buffers of 1,024 bytes for bpf_trace_printk, one a nesting level
    ],
)
"""One per CPU: what a running program's helpers ask about their surroundings (`struct task_struct *current` and friends)."""

ENV_STRIDE = -(-ENV.itemsize // 64) * 64

RUN_CTX = np.dtype([("cookie", I8), ("tail_calls", I8)])
"""`struct bpf_trace_run_ctx`: on the stack of bpf_trace_run, above args[]."""

TRACEPOINT_FUNC = np.dtype([("func", I8), ("data", I8)])
"""`struct tracepoint_func`; an array of them ends with func == 0."""

TRACEPOINT = np.dtype([("key", I8), ("first", TRACEPOINT_FUNC), ("others", I8)])
"""`struct tracepoint`: the static key (probe count), the first probe, and the address of the TRACEPOINT_FUNC array of the
others, 0 for none. The first one is here as it is the target of the kernel's static call: most tracepoints have no second.
"""

LINK = np.dtype([("prog", I8), ("stats", I8), ("cookie", I8), ("tail_calls", I8), ("id", I8), ("tp", I8)])
"""`struct bpf_raw_tp_link`: the probe's private data. `stats`: the program's, so that they are one load away. `cookie` and
`tail_calls` (always 0) are what a RUN_CTX starts as.
"""

PROG = np.dtype([("entry", I8), ("stats", I8), ("cpus", I8), ("id", I8)])
"""`struct bpf_prog`: native entry point and the address of PROG_STATS[cpus]."""

PROG_STATS = np.dtype(
    [("active", I8), ("runs", I8), ("misses", I8), ("run_cnt", I8), ("run_time_ns", I8), ("pad0", I8), ("pad1", I8), ("pad2", I8)]
)
"""Per program and CPU, a cache line each: recursion guard, runs (always counted), misses, and what BPF_ENABLE_STATS keeps."""

MAP = np.dtype(
    [
        ("map_type", I8),
        ("key_size", I8),
        ("value_size", I8),
        ("max_entries", I8),
        ("map_flags", I8),
        ("cpus", I8),
        ("elem_size", I8),  # bytes of one element: header, key and value(s)
        ("value_at", I8),  # hash: offset of the (first CPU's) value in an element
        ("value_stride", I8),  # per-CPU: bytes from one CPU's block of values to the next
        ("values", I8),  # array: value 0; hash: element 1; ringbuf: data
        ("slots", I8),  # hash: HTAB_BUCKETs; perf ring: times of records (which are in `values`); storage: chains; trie: the root
        ("slot_mask", I8),
        ("links", I8),  # hash: by element, the link to the next of its chain
        ("percpu", I8),  # per-CPU hash: value 0 of CPU 0
        ("percpu_size", I8),  # per-CPU hash: bytes of one CPU's value, 0 where values stand in the elements
        ("pools", I8),  # hash: HTAB_POOL[cpus]
        ("id", I8),
        ("fields", I8),  # special fields of a value: {u64 count; u64 row[count]}, 0 for none (maps/fields_native.py)
        ("machine", I8),
        ("uref", I8),  # user space holds the map: timers may be made
        ("lru", I8),  # LRU: LRU_LIST, with BPF_F_NO_COMMON_LRU LRU_LIST[cpus]
        ("lru_locals", I8),  # LRU: LRU_LOCAL[cpus], 0 with BPF_F_NO_COMMON_LRU
        ("lru_nodes", I8),  # LRU: LRU_NODE by element, and behind them the heads of lists
        ("lru_target", I8),  # LRU: how many elements a CPU fetches at a time
        ("backlog", I8),  # rings: BACKLOG
        ("next_ring", I8),
        *((f"pad{number}", I8) for number in range(6)),
        # what programs write; positions in a ring have cache lines of their own, as in the kernel
        ("fresh", I8),  # hash, stacks: elements never used so far (they are handed out in order); queue: the head
        ("count", I8),  # stacks, storage, trie: elements in use; queue: the tail
        ("free", I8),  # stacks: first of the freed elements
        ("lock", I8),  # held while unused elements of a hash are handed out, a stack is put in, a ring is drained
        ("dropped", I8),  # ringbuf and perf ring: records that found no room
        ("limit", I8),  # hash: how many elements may be handed out: max_entries, and one for each CPU that replaced a value
        *((f"gap{number}", I8) for number in range(2)),
        ("producer", I8),  # ringbuf: positions in bytes, growing for ever
        *((f"rest{number}", I8) for number in range(7)),
        ("consumer", I8),
        ("tight", I8),  # ringbuf: little room is left, so producers look before they take
        *((f"room{number}", I8) for number in range(6)),
    ]
)
"""`struct bpf_map` with the union of what the families need, in whole cache lines: those that programs only read come first."""

HTAB_BUCKET = np.dtype([("first", I4), ("seq", I4)])
"""A chain of elements: a link to the first, 0 for none; and a sequence number that is odd while the chain is being changed.

A link is the element's number, from 1, in the bits of slot_mask, and above them those bits of its key's hash.
"""

HTAB_ELEM = np.dtype([("state", I4)])
"""What an element begins with: IN_USE | REFERENCED, or of a free element the number of the next free one. A key of up to four
bytes stands behind it, a longer one at the next multiple of eight; then, 8-aligned, the value.
"""

HTAB_POOL = np.dtype([("free", I4), ("tag", I4), ("count", I8), ("extra", I8), *((f"pad{number}", I8) for number in range(5))])
"""A CPU's share of a hash map, a cache line: its first free element (0: none) with a tag that every change renews, how many
elements it has put in less those it took out, and the element that its next replacement goes to (0: none yet). While one
thread at a time runs, all CPUs use CPU 0's.
"""

LRU_NODE = np.dtype([("prev", I4), ("next", I4), ("hash", I4), ("cpu", "<u2"), ("type", "u1"), ("pad", "u1")])
"""`struct bpf_lru_node`: an element's place in a list, by numbers of nodes, and its key's hash (maps/lru_list_native.py)."""

LRU_LIST = np.dtype(
    [
        ("heads", I8),  # number of the node that heads the active list; those of the inactive and the free one follow
        ("counts", I8, (2,)),
        ("next_inactive_rotation", I8),
        ("unused", I8),  # elements never used that are still its own
        ("lock", I8),
        *((f"pad{number}", I8) for number in range(2)),
    ]
)
"""`struct bpf_lru_list`, a cache line."""

LRU_LOCAL = np.dtype([("heads", I8), ("next_steal", I8), ("lock", I8), *((f"pad{number}", I8) for number in range(5))])
"""`struct bpf_lru_locallist` of a CPU: heads of its free and its pending list, and whom it takes from next."""

IN_PLACE, REPLACE, REPLACE_FREE = range(3)
"""How a key that is there gets a value: where the old one is; in the CPU's extra element; in any free one (no preallocation)."""

ACTIVE, INACTIVE, FREE, LOCAL_FREE, LOCAL_PENDING = range(5)
"""Lists that an LRU map's element is in one of. Kernel: kernel/bpf/bpf_lru_list.h:enum bpf_lru_list_type"""
LOCAL_FREE_TARGET, PERCPU_FREE_TARGET = 128, 4
"""How many elements a CPU fetches at most, and how many a list of its own frees at a time. Kernel: bpf_lru_list.c"""

LOCAL_STORAGE = np.dtype([("next", I8), ("owner", I8), ("pid", I8)])
"""`struct bpf_local_storage_elem`: the next of its chain, the address of the object that it belongs to (0: that is gone), and
the pid where it is a task's. The value stands behind it.
"""

LPM_NODE = np.dtype([("child", I8, (2,)), ("prefixlen", I4), ("flags", I4)])
"""`struct lpm_trie_node`: the key's bytes stand behind it, then, 8-aligned, the value."""

PRINTK = np.dtype([("data", I8), ("size", I8), ("head", I8), ("lost", I8), ("lock", I8), ("backlog", I8)])
"""The ring that bpf_trace_printk writes to: records {u64 time, u32 cpu, u32 pid, u32 length, text}, 8-aligned."""

REPLAY = np.dtype(
    [
        ("machine", I8),
        ("time", I8),  # address of int64[n]
        ("cpu", I8),  # uint16[n]
        ("event", I8),  # uint16[n]
        ("row", I8),  # uint32[n]
        ("current", I8),  # uint64[n]
        ("stacks", I8),  # uint64[n][2]: addresses of kernel and user stack; 0: the recording has none
        ("position", I8),  # next event; kept across chunks
        ("end", I8),
        ("fired", I8),  # events that had a tracepoint with a probe
        ("held", I8),  # somebody has taken the machine for all loops of a parallel replay
    ]
)
"""State of one replay loop."""

FUSED = np.dtype(
    [
        ("replay", I8),  # the REPLAY record
        ("generation", I8),  # MACHINE.generation that the fused code was made for
        ("counts", I8),  # int64[kinds][cpus]: events with probes in the chunk under way
        ("last", I8),  # int64[cpus]: index of the last of them, -1 for none
        ("kinds", I8),
        ("cpus", I8),
        ("rows", I8),  # FUSED_ROW[row_count]
        ("row_count", I8),
        ("mine", I8),  # int64[cpus]: whether this loop plays the events of a CPU
    ]
)
"""State of one fused loop, beside that of the replay."""

TEAM = np.dtype(
    [
        ("machine", I8),
        ("threads", I8),
        ("abort", I8),  # nobody waits any longer
        *((f"pad{number}", I8) for number in range(5)),
        ("arrived", I8),  # threads that wait for the others
        *((f"gap{number}", I8) for number in range(7)),
        ("phase", I8),  # how often all have met
        *((f"rest{number}", I8) for number in range(7)),
    ]
)
"""The threads of a parallel replay; what they write often has cache lines of its own."""

LANE = np.dtype(
    [
        ("team", I8),
        ("replay", I8),  # REPLAY record with the events of this thread's CPUs
        ("loop", I8),  # what the loop is called with: its REPLAY or FUSED record
        ("run", I8),  # the loop
        ("ends", I8),  # int64[windows]: the thread's events before the end of each window
        ("refused", I8),  # why the fused loop did not play, see fused_begin; 0: it did
        ("pad0", I8),
        ("pad1", I8),
    ]
)
"""One thread of a parallel replay."""

FUSED_ROW = np.dtype([("kind", I8), ("stats", I8)])
"""An inlined program: the kind of events that it runs on, and its PROG_STATS, which take the counts at the end of a chunk."""


_NAMED = {id(ENV): "env", id(RUN_CTX): "run_ctx", id(TIMERS): "timers"}


class Offset(int):
    """A byte offset that knows what it is the offset of: the build notes for each function which of these it names.

    `field`: "env.time"; "" for records whose use is of no interest.
    """

    field: str

    def __new__(cls, value: int, field: str) -> Offset:
        """An int with a field's name."""
        offset = super().__new__(cls, value)
        offset.field = field
        return offset


def at(dtype: np.dtype[Any], field: str) -> Offset:
    """Byte offset of a field of one of the records above."""
    fields = dtype.fields
    assert fields is not None
    record = _NAMED.get(id(dtype), "")
    return Offset(int(fields[field][1]), f"{record}.{field}" if record else "")


ENV_ARENA_BASE = at(ENV, "arena_base")
ENV_ARENA_SIZE = at(ENV, "arena_size")
