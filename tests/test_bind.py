"""replay/bind.py: bound columns and objects say what the kernel's programs saw."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from truth import Model, compared_pids, kernel_format, kernel_map

from fastrtp.btf import default_btf, tracepoints
from fastrtp.errors import ReplayError
from fastrtp.mem.arena import Arena
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable, Recording
from fastrtp.record.columns import LOCATION
from fastrtp.record.demo import demo_recording
from fastrtp.record.event_format import parse_event_format
from fastrtp.record.recipes import RECIPES
from fastrtp.replay.bind import BoundRecording, bind
from fastrtp.replay.bind_args import FAULT_ADDRESS

PROTOS = tracepoints(default_btf())


@pytest.fixture
def objects() -> Iterator[ObjectSpace]:
    arena = Arena()
    yield ObjectSpace(arena, default_btf())
    arena.close()


@pytest.fixture(scope="module")
def demo() -> Recording:
    return Recording.open(demo_recording())


def one_event(
    name: str, system: str, lines: list[str], rows: list[tuple[int, ...]], pids: list[int], cpus: list[int]
) -> Recording:
    """A recording with one table; `lines` are (type name, size) fields as in a format file."""
    text = f"name: {name}\nID: 7\nformat:\n" + "".join(f"\tfield:{line}\n" for line in lines) + 'print fmt: ""\n'
    fmt = parse_event_format(text, system)
    columns = zip(*rows, strict=True) if rows else [[] for _ in fmt.fields]
    fields = {spec.name: np.array(column, spec.dtype) for spec, column in zip(fmt.fields, columns, strict=True)}
    n = len(rows)
    return Recording(
        time=np.arange(n, dtype=np.int64),
        cpu=np.array(cpus, np.uint16),
        event=np.zeros(n, np.uint16),
        row=np.arange(n, dtype=np.uint32),
        pid=np.array(pids, np.int32),
        tables=[EventTable(name, system, fields, fmt, {}, n)],
        cpus=2,
    )


def in_kernel_sense(bound: BoundRecording, objects: ObjectSpace) -> dict[str, tuple[int, int]]:
    """(equal, compared) entries of each map, by the rules of tests/data/replay/README.md."""
    model = Model(bound, objects)
    model.run()
    pids = compared_pids()
    keep = {
        "switches": lambda key: bool(pids & set(struct.unpack("<II", key))),
        "syscalls": lambda key: struct.unpack("<Q", key)[0] >> 32 in pids,
        "sysargs": lambda key: struct.unpack("<Q", key)[0] >> 32 in pids,
        "sysrets": lambda key: struct.unpack("<Q", key)[0] >> 32 in pids,
        "wakeups": lambda key: struct.unpack("<I", key)[0] in pids,
    }
    scores = {}
    for name, wanted in keep.items():
        ours, theirs = model.raw(name), kernel_map(name)
        keys = [key for key in ours.keys() | theirs.keys() if wanted(key)]
        scores[name] = (sum(ours.get(key) == theirs.get(key) for key in keys), len(keys))
    theirs = kernel_map("runq")
    keys = [key for key in theirs if struct.unpack("<I", key)[0] in pids]
    equal = 0
    for key in keys:
        count, slots, comm = model.runq.get(struct.unpack("<I", key)[0], (0, [], b""))
        raw = theirs[key]
        equal += (count, sum(slots), comm) == (
            struct.unpack_from("<Q", raw)[0],
            sum(struct.unpack_from("<32Q", raw, 8)),
            raw[264:],
        )
    scores["runq"] = (equal, len(keys))
    return scores


def test_what_the_kernel_counted(demo: Recording, objects: ObjectSpace) -> None:
    """A model of the programs, reading only bound arguments and objects, counts what they counted in the kernel."""
    bound = bind(demo, objects, PROTOS)

    scores = in_kernel_sense(bound, objects)

    assert {name: equal for name, (equal, _) in scores.items()} == {name: compared for name, (_, compared) in scores.items()}
    assert all(compared > 20 for _, compared in scores.values()), scores


def test_version_6_file_says_the_same(shared, objects: ObjectSpace) -> None:  # type: ignore[no-untyped-def]
    """The uncompressed version 6 file binds to the same counts."""
    bound = bind(Recording.open(shared / "recordings" / "churn" / "trace-v6.dat"), objects, PROTOS)

    scores = in_kernel_sense(bound, objects)

    assert all(equal == compared > 0 for equal, compared in scores.values()), scores


def test_columns_fit_their_recording(demo: Recording, objects: ObjectSpace) -> None:
    """Every column has its table's rows, is contiguous, and every argument of every prototype is there."""
    bound = bind(demo, objects, PROTOS)

    for event, table in zip(bound.events, demo.tables, strict=True):
        assert len(event.args) == len(PROTOS[event.name].args)
        for arg in event.args:
            assert arg.column is None or (
                len(arg.column) == len(table) and arg.column.flags.c_contiguous and arg.column.dtype.kind in "iu"
            )
        for store in [*event.stores, *event.after]:
            assert store.column is None or (len(store.column) == len(table) and store.column.flags.c_contiguous)
            assert store.base_arg >= 0 or store.base is not None
    assert len(bound.current) == demo.events
    assert int(bound.current.min()) > objects.arena.base


