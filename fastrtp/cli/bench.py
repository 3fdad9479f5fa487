"""`fastrtp bench`: how long an object takes to load, how large its code is, and what an event of a recording costs with it."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastrtp.cli.objects import read_spec
from fastrtp.cli.recordings import open_recording
from fastrtp.cli.replay import make_kernel, types_of
from fastrtp.cli.setup import Setup, setup_options
from fastrtp.cli.terminal import Bar, console, number, plain, scaled, table
from fastrtp.cli.tracepoints import kernel_types
from fastrtp.entry_cache import temporary_folder
from fastrtp.errors import ReplayError

if TYPE_CHECKING:
    from rich.console import Console

    from fastrtp.kernel import Kernel
    from fastrtp.kernel.loader.object import BpfObject
    from fastrtp.replay.measure import ReplayTimes

_LOADS = 3
_ORIGINS = {
    "nothing attached": "",
    "linked": "through tracepoint and probes",
    "fused": "loop and programs compiled into one",
    "parallel": "fused, a thread for each recorded CPU",
}


@click.command("bench", short_help="Measure an object: load time, code size, time per event.")
@click.argument("obj", metavar="OBJ", type=click.Path(path_type=Path))
@click.argument("recording", required=False, type=click.Path(path_type=Path))
@click.option("--seconds", type=click.FloatRange(min=0), default=2.0, show_default=True, help="Time for the replays.")
@click.option(
    "--missing",
    type=click.Choice(["zero", "fault", "strict"]),
    default="zero",
    show_default=True,
    help="What programs read where the recording has nothing: zeros, unreadable memory, or an error before the start.",
)
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@click.option("--btf", metavar="host|PATH", help="The kernel's types, instead of those that the package ships.")
@setup_options
def bench_command(
    obj: Path, recording: Path | None, seconds: float, missing: Any, form: str, btf: str | None, setup: Setup
) -> None:  # fmt: skip
    """Measure the programs of OBJ: how long they take to load, how large their native code is, and what they add to each event of
    RECORDING (default: the one that the package ships).

    Rounds take turns, and the best of each counts. A cold load verifies and compiles everything, a cached one finds it.
    """
    data, spec = read_spec(obj, lambda: types_of(btf, recording) if recording is not None else kernel_types(btf))
    if not any(program.attach_name for program in spec.programs.values()):
        raise ReplayError(f"{obj}: no program that names its tracepoint, so none to replay events for")
    if recording is None:
        from fastrtp.record.demo import demo_recording

        recording = demo_recording()
    opened = open_recording(recording)
    from fastrtp.replay.measure import measure

    with contextlib.ExitStack() as stack:
        kernel, bare = (make_kernel(btf, opened, version=setup.version) for _ in range(2))
        stack.callback(bare.shutdown)
        stack.callback(kernel.shutdown)
        bar = stack.enter_context(Bar("measuring", ""))
        loads = load_times(kernel, data, obj.name, bar, setup)
        loaded = setup.load(kernel, data, obj.name)
        if not any(program.auto_attachable for program in loaded.programs.values()):
            raise ReplayError(f"{obj}: none of its programs can be attached by its section")
        with loaded.attach():
            times = measure(kernel, opened, bare=bare, seconds=seconds, missing=missing, progress=bar)
        found = as_json(loaded, loads, recording, times)
    if form == "json":
        from fastrtp.cli.render import to_json

        click.echo(to_json(found))
    else:
        _print(console(), found)


def load_times(kernel: Kernel, data: bytes, name: str, progress: Bar, setup: Setup) -> dict[str, float]:
    """Best milliseconds of a load with nothing in the cache ("cold_ms") and with everything in it ("cached_ms")."""
    best: dict[str, float] = {}
    setup.load(kernel, data, name).close()
    for done in range(_LOADS):
        for which, around in (("cold_ms", temporary_folder), ("cached_ms", contextlib.nullcontext)):
            with around():
                start = time.perf_counter()
                loaded = setup.load(kernel, data, name)
                took = (time.perf_counter() - start) * 1e3
                loaded.close()
            best[which] = min(best.get(which, took), took)
        progress(done + 1, _LOADS, "loading")
    return best


def as_json(loaded: BpfObject, loads: dict[str, float], recording: Path, times: ReplayTimes) -> dict[str, Any]:
    """Everything as JSON-ready values."""
    from fastrtp.kernel.objects.jited import jited_functions
    from fastrtp.replay.measure import NOTHING

    programs = [
        {
            "name": program.name,
            "section": program.spec.section,
            "tracepoint": program.spec.attach_name if program.auto_attachable else None,
            "insns": len(program.spec.insns),
            "verified_insns": program.prog.verified.verified_insns,
            "jited_bytes": sum(len(function.code) for function in jited_functions(program.prog)),
        }
        for program in loaded.programs.values()
    ]
    ways = {
        way: {
            "seconds": taken,
            "ns_per_event": times.ns_per_event(way),
            "ns_per_fired": None if way == NOTHING or not times.fired else times.ns_per_fired(way),
            "ratio_to_nothing": taken / times.seconds[NOTHING] if times.seconds[NOTHING] else None,
        }
        for way, taken in times.seconds.items()
    }
    played = {"recording": str(recording), "events": times.events, "fired": times.fired, "rounds": times.rounds}
    return {
        "object": loaded.name,
        "load": loads,
        "programs": programs,
        "skipped": loaded.skipped,
        "replay": played | {"threads": times.threads, "ways": ways},
    }


def _print(out: Console, found: dict[str, Any]) -> None:
    load, played = found["load"], found["replay"]
    out.print(f"load {load['cold_ms']:,.3g} ms cold, {load['cached_ms']:,.3g} ms cached")
    out.print()
    rows = table("program", "tracepoint", "insns", "verified", "native code", numbers=("insns", "verified", "native code"))
    for program in found["programs"]:
        rows.add_row(
            plain(program["name"]), plain(program["tracepoint"] or "(not attached)"), number(program["insns"]),
            number(program["verified_insns"]), f"{number(program['jited_bytes'])} B",
        )  # fmt: skip
    out.print(rows)
    for name, why in found["skipped"].items():
        out.print(f"not loaded: {plain(name)}: {plain(why)}", style="dim")
    out.print()
    events = f"{number(played['events'])} events, {number(played['fired'])} with a program"
    out.print(f"{plain(Path(played['recording']).name)}: {events}; best of {played['rounds']} rounds")
    numbers = ("ns/event", "ratio", "for one with a program", "rate")
    rows = table("replay", *numbers, "", numbers=numbers)
    for way, row in played["ways"].items():
        ratio = "" if row["ratio_to_nothing"] is None else f"{row['ratio_to_nothing']:.2f}"
        fired = "" if row["ns_per_fired"] is None else f"+{number(row['ns_per_fired'])}"
        rate = scaled(1e9 / row["ns_per_event"], "events/s") if row["ns_per_event"] else ""
        rows.add_row(way, number(row["ns_per_event"]), ratio, fired, rate, _ORIGINS[way])
    out.print(rows)
    if not played["fired"]:
        out.print("no event of the recording has one of these programs: another recording tells more", style="dim")
