"""The linked tier: bound columns made native, and the loop of loop_native.py run over them chunk by chunk.

Between two chunks Python has its turn: signals, progress, and threads that attach, detach or read maps.

Must not know: programs, the verifier, file formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastrtp.errors import ReplayError
from fastrtp.jit.program import NativeText
from fastrtp.native.layout import REPLAY, REPLAY_EVENT
from fastrtp.native.memory import Memory
from fastrtp.replay.bind import BoundRecording
from fastrtp.replay.materialize import DECLARATIONS, Column, Materializer
from fastrtp.replay.stacks import stack_columns
from fastrtp.trace import Tracepoint

CHUNK = 1 << 16
"""Events a turn: a few milliseconds."""


class LinkedReplay:
    """One recording, ready to be played on a machine. Keeps every column alive that native code points into.

    `picked`: what `bound` has are these events of its recording, for one thread of a parallel replay (parallel.py).
    """

    def __init__(
        self, memory: Memory, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint], picked: Column | None = None
    ) -> None:
        self.memory = memory
        self._bound = bound
        self._keep: list[Any] = [bound]
        count = len(bound.time)
        self.events = count
        if count and int(bound.cpu.max()) >= memory.cpus:
            raise ReplayError(
                f"the recording has events of cpu {int(bound.cpu.max())}, the kernel has {memory.cpus}: Kernel(cpus=N)"
            )
        if count and int(bound.event.max()) >= len(bound.events):
            raise ReplayError(f"event kind {int(bound.event.max())} of {len(bound.events)}")
        self._code: NativeText | None = None
        self._kinds = kinds = self._make_kinds(bound, tracepoints)
        self._state = np.zeros(1, REPLAY)
        state = self._state[0]
        state["machine"], state["end"], state["events"] = memory.machine_address, count, self._address(kinds)
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
        state["held"] = picked is not None

    def run(self, progress: Callable[[int, int], None] | None = None, chunk: int = CHUNK) -> int:
        """Play from where it stands to the end; how many events were played. KeyboardInterrupt ends it between chunks."""
        played = 0
        while self.position < self.events:
            done = self.play(chunk)
            played += done
            if progress is not None:
                progress(self.position, self.events)
            if done == 0 or self.memory.machine["stop"][0]:
                break
        return played

    def play(self, limit: int) -> int:
        """Play at most `limit` events; how many were played."""
        self.prepare()
        return self.memory.lib.replay_run(self._state.ctypes.data, limit)

    def prepare(self) -> None:
        """Compile what play() needs first, unless that has been done."""
        self.prepare_linked()

    def prepare_linked(self) -> None:
        """Compile the code that builds arguments, unless that has been done."""
        if self._code is not None:
            return
        makers = self._makers.values()
        exports = [maker.name for maker in makers] + [f"{maker.name}.after" for maker in makers if maker.has_after]
        self._code = NativeText("replay", "".join(maker.text for maker in makers) + DECLARATIONS, exports)
        self._code.profile(self.memory.perf_map, {})
        for number, maker in self._makers.items():
            kind = self._kinds[number]
            kind["materialize"] = self._code.addresses[maker.name]
            kind["after"] = self._code.addresses[f"{maker.name}.after"] if maker.has_after else 0

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

    def rewind(self) -> None:
        """Start over: what programs counted stays."""
        self._state["position"] = self._state["fired"] = 0

    def close(self) -> None:
        """Free the native code made for this recording."""
        if self._code is not None:
            self._code.close()
            self._code = None

    def _address(self, array: Column) -> int:
        self._keep.append(array)
        return int(array.ctypes.data)

    def _make_kinds(self, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint]) -> np.ndarray[Any, np.dtype[Any]]:
        """The REPLAY_EVENT records, but for the code that builds each kind's arguments: prepare()."""
        kinds = np.zeros(max(len(bound.events), 1), REPLAY_EVENT)
        rows = np.zeros(len(kinds), np.int64)
        np.maximum.at(rows, bound.event, bound.row.astype(np.int64) + 1)
        self._makers: dict[int, Materializer] = {}
        for number, event in enumerate(bound.events):
            tracepoint = tracepoints.get(event.name)
            if tracepoint is not None:
                if tracepoint.num_args != len(event.args):
                    raise ReplayError(f"{event.name}: {len(event.args)} arguments bound, {tracepoint.num_args} in the prototype")
                kinds[number]["tracepoint"] = tracepoint.address
                kinds[number]["trace"] = self.memory.lib.symbols[f"trace_call{tracepoint.num_args}"]
            if tracepoint is not None or event.stores or event.after:
                self._makers[number] = Materializer(f"event.{number}", event, int(rows[number]))
        for number, maker in self._makers.items():
            sources = [self._source(source) for source in maker.sources]
            kinds[number]["sources"] = self._address(np.array(sources or [0], np.uint64))
            kinds[number]["stores"] = bool(bound.events[number].stores)
        return kinds

    def _source(self, source: Column | int) -> int:
        return source if isinstance(source, int) else self._address(source)
