"""How a parallel replay is cut: which CPU's events go to which thread, and where the windows end.

Pure: columns in, columns out.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastrtp.errors import ReplayError

Cpus = Literal["recorded"] | int
Window = int | str | None

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_TIME = re.compile(r"(\d+)\s*(ns|us|ms|s)")


def parse_cpus(text: str) -> Cpus:
    """ "recorded" or a number of threads. ReplayError."""
    if text == "recorded":
        return "recorded"
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise ReplayError(f"cpus {text!r} is neither recorded nor a number of threads")


def parse_window(window: Window) -> tuple[int, bool] | None:
    """(size, whether in ns) of a window: None, events, "10ms" (units ns, us, ms, s), "4096", or "none". ReplayError."""
    if window is None or window == "none":
        return None
    if isinstance(window, str):
        found = _TIME.fullmatch(window.strip())
        if found is not None and int(found[1]):
            return int(found[1]) * _UNITS[found[2]], True
        if not window.isdigit():
            raise ReplayError(f"window {window!r} is neither a number of events nor a time such as 10ms, nor none")
        window = int(window)
    if window < 1:
        raise ReplayError(f"a window has at least 1 event, not {window}")
    return window, False


def owners(cpu: NDArray[np.uint16], cpus: Cpus) -> NDArray[np.int64]:
    """The thread of each CPU, so that each thread has about as many events.

    No more threads than CPUs with events, and at least one. ReplayError for a number below 1.
    """
    counts = np.bincount(cpu) if len(cpu) else np.zeros(1, np.int64)
    seen = np.flatnonzero(counts)
    wanted = len(seen) if cpus == "recorded" else int(cpus)
    if wanted < 1 and cpus != "recorded":
        raise ReplayError(f"a replay has at least 1 thread, not {cpus}")
    threads = max(min(wanted, len(seen)), 1)
    owner = np.zeros(len(counts), np.int64)
    loads = [0] * threads
    for number in seen[np.argsort(-counts[seen], kind="stable")].tolist():  # the largest first, to whom has least
        owner[number] = least = loads.index(min(loads))
        loads[least] += int(counts[number])
    return owner


def lanes(cpu: NDArray[np.uint16], cpus: Cpus) -> list[NDArray[Any]]:
    """For each thread the indices of its events, in order. ReplayError as from owners()."""
    owner = owners(cpu, cpus)
    of_event = owner[cpu] if len(cpu) else np.zeros(0, np.int64)
    return [np.flatnonzero(of_event == thread) for thread in range(int(owner.max()) + 1)]


def boundaries(time: NDArray[np.int64], window: tuple[int, bool], most: int) -> NDArray[np.int64]:
    """Ends of the windows as indices of events, the last the number of all; no window has more than `most` events."""
    count = len(time)
    size, in_ns = window
    every = np.arange(most, count, most, dtype=np.int64)
    if in_ns:
        number = (time - time[0]) // size if count else time
        ends = np.flatnonzero(number[1:] != number[:-1]) + 1
        ends = np.union1d(ends, every)
    else:
        ends = np.arange(min(size, most), count, min(size, most), dtype=np.int64)
    return np.append(ends, count).astype(np.int64)


def lane_ends(lane: NDArray[Any], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each window how many of a thread's events lie before its end."""
    return np.searchsorted(lane, ends).astype(np.int64)


def own_ends(events: int, step: int, windows: int) -> NDArray[np.int64]:
    """The same without any order between threads: `step` events of its own a window."""
    return np.minimum(np.arange(1, windows + 1, dtype=np.int64) * step, events)
