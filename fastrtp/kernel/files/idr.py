"""Ids of programs, maps, links and BTF objects: handed out in rising order, and one freed is not given out again soon.

Kernel counterpart: lib/idr.c (idr_alloc_cyclic, idr_get_next).
"""

from __future__ import annotations

import errno
from bisect import bisect_left, insort
from collections.abc import Iterator
from typing import Generic, TypeVar

from fastrtp.errors import BpfError

T = TypeVar("T")
INT_MAX = (1 << 31) - 1


class Idr(Generic[T]):
    """id -> object, ids from 1 to INT_MAX - 1."""

    def __init__(self) -> None:
        self._objects: dict[int, T] = {}
        self._ids: list[int] = []
        self._cursor = 1

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[T]:
        return iter([self._objects[i] for i in self._ids])

    def alloc_cyclic(self, value: T) -> int:
        """A new id for `value`: the first free one from the last given on, round to 1 at the end. ENOSPC when none is left.

        Kernel: lib/idr.c:idr_alloc_cyclic
        """
        if len(self._objects) >= INT_MAX - 1:
            raise BpfError(errno.ENOSPC, f"ENOSPC: all {INT_MAX - 1} ids are taken")
        number = self._cursor
        while number in self._objects or number >= INT_MAX:
            number = 1 if number >= INT_MAX else number + 1
        self._cursor = number + 1
        self._objects[number] = value
        insort(self._ids, number)
        return number

    def find(self, number: int) -> T | None:
        """The object with this id, or None."""
        return self._objects.get(number)

    def get_next(self, number: int) -> int | None:
        """The lowest id in use that is `number` or more, or None."""
        at = bisect_left(self._ids, number)
        return self._ids[at] if at < len(self._ids) else None

    def remove(self, number: int) -> None:
        """Free the id."""
        del self._objects[number]
        del self._ids[bisect_left(self._ids, number)]
