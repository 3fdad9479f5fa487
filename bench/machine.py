"""The machine that the transition suite runs on: a kernel, a tracepoint of three arguments, the programs of transition.bpf.c."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from bench import loops, native

_PROTO = "u64 key, u64 value, u32 flags"
_NAME = "bench_event"


class Machine:
    """Programs attached by name, events fired at them through the linked tier, and the same in native C."""

    def __init__(self) -> None:
        from fastrtp.kernel import Kernel

        self.kernel = Kernel()
        self.tp = self.kernel.trace_event(_NAME, _PROTO)
        self.obj = self.kernel.load(native.SOURCES / "transition.bpf.o")
        memory = self.kernel.memory
        self._arguments = (memory.lib.symbols["trace_call3"], self.tp.address, memory.env_of(0))

    @contextmanager
    def attached(self, names: Sequence[str]) -> Iterator[None]:
        """These programs on the tracepoint; one named twice is loaded twice."""
        seen: set[str] = set()
        with ExitStack() as stack:
            for name in names:
                obj = self.obj
                if name in seen:
                    obj = self.kernel.load(native.SOURCES / "transition.bpf.o", autoload=[name])
                    stack.callback(obj.close)
                seen.add(name)
                stack.callback(obj.programs[name].attach(_NAME).close)
            yield

    @contextmanager
    def statistics(self) -> Iterator[None]:
        """BPF_ENABLE_STATS held."""
        fd = self.kernel.enable_stats()
        try:
            yield
        finally:
            self.kernel.close(fd)

    @contextmanager
    def virtual_clock(self) -> Iterator[None]:
        """bpf_ktime_get_ns gives the event's time, as in a replay."""
        self.kernel.memory.set_clock(virtual=True)
        try:
            yield
        finally:
            self.kernel.memory.set_clock(virtual=False)

    @contextmanager
    def running(self, names: Sequence[str]) -> Iterator[None]:
        """As if these programs were in the middle of a run: the recursion guard turns every event away."""
        records = [self.obj.programs[name].prog.record for name in names]
        for record in records:
            record.stats["active"] = 1
        try:
            yield
        finally:
            for record in records:
                record.stats["active"] = 0

    def fire(self, events: int, keys: int) -> int:
        """Events through tracepoint, shim, bpf_trace_run3 and programs; it is this thread's turn meanwhile."""
        lib, address = self.kernel.memory.lib, self.kernel.memory.machine_address
        lib.machine_enter(address)
        try:
            return loops.fire(events, keys, *self._arguments)
        finally:
            lib.machine_leave(address)


@functools.cache
def machine() -> Machine:
    """The machine of this process."""
    return Machine()


class NativeLoop:
    """Functions of transition_native.c called in turn through pointers by a loop compiled with them."""

    def __init__(self, names: Sequence[str]) -> None:
        library: Any = native.library(("transition_native.c",))
        self._fire = library.fire
        self._fire.argtypes = [ctypes.c_uint64, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p]
        self._progs = (ctypes.c_uint64 * (len(names) + 1))(*(native.address(library, name) for name in names), 0)
        self._env = ctypes.create_string_buffer(64)

    def fire(self, events: int, keys: int) -> None:
        """The same events."""
        self._fire(events, keys, ctypes.addressof(self._progs), ctypes.addressof(self._env))
