"""Effects: what programs do to maps, and that whatever is said to commute gives on several threads what one thread gives."""

from __future__ import annotations

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
from fastrtp.effects import Access, Conflict, KernelRead, What, conflicts
from fastrtp.effects.values import CPU_KEY
from fastrtp.errors import BpfError, FastrtpError, OrderError
from fastrtp.helpers.table import HELPER_IDS
from fastrtp.isa import assemble, encode
from fastrtp.kernel import Kernel
from fastrtp.record import Recording
from fastrtp.record.demo import demo_recording
from fastrtp.replay.order import ExactOrder, order_conflicts
from fastrtp.uapi import BpfMapType as MapType

ROOT = Path(__file__).resolve().parents[1]
RAW_TP = 17
OBJECTS = sorted([*(ROOT / "fastrtp" / "programs").glob("*.bpf.o"), *(ROOT / "tests" / "data").rglob("*.bpf.o")])
LOOKUP = """
    *(u32 *)(r10 -4) = {key}
    r2 = r10
    r2 += -4
    r1 = map[fd:{map}]
    call bpf_map_lookup_elem
    if r0 == 0 goto +{skip}"""


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


@pytest.fixture
def machine() -> Iterator[Kernel]:
    with Kernel(cpus=2) as kernel:
        kernel.trace_event(NAME, PROTO)
        yield kernel


def load(kernel: Kernel, text: str, name: str = "prog") -> Any:
    """The loaded program."""
    fd = kernel.prog_load(RAW_TP, encode(assemble(text)), license="GPL", name=name)
    return kernel.current.files.fget(fd).private_data


def on_value(kernel: Kernel, map_type: int, body: str, key: str = "0") -> Any:
    """A program that does `body` to the value (r0) of a key of a new map."""
    made = kernel.map_create(map_type, 4, 16, 8)
    lines = [line for line in body.split(";") if line.strip()]
    before = "" if key.isdigit() else "call bpf_get_smp_processor_id\n*(u32 *)(r10 -4) = r0"
    look = LOOKUP.format(key=key, map=made, skip=len(lines))
    if before:
        look = look.replace(f"*(u32 *)(r10 -4) = {key}", before)
    return load(kernel, "\n".join([look, *lines, "r0 = 0", "exit"]))


def clashes(*progs: Any) -> list[Conflict]:
    return conflicts([prog.effects_member(f"p{number}") for number, prog in enumerate(progs)])


ADD = "r1 = 1; lock *(u64 *)(r0 +0) += r1"
COUNT = "r1 = *(u64 *)(r0 +0); r1 += 1; *(u64 *)(r0 +0) = r1"


@pytest.mark.parametrize(
    ("map_type", "body", "key", "commutes"),
    [
        (MapType.BPF_MAP_TYPE_ARRAY, ADD, "0", True),
        (MapType.BPF_MAP_TYPE_ARRAY, COUNT, "0", False),
        (MapType.BPF_MAP_TYPE_ARRAY, COUNT, "cpu", True),
        (MapType.BPF_MAP_TYPE_PERCPU_ARRAY, COUNT, "0", True),
        (MapType.BPF_MAP_TYPE_HASH, ADD, "0", True),
        (MapType.BPF_MAP_TYPE_HASH, COUNT, "0", False),
        (MapType.BPF_MAP_TYPE_PERCPU_HASH, COUNT, "0", True),
        (MapType.BPF_MAP_TYPE_LRU_HASH, ADD, "0", False),
        (MapType.BPF_MAP_TYPE_LRU_PERCPU_HASH, COUNT, "0", False),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; r1 = atomic64_fetch_add((u64 *)(r0 +0), r1)", "0", True),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; r1 = atomic64_fetch_add((u64 *)(r0 +0), r1); *(u64 *)(r0 +8) = r1", "0", False),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; r1 = atomic64_xchg((u64 *)(r0 +0), r1)", "0", False),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; lock *(u64 *)(r0 +0) |= r1", "0", True),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; lock *(u64 *)(r0 +0) |= r1; lock *(u64 *)(r0 +0) += r1", "0", False),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; lock *(u64 *)(r0 +0) |= r1; lock *(u64 *)(r0 +8) += r1", "0", True),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; lock *(u64 *)(r0 +0) += r1; lock *(u32 *)(r0 +0) += r1", "0", False),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; lock *(u64 *)(r0 +0) += r1; r1 = *(u64 *)(r0 +8)", "0", True),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = 1; lock *(u64 *)(r0 +0) += r1; r1 = *(u32 *)(r0 +4)", "0", False),
        (MapType.BPF_MAP_TYPE_ARRAY, "r1 = *(u64 *)(r0 +0)", "0", True),
    ],
)  # fmt: skip
def test_what_is_done_to_a_value(machine: Kernel, map_type: int, body: str, key: str, commutes: bool) -> None:
    assert (clashes(on_value(machine, map_type, body, key)) == []) is commutes


