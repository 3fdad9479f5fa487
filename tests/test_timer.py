"""bpf_timer: what the verifier says of programs that use it (on Linux too), and when callbacks run."""

from __future__ import annotations

import errno
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_object import said, said_by_linux
from test_stackmap import recorded, sys_enter

import fastrtp as rtp
from fastrtp.errors import BpfError
from fastrtp.record import Recording

OBJECT = Path(__file__).parent / "data" / "elf" / "timers.bpf.o"
MS = 1_000_000
SAID = {
    "start": "",
    "repeat": "",
    "statuses": "",
    "within": "",
    "evicted": "",
    "raw_tp": "tracing progs cannot use bpf_timer yet",
    "load_of_timer": "bpf_timer cannot be accessed directly by load/store",
    "store_to_timer": "bpf_timer cannot be accessed directly by load/store",
    "not_the_timer": "off 24 doesn't point to 'struct bpf_timer' that is at 8",
    "variable_place": "R1 doesn't have constant offset. bpf_timer has to be at the constant offset",
    "wrong_map": "timer pointer in R1 map_uid=0 doesn't match map pointer in R2 map_uid=0",
    "on_the_stack": "R1 type=fp expected=map_value",
    "returns_one": "At async callback return the register R0 has smin=1 smax=1 should have been in [0, 0]",
    "returns_unknown": "At async callback return the register R0 has unknown scalar value should have been in [0, 0]",
    "reads_past_key": "R2 min value is outside of the allowed memory range",
    "reads_timer": "bpf_timer cannot be accessed directly by load/store",
    "value_as_data": "bpf_timer cannot be accessed directly by load/store",
}


@pytest.fixture
def kernel() -> Iterator[rtp.Kernel]:
    with rtp.Kernel(cpus=2) as kernel:
        yield kernel


@pytest.mark.parametrize("name", SAID)
def test_verdicts(kernel: rtp.Kernel, name: str) -> None:
    assert said(kernel, OBJECT, name) == SAID[name]


def test_verdicts_of_linux() -> None:
    assert said_by_linux(OBJECT) == SAID


def values(obj: rtp.BpfObject, name: str) -> dict[int, tuple[int, int]]:
    """Key -> (count, last) of a map."""
    found = {}
    for key, value in obj.maps[name].raw_items():
        count, opaque, rest, last = struct.unpack("<4Q", value)
        assert opaque == rest == 0
        found[int.from_bytes(key, "little")] = (count, last)
    return found


def trail(obj: rtp.BpfObject) -> list[tuple[int, int]]:
    """(key, count) of every run of a callback, in order."""
    data = dict(obj.maps[".bss"].items())[0]
    return [(entry >> 32, entry & 0xFFFFFFFF) for entry in data["trail"][: data["logged"]]]


def results(obj: rtp.BpfObject) -> list[int]:
    return list(dict(obj.maps[".bss"].items())[0]["results"])


def replayed(tmp_path: Path, *events: tuple[int, int]) -> Recording:
    """Events of sys_enter: (time in ms, id)."""
    recording = recorded(tmp_path, [sys_enter(5, number) for _, number in events])
    recording.time[:] = [1_000_000_000 + at * MS for at, _ in events]
    return recording