def test_current_is_the_task_of_common_pid(demo: Recording, objects: ObjectSpace) -> None:
    """Every event's current task has the event's pid, and the idle task of its CPU for pid 0."""
    bound = bind(demo, objects, PROTOS)

    offset = objects.member("task_struct", "pid").offset_bytes
    for address in np.unique(bound.current):
        mine = bound.current == address
        pids = set(demo.pid[mine].tolist())
        assert pids == {objects.get("task_struct", int(address), "pid")}
        if pids == {0}:
            assert set(demo.cpu[mine].tolist()) == {
                int(objects.get("task_struct", int(address), "comm").removeprefix("swapper/"))
            }
    assert offset > 0


def test_tasks_know_parent_group_and_memory(demo: Recording, objects: ObjectSpace) -> None:
    """Forked processes point to their parent, threads to their leader and their leader's mm."""
    bind(demo, objects, PROTOS)

    fork = demo.table("sched_process_fork")
    processes = [
        (int(p), int(c))
        for p, c in zip(fork.fields["parent_pid"], fork.fields["child_pid"], strict=True)
        if demo.tgid(int(c)) == c
    ]
    threads = dict(demo.tgids)
    assert processes
    assert threads
    for parent, child in processes:
        assert objects.get("task_struct", objects.task(child), "real_parent") == objects.task(parent)
    for thread, leader in threads.items():
        assert objects.get("task_struct", objects.task(thread), "tgid") == leader
        assert objects.get("task_struct", objects.task(thread), "group_leader") == objects.task(leader)
        mms = {objects.get("task_struct", objects.task(pid), "mm") for pid in (thread, leader)}
        assert len(mms) == 1
        assert mms != {0}


@pytest.mark.parametrize(
    ("recorded", "preempt", "state", "exit_state"),
    [
        (0, 0, 0, 0),
        (1, 0, 1, 0),
        (2, 0, 2, 0),
        (0x100, 1, 0, 0),
        (0x20, 0, 0x80, 0x20),
        (0x10, 0, 0x80, 0x10),
        (0x80, 0, 0x402, 0),
        (0x40, 0, 0x40, 0),
    ],
)
def test_sched_switch_state_is_turned_back(
    recorded: int, preempt: int, state: int, exit_state: int, objects: ObjectSpace
) -> None:
    """prev_state of the record becomes preempt, the state argument, task->__state and exit_state."""
    lines = [
        "char prev_comm[16];\toffset:8;\tsize:16;\tsigned:1;",
        "pid_t prev_pid;\toffset:24;\tsize:4;\tsigned:1;",
        "int prev_prio;\toffset:28;\tsize:4;\tsigned:1;",
        "long prev_state;\toffset:32;\tsize:8;\tsigned:1;",
        "char next_comm[16];\toffset:40;\tsize:16;\tsigned:1;",
        "pid_t next_pid;\toffset:56;\tsize:4;\tsigned:1;",
        "int next_prio;\toffset:60;\tsize:4;\tsigned:1;",
    ]
    recording = one_event("sched_switch", "sched", lines, [(b"a", 5, 120, recorded, b"swapper/1", 0, 120)], [5], [1])  # type: ignore[list-item]

    event = bind(recording, objects, PROTOS).events[0]

    assert [arg.column.tolist() for arg in (event.args[0], event.args[3]) if arg.column is not None] == [[preempt], [state]]
    assert event.args[2].column is not None
    assert event.args[2].column.tolist() == [objects.idle_task(1)]
    at = {store.offset: store.column for store in event.stores if store.base_arg == 1 and store.column is not None}
    assert at[objects.member("task_struct", "__state").offset_bytes].tolist() == [state]
    assert at[objects.member("task_struct", "exit_state").offset_bytes].tolist() == [exit_state]


