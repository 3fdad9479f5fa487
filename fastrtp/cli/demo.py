"""`fastrtp demo`: the programs that the package ships over the recording that it ships."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.terminal import console, need_native, number, plain, scaled, seconds, table

if TYPE_CHECKING:
    from rich.console import Console

    from fastrtp.kernel.loader.object import BpfObject
    from fastrtp.record import Recording

RECORDING = "churn.trace.dat"
_PROCESSES = 8
_MATRIX = 8
_BAR = 40


@click.command("demo", short_help="Show what three BPF programs find in a shipped recording.")
def demo_command() -> None:
    """Replay a recording that comes with the package through three BPF programs, and show what they found."""
    from importlib import resources

    need_native()
    from fastrtp.kernel import Kernel
    from fastrtp.programs import PROGRAMS, read_object
    from fastrtp.record import Recording
    from fastrtp.replay import replay

    out = console()
    with resources.as_file(resources.files("fastrtp.record").joinpath("data", RECORDING)) as path:
        recording = Recording.open(path)
    with Kernel(cpus=recording.cpus) as kernel:
        objects = {name: kernel.load(read_object(name), name=f"{name}.bpf.o") for name in PROGRAMS}
        links = [link for loaded in objects.values() for link in loaded.attach()]
        report = replay(kernel, recording)
        runs = sum(program.run_cnt for loaded in objects.values() for program in loaded.programs.values())
        _headline(out, recording, len(links))
        _run_queue_latency(out, objects["runqlat"])
        _system_calls(out, objects["syscount"], recording.comms)
        _context_switches(out, objects["switches"])
        out.print(
            f"{number(report.events)} events in {seconds(report.seconds)}: {scaled(report.events_per_second, 'events/s')}; "
            f"{len(links)} programs ran {number(runs)} times", style="bold",
        )  # fmt: skip
        out.print("The same with programs and a recording of your own: fastrtp replay PROGRAM.bpf.o trace.dat", style="dim")


def _headline(out: Console, recording: Recording, programs: int) -> None:
    span = int(recording.time[-1] - recording.time[0]) / 1e9
    machine = next((word for word in recording.uname.split() if word[:1].isdigit()), recording.uname)
    out.print(f"{seconds(span)} in the life of a machine with {recording.cpus} CPUs (Linux {machine}), as trace-cmd recorded it, "
              f"seen by {programs} BPF programs", style="bold")  # fmt: skip
    out.print()


def _run_queue_latency(out: Console, loaded: BpfObject) -> None:
    from fastrtp.cli.render import log2_lines

    rows = [value for _, value in loaded.maps["runqlat"].items()]
    slots = [sum(column) for column in zip(*(row["slots"] for row in rows), strict=True)]
    waits, total = sum(row["count"] for row in rows), sum(row["total_us"] for row in rows)
    out.print("How long tasks waited for a CPU", style="bold cyan")
    for line in log2_lines(slots, "us", _BAR):
        out.print(f"  {line}")
    out.print(f"  {number(waits)} waits of {len(rows)} threads, {total / max(waits, 1):,.0f} us on average", style="dim")
    out.print()


def _system_calls(out: Console, loaded: BpfObject, comms: dict[int, str]) -> None:
    from fastrtp.cli.render import bar

    rows = sorted(loaded.maps["syscount"].items(), key=lambda item: item[1]["count"], reverse=True)
    most = rows[0][1]["count"] if rows else 0
    out.print("System calls by process", style="bold cyan")
    printed = table("  pid", "command", "calls", "failed", "mean time", "", numbers=("  pid", "calls", "failed", "mean time"))
    for pid, row in rows[:_PROCESSES]:
        mean = seconds(row["total_ns"] / max(row["count"], 1) / 1e9)
        printed.add_row(str(pid), plain(comms.get(pid, row["comm"])), number(row["count"]), number(row["errors"]), mean,
                        bar(row["count"], most, _BAR // 2))  # fmt: skip
    out.print(printed)
    out.print(f"  {number(sum(row['count'] for _, row in rows))} calls of {len(rows)} threads", style="dim")
    out.print()


def _context_switches(out: Console, loaded: BpfObject) -> None:
    pairs: Counter[tuple[str, str]] = Counter()
    activity: Counter[str] = Counter()
    best: tuple[int, dict[str, Any]] = (0, {})
    for key, count in loaded.maps["switches"].items():
        prev, following = (_family(key[f"{side}_comm"]) for side in ("prev", "next"))
        pairs[prev, following] += count
        activity[prev] += count
        activity[following] += count
        best = max(best, (count, key), key=lambda row: row[0])
    names = [name for name, _ in activity.most_common(_MATRIX)]
    out.print("Who gave the CPU to whom", style="bold cyan")
    printed = table("  from \\ to", *(plain(name) for name in names), numbers=tuple(plain(name) for name in names))
    most = max(pairs.values(), default=0)
    for prev in names:
        cells = [pairs[prev, following] for following in names]
        printed.add_row(f"  {plain(prev)}", *(_shaded(count, most) for count in cells))
    out.print(printed)
    count, key = best
    if key:
        prev, following = (f"{plain(key[f'{side}_comm'])} ({key[f'{side}_pid']})" for side in ("prev", "next"))
        out.print(f"  most often: {prev} to {following}, {number(count)} times", style="dim")
    out.print()


def _family(comm: str) -> str:
    """Threads of one kind together: swapper/0 and swapper/1 are one idle task."""
    return comm.partition("/")[0] if comm.startswith("swapper/") else comm


def _shaded(count: int, most: int) -> Any:
    from rich.text import Text

    style = "dim" if count * 20 < most else "bold" if count * 2 > most else ""
    return Text(number(count) if count else ".", style=style)
