"""Parallel replay: the results of the ordered one where order between CPUs does not matter, and each CPU's order always."""

from __future__ import annotations

import _thread
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_replay import count_at, counted, number_of

from bench.generated import NAME, PROTO, bound, player
from fastrtp.errors import JitError, ReplayError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.programs import PROGRAMS, read_object
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay import ReplayReport
from fastrtp.replay.windows import boundaries, lane_ends, lanes, own_ends, parse_cpus, parse_window

DATA = Path(__file__).resolve().parent / "data" / "replay"
HAMMER = Path(__file__).resolve().parent / "data" / "maps" / "hammer.bpf.o"
RAW_TP = 17
TIERS = ["linked", "fused"]
SEQUENCE = """
    r6 = r1
    r7 = *(u64 *)(r6 +8)
    call bpf_get_prandom_u32
    r8 = r0
    *(u32 *)(r10 -4) = 0
    r1 = map[fd:{array}]
    r2 = r10
    r2 += -4
    call bpf_map_lookup_elem
    if r0 == 0 goto +5
    r1 = *(u64 *)(r0 +0)
    r1 *= 31
    r1 += r7
    r1 ^= r8
    *(u64 *)(r0 +0) = r1
    r0 = 0
    exit"""
"""A number that depends on every event of a CPU, in order, and on its random numbers."""


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


@pytest.fixture
def machine() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        yield kernel


def played(recording: Recording, source: Any, **options: Any) -> tuple[dict[str, dict[bytes, bytes]], ReplayReport]:
    """(all maps, report) of a replay through all programs of an object, whether they commute or not."""
    with Kernel(cpus=2) as kernel, kernel.load(source) as obj, obj.attach():
        report = kernel.replay(recording, order="relaxed", **options)
        return {name: dict(item.map.raw_items()) for name, item in obj.maps.items()}, report


def same_counts(ours: dict[bytes, bytes], expected: dict[bytes, bytes]) -> bool:
    """Whether the counts are those expected, but for first ones. The programs insert a key's first count with BPF_NOEXIST and do
    not look whether that failed: when both CPUs do so at a time, one is lost, as in Linux. Never more than one a key, and never
    too many counts.
    """
    missing = {int.from_bytes(expected[key], "little") - int.from_bytes(ours.get(key, b""), "little") for key in expected}
    return ours.keys() == expected.keys() and missing <= {0, 1}


def by_pids(switches: dict[bytes, bytes]) -> Counter[bytes]:
    """Counts of pairs of pids, whatever the two were called at the time."""
    sums: Counter[bytes] = Counter()
    for key, value in switches.items():
        sums[key[:8]] += int.from_bytes(value, "little")
    return sums


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("window", [100, 65536, "1ms", None])
def test_counts_are_those_of_the_ordered_replay(demo: Recording, tier: str, window: int | str | None) -> None:
    """A switch is counted under the same pids, whatever has happened on the other CPU by then; the tasks' names may be of another
    time.
    """
    expected, ordered = played(demo, read_object("switches"), tier="linked")

    maps, report = played(demo, read_object("switches"), tier=tier, cpus=2, window=window)

    seen, counts = by_pids(maps["switches"]), by_pids(expected["switches"])
    assert seen.keys() == counts.keys()
    assert all(0 <= counts[pids] - seen[pids] <= len(maps["switches"]) for pids in counts)
    assert sum(counts.values()) - sum(seen.values()) <= len(maps["switches"])
    assert (report.events, report.fired, report.tier, report.threads) == (ordered.events, ordered.fired, tier, 2)
    assert report.programs == ordered.programs


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_windows_of_one_event_are_the_ordered_replay(demo: Recording, tier: str, name: str) -> None:
    """Then nothing overlaps: waits between CPUs, start times, everything is the same."""
    expected, ordered = played(demo, read_object(name), tier="linked")

    maps, report = played(demo, read_object(name), tier=tier, cpus="recorded", window=1)

    assert maps == expected
    assert (report.events, report.programs, report.faulted_reads) == (ordered.events, ordered.programs, ordered.faulted_reads)


@pytest.mark.parametrize("tier", TIERS)
def test_each_cpu_keeps_its_order(machine: Kernel, tier: str) -> None:
    """A per-CPU value that every event and every random number changes is exactly that of one thread."""
    rng = np.random.default_rng(3)
    cpu, key, value = rng.integers(0, 2, 300_000), rng.integers(0, 64, 300_000), rng.integers(0, 1 << 40, 300_000)
    machine.trace_event(NAME, PROTO)
    array = machine.map_create(6, 4, 8, 1)
    prog = machine.prog_load(RAW_TP, encode(assemble(SEQUENCE.format(array=array))), license="GPL")
    machine.raw_tracepoint_open(NAME, prog)
    seeds = machine.memory.env["rng"].copy()
    results = []
    for cpus, window in ((1, 1 << 16), (2, 1 << 16), (2, None), (2, 777)):
        machine.memory.env["rng"] = seeds
        machine.map_update_elem(array, bytes(4), bytes(16))
        with player(machine, bound(machine, cpu, key, value), cpus=cpus, fuse=tier == "fused", window=window) as playing:
            assert playing.run() == 300_000
        results.append((machine.map_lookup_elem(array, bytes(4)), machine.memory.env["rng"].tolist()))

    assert results[0][0] != bytes(16)
    assert results[1:] == results[:1] * 3