NO_RECIPE = ["unsigned long pfn;\toffset:8;\tsize:8;\tsigned:0;"]


def test_missing_pointer_follows_the_policy(objects: ObjectSpace) -> None:
    """zero gives a readable object of zeros, fault an address outside the arena, strict refuses with the reason."""
    recording = one_event("mm_page_free_batched", "kmem", NO_RECIPE, [(77,)], [5], [0])
    wanted = {"mm_page_free_batched"}

    zero = bind(recording, objects, PROTOS, "zero", wanted)
    fault = bind(recording, objects, PROTOS, "fault", wanted)

    assert objects.arena.view(zero.events[0].args[0].const, objects.size("page")).sum() == 0
    assert fault.events[0].args[0].const == FAULT_ADDRESS
    assert [(lack.tracepoint, lack.arg) for lack in zero.missing] == [("mm_page_free_batched", 0)]
    with pytest.raises(ReplayError, match="mm_page_free_batched argument 0: the page frame number is recorded"):
        bind(recording, objects, PROTOS, "strict", wanted)
    assert bind(recording, objects, PROTOS, "strict", {"mm_page_free_batched": ()}).missing == []
    assert bind(recording, objects, PROTOS, "strict", ()).missing == []
    with pytest.raises(ReplayError, match="policy 'loose' is not one of"):
        bind(recording, objects, PROTOS, "loose")  # type: ignore[arg-type]


def test_scalars_without_a_recipe(objects: ObjectSpace) -> None:
    """A tracepoint that no recipe covers gets its integers where sizes tell them apart; others are reported."""
    lines = ["int vector;\toffset:8;\tsize:4;\tsigned:1;"]
    recording = one_event("local_timer_entry", "irq_vectors", lines, [(236,)], [5], [0])

    bound = bind(recording, objects, PROTOS, "zero", {"local_timer_entry"})

    assert bound.missing == []
    assert bound.events[0].args[0].column is not None
    assert bound.events[0].args[0].column.tolist() == [236]

    lines = ["unsigned int a;\toffset:8;\tsize:4;\tsigned:0;", "unsigned int b;\toffset:12;\tsize:4;\tsigned:0;"]
    ambiguous = bind(
        one_event("local_timer_entry", "irq_vectors", lines, [(1, 2)], [5], [0]), objects, PROTOS, "zero", {"local_timer_entry"}
    )

    assert [(lack.arg, lack.why) for lack in ambiguous.missing] == [(0, "no recorded field fits it")]


def test_format_without_a_field_is_reported(objects: ObjectSpace) -> None:
    """A recorded kernel whose format lacks what the recipe reads gives a missing argument, not an error."""
    recording = one_event("sched_wakeup", "sched", ["int target_cpu;\toffset:8;\tsize:4;\tsigned:1;"], [(1,)], [5], [0])

    bound = bind(recording, objects, PROTOS, "zero", {"sched_wakeup"})

    assert [(lack.arg, lack.why) for lack in bound.missing] == [(0, "the format of sched_wakeup has no field 'pid'")]


