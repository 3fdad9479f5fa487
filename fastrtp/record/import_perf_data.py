"""From a perf.data file to a Recording: samples in time order, one table per tracepoint, callchains as stacks behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import RecordingError
from fastrtp.trace.perf_attr import ATTR_FREQ

from .columns import EventTable, gather_heap
from .event_tables import common_fields, event_tables
from .perf_data import PerfData
from .perf_data_samples import Samples, scan
from .perf_data_tasks import read_side_facts
from .recording import Recording

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]
_STACKS = ("kernel_stack", "user_stack")


def import_perf_data(path: Path, progress: Progress | None = None, instance: str | None = None) -> Recording:
    """Read the samples of all tracepoints of a perf.data file, or of the folder of several that perf record --threads writes."""
    if instance:
        raise RecordingError(f"{path}: no instance {instance!r}: a perf.data file has none")
    perf = PerfData(path)
    tracepoints = [attr for attr in perf.attrs if attr.tracepoint]
    if not tracepoints:
        raise RecordingError(f"{path}: no tracepoint among its events: {', '.join(attr.label for attr in perf.attrs[:8])}")
    if perf.tracing is None:
        raise RecordingError(f"{path}: tracepoints, but no event formats")
    tracing = perf.tracing
    facts = read_side_facts(perf)
    samples = scan(perf, common_fields(tracing.formats, tracing.long_size, path), progress)
    made = event_tables(samples.data, samples.type, samples.offset, samples.length, tracing.formats, tracing.long_size)
    keep: Any = slice(None) if made.known is None else made.known
    clock = tracepoints[0].clock
    recording = Recording(
        time=samples.time[keep],
        cpu=samples.cpu[keep],
        event=made.event,
        row=made.row,
        pid=samples.pid[keep],
        tables=made.tables,
        comms=facts.comms,
        groups=facts.tgids | _sampled_groups(samples),
        lost=facts.lost,
        gaps=facts.gaps,
        unknown=made.unknown,
        clock=clock,
        uname=perf.features.uname,
        cpus=max(perf.features.cpus, int(samples.cpu.max()) + 1 if len(samples.cpu) else 1),
        facts=perf.features.facts(clock, int(samples.time[0]) if len(samples.time) else None),
        notes=_notes(perf, samples, made.notes),
        printk=tracing.printk,
        source=str(path),
        kallsyms_text=perf.kallsyms,
    )
    if samples.chain is not None:
        _add_stacks(recording, samples.data, samples.chain[keep])
    if progress is not None:
        progress(perf.size, perf.size)
    return recording


def _sampled_groups(samples: Samples) -> dict[int, int]:
    """Group of each thread that a sample tells of; the latest, where a pid was used twice."""
    threads = np.flatnonzero((samples.tgid != samples.pid) & (samples.tgid > 0) & (samples.pid > 0))
    pairs = (samples.pid[threads].astype(np.int64) << 32) | samples.tgid[threads]
    _, last = np.unique(pairs[::-1], return_index=True)
    chosen = threads[::-1][np.sort(last)[::-1]]
    return dict(zip(samples.pid[chosen].tolist(), samples.tgid[chosen].tolist(), strict=True))


def _notes(perf: PerfData, samples: Samples, more: list[str]) -> list[str]:
    notes = [*perf.features.notes, *perf.notes, *more]
    for attr in perf.attrs:
        if not attr.samples:
            continue
        if not attr.tracepoint:
            notes.append(f"{attr.samples} samples of {attr.label} are no tracepoint's")
        elif attr.attr.flags & ATTR_FREQ:
            notes.append(f"not every {attr.label} was recorded: {attr.attr.sample_period} samples a second")
        elif attr.attr.sample_period > 1:
            notes.append(f"not every {attr.label} was recorded: one of {attr.attr.sample_period}")
    if samples.unknown:
        notes.append(f"{samples.unknown} samples have no event's id")
    if any(attr.samples and attr.tracepoint and "cpu" not in attr.places for attr in perf.attrs):
        notes.append("samples without a CPU count as CPU 0's")
    return notes


def _add_stacks(recording: Recording, data: NDArray[np.uint8], chains: NDArray[np.int64]) -> None:
    """Callchains as ftrace's stack events: behind the event that they belong to, with its time, CPU and pid."""
    from fastrtp.native.library import library

    chains = np.ascontiguousarray(chains)
    parts = np.empty((len(chains), 2, 2), np.int64)
    library().perf_data_callchains(data.ctypes.data, chains.ctypes.data, len(chains), parts.ctypes.data)
    has = parts[:, :, 1] > 0
    slots = 1 + has.sum(axis=1)
    place = np.cumsum(slots) - slots
    event = np.empty(int(slots.sum()), np.uint16)
    row = np.empty(len(event), np.uint32)
    event[place], row[place] = recording.event, recording.row
    for which, name in enumerate(_STACKS):
        mine = np.flatnonzero(has[:, which])
        if not len(mine):
            continue
        at = place[mine] + 1 + (has[mine, 0] if which else 0)
        event[at], row[at] = len(recording.tables), np.arange(len(mine))
        starts, sizes = (np.ascontiguousarray(parts[mine, which, word]) for word in (0, 1))
        column, heap = gather_heap(data, starts, sizes)
        recording.tables.append(EventTable(name, "ftrace", {"caller": column}, None, {"caller": heap}, len(mine)))
    recording.event, recording.row = event, row
    recording.time = np.repeat(recording.time, slots)
    recording.cpu, recording.pid = np.repeat(recording.cpu, slots), np.repeat(recording.pid, slots)
