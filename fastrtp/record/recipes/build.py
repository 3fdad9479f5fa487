"""build: what the data says of an event, a recording's format and a kernel's types, put together to a `Recipe`.

Every path is walked through the BTF: pointers become objects, each with what identifies it in the record, and members get
their sources. What the BTF does not have, or what a field of this format cannot be, is left out and listed in `left`.

    rq->q->disk->part0->bd_dev   request {q: request_queue {disk: gendisk {part0: block_device {bd_dev}}}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from fastrtp.btf import Btf, BtfKind, Field, ProtoArg, TracepointProto
from fastrtp.btf.tracepoints import argument_names
from fastrtp.errors import BtfError
from fastrtp.record.event_format import EventFormat, FieldKind, FormatField

from .data import EventRow, Told
from .known_types import IDENTIFIED_BY, IMPLIED, SAME_AS
from .match import named_field
from .ops import Reader, known_bits
from .recipe import (
    C_SIZES,
    Argument,
    Bytes,
    Derived,
    Identity,
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
    Tgid,
    Value,
    When,
    Whole,
    Within,
)

_STEP = re.compile(r"->(\w+)|\.(\w+)|\[(\d*)\]|@-(\w+)\.([\w.]+)|@(\w+)|(&)")
_ROOT = re.compile(r"^\w+")
_BARE = re.compile(r"@(?!-)\w+")
_TEXTS = (FieldKind.STRING, FieldKind.DATA_LOC, FieldKind.REL_LOC)
_C_TYPES = {size: name for name, size in C_SIZES.items()}
_U64 = (1 << 64) - 1
_INTEGERS = frozenset((BtfKind.INT, BtfKind.ENUM, BtfKind.ENUM64))
_RECORDS = frozenset((BtfKind.STRUCT, BtfKind.UNION))


@dataclass
class _Node:
    """An object that a pointer leads to. `path`: of that pointer, without casts. `members`: by path from the object."""

    type_name: str
    path: str
    members: dict[str, list[tuple[Told, Value]]] = field(default_factory=dict)
    children: dict[str, _Node] = field(default_factory=dict)
    pointer: Told | None = None
    nulls: list[Derived] = field(default_factory=list)

    def tells(self, before: str = "") -> Iterator[tuple[str, Told, Value]]:
        """(path from this object, what is told, value) of all that is known below."""
        for path, values in self.members.items():
            for told, value in values:
                yield before + path.rpartition("::")[2], told, value
        for path, child in self.children.items():
            yield from child.tells(f"{before}{path.rpartition('::')[2]}->")


class _Left(Exception):  # noqa: N818 - an answer, not a fault
    """Something cannot be used; why."""


@dataclass
class _Place:
    """Where a path has come to: a member of a node (or, without one, the argument itself)."""

    node: _Node | None
    path: str
    type_id: int
    seen: str = ""


def build(row: EventRow, fmt: EventFormat, btf: Btf, proto: TracepointProto) -> Recipe:
    """The recipe of one event kind, its arguments fitted to the prototype."""
    return _Builder(row, fmt, btf, proto).recipe()


class _Builder:
    def __init__(self, row: EventRow, fmt: EventFormat, btf: Btf, proto: TracepointProto) -> None:
        self.row = row
        self.fmt = fmt
        self.btf = btf
        self.proto = proto
        self.reader = Reader(btf)
        self.specs = {spec.name: spec for spec in fmt.fields}
        self.roots: dict[int, _Node] = {}
        self.direct: dict[int, list[Told]] = {}
        self.left: list[tuple[int, str, str]] = []
        self.names = argument_names(btf, proto)
        self.places = self._positions()

    def _positions(self) -> dict[str, int]:
        """The position in the prototype of each name that paths begin with."""
        found: dict[str, int] = {}
        own = [name for _, name in self.row.args]
        same = len(own) == len(self.proto.args)
        for index, root in enumerate(self.row.names):
            name = own[index] if index < len(own) else root
            if name in self.names:
                found[root] = self.names.index(name)
            elif same and (not self.names[index] or self._alike(index)):
                found[root] = index
        return found

    def _alike(self, index: int) -> bool:
        return self.proto.args[index].is_pointer == self.row.args[index][0].rstrip().endswith("*")

    def recipe(self) -> Recipe:
        for told in self.row.told:
            root = _ROOT.match(told.path)
            position = self.places.get(root[0], -1) if root else -1
            if position < 0 or told.field not in self.specs:
                continue
            try:
                self._take(told, position, self.specs[told.field])
            except (_Left, BtfError) as reason:
                self.left.append((position, _member_of(told.path), str(reason)))
        for position, found in self.direct.items():
            self._root(position, found)
        for told in self.row.told:
            self._nulls(told)
        self._one_file_system()
        args = tuple(self._argument(position, arg) for position, arg in enumerate(self.proto.args))
        return Recipe(args, fitted=True, left=tuple(self.left))

    # paths

    def _take(self, told: Told, position: int, spec: FormatField) -> None:
        arg = self.proto.args[position]
        place, whole = self._walk(told.path, position, arg)
        if place.node is None:
            self.direct.setdefault(position, []).append(told)
            return
        self._put(told, spec, place, whole)

    def _walk(self, path: str, position: int, arg: ProtoArg) -> tuple[_Place, str]:
        """(the place, "[]" or "&" where the path ends so)."""
        root = _ROOT.match(path)
        at = root.end() if root else 0
        place = _Place(None, "", arg.type_id)
        walked = path[:at]
        while at < len(path):
            step = _STEP.match(path, at)
            if step is None:
                raise _Left(f"a path {path!r} that this version does not know")
            at = step.end()
            if step[1]:
                node = self._follow(place, position, walked)
                name = f"{place.seen}::{step[1]}" if place.seen and place.seen != node.type_name else step[1]
                place = _Place(node, name, self._member(node.type_name, name).type_id)
            elif step[2]:
                if place.node is None:
                    continue  # a struct that is passed by value
                name = f"{place.path}.{step[2]}" if place.path else step[2]
                place = _Place(place.node, name, self._member(place.node.type_name, name).type_id)
            elif step[3] is not None:
                if not step[3]:
                    return place, "[]"
                place = self._element(place, int(step[3]), position, walked)
            elif step[4]:
                raise _Left("a member of the struct around it")
            elif step[6]:
                place = _Place(place.node, place.path, place.type_id, step[6])
            else:
                return place, "&"
            walked = _BARE.sub("", path[:at])
        return place, ""

    def _element(self, place: _Place, index: int, position: int, walked: str) -> _Place:
        record = self.btf.type(self.btf.strip(place.type_id))
        if record.kind == BtfKind.ARRAY and place.node is not None:
            name = f"{place.path}[{index}]"
            return _Place(place.node, name, self._member(place.node.type_name, name).type_id)
        if index:
            raise _Left("an element of memory that a pointer leads to")
        node = self._follow(place, position, walked)
        return _Place(node, "", self._type_id(node.type_name))

    def _follow(self, place: _Place, position: int, walked: str) -> _Node:
        """The object that the pointer at a place leads to."""
        name = self._pointee(place)
        if place.node is None:
            return self.roots.setdefault(position, _Node(name, walked))
        return place.node.children.setdefault(place.path, _Node(name, walked))

    def _pointee(self, place: _Place) -> str:
        pointer = self.btf.type(self.btf.strip(place.type_id))
        if pointer.kind not in (BtfKind.PTR, BtfKind.ARRAY):
            raise _Left("a pointer that is kept as a number")
        inner = self.btf.type(self.btf.strip_modifiers(pointer.type)) if pointer.type else None
        name = inner.name if inner is not None and inner.kind != BtfKind.FUNC_PROTO else ""
        name = name or place.seen
        if not name:
            raise _Left("a pointer to something that has no type")
        self._type_id(name)
        return name

    def _type_id(self, name: str) -> int:
        for kind in (BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF, BtfKind.INT):
            found = self.btf.find(name, kind)
            if found is not None:
                return found
        raise BtfError(f"no type {name!r} in the BTF")

    def _member(self, type_name: str, path: str) -> Field:
        seen, _, name = path.rpartition("::")
        return self.btf.member(self._type_id(seen or type_name), name)

    # values

    def _put(self, told: Told, spec: FormatField, place: _Place, whole: str) -> None:
        node = place.node
        assert node is not None
        record = self.btf.type(self.btf.strip(place.type_id))
        if whole == "&":
            node.pointer = node.pointer or told
            return
        if record.kind == BtfKind.PTR:
            if any(op.startswith("true ") for op in told.ops):
                self._follow_quietly(place, told)
                return
            if _is_number(spec) and not told.part and self._points_to_object(record.type):
                child = node.children.setdefault(place.path, _Node(self._pointee(place), _BARE.sub("", told.path)))
                child.pointer = child.pointer or told
                return
        value = self._value(told, spec, place, record.kind)
        test = self.reader.when(told)
        node.members.setdefault(place.path, []).append((told, When(value, test) if test is not None else value))
        implied = IMPLIED.get((place.path.rpartition("::")[0] or node.type_name, place.path.rpartition("::")[2]))
        if implied is not None:
            other = Told(told.field, told.part, told.path, (*told.ops, implied[1]))
            seen = place.path.rpartition("::")[0]
            name = f"{seen}::{implied[0]}" if seen else implied[0]
            value = self.reader.source(other)
            node.members.setdefault(name, []).append((other, When(value, test) if test is not None else value))

    def _follow_quietly(self, place: _Place, told: Told) -> None:
        """A pointer of which only is known whether it is NULL."""
        node = place.node
        assert node is not None
        child = node.children.setdefault(place.path, _Node(self._pointee(place), _BARE.sub("", told.path)))
        value = next(op for op in told.ops if op.startswith("true ")).removeprefix("true ")
        shown = self.reader.null(told, value)
        child.nulls.append(Derived(shown.fields, lambda table: 1 - shown.compute(table)))

    def _points_to_object(self, type_id: int) -> bool:
        inner = self.btf.type(self.btf.strip(type_id)) if type_id else None
        return inner is not None and inner.kind in _RECORDS and bool(inner.name)

    def _value(self, told: Told, spec: FormatField, place: _Place, kind: BtfKind) -> Whole:
        size = self.btf.sizeof(place.type_id) if place.type_id else 0
        source = self.reader.source(told)
        is_text = spec.kind is FieldKind.STRING or (spec.kind in _TEXTS and spec.c_type.startswith("char"))
        if kind == BtfKind.PTR:
            if is_text:
                return Text(told.field)
            if spec.kind is FieldKind.SCALAR or told.part:
                return Printk(told.field) if _is_text_pointer(self.btf, place.type_id) and not told.ops else source
            raise _Left("memory that a pointer leads to, of no known type")
        computed = any(not op.startswith(("mask ", "null ", "unless ", "if ", "assume")) for op in told.ops)
        if spec.kind in (FieldKind.ARRAY, FieldKind.BYTES, *_TEXTS) and not computed and not told.part:
            if kind in _INTEGERS and is_text:
                raise _Left("a text where a number is")
            return source if is_text else Bytes(source)
        if kind == BtfKind.ARRAY or (kind in _RECORDS and size not in (1, 2, 4, 8)):
            if told.part:
                return Bytes(source)
            raise _Left(f"a number where {size} bytes are")
        if "rwbs" in told.ops:  # what has no letter is not recorded
            return Part(source, (1 << 8 * size) - 1)
        mask = known_bits(told.ops) & ((1 << 8 * size) - 1)
        if mask != (1 << 8 * size) - 1 and any(op.startswith("mask ") for op in told.ops):
            return Part(source, mask)
        return source

    def _nulls(self, told: Told) -> None:
        """Where a record's value says that there was no object."""
        for op in told.ops:
            if not op.startswith("null ") or told.field not in self.specs:
                continue
            path, _, value = op[5:].partition(" ")
            path = _BARE.sub("", path)
            for node in self._all():
                if node.path == path:
                    node.nulls.append(self.reader.null(told, value))

    def _all(self) -> Iterator[_Node]:
        todo = list(self.roots.values())
        while todo:
            node = todo.pop()
            yield node
            todo.extend(node.children.values())

    def _one_file_system(self) -> None:
        """An inode beside another one, or a dentry, is of the same file system: a directory and what is in it."""
        devices = [value for node in self.roots.values() for path, _, value in [*node.tells()] if path.endswith("s_dev")]
        for node in self.roots.values():
            if node.type_name == "inode" and devices and not any(path.endswith("s_dev") for path, _, _ in node.tells()):
                told = next(told for other in self.roots.values() for path, told, _ in other.tells() if path.endswith("s_dev"))
                block = node.children.setdefault("i_sb", _Node("super_block", f"{node.path}->i_sb"))
                block.members["s_dev"] = [(told, devices[0])]

    # arguments

    def _argument(self, position: int, arg: ProtoArg) -> Argument:
        found = self.direct.get(position, [])
        node = self.roots.get(position)
        if not arg.is_pointer:
            return self._scalar(position, arg, found)
        plain = next((told for told in found if _is_number(self.specs[told.field]) and not _truth(told)), None)
        if node is not None:
            node.pointer = node.pointer or plain
            for told in found:
                if _truth(told):
                    value = _truth(told)
                    shown = self.reader.null(told, value)
                    node.nulls.append(_negated(shown))
            return self._object(node, position, "", None)
        for told in found:
            spec = self.specs[told.field]
            if spec.kind in _TEXTS and spec.c_type.startswith("char"):
                return Text(told.field)
            if spec.kind in (FieldKind.ARRAY, FieldKind.BYTES, FieldKind.DATA_LOC, FieldKind.REL_LOC, FieldKind.TAIL):
                return Obj(f"bytes:{max(spec.size, 64)}", PerCpu(), {"": Bytes(told.field)}, space=f"{self.fmt.name} {position}")
        if plain is not None:
            return Printk(plain.field) if _is_text_pointer(self.btf, arg.type_id) else Raw(plain.field)
        return Missing("", self._why(position, arg))

    def _root(self, position: int, found: list[Told]) -> None:
        """The object of a pointer argument of which only the address is told, or whether there is one."""
        told = any(_truth(item) or _is_number(self.specs[item.field]) for item in found)
        if told and position not in self.roots and self._is_object(self.proto.args[position]):
            name = self._pointee(_Place(None, "", self.proto.args[position].type_id))
            self.roots[position] = _Node(name, self.row.names[self._index(position)])

    def _index(self, position: int) -> int:
        return next((index for index, name in enumerate(self.row.names) if self.places.get(name) == position), 0)

    def _is_object(self, arg: ProtoArg) -> bool:
        pointer = self.btf.type(self.btf.strip(arg.type_id))
        return self._points_to_object(pointer.type) and any(place == self.proto.args.index(arg) for place in self.places.values())

    def _scalar(self, position: int, arg: ProtoArg, found: list[Told]) -> Argument:
        c_type = _C_TYPES.get(arg.size)
        if c_type is None:
            return Missing("", f"an argument of {arg.size} bytes")
        exact = [told for told in found if _is_number(self.specs[told.field]) or told.part]
        exact.sort(key=lambda told: len(told.ops))
        for told in exact:
            if known_bits(told.ops) & ((1 << 8 * arg.size) - 1) != (1 << 8 * arg.size) - 1 and "mask" in " ".join(told.ops):
                self.left.append((position, "", "only some of its bits are recorded"))
            return Scalar(c_type, self.reader.source(told), self.names[position])
        named = named_field(arg, self.names[position], self.fmt)
        return named if named is not None else Missing("", self._why(position, arg))

    def _why(self, position: int, arg: ProtoArg) -> str:
        return "no recorded field tells what it was" if arg.is_pointer else "no recorded field has its name"

    # objects

    def _object(self, node: _Node, position: int, at: str, parent: _Node | None) -> Obj:
        by, nullable = self._identity(node, parent)
        canonical = SAME_AS.get(node.type_name, node.type_name)
        if canonical != node.type_name and not self._has(canonical):
            canonical = node.type_name
        shift = f"{node.type_name}::" if canonical != node.type_name else ""
        members: dict[str, Value] = {}
        for path, child in node.children.items():
            members[path if "::" in path else shift + path] = self._object(child, position, f"{at}{path}->", node)
        for path, values in node.members.items():
            name = path if "::" in path else shift + path
            if node.type_name == "task_struct" and path == "pid":
                continue
            for number, value in enumerate(_best(values)):
                members[name + "|" * number] = value
        null = _all_of(node.nulls) if node.pointer is None or _is_pfn(node.pointer) else None
        space = "" if isinstance(by, (Key, Pid, Tgid)) else f"{self.fmt.name} {position}" if parent is None else at
        return Obj(canonical, by, members, space=space, nullable=nullable, null=null)

    def _has(self, name: str) -> bool:
        return self.btf.find(name, BtfKind.STRUCT) is not None

    def _identity(self, node: _Node, parent: _Node | None) -> tuple[Identity, bool]:
        """What makes it the same object again, and whether identity 0 is NULL."""
        tells = list(node.tells())
        if node.type_name == "task_struct":
            for path, told, value in tells:
                if path == "pid" and isinstance(value, str):
                    return Pid(told.field), False
        if parent is not None and parent.type_name == "task_struct" and node.type_name in ("signal_struct", "mm_struct"):
            pid = next((told for path, told, value in parent.tells() if path == "pid" and isinstance(value, str)), None)
            if pid is not None:
                return Tgid(pid.field), False
        if node.pointer is not None:
            source = self.reader.source(node.pointer)
            return Key((source if not isinstance(source, int) else node.pointer.field,)), not _is_pfn(node.pointer)
        for patterns in IDENTIFIED_BY.get(SAME_AS.get(node.type_name, node.type_name), ()):
            fields = []
            for pattern in patterns:
                match = next(((told, value) for path, told, value in tells if pattern.search(path)), None)
                if match is None:
                    break
                fields.append(self._key(*match))
            else:
                return Key(tuple(fields)), False
        return (PerCpu(), False) if parent is None else (Within(), False)

    def _key(self, told: Told, value: Value) -> str | Derived | Text:
        if isinstance(value, When):
            value = value.value
        if self.specs[told.field].kind in _TEXTS:
            return Text(told.field)
        if any(op in ("sector", "encdev") for op in told.ops):
            source: Source = self.reader.source(told)
            return source if not isinstance(source, int) else told.field
        return told.field


