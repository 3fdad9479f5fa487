"""An object's global variables by name, typed by BTF: `obj.rodata.targ_pid = 5`, `obj.bss.hits`.

Before the object is loaded they are the contents that its maps will begin with, afterwards the maps' memory itself, as the
mapped sections of libbpf's skeletons are. Structs and arrays are views: `obj.bss.hist.slots[3]`; called, `obj.bss.hist()`, they
give plain Python values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from fastrtp.btf.encode import encode, find_member, is_char, members_by_name, store_member
from fastrtp.btf.types import COMPOSITES, BtfKind
from fastrtp.btf.values import decode
from fastrtp.errors import ObjectError, UnknownNameError

if TYPE_CHECKING:
    from fastrtp.btf import Btf, Member
    from fastrtp.kernel.loader.object_map import ObjectMap

_STEP = re.compile(r"\.?([A-Za-z_$][\w$]*)|\[(\d+)\]")


class View:
    """A struct, union or array inside a section. Calling it gives a plain value; it equals such a value, too."""

    __slots__ = ("_btf", "_held", "_name", "_offset", "_type_id")
    _held: ObjectMap
    _btf: Btf
    _type_id: int
    _offset: int
    _name: str

    def __init__(self, held: ObjectMap, btf: Btf, type_id: int, offset: int, name: str) -> None:
        values = {"_held": held, "_btf": btf, "_type_id": type_id, "_offset": offset, "_name": name}
        for slot, value in values.items():
            object.__setattr__(self, slot, value)  # an assignment to a struct's view is one to a member

    def __call__(self) -> Any:
        """The value: a dict or a list."""
        return decode(self._btf, self._type_id, self._held.read_value(self._offset, self._btf.sizeof(self._type_id)))

    def __repr__(self) -> str:
        return f"<{self._name} {self()!r}>"

    def __eq__(self, other: object) -> bool:
        return bool(self() == (other() if isinstance(other, View) else other))

    __hash__ = None  # type: ignore[assignment]  # equal to lists and dicts, which change


class StructView(View):
    """A struct's members as attributes, or by name."""

    __slots__ = ()

    def _member(self, name: str) -> tuple[Member, int]:
        return find_member(self._btf, self._btf.type(self._btf.strip(self._type_id)), name, self._name)

    def __getitem__(self, name: str) -> Any:
        member, base = self._member(name)
        if member.bitfield_size:
            return self()[name]
        return _get(self._held, self._btf, member.type_id, self._offset + base + member.bit_offset // 8, f"{self._name}.{name}")

    def __setitem__(self, name: str, value: Any) -> None:
        member, base = self._member(name)
        size = self._btf.sizeof(self._type_id)
        contents = bytearray(self._held.read_value(self._offset, size))
        store_member(self._btf, member, value, contents, base, f"{self._name}.{name}")
        first = base + member.bit_offset // 8
        bits = member.bitfield_size
        end = base + (member.bit_offset + bits + 7) // 8 if bits else first + self._btf.sizeof(member.type_id)
        self._held.write_value(self._offset + first, bytes(contents[first:end]))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __iter__(self) -> Iterator[str]:
        record = self._btf.type(self._btf.strip(self._type_id))
        return (member.name for member, _ in members_by_name(self._btf, record))

    def __dir__(self) -> list[str]:
        return list(self)


class ArrayView(View):
    """An array's elements by number."""

    __slots__ = ()

    def __len__(self) -> int:
        return self._btf.type(self._btf.strip(self._type_id)).nelems

    def _element(self, index: int) -> tuple[int, int, str]:
        """(type, offset, name) of one."""
        record = self._btf.type(self._btf.strip(self._type_id))
        at = index.__index__()
        if not -record.nelems <= at < record.nelems:
            raise IndexError(f"{self._name} has {record.nelems} elements, none of them number {index}")
        at %= record.nelems
        return record.type, self._offset + at * self._btf.sizeof(record.type), f"{self._name}[{at}]"

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self()[index]
        type_id, offset, name = self._element(index)
        return _get(self._held, self._btf, type_id, offset, name)

    def __setitem__(self, index: int, value: Any) -> None:
        type_id, offset, name = self._element(index)
        self._held.write_value(offset, encode(self._btf, type_id, value, name))


def _get(held: ObjectMap, btf: Btf, type_id: int, offset: int, name: str) -> Any:
    """A plain value, or a view of something that has parts."""
    record = btf.type(btf.strip(type_id))
    if record.kind in COMPOSITES:
        return StructView(held, btf, type_id, offset, name)
    if record.kind == BtfKind.ARRAY and not is_char(btf.type(btf.strip(record.type))):
        return ArrayView(held, btf, type_id, offset, name)
    return decode(btf, type_id, held.read_value(offset, btf.sizeof(type_id)))


class Variables:
    """The variables of one section, as attributes or by name. Wrong names and values that do not fit are ObjectErrors."""

    __slots__ = ("_held", "_section")
    _held: ObjectMap
    _section: str

    def __init__(self, held: ObjectMap, section: str) -> None:
        object.__setattr__(self, "_held", held)
        object.__setattr__(self, "_section", section)

    @property
    def _btf(self) -> Btf | None:
        return self._held.object_btf

    def _places(self) -> dict[str, tuple[int, int]]:
        """Type and offset by name."""
        btf = self._btf
        datasec = btf.find(self._section, BtfKind.DATASEC) if btf is not None else None
        if btf is None or datasec is None:
            return {}
        found = {}
        for info in btf.type(datasec).secinfos:
            variable = btf.type(info.type_id)
            found[variable.name] = (variable.type, info.offset)
        return found

    def _place(self, name: str) -> tuple[int, int]:
        places = self._places()
        if name not in places:
            there = ", ".join(places) or ("none" if self._btf is not None else "none, the object has no BTF")
            raise UnknownNameError(f"no variable {name!r} in {self._section}, there are: {there}")
        return places[name]

    def __getitem__(self, name: str) -> Any:
        type_id, offset = self._place(name)
        assert self._btf is not None
        return _get(self._held, self._btf, type_id, offset, name)

    def __setitem__(self, name: str, value: Any) -> None:
        type_id, offset = self._place(name)
        assert self._btf is not None
        self._held.write_value(offset, encode(self._btf, type_id, value() if isinstance(value, View) else value, name))
        self._held.written.add(name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __contains__(self, name: object) -> bool:
        return name in self._places()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places())

    def __len__(self) -> int:
        return len(self._places())

    def __dir__(self) -> list[str]:
        return list(self)

    def __call__(self) -> dict[str, Any]:
        """All values."""
        values = {name: self[name] for name in self}
        return {name: value() if isinstance(value, View) else value for name, value in values.items()}

    def __repr__(self) -> str:
        return f"<{self._section} {self()!r}>"


def set_text(sections: Mapping[str, Variables], path: str, text: str) -> None:
    """Set a variable to what text says: a number, true, false, [1, 2], {"pid": 5}, or the text itself.

    UnknownNameError, ObjectError.
    """
    meant = meaning(text)
    try:
        set_variable(sections, path, meant)
    except UnknownNameError:
        raise
    except ObjectError:
        if isinstance(meant, str):
            raise
        try:
            set_variable(sections, path, text)
            return
        except ObjectError:
            pass
        raise


def set_variable(sections: Mapping[str, Variables], path: str, value: Any) -> None:
    """Set `targ_pid`, `filter.pid`, `cpus[3]` or, with the section before it, `bss.hits`. UnknownNameError, ObjectError."""
    steps = _steps(path)
    by_name = {name.lstrip(".").replace(".", "_"): found for name, found in sections.items()}
    holding = [found for found in sections.values() if steps[0] in found]
    if len(holding) > 1:
        raise ObjectError(
            f"variable {steps[0]!r} is in several sections: {', '.join(by_name)}; say which: {next(iter(by_name))}.{path}"
        )
    if not holding and len(steps) > 1 and steps[0] in by_name:
        holding, steps = [by_name[str(steps[0])]], steps[1:]
    if not holding:
        there = "; ".join(f"{name}: {', '.join(found)}" for name, found in sections.items() if len(found))
        raise UnknownNameError(f"no variable {steps[0]!r}, there are: {there or 'none'}")
    target: Any = holding[0]
    try:
        for step in steps[:-1]:
            target = target[step]
            if not isinstance(target, View):
                raise ObjectError(f"{path}: {step!r} has no parts")
        target[steps[-1]] = value
    except (IndexError, TypeError) as error:
        raise ObjectError(f"{path}: {error}") from error


def _steps(path: str) -> list[str | int]:
    at, out = 0, list[str | int]()
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or (at == 0 and path[0] in ".["):
            raise ObjectError(f"{path!r} is no variable's name, such as targ_pid, filter.pid or cpus[3]")
        out.append(found[1] if found[1] is not None else int(found[2]))
        at = found.end()
    if not out:
        raise ObjectError("the name of the variable is missing")
    return out


def meaning(text: str) -> Any:
    """What text says as a value: a number in any base, true, false, or JSON; text that says none of these stays text."""
    import json

    try:
        return int(text, 0)
    except ValueError:
        pass
    try:
        return json.loads(text.lower() if text.lower() in ("true", "false") else text)
    except ValueError:
        return text
