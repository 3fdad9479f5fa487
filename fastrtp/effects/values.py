"""What is known of a register or a stack slot: one Value for all paths that lead to a place.

TOP is anything, a pointer into any map included. A pointer may also be NULL: nobody looks through one that is.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, auto

U64 = (1 << 64) - 1


class Kind(Enum):
    """Of a value."""

    TOP = auto()
    CONST = auto()
    CPU = auto()
    """The number of the CPU that the program runs on."""
    STACK = auto()
    """Points into the running function's own frame."""
    OUTER = auto()
    """Points into the frame of a caller."""
    MAP = auto()
    """Points at a map."""
    VALUE = auto()
    """Points into a value of a map."""
    KERNEL = auto()
    """An argument of the tracepoint, or came out of the kernel's memory: no pointer into a map."""
    LOCAL = auto()
    """Points at memory of this run alone: a record that was reserved, an iterator's number."""
    CTX = auto()


CPU_KEY = -1
"""A key that is the number of the CPU."""
ANY_MAP = -1
"""A map that is not known."""


@dataclass(frozen=True, slots=True)
class Value:
    """`number`: of CONST, u64; `map`: index in used_maps; `key`: of the value pointed into: a number, CPU_KEY, None: any;
    `off`: distance from where the frame, the value or the object begins, None: any.
    """

    kind: Kind
    number: int = 0
    map: int = ANY_MAP
    key: int | None = None
    off: int | None = 0

    @property
    def is_pointer(self) -> bool:
        """Whether arithmetic moves it within what it points to."""
        return self.kind in _POINTERS

    def moved(self, distance: int | None) -> Value:
        """The pointer so many bytes further."""
        return replace(self, off=None if self.off is None or distance is None else self.off + distance)


_POINTERS = frozenset({Kind.STACK, Kind.OUTER, Kind.VALUE, Kind.KERNEL, Kind.LOCAL, Kind.CTX})
TOP = Value(Kind.TOP)
CPU = Value(Kind.CPU)
OUTER = Value(Kind.OUTER)
LOCAL = Value(Kind.LOCAL)
CTX = Value(Kind.CTX)
KERNEL_OBJECT = Value(Kind.KERNEL)
"""An argument, or the running task: where an object begins, if it is a pointer."""
FROM_KERNEL = Value(Kind.KERNEL, off=None)
"""Anything else that the kernel's memory held."""
NULL = Value(Kind.CONST)


def const(number: int) -> Value:
    """A known number."""
    return Value(Kind.CONST, number=number & U64)


def signed(number: int) -> int:
    """A u64 as s64."""
    return number - (1 << 64) if number >> 63 else number


def join(a: Value, b: Value) -> Value:
    """What is known where either may have come."""
    if a == b:
        return a
    if a == NULL and (b.is_pointer or b.kind is Kind.MAP):
        return b
    if b == NULL and (a.is_pointer or a.kind is Kind.MAP):
        return a
    if a.kind is not b.kind or a.kind is Kind.CONST or a.map != b.map:
        return TOP
    return replace(a, key=a.key if a.key == b.key else None, off=a.off if a.off == b.off else None)


Slots = dict[tuple[int, int], Value]
"""(offset from the frame pointer, bytes) -> what was stored there whole."""


class State:
    """Registers and the frame of one function at one place."""

    __slots__ = ("regs", "slots")

    def __init__(self, regs: list[Value], slots: Slots) -> None:
        self.regs = regs
        self.slots = slots

    def copy(self) -> State:
        """One that may be changed."""
        return State(list(self.regs), dict(self.slots))

    def merge(self, other: State) -> bool:
        """Take in what another path knows; whether that changed anything."""
        changed = False
        for number, value in enumerate(other.regs):
            joined = join(self.regs[number], value)
            if joined != self.regs[number]:
                self.regs[number], changed = joined, True
        for place, value in list(self.slots.items()):
            joined = join(value, other.slots.get(place, TOP))
            if joined == TOP:
                del self.slots[place]
                changed = True
            elif joined != value:
                self.slots[place], changed = joined, True
        return changed

    def load(self, off: int | None, size: int) -> Value:
        """What stands in the frame."""
        return TOP if off is None else self.slots.get((off, size), TOP)

    def store(self, off: int | None, size: int | None, value: Value = TOP) -> None:
        """Something is written to the frame: `size` None: from there on, `off` None: anywhere."""
        if off is None:
            self.slots.clear()
            return
        end = off + size if size is not None else 1
        for place in [place for place in self.slots if place[0] < end and place[0] + place[1] > off]:
            del self.slots[place]
        if value != TOP and size is not None:
            self.slots[off, size] = value
