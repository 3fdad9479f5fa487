"""Reads: which arguments and members of kernel objects a program can read, and what else of the machine it asks for.

A concept of its own beside the verdict: found from the verified instructions and the kernel's types alone, by following where
each pointer came from (reads_flow.py). It says what a program *can* read, on any path; `always` of a read says that every
run does it exactly once. What a read finds there is somebody else's business (replay/fidelity.py).

Must not know: recordings, native code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fastrtp.btf import Btf, BtfKind, Member
from fastrtp.errors import BtfError

_STRUCTS = (BtfKind.STRUCT, BtfKind.UNION)
_MAX_DEPTH = 64


class Hop(NamedTuple):
    """A pointer that was followed: the member at `off` of a struct (kernel type `type_id`)."""

    type_id: int
    off: int | None


@dataclass(frozen=True, slots=True)
class Read:
    """One thing that a program can read, at one instruction or several.

    `kind`: "argument": the argument number `root` itself; "member": bytes of an object; "context": a helper answers it, `root`
    says what; "user": memory of a process; "unknown": memory at an address whose origin is not known.
    Of a member: `root` is an argument's number, or what a helper gave ("current"); `hops` the pointers followed from there on;
    `type_id` the struct, 0 where the pointer has none; `off` and `size` the bytes, None where they vary.
    """

    kind: str
    root: int | str = ""
    hops: tuple[Hop, ...] = ()
    type_id: int = 0
    off: int | None = 0
    size: int | None = None


class ProgramReads(NamedTuple):
    """`insns`: by read, the instructions that do it; `always`: reads that each run does once. `complete`: False for a program
    that is too large to be followed to its end: it may read more.
    """

    insns: dict[Read, tuple[int, ...]]
    always: frozenset[Read]
    complete: bool


class Spot(NamedTuple):
    """The innermost member that a byte of a struct belongs to: its dotted name, place, size and type."""

    name: str
    off: int
    size: int
    type_id: int


def member_at(btf: Btf, type_id: int, off: int) -> Spot | None:
    """The member of a struct that its byte `off` is part of; None for padding, and for what is past the end."""
    names: list[str] = []
    start = 0
    for _ in range(_MAX_DEPTH):
        try:
            record = btf.type(btf.strip(type_id))
            size = btf.sizeof(type_id)
        except BtfError:
            return None
        if record.kind == BtfKind.ARRAY and names and btf.type(btf.strip(record.type)).kind in _STRUCTS:
            element = btf.sizeof(record.type)
            index = (off - start) // element if element else 0
            names[-1] += f"[{index}]"
            start, type_id = start + index * element, record.type
            continue
        if record.kind not in _STRUCTS:
            return Spot(".".join(names), start, size, type_id) if names else None
        step = _member(btf, record.members, off - start)
        if step is None:
            return Spot(".".join(names), start, size, type_id) if names and not record.members else None
        name, begin, type_id = step
        if name:
            names.append(name)
        start += begin
    return None


def _member(btf: Btf, members: Iterable[Member], off: int) -> tuple[str, int, int] | None:
    """(name, offset, type) of the member that a byte belongs to; of several in one place the first."""
    for member in sorted((one for one in members if one.bit_offset // 8 <= off), key=lambda one: -(one.bit_offset // 8)):
        begin = member.bit_offset // 8
        try:
            size = btf.sizeof(member.type_id)
        except BtfError:
            continue
        if off < begin + size:
            return member.name, begin, member.type_id
    return None


def pointed_struct(btf: Btf, type_id: int) -> int | None:
    """What a pointer type leads to: a struct's id, 0 for anything else; None for a type that is no pointer."""
    try:
        record = btf.type(btf.strip(type_id))
        if record.kind != BtfKind.PTR:
            return None
        target = btf.strip(record.type) if record.type else 0
        return target if target and btf.type(target).kind in _STRUCTS else 0
    except BtfError:
        return None


def names_of(btf: Btf, type_id: int, off: int | None, size: int | None) -> str:
    """The members that a read of a struct touches, as text: "comm", "pid..tgid"; "" where nothing names them."""
    if not type_id or off is None:
        return ""
    first = member_at(btf, type_id, off)
    if first is None:
        return ""
    last = member_at(btf, type_id, off + size - 1) if size else None
    past = last is None or last == first or off + (size or 0) <= first.off + first.size
    return first.name if past or last is None else f"{first.name}..{last.name}"


def describe(btf: Btf, read: Read, argument_names: Sequence[str]) -> str:
    """A read in C's words: "prev->mm->exe_file", "args[1] (rc)", "current->comm"."""
    if read.kind in ("user", "unknown"):
        return "memory of the process" if read.kind == "user" else "memory at an address of unknown origin"
    if read.kind == "context":
        return str(read.root)
    text = root_name(read.root, argument_names)
    if read.kind == "argument":
        return text
    for hop in read.hops:
        text += f"->{names_of(btf, hop.type_id, hop.off, 8) or '?'}"
    return f"{text}->{names_of(btf, read.type_id, read.off, read.size)}" if read.type_id else f"*{text}"


def root_name(root: int | str, argument_names: Sequence[str]) -> str:
    """What a chain of pointers begins with."""
    if isinstance(root, str):
        return root
    return (argument_names[root] if root < len(argument_names) else "") or f"args[{root}]"
