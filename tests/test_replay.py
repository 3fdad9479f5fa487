"""Replays from end to end: what programs count over a recording is what they counted in the kernel."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from truth import compared_pids, kernel_map, without

from fastrtp.errors import ReplayError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.programs import read_object
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay import ReplayReport

DATA = Path(__file__).resolve().parent / "data" / "replay"
RAW_TP = 17
TIERS = ["linked", "fused"]
Maps = dict[str, dict[bytes, bytes]]


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


@pytest.fixture
def machine() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        yield kernel


def count_at(kernel: Kernel, key: int = 0, before: str = "") -> tuple[int, int]:
    """(program, array): a program that counts its runs in slot `key`."""
    array = kernel.map_create(2, 4, 8, 8)
    text = f"""{before}
        *(u32 *)(r10 -4) = {key}
        r1 = map[fd:{array}]
        r2 = r10
        r2 += -4
        call bpf_map_lookup_elem
        if r0 == 0 goto +2
        r1 = 1
        lock *(u64 *)(r0 +0) += r1
        r0 = 0
        exit"""
    return kernel.prog_load(RAW_TP, encode(assemble(text)), name="count"), array


def counted(kernel: Kernel, array: int, key: int = 0) -> int:
    return int.from_bytes(kernel.map_lookup_elem(array, struct.pack("<I", key)), "little")


def number_of(recording: Recording, name: str) -> int:
    """Events of one name."""
    kind = next(number for number, table in enumerate(recording.tables) if table.name == name)
    return int(np.count_nonzero(recording.event == kind))


def played(path: Path | Recording, source: bytes | Path, **options: str) -> tuple[Maps, ReplayReport]:
    """(all maps, report) of a replay of `path` through all programs of an object."""
    with Kernel(cpus=2) as kernel, kernel.load(source) as obj, obj.attach():
        report = kernel.replay(path, **options)
        return {name: dict(item.map.raw_items()) for name, item in obj.maps.items()}, report


def scores(ours: Maps, folder: Path) -> dict[str, tuple[int, int]]:
    """(equal, compared) entries of each map, by the rules of tests/data/replay/README.md."""
    pids = compared_pids(folder)
    first: Callable[[bytes], bool] = lambda key: struct.unpack_from("<I", key)[0] in pids  # noqa: E731
    high: Callable[[bytes], bool] = lambda key: struct.unpack("<Q", key)[0] >> 32 in pids  # noqa: E731
    either: Callable[[bytes], bool] = lambda key: bool(pids & set(struct.unpack("<II", key)))  # noqa: E731
    wanted = {"switches": either, "syscalls": high, "sysargs": high, "sysrets": high, "wakeups": first, "runq": first}
    result = {}
    for name, keep in wanted.items():
        theirs = kernel_map(name, folder)
        keys = [key for key in ours[name].keys() | theirs.keys() if keep(key)]
        view = totals if name == "runq" else bytes
        result[name] = sum(view(ours[name].get(key, b"")) == view(theirs.get(key, b"")) for key in keys), len(keys)
    return result


def totals(hist: bytes) -> tuple[object, ...]:
    """What of a latency histogram must be equal: a latency may lie one slot off."""
    return (hist[:8], sum(struct.unpack("<32Q", hist[8:264])), hist[264:]) if hist else ()


@pytest.mark.parametrize("tier", TIERS)
def test_the_demo_recording_gives_what_the_kernel_counted(tier: str):
    maps, report = played(demo_recording(), DATA / "recount.bpf.o", tier=tier)

    result = scores(maps, DATA / "churn")

    assert report.tier == tier
    assert all(equal == compared > 0 for equal, compared in result.values()), result


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("file", ["trace.dat", "trace-v6.dat"])
def test_the_object_that_ran_in_the_kernel_counts_the_same(shared: Path, file: str, tier: str):
    folder = shared / "recordings" / "churn"
    maps, _report = played(folder / file, shared / "recordings" / "truth.bpf.o", tier=tier)

    result = scores(maps, folder)

    assert all(equal == compared > 0 for equal, compared in result.values()), result


def test_the_shipped_switch_matrix_is_the_kernels():
    """Its keys have the names too: summed over them they are the kernel's."""
    maps, _report = played(demo_recording(), read_object("switches"))
    pids = compared_pids()
    ours: dict[bytes, int] = {}
    for key, value in maps["switches"].items():
        ours[key[:8]] = ours.get(key[:8], 0) + int.from_bytes(value, "little")
    theirs = {key: int.from_bytes(value, "little") for key, value in kernel_map("switches").items()}
    keys = [key for key in ours.keys() | theirs.keys() if pids & set(struct.unpack("<II", key))]

    assert keys
    assert {key: ours.get(key) for key in keys} == {key: theirs.get(key) for key in keys}


