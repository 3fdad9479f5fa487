"""Tools written as libbpf-tools are (tests/data/tools): accepted here and by Linux, and run over the shipped recording.

What they count is compared with the same question asked of the recording's columns in plain Python and NumPy.
"""

from __future__ import annotations

import collections
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_object import HostObject, usable

from fastrtp.kernel import Kernel
from fastrtp.obj import ObjectSpec
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording

FOLDER = Path(__file__).parent / "data" / "tools"
OBJECTS = {path.name.removesuffix(".bpf.o"): path.read_bytes() for path in sorted(FOLDER.glob("*.bpf.o"))}
PROGRAMS = [(tool, name) for tool, data in OBJECTS.items() for name in ObjectSpec.parse(data, tool).programs]
TASK_REPORT_MAX = 0x100
PREEMPTED = (0, TASK_REPORT_MAX)
Event = tuple[int, str, dict[str, Any], int, int]


@pytest.fixture(scope="module")
def recording() -> Recording:
    return Recording.open(demo_recording())


def events(recording: Recording, *names: str) -> Iterator[Event]:
    """(time, event, fields, pid, cpu) of the named events in the recording's order."""
    rows: list[Any] = []
    for kind, table in enumerate(recording.tables):
        if table.name not in names:
            continue
        where = np.flatnonzero(recording.event == kind)
        columns = {
            field: table.strings(field).tolist() if table.has_strings(field) else column.tolist()
            for field, column in table.fields.items()
            if not field.startswith("common_")
        }
        rows += [
            (int(at), table.name, {field: column[row] for field, column in columns.items()})
            for row, at in enumerate(where.tolist())
        ]
    times, pids, cpus = recording.time, recording.pid, recording.cpu
    for at, name, fields in sorted(rows, key=lambda row: row[0]):
        yield int(times[at]), name, fields, int(pids[at]), int(cpus[at])


def played(tool: str, recording: Recording, programs: set[str] | None = None) -> dict[str, list[tuple[Any, Any]]]:
    """Decoded contents of every map after a replay; of a ring its records."""
    with Kernel(cpus=2) as kernel, kernel.load(OBJECTS[tool], name=tool, autoload=programs) as obj, obj.attach():
        kernel.replay(recording)
        contents: dict[str, list[tuple[Any, Any]]] = {}
        for name, held in obj.maps.items():
            if name == "events":
                contents[name] = list(enumerate(held.consume()))
            elif not name.endswith("rodata"):
                contents[name[name.find(".") :] if "." in name else name] = list(held.items())
        return contents


def log2(value: int) -> int:
    return max(value.bit_length() - 1, 0)


def histogram(values: list[int]) -> list[int]:
    slots = [0] * 32
    for value in values:
        slots[min(log2(value), 31)] += 1
    return slots


def runnable(events_: Iterator[Event]) -> Iterator[tuple[int, int | None, dict[str, Any]]]:
    """(time, ns that the next task waited or None, fields) of each switch."""
    since: dict[int, int] = {}
    for time, name, fields, *_ in events_:
        if name != "sched_switch":
            if fields["pid"]:
                since[fields["pid"]] = time
            continue
        if fields["prev_state"] in PREEMPTED and fields["prev_pid"]:
            since[fields["prev_pid"]] = time
        started = since.pop(fields["next_pid"], None)
        yield time, None if started is None else time - started, fields


WAKEUPS = ("sched_wakeup", "sched_wakeup_new", "sched_switch")


@pytest.mark.parametrize(("tool", "program"), PROGRAMS, ids=[f"{tool}-{program}" for tool, program in PROGRAMS])
def test_accepted_by_the_running_kernel(tool: str, program: str) -> None:
    """Linux takes the same programs."""
    if not usable():
        pytest.skip("bpf(2) is not allowed here, or the kernel is not 6.18 on x86-64")
    with HostObject(OBJECTS[tool], tool) as host:
        fd, log = host.load(host.spec.programs[program])

    assert fd >= 0, log
    os.close(fd)


