"""ObjectMap: a map of an object, as it will be created while the object is only open, and as it is once it is loaded.

Kernel counterpart: tools/lib/bpf/libbpf.c (struct bpf_map, bpf_map__set_*, bpf_map__reuse_fd).
"""

from __future__ import annotations

import copy
import errno
from typing import TYPE_CHECKING, Any

from fastrtp.errors import BpfError, ObjectError
from fastrtp.kernel.loader.map_elements import MapElements
from fastrtp.obj import MapSpec
from fastrtp.obj.types_fixup import resize_datasec
from fastrtp.shown import Shown
from fastrtp.uapi import BpfMapType

if TYPE_CHECKING:
    from fastrtp.btf import Btf
    from fastrtp.kernel.objects.bpf_map import BpfMap
    from fastrtp.kernel.process import Process
    from fastrtp.obj import ObjectSpec

_MOST = (1 << 32) - 1


class _Setting:
    """A number of a map that can be set until the map is created."""

    def __init__(self, doc: str) -> None:
        self.__doc__ = doc

    def __set_name__(self, owner: type[ObjectMap], name: str) -> None:
        self._name = name

    def __get__(self, held: ObjectMap, owner: type[ObjectMap]) -> Any:
        return self if held is None else getattr(held.spec, self._name)

    def __set__(self, held: ObjectMap, value: int) -> None:
        held.set(self._name, value)


