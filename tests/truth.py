"""What programs counted in the kernel, and a plain Python model of those programs over a bound recording."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastrtp.mem.arena import Arena
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable, Recording
from fastrtp.record.event_format import EventFormat
from fastrtp.record.event_formats import default_formats
from fastrtp.replay.bind import BoundRecording, BoundStore

TRUTH = Path(__file__).resolve().parent / "data" / "replay" / "churn"
U64 = (1 << 64) - 1


def kernel_map(name: str, folder: Path = TRUTH) -> dict[bytes, bytes]:
    """Raw items of the map that the kernel held."""
    rows = (folder / f"map_{name}.hex").read_text().splitlines()[1:]
    return {bytes.fromhex(key): bytes.fromhex(value) for key, value in map(str.split, rows)}


def kernel_formats() -> Mapping[str, EventFormat]:
    """The kernel's format files, by event name."""
    return default_formats()


def kernel_format(name: str) -> EventFormat:
    return kernel_formats()[name]


def compared_pids(folder: Path = TRUTH) -> set[int]:
    return set(map(int, (folder / "pids.txt").read_text().split()))


class Memory:
    """The arena as bytes, for a model that has no native code."""

    def __init__(self, arena: Arena) -> None:
        self.base = arena.base
        self.view = memoryview(arena.view(arena.base, arena.size))

    def read(self, address: int, size: int, signed: bool = False) -> int:
        at = address - self.base
        return int.from_bytes(self.view[at : at + size], "little", signed=signed)

    def bytes(self, address: int, size: int) -> bytes:
        at = address - self.base
        return bytes(self.view[at : at + size])

    def write(self, address: int, data: bytes, store: BoundStore) -> None:
        """A store: nothing where there is no object; of some bits the others stay."""
        if address == store.offset:
            return
        at = address - self.base
        if store.mask:
            old = int.from_bytes(self.view[at : at + len(data)], "little")
            new = int.from_bytes(data, "little") << store.shift
            data = (old & ~store.mask | new & store.mask).to_bytes(len(data), "little")
        self.view[at : at + len(data)] = data


def _store_rows(store: BoundStore) -> Callable[[int, list[int]], tuple[int, bytes, BoundStore]]:
    """(row, arguments) -> (address, bytes) of one store, and the store."""
    offset, size = store.offset, store.size
    base = None if store.base is None or isinstance(store.base, int) else store.base.tolist()

    def address(row: int, args: list[int]) -> int:
        if store.base_arg >= 0:
            return args[store.base_arg] + offset
        return (store.base if base is None else base[row]) + offset

    if store.column is None:
        data = (store.const & (1 << 8 * size) - 1).to_bytes(size, "little")
        return lambda row, args: (address(row, args), data, store)
    if store.column.dtype.kind == "S":
        texts = [bytes(text).ljust(size, b"\0") for text in store.column]
        return lambda row, args: (address(row, args), texts[row], store)
    mask = (1 << 8 * size) - 1
    values = store.column.tolist()
    return lambda row, args: (address(row, args), (values[row] & mask).to_bytes(size, "little"), store)


class Model:
    """truth.bpf.c in Python: reads the objects in the arena, as the program does."""

    def __init__(self, bound: BoundRecording, objects: ObjectSpace) -> None:
        self.bound = bound
        self.memory = Memory(objects.arena)
        self.at = {
            (name, member): objects.member(name, member).offset_bytes
            for name, member in [
                ("task_struct", "pid"),
                ("task_struct", "tgid"),
                ("task_struct", "comm"),
                ("pt_regs", "dx"),
                ("pt_regs", "orig_ax"),
            ]
        }
        self.maps: dict[str, defaultdict[Any, int]] = {
            name: defaultdict(int) for name in ("switches", "syscalls", "sysargs", "sysrets", "wakeups", "counts")
        }
        self.start: dict[int, int] = {}
        self.runq: dict[int, list[Any]] = {}
        self.current = 0
        self.time = 0

    def run(self) -> None:
        bound, memory = self.bound, self.memory
        plans = []
        for event in bound.events:
            columns = [[arg.const] if arg.column is None else arg.column.tolist() for arg in event.args]
            constant = [arg.column is None for arg in event.args]
            stores = [_store_rows(store) for store in event.stores]
            after = [_store_rows(store) for store in event.after]
            plans.append((getattr(self, "on_" + event.name, None), columns, constant, stores, after))
        steps = zip(bound.time.tolist(), bound.event.tolist(), bound.row.tolist(), bound.current.tolist(), strict=True)
        for self.time, event, row, self.current in steps:
            probe, columns, constant, stores, after = plans[event]
            args = [column[0] if const else column[row] for column, const in zip(columns, constant, strict=True)]
            for store in stores:
                memory.write(*store(row, args))
            if probe is not None:
                probe(*args)
            for store in after:
                memory.write(*store(row, args))

    def pid(self, task: int) -> int:
        return self.memory.read(task + self.at["task_struct", "pid"], 4)

    def on_sched_wakeup(self, task: int) -> None:
        self.maps["counts"][1] += 1
        self._wake(task)

    def on_sched_wakeup_new(self, task: int) -> None:
        self.maps["counts"][2] += 1
        self._wake(task)

    def _wake(self, task: int) -> None:
        self.start[self.pid(task)] = self.time
        self.maps["wakeups"][struct.pack("<I", self.pid(task))] += 1

    def on_sched_switch(self, preempt: int, prev: int, next_task: int, prev_state: int) -> None:
        self.maps["counts"][0] += 1
        pid = self.pid(next_task)
        self.maps["switches"][struct.pack("<II", self.pid(prev), pid)] += 1
        if pid not in self.start:
            return
        latency = (self.time - self.start.pop(pid)) // 1000
        comm = self.memory.bytes(next_task + self.at["task_struct", "comm"], 16)
        entry = self.runq.setdefault(pid, [0, [0] * 32, comm])
        slot = max(latency.bit_length() - 1, 0)
        entry[1][slot] += 1
        entry[0] += 1

    def _key(self, number: int) -> bytes:
        return struct.pack("<Q", self.pid(self.current) << 32 | number & 0xFFFFFFFF)

    def on_sys_enter(self, regs: int, number: int) -> None:
        key = self._key(number)
        self.maps["counts"][3] += 1
        self.maps["syscalls"][key] += 1
        self.maps["sysargs"][key] += self.memory.read(regs + self.at["pt_regs", "dx"], 8)

    def on_sys_exit(self, regs: int, ret: int) -> None:
        self.maps["counts"][4] += 1
        self.maps["sysrets"][self._key(self.memory.read(regs + self.at["pt_regs", "orig_ax"], 8))] += ret

    def raw(self, name: str) -> dict[bytes, bytes]:
        """A map's items as the kernel would hold them."""
        return {key: struct.pack("<Q", value & U64) for key, value in self.maps[name].items()}


def without(recording: Recording, event: str, field: str) -> Recording:
    """The recording as one whose format of an event lacks a field."""
    tables = list(recording.tables)
    place = next(index for index, table in enumerate(tables) if table.name == event)
    table = tables[place]
    assert table.fmt is not None
    fmt = replace(table.fmt, fields=tuple(spec for spec in table.fmt.fields if spec.name != field))
    fields = {name: column for name, column in table.fields.items() if name != field}
    tables[place] = EventTable(table.name, table.system, fields, fmt, table.heaps, table.rows)
    return replace(recording, tables=tables)
