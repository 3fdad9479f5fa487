"""Rings are emptied between pieces of what is measured: a full one refuses records, and would be all that is measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrtp.maps import RingBuf

ROOM = 30_000
"""Records of 16 bytes that a ring of 1 MiB takes."""


def rings(maps: Iterable[Any]) -> list[RingBuf]:
    """The ring buffers among a program's, or a kernel's, maps."""
    from fastrtp.maps import RingBuf

    return [held.map for held in maps if isinstance(held.map, RingBuf)]


def empty_rings(found: Iterable[RingBuf]) -> None:
    """Let rings be consumed, without the cost of it."""
    for ring in found:
        ring.record["consumer"], ring.record["tight"] = ring.record["producer"], 0


def pieces(events: int, found: Sequence[RingBuf]) -> Iterator[int]:
    """`events` in pieces that the rings have room for, which are empty before each; whole where there are no rings."""
    while events > 0:
        empty_rings(found)
        piece = min(events, ROOM) if found else events
        yield piece
        events -= piece
