"""ArgumentBinder: the arguments of one event type, matched with its prototype and turned into columns and stores."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fastrtp.btf import Field, ProtoArg, TracepointProto
from fastrtp.errors import BtfError
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable
from fastrtp.record.recipes import (
    Argument,
    Current,
    CurrentKey,
    Derived,
    Key,
    Missing,
    Obj,
    PerCpu,
    Pid,
    Raw,
    Recipe,
    Scalar,
    Source,
    Text,
)  # fmt: skip
from fastrtp.record.recipes.match import match_arguments, pointer_target

from .identities import TaskIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAULT_ADDRESS = 0xDEAD_0000_0000_0000
"""Given for a pointer that must not be readable: not canonical, so outside every arena."""
UNKNOWN_SIZE = 4096
"""Zero bytes behind a pointer to something that has no size in the BTF."""

_ELEMENT = re.compile(r"^(\w+)\[(\d+)\]$")
Column: TypeAlias = "NDArray[Any]"
Store: TypeAlias = "tuple[int, Any, int, Column | None, int, int]"


class Told(NamedTuple):
    """A member that the record tells of: bytes [off, end) of every object of a type that it names.

    `arg`: the argument that leads to the object, -1 for one that is not passed. `how`: "exact" or "derived"; `source`: the
    recorded fields, or the rule.
    """

    arg: int
    type_name: str
    path: str
    off: int
    end: int
    how: str
    source: str


class ArgumentBinder:
    """Works on one table. `stores`, `missing` (argument, member, why) and `told` collect what binding finds."""

    def __init__(self, table: EventTable, number: int, index: TaskIndex, objects: ObjectSpace, zero: bool) -> None:
        self.table = table
        self.number = number
        self.index = index
        self.objects = objects
        self.zero = zero
        self.stores: list[Store] = []
        self.missing: list[tuple[int, str, str]] = []
        self.told: list[Told] = []
        self.args: dict[int, tuple[str, str]] = {}
        self._position = -1

    # matching

    def match(self, proto: TracepointProto, recipe: Recipe | None) -> list[Argument | None]:
        """For each argument of the prototype what the recipe or the format has for it, None where there is nothing."""
        return match_arguments(self.objects.btf, proto, recipe, self.table.fmt)

    # arguments

    def argument(self, position: int, arg: ProtoArg, plan: Argument | None) -> tuple[Column | None, int]:
        """(column, constant) of one argument; its stores are added to `stores`."""
        self._position = position
        try:
            if isinstance(plan, Scalar):
                found = self._scalar(plan.source, integers=True)
                self.args[position] = self._how(plan.source, arg.size)
                return found
            if isinstance(plan, Raw):
                self.args[position] = "address", plan.field
                return self._integer(plan.field), 0
            if isinstance(plan, Text):
                self.args[position] = "text", plan.field
                return self._text(plan.field), 0
            if isinstance(plan, Obj):
                column = self._object(plan, position)[0]
                self.args[position] = "object", _identity(plan)
                return column, 0
        except (BtfError, LookupError) as error:
            return self._unknown(position, arg, _reason(error))
        if isinstance(plan, Missing):
            return self._unknown(position, arg, plan.why)
        return self._unknown(position, arg, "no recipe says what it was" if arg.is_pointer else "no recorded field has its name")

    def describe(self, item: Obj) -> None:
        """Stores to an object that is no argument. What the format or the BTF lacks is left out."""
        self._position = -1
        try:
            self._object(item, -1)
        except (BtfError, LookupError) as error:
            self.missing.append((-1, item.type_name, _reason(error)))

    def _unknown(self, position: int, arg: ProtoArg, why: str) -> tuple[None, int]:
        self.missing.append((position, "", why))
        if not arg.is_pointer:
            return None, 0
        if not self.zero:
            return None, FAULT_ADDRESS
        name = pointer_target(self.objects.btf, arg)
        try:
            size = max(self.objects.size(name), 8) if name else UNKNOWN_SIZE
        except BtfError:
            size = UNKNOWN_SIZE
        return None, self.objects.zeroed(size, name)

    def _scalar(self, source: Source, *, integers: bool = False) -> tuple[Column | None, int]:
        if isinstance(source, int):
            return None, source
        return (self._integer(source) if integers else self._column(source)), 0

    def _how(self, source: Source | Obj | Text, size: int) -> tuple[str, str]:
        """("exact", the field) or ("derived", by which rule) of what fills `size` bytes."""
        if isinstance(source, Text):
            return "exact", source.field
        if isinstance(source, Obj):
            return "exact", _identity(source)
        if isinstance(source, int):
            return "derived", f"always {source}"
        if isinstance(source, Derived):
            return "derived", f"computed from {', '.join(source.fields)}"
        recorded = self.table.fields[source].dtype.itemsize if source in self.table.fields else size
        if recorded < size and size in (1, 2, 4, 8):
            return "derived", f"{source}, recorded in {recorded} of {size} bytes"
        return "exact", source

    def _column(self, source: str | Derived) -> Column:
        """The recorded column of a source. LookupError with the reason where the format does not have it."""
        if isinstance(source, Derived):
            for name in source.fields:
                self._integer(name)
            return np.ascontiguousarray(source.compute(self.table))
        element = _ELEMENT.match(source)
        name = element[1] if element else source
        if name not in self.table.fields:
            raise LookupError(f"the format of {self.table.name} has no field {name!r}")
        column = self.table.strings(name) if self.table.has_strings(name) else self.table.fields[name]
        if element:
            if column.ndim != 2 or int(element[2]) >= column.shape[1]:
                raise LookupError(f"field {name!r} of {self.table.name} has no element {element[2]}")
            column = column[:, int(element[2])]
        if column.ndim != 1 or column.dtype.kind not in "iuS":
            raise LookupError(f"field {source!r} of {self.table.name} is not one number or one string")
        return np.ascontiguousarray(column)

    def _integer(self, source: str | Derived) -> Column:
        column = self._column(source)
        if column.dtype.kind not in "iu":
            raise LookupError(f"field {source!r} of {self.table.name} is no integer")
        return column

    def _text(self, name: str) -> NDArray[np.uint64]:
        """Addresses of string objects with the recorded texts."""
        if name not in self.table.fields:
            raise LookupError(f"the format of {self.table.name} has no field {name!r}")
        if not self.table.has_strings(name):
            raise LookupError(f"field {name!r} of {self.table.name} is no string")
        unique, inverse = np.unique(self.table.strings(name), return_inverse=True)
        return self.objects.strings([bytes(text) for text in unique])[inverse]

    # objects

    def _object(self, item: Obj, position: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """(addresses as passed, addresses to store to) of an object in every row, with its stores added."""
        self.objects.type_id(item.type_name)
        passed = base = self._identify(item)
        if item.nullable and isinstance(item.by, Key):
            null = self._integer(item.by.fields[0]) == 0
            if null.any():
                passed = np.where(null, np.uint64(0), base)
        direct = position if passed is base else -1
        for path, source in item.members.items():
            try:
                spot = self._store(item, path, source, base, direct)
            except (BtfError, LookupError) as error:
                self.missing.append((self._position, path, _reason(error)))
                continue
            end = spot.offset_bytes + spot.size
            self.told.append(Told(self._position, item.type_name, path, spot.offset_bytes, end, *self._how(source, spot.size)))
        return passed, base

    def _store(self, item: Obj, path: str, source: Source | Obj | Text, base: NDArray[np.uint64], direct: int) -> Field:
        spot = self.objects.member(item.type_name, path)
        if spot.bitfield_size:
            raise BtfError(f"{item.type_name}.{path} is a bit-field")
        const = 0
        column: Column | None
        if isinstance(source, Obj):
            column = self._object(source, -1)[0]
        elif isinstance(source, Text):
            column = self._text(source.field)
        else:
            column, const = self._scalar(source)
        size = spot.size
        if column is not None and column.dtype.kind == "S":
            if size in (1, 2, 4, 8):
                raise LookupError(f"field {source!r} of {self.table.name} is a string, {item.type_name}.{path} an integer")
            column = np.ascontiguousarray(column, f"S{size}")
        elif size not in (1, 2, 4, 8):
            raise BtfError(f"{item.type_name}.{path} of {size} bytes is no integer")
        self.stores.append((direct, base if direct < 0 else None, spot.offset_bytes, column, size, const))
        return spot

    def _identify(self, item: Obj) -> NDArray[np.uint64]:
        by, index = item.by, self.index
        if isinstance(by, Current):
            return index.per_current(item.type_name, self.number, item.space)
        if isinstance(by, PerCpu):
            return index.per_cpu(item.type_name, self.number, item.space)
        if isinstance(by, Key):
            return index.keyed(item.type_name, item.space, *map(self._integer, by.fields))
        if isinstance(by, CurrentKey):
            return index.keyed(item.type_name, item.space, index.of_current(self.number), self._integer(by.field))
        tasks = index.of_pids(self._integer(by.field), index.cpu_of(self.number))
        if isinstance(by, Pid):
            return index.per_task(item.type_name, item.space)[tasks]
        return index.per_group(item.type_name, item.space)[tasks]


def _identity(item: Obj) -> str:
    """What makes an object the same again, in words."""
    by = item.by
    if isinstance(by, Key):
        return ", ".join(by.fields)
    if isinstance(by, (Current, PerCpu)):
        return "common_pid" if isinstance(by, Current) else "the event itself"
    return f"common_pid, {by.field}" if isinstance(by, CurrentKey) else by.field


def _reason(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)