def test_one_programs_read_of_anothers_counter(machine: Kernel) -> None:
    """Each alone commutes; both together do not."""
    array = machine.map_create(2, 4, 8, 4)
    adds = load(machine, LOOKUP.format(key=0, map=array, skip=2) + f"\n{ADD}\nr0 = 0\nexit".replace(";", "\n"))
    reads = load(machine, LOOKUP.format(key=0, map=array, skip=1) + "\nr1 = *(u64 *)(r0 +0)\nr0 = 0\nexit")
    apart = load(machine, LOOKUP.format(key=1, map=array, skip=1) + "\nr1 = *(u64 *)(r0 +0)\nr0 = 0\nexit")

    assert clashes(adds) == clashes(reads) == clashes(adds, apart) == []
    assert [(row.program, row.insn) for row in clashes(adds, reads)] == [("p0", 8), ("p1", 7)]


def test_another_cpus_value_of_a_per_cpu_map(machine: Kernel) -> None:
    """Whoever reads other CPUs' values makes everybody's own writes matter."""
    percpu = machine.map_create(6, 4, 8, 1)
    own = load(machine, LOOKUP.format(key=0, map=percpu, skip=3) + f"\n{COUNT}\nr0 = 0\nexit".replace(";", "\n"))
    text = LOOKUP.format(key=0, map=percpu, skip=1).replace("call bpf_map_lookup_elem", "r3 = 1\ncall bpf_map_lookup_percpu_elem")
    all_of_them = load(machine, text + "\nr1 = *(u64 *)(r0 +0)\nr0 = 0\nexit")

    assert clashes(own) == []
    assert clashes(all_of_them) == []
    assert {row.program for row in clashes(own, all_of_them)} == {"p0", "p1"}


OUTPUT = """
    r6 = r1
    *(u64 *)(r10 -8) = 7
    r1 = r6
    r2 = map[fd:{map}]
    {flags}
    r4 = r10
    r4 += -8
    r5 = 8
    call bpf_perf_event_output
    r0 = 0
    exit"""


def test_each_cpus_own_perf_ring(machine: Kernel) -> None:
    perf = machine.map_create(MapType.BPF_MAP_TYPE_PERF_EVENT_ARRAY, 4, 4, 2)
    own = load(machine, OUTPUT.format(map=perf, flags="r3 = 0xffffffff ll"))
    first = load(machine, OUTPUT.format(map=perf, flags="r3 = 0"))

    assert clashes(own) == []
    assert [row.what.split(":")[0] for row in clashes(first)] == ["outputs to it"]
    assert len(clashes(own, first)) == 2


def test_a_value_reached_through_a_function_and_the_stack(machine: Kernel) -> None:
    """A pointer that was spilled, handed to a function and came back is still known for what it is."""
    array = machine.map_create(6, 4, 8, 1)
    text = (
        LOOKUP.format(key=0, map=array, skip=7)
        + """
        *(u64 *)(r10 -16) = r0
        r1 = *(u64 *)(r10 -16)
        call +6
        r1 = *(u64 *)(r0 +0)
        r1 += 1
        *(u64 *)(r0 +0) = r1
        r1 = 0
        r0 = 0
        exit
        r0 = r1
        exit"""
    )
    prog = load(machine, text)

    assert {access.what for access in prog.effects.accesses} == {What.READ, What.WRITE}
    assert all(access.own and access.map == 0 for access in prog.effects.accesses)


def test_what_a_key_is_known_to_be(machine: Kernel) -> None:
    by_cpu = on_value(machine, 2, COUNT, "cpu")
    by_number = on_value(machine, 2, ADD, "3")

    assert {access.key for access in by_cpu.effects.accesses} == {CPU_KEY}
    assert by_number.effects.accesses == (Access(8, What.ADD, 0, False, 3, 0, 8, 8),)


