"""The linked tier: bound columns made native, and the loop of loop_text.py run over them chunk by chunk.

Events reach programs through the probes of their tracepoints, whichever these are at the moment. Between two chunks Python
has its turn: signals (Ctrl-C ends a replay there), progress, and threads that attach, detach or read maps.

Must not know: programs, the verifier, file formats.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fastrtp.errors import ReplayError
from fastrtp.jit.program import NativeText
from fastrtp.native.compiler import Part
from fastrtp.native.memory import Memory
from fastrtp.replay.bind import BoundEvent, BoundRecording
from fastrtp.replay.consumer import ConsumerClock
from fastrtp.replay.loop_text import COLUMNS, RUN, Kind, loop_text
from fastrtp.replay.materialize import DECLARATIONS, Column, Materializer
from fastrtp.replay.records import Replay
from fastrtp.replay.stacks import stack_columns
from fastrtp.trace import Tracepoint

CHUNK = 1 << 16
"""Events a turn: a few milliseconds."""


class Loop:
    """A compiled replay loop. `text` of loop_text(), `parts`: makers and programs, `symbols`: all that they name."""

    def __init__(
        self, memory: Memory, name: str, text: str, parts: Sequence[Part], symbols: Mapping[str, int], *, smp: bool = False
    ) -> None:
        self.code = NativeText(name, text, [RUN], symbols, parts, smp=smp)
        self.code.profile(memory.perf_map, {"prog": "bpf_prog"})
        self.address = self.code.addresses[RUN]
        self.run = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)(self.address)

    def close(self) -> None:
        """Free the code; nobody may be running in it."""
        self.code.close()


class LinkedReplay:
    """One recording, ready to be played on a machine. Keeps every column alive that native code points into.

    `picked`: what `bound` has are these events of its recording, for one thread of a parallel replay (parallel.py).
    `consumer`: who reads rings on the way.
    """

    def __init__(
        self, memory: Memory, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint], picked: Column | None = None,
        consumer: ConsumerClock | None = None,
    ) -> None:  # fmt: skip
        self.memory = memory
        self.consumer = consumer
        self.smp = picked is not None
        self.bound = bound
        self.tracepoints = tracepoints
        self.events = count = len(bound.time)
        self._keep: list[Any] = []
        if count and int(bound.cpu.max()) >= memory.cpus:
            raise ReplayError(
                f"the recording has events of cpu {int(bound.cpu.max())}, the kernel has {memory.cpus}: Kernel(cpus=N)"
            )
        if count and int(bound.event.max()) >= len(bound.events):
            raise ReplayError(f"event kind {int(bound.event.max())} of {len(bound.events)}")
        self._linked: Loop | None = None
        self.makers = self._make_makers()
        self._state = np.zeros(1, Replay.layout.dtype)
        state = self._state[0]
        state["machine"], state["end"] = memory.machine_address, count
        for field, column, dtype in (
            ("time", bound.time, np.int64),
            ("cpu", bound.cpu, np.uint16),
            ("event", bound.event, np.uint16),
            ("row", bound.row, np.uint32),
            ("current", bound.current, np.uint64),
        ):
            if len(column) != count:
                raise ReplayError(f"column {field} has {len(column)} items for {count} events")
            state[field] = self._address(np.ascontiguousarray(column, dtype))
        stacks = stack_columns(bound.recording)
        if stacks is not None:
            columns, memory_of = stacks
            self._keep.append(memory_of)
            state["stacks"] = self._address(columns if picked is None else np.ascontiguousarray(columns[picked]))
        state["held"] = self.smp

    def run(self, progress: Callable[[int, int], None] | None = None, chunk: int = CHUNK) -> int:
        """Play from where it stands to the end; how many events were played. KeyboardInterrupt ends it between chunks."""
        played = 0
        while self.position < self.events:
            played += self.play(chunk)
            if progress is not None:
                progress(self.position, self.events)
        return played

    def play(self, limit: int) -> int:
        """Play at most `limit` events; how many were played."""
        return int(self._linked_code().run(self.state_address, limit))

    def prepare(self) -> None:
        """Compile the loop, unless that has been done."""
        self._linked_code()

    def linked_loop(self) -> tuple[int, int]:
        """(address of the record that it is called with, address of the loop), linked; compiled if need be."""
        return self.state_address, self._linked_code().address

    def loop(self) -> tuple[int, int]:
        """The same of the loop that is to play next."""
        return self.linked_loop()

    @property
    def state_address(self) -> int:
        """Address of the REPLAY record."""
        return int(self._state.ctypes.data)

    @property
    def position(self) -> int:
        """Index of the next event."""
        return int(self._state["position"][0])

    @property
    def fired(self) -> int:
        """Events so far whose tracepoint had a probe."""
        return int(self._state["fired"][0])

    @property
    def tier(self) -> str:
        """How events were played so far."""
        return "linked"

    @property
    def reads(self) -> str:
        """By which clock rings are read on the way: "events", "ns", "" for none."""
        return "" if self.consumer is None else self.consumer.clock

    @property
    def stacks(self) -> bool:
        """Whether the recording has stacks."""
        return bool(self._state["stacks"][0])

    def rewind(self) -> None:
        """Start over: what programs counted stays."""
        self._state["position"] = self._state["fired"] = 0

    def close(self) -> None:
        """Free the native code made for this recording."""
        if self._linked is not None:
            self._linked.close()
            self._linked = None

    def kind(self, number: int) -> Kind:
        """What every tier does at a kind of event: arguments and stores."""
        maker, event = self.makers[number], self.bound.events[number]
        return Kind(number, maker.name, bool(event.stores), maker.has_after, "8" * len(event.args))

    def through_probes(self, number: int) -> Kind:
        """The kind, with the probes of its tracepoint where the kernel has one."""
        kind, tp = self.kind(number), self.tracepoints.get(self.bound.events[number].name)
        return kind if tp is None else kind.at(tp.widths, tracepoint=f"tp:{number}")

    def makers_part(self, kinds: Sequence[Kind]) -> Part:
        """The code that builds the arguments of these kinds."""
        return Part("".join(self.makers[kind.number].text for kind in kinds) + DECLARATIONS)

    def symbols(self, kinds: Sequence[Kind]) -> dict[str, int]:
        """Address of everything that the loop names, programs and counters aside."""
        state = self._state[0]
        found = {name: int(state[name]) for name in COLUMNS}
        found |= {"envs": self.memory.env_address, "machine": self.memory.machine_address}
        found |= {"consumer": self.consumer.address} if self.consumer is not None and self.reads else {}
        for kind in kinds:
            for name, source in self.makers[kind.number].sources.items():
                found[name] = source if isinstance(source, int) else int(source.ctypes.data)
            if kind.tracepoint:
                found[kind.tracepoint] = self.tracepoints[self.bound.events[kind.number].name].address
        return found

    def _linked_code(self) -> Loop:
        if self._linked is None:
            kinds = [self.through_probes(number) for number in self.makers]
            # timers fire in the order of all events, so not while loops run side by side
            text = loop_text(kinds, self.memory.cpus, fused=False, stacks=self.stacks, timers=not self.smp, consumer=self.reads)
            self._linked = Loop(self.memory, "replay", text, [self.makers_part(kinds)], self.symbols(kinds), smp=self.smp)
        return self._linked

    def _address(self, array: Column) -> int:
        self._keep.append(array)
        return int(array.ctypes.data)

    def _make_makers(self) -> dict[int, Materializer]:
        """By kind of event the code that builds its arguments; none for kinds at which nothing can happen."""
        bound = self.bound
        rows = np.zeros(max(len(bound.events), 1), np.int64)
        np.maximum.at(rows, bound.event, bound.row.astype(np.int64) + 1)
        made: dict[int, Materializer] = {}
        for number, event in enumerate(bound.events):
            tracepoint = self.tracepoints.get(event.name)
            if tracepoint is not None and tracepoint.num_args != len(event.args):
                raise ReplayError(f"{event.name}: {len(event.args)} arguments bound, {tracepoint.num_args} in the prototype")
            if rows[number] and (tracepoint is not None or _moves_objects(event)):
                made[number] = Materializer(f"make:{number}", event, int(rows[number]))
        return made


def _moves_objects(event: BoundEvent) -> bool:
    return bool(event.stores or event.after)
