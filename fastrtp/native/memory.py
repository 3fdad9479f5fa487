"""Memory: what one Kernel's native code works on. The arena, the machine record, an ENV record a CPU, the printk ring.

Must not know: programs, tracepoints, BTF (the offsets of task_struct's members are told to it).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.mem.arena import Arena
from fastrtp.native import library
from fastrtp.native.perf_map import PerfMap
from fastrtp.native.records import NEVER, STATS_SMP, STATS_TIMED, Backlog, BtfTypes, Env, Heap, Machine, Printk, Signals, Timers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PRINTK_SIZE = 1 << 20
_PRINTK_TEXT = 1024
_PRINTK_NESTING = 3
_HEAP_SIZE = 1 << 30
_ARMED_TIMERS = 1 << 20
_SIGNALS = 1 << 16
_BATCH = 1 << 18
_SIGNAL = np.dtype(
    [("time", "<u8"), ("cpu", "<u4"), ("pid", "<u4"), ("tgid", "<u4"), ("signal", "<u4"), ("thread", "<u4"), ("pad", "<u4")]
)
_SEED = 0x9E3779B97F4A7C15
_CLOCK_TAI = getattr(time, "CLOCK_TAI", 11)

Record = np.ndarray[Any, np.dtype[Any]]


class Memory:
    """The native side of a Kernel with `cpus` CPUs. close() gives everything back."""

    def __init__(self, cpus: int = 1) -> None:
        if cpus < 1:
            raise ValueError(f"a machine has at least 1 cpu, not {cpus}")
        self.cpus = cpus
        self.lib = library.library()
        self.arena = Arena()
        self.machine_address, self.machine = self.record(Machine.layout.dtype)
        self.env_address = self.arena.alloc(Env.layout.size * cpus)
        whole = self.arena.view(self.env_address, Env.layout.size * cpus)
        self.env: Record = np.ndarray(cpus, Env.layout.dtype, whole, strides=(Env.layout.size,))
        self._printk_address, self._printk = self.record(Printk.layout.dtype)
        self._printk["data"], self._printk["size"] = self.arena.alloc(_PRINTK_SIZE), _PRINTK_SIZE
        self._printk["backlog"] = self.record(Backlog.layout.dtype)[0]
        self.machine["env"], self.machine["cpus"] = self.env_address, cpus
        self._make_heap()
        self.machine["signals"], self._signals = self.record(Signals.layout.dtype)
        self._signals["data"], self._signals["room"] = self.arena.alloc(_SIGNAL.itemsize * _SIGNALS), _SIGNALS
        self._signals["backlog"] = self.record(Backlog.layout.dtype)[0]
        for owner in (self.machine, self.env):
            owner["arena_base"], owner["arena_size"] = self.arena.base, self.arena.size
        env = self.env
        env["cpu"] = np.arange(cpus)
        env["machine"] = self.machine_address
        env["printk"] = self._printk_address
        env["rng"] = (np.arange(1, cpus + 1, dtype=np.uint64) * np.uint64(_SEED)).view(np.int64)
        for cpu in range(cpus):
            env["scratch"][cpu] = self.arena.alloc(_PRINTK_TEXT * _PRINTK_NESTING)
        self.perf_map: PerfMap | None = None  # where profilers are told about code
        self.clock_lock = threading.Lock()  # held while a recording's time is the machine's
        self.clock_holder = 0
        self.parallel = 0  # parallel replays that are under way: programs run in their form for several CPUs
        self.ended = False  # its kernel was shut down
        self.parked: list[Callable[[], bool]] = []
        self.set_clock(virtual=False)
        if hasattr(os, "getuid"):
            env["uid_gid"] = os.getgid() << 32 | os.getuid()

    def _make_heap(self) -> None:
        """Room for programs' objects and timers: address space only, until they are made."""
        address, self.heap = self.record(Heap.layout.dtype)
        size = min(_HEAP_SIZE, self.arena.size // 8)
        self.heap["next"] = self.arena.alloc(size)
        self.heap["end"] = self.heap["next"] + size
        self.machine["heap"] = address
        address, self.timers = self.record(Timers.layout.dtype)
        self.timers["room"] = _ARMED_TIMERS
        self.timers["queue"] = self.arena.alloc(8 * _ARMED_TIMERS)
        self.machine["timers"], self.machine["timer_next"] = address, NEVER

    def close(self) -> None:
        """Free the arena. Nothing native may be running, and no address given out may be used again."""
        for owner in (self._printk, self._signals):
            self.lib.backlog_free(self.machine_address, int(owner["backlog"][0]))
        del self.machine, self.env, self._printk, self.heap, self.timers, self._signals
        self.arena.close()

    def record(self, dtype: np.dtype[Any], count: int = 1) -> tuple[int, Record]:
        """(address, array of `count`) of zeroed native records in the arena."""
        address = self.arena.alloc(dtype.itemsize * count)
        return address, self.arena.view(address, dtype.itemsize * count).view(dtype)

    def env_of(self, cpu: int) -> int:
        """Address of a CPU's ENV record."""
        return self.env_address + cpu * Env.layout.size

    def publish_types(self, words: NDArray[np.uint32], strings: bytes, offsets: NDArray[np.uint32]) -> None:
        """Let programs show objects by these types: a type section, its strings, and where each record begins, in words."""
        if self.machine["btf"][0]:
            return
        address, record = self.record(BtfTypes.layout.dtype)
        for field, data in (("words", words.tobytes()), ("strings", strings), ("offsets", offsets.astype("<u4").tobytes())):
            place = self.arena.alloc(len(data))
            self.arena.view(place, len(data))[:] = np.frombuffer(data, np.uint8)
            record[field] = place
        record["count"] = len(offsets) + 1
        self.machine["btf"] = address

    def set_clock(self, *, virtual: bool) -> None:
        """Say which clock bpf_ktime_get_ns reads: the events' (virtual) or the host's CLOCK_MONOTONIC."""
        self.env["clock"] = 0 if virtual else 1
        if virtual:
            self.env["boot_offset"] = self.env["tai_offset"] = 0
        else:
            now = time.monotonic_ns()
            for field, clock in (("boot_offset", getattr(time, "CLOCK_BOOTTIME", None)), ("tai_offset", _CLOCK_TAI)):
                try:
                    self.env[field] = time.clock_gettime_ns(clock) - now if clock is not None else 0
                except OSError:
                    self.env[field] = 0

    def keep_stats(self, *, on: bool) -> None:
        """Whether runs are timed and counted in run_time_ns and run_cnt (BPF_ENABLE_STATS)."""
        self._flag_runs(STATS_TIMED, on)

    def flag_smp(self, *, on: bool) -> None:
        """Whether programs run in their form for several CPUs: probes then take the way through PROG.entry."""
        self._flag_runs(STATS_SMP, on)

    def _flag_runs(self, flag: int, on: bool) -> None:
        self.env["stats"] = self.env["stats"] & ~flag | (flag if on else 0)

    def synchronize_rcu(self) -> None:
        """Return when no run that was under way is left. Kernel: kernel/rcu/tree.c:synchronize_rcu."""
        self.lib.synchronize_rcu(self.machine_address)

    def park(self, release: Callable[[], bool]) -> None:
        """Something that a timer still needs. `release` gives it back and says so, or says that it is needed still."""
        self.parked.append(release)

    def sweep(self) -> None:
        """Give back what no timer needs any more."""
        waiting, self.parked = self.parked, []
        self.parked += [release for release in waiting if not release()]

    def shift_timers(self, delta: int) -> None:
        """The clock jumps by `delta` ns; timers stay as far away as they were."""
        if self.timers["count"][0]:
            self.lib.timers_shift(self.machine_address, delta)

    @contextmanager
    def draining(self, keep: int, *, on_demand: bool) -> Iterator[None]:
        """Meanwhile backlogs may take `keep` bytes; `on_demand`: what is full is emptied there, so nothing is lost."""
        self.machine["keep"], self.machine["drains"] = keep, int(on_demand)
        try:
            yield
        finally:
            self.machine["drains"] = self.machine["keep"] = 0

    def _take(self, owner: Record, count: str, unit: int) -> bytes:
        """Everything in an array that programs write to, its backlog first; it is emptied. `unit`: bytes of one `count`."""
        parts = []
        room = _BATCH
        self.lib.machine_enter(self.machine_address)
        try:
            backlog = int(owner["backlog"][0])
            while True:
                buffer = ctypes.create_string_buffer(room)
                taken = self.lib.backlog_take(self.machine_address, backlog, ctypes.addressof(buffer), room)
                if taken == 0:
                    break
                if taken < 0:
                    room = -taken - 1
                else:
                    parts.append(buffer.raw[:taken])
            used = int(owner[count][0]) * unit
            parts.append(self.arena.view(int(owner["data"][0]), used).tobytes())
            owner[count] = 0
        finally:
            self.lib.machine_leave(self.machine_address)
        return b"".join(parts)

    def take_signals(self) -> Record:
        """What bpf_send_signal would have sent since the last call: a structured array; the list is emptied."""
        return np.frombuffer(self._take(self._signals, "count", _SIGNAL.itemsize), _SIGNAL)

    @property
    def signals_lost(self) -> int:
        """Signals that found the list full."""
        return int(self._signals["lost"][0])

    def trace_pipe(self) -> list[tuple[int, int, int, bytes]]:
        """What bpf_trace_printk wrote since the last call: (time ns, cpu, pid, text) each; the ring is emptied."""
        data = self._take(self._printk, "head", 1)
        head = len(data)
        lines = []
        at = 0
        while at < head:
            cpu, pid, length = (int(value) for value in np.frombuffer(data, "<u4", 3, at + 8))
            lines.append((int.from_bytes(data[at : at + 8], "little"), cpu, pid, data[at + 20 : at + 20 + length]))
            at += (20 + length + 7) & ~7
        return lines

    @property
    def printk_lost(self) -> int:
        """Texts that found the ring full."""
        return int(self._printk["lost"][0])
