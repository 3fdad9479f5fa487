"""The records of a replay's loops and of the threads that share one."""

from __future__ import annotations

from fastrtp.native.record import Array, Pointer, Record, array, i64, u16, u32
from fastrtp.native.records import Machine


class Replay(Record):
    """State of one replay loop."""

    machine: Pointer[Machine]
    time: Pointer[Array[i64]]  # address of int64[n]
    cpu: Pointer[Array[u16]]  # uint16[n]
    event: Pointer[Array[u16]]  # uint16[n]
    row: Pointer[Array[u32]]  # uint32[n]
    current: Pointer[Array[i64]]  # uint64[n]
    stacks: Pointer[Array[i64]]  # uint64[n][2]: addresses of kernel and user stack; 0: the recording has none
    position: i64  # next event; kept across chunks
    end: i64
    fired: i64  # events that had a tracepoint with a probe
    held: i64  # somebody has taken the machine for all loops of a parallel replay


class Fused(Record):
    """State of one fused loop, beside that of the replay."""

    replay: Pointer[Replay]  # the Replay record
    generation: i64  # Machine.generation that the fused code was made for
    counts: Pointer[Array[i64]]  # int64[kinds][cpus]: events with probes in the chunk under way
    last: Pointer[Array[i64]]  # int64[cpus]: index of the last of them, -1 for none
    kinds: i64
    cpus: i64
    rows: Pointer[Array[FusedRow]]  # FusedRow[row_count]
    row_count: i64
    mine: Pointer[Array[i64]]  # int64[cpus]: whether this loop plays the events of a CPU


class Team(Record):
    """The threads of a parallel replay; what they write often has cache lines of its own."""

    machine: Pointer[Machine]
    threads: i64
    abort: i64  # nobody waits any longer
    pad: Array[i64] = array(5)
    arrived: i64  # threads that wait for the others
    gap: Array[i64] = array(7)
    phase: i64  # how often all have met
    rest: Array[i64] = array(7)


class Lane(Record):
    """One thread of a parallel replay."""

    team: Pointer[Team]
    replay: Pointer[Replay]  # Replay record with the events of this thread's CPUs
    loop: i64  # what the loop is called with: its Replay or Fused record
    run: i64  # the loop
    ends: Pointer[Array[i64]]  # int64[windows]: the thread's events before the end of each window
    refused: i64  # why the fused loop did not play, see fused_begin; 0: it did
    pad0: i64
    pad1: i64


class FusedRow(Record):
    """An inlined program: the kind of events that it runs on, and its ProgStats, which take the counts at the end of a chunk."""

    kind: i64
    stats: i64
