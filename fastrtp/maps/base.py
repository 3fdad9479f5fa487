"""Map: the Python side of a `struct bpf_map`: its descriptor in native memory, and the system call's operations on it.

Keys and values are bytes here; `items()` decodes them by the map's BTF, `arrays()` shows them as NumPy arrays.
Every operation takes its turn with the programs (native/machine_native.py), so it is safe while a replay runs.

Must not know: file descriptors, programs, the verifier.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from fastrtp.errors import BpfError
from fastrtp.maps.attr import MapAttr
from fastrtp.maps.fields import FieldKind, FieldRow
from fastrtp.maps.ops import MapOps, NativeCall
from fastrtp.maps.records import MapRecord
from fastrtp.native.memory import Memory
from fastrtp.shown import Shown
from fastrtp.uapi import BPF_EXIST, BPF_F_LOCK, BpfMapType

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def round_up(size: int, to: int) -> int:
    """The next multiple of `to`."""
    return -(-size // to) * to


class Map(Shown):
    """One map. `address`: its native descriptor; `value_size_user`: bytes of a value as system calls see it.

    `TYPES`: the map types that a class is for, each with its row; `ops`: the map's own row.
    """

    TYPES: ClassVar[Mapping[BpfMapType, MapOps]] = {}

    def __init__(self, attr: MapAttr, memory: Memory) -> None:
        self.attr = attr
        self.memory = memory
        self.map_type = BpfMapType(attr.map_type)
        self.key_size = attr.key_size
        self.value_size = attr.value_size
        self.max_entries = attr.max_entries
        self.map_flags = attr.map_flags
        self.name = attr.map_name
        self.btf = attr.btf
        self.btf_key_type_id = attr.btf_key_type_id
        self.btf_value_type_id = attr.btf_value_type_id
        self.map_extra = attr.map_extra
        self.inner_map = attr.inner_map
        self.id = 0
        self.fields: tuple[FieldRow, ...] = ()
        self.frozen = False
        self.ops = self.TYPES[self.map_type]
        self.percpu = self.ops.percpu
        self.value_size_user = round_up(attr.value_size, 8) * memory.cpus if self.percpu else attr.value_size
        self.value_address = 0
        self._allocations: list[int] = []
        self._lock = threading.Lock()
        try:
            self.address = self._alloc(MapRecord.layout.size)
            self.record = memory.arena.view(self.address, MapRecord.layout.size).view(MapRecord.layout.dtype)
            for field in ("map_type", "key_size", "value_size", "max_entries", "map_flags"):
                self.record[field] = getattr(attr, field)
            self.record["cpus"] = memory.cpus
            self.record["machine"] = memory.machine_address
            self.record["uref"] = 1
            self._create()
            room = max(self.key_size, 8) + 2 * max(self.value_size_user, 8)
            self._buffer = ctypes.create_string_buffer(round_up(self.key_size, 8) + room + 32)
        except MemoryError as error:
            self.close()
            raise BpfError(errno.ENOMEM, f"map {self.name!r}: {error}") from error
        start = round_up(ctypes.addressof(self._buffer), 8)
        self._key_address = start
        self._value_address = start + round_up(max(self.key_size, 8), 8)

    def set_fields(self, fields: Sequence[FieldRow]) -> None:
        """The values hold these special fields: only helpers touch them, and what they hold goes with the value."""
        self.fields = tuple(sorted(fields))
        if not fields:
            return
        address = self._alloc(8 + 8 * len(fields))
        rows = [field.row for field in self.fields]
        self.memory.arena.view(address, 8 + 8 * len(rows)).view(np.int64)[:] = [len(rows), *rows]
        self.record["fields"] = address

    @property
    def has_lock(self) -> bool:
        """Whether the values hold a bpf_spin_lock: BPF_F_LOCK is allowed."""
        return any(field.kind == FieldKind.LOCK for field in self.fields)

    def release_uref(self) -> None:
        """User space lets go of the map: its timers end. Kernel: map_release_uref"""
        self.record["uref"] = 0
        if self.fields:
            self.memory.lib.map_free_fields(self.memory.machine_address, self.address, 1)

    def hide_fields(self, values: Bytes) -> Bytes:
        """Copied values (bytes in the last axis) without what special fields hold."""
        step = round_up(self.value_size, 8)
        for field in self.fields:
            for start in range(field.offset, values.shape[-1], step):
                values[..., start : start + field.kind.size] = 0
        return values

    def native_call(self, helper: str, *, value_held: bool = True) -> NativeCall | None:
        """The native function for a program's call of a helper on this map, with its sizes as constants.

        None where the form that reads them from the descriptor has to do. `value_held`: the program may hold an address in a
        value of the map over the call. Kernel: map_gen_lookup
        """
        return None

    def _create(self) -> None:
        """Allocate the family's memory and fill in its part of the descriptor."""
        raise NotImplementedError

    def _alloc(self, size: int) -> int:
        address = self.memory.arena.alloc(size)
        self._allocations.append(address)
        return address

    def _record(self, dtype: np.dtype[Any], count: int) -> tuple[int, np.ndarray[Any, np.dtype[Any]]]:
        address = self._alloc(dtype.itemsize * count)
        return address, self.memory.arena.view(address, dtype.itemsize * count).view(dtype)

    def close(self) -> None:
        """Free the map's memory. No program that knows its address may run again."""
        if self.fields:
            self.memory.lib.map_free_fields(self.memory.machine_address, self.address, 0)
            self.fields = ()
        for address in self._allocations:
            self.memory.arena.free(address)
        self._allocations.clear()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} key {self.key_size} value {self.value_size} max_entries {self.max_entries}>"

    # The system call's operations. Kernel: kernel/bpf/syscall.c:map_lookup_elem and its neighbours.

    def lookup_elem(self, key: bytes, flags: int = 0) -> bytes:
        """The value (per-CPU: all CPUs', each rounded up to 8). ENOENT without the key."""
        self._check_lock_flag(flags)
        with self._lock:
            self._put_key(key)
            self._check(
                self.memory.lib.map_lookup(self.memory.machine_address, self.address, self._key_address, self._value_address)
            )
            return ctypes.string_at(self._value_address, self.value_size_user)

    def update_elem(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value. EINVAL for unknown flags, EEXIST and ENOENT by BPF_NOEXIST and BPF_EXIST, E2BIG when full."""
        self._check_lock_flag(flags)
        if flags & ~BPF_F_LOCK > BPF_EXIST:
            raise BpfError(errno.EINVAL, f"unknown update flags {flags:#x}")
        with self._lock:
            self._put_key(key)
            self._put_value(value)
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.map_update(machine, self.address, self._key_address, self._value_address, flags))

    def delete_elem(self, key: bytes) -> None:
        """Remove the key. ENOENT without it; EINVAL where the kind has no deletion."""
        raise BpfError(errno.EINVAL, f"{self.map_type.name} elements cannot be deleted")

    def lookup_and_delete_elem(self, key: bytes, flags: int = 0) -> bytes:
        """The value, which is gone afterwards. ENOTSUPP where the kind has no such operation."""
        raise BpfError(524, f"{self.map_type.name} has no lookup and delete")

    def get_next_key(self, key: bytes | None) -> bytes:
        """The key after `key` (None, or one that is not there: the first). ENOENT after the last."""
        with self._lock:
            if key is not None:
                self._put_key(key)
            address = self._key_address if key is not None else 0
            lib, machine = self.memory.lib, self.memory.machine_address
            self._check(lib.map_next_key(machine, self.address, address, self._value_address))
            return ctypes.string_at(self._value_address, self.key_size)

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) as bytes, in the map's order, as of now (per-CPU: all CPUs' values, each rounded up to 8)."""
        keys, values = self.arrays()
        for key, value in zip(keys, values, strict=True):
            yield key.tobytes(), value.tobytes()

    def items(self) -> Iterator[tuple[Any, Any]]:
        """(key, value) decoded by the map's BTF: int, str, list, dict; bytes where it has none. Per-CPU: a list of values."""
        step = round_up(self.value_size, 8)
        for key, value in self.raw_items():
            decoded: Any
            if self.percpu:
                decoded = [self.decode_value(value[at : at + self.value_size]) for at in range(0, len(value), step)]
            else:
                decoded = self.decode_value(value)
            yield self.decode_key(key), decoded

    def arrays(self) -> tuple[Bytes, Bytes]:
        """Copies of all (keys, values) at one moment: uint8[n, key_size] and uint8[n, value_size_user]."""
        raise BpfError(524, f"{self.map_type.name} has no elements to list")

    def decode_key(self, key: bytes) -> Any:
        """A key as Python values, by BTF."""
        return self._decode(self.btf_key_type_id, key)

    def decode_value(self, value: bytes) -> Any:
        """One value as Python values, by BTF."""
        return self._decode(self.btf_value_type_id, value)

    def read_value(self, offset: int, size: int) -> bytes:
        """Bytes of an array's values from `offset` of value 0 on: what the verifier folds from frozen maps."""
        raise BpfError(errno.EINVAL, f"{self.map_type.name} values have no fixed address")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold programs off while native memory is read or written from Python."""
        self.memory.lib.machine_enter(self.memory.machine_address)
        try:
            yield
        finally:
            self.memory.lib.machine_leave(self.memory.machine_address)

    def _decode(self, type_id: int, data: bytes) -> Any:
        if self.btf is None or type_id == 0:
            return int.from_bytes(data, "little") if len(data) in (1, 2, 4, 8) else data
        return self.btf.decode(type_id, data)

    def _put_key(self, key: bytes) -> None:
        if len(key) != self.key_size:
            raise BpfError(errno.EINVAL, f"map {self.name!r} has {self.key_size}-byte keys, not {len(key)}")
        ctypes.memmove(self._key_address, key, len(key))

    def _put_value(self, value: bytes) -> None:
        if len(value) != self.value_size_user:
            raise BpfError(errno.EINVAL, f"map {self.name!r} has {self.value_size_user}-byte values, not {len(value)}")
        ctypes.memmove(self._value_address, value, len(value))

    def _check_lock_flag(self, flags: int) -> None:
        if flags & BPF_F_LOCK and not self.has_lock:
            raise BpfError(errno.EINVAL, f"map {self.name!r} has no bpf_spin_lock in its values")

    @staticmethod
    def _check(status: int) -> None:
        if status < 0:
            raise BpfError(-status)
