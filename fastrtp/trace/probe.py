"""Programs on tracepoints: BpfRawEventMap, and the link's native record that a probe gets as its data.

Kernel: kernel/trace/bpf_trace.c (bpf_probe_register), include/linux/trace_events.h (struct bpf_raw_event_map).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastrtp.native.memory import Memory
from fastrtp.native.records import Link, Prog, ProgStats
from fastrtp.trace.shims import shim_address
from fastrtp.trace.tracepoint import (
    TRACEPOINT_DEFAULT_PRIO,
    Tracepoint,
    TracepointFunc,
    tracepoint_probe_register,
    tracepoint_probe_unregister,
)

MAX_CTX = 96
"""Bytes of u64 args[12]."""


@dataclass(frozen=True)
class BpfRawEventMap:
    """`struct bpf_raw_event_map`: a tracepoint and how programs are reached from it. `writable_size` in bytes."""

    tp: Tracepoint
    num_args: int
    writable_size: int = 0

    def bpf_func(self) -> int:
        """Native address of __bpf_trace_<class>; compiled now if these argument widths are new."""
        return shim_address(self.tp.widths)

    def probe(self, link: LinkRecord) -> int:
        """What is registered for a link: its program's own probe for these argument widths, else __bpf_trace_<class>."""
        return link.prog.probes.get(self.tp.widths) or self.bpf_func()


class ProgRecord:
    """The native PROG record of a program: what a link points at. `entry`: the native code; `probes`: argument widths -> the
    code that is shim, bpf_trace_run<N> and program in one.
    """

    def __init__(
        self, memory: Memory, entry: int, prog_id: int = 0, probes: Mapping[str, int] | None = None, ctx_size: int = 0
    ) -> None:
        self.memory = memory
        self.entry = entry
        self.probes = dict(probes or {})
        self.stats_address, self.stats = memory.record(ProgStats.layout.dtype, memory.cpus)
        self.address, self._record = memory.record(Prog.layout.dtype)
        for field, value in (
            ("entry", entry),
            ("stats", self.stats_address),
            ("cpus", memory.cpus),
            ("id", prog_id),
            ("ctx_size", ctx_size),
        ):
            self._record[field] = value

    def switch(self, entry: int) -> None:
        """Other code of the same program, for all runs that begin from now on."""
        self._record["entry"] = entry

    def total(self, counter: str) -> int:
        """Sum over all CPUs of `runs`, `misses`, `run_cnt` or `run_time_ns`."""
        return int(np.sum(self.stats[counter]))

    def close(self) -> None:
        """Free the record. No link may point at it."""
        self.memory.arena.free(self.address)
        self.memory.arena.free(self.stats_address)


class LinkRecord:
    """The native LINK record: a program, the cookie that its runs see, and how many bytes of arguments the tracepoint has."""

    def __init__(self, memory: Memory, prog: ProgRecord, cookie: int = 0, link_id: int = 0, ctx_size: int = MAX_CTX) -> None:
        self.memory = memory
        self.prog = prog
        self.address, self._record = memory.record(Link.layout.dtype)
        self.cookie = cookie
        self._record["prog"], self._record["stats"], self._record["id"] = prog.address, prog.stats_address, link_id
        self._record["ctx_size"] = ctx_size
        self._record["cookie"] = np.uint64(cookie).astype(np.int64)

    def set_id(self, link_id: int) -> None:
        """The link has its id now."""
        self._record["id"] = link_id

    def close(self) -> None:
        """Free the record. It must be unregistered."""
        self.memory.arena.free(self.address)


def bpf_probe_register(btp: BpfRawEventMap, link: LinkRecord) -> None:
    """Run the link's program on the tracepoint from now on. EEXIST for a link that is there already.

    Kernel: kernel/trace/bpf_trace.c:bpf_probe_register
    """
    tracepoint_probe_register(btp.tp, TracepointFunc(btp.probe(link), link.address, TRACEPOINT_DEFAULT_PRIO))


def bpf_probe_unregister(btp: BpfRawEventMap, link: LinkRecord) -> None:
    """The opposite; when it returns, no run through this link is under way. ENOENT for a link that is not there.

    Kernel: kernel/trace/bpf_trace.c:bpf_probe_unregister
    """
    tracepoint_probe_unregister(btp.tp, btp.probe(link), link.address)


def bpf_prog_test_run_raw_tp(memory: Memory, prog: ProgRecord, ctx: bytes, cpu: int = 0) -> int:
    """Run a program once on a copy of `ctx` (padded with zeroes to 96 bytes); R0 as an unsigned 64-bit number.

    Kernel: net/bpf/test_run.c:bpf_prog_test_run_raw_tp
    """
    buffer = ctypes.create_string_buffer(ctx[:MAX_CTX], MAX_CTX)
    result = memory.lib.bpf_prog_test_run_raw_tp(memory.machine_address, prog.address, ctypes.addressof(buffer), cpu)
    return result & 0xFFFFFFFFFFFFFFFF
