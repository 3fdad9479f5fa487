"""Who reads rings while a replay runs.

Nobody is asked for more than that records arrive: by default a ring that is full is emptied on the spot, so every record is
kept and consume() gives all of them, however small the ring. A Consumer stands for a reader as slow as a real one: what finds
the ring full between two looks is lost, as in Linux, and the report says how much.

Must not know: programs, the loop's text.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastrtp.errors import ReplayError
from fastrtp.maps.records import RingConsumer
from fastrtp.replay.windows import parse_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEAST_KEPT = 1 << 28


@dataclass(frozen=True)
class Consumer:
    """A reader that empties all rings after every `every_events` events of the recording, or every `every_ns` ns of its time;
    with neither nobody reads: rings run full, and stay so.

    ReplayError for both at once, and for numbers below 1.

    >>> kernel.replay("trace.dat", consumer=Consumer(every_events=1000)).dropped
    {}
    """

    every_events: int | None = None
    every_ns: int | None = None

    def __post_init__(self) -> None:
        if self.every_events is not None and self.every_ns is not None:
            raise ReplayError("a consumer looks every so many events or every so many ns, not both")
        for what, number in (("events", self.every_events), ("ns", self.every_ns)):
            if number is not None and number < 1:
                raise ReplayError(f"a consumer looks every 1 {what} or more, not {number}")

    @property
    def clock(self) -> str:
        """What its time is counted in: "events", "ns", "" when it never comes."""
        if self.every_events is not None:
            return "events"
        return "ns" if self.every_ns is not None else ""


def parse_consumer(consumer: Consumer | str | int | None) -> Consumer | None:
    """None (every record is kept) or a Consumer: from "none", a number of events, or a time like "10ms". ReplayError."""
    if consumer is None or isinstance(consumer, Consumer):
        return consumer
    if consumer == "none":
        return Consumer()
    try:
        found = parse_window(consumer)
    except ReplayError as error:
        raise ReplayError(f"consumer {consumer!r} is neither a number of events nor a time such as 10ms, nor none") from error
    assert found is not None
    size, in_ns = found
    return Consumer(every_ns=size) if in_ns else Consumer(every_events=size)


class ConsumerClock:
    """A Consumer of a machine's rings as the loop knows it: a CONSUMER record. `clock`: as Consumer's."""

    def __init__(self, consumer: Consumer, machine: int, time: NDArray[np.int64]) -> None:
        self.clock = consumer.clock
        self._record = np.zeros(1, RingConsumer.layout.dtype)
        row = self._record[0]
        row["machine"] = machine
        row["step"] = step = consumer.every_events or consumer.every_ns or 1
        row["due"] = step + (int(time[0]) if self.clock == "ns" and len(time) else 0)

    @property
    def address(self) -> int:
        """Of the record."""
        return int(self._record.ctypes.data)


def most_kept() -> int:
    """Bytes of records that a replay keeps unless told otherwise: half of the memory that this machine has."""
    try:
        return max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2, _LEAST_KEPT)
    except (ValueError, OSError, AttributeError):
        return 1 << 30