def test_which_bytes_of_an_argument_are_read(machine: Kernel) -> None:
    prog = load(machine, """
        r3 = *(u64 *)(r1 +8)
        r3 += 24
        r1 = r10
        r1 += -8
        r2 = 4
        call bpf_probe_read_kernel
        r0 = 0
        exit""")  # fmt: skip

    assert prog.effects.kernel_reads == (KernelRead(5, 24, 28),)
    assert prog.effects.accesses == ()


def test_every_rule_is_for_a_helper_that_there_is() -> None:
    from fastrtp.btf.kfuncs import KFUNCS
    from fastrtp.effects.rules import HELPER_RULES, KFUNC_RULES

    assert HELPER_RULES.keys() <= HELPER_IDS.keys()
    assert KFUNC_RULES.keys() <= KFUNCS.keys()


def test_a_refusal_names_map_instruction_and_line(demo: Recording) -> None:
    with Kernel(cpus=2) as kernel, kernel.load(ROOT / "fastrtp" / "programs" / "runqlat.bpf.o") as obj, obj.attach():
        with pytest.raises(OrderError) as refused:
            kernel.replay(demo, cpus="recorded")

        row = refused.value.conflicts[0]
        assert (row.map, row.map_type, row.program, row.insn) == ("enqueued", 1, "on_wakeup", 19)
        assert row.source == "runqlat.bpf.c:56: bpf_map_update_elem(&enqueued, &pid, &now, BPF_ANY);"
        assert 'order="relaxed"' in str(refused.value)
        assert list(obj.maps["runqlat"].items()) == []
        assert kernel.replay(demo, cpus="recorded", order="relaxed").threads == 2
        assert kernel.replay(demo, cpus=1).threads == 1


def contents(obj: Any) -> dict[str, Any]:
    """What all maps of an object hold; of rings the records."""
    found: dict[str, Any] = {}
    for name, held in obj.maps.items():
        if hasattr(held.map, "reader") or hasattr(held.map, "rings"):
            found[name] = list(held.consume())
        elif hasattr(held.map, "arrays") and not hasattr(held.map, "set_slot"):
            try:
                found[name] = dict(held.raw_items())
            except BpfError:
                found[name] = None
    return found


def outcome(source: Path, recording: Recording, **options: Any) -> Any:
    """(what maps hold, runs, reads that failed) after a replay; the conflicts where it was refused; None: not for replays."""
    with Kernel(cpus=2) as kernel:
        try:
            obj = kernel.load(source)
            links = obj.attach()
        except (FastrtpError, KeyError):
            return None
        if not links:
            return None
        try:
            report = kernel.replay(recording, **options)
        except OrderError as error:
            return error.conflicts
        return contents(obj), report.programs, report.faulted_reads, report.fired, report.dropped


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.stem.removesuffix(".bpf"))
def test_shipped_programs_are_equal_or_refused(demo: Recording, path: Path) -> None:
    expected = outcome(path, demo)
    for cpus in ("recorded", 2, 3) if expected is not None else ():
        seen = outcome(path, demo, cpus=cpus)

        assert isinstance(seen[0], Conflict) or seen == expected


def test_what_is_attached_on_the_way_is_asked_too(machine: Kernel, demo: Recording) -> None:
    """A program that does not commute ends a replay that has begun without it."""
    array = machine.map_create(2, 4, 8, 1)
    count = LOOKUP.format(key=0, map=array, skip=3) + f"\n{COUNT}\nr0 = 0\nexit".replace(";", "\n")
    fd = machine.prog_load(RAW_TP, encode(assemble(count)), license="GPL")
    coming = machine.current.files.fget(fd).private_data

    def attach(done: int, total: int) -> None:
        if coming.refcnt and done < total / 2:
            machine.raw_tracepoint_open("sched_wakeup", fd)

    with pytest.raises(OrderError):
        machine.replay(demo, cpus=2, chunk=5000, progress=attach)
    assert coming.runs == 0


# programs of random operations on maps of all kinds

