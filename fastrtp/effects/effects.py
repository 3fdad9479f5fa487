"""Effects: what one program does to maps, to what it reads of the kernel, and to everything else that is there afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class What(StrEnum):
    """What is done to a map; the text is for people."""

    LOOKUP = "looks keys up in it"
    READ = "reads it"
    WRITE = "writes to it"
    ADD = "adds to it atomically"
    OR = "ors into it atomically"
    AND = "ands into it atomically"
    XOR = "xors into it atomically"
    INSERT = "inserts into it"
    DELETE = "deletes from it"
    TOUCH = "uses it"
    """A map in which a look alone changes what goes next: LRU."""
    OUTPUT = "outputs to it"
    STACK = "puts stacks into it"
    DRAIN = "takes samples from it"
    INNER = "works on a map in it"
    """Which one is not known."""


ATOMIC = frozenset({What.ADD, What.OR, What.AND, What.XOR})
"""Their results are not used, so operations of one kind commute."""


@dataclass(frozen=True, slots=True)
class Access:
    """One instruction's access to a map.

    `map`: index in the program's used_maps; None: any of them. `own`: only what no other CPU's runs touch by the same way: the
    CPU's value of a per-CPU map, its ring of a perf event array. `key`: of the value, where it is known (CPU_KEY: the number of
    the CPU). `start`, `end`: bytes of the value, None: to its end. `size`: bytes of an atomic operation.
    """

    insn: int
    what: What
    map: int | None
    own: bool = False
    key: int | None = None
    start: int = 0
    end: int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class KernelRead:
    """One instruction reads bytes `start` to `end` (None: to no known end) of an object that is an argument of the tracepoint, or
    of the running task; `start` None: it may read any object anywhere. `member`: of the running task, when a helper reads it.
    """

    insn: int
    start: int | None = None
    end: int | None = None
    member: str = ""


@dataclass(frozen=True, slots=True)
class Outside:
    """One instruction does something besides maps that has one order for all CPUs, or that is not understood: `what`."""

    insn: int
    what: str


@dataclass(frozen=True)
class Effects:
    """All of a program's. `tail_calls`: the program arrays (indices in used_maps) whose programs continue it."""

    accesses: tuple[Access, ...] = ()
    kernel_reads: tuple[KernelRead, ...] = ()
    outside: tuple[Outside, ...] = ()
    tail_calls: tuple[int, ...] = ()

    def of_map(self, index: int) -> Iterator[Access]:
        """Accesses that may be to one map."""
        return (access for access in self.accesses if access.map is None or access.map == index)