def test_timers_fire_at_virtual_time(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """Between events, in order of expiry, with the time of expiry as the clock; what is due later waits."""
    with kernel.load(OBJECT, autoload=["start"]) as obj, obj.attach():
        report = kernel.replay(replayed(tmp_path, (0, 30), (1, 5), (2, 4), (40, 60), (100, 1), (101, 200)))

        second = 1_000_000_000
        assert report.tier == "linked"
        assert values(obj, "hash") == {
            30: (1, second + 30 * MS), 5: (1, second + 6 * MS), 4: (1, second + 6 * MS), 60: (1, second + 100 * MS),
            1: (1, second + 101 * MS), 200: (0, 0),
        }  # fmt: skip
        assert [key for key, _ in trail(obj)] == [5, 4, 30, 60, 1]


def test_what_is_armed_at_the_end_stays_as_far_away(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """A second replay goes on where the first ended."""
    with kernel.load(OBJECT, autoload=["start"]) as obj, obj.attach():
        kernel.replay(replayed(tmp_path, (0, 3_000_000)))
        assert trail(obj) == []
        kernel.replay(replayed(tmp_path, (0, 7), (2_999_000, 8), (3_001_000, 9)))

        assert [key for key, _ in trail(obj)] == [7, 8, 3_000_000]


def test_a_callback_starts_its_timer_again(kernel: rtp.Kernel, tmp_path: Path) -> None:
    with kernel.load(OBJECT, autoload=["repeat"]) as obj, obj.attach():
        kernel.replay(replayed(tmp_path, (0, 2), (50, 2)))

        assert trail(obj) == [(2, 1), (2, 2), (2, 3), (2, 4), (2, 5)]
        assert values(obj, "array")[2] == (5, 1_000_000_000 + 5 * MS)


def test_statuses(kernel: rtp.Kernel) -> None:
    with kernel.load(OBJECT, autoload=["statuses"]) as obj, obj.attach():
        kernel.trace("sys_enter")(0, 0)

        invalid = -errno.EINVAL
        assert results(obj) == [invalid, invalid, invalid, 0, -errno.EBUSY, invalid, invalid, 1 << 8]


def test_live_timers_fire_before_the_next_event(kernel: rtp.Kernel) -> None:
    """By the host's clock: when asked, before an event that is fired, before a test run."""
    with kernel.load(OBJECT, autoload=["start"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        assert kernel.run_timers() == 0
        begin = time.monotonic_ns()
        fire(0, 1)
        fire(0, 60_000)
        while not kernel.run_timers():
            time.sleep(0.001)
        assert begin + MS <= values(obj, "hash")[1][1] <= time.monotonic_ns()
        fire(0, 2)
        time.sleep(0.003)
        fire(0, 60_001)

        assert [key for key, _ in trail(obj)] == [1, 2]


def test_in_its_own_callback(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """Cancelling would wait for itself; the element may go, and its timer with it."""
    with kernel.load(OBJECT, autoload=["within"]) as obj, obj.attach():
        kernel.replay(replayed(tmp_path, (0, 1), (50, 1), (90, 1)))

        assert results(obj)[:4] == [-errno.EDEADLK, -errno.EBUSY, 0, 0]
        assert kernel.memory.heap["live"][0] == 1  # that of the last event, not yet due


def test_values_from_outside_end_timers(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """An update from a system call ends the timer of the value that it replaces, as a deletion does; nobody sees its address.

    Kernel: kernel/bpf/hashtab.c:htab_map_update_elem (check_and_free_fields of the old element)
    """
    with kernel.load(OBJECT, autoload=["start"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        for number in (1, 2, 3):
            fire(0, number)
        held = obj.maps["hash"]
        held.update(struct.pack("<I", 3), struct.pack("<4Q", 70, 1, 1, 1))
        held.delete(struct.pack("<I", 2))
        assert held.lookup(struct.pack("<I", 3)) == struct.pack("<4Q", 70, 0, 0, 1)
        assert kernel.memory.timers["count"][0] == kernel.memory.heap["live"][0] == 1
        time.sleep(0.003)

        assert kernel.run_timers() == 1
        assert (values(obj, "hash")[1][0], values(obj, "hash")[3][0]) == (1, 70)
        with pytest.raises(BpfError):
            held.map.update_elem(bytes(4), bytes(32), 8)


def test_eviction_ends_a_timer(kernel: rtp.Kernel) -> None:
    with kernel.load(OBJECT, autoload=["evicted"]) as obj, obj.attach():
        fire = kernel.trace("sys_enter")
        for number in range(5):
            fire(0, number)

        assert len(values(obj, "lru")) == 2
        assert kernel.memory.timers["count"][0] == kernel.memory.heap["live"][0] == 2


def test_a_timer_keeps_its_program(kernel: rtp.Kernel) -> None:
    """The program that gave the callback lives as long as the timer; closing the maps ends both."""
    obj = kernel.load(OBJECT, autoload=["start"])
    links = obj.attach()
    held = kernel.fd_by_id("map", obj.maps["hash"].map.id)
    kernel.trace("sys_enter")(0, 1)
    links.close()
    obj.close()
    assert (len(kernel.progs), len(kernel.links)) == (1, 0)
    time.sleep(0.003)
    assert kernel.run_timers() == 1
    assert kernel.map_lookup_elem(held, struct.pack("<I", 1))[:8] == struct.pack("<Q", 1)
    kernel.close(held)

    assert (len(kernel.progs), len(kernel.maps)) == (0, 0)
    assert (kernel.memory.timers["list"][0], kernel.memory.heap["live"][0]) == (0, 0)


def test_many_timers(kernel: rtp.Kernel, tmp_path: Path) -> None:
    """Order of expiry, whatever the order of start."""
    numbers = [(number * 37) % 61 + 1 for number in range(60)]
    with kernel.load(OBJECT, autoload=["start"]) as obj, obj.attach():
        kernel.replay(replayed(tmp_path, *((0, number) for number in numbers), (100, 0)))

        assert [key for key, _ in trail(obj)] == sorted(numbers)
