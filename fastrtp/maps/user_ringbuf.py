"""USER_RINGBUF: samples from user space for programs. Kernel: kernel/bpf/ringbuf.c; the drain is in user_ringbuf_native.py."""

from __future__ import annotations

import errno
import struct
from typing import ClassVar

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.ops import MapOps
from fastrtp.maps.ringbuf import RingBuf, ringbuf_map_alloc_check
from fastrtp.uapi import BpfMapType

_HEADER = 8
_DISCARD = 1 << 30


class UserRingBuf(RingBuf):
    """A ring of max_entries bytes that user space fills: submit()."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_USER_RINGBUF: MapOps(
            ringbuf_map_alloc_check, struct="bpf_ringbuf_map", helpers=frozenset({"user_ringbuf_drain"})
        )
    }

    def submit(self, sample: bytes, *, discard: bool = False) -> None:
        """Write one sample for bpf_user_ringbuf_drain. E2BIG for one that never fits, ENOSPC while the ring is full.

        libbpf: user_ring_buffer__reserve and __submit (`discard`: __discard).
        """
        need = (len(sample) + _HEADER + 7) & ~7
        if need > self.max_entries:
            raise BpfError(errno.E2BIG, f"a sample of {len(sample)} bytes does not fit a ring of {self.max_entries}")
        with self._lock, self.turn():
            producer, consumer = int(self.record["producer"][0]), int(self.record["consumer"][0])
            if producer - consumer + need > self.max_entries:
                raise BpfError(errno.ENOSPC, f"no room for {len(sample)} bytes in user ring buffer {self.name!r}")
            start = int(self.record["values"][0]) + producer % self.max_entries
            data = struct.pack("<II", len(sample) | (_DISCARD if discard else 0), 0) + sample
            self.memory.arena.view(start, len(data))[:] = np.frombuffer(data, np.uint8)
            self.record["producer"] = producer + need