def _is_number(spec: FormatField) -> bool:
    return spec.kind is FieldKind.SCALAR


def _truth(told: Told) -> str:
    return next((op.removeprefix("true ") for op in told.ops if op.startswith("true ")), "")


def _negated(test: Derived) -> Derived:
    return Derived(test.fields, lambda table: 1 - test.compute(table))


def _is_pfn(told: Told) -> bool:
    """Whether it is the number of a page: 0 is a page, too."""
    return "id pfn" in told.ops


def _best(values: list[tuple[Told, Value]]) -> list[Value]:
    """Of all that tells of a member what is to be stored: one that tells it whole, or all that tell parts or of some rows."""
    whole = [item for item in values if not isinstance(item[1], (When, Part))]
    if whole:
        return [min(whole, key=lambda item: len(item[0].ops))[1]]
    return [value for _, value in values]


def _all_of(tests: list[Derived]) -> Derived | None:
    """Where each of the tests holds."""
    if not tests:
        return None
    fields = tuple(dict.fromkeys(name for test in tests for name in test.fields))
    return Derived(fields, lambda table: np.logical_and.reduce([test.compute(table) != 0 for test in tests]).astype(np.uint8))


def _is_text_pointer(btf: Btf, type_id: int) -> bool:
    pointer = btf.type(btf.strip(type_id))
    inner = btf.type(btf.strip(pointer.type)) if pointer.kind == BtfKind.PTR and pointer.type else None
    return inner is not None and inner.kind == BtfKind.INT and inner.name == "char"


def _member_of(path: str) -> str:
    """A path without the argument that it begins with, as members are named."""
    return re.sub(r"^\w+(@-?[\w.]+)*(->)?", "", path)
