"""Tracepoint: the static key, the array of probes, and how both change while events fire.

A writer builds the new probes, waits for its turn on the machine, when no run is under way, swaps them, and frees the old ones:
a loop that walks them never sees torn or freed ones.

Kernel: kernel/tracepoint.c, include/linux/tracepoint-defs.h.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.native.memory import Memory
from fastrtp.native.records import TracepointFuncRecord, TracepointRecord
from fastrtp.shown import Shown

if TYPE_CHECKING:
    from fastrtp.btf import TracepointProto

TRACEPOINT_DEFAULT_PRIO = 10


@dataclass(frozen=True)
class TracepointFunc:
    """`struct tracepoint_func`: native function, its private data, and its priority (higher runs first)."""

    func: int
    data: int
    prio: int = TRACEPOINT_DEFAULT_PRIO


class Tracepoint(Shown):
    """One tracepoint of a kernel. `regfunc` and `unregfunc` run on the 0 -> 1 and 1 -> 0 transitions of its probes.

    The native record is made with the first probe, so that a thousand idle tracepoints cost nothing.
    """

    def __init__(
        self,
        name: str,
        proto: TracepointProto,
        memory: Memory,
        *,
        regfunc: Callable[[], int | None] | None = None,
        unregfunc: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.proto = proto
        self.memory = memory
        self.regfunc = regfunc
        self.unregfunc = unregfunc
        self.num_args = len(proto.args)
        self.widths = "".join(str(arg.size) for arg in proto.args)
        self.funcs: list[TracepointFunc] = []
        self.lock = threading.Lock()
        self._address = 0
        self._others = 0

    @property
    def address(self) -> int:
        """Address of the native TRACEPOINT record."""
        if self._address == 0:
            self._address, self._record = self.memory.record(TracepointRecord.layout.dtype)
        return self._address

    @property
    def enabled(self) -> bool:
        """Whether any probe is registered: the static key."""
        return bool(self.funcs)

    def publish(self, funcs: Sequence[TracepointFunc]) -> None:
        """Swap the probes, at a moment when nobody walks them."""
        assert self.address
        arena = self.memory.arena
        size = TracepointFuncRecord.layout.size
        rows = np.array([(func.func, func.data) for func in funcs] + [(0, 0)], TracepointFuncRecord.layout.dtype)
        others = 0
        if len(funcs) > 1:
            others = arena.alloc(size * len(funcs))
            arena.view(others, size * len(funcs)).view(TracepointFuncRecord.layout.dtype)[:] = rows[1:]
        lib, machine = self.memory.lib, self.memory.machine_address
        lib.machine_enter(machine)  # waits for the runs that are under way, as synchronize_rcu does, and keeps others out
        try:
            self._record["first"], self._record["others"], self._record["key"] = rows[0], others, len(funcs)
            self.memory.machine["generation"] += 1
            self.funcs = list(funcs)
        finally:
            lib.machine_leave(machine)
        old, self._others = self._others, others
        if old:
            arena.free(old)


def tracepoint_probe_register(tp: Tracepoint, func: TracepointFunc) -> None:
    """Add a probe, behind all others of its priority or a higher one. EEXIST when function and data are there already;
    what regfunc raises, with nothing registered.

    Kernel: kernel/tracepoint.c:tracepoint_probe_register_prio
    """
    with tp.lock:
        if any((old.func, old.data) == (func.func, func.data) for old in tp.funcs):
            raise BpfError(errno.EEXIST, f"the probe is on {tp.name} already")
        if not tp.funcs and tp.regfunc is not None:
            error = tp.regfunc()
            if error:
                raise BpfError(abs(error), f"regfunc of {tp.name} failed")
        place = next((at for at, old in enumerate(tp.funcs) if old.prio < func.prio), len(tp.funcs))
        tp.publish([*tp.funcs[:place], func, *tp.funcs[place:]])


def tracepoint_probe_unregister(tp: Tracepoint, func: int, data: int) -> None:
    """Remove a probe; when it returns, no call of it is under way. ENOENT when it is not there.

    Kernel: kernel/tracepoint.c:tracepoint_probe_unregister
    """
    with tp.lock:
        left = [old for old in tp.funcs if (old.func, old.data) != (func, data)]
        if len(left) == len(tp.funcs):
            raise BpfError(errno.ENOENT, f"the probe is not on {tp.name}")
        tp.publish(left)
        if not left and tp.unregfunc is not None:
            tp.unregfunc()