@pytest.mark.parametrize("file", ["churn", "big"])
def test_what_the_kernel_counted_is_counted_in_parallel(shared: Path, file: str) -> None:
    """Switches, system calls and wakeups do not depend on the order of CPUs."""
    source = Recording.open(shared / "recordings" / file / "trace.dat")
    expected, ordered = played(source, shared / "recordings" / "truth.bpf.o")
    maps, report = played(source, shared / "recordings" / "truth.bpf.o", cpus=2)

    for name in ("switches", "syscalls", "wakeups"):
        assert same_counts(maps[name], expected[name]), name
    for name in ("sysargs", "sysrets"):  # sums, of which the first number may be lost
        assert maps[name].keys() == expected[name].keys()
        assert sum(maps[name][key] != expected[name][key] for key in expected[name]) < len(expected[name]) / 4, name
    assert report.threads == 2
    assert report.programs == ordered.programs


@pytest.mark.parametrize("tier", TIERS)
def test_another_thread_attaches_detaches_and_reads_between_turns(machine: Kernel, demo: Recording, tier: str) -> None:
    steady, array = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", steady)
    coming, second = count_at(machine)
    held = machine.current.files.fget(coming).private_data
    seen: list[tuple[int, int]] = []
    link = -1

    def progress(done: int, total: int) -> None:
        nonlocal link
        seen.append((done, counted(machine, array)))
        if len(seen) == 2:
            link = machine.raw_tracepoint_open("sched_switch", coming)
        elif len(seen) == 5:
            machine.close(link)

    report = machine.replay(demo, tier=tier, cpus=2, chunk=5000, progress=progress, window=None)

    assert len(seen) > 10
    assert seen == sorted(seen)
    assert 0 < held.runs < report.fired
    assert counted(machine, second) <= held.runs
    assert report.tier == ("linked" if tier == "linked" else "fused, linked")


@pytest.mark.parametrize("tier", TIERS)
def test_threads_that_attach_load_and_read_all_the_time(machine: Kernel, demo: Recording, tier: str) -> None:
    steady, _ = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", steady)
    runs = machine.current.files.fget(steady).private_data
    stop = threading.Event()
    errors: list[BaseException] = []

    def disturb(seed: int) -> None:
        try:
            while not stop.is_set():
                prog, array = count_at(machine)
                link = machine.raw_tracepoint_open(["sched_switch", "sys_enter"][seed], prog)
                time.sleep(0.001)
                machine.close(link)
                counted(machine, array)
                machine.close(prog)
                machine.close(array)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=disturb, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    replays = 4
    try:
        for number in range(replays):
            machine.replay(demo, tier=tier, cpus=2, chunk=3000, window=[500, None][number & 1])
    finally:
        stop.set()
        for thread in threads:
            thread.join()

    assert errors == []
    assert runs.runs == replays * number_of(demo, "sched_switch")


@pytest.mark.parametrize("tier", TIERS)
def test_ctrl_c_ends_between_turns(machine: Kernel, demo: Recording, tier: str) -> None:
    prog, _ = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)

    def interrupt(done: int, total: int) -> None:
        if done > 20_000:
            _thread.interrupt_main()

    report = machine.replay(demo, tier=tier, cpus=2, chunk=4000, progress=interrupt, interruptible=True)

    assert report.interrupted
    assert 20_000 < report.events < demo.events
    assert machine.memory.parallel == 0
    assert machine.replay(demo, cpus=2).events == demo.events


def test_an_error_in_progress_ends_all(machine: Kernel, demo: Recording) -> None:
    def fail(done: int, total: int) -> None:
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        machine.replay(demo, cpus=2, chunk=4000, progress=fail)
    assert machine.replay(demo).events == demo.events


def test_a_thread_that_fails_ends_all(machine: Kernel, demo: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    play: Callable[..., int] = machine.memory.lib.lane_play

    def failing(lane: int, first: int, last: int, meet: int, lead: int) -> int:
        if not lead:
            raise MemoryError("no room")
        time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setitem(machine.memory.lib.__dict__, "lane_play", failing)
    with pytest.raises(KeyboardInterrupt):
        machine.replay(demo, cpus=2)
    monkeypatch.setitem(machine.memory.lib.__dict__, "lane_play", play)

    assert machine.replay(demo, cpus=2).events == demo.events


def test_afterwards_programs_run_alone_again(machine: Kernel, demo: Recording) -> None:
    prog, _ = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)
    held = machine.current.files.fget(prog).private_data
    entries = []

    def look(done: int, total: int) -> None:
        entries.append(int(held.record._record["entry"][0]))

    machine.replay(demo, cpus=2, progress=look)

    assert set(entries) == {held.smp_native().entry}
    assert int(held.record._record["entry"][0]) == held.native.entry != held.smp_native().entry


