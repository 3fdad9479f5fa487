"""Timing on a machine that has other things to do: rounds of all contenders take turns, and the best round of each counts.

Rounds are short and many: whoever else runs on the machine takes slices of a few milliseconds, and some rounds fall between
them. A best round is believed when another came close to it; until then there are more, for twice the time at most.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

Loop = Callable[[int], object]
"""loop(n): do the thing n times."""

_ROUND_SECONDS = 1e-3
_MIN_ROUNDS = 7
_CLOSE = 1.02
_PATIENCE = 2
_ENOUGH = 20e-6
_LONG = 50e-3
_AGAIN = 3


def budget() -> float:
    """Seconds that a comparison may measure for: $FASTRTP_BENCH_SECONDS, 0.25 without it."""
    return float(os.environ.get("FASTRTP_BENCH_SECONDS", "0.25"))


def best_ns(loops: Mapping[str, Loop], seconds: float | None = None, rounds: int | None = None) -> dict[str, float]:
    """Best ns per iteration of each loop, measured in rounds in turn, in about `seconds` altogether.

    `rounds`: so many, or a few more; without it as many as make a round about a millisecond.
    """
    seconds = budget() if seconds is None else seconds
    share = seconds / len(loops)
    wanted = rounds or max(int(share / _ROUND_SECONDS), _MIN_ROUNDS)
    counts: dict[str, int] = {}
    turn_seconds = 0.0
    for name, loop in loops.items():
        counts[name], estimate = _calibrate(loop, share / wanted)
        turn_seconds += estimate
    if rounds is None:  # an iteration may be longer than a round should be
        wanted = max(min(wanted, int(seconds / turn_seconds)), _MIN_ROUNDS)
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(wanted * _PATIENCE):
        if turn >= wanted and all(_believed(times) for times in taken.values()):
            break
        for name, loop in loops.items():
            taken[name].append(_seconds(loop, counts[name]) / counts[name])
    return {name: min(times) * 1e9 for name, times in taken.items()}


def _believed(times: list[float]) -> bool:
    best, *others = sorted(times)
    return not others or others[0] <= best * _CLOSE


def _seconds(loop: Loop, count: int) -> float:
    start = time.perf_counter()
    loop(count)
    return time.perf_counter() - start


def _calibrate(loop: Loop, seconds: float) -> tuple[int, float]:
    """How many iterations take about that long, and how long they take; also the warm-up: a first call may compile something."""
    loop(1)
    count = 1
    while True:
        taken = _seconds(loop, count)
        if taken < _LONG:  # an interruption here would make all rounds too short, and what surrounds the loop part of the result
            taken = min(taken, *(_seconds(loop, count) for _ in range(_AGAIN)))
        if taken >= seconds / 4:
            wanted = max(1, int(count * seconds / taken))
            return wanted, wanted * taken / count
        count = max(count * 2, int(count * seconds / taken / 2)) if taken > _ENOUGH else count * 8


def times(function: Callable[[], object]) -> Loop:
    """A loop of Python calls."""

    def loop(count: int) -> None:
        for _ in range(count):
            function()

    return loop