@pytest.mark.parametrize("tier", TIERS)
def test_the_report_counts_events_and_runs(machine: Kernel, demo: Recording, tier: str):
    prog, array = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)
    machine.raw_tracepoint_open("sys_enter", prog)
    seen: list[tuple[int, int]] = []

    report = machine.replay(demo, tier=tier, chunk=10_000, progress=lambda done, total: seen.append((done, total)))

    expected = number_of(demo, "sched_switch") + number_of(demo, "sys_enter")
    assert (report.events, report.fired) == (demo.events, expected)
    assert report.programs["count"].run_cnt == counted(machine, array) == expected
    assert report.programs["count"].recursion_misses == report.faulted_reads == 0
    assert report.as_dict()["tier"] == tier
    assert seen == [(min(at, demo.events), demo.events) for at in range(10_000, demo.events + 10_000, 10_000)]


def test_an_unknown_tier_is_refused(machine: Kernel, demo: Recording):
    with pytest.raises(ReplayError, match="'quick' is not one of auto, linked, fused"):
        machine.replay(demo, tier="quick")


def test_short_recordings_are_not_worth_a_compilation(machine: Kernel, demo: Recording):
    prog, _array = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)

    assert machine.replay(demo).tier == "linked"


@pytest.mark.parametrize("tier", TIERS)
def test_a_program_that_runs_already_misses_the_event(machine: Kernel, demo: Recording, tier: str):
    prog, array = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)
    record = next(iter(machine.progs)).record
    record.stats["active"] = 1

    report = machine.replay(demo, tier=tier)
    record.stats["active"] = 0

    assert report.programs["count"].recursion_misses == number_of(demo, "sched_switch")
    assert report.programs["count"].run_cnt == counted(machine, array) == 0


@pytest.mark.parametrize("tier", TIERS)
def test_reads_of_what_is_not_there_are_counted(machine: Kernel, demo: Recording, tier: str):
    text = "r1 = r10\nr1 += -8\nr2 = 8\nr3 = -4096\ncall bpf_probe_read_kernel\nr0 = 0\nexit"
    machine.raw_tracepoint_open("sched_switch", machine.prog_load(RAW_TP, encode(assemble(text))))

    assert machine.replay(demo, tier=tier).faulted_reads == number_of(demo, "sched_switch")


def test_lost_events_are_reported(machine: Kernel, demo: Recording):
    recording = Recording.open(demo_recording())
    recording.lost = {1: 17}

    report = machine.replay(recording)

    assert (report.lost, report.as_dict()["lost"]) == ({1: 17}, {"1": 17})


@pytest.mark.parametrize("tier", TIERS)
def test_ctrl_c_ends_between_chunks_and_leaves_everything_in_order(machine: Kernel, demo: Recording, tier: str):
    prog, array = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)
    first = int(np.count_nonzero(demo.event[:5_000] == next(n for n, t in enumerate(demo.tables) if t.name == "sched_switch")))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        machine.replay(demo, tier=tier, chunk=5_000, progress=interrupt)
    runs, allocated = next(iter(machine.progs)).runs, machine.memory.arena.allocated
    report = machine.replay(demo, tier=tier, chunk=5_000, progress=interrupt, interruptible=True)

    assert runs == first > 0
    assert (report.interrupted, report.events, report.fired) == (True, 5_000, first)
    assert report.programs["count"].run_cnt == first
    assert counted(machine, array) == 2 * first
    assert machine.memory.arena.allocated == allocated
    assert machine.memory.env["clock"].tolist() == [1, 1]
    assert machine.replay(demo, tier=tier).programs["count"].run_cnt == number_of(demo, "sched_switch")


