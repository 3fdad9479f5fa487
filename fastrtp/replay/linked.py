"""The linked tier: bound columns made native, and the loop of loop_native.py run over them chunk by chunk.

Between two chunks Python has its turn: signals, progress, and threads that attach, detach or read maps.

Must not know: programs, the verifier, file formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastrtp.errors import ReplayError
from fastrtp.native.layout import REPLAY, REPLAY_ARG, REPLAY_EVENT, REPLAY_STORE
from fastrtp.native.memory import Memory
from fastrtp.replay.bind import BoundArg, BoundEvent, BoundRecording, BoundStore
from fastrtp.trace import Tracepoint

CHUNK = 1 << 16
"""Events a turn: a few milliseconds."""

Column = np.ndarray[Any, Any]
_WIDTHS = (1, 2, 4, 8)


class LinkedReplay:
    """One recording, ready to be played on a machine. Keeps every column alive that native code points into."""

    def __init__(self, memory: Memory, bound: BoundRecording, tracepoints: Mapping[str, Tracepoint]) -> None:
        self.memory = memory
        self._keep: list[Any] = [bound]
        count = len(bound.time)
        self.events = count
        if count and int(bound.cpu.max()) >= memory.cpus:
            raise ReplayError(f"the recording has events of cpu {int(bound.cpu.max())}, the kernel has {memory.cpus}: Kernel(cpus=N)")
        if count and int(bound.event.max()) >= len(bound.events):
            raise ReplayError(f"event kind {int(bound.event.max())} of {len(bound.events)}")
        kinds = np.zeros(max(len(bound.events), 1), REPLAY_EVENT)
        rows = np.zeros(len(kinds), np.int64)
        np.maximum.at(rows, bound.event, bound.row.astype(np.int64) + 1)
        for number, event in enumerate(bound.events):
            self._rows_needed = int(rows[number])
            self._kind(kinds[number], event, tracepoints.get(event.name))
        self._state = np.zeros(1, REPLAY)
        state = self._state[0]
        state["machine"], state["end"] = memory.machine_address, count
        state["events"] = self._address(kinds)
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

    def run(self, progress: Callable[[int, int], None] | None = None, chunk: int = CHUNK) -> int:
        """Play from where it stands to the end; how many events were played. KeyboardInterrupt ends it between chunks."""
        address = self._state.ctypes.data
        played = 0
        while self.position < self.events:
            done = self.memory.lib.replay_run(address, chunk)
            if done == 0:
                break
            played += done
            if progress is not None:
                progress(self.position, self.events)
            if self.memory.machine["stop"][0]:
                break
        return played

    @property
    def position(self) -> int:
        """Index of the next event."""
        return int(self._state["position"][0])

    @property
    def fired(self) -> int:
        """Events so far whose tracepoint had a probe."""
        return int(self._state["fired"][0])

    def rewind(self) -> None:
        """Start over: what programs counted stays."""
        self._state["position"] = self._state["fired"] = 0

    def _column(self, array: Column) -> int:
        """Address of an event kind's column; every row that its events name must be there."""
        if len(array) < self._rows_needed:
            raise ReplayError(f"a column has {len(array)} rows where an event names row {self._rows_needed - 1}")
        return self._address(array)

    def _address(self, array: Column) -> int:
        self._keep.append(array)
        return int(array.ctypes.data)

    def _kind(self, row: Any, event: BoundEvent, tracepoint: Tracepoint | None) -> None:
        if tracepoint is not None:
            if tracepoint.num_args != len(event.args):
                raise ReplayError(f"{event.name}: {len(event.args)} arguments are bound, the prototype has {tracepoint.num_args}")
            row["tracepoint"] = tracepoint.address
            row["trace"] = self.memory.lib.symbols[f"trace_call{tracepoint.num_args}"]
        args = np.zeros(max(len(event.args), 1), REPLAY_ARG)
        for target, arg in zip(args, event.args, strict=False):
            self._arg(target, arg)
        stores = np.zeros(max(len(event.stores), 1), REPLAY_STORE)
        for target, store in zip(stores, event.stores, strict=False):
            self._store(target, store, len(event.args))
        row["num_args"], row["args"] = len(event.args), self._address(args)
        row["num_stores"], row["stores"] = len(event.stores), self._address(stores)

    def _arg(self, target: Any, arg: BoundArg) -> None:
        target["size"] = arg.size
        if arg.column is None:
            target["const"] = np.uint64(arg.const & 0xFFFFFFFFFFFFFFFF).astype(np.int64)
            return
        target["column"], target["width"] = self._integers(arg.column)

    def _store(self, target: Any, store: BoundStore, num_args: int) -> None:
        target["base_arg"], target["offset"], target["size"] = store.base_arg, store.offset, store.size
        if store.base_arg >= num_args:
            raise ReplayError(f"a store goes to argument {store.base_arg} of {num_args}")
        if store.base_arg < 0:
            if isinstance(store.base, np.ndarray):
                target["base"] = self._column(np.ascontiguousarray(store.base, np.uint64))
            else:
                target["base_const"] = np.uint64(store.base or 0).astype(np.int64)
        column = store.column
        if column.dtype.kind == "S":
            padded = column.astype("S16") if column.dtype.itemsize <= 16 else column
            target["column"], target["width"] = self._column(np.ascontiguousarray(padded)), padded.dtype.itemsize
            return
        if store.size not in _WIDTHS:
            raise ReplayError(f"a store of {store.size} bytes from an integer column")
        target["column"], target["width"] = self._integers(column)

    def _integers(self, column: Column) -> tuple[int, int]:
        """(address, width) of an integer column: the width is negative for signed items below 8 bytes."""
        if column.dtype.kind == "b":
            column = column.view(np.uint8)
        if column.dtype.kind not in "iu" or column.dtype.itemsize not in _WIDTHS:
            raise ReplayError(f"a column of {column.dtype} holds no integers")
        width = column.dtype.itemsize
        address = self._column(np.ascontiguousarray(column))
        return address, -width if column.dtype.kind == "i" and width < 8 else width
