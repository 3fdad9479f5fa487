"""What a replay did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fastrtp.shown import Shown

if TYPE_CHECKING:
    from .fidelity import ReadFidelity
    from .recorded_kernel import KernelMatch
    from .tables import MapTable


@dataclass(frozen=True)
class ProgramReport:
    """One program's part: runs, and runs that its own recursion prevented."""

    run_cnt: int
    recursion_misses: int


@dataclass(frozen=True, repr=False)
class ReplayReport(Shown):
    """Result of Kernel.replay.

    `events`: events of the recording that were played; `fired`: those whose tracepoint had a program; `seconds`: wall
    time of the playing alone (reading and binding aside: `prepare_seconds`); `faulted_reads`: reads by programs of memory
    that the recording cannot supply; `lost`: events that the recorder lost, by CPU; `missing`: arguments, members and other
    things that programs can read and the recording does not have, with how often the policy answered (`ReadFidelity`);
    `printk`: what bpf_trace_printk wrote, and `printk_lost` lines for which there was no room; `dropped`: records that found no
    room, by map (fastrtp.replay.losses); `signals_lost`: signals that are not in Kernel.signals(); `interrupted`: stopped early;
    `damaged`: pages of the recording that could not be read, by CPU; `notes`: what else is to be said of it;
    `kernels`: which kernel made the recording, and whose types it was replayed with;
    `series`: with `every`, what each map held at each moment;
    `tier`: "linked", "fused", or "fused, linked" for some of each; `threads`: how many played, 1 in the order of all events.
    """

    events: int
    fired: int
    seconds: float
    prepare_seconds: float
    programs: Mapping[str, ProgramReport]
    faulted_reads: int
    lost: Mapping[int, int]
    missing: Sequence[ReadFidelity] = ()
    printk: Sequence[tuple[int, int, int, bytes]] = field(default=(), repr=False)
    printk_lost: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    signals_lost: int = 0
    interrupted: bool = False
    tier: str = "linked"
    threads: int = 1
    damaged: Mapping[int, int] = field(default_factory=dict)
    notes: Sequence[str] = ()
    kernels: KernelMatch | None = None
    series: Mapping[str, MapTable] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        runs = ", ".join(f"{name} {row.run_cnt:,}" for name, row in self.programs.items())
        notes = f", {len(self.missing)} reads of what is not recorded" if self.missing else ""
        notes += f", {sum(self.dropped.values()):,} records dropped" if any(self.dropped.values()) else ""
        notes += f", {sum(self.lost.values()):,} events lost by the recorder" if any(self.lost.values()) else ""
        rate = f"{self.events_per_second / 1e6:,.1f} M events/s"
        interrupted = ", interrupted" if self.interrupted else ""
        return f"<ReplayReport {self.events:,} events, {rate}; runs: {runs or 'none'}{notes}{interrupted}>"

    @property
    def events_per_second(self) -> float:
        """Rate of the playing."""
        return self.events / self.seconds if self.seconds > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "events": self.events,
            "fired": self.fired,
            "seconds": self.seconds,
            "prepare_seconds": self.prepare_seconds,
            "events_per_second": self.events_per_second,
            "programs": {
                name: {"run_cnt": row.run_cnt, "recursion_misses": row.recursion_misses} for name, row in self.programs.items()
            },
            "faulted_reads": self.faulted_reads,
            "lost": {str(cpu): count for cpu, count in self.lost.items()},
            "damaged": {str(cpu): count for cpu, count in self.damaged.items()},
            "notes": list(self.notes),
            "kernels": self.kernels.as_dict() if self.kernels is not None else None,
            "missing": [row.as_dict() for row in self.missing],
            "printk_lost": self.printk_lost,
            "dropped": dict(self.dropped),
            "signals_lost": self.signals_lost,
            "interrupted": self.interrupted,
            "tier": self.tier,
            "threads": self.threads,
        }