@pytest.mark.parametrize("tier", TIERS)
def test_another_thread_attaches_detaches_and_reads_between_chunks(machine: Kernel, demo: Recording, tier: str):
    """Each step is taken while the replay is between two chunks: so what must be counted is known exactly."""
    prog, array = count_at(machine)
    other, second = count_at(machine)
    links = [machine.raw_tracepoint_open("sched_switch", prog)]
    kind = next(number for number, table in enumerate(demo.tables) if table.name == "sched_switch")
    switches = np.count_nonzero(demo.event[: demo.events // 10_000 * 10_000].reshape(-1, 10_000) == kind, axis=1)
    seen: list[int] = []

    def step(done: int) -> None:
        seen.append(counted(machine, array))
        if done == 10_000:
            links.append(machine.raw_tracepoint_open("sched_switch", other))
        elif done == 20_000 or done == 40_000:
            machine.close(links.pop(0))

    def progress(done: int, total: int) -> None:
        thread = threading.Thread(target=step, args=(done,))
        thread.start()
        thread.join()

    report = machine.replay(demo, tier=tier, chunk=10_000, progress=progress)

    assert seen[:3] == [int(switches[:n].sum()) for n in (1, 2, 2)]
    assert counted(machine, array) == int(switches[:2].sum())
    assert counted(machine, second) == int(switches[1:4].sum())
    assert report.fired == int(switches[:4].sum())
    assert report.tier == ("linked" if tier == "linked" else "fused, linked")
    assert not machine.links


def test_threads_that_attach_and_read_all_the_time_do_no_harm(machine: Kernel, demo: Recording):
    """Not in step with the replay: every event is counted by the program that stays."""
    prog, array = count_at(machine)
    other, _second = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)
    done = threading.Event()
    values: list[int] = []

    def disturb() -> None:
        while not done.is_set():
            link = machine.raw_tracepoint_open("sched_switch", other)
            values.append(counted(machine, array))
            machine.close(link)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        reports = [machine.replay(demo, tier=tier, chunk=2_000) for tier in TIERS * 2]
    finally:
        done.set()
        thread.join()

    assert counted(machine, array) == 4 * number_of(demo, "sched_switch") == sum(report.fired for report in reports)
    assert values == sorted(values)


def test_more_cpus_than_the_kernel_has_are_refused(demo: Recording):
    with Kernel(cpus=1) as kernel, pytest.raises(ReplayError, match="the recording has 2 cpus, the kernel 1: make it with"):
        kernel.replay(demo)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(("missing", "faults"), [("zero", False), ("fault", True)])
def test_policies_decide_what_an_unknown_object_is(machine: Kernel, demo: Recording, tier: str, missing: str, faults: bool):
    """A recorder that left out the page frame number: mm_page_alloc's page is unknown."""
    text = "r3 = *(u64 *)(r1 +0)\nr1 = r10\nr1 += -8\nr2 = 8\ncall bpf_probe_read_kernel\nr0 = 0\nexit"
    machine.raw_tracepoint_open("mm_page_alloc", machine.prog_load(RAW_TP, encode(assemble(text))))

    report = machine.replay(without(demo, "mm_page_alloc", "pfn"), missing=missing, tier=tier)

    assert (report.faulted_reads == number_of(demo, "mm_page_alloc")) == faults
    assert [lack.tracepoint for lack in report.missing] == ["mm_page_alloc"]


def test_strict_refuses_before_the_first_event(machine: Kernel, demo: Recording):
    read = "r3 = *(u64 *)(r1 +0)\nr1 = r10\nr1 += -16\nr2 = 8\ncall bpf_probe_read_kernel"
    prog, array = count_at(machine, before=read)
    machine.raw_tracepoint_open("mm_page_alloc", prog)
    allocated = machine.memory.arena.allocated

    with pytest.raises(ReplayError, match="the recording cannot supply: "):
        machine.replay(without(demo, "mm_page_alloc", "pfn"), missing="strict")

    assert counted(machine, array) == 0
    assert machine.memory.arena.allocated == allocated


@pytest.mark.parametrize("tier", TIERS)
def test_a_second_replay_counts_on(machine: Kernel, demo: Recording, tier: str):
    prog, array = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)
    part = demo_recording()

    once = machine.replay(demo, tier=tier)
    twice = machine.replay(part, tier=tier)

    assert once.programs == twice.programs
    assert counted(machine, array) == 2 * number_of(demo, "sched_switch")


def test_a_saved_folder_replays_as_the_file_does(demo: Recording, tmp_path: Path):
    demo.save(tmp_path / "demo")

    from_file, report = played(demo_recording(), DATA / "recount.bpf.o")
    from_folder, again = played(tmp_path / "demo", DATA / "recount.bpf.o")

    assert from_folder == from_file
    assert (again.programs, again.fired, again.lost) == (report.programs, report.fired, report.lost)


def test_replays_of_one_kernel_take_turns(demo: Recording, machine: Kernel) -> None:
    """Two threads that replay at once give programs the recording's time all the way, and each counts its own runs."""
    obj = machine.load(read_object("runqlat"))
    reports: list[ReplayReport] = []
    with obj.attach():
        alone = machine.replay(demo, tier="linked")
        threads = [
            threading.Thread(target=lambda: reports.append(machine.replay(demo, tier="linked", chunk=1000))) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert [report.programs for report in reports] == [alone.programs] * 2
    assert int(machine.memory.env["clock"][0]) == 1


def test_a_replay_inside_a_replay_is_refused(demo: Recording, machine: Kernel) -> None:
    with pytest.raises(ReplayError, match="inside another"):
        machine.replay(demo, progress=lambda done, total: machine.replay(demo))
