"""BLOOM_FILTER: whether a value may have been put in. Kernel: kernel/bpf/bloom_filter.c; bits: bloom_filter_native.py."""

from __future__ import annotations

import errno
from typing import ClassVar

from fastrtp.errors import BpfError
from fastrtp.maps.attr import ACCESS_FLAGS, KMALLOC_MAX_SIZE, MapAttr, access_ok, refuse
from fastrtp.maps.ops import KeyBtf, MapOps
from fastrtp.maps.queue_stack import KeylessMap
from fastrtp.uapi import BPF_F_NUMA_NODE, BPF_F_ZERO_SEED, BpfMapType

_DEFAULT_HASH_FUNCS = 5
_U32_MAX = (1 << 32) - 1
_FLAGS = BPF_F_NUMA_NODE | BPF_F_ZERO_SEED | ACCESS_FLAGS


def bloom_map_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/bloom_filter.c:bloom_map_alloc_check, bloom_map_alloc."""
    if attr.value_size > KMALLOC_MAX_SIZE:
        refuse(errno.E2BIG, f"value_size {attr.value_size} is too large")
    if attr.key_size or attr.value_size == 0 or attr.max_entries == 0 or attr.map_extra & ~0xF:
        refuse(errno.EINVAL, "a bloom filter has a value, entries, no key, and up to 15 hash functions")
    if attr.map_flags & ~_FLAGS or not access_ok(attr.map_flags):
        refuse(errno.EINVAL, f"map_flags {attr.map_flags:#x} do not fit a bloom filter")


class BloomFilter(KeylessMap):
    """Bits, as many as Linux takes for the entries and hash functions."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_BLOOM_FILTER: MapOps(
            bloom_map_alloc_check,
            struct="bpf_bloom_filter",
            helpers=frozenset({"map_peek_elem", "map_push_elem"}),
            key_btf=KeyBtf.NONE,
            map_extra=True,
        )
    }

    def _create(self) -> None:
        functions = self.map_extra or _DEFAULT_HASH_FUNCS
        bits = self.max_entries * functions
        bits = bits // 5 * 7 if bits <= _U32_MAX else bits
        bits = 1 << 32 if bits > 1 << 31 else max(64, 1 << (bits - 1).bit_length())
        self.record["limit"], self.record["slot_mask"] = functions, bits - 1
        self.record["values"] = self._alloc(bits // 8)

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """A lookup asks about the value that it is given: test."""
        raise BpfError(errno.EINVAL, "a bloom filter is asked with a value")

    def test(self, value: bytes) -> bytes:
        """The value, if it may be in the filter. ENOENT."""
        with self._lock:
            self._put_value(value)
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.map_get(machine, self.address, self._value_address, 0))
        return value

    def lookup_and_delete_elem(self, key: bytes, flags: int = 0) -> bytes:
        """ENOTSUPP, as in Linux."""
        raise BpfError(524, "a bloom filter has no lookup and delete")

    def delete_elem(self, key: bytes) -> None:
        """EOPNOTSUPP, as in Linux."""
        raise BpfError(errno.EOPNOTSUPP, "nothing can be taken out of a bloom filter")

    def get_next_key(self, key: bytes | None) -> bytes:
        """EOPNOTSUPP, as in Linux."""
        raise BpfError(errno.EOPNOTSUPP, "a bloom filter has no keys")
