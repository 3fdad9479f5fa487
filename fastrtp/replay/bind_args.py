"""ArgumentBinder: the arguments of one event type, matched with its prototype and turned into columns and stores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from fastrtp.btf import Field, ProtoArg, TracepointProto
from fastrtp.errors import BtfError
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable
from fastrtp.record.recipes import (
    Argument,
    Bytes,
    Current,
    CurrentKey,
    Derived,
    Key,
    Missing,
    Obj,
    Part,
    PerCpu,
    Pid,
    Printk,
    Raw,
    Recipe,
    Scalar,
    Source,
    Text,
    Value,
    When,
    Whole,
    Within,
)  # fmt: skip
from fastrtp.record.recipes.known_types import SAME_AS
from fastrtp.record.recipes.match import match_arguments, pointer_target

from .identities import TaskIndex
from .task_start import FROM_PRIO, derived_from_prio

if TYPE_CHECKING:
    from numpy.typing import NDArray

FAULT_ADDRESS = 0xDEAD_0000_0000_0000
"""Given for a pointer that must not be readable: not canonical, so outside every arena."""
UNKNOWN_SIZE = 4096
"""Zero bytes behind a pointer to something that has no size in the BTF."""

_ELEMENT = re.compile(r"^(\w+)\[(\d+)\]$")
Column: TypeAlias = "NDArray[Any]"
Store: TypeAlias = "tuple[int, Any, int, Column | None, int, int, int, int]"
_U64 = (1 << 64) - 1


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
            if isinstance(plan, Printk):
                self.args[position] = "text", plan.field
                return self._printk(plan.field), 0
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

    def _how(self, source: Whole, size: int) -> tuple[str, str]:
        """("exact", the field) or ("derived", by which rule) of what fills `size` bytes."""
        if isinstance(source, (Text, Printk)):
            return "exact", source.field
        if isinstance(source, Bytes):
            return self._how(source.source, size)
        if isinstance(source, Part):
            return self._how(source.source, size)
        if isinstance(source, Obj):
            return "exact", _identity(source)
        if isinstance(source, int):
            return "derived", f"always {source}"
        if isinstance(source, Derived):
            return "derived", source.rule or f"computed from {', '.join(source.fields)}"
        recorded = self.table.fields[source].dtype.itemsize if source in self.table.fields else size
        if recorded < size and size in (1, 2, 4, 8):
            return "derived", f"{source}, recorded in {recorded} of {size} bytes"
        return "exact", source

    def _column(self, source: str | Derived) -> Column:
        """The recorded column of a source. LookupError with the reason where the format does not have it."""
        if isinstance(source, Derived):
            for name in source.fields:
                if name not in self.table.fields:
                    raise LookupError(f"the format of {self.table.name} has no field {name!r}")
            names = f"the fields {', '.join(source.fields)} of {self.table.name}"
            try:
                column = np.ascontiguousarray(source.compute(self.table))
            except (TypeError, ValueError, IndexError) as error:
                raise LookupError(f"{names} cannot be computed with") from error
            if column.ndim != 1:
                raise LookupError(f"{names} are not one value a row")
            return column
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

    def _printk(self, name: str) -> NDArray[Any]:
        """Addresses of the texts that the recording has for recorded addresses; an address without one stays what it was."""
        column = self._integer(name)
        texts = {int(key) & _U64: text.encode() for key, text in self.index.recording.printk.items()}
        unique, inverse = np.unique(column.astype(np.uint64), return_inverse=True)
        found = [texts.get(int(address)) for address in unique.tolist()]
        known = iter(self.objects.strings([text for text in found if text is not None]).tolist())
        places = [int(address) if text is None else next(known) for address, text in zip(unique.tolist(), found, strict=True)]
        if any(text is None and address for text, address in zip(found, unique.tolist(), strict=True)):
            self.missing.append((self._position, "", "the recording has no text for some of the addresses"))
        return np.array(places, np.uint64)[inverse.reshape(-1)]

    def _bytes(self, source: Source) -> Column:
        """Arrays as an S column, each to its last byte."""
        if isinstance(source, int):
            raise LookupError("bytes from a number")
        if isinstance(source, Derived):
            column = np.ascontiguousarray(source.compute(self.table))
        else:
            if source not in self.table.fields:
                raise LookupError(f"the format of {self.table.name} has no field {source!r}")
            column = self.table.fields[source]
            if source in self.table.heaps:
                return self.table.rows_of_bytes(source)
        rows = np.ascontiguousarray(column)
        return rows.reshape(len(rows), -1).view(f"S{rows.dtype.itemsize * (rows.size // max(len(rows), 1)) or 1}").reshape(-1)

    # objects

    def _object(self, item: Obj, position: int, parent: NDArray[np.uint64] | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
        """(addresses as passed, addresses to store to) of an object in every row, with its stores added. `parent`: what points to
        it.
        """
        self.objects.size(item.type_name)
        passed = base = self._identify(item, parent)
        if item.null is not None:
            null = self._column(item.null) != 0
            if null.any():
                passed = base = np.where(null, np.uint64(0), base)
        if item.nullable and isinstance(item.by, Key):
            first = item.by.fields[0]
            null = self._integer(first) == 0 if not isinstance(first, Text) else np.zeros(len(base), np.bool_)
            if null.any():
                passed = np.where(null, np.uint64(0), base)
        direct = position if passed is base else -1
        for path, source in self._members(item).items():
            name = path.rstrip("|")
            try:
                spot = self._store(item, path, source, base, direct)
            except (BtfError, LookupError) as error:
                self.missing.append((self._position, name, _reason(error)))
                continue
            if isinstance(source, When):
                source = source.value
            if isinstance(source, Part) and not spot.bitfield_size:
                self.missing.append((self._position, name.rpartition("::")[2], "only some of its bits are recorded"))
                continue
            how = self._how(source, spot.size)
            self._tell(item, name, spot, *how)
        return passed, base

    def _tell(self, item: Obj, path: str, spot: Field, how: str, source: str) -> None:
        """Note that the record tells of a member, for every type that the object is seen as."""
        seen = path.rpartition("::")[0]
        types = {item.type_name, seen or item.type_name, *(name for name, same in SAME_AS.items() if same == item.type_name)}
        end = spot.offset_bytes + spot.size
        for name in sorted(types):
            self.told.append(Told(self._position, name, path.rpartition("::")[2], spot.offset_bytes, end, how, source))

    def _members(self, item: Obj) -> Mapping[str, Value]:
        """An object's members. A task's priority, where it is the same all the time, has been written before the first event."""
        prio = item.members.get("prio")
        if item.type_name != "task_struct" or not isinstance(item.by, Pid) or not isinstance(prio, str):
            return item.members
        if self.index.steady_prio and self.table.has_integers(prio):
            for path in ("prio", *FROM_PRIO):
                if self.objects.has_member("task_struct", path):
                    how = ("exact", prio) if path == "prio" else ("derived", FROM_PRIO[path].format(prio))
                    self._tell(item, path, self.objects.member("task_struct", path), *how)
            return {path: value for path, value in item.members.items() if path != "prio"}
        more = {path: Derived((prio,), partial(_from_prio, prio, path), rule.format(prio)) for path, rule in FROM_PRIO.items()}
        return {**item.members, **more}

    def _store(self, item: Obj, path: str, source: Value, base: NDArray[np.uint64], direct: int) -> Field:
        spot = self.objects.member(item.type_name, path)
        if isinstance(source, When):
            base, direct, source = np.where(self._column(source.test) != 0, base, np.uint64(0)), -1, source.value
        mask, shift, size, const = 0, 0, spot.size, 0
        if isinstance(source, Part):
            mask, source = source.mask, source.source
        if spot.bitfield_size:
            shift = spot.bit_offset - 8 * spot.offset_bytes
            mask = ((mask or _U64) & ((1 << spot.bitfield_size) - 1)) << shift
        column: Column | None
        if isinstance(source, Obj):
            column = self._object(source, -1, base)[0]
        elif isinstance(source, Text):
            column = self._text(source.field)
        elif isinstance(source, Printk):
            column = self._printk(source.field)
        elif isinstance(source, Bytes):
            column = self._bytes(source.source)
            if size in (1, 2, 4, 8):
                column = np.ascontiguousarray(column, f"S{size}").view(f"<u{size}")
        else:
            column, const = self._scalar(source)
        if column is not None and column.dtype.kind == "S":
            if size in (1, 2, 4, 8):
                raise LookupError(f"field {source!r} of {self.table.name} is a string, {item.type_name}.{path} an integer")
            column = np.ascontiguousarray(column, f"S{size}")
        elif size not in (1, 2, 4, 8):
            raise BtfError(f"{item.type_name}.{path} of {size} bytes is no integer")
        self.stores.append((direct, base if direct < 0 else None, spot.offset_bytes, column, size, const, mask, shift))
        return spot

    def _identify(self, item: Obj, parent: NDArray[np.uint64] | None) -> NDArray[np.uint64]:
        by, index = item.by, self.index
        if isinstance(by, Current):
            return index.per_current(item.type_name, self.number, item.space)
        if isinstance(by, PerCpu):
            return index.per_cpu(item.type_name, self.number, item.space)
        if isinstance(by, Within):
            if parent is None:
                raise LookupError(f"nothing points to this {item.type_name}")
            return index.keyed(item.type_name, f"in {item.space}", parent)
        if isinstance(by, Key):
            return index.keyed(item.type_name, item.space, *map(self._key, by.fields))
        if isinstance(by, CurrentKey):
            return index.keyed(item.type_name, item.space, index.of_current(self.number), self._integer(by.field))
        tasks = index.of_pids(self._integer(by.field), index.cpu_of(self.number))
        if isinstance(by, Pid):
            return index.per_task(item.type_name, item.space)[tasks]
        return index.per_group(item.type_name, item.space)[tasks]

    def _key(self, source: str | Derived | Text) -> Column:
        return self._text(source.field) if isinstance(source, Text) else self._integer(source)


def _from_prio(prio: str, path: str, table: EventTable) -> NDArray[np.int32]:
    if not table.has_integers(prio):
        raise LookupError(f"field {prio!r} of {table.name} is no integer")
    return derived_from_prio(table.fields[prio])[path]


def _identity(item: Obj) -> str:
    """What makes an object the same again, in words."""
    by = item.by
    if isinstance(by, Key):
        return ", ".join(_name_of(source) for source in by.fields)
    if isinstance(by, Within):
        return "what points to it"
    if isinstance(by, (Current, PerCpu)):
        return "common_pid" if isinstance(by, Current) else "the event itself"
    return f"common_pid, {by.field}" if isinstance(by, CurrentKey) else by.field


def _name_of(source: str | Derived | Text) -> str:
    if isinstance(source, Derived):
        return ", ".join(source.fields)
    return source.field if isinstance(source, Text) else source


def _reason(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)
