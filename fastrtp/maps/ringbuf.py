"""RINGBUF, and the ring that PERF_EVENT_ARRAY slots hold. Kernel: kernel/bpf/ringbuf.c; producers are in ringbuf_native.py."""

from __future__ import annotations

import ctypes
import errno
from collections import deque
from collections.abc import Callable, Iterator
from typing import ClassVar

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.maps.attr import MapAttr, refuse
from fastrtp.maps.base import Map
from fastrtp.maps.ops import MapOps
from fastrtp.maps.records import MapRecord
from fastrtp.native.memory import Memory
from fastrtp.native.records import Backlog
from fastrtp.uapi import BPF_F_NUMA_NODE, BpfMapType

_PAGE = 4096

_BATCH = 1 << 16
_HEADER = 16
TimedRecord = tuple[int, bytes]
"""(time in ns, 0 in a ring buffer; record)"""


class Reader:
    """Consumes the ring at `address`, a batch at a time. What is taken out and not asked for yet waits for the next who asks."""

    def __init__(self, memory: Memory, address: int) -> None:
        self._memory = memory
        self._address = address
        self._room = _BATCH
        self._ready: deque[TimedRecord] = deque()

    def peek(self) -> TimedRecord | None:
        """The next record, which stays."""
        return self._ready[0] if self._ready or self._fill() else None

    def records(self) -> Iterator[TimedRecord]:
        """Records in order, until there are no more."""
        while True:
            try:
                record = self._ready.popleft()
            except IndexError:
                if not self._fill():
                    return
            else:
                yield record

    def open(self) -> None:
        """The ring is there for whoever reads all of them."""
        self._in_turn(self._memory.lib.ring_open)

    def close(self) -> None:
        """It goes, with everything that nobody has read."""
        self._in_turn(self._memory.lib.ring_close)

    def _in_turn(self, call: Callable[[int, int], int]) -> None:
        memory = self._memory
        memory.lib.machine_enter(memory.machine_address)
        call(memory.machine_address, self._address)
        memory.lib.machine_leave(memory.machine_address)

    def discard(self) -> None:
        """Throw everything away that is in the ring."""
        while self._fill():
            self._ready.clear()

    def _fill(self) -> bool:
        """Take a batch out of the ring; whether there was one."""
        memory = self._memory
        while True:
            buffer = ctypes.create_string_buffer(self._room)
            memory.lib.machine_enter(memory.machine_address)
            try:
                written = memory.lib.ring_consume(self._address, ctypes.addressof(buffer), self._room)
                if written > 0:
                    self._split(memoryview(buffer).cast("B")[:written])
            finally:
                memory.lib.machine_leave(memory.machine_address)
            if written >= 0:
                return bool(self._ready)
            self._room = -written - 1

    def _split(self, data: memoryview) -> None:
        at = 0
        while at < len(data):
            length = int.from_bytes(data[at : at + 4], "little")
            begin = at + _HEADER
            self._ready.append((int.from_bytes(data[at + 8 : begin], "little"), bytes(data[begin : begin + length])))
            at = begin + ((length + 7) & ~7)


class Ring:
    """A ring of `size` bytes (a power of two) with a descriptor of its own, which notes when each record was written.

    `cpu`: of the perf event whose it is.
    """

    def __init__(self, memory: Memory, size: int, cpu: int = 0) -> None:
        if size <= 0 or size & (size - 1):
            raise BpfError(errno.EINVAL, f"a ring has a power of two of bytes, not {size}")
        self.memory = memory
        self.address, self._record = memory.record(MapRecord.layout.dtype)
        self._backlog = memory.record(Backlog.layout.dtype)[0]
        self._areas = [memory.arena.alloc(2 * size), memory.arena.alloc(size)]
        self._record["max_entries"], self._record["machine"] = size, memory.machine_address
        self._record["values"], self._record["slots"] = self._areas
        self._record["backlog"], self._record["cpus"] = self._backlog, cpu
        self.reader = Reader(memory, self.address)
        self.reader.open()

    def consume(self) -> Iterator[bytes]:
        """Records as bytes, consumed."""
        for _time, record in self.reader.records():
            yield record

    @property
    def lost(self) -> int:
        """Records that found no room."""
        return int(self._record["dropped"][0])

    def close(self) -> None:
        """Free the ring."""
        self.reader.close()
        for address in (*self._areas, self._backlog, self.address):
            self.memory.arena.free(address)


def ringbuf_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/ringbuf.c:ringbuf_map_alloc."""
    if attr.map_flags & ~BPF_F_NUMA_NODE:
        refuse(errno.EINVAL, f"map_flags {attr.map_flags:#x} do not fit a ring buffer")
    size = attr.max_entries
    if attr.key_size or attr.value_size or size == 0 or size & (size - 1) or size % _PAGE:
        refuse(errno.EINVAL, f"a ring buffer has no key or value and a power of two of pages, not {size} bytes")


class RingBuf(Map):
    """A BPF ring buffer of max_entries bytes."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_RINGBUF: MapOps(
            ringbuf_map_alloc_check,
            struct="bpf_ringbuf_map",
            helpers=frozenset(
                {
                    "ringbuf_output",
                    "ringbuf_reserve",
                    "ringbuf_query",
                    "ringbuf_reserve_dynptr",
                    "ringbuf_submit_dynptr",
                    "ringbuf_discard_dynptr",
                }
            ),
        )
    }

    def _create(self) -> None:
        self.record["values"] = self._alloc(2 * self.max_entries)
        self.record["backlog"] = self._record(Backlog.layout.dtype, 1)[0]
        self.reader = Reader(self.memory, self.address)
        if self.map_type == BpfMapType.BPF_MAP_TYPE_RINGBUF:
            self.reader.open()

    def consume(self) -> Iterator[bytes]:
        """Committed records as bytes, consumed; a record that is still being written stops the walk."""
        for _time, record in self.reader.records():
            yield record

    def close(self) -> None:
        """Free the map's memory, and what nobody has read."""
        if hasattr(self, "reader") and self._allocations:
            self.reader.close()
        super().close()

    @property
    def lost(self) -> int:
        """Reservations that found no room."""
        return int(self.record["dropped"][0])

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """ENOTSUPP: a ring buffer has no keys."""
        raise BpfError(ENOTSUPP, "a ring buffer has no keys")

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """ENOTSUPP: a ring buffer has no keys."""
        raise BpfError(ENOTSUPP, "a ring buffer has no keys")

    def delete_elem(self, key: bytes) -> None:
        """ENOTSUPP: a ring buffer has no keys."""
        raise BpfError(ENOTSUPP, "a ring buffer has no keys")

    def get_next_key(self, key: bytes | None) -> bytes:
        """ENOTSUPP: a ring buffer has no keys."""
        raise BpfError(ENOTSUPP, "a ring buffer has no keys")
