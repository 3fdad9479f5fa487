"""How long the programs of a kernel take over a recording: the same replay again and again, the ways to play it in turn, the
best of each.

Beside the programs runs a kernel without any: what an event costs by itself. Maps are changed by every round, as by a replay;
records in rings are thrown away behind it.

Must not know: formats, how results are shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastrtp.errors import OrderError
from fastrtp.replay.bind import Policy
from fastrtp.replay.run import replay

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel
    from fastrtp.record import Recording

NOTHING, LINKED, FUSED, PARALLEL = "nothing attached", "linked", "fused", "parallel"
MIN_ROUNDS = 3
_WAYS: dict[str, dict[str, Any]] = {
    NOTHING: {"tier": "fused"},
    LINKED: {"tier": "linked"},
    FUSED: {"tier": "fused"},
    PARALLEL: {"tier": "fused", "cpus": "recorded"},
}


@dataclass(frozen=True)
class ReplayTimes:
    """`seconds`: of the best round by way of playing; those that the programs do not allow are not in it.

    `events`: of the recording, `fired`: those of them with a program, `threads`: of "parallel".
    """

    events: int
    fired: int
    threads: int
    rounds: int
    seconds: dict[str, float]

    def ns_per_event(self, way: str) -> float:
        """Of all events of the recording."""
        return self.seconds[way] * 1e9 / self.events if self.events else 0.0

    def ns_per_fired(self, way: str) -> float:
        """What an event with a program takes more than without: arguments, the way to the programs, the programs."""
        more = self.seconds[way] - self.seconds[NOTHING]
        return max(more, 0.0) * 1e9 / self.fired if self.fired else 0.0


def measure(
    kernel: Kernel, recording: Recording, *, bare: Kernel, seconds: float = 1.0, missing: Policy = "zero",
    progress: Callable[[int, int], None] | None = None,
) -> ReplayTimes:  # fmt: skip
    """Play `recording` for about `seconds`, three rounds of each way at least. `bare`: a kernel with nothing attached.

    `progress(ms done, ms in all)`. Errors are those of replay().
    """
    ways = {way: options for way, options in _WAYS.items() if way != PARALLEL or recording.cpus > 1}
    best: dict[str, float] = {}
    fired = rounds = 0
    threads = 1
    start = time.perf_counter()
    while rounds < MIN_ROUNDS or time.perf_counter() - start < seconds:
        for way, options in list(ways.items()):
            try:
                report = replay(bare if way == NOTHING else kernel, recording, missing=missing, **options)
            except OrderError:
                del ways[way]
                continue
            _throw_away(kernel)
            if way != NOTHING and (report.tier != options["tier"] or (way == PARALLEL and report.threads == 1)):
                del ways[way]
                continue
            best[way] = min(best.get(way, report.seconds), report.seconds)
            fired = max(fired, report.fired)
            threads = max(threads, report.threads)
            if progress is not None:
                progress(min(int(1e3 * (time.perf_counter() - start)), int(1e3 * seconds)), int(1e3 * seconds))
        rounds += 1
    return ReplayTimes(recording.events, fired, threads, rounds, best)


def _throw_away(kernel: Kernel) -> None:
    for bpf_map in kernel.maps:
        rings = getattr(bpf_map.map, "rings", None)
        for ring in rings.values() if rings is not None else [bpf_map.map] if hasattr(bpf_map.map, "reader") else []:
            ring.reader.discard()
    kernel.memory.take_signals()
