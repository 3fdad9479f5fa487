"""LPM_TRIE: values by prefixes of bit strings; a lookup finds the longest one. Kernel: kernel/bpf/lpm_trie.c."""

from __future__ import annotations

import errno
from typing import ClassVar

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.attr import ACCESS_FLAGS, KMALLOC_MAX_SIZE, MapAttr, access_ok, refuse
from fastrtp.maps.base import Bytes, Map, round_up
from fastrtp.maps.ops import Batch, KeyBtf, MapOps
from fastrtp.maps.records import LpmNode
from fastrtp.uapi import BPF_F_NO_PREALLOC, BPF_F_NUMA_NODE, BpfMapType

_DATA_SIZE_MAX = 256
_KEY_HEAD = 4
_NODE_HEAD = 40
_FLAGS = BPF_F_NO_PREALLOC | BPF_F_NUMA_NODE | ACCESS_FLAGS


def trie_alloc_check(attr: MapAttr, ops: MapOps) -> None:
    """Kernel: kernel/bpf/lpm_trie.c:trie_alloc."""
    flags = attr.map_flags
    if flags & ~_FLAGS or not flags & BPF_F_NO_PREALLOC or not access_ok(flags):
        refuse(errno.EINVAL, f"map_flags {flags:#x} do not fit a trie, which needs BPF_F_NO_PREALLOC")
    if attr.max_entries == 0 or not _KEY_HEAD < attr.key_size <= _KEY_HEAD + _DATA_SIZE_MAX:
        refuse(errno.EINVAL, f"a trie has entries and keys of 5 to 260 bytes, not {attr.key_size}")
    if not 1 <= attr.value_size <= KMALLOC_MAX_SIZE - _DATA_SIZE_MAX - _NODE_HEAD:
        refuse(errno.EINVAL, f"value_size {attr.value_size} does not fit a trie")


class LpmTrie(Map):
    """A trie of prefixes. Its nodes come from the heap of programs' objects."""

    TYPES: ClassVar = {
        BpfMapType.BPF_MAP_TYPE_LPM_TRIE: MapOps(
            trie_alloc_check, struct="lpm_trie", key_btf=KeyBtf.STRUCT, batch=Batch.KEYS_AND_DELETE
        )
    }

    def _create(self) -> None:
        self.record["value_at"] = round_up(LpmNode.layout.size + self.key_size - _KEY_HEAD, 8)

    def close(self) -> None:
        """Free all nodes and the map's memory."""
        if self._allocations:
            self.memory.lib.trie_free(self.memory.machine_address, self.address)
        super().close()

    def __len__(self) -> int:
        return int(self.record["count"][0])

    def delete_elem(self, key: bytes) -> None:
        """Remove the prefix. ENOENT; EINVAL for one that is longer than keys can be."""
        with self._lock:
            self._put_key(key)
            self._check(self.memory.lib.map_delete(self.memory.machine_address, self.address, self._key_address))

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of all (keys, values), more specific ones before less specific ones."""
        keys: list[bytes] = []
        key: bytes | None = None
        with self.turn():
            try:
                while True:
                    key = self.get_next_key(key)
                    keys.append(key)
            except BpfError:
                values = [self.lookup_elem(key) for key in keys]
        shape = len(keys)
        return (
            np.frombuffer(b"".join(keys), np.uint8).reshape(shape, self.key_size).copy(),
            np.frombuffer(b"".join(values), np.uint8).reshape(shape, self.value_size).copy(),
        )
