"""The maps of generated programs: 1 to 11 are those of tests/data/verifier/README.md, so that a find is a data case as it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from fastrtp.uapi import BPF_F_RDONLY_PROG, BPF_F_WRONLY_PROG
from fastrtp.uapi import BpfMapType as T

from .functions import IDS, btf

U64 = (1 << 64) - 1
CTX_WORDS = (0, 1, 7, 8, 40, 255, 0x80000000, 0xFFFFFFFF, 0x1111111111111111, 0x8000000000000000, U64, 0x100000003)
CTX = struct.pack("<12Q", *CTX_WORDS)
"""What every program runs on: numbers at the edges of ranges."""
HASH_KEYS = (0, 1, 5)
"""Keys that the maps of HASHES have before a run."""


@dataclass(frozen=True)
class Shape:
    """A map's attributes, and the bytes that it begins with. `frozen`: nobody may write. `inner`: number of the map in slot 0."""

    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int = 0
    frozen: bool = False
    data: bytes = b""
    name: str = ""
    inner: int = 0
    btf_value_type_id: int = 0

    @property
    def btf(self) -> Any:
        """Types of the value, where it has a spin lock."""
        return btf() if self.btf_value_type_id else None

    @property
    def inner_map(self) -> Any:
        """The shape of the maps in a map of maps."""
        return SHAPES[self.inner] if self.inner else None

    def read_value(self, offset: int, size: int) -> bytes:
        """Bytes of value 0."""
        return self.initial(0)[offset : offset + size]

    def initial(self, number: int) -> bytes:
        """The value at array index or hash key `number` before a run."""
        if self.frozen:
            return self.data.ljust(self.value_size, b"\0")
        return bytes((number * 16 + at * 37 + 1) & 0xFF if at % 8 < 2 else 0 for at in range(self.value_size))


SHAPES = {
    1: Shape(T.BPF_MAP_TYPE_HASH, 8, 48, 16),
    2: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 48, 2),
    3: Shape(T.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096),
    4: Shape(T.BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 4),
    5: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1, BPF_F_RDONLY_PROG, True, b"%d %s"),
    6: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1, BPF_F_WRONLY_PROG),
    7: Shape(T.BPF_MAP_TYPE_PERCPU_ARRAY, 4, 16, 1),
    9: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1),
    10: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 16, 1, BPF_F_RDONLY_PROG, True, b"x" * 16),
    12: Shape(T.BPF_MAP_TYPE_ARRAY_OF_MAPS, 4, 4, 2, inner=9),
    13: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 24, 2, btf_value_type_id=IDS["locked"]),
    14: Shape(T.BPF_MAP_TYPE_USER_RINGBUF, 0, 0, 4096),
    15: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 24, 2, btf_value_type_id=IDS["timed"]),
    16: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 16, 2, btf_value_type_id=IDS["owner"]),
    17: Shape(T.BPF_MAP_TYPE_ARRAY, 4, 40, 1, btf_value_type_id=IDS["roots"]),
    18: Shape(T.BPF_MAP_TYPE_LRU_HASH, 8, 48, 256),
}
ARRAYS = (2, 6, 7, 9)
"""Those whose values are compared after a run, beside those of HASHES."""
HASHES = (1, 18)
"""The maps with keys of eight bytes and values of 48; the latter has room for more than any program adds."""

Memory = dict[str, bytes]
"""Contents after a run: "fd[key]" to value, "ring[n]" to record."""
