"""Tracepoint: the static key, the array of probes, and how both change while events fire.

A writer builds a new probe array, publishes it with one store, waits until no run is under way, and frees the old one:
a loop that walks the array never sees a torn or freed one.

Kernel: kernel/tracepoint.c, include/linux/tracepoint-defs.h.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastrtp.errors import BpfError
from fastrtp.native.layout import TRACEPOINT, TRACEPOINT_FUNC
from fastrtp.native.memory import Memory

if TYPE_CHECKING:
    from fastrtp.btf import TracepointProto

TRACEPOINT_DEFAULT_PRIO = 10


@dataclass(frozen=True)
class TracepointFunc:
    """`struct tracepoint_func`: native function, its private data, and its priority (higher runs first)."""

    func: int
    data: int
    prio: int = TRACEPOINT_DEFAULT_PRIO


class Tracepoint:
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
        self._array = 0

    @property
    def address(self) -> int:
        """Address of the native TRACEPOINT record."""
        if self._address == 0:
            self._address, self._record = self.memory.record(TRACEPOINT)
        return self._address

    @property
    def enabled(self) -> bool:
        """Whether any probe is registered: the static key."""
        return bool(self.funcs)

    def publish(self, funcs: Sequence[TracepointFunc]) -> None:
        """Swap the probe array; returns after a grace period, when nobody walks the old one."""
        assert self.address
        arena = self.memory.arena
        array = arena.alloc(TRACEPOINT_FUNC.itemsize * (len(funcs) + 1))
        rows = arena.view(array, TRACEPOINT_FUNC.itemsize * (len(funcs) + 1)).view(TRACEPOINT_FUNC)
        for row, func in zip(rows, funcs, strict=False):
            row["func"], row["data"], row["prio"] = func.func, func.data, func.prio
        old, self._array = self._array, array
        self._record["funcs"] = array
        self._record["key"] = len(funcs)
        self.funcs = list(funcs)
        lib, machine = self.memory.lib, self.memory.machine_address
        lib.machine_enter(machine)  # synchronize_rcu, and nobody else counts at the same time
        self.memory.machine["generation"] += 1
        lib.machine_leave(machine)
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
