"""PROG_ARRAY and PERF_EVENT_ARRAY: arrays whose values are kernel objects. Kernel: kernel/bpf/arraymap.c.

What stands in a slot is set by the kernel layer, which knows file descriptors and keeps the objects alive.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import ClassVar

import numpy as np

from fastrtp.errors import ENOTSUPP, BpfError
from fastrtp.maps.arraymap import array_map_alloc_check
from fastrtp.maps.attr import MapAttr, refuse
from fastrtp.maps.base import Map
from fastrtp.maps.ops import Holds, KeyBtf, MapOps
from fastrtp.maps.ringbuf import Ring
from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG, BpfMapType


def fd_array_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/arraymap.c:fd_array_map_alloc_check."""
    if attr.value_size != 4:
        refuse(errno.EINVAL, f"value_size of an array of fds is 4, not {attr.value_size}")
    if attr.map_flags & (BPF_F_RDONLY_PROG | BPF_F_WRONLY_PROG):
        refuse(errno.EINVAL, "programs cannot be restricted from an array of fds")
    array_map_alloc_check(attr, ops)


class FdArray(Map):
    """A native array of object addresses, 0 for an empty slot."""

    def _create(self) -> None:
        self.value_address = self._alloc(8 * self.max_entries)
        self.record["elem_size"], self.record["values"] = 8, self.value_address
        self._slots = self.memory.arena.view(self.value_address, 8 * self.max_entries).view(np.int64)

    def index(self, key: bytes, missing: int = errno.E2BIG) -> int:
        """Slot that a key names; `missing` past the end."""
        if len(key) != self.key_size:
            raise BpfError(errno.EINVAL, f"map {self.name!r} has 4-byte keys, not {len(key)}")
        (index,) = struct.unpack("<I", key)
        if index >= self.max_entries:
            raise BpfError(missing, f"index {index} of {self.max_entries}")
        return int(index)

    def set_slot(self, index: int, address: int) -> int:
        """Put an object's address into a slot; what was there."""
        with self.turn():
            old = int(self._slots[index])
            self._slots[index] = address
        return old

    def slots(self) -> list[int]:
        """What stands in the slots."""
        return [int(address) for address in self._slots.tolist()]

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """Not for arrays of fds from here: ENOTSUPP; the kernel layer answers where Linux does."""
        raise BpfError(ENOTSUPP, f"{self.map_type.name} has no lookup")

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Values are fds, which this layer does not know: set_slot."""
        raise BpfError(errno.EINVAL, f"{self.map_type.name} values are file descriptors")


class ProgArray(FdArray):
    """Tail-call targets: slots hold PROG records."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_PROG_ARRAY: MapOps(
            fd_array_map_alloc_check,
            struct="bpf_array",
            helpers=frozenset({"tail_call"}),
            holds=Holds.PROGS,
        )
    }


class CgroupArray(FdArray):
    """Cgroups that bpf_current_task_under_cgroup asks about."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_CGROUP_ARRAY: MapOps(
            fd_array_map_alloc_check,
            struct="bpf_array",
            helpers=frozenset({"current_task_under_cgroup", "skb_under_cgroup"}),
            holds=Holds.CGROUPS,
            key_btf=KeyBtf.NO_BTF,
        )
    }


class PerfEventArray(FdArray):
    """Rings that bpf_perf_event_output writes to, a slot a CPU."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY: MapOps(
            fd_array_map_alloc_check,
            struct="bpf_array",
            helpers=frozenset({"perf_event_read", "perf_event_output", "skb_output", "perf_event_read_value", "xdp_output"}),
            holds=Holds.EVENTS,
            key_btf=KeyBtf.NO_BTF,
        )
    }

    def _create(self) -> None:
        super()._create()
        self.rings: dict[int, Ring] = {}

    def open_rings(self, size: int = 1 << 20) -> None:
        """Give every CPU's slot that has none a ring of `size` bytes (a power of two), as perf_buffer__new does."""
        for cpu in range(min(self.memory.cpus, self.max_entries)):
            if cpu not in self.rings:
                self.rings[cpu] = Ring(self.memory, size, cpu)
                self.set_slot(cpu, self.rings[cpu].address)

    def consume(self) -> Iterator[bytes]:
        """Samples of all CPUs in time order, consumed; padded as perf pads them."""
        for _cpu, blob in self.consume_by_cpu():
            yield blob

    def consume_by_cpu(self) -> Iterator[tuple[int, bytes]]:
        """(cpu, sample) of all CPUs in time order, those of one time by CPU. The order within a CPU is always kept."""
        heads: list[tuple[int, int]] = []
        for cpu, ring in self.rings.items():
            if (first := ring.reader.peek()) is not None:
                heappush(heads, (first[0], cpu))
        while heads:
            _time, cpu = heappop(heads)
            reader = self.rings[cpu].reader
            for _, sample in reader.records():
                yield cpu, sample
                break
            if (following := reader.peek()) is not None:
                heappush(heads, (following[0], cpu))

    @property
    def lost(self) -> int:
        """Samples that found their ring full."""
        return sum(ring.lost for ring in self.rings.values())

    def close(self) -> None:
        """Free the array and its rings."""
        for ring in getattr(self, "rings", {}).values():
            ring.close()
        super().close()
