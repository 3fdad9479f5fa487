"""Typed native records: one declaration is a NumPy dtype, a type for mypy, a view for Python and a pointer type for numba.

    class VSlot(Record):
        slot_type: Array[u8] = array(8)
        reg: VReg                       # a record within the record
        owner: Pointer[VFrame]          # the address of one
        insns: Pointer[Array[VInsn]]    # the address of the first of several

`VSlot.layout.dtype` has the fields in the order of their declaration, without gaps. In native functions a parameter that is
annotated `slot: VSlot` is an address with fields: `slot.reg.type` loads, `slot.reg.type = x` stores, `slot.slot_type[7]` is an
item, `VSlot(address)` makes a typed pointer of a number and `int(slot)` a number of it, `if slot:` asks whether it is not null
(native/record_numba.py). In Python `VSlot(address)` is a view of the same bytes with the same fields.

Numbers are `int`: what is loaded is extended by the field's sign, what is stored loses its upper bits, as in C.

Must not know: numba, and what any record is for.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Generic, TypeVar, cast, get_args, get_origin, get_type_hints

import numpy as np

T = TypeVar("T")


@dataclass(frozen=True)
class Number:
    """A field that holds a number of `size` bytes."""

    size: int
    signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """In NumPy's words."""
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.size}")


@dataclass(frozen=True)
class Address:
    """A field that holds the address of a record, or of the first of several (`several`)."""

    record: type[Record] | Number
    several: bool
    dtype: ClassVar[np.dtype[Any]] = np.dtype("<i8")


@dataclass(frozen=True)
class Items:
    """A field that is `count` items in a row."""

    item: Number | Address | Inner
    count: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """In NumPy's words."""
        return np.dtype((self.item.dtype, (self.count,)))


@dataclass(frozen=True)
class Inner:
    """A field that is a record."""

    record: type[Record]

    @property
    def dtype(self) -> np.dtype[Any]:
        """In NumPy's words."""
        return self.record.layout.dtype


Kind = Number | Address | Items | Inner

u8 = Annotated[int, Number(1, signed=False)]
u16 = Annotated[int, Number(2, signed=False)]
u32 = Annotated[int, Number(4, signed=False)]
u64 = Annotated[int, Number(8, signed=False)]
i8 = Annotated[int, Number(1, signed=True)]
i16 = Annotated[int, Number(2, signed=True)]
i32 = Annotated[int, Number(4, signed=True)]
i64 = Annotated[int, Number(8, signed=True)]
"""Numbers in a record. Native code computes with int64, so a u64 beyond its range arrives as the negative number of its bits."""

_POINTER = object()
Pointer = Annotated[T, _POINTER]
"""The address of a record, 0 for none."""


class Array(Generic[T]):
    """Items in a row, by number; nothing checks the number in native code."""

    def __init__(self, address: int, item: Number | Address | Inner, count: int | None) -> None:
        self._address, self._item, self._count = address, item, count

    def _at(self, number: int) -> int:
        if number < 0 or (self._count is not None and number >= self._count):
            raise IndexError(f"item {number} of {self._count}")
        return self._address + number * self._item.dtype.itemsize

    def __getitem__(self, number: int) -> T:
        """An item: a number, or the view of a record."""
        return cast(T, _read(self._at(number), self._item))

    def __setitem__(self, number: int, value: T) -> None:
        """Store an item that is a number or an address."""
        _write(self._at(number), self._item, value)

    def __int__(self) -> int:
        """The address of the first."""
        return self._address

    def __bool__(self) -> bool:
        """Whether there is an address."""
        return self._address != 0


def array(count: int) -> Any:
    """The value of an Array field's declaration: how many items it has."""
    return _Count(count)


@dataclass(frozen=True)
class _Count:
    count: int


class _Field:
    """A member of a record's view."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, view: Record | None, owner: type[Record]) -> Any:
        """Load it, or view it."""
        if view is None:
            return self
        field = owner.layout.fields[self.name]
        return _read(view.address + field.offset, field.kind)

    def __set__(self, view: Record, value: Any) -> None:
        """Store it."""
        field = type(view).layout.fields[self.name]
        _write(view.address + field.offset, field.kind, value)


@dataclass(frozen=True)
class Field:
    """Where a member stands and what it is."""

    name: str
    offset: int
    kind: Kind


class Offset(int):
    """Bytes before a member of a record, which it knows: the build notes which functions name it."""

    record: type[Record]
    name: str

    def __new__(cls, value: int, record: type[Record], name: str) -> Offset:
        """An int with a member's name."""
        offset = super().__new__(cls, value)
        offset.record, offset.name = record, name
        return offset