def test_unknown_tracepoint_is_carried_without_arguments(objects: ObjectSpace) -> None:
    """Events that the kernel at hand does not know stay in the order but call nothing."""
    recording = one_event("no_such_event", "x", ["int a;\toffset:8;\tsize:4;\tsigned:1;"], [(1,)], [5], [0])

    bound = bind(recording, objects, PROTOS, "zero", {"no_such_event"})

    assert bound.events[0].args == []
    assert bound.missing[0].why == "the kernel has no such tracepoint"


def test_empty_recording(objects: ObjectSpace) -> None:
    """A recording without events binds to nothing."""
    recording = one_event("sched_wakeup", "sched", [], [], [], [])

    bound = bind(recording, objects, PROTOS, "strict", {"sched_switch"})

    assert (len(bound.current), len(bound.time), bound.missing) == (0, 0, [])


def test_hostile_pids_still_have_tasks(objects: ObjectSpace) -> None:
    """Pids outside the kernel's range are identities like any other."""
    lines = ["int cpu;\toffset:8;\tsize:4;\tsigned:1;"]
    recording = one_event("sched_wake_idle_without_ipi", "sched", lines, [(1,)] * 4, [-5, 0, 2**31 - 1, -5], [0, 1, 0, 1])

    bound = bind(recording, objects, PROTOS)

    assert [objects.get("task_struct", int(task), "pid") for task in bound.current] == [-5, 0, 2**31 - 1, -5]
    assert bound.current[0] == bound.current[3]


def test_rename_takes_effect_behind_the_event(demo: Recording, objects: ObjectSpace) -> None:
    """task->comm is the old name while task_rename's probes run and the new one afterwards."""
    bound = bind(demo, objects, PROTOS)
    event = next(event for event in bound.events if event.name == "task_rename")
    table = demo.table("task_rename")
    comm = objects.member("task_struct", "comm").offset_bytes

    before = next(store.column for store in event.stores if store.offset == comm and store.base_arg == 0)
    (after,) = event.after

    assert before is not None
    assert after.column is not None
    assert before.tolist() == table.fields["oldcomm"].tolist()
    assert after.column.tolist() == table.fields["newcomm"].tolist()


WRONG = {
    "no such field": None,
    "a string": np.array([b"abc"], "S4"),
    "an empty string": np.array([b""], "S16"),
    "rows of numbers": np.ones((1, 3), np.uint16),
    "a variable string": np.array([(0, 3)], LOCATION),
    "a byte": np.array([200], np.uint8),
    "a negative number": np.array([-(1 << 62)], np.int64),
    "a large number": np.array([(1 << 64) - 1], np.uint64),
}


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_fields_of_the_wrong_shape(name: str, objects: ObjectSpace) -> None:
    """Whatever a hostile format makes of a recipe's fields, binding gives whole columns or reports what is missing."""
    fmt = kernel_format(name)
    names = [spec.name for spec in fmt.fields if not spec.name.startswith("common_")]
    for field in names:
        for wrong in WRONG.values():
            fields = {spec.name: np.ones(1, spec.dtype) for spec in fmt.fields if not spec.variable}
            heaps = {spec.name: np.frombuffer(b"abc", np.uint8) for spec in fmt.fields if spec.variable}
            fields |= {name: np.array([(0, 3)], LOCATION) for name in heaps}
            if wrong is None:
                del fields[field]
            else:
                fields[field] = wrong
            heaps.pop(field, None)
            if wrong is not None and wrong.dtype == LOCATION:
                heaps[field] = np.frombuffer(b"abc", np.uint8)
            zeros = [np.zeros(1, dtype) for dtype in (np.int64, np.uint16, np.uint16, np.uint32, np.int32)]
            recording = Recording(*zeros, [EventTable(name, fmt.system, fields, fmt, heaps, 1)], cpus=1)  # type: ignore[arg-type]

            (event,) = bind(recording, objects, PROTOS, "zero", {name}).events

            for arg in event.args:
                assert arg.column is None or (len(arg.column) == 1 and arg.column.dtype.kind in "iu")
            for store in [*event.stores, *event.after]:
                assert store.column is None or (store.column.ndim == 1 and len(store.column) == 1)
                assert store.column is None or store.column.dtype.kind in "iuS"