@pytest.mark.parametrize("kind", ["btf", "raw"])
def test_runqlat(recording: Recording, kind: str) -> None:
    """A histogram per thread, the same from tp_btf and from raw_tp."""
    programs = {f"{kind}_{name}" for name in ("wakeup", "wakeup_new", "switch")}
    maps = played("runqlat", recording, programs)
    waits = collections.defaultdict(list)
    missed = 0
    for _, wait, fields in runnable(events(recording, *WAKEUPS)):
        if wait is None:
            missed += 1
        else:
            waits[fields["next_pid"]].append(wait // 1000)

    assert len(waits) > 20
    assert {pid: hist["slots"] for pid, hist in maps["hists"]} == {pid: histogram(values) for pid, values in waits.items()}
    assert maps[".bss"][0][1]["missed"] == missed


def test_runqslower(recording: Recording) -> None:
    """A record for each wait above 100 us, in order, with both names."""
    records = [struct.unpack("<16s16sQII", record) for _, record in played("runqslower", recording)["events"]]
    expected = [
        (fields["next_comm"], fields["prev_comm"], wait // 1000, fields["next_pid"], fields["prev_pid"])
        for _, wait, fields in runnable(events(recording, *WAKEUPS))
        if wait is not None and wait // 1000 > 100
    ]

    assert len(expected) > 50
    assert [row[2:] for row in records] == [row[2:] for row in expected]
    assert [row[0].split(b"\0")[0] for row in records] == [row[0] for row in expected]
    assert [row[1].split(b"\0")[0] for row in records] == [row[1] for row in expected]


def test_offcputime(recording: Recording) -> None:
    """Nanoseconds and times off the CPU by pid, over all CPUs."""
    maps = played("offcputime", recording)
    start: dict[int, int] = {}
    delta: collections.Counter[int] = collections.Counter()
    times: collections.Counter[int] = collections.Counter()
    left: collections.Counter[bool] = collections.Counter()
    for time, _, fields, *_ in events(recording, "sched_switch"):
        if fields["prev_pid"]:
            start[fields["prev_pid"]] = time
            left[fields["prev_state"] in PREEMPTED] += 1
        since = start.pop(fields["next_pid"], None)
        if since is not None and time > since:
            delta[fields["next_pid"]] += time - since
            times[fields["next_pid"]] += 1

    assert len(delta) > 20
    assert {pid: sum(cpu["delta"] for cpu in cpus) for pid, cpus in maps["info"]} == delta
    assert {pid: sum(cpu["times"] for cpu in cpus) for pid, cpus in maps["info"]} == times
    assert (maps[".bss"][0][1]["preempted"], maps[".bss"][0][1]["blocked"]) == (left[True], left[False])


def test_wakeuptime(recording: Recording) -> None:
    """Nanoseconds asleep by (name of the woken, pid of the waker)."""
    maps = played("wakeuptime", recording)
    start: dict[int, int] = {}
    total: collections.Counter[tuple[str, int]] = collections.Counter()
    for time, name, fields, pid, _ in events(recording, "sched_switch", "sched_wakeup"):
        if name == "sched_switch":
            if fields["prev_pid"] and fields["prev_state"] not in PREEMPTED:
                start[fields["prev_pid"]] = time
            continue
        since = start.pop(fields["pid"], None)
        if since is not None and time > since:
            total[(fields["comm"].decode(), pid)] += time - since

    assert len(total) > 20
    assert {(str(key["target"]), key["waker_pid"]): value for key, value in maps["slept"]} == total


@pytest.mark.parametrize("kind", ["btf", "raw"])
def test_softirqs(recording: Recording, kind: str) -> None:
    """Counts, nanoseconds and a histogram by vector."""
    held = played("softirqs", recording, {f"{kind}_entry", f"{kind}_exit"})[".bss"][0][1]
    start: dict[int, int] = {}
    spent = collections.defaultdict(list)
    for time, name, fields, _, cpu in events(recording, "softirq_entry", "softirq_exit"):
        if name == "softirq_entry":
            start[cpu] = time
        elif cpu in start:
            spent[fields["vec"]].append(time - start[cpu])

    assert sum(map(len, spent.values())) > 900
    assert held["counts"] == [len(spent[vec]) for vec in range(10)]
    assert held["time"] == [sum(spent[vec]) for vec in range(10)]
    assert [hist["slots"] for hist in held["hists"]] == [histogram(spent[vec]) for vec in range(10)]


def test_cpudist(recording: Recording) -> None:
    """Times on the CPU by pid modulo 64, over all CPUs, and the longest."""
    maps = played("cpudist", recording, {"switched"})
    start: dict[int, int] = {}
    spent = collections.defaultdict(list)
    longest = 0
    count = 0
    for time, _, fields, *_ in events(recording, "sched_switch"):
        count += 1
        if fields["prev_pid"] in start:
            delta = time - start[fields["prev_pid"]]
            spent[fields["prev_pid"] % 64].append(delta // 1000)
            longest = max(longest, delta)
        start[fields["next_pid"]] = time
    found = {key: [sum(slots) for slots in zip(*(cpu["slots"] for cpu in cpus), strict=True)] for key, cpus in maps["hists"]}

    assert found == {key: histogram(spent[key]) for key in range(64)}
    assert (maps[".bss"][0][1]["longest_ns"], maps[".bss"][0][1]["switches"]) == (longest, count)


@pytest.mark.parametrize("kind", ["raw_exit", "btf_exit"])
def test_syscount(recording: Recording, kind: str) -> None:
    """Calls, failures, nanoseconds and the last errno by number."""
    held = played("syscount", recording, {"enter", kind})[".bss"][0][1]
    entered: dict[int, int] = {}
    rows = collections.defaultdict(lambda: [0, 0, 0, 0])
    unmatched = 0
    for time, name, fields, pid, _ in events(recording, "sys_enter", "sys_exit"):
        if name == "sys_enter":
            entered[pid] = time
            continue
        if not 0 <= fields["id"] < 512:
            continue
        since = entered.pop(pid, None)
        if since is None:
            unmatched += 1
            continue
        row = rows[fields["id"]]
        row[0] += 1
        row[2] += time - since
        if -4095 <= fields["ret"] < 0:
            row[1] += 1
            row[3] = -fields["ret"]
    found = {
        number: [call["count"], call["failed"], call["total_ns"], call["last_errno"]]
        for number, call in enumerate(held["calls"])
        if call["count"]
    }

    assert len(rows) > 20
    assert found == dict(rows)
    assert held["unmatched"] == unmatched


def test_biolatency_and_hardirqs() -> None:
    """The recording has neither block requests nor interrupt handlers: each program runs once on addresses of nothing."""
    with Kernel(cpus=2) as kernel:
        with kernel.load(OBJECTS["biolatency"]) as obj:
            request = struct.pack("<QQQ", 0x1234, 0, 512)
            assert obj.programs["issued"].test_run(request) == 0
            assert [obj.programs["completed"].test_run(request) for _ in range(2)] == [1, 0]
            assert [sum(hist["slots"]) for _, hist in obj.maps["hists"].items()] == [1]
        with kernel.load(OBJECTS["hardirqs"]) as obj:
            for name in ("entry", "exit_handler"):
                assert obj.programs[name].test_run(struct.pack("<QQQ", 9, 0x5678, 1)) == 0
            assert [(info["count"], sum(info["hist"]["slots"])) for _, info in obj.maps["infos"].items()] == [(1, 1)]