class Layout:
    """A record's members. Made at the first use, as declarations may name records that come later."""

    def __init__(self, record: type[Record]) -> None:
        self._record = record

    @cached_property
    def fields(self) -> dict[str, Field]:
        """By name, in the order of declaration. TypeError for a member that is no part of a record."""
        found: dict[str, Field] = {}
        offset = 0
        for name, hint in get_type_hints(self._record, include_extras=True).items():
            if get_origin(hint) is ClassVar or name.startswith("_") or name == "address":
                continue
            kind = _kind(hint, self._record._counts.get(name))
            if kind is None:
                raise TypeError(f"{self._record.__name__}.{name}: {hint} is no part of a record")
            found[name] = Field(name, offset, kind)
            offset += kind.dtype.itemsize
        return found

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """In NumPy's words."""
        return np.dtype([(field.name, field.kind.dtype) for field in self.fields.values()])

    def at(self, name: str) -> Offset:
        """Bytes before a member."""
        return Offset(self.fields[name].offset, self._record, name)

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return self.dtype.itemsize

    def packer(self, first: str) -> struct.Struct:
        """The members from `first` on as the tuple that they are in Python. TypeError for one that is no number."""
        names = list(self.fields)
        kinds = [self.fields[name].kind for name in names[names.index(first) :]]
        return struct.Struct("<" + "".join(_letter(kind) for kind in kinds))


def _letter(kind: Kind) -> str:
    """What `struct` calls a number."""
    if not isinstance(kind, Number):
        raise TypeError(f"{kind} is no number")
    letter = {1: "b", 2: "h", 4: "i", 8: "q"}[kind.size]
    return letter if kind.signed else letter.upper()


def _kind(hint: Any, count: _Count | None) -> Kind | None:
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        for mark in marks:
            if isinstance(mark, Number):
                return mark
            if mark is _POINTER:
                several = get_origin(inner) is Array
                target = _kind(get_args(inner)[0], None) if several else _kind(inner, None)
                if isinstance(target, Inner):
                    return Address(target.record, several)
                return Address(target, several) if isinstance(target, Number) and several else None
        return None
    if get_origin(hint) is Array and count is not None:
        item = _kind(get_args(hint)[0], None)
        return Items(item, count.count) if isinstance(item, (Number, Address, Inner)) else None
    return Inner(hint) if isinstance(hint, type) and issubclass(hint, Record) else None


def _read(address: int, kind: Kind) -> Any:
    if isinstance(kind, Number):
        return int.from_bytes(ctypes.string_at(address, kind.size), "little", signed=kind.signed)
    if isinstance(kind, Inner):
        return kind.record(address)
    if isinstance(kind, Items):
        return Array(address, kind.item, kind.count)
    target = ctypes.c_int64.from_address(address).value
    if isinstance(kind.record, Number):
        return Array(target, kind.record, None)
    return Array(target, Inner(kind.record), None) if kind.several else kind.record(target)


def _write(address: int, kind: Kind, value: Any) -> None:
    if isinstance(kind, (Inner, Items)):
        raise TypeError("a record within a record is written member by member")
    size = kind.dtype.itemsize
    ctypes.memmove(address, (int(value) & ((1 << (8 * size)) - 1)).to_bytes(size, "little"), size)


class Record:
    """A native record: subclasses declare its members. An instance is a view of the bytes at an address.

    A null pointer is a view at address 0, which is false; reading through it crashes, as it does in C.
    """

    layout: ClassVar[Layout]
    _counts: ClassVar[dict[str, _Count]]

    def __init__(self, address: int) -> None:
        self.address = int(address)

    def __init_subclass__(cls) -> None:
        """Note the declaration; its types are looked up when they are needed."""
        cls._counts = {name: value for name, value in vars(cls).items() if isinstance(value, _Count)}
        cls.layout = Layout(cls)
        for name in vars(cls).get("__annotations__", {}):
            if not name.startswith("_"):  # no member may be called `layout` or `address`
                setattr(cls, name, _Field(name))

    def __int__(self) -> int:
        """The address."""
        return self.address

    def __bool__(self) -> bool:
        """Whether it is not null."""
        return self.address != 0

    def __eq__(self, other: object) -> bool:
        """The same place."""
        return isinstance(other, Record) and type(other) is type(self) and other.address == self.address

    def __hash__(self) -> int:
        return hash((type(self), self.address))

    def __repr__(self) -> str:
        members = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.layout.fields) if self else "null"
        return f"{type(self).__name__}({members})"
