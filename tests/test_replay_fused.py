"""The fused tier against the linked one: everything that a program or its user can see is the same."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from fastrtp.isa import assemble, encode
from fastrtp.jit.program import object_cache
from fastrtp.kernel import Kernel
from fastrtp.mem.objects import ObjectSpace
from fastrtp.programs import PROGRAMS, read_object
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay.bind import bind
from fastrtp.replay.fused import FusedReplay
from fastrtp.replay.linked import LinkedReplay
from fastrtp.replay.loop_text import Kind, loop_text

DATA = Path(__file__).resolve().parent / "data" / "replay"
RAW_TP = 17


COUNTING = encode(assemble("r0 = 0\nexit"))


def make(kernel: Kernel, recording: Recording, tier: str) -> Any:
    """The recording, ready to be played chunk by chunk through what is attached to the kernel."""
    protos = {table.name: kernel.tracepoints.proto(table.name) for table in recording.tables if table.name in kernel.tracepoints}
    bound = bind(recording, ObjectSpace(kernel.memory.arena, kernel.btf), protos)
    tracepoints = {name: kernel.tracepoints[name] for name in protos}
    if tier == "linked":
        return LinkedReplay(kernel.memory, bound, tracepoints)
    return FusedReplay(kernel, bound, tracepoints, eager=tier == "fused")


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


def outcome(recording: Recording, sources: list[bytes | Path], tier: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """(tier that ran, everything that can be seen afterwards) of a replay through all programs of some objects."""
    with Kernel(cpus=2) as kernel:
        objects = [kernel.load(source) for source in sources]
        for obj in objects:
            obj.attach()
        report = kernel.replay(recording, tier=tier, **options)
        seen: dict[str, Any] = {
            f"{number} {name}": dict(item.map.raw_items())
            for number, obj in enumerate(objects)
            for name, item in obj.maps.items()
            if item.map.map_type not in (3, 27)
        }
        for obj in objects:
            for name, item in obj.maps.items():
                if item.map.map_type == 27:
                    seen[name] = list(item.map.consume())
        seen["report"] = (report.events, report.fired, report.programs, report.faulted_reads, report.lost, report.printk)
        seen["stats"] = [[prog.record.stats[name].tolist() for name in ("active", "runs", "misses")] for prog in kernel.progs]
        seen["env"] = [kernel.memory.env[name].tolist() for name in ("time", "rng", "faulted", "output_nest", "printk_nest")]
        return report.tier, seen


def same(recording: Recording, sources: list[bytes | Path], **options: Any) -> dict[str, Any]:
    """What both tiers give."""
    linked, expected = outcome(recording, sources, "linked", **options)
    fused, actual = outcome(recording, sources, "fused", **options)

    assert (linked, fused) == ("linked", "fused")
    for name, value in expected.items():
        assert actual[name] == value, name
    return expected


@pytest.mark.parametrize("name", PROGRAMS)
def test_shipped_programs(demo: Recording, name: str):
    seen = same(demo, [read_object(name)])

    assert all(row.run_cnt for row in seen["report"][2].values())


def test_all_objects_at_once(demo: Recording):
    same(demo, [DATA / "recount.bpf.o", *(read_object(name) for name in PROGRAMS), DATA / "edges.bpf.o"])


@pytest.mark.parametrize("chunk", [1, 777])
def test_chunks_of_any_size(demo: Recording, chunk: int):
    seen = same(demo, [DATA / "recount.bpf.o", DATA / "edges.bpf.o"], chunk=chunk)

    assert seen["report"][0] == demo.events


def test_stacks_faults_nesting_tail_calls_casts_and_clocks(demo: Recording):
    seen = same(demo, [DATA / "edges.bpf.o"])

    sums = [int.from_bytes(value, "little") for value in seen["0 sums"].values()]
    runs = {name: row.run_cnt for name, row in seen["report"][2].items()}
    stack, context, faults, printed, nested, jumped, landed = sums[:7]
    assert stack == context == faults == runs["stack"] == seen["report"][3]
    assert printed == nested == runs["printing"] == len(seen["report"][5])
    assert (jumped, landed) == (runs["jumping"], runs["jumping"] + runs["landing"])
    assert all(sums)


@pytest.mark.parametrize("missing", ["zero", "fault"])
def test_policies(demo: Recording, missing: str):
    same(demo, [DATA / "recount.bpf.o", DATA / "edges.bpf.o"], missing=missing)


@pytest.mark.parametrize("recording", ["churn", "big"])
def test_reference_recordings(shared: Path, recording: str):
    source = Recording.open(shared / "recordings" / recording / "trace.dat")

    same(source, [shared / "recordings" / "truth.bpf.o", *(read_object(name) for name in PROGRAMS)])


def test_one_program_on_many_tracepoints_and_many_on_one(demo: Recording):
    text = encode(assemble("r0 = 0\nexit"))
    runs = {}
    for tier in ("linked", "fused"):
        with Kernel(cpus=2) as kernel:
            progs = [kernel.prog_load(RAW_TP, text, name=f"p{number}") for number in range(3)]
            for prog, name in [(0, "sched_switch"), (0, "sys_enter"), (1, "sched_switch"), (0, "sched_switch"), (2, "sys_exit")]:
                kernel.raw_tracepoint_open(name, progs[prog])
            report = kernel.replay(demo, tier=tier)
            runs[tier] = (report.fired, report.programs, report.tier)

    assert runs["fused"] == (*runs["linked"][:2], "fused")
    assert runs["fused"][1]["p0"].run_cnt > 2 * runs["fused"][1]["p1"].run_cnt > 0


def test_statistics_are_kept_by_the_linked_tier(demo: Recording):
    with Kernel(cpus=2) as kernel:
        kernel.raw_tracepoint_open("sched_switch", kernel.prog_load(RAW_TP, encode(assemble("r0 = 0\nexit")), name="p"))
        holder = kernel.enable_stats()

        def progress(done: int, total: int) -> None:
            if done == 30_000:
                kernel.close(holder)

        report = kernel.replay(demo, tier="fused", chunk=10_000, progress=progress)
        prog = next(iter(kernel.progs))

        assert report.tier == "fused, linked"
        assert 0 < prog.stats()[1] < prog.runs == report.programs["p"].run_cnt == report.fired
        assert prog.stats()[0] > 0


def test_a_loop_that_cannot_be_compiled_is_replayed_linked(demo: Recording, monkeypatch: pytest.MonkeyPatch):
    _tier, expected = outcome(demo, [DATA / "recount.bpf.o"], "linked")
    monkeypatch.setattr("fastrtp.replay.fused.loop_text", lambda *_args, **_options: "define nonsense")

    tier, actual = outcome(demo, [DATA / "recount.bpf.o"], "fused")

    assert (tier, actual) == ("linked", expected)


def test_without_programs_objects_are_kept_up_to_date(demo: Recording):
    with Kernel(cpus=2) as kernel:
        report = kernel.replay(demo, tier="fused")

        assert (report.tier, report.events, report.fired) == ("fused", demo.events, 0)


def test_auto_fuses_what_is_in_the_cache_when_the_recording_is_long(demo: Recording, monkeypatch: pytest.MonkeyPatch):
    outcome(demo, [DATA / "recount.bpf.o"], "fused")
    assert outcome(demo, [DATA / "recount.bpf.o"], "auto")[0] == "linked"
    monkeypatch.setattr("fastrtp.replay.fused.GAIN_NS", 1_000)

    assert outcome(demo, [DATA / "recount.bpf.o"], "auto")[0] == "fused"


def test_code_of_another_run_is_found_in_the_cache(demo: Recording, monkeypatch: pytest.MonkeyPatch):
    """Addresses are symbols: a second kernel has others, and the same code."""
    _tier, expected = outcome(demo, [DATA / "recount.bpf.o"], "fused")
    stored: list[str] = []
    monkeypatch.setattr(object_cache(), "put", lambda key, entry: stored.append(key))
    kept = Kernel(cpus=2)

    _tier, actual = outcome(demo, [DATA / "recount.bpf.o"], "fused")

    assert stored == []
    assert actual == expected
    kept.shutdown()


def test_a_kind_without_programs_costs_no_counters():
    text = loop_text([Kind(3, "event.3", has_after=True)], cpus=4, fused=True)

    assert 'call void @"event.3:after"' in text
    assert "%count" not in text


def test_a_changed_set_of_links_is_fused_again(demo: Recording):
    """Linked for the chunk that finds the change, fused from the next one on; counts are those of the linked tier."""
    counts = {}
    for tier in ("linked", "fused"):
        seen: list[tuple[int, int]] = []
        with Kernel(cpus=2) as kernel:
            fds = [kernel.prog_load(RAW_TP, COUNTING, name=f"p{number}") for number in range(2)]
            links = [kernel.raw_tracepoint_open("sched_switch", fds[0])]
            replay = make(kernel, demo, tier)
            while replay.position < replay.events:
                replay.play(5_000)
                seen.append((replay.position, getattr(replay, "fused_events", 0)))
                if replay.position == 20_000:
                    links.append(kernel.raw_tracepoint_open("sys_enter", fds[1]))
                if replay.position == 40_000:
                    kernel.close(links[0])
            replay.close()
            counts[tier] = [kernel.current.files.fget(fd).private_data.runs for fd in fds]
        if tier == "fused":
            linked_chunks = [at for (_, before), (at, after) in itertools.pairwise(seen) if before == after]

    assert counts["fused"] == counts["linked"]
    assert all(counts["fused"])
    assert linked_chunks == [25_000, 45_000]


def test_a_set_that_keeps_changing_stays_linked(demo: Recording):
    with Kernel(cpus=2) as kernel:
        fd = kernel.prog_load(RAW_TP, COUNTING, name="p")
        kernel.raw_tracepoint_open("sched_switch", fd)
        replay = make(kernel, demo, "fused")
        replay.play(5_000)
        while replay.position < replay.events:
            kernel.close(kernel.raw_tracepoint_open("sys_exit", fd))
            replay.play(5_000)

        assert replay.fused_events == 5_000
        assert replay.tier == "fused, linked"
        replay.close()


def test_auto_fuses_again_only_what_pays(demo: Recording):
    with Kernel(cpus=2) as kernel:
        fd = kernel.prog_load(RAW_TP, COUNTING, name="p")
        kernel.raw_tracepoint_open("sched_switch", fd)
        replay = make(kernel, demo, "auto")
        replay.prepare()
        replay.play(5_000)
        kernel.raw_tracepoint_open("sys_exit", fd)
        replay.run(chunk=5_000)

        assert replay.fused_events == 5_000
        assert replay.fired > 0
        replay.close()


def test_stacks_are_handed_out_in_both_tiers():
    """ENV's stack fields are stored for the programs that ask for them."""
    kind = Kind(0, "event.0", widths="8", programs=("prog.0",), needs=frozenset({"kernel_stack"}))

    with_stacks = loop_text([kind], cpus=1, fused=True, stacks=True)
    without = loop_text([kind], cpus=1, fused=True)

    assert "%kernel_stack_env" in with_stacks
    assert "%user_stack_env" not in with_stacks
    assert "%kernel_stack_env" not in without
