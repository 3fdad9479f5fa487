"""Rings under a replay: nothing is lost unless somebody is asked to read them slowly, and then the report says what was."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.generated import NAME, PROTO, bound, player
from fastrtp.errors import ReplayError
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.maps.ringbuf import Ring
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay.consumer import Consumer, ConsumerClock, parse_consumer
from fastrtp.replay.linked import LinkedReplay
from fastrtp.uapi import BpfMapType as MapType

OUTPUTS = Path(__file__).resolve().parent / "data" / "cli" / "outputs.bpf.o"
RAW_TP = 17
TIERS = ["linked", "fused"]
KEEP = 1 << 30
OUTPUT = """
    r6 = r1
    r1 = *(u64 *)(r6 +8)
    *(u64 *)(r10 -8) = r1
    r1 = map[fd:{ring}]
    r2 = r10
    r2 += -8
    r3 = 8
    r4 = 0
    call bpf_ringbuf_output
    r0 = 0
    exit"""
"""Its second argument as a record of 16 bytes in all."""
PERF = """
    r6 = r1
    r1 = *(u64 *)(r6 +8)
    *(u64 *)(r10 -8) = r1
    r1 = r6
    r2 = map[fd:{ring}]
    r3 = 0xffffffff ll
    r4 = r10
    r4 += -8
    r5 = 8
    call bpf_perf_event_output
    r0 = 0
    exit"""


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


@pytest.fixture
def machine() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        kernel.trace_event(NAME, PROTO)
        yield kernel


def contents(kernel: Kernel, fd: int) -> Any:
    return kernel.current.files.fget(fd).private_data.map


def attach(kernel: Kernel, text: str, tracepoint: str = NAME, **names: Any) -> Any:
    fd = kernel.prog_load(RAW_TP, encode(assemble(text.format(**names))), license="GPL")
    kernel.raw_tracepoint_open(tracepoint, fd)
    return kernel.current.files.fget(fd).private_data


def numbers(blobs: Any) -> list[int]:
    return [struct.unpack_from("<Q", blob)[0] for blob in blobs]


def play(kernel: Kernel, events: Any, consumer: Consumer | None = None, keep: int = KEEP, on_demand: bool = True) -> None:
    """Generated events, on one thread."""
    clock = None if consumer is None else ConsumerClock(consumer, kernel.memory.machine_address, events.time)
    made = LinkedReplay(kernel.memory, events, {NAME: kernel.tracepoints[NAME]}, consumer=clock)
    kernel.memory.set_clock(virtual=True)
    try:
        with kernel.memory.draining(keep, on_demand=on_demand and consumer is None):
            made.run()
    finally:
        made.close()
        kernel.memory.set_clock(virtual=False)


@pytest.mark.parametrize("tier", TIERS)
def test_a_ring_of_a_page_gives_every_record(demo: Recording, tier: Any) -> None:
    with Kernel(cpus=2) as kernel, kernel.load(OUTPUTS) as obj, obj.attach():
        report = kernel.replay(demo, tier=tier)

        records = list(obj.maps["events"].consume())
        assert len(records) == report.programs["outputs"].run_cnt == 5069
        assert report.dropped == {"events": 0}
        times = numbers(records)
        assert times == sorted(times)
        assert list(obj.maps["events"].consume()) == []


@pytest.mark.parametrize("tier", TIERS)
def test_a_consumer_that_never_comes(demo: Recording, tier: Any) -> None:
    """The ring takes what fits, which are the first records, and the report counts all others."""
    with Kernel(cpus=2) as kernel, kernel.load(OUTPUTS) as obj, obj.attach():
        report = kernel.replay(demo, tier=tier, consumer="none")

        records = list(obj.maps["events"].consume())
        assert len(records) == 4095 // 40
        assert report.dropped == {"events": 5069 - len(records)}
        assert report.as_dict()["dropped"] == dict(report.dropped)
        assert kernel.replay(demo, tier=tier).dropped == {"events": 0}
        assert len(list(obj.maps["events"].consume())) == 5069


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("consumer", [Consumer(every_events=500), Consumer(every_ns=100_000_000), 2000, "50ms"])
def test_a_consumer_that_comes_now_and_then(demo: Recording, tier: Any, consumer: Any) -> None:
    """Kept and dropped are all, in order, and the same however the events are cut into chunks."""
    seen = []
    for chunk in (None, 777):
        with Kernel(cpus=2) as kernel, kernel.load(OUTPUTS) as obj, obj.attach():
            report = kernel.replay(demo, tier=tier, consumer=consumer, chunk=chunk)
            seen.append((list(obj.maps["events"].consume()), report.dropped["events"]))

    kept, dropped = seen[0]
    assert seen[0] == seen[1]
    assert len(kept) + dropped == 5069
    assert 0 < dropped < 5069 - 4095 // 40


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 5), st.one_of(st.none(), st.integers(1, 700)), st.integers(1, 1500))
def test_what_a_ring_keeps_is_what_a_model_of_it_keeps(power: int, every: int | None, count: int) -> None:
    """A ring of 2^n bytes with records of 16 bytes, and a reader who comes before every `every`-th event."""
    size = 4096 << power
    kept: list[int] = []
    waiting = 0
    for number in range(count):
        if every is not None and number and number % every == 0:
            waiting = 0
        if (waiting + 1) * 16 <= size - 1:
            kept.append(number)
            waiting += 1

    with Kernel(cpus=2) as kernel:
        kernel.trace_event(NAME, PROTO)
        ring = kernel.map_create(MapType.BPF_MAP_TYPE_RINGBUF, 0, 0, size)
        attach(kernel, OUTPUT, ring=ring)
        play(kernel, bound(kernel, np.zeros(count), np.zeros(count), np.arange(count)), Consumer(every_events=every))

        assert numbers(contents(kernel, ring).consume()) == kept
        assert contents(kernel, ring).lost == count - len(kept)


def test_perf_samples_of_all_cpus_come_in_time_order(machine: Kernel) -> None:
    """Rings of a page, 20,000 events on two CPUs in turns that are not even."""
    count = 20_000
    perf = machine.map_create(MapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 2)
    contents(machine, perf).open_rings(4096)
    attach(machine, PERF, ring=perf)
    cpu = np.random.default_rng(5).integers(0, 2, count)
    play(machine, bound(machine, cpu, np.zeros(count), np.arange(count)))

    samples = list(contents(machine, perf).consume_by_cpu())

    assert numbers(blob for _, blob in samples) == list(range(count))
    assert [number for number, _ in samples] == cpu.tolist()
    assert contents(machine, perf).lost == 0


def test_perf_samples_are_the_same_on_two_threads(machine: Kernel) -> None:
    count = 30_000
    perf = machine.map_create(MapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 2)
    contents(machine, perf).open_rings(4096)
    attach(machine, PERF, ring=perf)
    cpu = np.random.default_rng(6).integers(0, 2, count)
    events = bound(machine, cpu, np.zeros(count), np.arange(count))
    with player(machine, events, cpus=2, window=None) as playing, machine.memory.draining(KEEP, on_demand=True):
        playing.run()

    assert numbers(contents(machine, perf).consume()) == list(range(count))


def test_two_threads_on_one_ring_that_is_far_too_small(machine: Kernel) -> None:
    """Every record is kept, whole, and each CPU's are in order."""
    count = 100_000
    ring = machine.map_create(MapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    attach(machine, OUTPUT, ring=ring)
    events = bound(machine, np.arange(count) & 1, np.zeros(count), np.arange(count))
    with player(machine, events, cpus=2, window=None) as playing, machine.memory.draining(KEEP, on_demand=True):
        playing.run()

    got = numbers(contents(machine, ring).consume())
    assert contents(machine, ring).lost == 0
    assert [number for number in got if number % 2 == 0] == list(range(0, count, 2))
    assert [number for number in got if number % 2 == 1] == list(range(1, count, 2))


def test_no_more_is_kept_than_was_said(machine: Kernel) -> None:
    """One chunk of a quarter of a megabyte, and what the ring itself holds."""
    count = 40_000
    ring = machine.map_create(MapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    attach(machine, OUTPUT, ring=ring)
    play(machine, bound(machine, np.zeros(count), np.zeros(count), np.arange(count)), keep=1 << 18)

    kept = numbers(contents(machine, ring).consume())
    assert kept == list(range(len(kept)))
    assert len(kept) == (1 << 18) // 24 + 255
    assert contents(machine, ring).lost == count - len(kept)


def test_a_record_that_is_not_committed_ends_the_draining(machine: Kernel) -> None:
    """Two reservations at a time in a ring that holds one and a half: the second finds no room, and none is overwritten."""
    ring = machine.map_create(MapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    attach(machine, """
        r6 = r1
        r1 = map[fd:{ring}]
        r2 = 2560
        r3 = 0
        call bpf_ringbuf_reserve
        if r0 == 0 goto +15
        r7 = r0
        r1 = *(u64 *)(r6 +8)
        *(u64 *)(r7 +0) = r1
        r1 = map[fd:{ring}]
        r2 = 2560
        r3 = 0
        call bpf_ringbuf_reserve
        if r0 == 0 goto +3
        r1 = r0
        r2 = 0
        call bpf_ringbuf_discard
        r1 = r7
        r2 = 0
        call bpf_ringbuf_submit
        r0 = 0
        exit""", ring=ring)  # fmt: skip
    play(machine, bound(machine, np.zeros(50), np.zeros(50), np.arange(50)))

    assert numbers(contents(machine, ring).consume()) == list(range(50))
    assert contents(machine, ring).lost == 50


def test_reading_some_records_leaves_the_others(machine: Kernel) -> None:
    ring = machine.map_create(MapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    perf = machine.map_create(MapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 2)
    contents(machine, perf).open_rings(4096)
    attach(machine, OUTPUT, ring=ring)
    attach(machine, PERF, ring=perf)
    play(machine, bound(machine, np.arange(1000) & 1, np.zeros(1000), np.arange(1000)))

    for held in (contents(machine, ring), contents(machine, perf)):
        first = [record for record, _ in zip(held.consume(), range(10), strict=False)]
        assert numbers(first)[:10] == list(range(10))
        rest = numbers(held.consume())
        assert rest[-1] == 999
        assert len(rest) in (989, 990)  # zip() takes one that it does not give


def test_a_ring_that_goes_while_somebody_reads_all(machine: Kernel) -> None:
    """A reader of all rings does not look at one that was closed, nor at its backlog."""
    gone = Ring(machine.memory, 4096)
    ring = machine.map_create(MapType.BPF_MAP_TYPE_RINGBUF, 0, 0, 4096)
    attach(machine, OUTPUT, ring=ring)
    gone.close()
    play(machine, bound(machine, np.zeros(3000), np.zeros(3000), np.arange(3000)), Consumer(every_events=100))

    assert numbers(contents(machine, ring).consume()) == list(range(3000))


def test_the_trace_pipe_keeps_every_line(demo: Recording) -> None:
    """Far more than the pipe's megabyte, in order; and counts are those of one replay."""
    text = """
        r1 = 0x2020202020202020 ll
        *(u64 *)(r10 -16) = r1
        *(u64 *)(r10 -24) = r1
        *(u64 *)(r10 -32) = r1
        *(u64 *)(r10 -40) = r1
        *(u64 *)(r10 -48) = r1
        *(u64 *)(r10 -56) = r1
        *(u64 *)(r10 -64) = r1
        *(u64 *)(r10 -8) = 0
        r1 = r10
        r1 += -64
        r2 = 64
        call bpf_trace_printk
        r0 = 0
        exit"""
    with Kernel(cpus=2) as kernel:
        for tracepoint in ("sched_switch", "sys_enter", "sys_exit", "sched_stat_runtime", "sched_wakeup"):
            if tracepoint in kernel.tracepoints:
                attach(kernel, text, tracepoint)
        report = kernel.replay(demo)

        runs = sum(program.run_cnt for program in report.programs.values())
        assert runs * 84 > 1 << 20
        assert (len(report.printk), report.printk_lost) == (runs, 0)
        assert [line[0] for line in report.printk] == sorted(line[0] for line in report.printk)
        lost = kernel.replay(demo, consumer="none")
        assert 0 < lost.printk_lost == runs - len(lost.printk)
        assert kernel.replay(demo).printk_lost == 0


def test_more_signals_than_the_list_has_room_for(machine: Kernel) -> None:
    count = 70_000
    prog = attach(machine, "r1 = 9\ncall bpf_send_signal\nr0 = 0\nexit")
    play(machine, bound(machine, np.zeros(count), np.zeros(count), np.zeros(count)))

    assert prog.runs == count
    assert len(machine.signals()) + machine.memory.signals_lost in (count, 0)
    assert machine.memory.signals_lost == 0


@pytest.mark.parametrize("consumer", [0, "soon", "0ms", -3])
def test_nonsense_is_refused(machine: Kernel, demo: Recording, consumer: Any) -> None:
    with pytest.raises(ReplayError):
        machine.replay(demo, consumer=consumer)  # type: ignore[arg-type]


def test_consumers_by_word() -> None:
    assert parse_consumer(None) is None
    assert parse_consumer("none") == Consumer()
    assert parse_consumer("100") == parse_consumer(100) == Consumer(every_events=100)
    assert parse_consumer("2ms") == Consumer(every_ns=2_000_000)
    with pytest.raises(ReplayError):
        Consumer(every_events=1, every_ns=1)


def test_the_command_line_has_a_consumer() -> None:
    command = [sys.executable, "-m", "fastrtp", "replay", str(OUTPUTS), str(demo_recording()), "--format", "json"]

    whole = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    slow = json.loads(subprocess.run([*command, "--consumer", "none"], capture_output=True, check=True).stdout)
    refused = subprocess.run([*command, "--consumer", "10", "--cpus", "2"], capture_output=True, text=True, check=False)

    assert (len(whole["maps"]["events"]["records"]), whole["report"]["dropped"]) == (5069, {"events": 0})
    assert len(slow["maps"]["events"]["records"]) + slow["report"]["dropped"]["events"] == 5069
    assert (refused.returncode, "--cpus" in refused.stderr) == (2, True)
