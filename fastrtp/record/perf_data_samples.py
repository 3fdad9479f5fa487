"""The samples of a perf.data file's tracepoints as arrays, in time order.

Sorted by their own times, as perf itself does: a sample's time is taken before its place in the buffer, so that an interrupt
in between has the earlier place and the later time. Equal times keep the file's order, which is each CPU's order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import RecordingError

from . import perf_data_layout as layout
from .perf_data import PerfData
from .perf_data_attr import shared_id_at
from .perf_data_streams import ERRORS, Stream
from .ring_buffer import CommonFields

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]
_PIECE = 1 << 25
"""Bytes between two calls of progress."""
_COLUMNS = {
    "offset": (layout.S_OUT_OFFSET, np.int64), "time": (layout.S_OUT_TIME, np.int64), "type": (layout.S_OUT_TYPE, np.uint16),
    "pid": (layout.S_OUT_PID, np.int32), "length": (layout.S_OUT_LENGTH, np.int32), "cpu": (layout.S_OUT_CPU, np.uint16),
    "tgid": (layout.S_OUT_TGID, np.int32), "chain": (layout.S_OUT_CHAIN, np.int64),
}  # fmt: skip


@dataclass(slots=True)
class Samples:
    """All samples in time order: raw data at data[offset], `length` bytes with padding. `tgid`: the pid where not known.

    `chain`: place of the callchain in `data`, -1 for none; None without any. `unknown`: samples whose id is no event's.
    """

    data: NDArray[np.uint8]
    offset: NDArray[np.int64]
    length: NDArray[np.int32]
    time: NDArray[np.int64]
    cpu: NDArray[np.uint16]
    type: NDArray[np.uint16]
    pid: NDArray[np.int32]
    tgid: NDArray[np.int32]
    chain: NDArray[np.int64] | None
    unknown: int


def scan(perf: PerfData, common: CommonFields, progress: Progress | None = None) -> Samples:
    """Take all samples apart and sort them by time; how many each attr has goes to `perf.attrs`. RecordingError."""
    stream = _joined(perf)
    layouts = np.array([attr.layout() for attr in perf.attrs], np.int64)
    ids = np.concatenate([attr.ids for attr in perf.attrs]).view(np.int64)
    owners = np.repeat(np.arange(len(perf.attrs)), [len(attr.ids) for attr in perf.attrs]).astype(np.int64)
    order = np.argsort(ids, kind="stable")
    ids, owners = ids[order], owners[order]
    chains = bool(layouts[layouts[:, layout.L_WANTED] != 0, layout.L_CALLCHAIN].any())
    try:
        columns = {name: np.empty(stream.samples, kind) for name, (_, kind) in _COLUMNS.items() if name != "chain" or chains}
    except MemoryError as error:
        raise RecordingError(f"{perf.path}: {stream.samples} samples do not fit into memory") from error
    state = np.zeros(layout.S_WORDS, np.int64)
    for word, value in (
        (layout.S_DATA, stream.data.ctypes.data), (layout.S_AT, stream.start), (layout.S_END, stream.end),
        (layout.S_ID_AT, shared_id_at(perf.attrs, perf.path)), (layout.S_IDS, ids.ctypes.data),
        (layout.S_ID_ATTRS, owners.ctypes.data), (layout.S_N_IDS, len(ids)), (layout.S_LAYOUTS, layouts.ctypes.data),
        (layout.S_TYPE_OFFSET, common.type_offset), (layout.S_PID_OFFSET, common.pid_offset),
        (layout.S_MIN_RECORD, common.size), (layout.S_CAPACITY, stream.samples),
        *((_COLUMNS[name][0], column.ctypes.data) for name, column in columns.items()),
    ):  # fmt: skip
        state[word] = value
    _run(stream, state, perf.size, progress)
    count = int(state[layout.S_COUNT])
    for attr, row in zip(perf.attrs, layouts, strict=True):
        attr.samples = int(row[layout.L_SEEN])
    time = columns["time"][:count]
    if count and int(time.min()) < 0:
        raise RecordingError(f"{perf.path}: a time stamp is beyond 63 bits")
    by_time = np.argsort(time, kind="stable")
    taken: dict[str, Any] = {name: column[:count][by_time] for name, column in columns.items()}
    return Samples(data=stream.data, unknown=int(state[layout.S_UNKNOWN]), **{"chain": None, **taken})


def _joined(perf: PerfData) -> Stream:
    """One stream with all samples: the streams hold whole records, so that one may follow the other."""
    streams = [stream for stream in perf.streams if stream.samples] or perf.streams[:1]
    if len(streams) == 1:
        return streams[0]
    try:
        data = np.concatenate([stream.data[stream.start : stream.end] for stream in streams])
    except MemoryError as error:
        raise RecordingError(f"{perf.path}: the records do not fit into memory") from error
    samples = sum(stream.samples for stream in streams)
    return Stream(f"{perf.path}: {len(streams)} streams together", data, 0, len(data), samples, np.empty(0, np.int64))


def _run(stream: Stream, state: NDArray[np.int64], size: int, progress: Progress | None) -> None:
    from fastrtp.native.library import library

    while state[layout.S_AT] < stream.end:
        state[layout.S_STOP] = min(int(state[layout.S_AT]) + _PIECE, stream.end)
        error = library().perf_data_samples(state.ctypes.data)
        if error:
            raise RecordingError(f"{stream.name}: offset {int(state[layout.S_ERROR_AT]):#x}: {ERRORS[error]}")
        if progress is not None:
            done = (int(state[layout.S_AT]) - stream.start) / max(stream.end - stream.start, 1)
            progress(int(done * size), size)