_VALUE_OPS = [
    ADD, COUNT, "r1 = 3; lock *(u64 *)(r0 +8) |= r1", "r1 = 5; lock *(u64 *)(r0 +8) ^= r1", "*(u64 *)(r0 +8) = 9",
    "r1 = *(u64 *)(r0 +0); r9 += r1", "r1 = *(u64 *)(r0 +8)", "r1 = 1; lock *(u32 *)(r0 +4) += r1",
    "r1 = 2; r1 = atomic64_fetch_add((u64 *)(r0 +0), r1)", "r1 = 2; r1 = atomic64_fetch_add((u64 *)(r0 +0), r1); r9 += r1",
    "r1 = r9; lock *(u64 *)(r0 +0) += r1", "r1 = r9; *(u64 *)(r0 +0) = r1",
]  # fmt: skip
_MAP_TYPES = [
    MapType.BPF_MAP_TYPE_ARRAY, MapType.BPF_MAP_TYPE_PERCPU_ARRAY, MapType.BPF_MAP_TYPE_HASH, MapType.BPF_MAP_TYPE_PERCPU_HASH,
    MapType.BPF_MAP_TYPE_LRU_HASH,
]  # fmt: skip
KEYS = ["0", "1", "cpu", "arg"]
operations = st.tuples(
    st.sampled_from(["value"] * 6 + ["update", "delete"]), st.integers(0, 1), st.sampled_from(KEYS), st.sampled_from(_VALUE_OPS)
)


def random_text(maps: list[int], ops: list[tuple[str, int, str, str]]) -> str:
    """A program: r6 its context, r9 a number that what it has seen goes into."""
    lines = ["r6 = r1", "r9 = *(u64 *)(r6 +8)", "r9 &= 255"]
    for what, number, key, body in ops:
        if key == "cpu":
            lines += ["call bpf_get_smp_processor_id", "*(u32 *)(r10 -4) = r0"]
        elif key == "arg":
            lines += ["r1 = *(u64 *)(r6 +0)", "r1 &= 3", "*(u32 *)(r10 -4) = r1"]
        else:
            lines += [f"*(u32 *)(r10 -4) = {key}"]
        lines += ["r2 = r10", "r2 += -4", f"r1 = map[fd:{maps[number]}]"]
        if what == "value":
            steps = [step.strip() for step in body.split(";")]
            lines += ["call bpf_map_lookup_elem", f"if r0 == 0 goto +{len(steps)}", *steps]
        elif what == "update":
            lines += ["*(u64 *)(r10 -24) = r9", "*(u64 *)(r10 -16) = 0", "r3 = r10", "r3 += -24", "r4 = 0",
                      "call bpf_map_update_elem"]  # fmt: skip
        else:
            lines += ["call bpf_map_delete_elem"]
    return "\n".join([*lines, "r0 = 0", "exit"])


def random_outcome(kinds: list[int], programs: list[list[Any]], cpus: int, seed: int) -> tuple[bool, list[Any]]:
    """(whether effects commute, what the maps hold) after generated events through the programs, on one or two threads."""
    rng = np.random.default_rng(seed)
    count = 3000
    columns = rng.integers(0, 2, count), rng.integers(0, 4, count), rng.integers(0, 1 << 30, count)
    with Kernel(cpus=2) as kernel:
        kernel.trace_event(NAME, PROTO)
        maps = [kernel.map_create(kind, 4, 16, 8) for kind in kinds]
        held = [kernel.current.files.fget(fd).private_data.map for fd in maps]
        for fd, found in zip(maps, held, strict=True):
            for key in range(3):
                kernel.map_update_elem(fd, key.to_bytes(4, "little"), bytes(found.value_size_user))
        for ops in programs:
            kernel.raw_tracepoint_open(NAME, kernel.prog_load(RAW_TP, encode(assemble(random_text(maps, ops))), license="GPL"))
        events = bound(kernel, *columns)
        with kernel.lock:
            commutes = not order_conflicts(kernel)
        if cpus > 1 and commutes:
            with kernel.lock:
                ExactOrder(kernel, events).check()
        if cpus == 1 or commutes:
            with player(kernel, events, cpus=cpus, window=None) as playing:
                playing.run()
        return commutes, [dict(found.raw_items()) for found in held]


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(_MAP_TYPES), min_size=2, max_size=2),
    st.lists(st.lists(operations, min_size=1, max_size=2), min_size=1, max_size=2),
    st.integers(0, 1 << 20),
)
def test_random_programs_that_commute_are_exact(kinds: list[int], programs: list[list[Any]], seed: int) -> None:
    commutes, seen = random_outcome(kinds, programs, 2, seed)
    if commutes:
        assert seen == random_outcome(kinds, programs, 1, seed)[1]


def test_the_command_line_shows_them() -> None:
    command = [sys.executable, "-m", "fastrtp", "verify", str(ROOT / "fastrtp" / "programs" / "switches.bpf.o"), "--effects"]

    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "looks keys up in it" in told
    assert "map switches: on_switch, instruction 56 (switches.bpf.c:39: bpf_map_update_elem" in told
