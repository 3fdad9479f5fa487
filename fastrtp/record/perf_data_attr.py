"""PerfAttr: one event of a perf.data file, and where its records keep what is wanted of them.

Everything before the raw data of a sample has to be stepped over rightly; what comes behind it (branches, registers,
stacks, weights) is inside the record's size and is never looked at. Kernel: kernel/events/core.c:perf_output_sample,
__perf_event__output_id_sample, perf_output_read.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrtp.errors import RecordingError
from fastrtp.trace import perf_attr as uapi
from fastrtp.trace.perf_attr import PERF_ATTR_SIZE_VER0, PERF_TYPE_TRACEPOINT, PerfEventAttr

from . import perf_data_layout as layout_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .reader import ByteReader

ATTR_LIMIT = 4096
_HEADER = 8
_IN_ORDER = (
    ("identifier", uapi.PERF_SAMPLE_IDENTIFIER), ("ip", uapi.PERF_SAMPLE_IP), ("tid", uapi.PERF_SAMPLE_TID),
    ("time", uapi.PERF_SAMPLE_TIME), ("addr", uapi.PERF_SAMPLE_ADDR), ("id", uapi.PERF_SAMPLE_ID),
    ("stream_id", uapi.PERF_SAMPLE_STREAM_ID), ("cpu", uapi.PERF_SAMPLE_CPU), ("period", uapi.PERF_SAMPLE_PERIOD),
)  # fmt: skip
"""The words that a sample begins with, each 8 bytes."""
_TRAILER = ("tid", "time", "id", "stream_id", "cpu", "identifier")
"""The words that other records end with under sample_id_all."""
_CLOCKS = {0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai"}
"""ftrace's names of the clocks that perf record -k takes."""


class Trailer(NamedTuple):
    """Where a record that is no sample keeps its time and CPU: bytes before its end, 0 for nowhere."""

    time: int = 0
    cpu: int = 0


@dataclass
class PerfAttr:
    """An event: what perf_event_open was asked for, the ids of its instances, its name where the file has one."""

    attr: PerfEventAttr
    ids: NDArray[np.uint64]
    name: str = ""
    samples: int = field(default=0, init=False)

    @property
    def tracepoint(self) -> bool:
        """Whether its samples are records of a trace event."""
        return bool(self.attr.type == PERF_TYPE_TRACEPOINT)

    @property
    def label(self) -> str:
        """The name, or what there is instead."""
        return self.name or f"type {self.attr.type} config {self.attr.config:#x}"

    @property
    def clock(self) -> str:
        """ftrace's name of the clock that it was recorded with."""
        if not self.attr.flags & uapi.ATTR_USE_CLOCKID:
            return "perf"
        return _CLOCKS.get(self.attr.clockid, f"clock {self.attr.clockid}")

    @cached_property
    def places(self) -> dict[str, int]:
        """Offset of each word that its samples begin with."""
        words = [name for name, bit in _IN_ORDER if self.attr.sample_type & bit]
        return {name: _HEADER + 8 * index for index, name in enumerate(words)}

    @property
    def id_at(self) -> int:
        """Where a sample has the id of its event, 0 for nowhere."""
        return self.places.get("identifier", self.places.get("id", 0))

    @property
    def trailer(self) -> Trailer:
        """Where other records have their time and CPU."""
        if not self.attr.flags & uapi.ATTR_SAMPLE_ID_ALL:
            return Trailer()
        words = [name for name in reversed(_TRAILER) if name in self.places]
        ends = {name: 8 * (index + 1) for index, name in enumerate(words)}
        return Trailer(ends.get("time", 0), ends.get("cpu", 0))

    def layout(self) -> list[int]:
        """The row that perf_data_samples goes by."""
        row = [0] * layout_of.L_WORDS
        row[layout_of.L_WANTED] = int(self.tracepoint)
        row[layout_of.L_FIXED] = _HEADER + 8 * len(self.places)
        row[layout_of.L_TID_AT] = self.places.get("tid", 0)
        row[layout_of.L_TIME_AT] = self.places.get("time", 0)
        row[layout_of.L_CPU_AT] = self.places.get("cpu", 0)
        if self.attr.sample_type & uapi.PERF_SAMPLE_READ:
            row[layout_of.L_READ_SIZE], row[layout_of.L_READ_UNIT] = read_sizes(self.attr.read_format)
        row[layout_of.L_CALLCHAIN] = int(bool(self.attr.sample_type & uapi.PERF_SAMPLE_CALLCHAIN))
        return row

    def check(self, where: object) -> None:
        """RecordingError when samples of a tracepoint do not hold what an event needs."""
        if self.tracepoint:
            for name, bit in (("times", uapi.PERF_SAMPLE_TIME), ("raw data", uapi.PERF_SAMPLE_RAW)):
                if not self.attr.sample_type & bit:
                    raise RecordingError(f"{where}: the samples of {self.label} have no {name}")


def read_sizes(read_format: int) -> tuple[int, int]:
    """(bytes, bytes for each member of a group, 0 for no group) of what PERF_SAMPLE_READ puts into a sample."""
    times = (uapi.PERF_FORMAT_TOTAL_TIME_ENABLED, uapi.PERF_FORMAT_TOTAL_TIME_RUNNING)
    value = 8 + 8 * sum(bool(read_format & bit) for bit in (uapi.PERF_FORMAT_ID, uapi.PERF_FORMAT_LOST))
    head = 8 * sum(bool(read_format & bit) for bit in times)
    return (8 + head, value) if read_format & uapi.PERF_FORMAT_GROUP else (head + value, 0)


def read_attr(reader: ByteReader, room: int) -> PerfEventAttr:
    """A perf_event_attr that has `room` bytes in the file; of an older or newer perf, what this one knows of it."""
    start = reader.offset
    data = bytes(reader.bytes(room, "an attr"))
    if room < PERF_ATTR_SIZE_VER0:
        raise reader.error(f"an attr of {room} bytes, the smallest has {PERF_ATTR_SIZE_VER0}", start)
    size = int.from_bytes(data[4:8], "little") or PERF_ATTR_SIZE_VER0
    if not PERF_ATTR_SIZE_VER0 <= size <= room:
        raise reader.error(f"an attr says that it has {size} bytes, there is room for {room}", start + 4)
    known = ctypes.sizeof(PerfEventAttr)
    return PerfEventAttr.from_buffer_copy(data[: min(size, known)].ljust(known, b"\0"))


def shared_id_at(attrs: Sequence[PerfAttr], where: object) -> int:
    """Where all samples have their event's id; 0 when they need none to be told apart. RecordingError when they cannot be."""
    if len(attrs) == 1:
        return 0
    places = sorted({attr.id_at for attr in attrs})
    if len(places) > 1:
        raise RecordingError(f"{where}: events differ in where a sample has its id: at bytes {', '.join(map(str, places))}")
    if places == [0] and any(attr.layout() != attrs[0].layout() for attr in attrs):
        raise RecordingError(f"{where}: events with different samples, and no ids to tell these apart")
    return places[0]
