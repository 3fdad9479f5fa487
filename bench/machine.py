"""The machine that the transition suite runs on: a kernel, a tracepoint of three arguments, the programs of transition.bpf.c."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import loops, native
from bench.rings import pieces, rings

if TYPE_CHECKING:
    from fastrtp.maps import RingBuf

_PROTO = "u64 key, u64 value, u32 flags"
_NAME = "bench_event"
_SPREAD = 0x9E3779B1


class Machine:
    """Programs attached by name, events fired at them through the linked tier, and the same in native C."""

    def __init__(self) -> None:
        from fastrtp.kernel import Kernel

        self.kernel = Kernel()
        self.tp = self.kernel.trace_event(_NAME, _PROTO)
        self.obj = self.kernel.load(native.SOURCES / "transition.bpf.o")
        memory = self.kernel.memory
        self._arguments = (self.tp.address, memory.env_of(0))
        self.rings: list[RingBuf] = []

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
                self.rings += rings(obj.programs[name].prog.used_maps)
            stack.callback(self.rings.clear)
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

    def fire(self, events: int, keys: int) -> None:
        """Events through the tracepoint and its programs' probes; it is this thread's turn meanwhile."""
        lib, address = self.kernel.memory.lib, self.kernel.memory.machine_address
        lib.machine_enter(address)
        try:
            for piece in pieces(events, self.rings):
                loops.fire(piece, keys, *self._arguments)
        finally:
            lib.machine_leave(address)

    @contextmanager
    def replaying(self, names: Sequence[str], keys: int, tier: str) -> Iterator[Replayed]:
        """The same events as a recording, with these programs on the tracepoint."""
        with self.attached(names):
            replayed = Replayed(self, keys, tier)
            self.kernel.memory.set_clock(virtual=True)
            try:
                yield replayed
            finally:
                self.kernel.memory.set_clock(virtual=False)
                replayed.close()


class Columns:
    """EVENTS recorded events {key, value, flags} of one CPU, keys below `keys`."""

    EVENTS = 1 << 17

    def __init__(self, keys: int) -> None:
        self.value = np.arange(self.EVENTS, dtype=np.uint64)
        self.key = (self.value * np.uint64(_SPREAD) & np.uint64(0xFFFFFFFF)) * np.uint64(keys) >> np.uint64(32)
        self.time = self.value.astype(np.int64)
        self.row = self.value.astype(np.uint32)
        self.cpu = np.zeros(self.EVENTS, np.uint16)
        self.event = np.zeros(self.EVENTS, np.uint16)
        self.current = np.zeros(self.EVENTS, np.uint64)


class Replayed:
    """Columns, played through what is attached to a machine. RuntimeError when it goes another way than `tier`."""

    def __init__(self, here: Machine, keys: int, tier: str) -> None:
        from fastrtp.record import Recording
        from fastrtp.replay.bind import BoundArg, BoundEvent, BoundRecording
        from fastrtp.replay.fused import FusedReplay
        from fastrtp.replay.linked import CHUNK, LinkedReplay

        columns = Columns(keys)
        parts = (columns.time, columns.cpu, columns.event, columns.row)
        recording = Recording(*parts, pid=columns.row.view(np.int32), tables=[])
        args = [BoundArg(columns.key, 0, 8, False), BoundArg(columns.value, 0, 8, False), BoundArg(None, 1, 4, False)]
        event = BoundEvent(_NAME, args, [])
        bound = BoundRecording(recording, *parts, columns.current, [event], [], {})
        tracepoints = {_NAME: here.tp}
        self._tier = tier
        self._chunk = CHUNK
        self._rings = here.rings
        self._replay: LinkedReplay
        if tier == "fused":
            self._replay = FusedReplay(here.kernel, bound, tracepoints)
        else:
            self._replay = LinkedReplay(here.kernel.memory, bound, tracepoints)
        self._replay.prepare()

    def play(self, events: int) -> None:
        """So many events, the recording from its start as often as it takes."""
        for piece in pieces(events, self._rings):
            left = piece
            while left > 0:
                if self._replay.position == self._replay.events:
                    self._replay.rewind()
                left -= self._replay.play(min(left, self._chunk))
        if self._replay.tier != self._tier:
            raise RuntimeError(f"the replay was {self._replay.tier}, not {self._tier}")

    def close(self) -> None:
        """Free the compiled loop."""
        self._replay.close()


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


class NativeReplay:
    """A function of transition_native.c inlined in a loop over columns, compiled with it."""

    def __init__(self, name: str, keys: int) -> None:
        library: Any = native.library(("transition_native.c",))
        self._replay = library[f"replay_{name}"]
        self._replay.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self._columns = columns = Columns(keys)
        fields = (columns.time, columns.cpu, columns.event, columns.row, columns.key, columns.value)
        self._pointers = (ctypes.c_uint64 * len(fields))(*(field.ctypes.data for field in fields))

    def play(self, events: int) -> None:
        """So many events, the recording from its start as often as it takes."""
        for first in range(0, events, Columns.EVENTS):
            self._replay(ctypes.addressof(self._pointers), min(events - first, Columns.EVENTS))