class ObjectMap(MapElements, Shown):
    """A map of an object. `fd`: its descriptor, -1 while there is none; `map`: its contents (fastrtp.maps.Map).

    Loaded, it is a mapping whose keys and values are typed by BTF: `m[5]`, `5 in m`, `len(m)`, `m.frame()` (`MapElements`).

    Until the object is loaded, what it will be created with can be set; `autocreate` False leaves it out, `pin_path` pins it, or
    takes the map that is pinned there.
    """

    max_entries = _Setting("How many elements it has room for; bytes of a ring buffer.")
    key_size = _Setting("Bytes of a key.")
    map_flags = _Setting("BPF_F_*.")
    numa_node = _Setting("Its node, with BPF_F_NUMA_NODE.")
    map_extra = _Setting("What a map type makes of it.")

    def __init__(self, process: Process, spec: MapSpec, obj: ObjectSpec) -> None:
        self._process = process
        self._obj = obj
        self.spec = spec
        self.name = spec.name
        self.fd = -1
        self._bpf_map: BpfMap | None = None
        self._autocreate = True
        self._pin_path = ""
        self.reused_fd = -1
        """Descriptor of the map that stands for this one."""
        self.written: set[str] = set()
        """Variables that were set by name."""

    def __repr__(self) -> str:
        kind = self.map_type.name.removeprefix("BPF_MAP_TYPE_").lower()
        if self._bpf_map is None:
            return f"<ObjectMap {self.name} {kind}, not created>"
        if self._bpf_map.is_released:
            return f"<ObjectMap {self.name} {kind}, gone>"
        held = f"{len(self):,} of {self.max_entries:,} entries" if hasattr(self.map, "__len__") else f"{self.max_entries:,}"
        return f"<ObjectMap {self.name} {kind}, {held}>"

    # before it is created

    def _changeable(self) -> None:
        if self.fd >= 0:
            raise BpfError(errno.EBUSY, f"EBUSY: map {self.name} is created: it is set up between open and load")

    def set(self, field: str, value: int) -> None:
        """Set a number that the map will be created with. BpfError EBUSY once it is; ObjectError for what is no such number."""
        self._changeable()
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
            raise ObjectError(f"map {self.name}: {field} is a number from 0 to {_MOST}, not {value!r}")
        setattr(self.spec, field, int(value))

    @property
    def map_type(self) -> BpfMapType:
        """Its type; may be set by number or by name: "lru_hash"."""
        return BpfMapType(self.spec.map_type)

    @map_type.setter
    def map_type(self, value: int | str) -> None:
        if isinstance(value, str):
            name = value.upper() if value.upper().startswith("BPF_MAP_TYPE_") else f"BPF_MAP_TYPE_{value.upper()}"
            if name not in BpfMapType.__members__:
                names = ", ".join(one.removeprefix("BPF_MAP_TYPE_").lower() for one in BpfMapType.__members__)
                raise ObjectError(f"map {self.name}: no map type {value!r}, there are: {names}")
            value = BpfMapType[name]
        self.set("map_type", int(value))

    @property
    def value_size(self) -> int:
        """Bytes of a value. Of global data: the last variable, an array, becomes longer or shorter."""
        return self.spec.value_size

    @value_size.setter
    def value_size(self, value: int) -> None:
        self.set("value_size", value)
        if self.spec.initial is None:
            return
        self.spec.initial = self.spec.initial[:value].ljust(value, b"\0")
        resized = resize_datasec(self._obj.btf, self.spec.btf_value_type_id, value) if self._obj.btf is not None else None
        if resized is None:
            self.spec.btf_value_type_id = 0  # as libbpf: data whose types do not say how it grows is data without types
        else:
            self._obj.btf, self._obj.btf_bytes = resized, resized.data

    @property
    def inner(self) -> ObjectMap | None:
        """Of a map of maps: what its maps look like. Set up as any map, or set to a map of another object."""
        return ObjectMap(self._process, self.spec.inner, self._obj) if self.spec.inner is not None else None

    @inner.setter
    def inner(self, other: ObjectMap) -> None:
        self._changeable()
        self.spec.inner = _shape(other.spec, f"{self.name}.inner")

    @property
    def autocreate(self) -> bool:
        """Whether loading the object creates it; programs that reach a use of a map that is not there are refused."""
        return self._autocreate

    @autocreate.setter
    def autocreate(self, value: bool) -> None:
        self._changeable()
        self._autocreate = bool(value)

    @property
    def pin_path(self) -> str:
        """Where it is pinned, "" for nowhere. A map that is there already, of the same shape, is taken."""
        return self._pin_path

    @pin_path.setter
    def pin_path(self, value: str | None) -> None:
        self._changeable()
        self._pin_path = value or ""

    def reuse(self, other: ObjectMap | int) -> None:
        """Let a map of another object, or a descriptor, stand for this one. BpfError EBADF, EINVAL for no map, EBUSY."""
        self._changeable()
        fd = other if isinstance(other, int) else other.fd
        found = self._process.files.fget(fd).private_data
        from fastrtp.kernel.objects.bpf_map import BpfMap

        if not isinstance(found, BpfMap):
            raise BpfError(errno.EINVAL, f"EINVAL: file descriptor {fd} is no map")
        if self.reused_fd >= 0:
            self._process.close(self.reused_fd)
        self.reused_fd = self._process.files.dup(fd)
        for field in ("map_type", "key_size", "value_size", "max_entries", "map_flags", "map_extra"):
            setattr(self.spec, field, int(getattr(found.map, field)))

    # once it is created

    def created(self, fd: int) -> None:
        """The map behind a descriptor is this one."""
        self.fd = fd
        self._bpf_map = self._process.files.fget(fd).private_data

    @property
    def bpf_map(self) -> BpfMap:
        """The kernel's object. ObjectError before the object is loaded, and when it is gone."""
        if self._bpf_map is None:
            raise ObjectError(f"map {self.name} is not created yet: load the object")
        if self._bpf_map.is_released:
            raise ObjectError(f"map {self.name} is gone: its object was closed, or its kernel shut down")
        return self._bpf_map

    @property
    def map(self) -> Any:
        """The contents. ObjectError before the object is loaded."""
        return self.bpf_map.map

    @property
    def object_btf(self) -> Btf | None:
        """The object's types."""
        return self._obj.btf

    def read_value(self, offset: int, size: int) -> bytes:
        """Bytes of the first value: of what it will be, or of what it is."""
        if self._bpf_map is None:
            return (self.spec.initial or b"")[offset : offset + size]
        with self.map.turn():
            return bytes(self.map.values()[0, offset : offset + size])

    def write_value(self, offset: int, data: bytes) -> None:
        """Write into the first value. BpfError EPERM when it is frozen."""
        if self._bpf_map is None:
            contents = bytearray(self.spec.initial or b"")
            contents[offset : offset + len(data)] = data
            self.spec.initial = bytes(contents)
            return
        if self.map.frozen:
            raise BpfError(errno.EPERM, f"EPERM: map {self.name} is frozen: set its variables between open and load")
        with self.map.turn():
            self.map.values()[0, offset : offset + len(data)] = list(data)

    def lookup(self, key: bytes, flags: int = 0) -> bytes:
        """The value. BpfError ENOENT."""
        return self._process.map_lookup_elem(self.fd, key, flags)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Set the value. BpfError."""
        self._process.map_update_elem(self.fd, key, value, flags)

    def delete(self, key: bytes) -> None:
        """Remove the key. BpfError ENOENT."""
        self._process.map_delete_elem(self.fd, key)


class ObjectMaps(dict[str, ObjectMap]):
    """Maps by name; global data also by its section, as libbpf has it: maps[".rodata"]."""

    def __missing__(self, name: str) -> ObjectMap:
        found = [held for held in self.values() if name.startswith(".") and held.name.endswith(name)]
        if len(found) == 1:
            return found[0]
        raise KeyError(name)


def _shape(spec: MapSpec, name: str) -> MapSpec:
    """What a map of that shape is created from, empty."""
    shape = copy.deepcopy(spec)
    shape.name, shape.initial, shape.frozen, shape.pinning, shape.values = name, None, False, 0, {}
    return shape
