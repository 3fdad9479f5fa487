"""replay/task_exits.py and what else events tell of tasks: exit codes, who is left, whose children are whose."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastrtp.btf import default_btf
from fastrtp.btf.tracepoints import tracepoints
from fastrtp.mem.arena import Arena
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import Recording
from fastrtp.replay.bind import BoundRecording, BoundStore, bind
from fastrtp.replay.task_changes import PF_EXITING

PROTOS = tracepoints(default_btf())
SIGCHLD, SIGTERM, SIGKILL, SIGSEGV = 17, 15, 9, 11
CLONE_THREAD = 0x10000
INIT = 1


@pytest.fixture
def objects() -> Iterator[ObjectSpace]:
    arena = Arena()
    yield ObjectSpace(arena, default_btf())
    arena.close()


def fork(parent: int, child: int, flags: int = 0) -> list[dict[str, Any]]:
    """As the kernel tells it: task_newtask, then sched_process_fork."""
    return [
        {"event": "task_newtask", "pid": parent, "field_pid": child, "field_comm": "t", "clone_flags": flags, "oom_score_adj": 0},
        {
            "event": "sched_process_fork",
            "pid": parent,
            "parent_comm": "t",
            "parent_pid": parent,
            "child_comm": "t",
            "child_pid": child,
        },
    ]


def call(pid: int, number: int, *args: int) -> dict[str, Any]:
    return {"event": "sys_enter", "pid": pid, "id": number, "args": [*args, *[0] * (6 - len(args))]}


def leave(pid: int) -> dict[str, Any]:
    return {"event": "sched_process_exit", "pid": pid, "field_comm": "t", "field_pid": pid, "prio": 120}


def send(sender: int, target: int, sig: int, result: int = 0) -> dict[str, Any]:
    return {
        "event": "signal_generate", "pid": sender, "sig": sig, "errno": 0, "code": 0, "field_comm": "t", "field_pid": target,
        "group": 1, "result": result,
    }  # fmt: skip


def deliver(pid: int, sig: int, handler: int = 0) -> dict[str, Any]:
    return {"event": "signal_deliver", "pid": pid, "sig": sig, "errno": 0, "code": 0, "sa_handler": handler, "sa_flags": 0}


def switch(prev: int, state: int, following: int) -> dict[str, Any]:
    return {
        "event": "sched_switch", "pid": prev, "prev_comm": "t", "prev_pid": prev, "prev_prio": 120, "prev_state": state,
        "next_comm": "t", "next_pid": following, "next_prio": 120,
    }  # fmt: skip


class Played:
    """Stores of a recording, done in time order: what an object's member was behind the stores before an event's probes."""

    def __init__(self, objects: ObjectSpace, *events: dict[str, Any] | list[dict[str, Any]]) -> None:
        flat = [event for item in events for event in (item if isinstance(item, list) else [item])]
        self.recording = Recording.from_events([{**event, "time": at} for at, event in enumerate(flat)], cpus=2)
        self.objects = objects
        self.bound: BoundRecording = bind(self.recording, objects, PROTOS)
        self.at = 0

    def to(self, event: str, nth: int = 0) -> Played:
        """On to an event: what is before its probes is done, too."""
        number = next(number for number, table in enumerate(self.recording.tables) if table.name == event)
        end = int(self.recording.positions[number][nth])
        for place in range(self.at, end):
            self._do(place, after=False)
            self._do(place, after=True)
        self._do(end, after=False)
        self.at = end
        return self

    def _do(self, place: int, *, after: bool) -> None:
        event = self.bound.events[int(self.bound.event[place])]
        row = int(self.bound.row[place])
        for store in event.after if after else event.stores:
            base = self._base(event, store, row)
            if not base:
                continue
            value = store.const if store.column is None else store.column[row]
            raw = (
                value
                if isinstance(value, bytes)
                else (int(value) << store.shift & (1 << 8 * store.size) - 1).to_bytes(store.size, "little")
            )
            memory = self.objects.arena.view(base + store.offset, store.size)
            if store.mask:
                old = int.from_bytes(bytes(memory), "little")
                raw = (old & ~store.mask | int.from_bytes(raw, "little") & store.mask).to_bytes(store.size, "little")
            memory[:] = list(raw.ljust(store.size, b"\0"))

    def _base(self, event: Any, store: BoundStore, row: int) -> int:
        if store.base_arg >= 0:
            arg = event.args[store.base_arg]
            return int(arg.const if arg.column is None else arg.column[row])
        return int(store.base[row]) if hasattr(store.base, "__len__") else int(store.base or 0)  # type: ignore[index]

    def task(self, pid: int, member: str) -> Any:
        return self.objects.get("task_struct", self.objects.task(pid), member)

    def process(self, pid: int, member: str) -> Any:
        return self.objects.get("signal_struct", self.task(pid, "signal"), member)


def test_exit_codes_are_what_wait_gives(objects: ObjectSpace) -> None:
    """exit_group(3) of the process, exit(4) of a thread of another."""
    played = Played(
        objects, fork(5, 6), call(6, 231, 3), leave(6),
        fork(5, 7), fork(7, 8, CLONE_THREAD), call(8, 60, 4), leave(8),
    )  # fmt: skip

    played.to("sched_process_exit")
    assert (played.task(6, "exit_code"), played.process(6, "group_exit_code")) == (3 << 8, 3 << 8)
    played.to("sched_process_exit", 1)
    assert (played.task(8, "exit_code"), played.process(8, "group_exit_code")) == (4 << 8, 0)


def test_the_signal_that_was_sent_is_the_exit_code(objects: ObjectSpace) -> None:
    """A fatal signal shows as SIGKILL to each thread: the code is that of what was sent, unless it was handled."""
    played = Played(
        objects,
        fork(5, 6), call(6, 34), send(5, 6, SIGCHLD), send(5, 6, SIGTERM), deliver(6, SIGKILL), leave(6),
        fork(5, 7), call(7, 34), send(5, 7, SIGTERM), deliver(7, SIGTERM, 0x400000), send(5, 7, SIGKILL), deliver(7, SIGKILL),
        leave(7),
        fork(5, 8), call(8, 34), deliver(8, SIGSEGV), leave(8),
    )  # fmt: skip

    codes = []
    for nth, pid in enumerate((6, 7, 8)):
        played.to("sched_process_exit", nth)
        codes.append((played.task(pid, "exit_code"), played.process(pid, "group_exit_code")))

    assert codes == [(SIGTERM, SIGTERM), (SIGKILL, SIGKILL), (SIGSEGV, SIGSEGV)]


def test_a_pid_that_is_used_again_has_the_end_of_its_second_life(objects: ObjectSpace) -> None:
    played = Played(objects, fork(5, 6), call(6, 231, 1), leave(6), fork(5, 6), call(6, 231, 2), leave(6))

    codes = [played.to("sched_process_exit", nth).process(6, "group_exit_code") for nth in (0, 1)]

    assert codes == [1 << 8, 2 << 8]


def test_a_pid_that_is_used_again_has_nothing_of_its_first_life(objects: ObjectSpace) -> None:
    played = Played(
        objects,
        call(5, 34),
        call(9, 34),
        fork(5, 6),
        call(6, 231, 1),
        leave(6),
        switch(6, 0x10, 5),
        fork(9, 6),
        call(6, 34),
        switch(6, 1, 5),
    )
    members = ("exit_code", "exit_state", "thread_pid", "mm", "nvcsw", "real_parent")
    first = {member: played.to("sched_process_fork").task(6, member) for member in members}

    played.to("sched_switch")
    assert (played.task(6, "exit_code"), played.task(6, "exit_state"), played.task(6, "mm")) == (1 << 8, 0x10, 0)
    assert played.to("task_newtask", 1).task(6, "exit_code") == 0
    again = {member: played.to("sched_process_fork", 1).task(6, member) for member in members}
    assert again == {**first, "real_parent": objects.task(9)}
    assert (played.task(6, "flags") & PF_EXITING, played.process(6, "group_exit_code")) == (0, 0)
    assert played.to("sched_switch", 1).task(6, "nvcsw") == 1


def test_who_is_left_of_a_process(objects: ObjectSpace) -> None:
    played = Played(
        objects,
        fork(5, 6),
        fork(6, 7, CLONE_THREAD),
        fork(6, 8, CLONE_THREAD),
        call(7, 60, 0),
        leave(7),
        call(6, 231, 0),
        leave(6),
        leave(8),
    )

    assert [played.to("sched_process_exit", nth).process(6, "live.counter") for nth in range(3)] == [2, 1, 0]


def test_children_get_a_new_parent_behind_the_exit(objects: ObjectSpace) -> None:
    """A thread that still lives, else init; not at the event itself."""
    played = Played(
        objects,
        fork(5, 6),
        fork(6, 7, CLONE_THREAD),
        fork(7, 8),
        call(8, 34),
        leave(7),
        call(8, 34),
        call(6, 231, 0),
        leave(6),
        call(8, 34),
    )

    parents = [played.to(event, nth).task(8, "real_parent") for event, nth in
               (("sched_process_exit", 0), ("sys_enter", 1), ("sched_process_exit", 1), ("sys_enter", 3))]  # fmt: skip

    assert parents == [objects.task(pid) for pid in (7, 6, 6, INIT)]


def test_a_subreaper_makes_the_next_parent_unknown(objects: ObjectSpace) -> None:
    played = Played(objects, call(5, 157, 36, 1), fork(5, 6), fork(6, 7), call(7, 34), leave(6), call(7, 34))

    assert played.to("sys_enter", 2).task(7, "real_parent") == objects.task(6)


def test_switches_of_a_task_are_counted_from_its_fork(objects: ObjectSpace) -> None:
    """Of its own will where it slept, against it where it was preempted or gave way; nothing is said of one that is older."""
    played = Played(
        objects,
        fork(5, 6),
        switch(6, 1, 5),
        switch(5, 1, 6),
        switch(6, 0x100, 5),
        switch(5, 1, 6),
        switch(6, 2, 5),
        switch(5, 0, 6),
    )

    counts = []
    for nth in (0, 2, 4):
        played.to("sched_switch", nth)
        counts.append((played.task(6, "nvcsw"), played.task(6, "nivcsw")))

    assert counts == [(1, 0), (1, 1), (2, 1)]
    assert played.to("sched_switch", 5).task(5, "nvcsw") == 0


def test_a_leader_that_leaves_threads_behind_is_not_released(objects: ObjectSpace) -> None:
    """Its parent hears of it when the last one is gone. One whose parent was not told is released at once."""
    played = Played(
        objects, call(5, 34), fork(5, 6), fork(6, 7, CLONE_THREAD), send(5, 5, 10), leave(6), switch(6, 0x20, 7),
        fork(5, 8), leave(8), switch(8, 0x20, 7),
    )  # fmt: skip

    assert played.to("sched_switch").task(6, "thread_pid") != 0
    assert played.to("sched_switch", 1).task(8, "thread_pid") == 0


def test_a_task_with_the_name_of_a_user_task_is_no_kernel_thread(objects: ObjectSpace) -> None:
    """It slept in the kernel all the time. kworker did, too, and has its own name."""
    events = [call(5, 34), switch(6, 1, 7), switch(7, 1, 6)]
    recording = Recording.from_events(
        [{**event, "time": at} for at, event in enumerate(events)], comms={5: "tool", 6: "tool", 7: "kworker/0:1"}
    )

    bind(recording, objects, PROTOS)

    flags = [objects.get("task_struct", objects.task(pid), "flags") & 0x200000 for pid in (5, 6, 7)]
    assert flags == [0, 0, 0x200000]
    assert [bool(objects.get("task_struct", objects.task(pid), "mm")) for pid in (5, 6, 7)] == [True, True, False]
