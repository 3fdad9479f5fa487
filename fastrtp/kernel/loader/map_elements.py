"""What is in a map, as Python has it: a mapping with keys and values typed by BTF, a frame, arrays; records of rings.

Everything goes through the system call's operations, or copies what is there at one moment. Must not know: how maps are made.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from fastrtp.btf.encode import encode, members_by_name
from fastrtp.btf.types import COMPOSITES, BtfKind
from fastrtp.errors import BpfError, ObjectError
from fastrtp.maps.base import round_up

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]
    import pyarrow as pa

    from fastrtp.btf import Btf
    from fastrtp.kernel.process import Process
    from fastrtp.replay.tables import MapTable

_PERF_HEADER = 4
"""Bytes before a sample; with them it is padded to whole words. Kernel: kernel/events/core.c:perf_prepare_sample"""


class MapElements:
    """Mixed into ObjectMap, which has `map`, `fd`, `name`, `object_btf`.

    Keys and values are typed by the map's BTF: numbers, text for arrays of char, lists, dicts for structs (a struct may also be
    given as a tuple of its members), enumerators by name. Bytes are taken as they are. A per-CPU map's values are lists, one
    value for each CPU.

    >>> runqlat = obj.maps["runqlat"]
    >>> runqlat[125]["count"], 125 in runqlat, 5 in runqlat, len(runqlat)
    (829, True, False, 33)
    >>> obj.maps["enqueued"][7] = 1_000_000
    >>> obj.maps["enqueued"].get(7), obj.maps["enqueued"].get(8)
    (1000000, None)
    """

    name: str
    fd: int
    _process: Process
    _untyped: Sequence[bytes] = ()
    """Records that were taken out of a ring for somebody who did not say what they are: the next one gets them."""

    @property
    def map(self) -> Any:
        """The contents. Overridden."""
        raise NotImplementedError

    @property
    def object_btf(self) -> Btf | None:
        """The object's types. Overridden."""
        raise NotImplementedError

    # a mapping

    def __getitem__(self, key: Any) -> Any:
        value = self._lookup(key)
        if value is None:
            raise KeyError(key)
        return self._decoded(value)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._process.map_update_elem(self.fd, self._key(key), self._value(value))

    def __delitem__(self, key: Any) -> None:
        try:
            self._process.map_delete_elem(self.fd, self._key(key))
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise
            raise KeyError(key) from None

    def __contains__(self, key: Any) -> bool:
        return self._lookup(key) is not None

    def __iter__(self) -> Iterator[Any]:
        return self.keys()

    def __len__(self) -> int:
        return len(self.map)

    def __bool__(self) -> bool:
        return True

    def get(self, key: Any, default: Any = None) -> Any:
        """The value of a key, `default` where it is not there."""
        value = self._lookup(key)
        return default if value is None else self._decoded(value)

    def keys(self) -> Iterator[Any]:
        """All keys, decoded by BTF."""
        return (key for key, _ in self.items())

    def values(self) -> Iterator[Any]:
        """All values, decoded by BTF."""
        return (value for _, value in self.items())

    def items(self) -> Iterator[tuple[Any, Any]]:
        """(key, value) decoded by BTF."""
        return iter(self.map.items())

    def raw_items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) as bytes; per-CPU: all CPUs' values, each rounded up to 8."""
        return iter(self.map.raw_items())

    # all of it at a time

    def table(self) -> MapTable:
        """Its rows as columns: see `fastrtp.replay.tables`."""
        from fastrtp.replay.tables import map_table

        return map_table(self.map, self.name)

    def arrow(self) -> pa.Table:
        """An Arrow table; struct members are columns, integers keep their widths."""
        return self.table().arrow()

    def frame(self, struct: str = "") -> pd.DataFrame:
        """A pandas DataFrame of what is in it: struct members are columns, integers keep their widths.

        A ring's records are consumed, and decoded by `struct`, one of the object's: see `records`.

        >>> obj.maps["runqlat"].frame().set_index("key").loc[125, "count"]
        np.uint64(829)
        """
        if self._consume is None:
            return self.arrow().to_pandas()
        from fastrtp.replay.tables import record_table

        records, btf, type_id = self._taken(struct)
        return record_table(self.name, self.map.map_type, records, btf, type_id).arrow().to_pandas()

    def numpy(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """(keys, values) as arrays, structured where the types are structs; a per-CPU map's values have a row for each key and a
        column for each CPU. BtfError for bitfields.

        >>> keys, values = obj.maps["runqlat"].numpy()
        >>> values["slots"].sum() == values["count"].sum(), values["slots"].shape
        (np.True_, (33, 32))
        """
        import numpy as np

        from fastrtp.btf.dtype import numpy_dtype

        def dtype(type_id: int, size: int) -> np.dtype[Any]:
            btf = self.map.btf
            if btf is not None and type_id:
                return numpy_dtype(btf, type_id)
            return np.dtype(f"<u{size}") if size in (1, 2, 4, 8) else np.dtype(f"V{size}")

        keys, values = self.map.arrays()
        key_type, value_type = (dtype(one, size) for one, size in (
            (self.map.btf_key_type_id, self.map.key_size), (self.map.btf_value_type_id, self.map.value_size)
        ))  # fmt: skip
        if self.map.percpu:
            values = values.reshape(len(values), -1, round_up(self.map.value_size, 8))
        values = values[..., : self.map.value_size]
        plain = np.ascontiguousarray(keys).view(key_type).reshape(len(keys))
        shaped: np.ndarray[Any, Any] = np.ascontiguousarray(values)
        base = value_type.base
        rest = value_type.shape
        return plain, shaped.view(base).reshape(*values.shape[:-1], *rest)

    # rings

    def consume(self) -> Iterator[bytes]:
        """Records of a ring buffer, or samples of a perf event array, as bytes; consumed."""
        consume = self._consume
        if consume is None:
            raise TypeError(f"map {self.name} is a {self.map.map_type.name}: only rings have records to consume")
        waiting, self._untyped = self._untyped, []
        return chain(waiting, consume())

    def records(self, struct: str = "") -> Iterator[Any]:
        """A ring's records, decoded by `struct`, consumed.

        `struct`: one of the object's structs, by name. Without it: the only one of the object's own that is as long as the
        records; ObjectError where there is none or several.
        """
        records, btf, type_id = self._taken(struct)
        return (btf.decode(type_id, record) for record in records)

    def _taken(self, struct: str) -> tuple[list[bytes], Btf, int]:
        """What the ring held, and its type; where that is not known nothing is taken."""
        waiting = list(self.consume())
        self._untyped = waiting
        btf, type_id = self._record_type(struct, waiting)
        self._untyped = []
        return waiting, btf, type_id

    @property
    def _consume(self) -> Any:
        return getattr(self.map, "consume", None)

    def _record_type(self, struct: str, records: list[bytes]) -> tuple[Btf, int]:
        """The type that records are of. ObjectError."""
        btf = self.object_btf
        if btf is None:
            raise ObjectError(f"map {self.name}: the object has no types to decode records with: consume() gives them as bytes")
        if struct:
            found = btf.find(struct.removeprefix("struct "), BtfKind.STRUCT)
            if found is None:
                there = _names(btf, self._own(btf))
                raise ObjectError(f"map {self.name}: the object has no struct {struct!r}, there are: {there}")
            return btf, found
        own = self._own(btf)
        sizes = {len(record) for record in records}
        fitting = [number for number in own if all(self._fits(size, btf.sizeof(number)) for size in sizes)]
        if len(fitting) == 1 and sizes:
            return btf, fitting[0]
        if not sizes and len(own) == 1:
            return btf, own[0]
        lengths = ", ".join(map(str, sorted(sizes))) or "no"
        names = _names(btf, fitting or own)
        raise ObjectError(f"map {self.name}: records of {lengths} bytes may be of several structs: name one of {names}"
                          if len(fitting) != 0 or not sizes else
                          f"map {self.name}: none of the object's structs has {lengths} bytes: {names}; a struct that only local "
                          "variables have is in no object's types until something with a name has it, "
                          "as `const struct event *unused __attribute__((unused));`")  # fmt: skip

    def _own(self, btf: Btf) -> list[int]:
        """Structs that the object defines itself: those that the kernel does not have, and that are no map's definition."""
        kernel = self._process.kernel.btf
        return [
            record.id
            for record in btf
            if record.kind == BtfKind.STRUCT and record.name and record.size and "___" not in record.name
            and kernel.find(record.name, BtfKind.STRUCT) is None
        ]  # fmt: skip

    def _fits(self, length: int, size: int) -> bool:
        """Whether a record of a length may hold a struct of a size: perf pads its samples."""
        padded = round_up(size + _PERF_HEADER, 8) - _PERF_HEADER
        return length in (size, padded) if "PERF" in self.map.map_type.name else length == size

    # bytes

    def _lookup(self, key: Any) -> bytes | None:
        try:
            return self._process.map_lookup_elem(self.fd, self._key(key))
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    def _key(self, key: Any) -> bytes:
        return self._encoded(key, self.map.btf_key_type_id, self.map.key_size, "key")

    def _value(self, value: Any) -> bytes:
        contents = self.map
        if not contents.percpu or isinstance(value, bytes | bytearray):
            return self._encoded(value, contents.btf_value_type_id, contents.value_size, "value")
        cpus = contents.memory.cpus
        if isinstance(value, str | Mapping) or not hasattr(value, "__len__") or len(value) != cpus:
            raise ObjectError(f"{self.name}: its values are lists of {cpus}, one for each CPU, not {value!r}")
        step = round_up(contents.value_size, 8)
        type_id, size = contents.btf_value_type_id, contents.value_size
        cells = (self._encoded(one, type_id, size, f"value[{cpu}]") for cpu, one in enumerate(value))
        return b"".join(cell.ljust(step, b"\0") for cell in cells)

    def _encoded(self, value: Any, type_id: int, size: int, what: str) -> bytes:
        """A key or a value as bytes, by its type. ObjectError."""
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        btf = self.map.btf
        place = f"{self.name}'s {what}"
        if btf is None or not type_id:
            if isinstance(value, int) and 0 <= value < 1 << 8 * size:
                return value.to_bytes(size, "little")
            raise ObjectError(f"{place} has {size} bytes and no type: give a number, or bytes, not {value!r}")
        record = btf.type(btf.strip(type_id))
        if record.kind in COMPOSITES and isinstance(value, tuple | list):
            names = [member.name for member, _ in members_by_name(btf, record)]
            if len(value) != len(names):
                raise ObjectError(f"{place} has the members {', '.join(names)}, not {len(value)}")
            value = dict(zip(names, value, strict=True))
        return encode(btf, type_id, value, place)

    def _decoded(self, value: bytes) -> Any:
        contents = self.map
        if not contents.percpu:
            return contents.decode_value(value)
        step = round_up(contents.value_size, 8)
        return [contents.decode_value(value[at : at + contents.value_size]) for at in range(0, len(value), step)]


def _names(btf: Btf, numbers: list[int]) -> str:
    return ", ".join(btf.type(number).name for number in numbers) or "none"
