"""The vocabulary of recipes: how a tracepoint's TP_PROTO arguments come back out of the TP_STRUCT fields it recorded.

A recipe inverts TP_fast_assign. It names, for each argument, the recorded field of a scalar, or the object that a pointer
leads to and which field lands in which of its members. Recipes are data; replay/bind.py is what reads them.

A source is a field's name ("prio"), an element of an array field ("args[2]"), an int, or a `Derived` column.
Matching with a prototype is by name and C type (recipes/match.py): an argument that the kernel at hand does not have is left
out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Union

from fastrtp.record.columns import EventTable

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Derived:
    """A column computed from recorded ones. `fields`: what `compute` reads of the table; `rule`: how, in words, where it does not
    hold of everything.
    """

    fields: tuple[str, ...]
    compute: Callable[[EventTable], NDArray[Any]]
    rule: str = ""


Source = Union[str, int, Derived]  # noqa: UP007 - evaluated at run time, together with a class defined here


@dataclass(frozen=True, slots=True)
class Pid:
    """Identity: the pid in a recorded field. Pid 0 is the idle task of the event's CPU."""

    field: str


@dataclass(frozen=True, slots=True)
class Tgid:
    """Identity: the thread group of the pid in a recorded field, as far as the recording shows it."""

    field: str


@dataclass(frozen=True, slots=True)
class Current:
    """Identity: the task that was running (common_pid)."""


@dataclass(frozen=True, slots=True)
class PerCpu:
    """Identity: the event's CPU; for objects that live no longer than the event."""


@dataclass(frozen=True, slots=True)
class Key:
    """Identity: the value of recorded fields: a pointer, an irq number, a signal number, a name (`Text`), a computed column."""

    fields: tuple[str | Derived | Text, ...]


@dataclass(frozen=True, slots=True)
class Within:
    """Identity: the object that points to it, and by which member: for what has no identity of its own in the record."""


@dataclass(frozen=True, slots=True)
class CurrentKey:
    """Identity: the running task together with a recorded field (its disposition of a signal)."""

    field: str


Identity = Union[Pid, Tgid, Current, PerCpu, Key, CurrentKey, Within]  # noqa: UP007


@dataclass(frozen=True, slots=True)
class Scalar:
    """An integer argument of the C type `c_type`. `name`: the argument's in TP_PROTO, where it is not that of the field."""

    c_type: str
    source: Source
    name: str = ""

    @property
    def argument(self) -> str:
        """The argument's name in TP_PROTO; "" where it is not known."""
        return self.name or (self.source if isinstance(self.source, str) else "")


@dataclass(frozen=True, slots=True)
class Text:
    """A `char *`, to a string object that holds the recorded text."""

    field: str


@dataclass(frozen=True, slots=True)
class Printk:
    """A `char *` of which the address was recorded: the text that the recording's printk formats have for it."""

    field: str


@dataclass(frozen=True, slots=True)
class Bytes:
    """An array, or a piece of memory, as it was recorded."""

    source: Source


@dataclass(frozen=True, slots=True)
class Part:
    """Some bits of a member: those of `mask` are `source`, the others stay what they were."""

    source: Source
    mask: int


@dataclass(frozen=True, slots=True)
class When:
    """A member that a record tells of in some rows only: where `test` is not 0."""

    value: Whole
    test: Derived


@dataclass(frozen=True, slots=True)
class Raw:
    """A pointer passed on as it was recorded: an address of the recorded machine, of which nothing can be read."""

    field: str


@dataclass(frozen=True)
class Obj:
    """A pointer to a kernel object. `by`: what makes it the same object again. `members`: path -> source, or what it points to.

    `space` keeps apart objects of one type whose identities mean different things. `nullable`: identity 0 is NULL; `null`: in
    which rows it is NULL. A path may name another type that the object is, too: "inet_sock::inet_sport".
    """

    type_name: str
    by: Identity
    members: Mapping[str, Value] = field(default_factory=dict)
    space: str = ""
    nullable: bool = False
    null: Derived | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """A pointer argument that the recording cannot supply, and why. `struct`: the type it points to, "" for void."""

    struct: str
    why: str


Argument = Union[Scalar, Text, Printk, Raw, Obj, Missing]  # noqa: UP007
Whole = Union[str, int, Derived, Obj, Text, Printk, Bytes, Part]  # noqa: UP007
Value = Union[Whole, When]  # noqa: UP007


@dataclass(frozen=True)
class Recipe:
    """`args` in TP_PROTO order. `also`: objects that the record describes without passing them.

    `after`: what the kernel does to an object right behind the tracepoint, so that later events see it. `fitted`: `args` are
    those of the prototype at hand, one for each; otherwise they are matched with it. `left`: members of arguments that the
    record does not tell, or only in part, and why.
    """

    args: tuple[Argument, ...]
    also: tuple[Obj, ...] = ()
    after: tuple[Obj, ...] = ()
    fitted: bool = False
    left: tuple[tuple[int, str, str], ...] = ()


def task(pid_field: str, **members: Value) -> Obj:
    """A task_struct by the pid in `pid_field`."""
    return Obj("task_struct", Pid(pid_field), members)


def current(**members: Value) -> Obj:
    """The running task's task_struct."""
    return Obj("task_struct", Current(), members)


def by_pointer(type_name: str, pointer_field: str, **members: Value) -> Obj:
    """An object known by the address that it had on the recorded machine."""
    return Obj(type_name, Key((pointer_field,)), members)


C_SIZES = {
    "bool": 1, "short": 2, "int": 4, "unsigned int": 4, "pid_t": 4, "clockid_t": 4, "gfp_t": 4, "enum": 4, "long": 8,
    "unsigned long": 8, "u64": 8, "unsigned long long": 8, "size_t": 8,
}  # fmt: skip
"""Bytes of the C types of `Scalar`, where a long has 8."""
