"""replay/bind.py: bound columns and objects say what the kernel's programs saw."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pytest
from truth import Model, compared_pids, kernel_format, kernel_map

from fastrtp.btf import TracepointProto, default_btf, tracepoints
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
from fastrtp.replay.identities import TaskIndex, _numbered

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


NO_RECIPE = ["unsigned long other;\toffset:8;\tsize:8;\tsigned:0;"]


def test_missing_pointer_follows_the_policy(objects: ObjectSpace) -> None:
    """zero gives a readable object of zeros, fault an address outside the arena, strict refuses with the reason."""
    recording = one_event("mm_page_free_batched", "kmem", NO_RECIPE, [(77,)], [5], [0])
    wanted = {"mm_page_free_batched"}

    zero = bind(recording, objects, PROTOS, "zero", wanted)
    fault = bind(recording, objects, PROTOS, "fault", wanted)

    assert objects.arena.view(zero.events[0].args[0].const, objects.size("page")).sum() == 0
    assert fault.events[0].args[0].const == FAULT_ADDRESS
    assert [(lack.tracepoint, lack.arg) for lack in zero.missing] == [("mm_page_free_batched", 0)]
    with pytest.raises(ReplayError, match="mm_page_free_batched argument 0: no recorded field tells what it was"):
        bind(recording, objects, PROTOS, "strict", wanted)
    assert bind(recording, objects, PROTOS, "strict", {"mm_page_free_batched": ()}).missing == []
    assert bind(recording, objects, PROTOS, "strict", ()).missing == []
    with pytest.raises(ReplayError, match="policy 'loose' is not one of"):
        bind(recording, objects, PROTOS, "loose")  # type: ignore[arg-type]


def field_lines(*fields: tuple[str, int]) -> list[str]:
    """Lines of a format: `("int a", 4)` one behind the other from offset 8, each at a multiple of its size."""
    lines, offset = [], 8
    for decl, size in fields:
        offset = -(-offset // min(size, 8)) * min(size, 8)
        lines.append(f"{decl};\toffset:{offset};\tsize:{size};\tsigned:{int(not decl.startswith(('u', 'void')))};")
        offset += size
    return lines


def test_scalars_without_a_recipe(objects: ObjectSpace) -> None:
    """A tracepoint that no recipe covers gets the integers whose names are recorded; others are reported."""
    recording = one_event("local_timer_entry", "irq_vectors", field_lines(("int vector", 4)), [(236,)], [5], [0])

    bound = bind(recording, objects, PROTOS, "zero", {"local_timer_entry"})

    assert bound.missing == []
    assert bound.events[0].args[0].column is not None
    assert bound.events[0].args[0].column.tolist() == [236]

    other = one_event("local_timer_entry", "irq_vectors", field_lines(("int number", 4)), [(1,)], [5], [0])
    bound = bind(other, objects, PROTOS, "zero", {"local_timer_entry"})

    assert [(lack.arg, lack.why) for lack in bound.missing] == [(0, "no recorded field has its name")]


BY_NAME = {
    "locks_get_lock_context": (
        [("unsigned long inode", 8), ("dev_t s_dev", 4), ("unsigned char type", 1), ("void * ctx", 8)],
        (0x10, 2049, 1, 0x20),
        {1: 1},
    ),
    "ext4_request_inode": ([("dev_t dev", 4), ("ino_t dir", 8), ("__u16 mode", 2)], (2049, 11, 0o644), {1: 0o644}),
    "hugetlbfs_alloc_inode": ([("dev_t dev", 4), ("ino_t ino", 8), ("__u16 mode", 2)], (2049, 11, 0o644), {}),
    "kvm_hv_hypercall": (
        [
            ("__u16 rep_cnt", 2),
            ("__u16 rep_idx", 2),
            ("__u64 ingpa", 8),
            ("__u64 outgpa", 8),
            ("__u16 code", 2),
            ("bool fast", 1),
        ],
        (1, 2, 3, 4, 5, 1),
        {0: 5, 1: 1, 4: 2, 5: 3, 6: 4},
    ),
}
"""Tracepoints whose record has another order than their TP_PROTO: fields, a row, and what arguments get."""


@pytest.mark.parametrize("name", [name for name in BY_NAME if name in PROTOS])
def test_an_integer_is_what_has_its_name(name: str, objects: ObjectSpace) -> None:
    """Never what merely has its size or its place: fields are not in TP_PROTO's order."""
    fields, row, expected = BY_NAME[name]

    event = bind(one_event(name, "x", field_lines(*fields), [row], [5], [0]), objects, PROTOS, "zero", {name}).events[0]

    got = {index: arg.column.tolist()[0] if arg.column is not None else None for index, arg in enumerate(event.args)}
    assert {index: got[index] for index in expected} == expected


def test_net_dev_xmit_has_its_rc(objects: ObjectSpace) -> None:
    """TP_PROTO(skb, rc, dev, skb_len); the record has len before rc."""
    lines = field_lines(("void * skbaddr", 8), ("unsigned int len", 4), ("int rc", 4))

    event = bind(one_event("net_dev_xmit", "net", lines, [(0x1000, 1500, -3)], [5], [0]), objects, PROTOS).events[0]

    assert event.args[1].column is not None
    assert event.args[1].column.tolist() == [-3]
    assert event.args[3].column is None or event.args[3].column.tolist() == [1500]


