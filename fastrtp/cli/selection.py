"""Options that take a part of a recording before anything is done with it: --from --to --cpu --pid --comm --event."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fastrtp.record import Recording

_OPTIONS = (
    click.option("--from", "start", metavar="TIME", help="Only events from this time on: 1.5s, 20ms: since the first event; "
                 "39.2572: seconds of the recording's clock, as fastrtp events shows them."),
    click.option("--to", "end", metavar="TIME", help="Only events before this time."),
    click.option("--cpu", "only_cpus", multiple=True, metavar="N[-M]", help="Only events on these CPUs."),
    click.option("--pid", "pids", multiple=True, type=int, metavar="PID", help="Only events of this running task."),
    click.option("--comm", "comms", multiple=True, metavar="NAME", help="Only events of running tasks of this name, or pattern."),
    click.option("--event", "events", multiple=True, metavar="NAME", help="Only this event: sched_switch, 'irq:*'."),
)  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """What the options say."""

    start: str | None
    end: str | None
    cpus: tuple[int, ...]
    pids: tuple[int, ...]
    comms: tuple[str, ...]
    events: tuple[str, ...]

    def of(self, recording: Recording) -> Recording:
        """The part of a recording. RecordingError."""
        if self == Selection(None, None, (), (), (), ()):
            return recording
        return recording.select(
            start=self.start, end=self.end, cpus=self.cpus or None, pids=self.pids or None, comms=self.comms or None,
            events=self.events or None,
        )  # fmt: skip


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets a `selection`."""

    @functools.wraps(command)
    def wrapped(
        *args: Any, start: str | None, end: str | None, only_cpus: tuple[str, ...], pids: tuple[int, ...],
        comms: tuple[str, ...], events: tuple[str, ...], **options: Any,
    ) -> Any:  # fmt: skip
        return command(*args, selection=Selection(start, end, _numbers(only_cpus), pids, comms, events), **options)

    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


def _numbers(texts: tuple[str, ...]) -> tuple[int, ...]:
    found: list[int] = []
    for text in texts:
        for part in text.split(","):
            first, _, last = part.partition("-")
            if not first.isdigit() or (last and not last.isdigit()) or len(part) > 12:
                raise click.UsageError(f"cpu {text!r} is neither a number nor a range such as 0-3")
            found.extend(range(int(first), min(int(last or first), 1 << 16) + 1))
    return tuple(found)