def test_code_that_is_refused_changes_nothing(machine: Kernel, demo: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    prog, array = count_at(machine)
    machine.raw_tracepoint_open("sched_switch", prog)

    def refuse(self: Any) -> Any:
        raise JitError("no")

    with monkeypatch.context() as patched:
        patched.setattr("fastrtp.kernel.objects.prog.BpfProg.smp_native", refuse)
        with pytest.raises(JitError):
            machine.replay(demo, cpus=2)

    assert machine.memory.parallel == 0
    assert counted(machine, array) == 0
    assert machine.replay(demo, cpus=2).fired == counted(machine, array)


@pytest.mark.parametrize("options", [{"cpus": 0}, {"cpus": "all"}, {"window": 0}, {"window": "10 days"}, {"chunk": 0}])
def test_nonsense_is_refused(machine: Kernel, demo: Recording, options: dict[str, Any]) -> None:
    with pytest.raises(ReplayError):
        machine.replay(demo, **options)


def test_an_empty_recording(machine: Kernel) -> None:
    empty = Recording(np.zeros(0, np.int64), *(np.zeros(0, kind) for kind in ("u2", "u2", "u4", "i4")), tables=[])

    assert machine.replay(empty, cpus=2).events == 0
    assert machine.replay(empty, cpus="recorded", window="1ms").events == 0


def test_numbers_and_words() -> None:
    assert (parse_cpus("recorded"), parse_cpus("3")) == ("recorded", 3)
    assert (parse_window(None), parse_window("none")) == (None, None)
    assert (parse_window("500"), parse_window(7)) == ((500, False), (7, False))
    assert (parse_window("10ms"), parse_window("3 us")) == ((10_000_000, True), (3_000, True))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), max_size=120), st.integers(1, 8), st.integers(1, 60),
    st.booleans(), st.integers(1, 50),
)  # fmt: skip
def test_every_event_is_in_one_window_of_one_thread(
    events: list[tuple[int, int]], cpus: int, size: int, in_ns: bool, most: int
) -> None:
    cpu = np.array([number for number, _ in events], np.uint16)
    times = np.cumsum(np.array([step for _, step in events], np.int64))

    picked = lanes(cpu, cpus)
    ends = boundaries(times, (size, in_ns), most)

    assert len(picked) == max(min(cpus, len(set(cpu.tolist()))), 1)
    assert sorted(np.concatenate(picked).tolist()) == list(range(len(events)))
    assert all(set(cpu[a].tolist()).isdisjoint(cpu[b].tolist()) for a in picked for b in picked if a is not b)
    assert ends[-1] == len(events)
    begins = [0, *ends[:-1].tolist()]
    for begin, end in zip(begins, ends.tolist(), strict=True):
        assert end - begin <= min(most, most if in_ns else size)
        if in_ns and end > begin:
            assert (times[end - 1] - times[0]) // size == (times[begin] - times[0]) // size
    for lane in picked:
        assert lane_ends(lane, ends).tolist() == [int((lane < end).sum()) for end in ends.tolist()]
        assert own_ends(len(lane), size, 1 + len(lane) // size)[-1] == len(lane)


def test_rings_are_drained_between_turns(machine: Kernel) -> None:
    """A ring that is far too small for the recording loses nothing when somebody looks at it often enough."""
    count = 100_000
    machine.trace_event(NAME, PROTO)
    ring = machine.map_create(27, 0, 0, 1 << 16)
    code = f"""r6 = r1
        r1 = map[fd:{ring}]
        r2 = 8
        r3 = 0
        call bpf_ringbuf_reserve
        if r0 == 0 goto +4
        r1 = *(u64 *)(r6 +8)
        *(u64 *)(r0 +0) = r1
        r1 = r0
        r2 = 0
        call bpf_ringbuf_submit
        r0 = 0
        exit"""
    code = code.replace("if r0 == 0 goto +4", "if r0 == 0 goto +6")
    machine.raw_tracepoint_open(NAME, machine.prog_load(RAW_TP, encode(assemble(code))))
    contents: Any = machine.current.files.fget(ring).private_data.map
    got: list[int] = []
    events = bound(machine, np.arange(count) & 1, np.zeros(count), np.arange(count))
    with player(machine, events, cpus=2, window=None, chunk=2000) as playing:
        playing.run(lambda done, total: got.extend(struct.unpack("<Q", blob)[0] for blob in contents.consume()))
    got += [struct.unpack("<Q", blob)[0] for blob in contents.consume()]

    assert contents.lost == 0
    assert [number for number in got if number % 2 == 0] == list(range(0, count, 2))
    assert [number for number in got if number % 2 == 1] == list(range(1, count, 2))
