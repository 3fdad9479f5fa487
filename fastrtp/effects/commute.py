"""The verdict: whether the programs of a run leave the same behind in whatever order CPUs' events are played."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastrtp.effects.effects import ATOMIC, Access, Effects, What
from fastrtp.effects.values import CPU_KEY
from fastrtp.uapi import BpfMapType

_VALUES = frozenset({What.READ, What.WRITE, *ATOMIC})
_NO_VALUES = frozenset({
    BpfMapType.BPF_MAP_TYPE_PROG_ARRAY, BpfMapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, BpfMapType.BPF_MAP_TYPE_RINGBUF,
    BpfMapType.BPF_MAP_TYPE_STACK_TRACE, BpfMapType.BPF_MAP_TYPE_USER_RINGBUF,
})  # fmt: skip
"""Types whose memory no program has a pointer to that it could keep."""
_WHY = {
    What.INSERT: "which events find the key there, and whether there is room, depends on their order",
    What.DELETE: "which events find the key there depends on their order",
    What.TOUCH: "what goes when it is full depends on the order of all uses",
    What.OUTPUT: "its records have one order for all CPUs",
    What.STACK: "which stack has a bucket depends on their order",
    What.DRAIN: "which event gets which sample depends on their order",
    What.INNER: "which map that is, is not known",
}


@dataclass(frozen=True)
class Member:
    """A program of a run. `maps`: what the indices in its effects stand for, one object for each map whoever uses it (they have
    `name` and `map_type`); `source`: instruction -> "file:line: text", "" where nothing is known.
    """

    name: str
    effects: Effects
    maps: Sequence[Any]
    source: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Something whose outcome depends on the order of events on different CPUs.

    `program`, `insn`, `source`: the instruction; `map`: the map's name, "" for other state; `map_type`: BPF_MAP_TYPE_*, 0 for
    none; `what`: what is done to it, and why that does not commute.
    """

    program: str
    insn: int
    source: str
    map: str
    map_type: int
    what: str

    def __str__(self) -> str:
        where = f"{self.program}, instruction {self.insn}" + (f" ({self.source})" if self.source else "")
        return f"map {self.map}: {where} {self.what}" if self.map else f"{where} {self.what}"


def conflicts(members: Sequence[Member]) -> list[Conflict]:
    """Everything that keeps these programs from commuting between CPUs: at most one a program, map and kind of access. Empty:
    whatever the order, the same is left behind. What they read of the kernel's objects (Effects.kernel_reads) is not judged
    here: who changes these is known to whoever makes the events.
    """
    found = [
        Conflict(member.name, note.insn, member.source(note.insn), "", 0, note.what)
        for member in members
        for note in member.effects.outside
    ]
    held: dict[int, Any] = {id(used): used for member in members for used in member.maps}
    for used in held.values():
        found += _on_map(used, members)
    return found


def _on_map(used: Any, members: Sequence[Member]) -> Iterator[Conflict]:
    accesses = [
        (member, access)
        for member in members
        for index, candidate in enumerate(member.maps)
        if candidate is used
        for access in member.effects.of_map(index)
        if access.map is not None or access.what not in _VALUES or used.map_type not in _NO_VALUES
    ]
    if not accesses or not any(_changes(access) for _, access in accesses):
        return
    said: set[tuple[str, What]] = set()
    for member, access in accesses:
        if (member.name, access.what) in said:
            continue
        for other, against in accesses:
            if not commute(access, against):
                said.add((member.name, access.what))
                what = _reason(access, member, against, other)
                yield Conflict(member.name, access.insn, member.source(access.insn), used.name, int(used.map_type), what)
                break


def _changes(access: Access) -> bool:
    return access.what not in (What.LOOKUP, What.READ)


def commute(a: Access, b: Access) -> bool:
    """Whether one CPU's `a` and another's `b`, on the same map, may change places, and nobody sees a difference."""
    if a.own and b.own:
        return True
    if a.what in _VALUES and b.what in _VALUES:
        return _values_commute(a, b)
    return {a.what, b.what} <= {What.LOOKUP, *_VALUES}  # no key comes or goes


def _values_commute(a: Access, b: Access) -> bool:
    if a.what is What.READ and b.what is What.READ:
        return True
    if a.key is not None and b.key is not None and _apart(a.key, b.key):
        return True
    if (a.end is not None and a.end <= b.start) or (b.end is not None and b.end <= a.start):
        return True
    return a.what is b.what and a.what in ATOMIC and a.size == b.size


def _apart(a: int, b: int) -> bool:
    """Whether keys of accesses on different CPUs are never the same."""
    return a == b == CPU_KEY or (a != b and CPU_KEY not in (a, b))


def _reason(access: Access, member: Member, against: Access, other: Member) -> str:
    if access.what in _WHY:
        return f"{access.what}: {_WHY[access.what]}"
    if against is access:
        return f"{access.what}, and so do other CPUs: the outcome depends on their order"
    where = f"instruction {against.insn}" + ("" if other is member else f" of {other.name}")
    return f"{access.what}, while on other CPUs {where} {against.what}: the outcome depends on their order"
