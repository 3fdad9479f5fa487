"""Timing on a machine that has other things to do: rounds of all contenders take turns, and the best round of each counts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping

Loop = Callable[[int], object]
"""loop(n): do the thing n times."""

_ROUNDS = 9
_ENOUGH = 20e-6


def budget() -> float:
    """Seconds that a comparison may measure for: $FASTRTP_BENCH_SECONDS, 0.25 without it."""
    return float(os.environ.get("FASTRTP_BENCH_SECONDS", "0.25"))


def best_ns(loops: Mapping[str, Loop], seconds: float | None = None, rounds: int = _ROUNDS) -> dict[str, float]:
    """Best ns per iteration of each loop, measured in `rounds` rounds in turn, in about `seconds` altogether."""
    each = (seconds if seconds is not None else budget()) / rounds / len(loops)
    counts = {name: _calibrate(loop, each) for name, loop in loops.items()}
    best = dict.fromkeys(loops, float("inf"))
    for _ in range(rounds):
        for name, loop in loops.items():
            best[name] = min(best[name], _seconds(loop, counts[name]) / counts[name])
    return {name: value * 1e9 for name, value in best.items()}


def _seconds(loop: Loop, count: int) -> float:
    start = time.perf_counter()
    loop(count)
    return time.perf_counter() - start


def _calibrate(loop: Loop, seconds: float) -> int:
    """How many iterations take about that long; also the warm-up (the first call may compile something)."""
    loop(1)
    count = 1
    while True:
        taken = _seconds(loop, count)
        if taken >= seconds / 4:
            return max(1, int(count * seconds / taken))
        count = max(count * 2, int(count * seconds / taken / 2)) if taken > _ENOUGH else count * 8


def times(function: Callable[[], object]) -> Loop:
    """A loop of Python calls."""

    def loop(count: int) -> None:
        for _ in range(count):
            function()

    return loop
