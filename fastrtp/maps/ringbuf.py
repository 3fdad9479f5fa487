"""RINGBUF, and the ring that PERF_EVENT_ARRAY slots hold. Kernel: kernel/bpf/ringbuf.c; producers are in ringbuf_native.py."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.maps.base import Map
from fastrtp.native.layout import MAP
from fastrtp.native.memory import Memory

_BATCH = 1 << 16


def drain(memory: Memory, address: int) -> Iterator[bytes]:
    """Consume the records of the ring at `address`, a batch at a time; each as bytes."""
    room = _BATCH
    buffer = ctypes.create_string_buffer(room)
    while True:
        memory.lib.machine_enter(memory.machine_address)
        try:
            written = memory.lib.ring_consume(address, ctypes.addressof(buffer), room)
        finally:
            memory.lib.machine_leave(memory.machine_address)
        if written < 0:
            room = -written - 1
            buffer = ctypes.create_string_buffer(room)
            continue
        if written == 0:
            return
        data = memoryview(buffer).cast("B")
        at = 0
        while at < written:
            length = int.from_bytes(data[at : at + 4], "little")
            yield bytes(data[at + 8 : at + 8 + length])
            at += (length + 15) & ~7


class Ring:
    """A ring of `size` bytes (a power of two) with a descriptor of its own."""

    def __init__(self, memory: Memory, size: int) -> None:
        if size <= 0 or size & (size - 1):
            raise BpfError(errno.EINVAL, f"a ring has a power of two of bytes, not {size}")
        self.memory = memory
        self.address, self._record = memory.record(MAP)
        self._data = memory.arena.alloc(2 * size)
        self._record["max_entries"], self._record["values"] = size, self._data

    def consume(self) -> Iterator[bytes]:
        """Records as bytes, consumed."""
        return drain(self.memory, self.address)

    @property
    def lost(self) -> int:
        """Records that found no room."""
        return int(self._record["dropped"][0])

    def close(self) -> None:
        """Free the ring."""
        self.memory.arena.free(self._data)
        self.memory.arena.free(self.address)


class RingBuf(Map):
    """A BPF ring buffer of max_entries bytes."""

    def _create(self) -> None:
        self.record["values"] = self._alloc(2 * self.max_entries)

    def consume(self) -> Iterator[bytes]:
        """Committed records as bytes, consumed; a record that is still being written stops the walk."""
        return drain(self.memory, self.address)

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