def test_an_argument_that_came_later_is_not_another(objects: ObjectSpace) -> None:
    """timer_start(timer, bucket_expiry) of Linux 6.12 is not given `expires`, which stood in that place before."""
    timer, expires, _flags = PROTOS["timer_start"].args
    proto = TracepointProto("timer_start", (timer._replace(name="timer"), expires._replace(name="bucket_expiry")))
    lines = field_lines(
        ("void * timer", 8), ("void * function", 8), ("unsigned long expires", 8), ("unsigned long bucket_expiry", 8),
        ("unsigned long now", 8), ("unsigned int flags", 4),
    )  # fmt: skip

    recording = one_event("timer_start", "timer", lines, [(0x10, 0x20, 100, 164, 90, 7)], [5], [0])
    event = bind(recording, objects, {"timer_start": proto}).events[0]

    assert event.args[1].column is not None
    assert event.args[1].column.tolist() == [164]


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


def test_what_stands_behind_the_nul_is_no_text(objects: ObjectSpace) -> None:
    """A string field keeps what was in the recorder's buffer before; members and texts get the string alone."""
    lines = field_lines(("pid_t pid", 4), ("char oldcomm[16]", 16), ("char newcomm[16]", 16), ("short oom_score_adj", 2))
    row = (5, b"old\0behind", b"n\0ew", 0)

    bound = bind(one_event("task_rename", "task", lines, [row], [5], [0]), objects, PROTOS)  # type: ignore[list-item]

    (event,) = bound.events
    comm = objects.member("task_struct", "comm").offset_bytes
    assert [store.column.tolist() for store in event.stores if store.offset == comm and store.column is not None] == [[b"old"]]
    assert [store.column.tolist() for store in event.after if store.column is not None] == [[b"n"]]
    assert event.args[1].column is not None
    assert objects.arena.view(int(event.args[1].column[0]), 8).tobytes() == b"n".ljust(8, b"\0")
    assert objects.get("task_struct", objects.task(5), "comm") == "old"


def test_names_of_any_length_reach_their_task(objects: ObjectSpace) -> None:
    """Since 6.13 a comm may be recorded as a `__data_loc`: tasks have it all the same."""
    text = "name: sched_process_fork\nID: 7\nformat:\n" + "".join(
        f"\tfield:{line}\n"
        for line in field_lines(
            ("__data_loc char[] parent_comm", 4),
            ("pid_t parent_pid", 4),
            ("__data_loc char[] child_comm", 4),
            ("pid_t child_pid", 4),
        )
    )
    fmt = parse_event_format(text + 'print fmt: ""\n', "sched")
    fields = {
        "parent_comm": np.array([(0, 5)], LOCATION), "parent_pid": np.array([700], np.int32),
        "child_comm": np.array([(5, 4)], LOCATION), "child_pid": np.array([701], np.int32),
    }  # fmt: skip
    heap = np.frombuffer(b"bash\0sh\0x", np.uint8)
    table = EventTable("sched_process_fork", "sched", fields, fmt, {"parent_comm": heap, "child_comm": heap}, 1)
    order = [np.zeros(1, dtype) for dtype in (np.int64, np.uint16, np.uint16, np.uint32)]

    bound = bind(Recording(*order, np.full(1, 700, np.int32), [table], cpus=1), objects, PROTOS)  # type: ignore[arg-type]

    assert [objects.get("task_struct", objects.task(pid), "comm") for pid in (700, 701)] == ["bash", "sh"]
    assert bound.missing == []


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


@pytest.mark.parametrize("kinds", [1, 40, 3000, 1 << 40])
@pytest.mark.parametrize("length", [0, 100, 1 << 14])
def test_values_are_numbered_as_by_unique(kinds: int, length: int) -> None:
    """Long columns are numbered by looking a part's values up, whatever is in the rest."""
    column = np.random.default_rng(kinds + length).integers(0, kinds, length)
    column[length // 2 :] += kinds // 3

    values, numbers = _numbered(column)

    expected = np.unique(column, return_inverse=True)
    assert np.array_equal(values, expected[0])
    assert np.array_equal(numbers, expected[1].reshape(-1))


def test_a_priority_that_changes_is_not_steady(objects: ObjectSpace) -> None:
    """Told once it stays; told again as another one it is stored with each event."""
    switch = {
        "event": "sched_switch",
        "prev_comm": "a",
        "prev_pid": 7,
        "prev_state": 1,
        "next_comm": "b",
        "next_pid": 8,
        "next_prio": 120,
    }

    steady, changing = (
        TaskIndex(recording, [RECIPES.get("sched_switch")], objects)
        for recording in (
            Recording.from_events([{**switch, "time": at, "prev_prio": prio} for at, prio in enumerate(prios)])
            for prios in ((90, 90, 90), (90, 120, 90))
        )
    )

    assert (steady.steady_prio, changing.steady_prio) == (True, False)
    assert objects.get("task_struct", objects.task(7), "prio") == 90
