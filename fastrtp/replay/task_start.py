"""What is known of tasks before the first event: by what the recording tells of them first, and what it implies.

A task's name and priority are those of the first event that tells them. One that never makes a system call, has no fault in
user space and was not forked by one that does, or that kthreadd forked, is a kernel thread. A thread's real_parent is its
creator's. One that has a user task's name when the recording ends is no kernel thread either. Nothing here is said where the
recording has no system calls.
Kernel: kernel/sched/core.c:sched_fork, __setscheduler_prio; kernel/fork.c:copy_process
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.record import EventTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .identities import TaskIndex

PF_KTHREAD = 0x200000
MAX_RT_PRIO = 100
DEFAULT_PRIO = 120
KTHREADD = 2
FROM_PRIO = {
    "static_prio": "{0} from 100 on, else 120: not of a task that borrows a priority, or that is both nice and real-time",
    "normal_prio": "{0}: not of a task that borrows a priority",
    "rt_priority": "99 - {0} below 100, else 0: not of a task that borrows a priority",
}
"""Members of a task that follow from its prio ({0}: the field), by which rule. Kernel: kernel/sched/core.c:rt_mutex_setprio."""
_USER_EVENTS = frozenset({"sys_enter", "sys_exit", "page_fault_user"})
_CALLS = frozenset({"sys_enter", "sys_exit"})
_USER_CS, _USER_DS, _KERNEL_CS, _KERNEL_DS = 0x33, 0x2B, 0x10, 0x18
_UNTOLD = np.iinfo(np.int64).max

Described = tuple[int, EventTable, str, str, str]
"""(table number, table, pid field, field of the name or "", field of the priority or "")"""


def derived_from_prio(prio: NDArray[Any]) -> dict[str, NDArray[np.int32]]:
    """Members that follow from prio, for a task whose priority is not borrowed."""
    wide = prio.astype(np.int32)
    static = np.where(wide >= MAX_RT_PRIO, wide, DEFAULT_PRIO).astype(np.int32)
    realtime = np.where(wide < MAX_RT_PRIO, MAX_RT_PRIO - 1 - wide, 0).astype(np.int32)
    return dict(zip(FROM_PRIO, (static, wide, realtime), strict=True))


def first_comms(index: TaskIndex, described: Sequence[Described]) -> NDArray[np.bytes_]:
    """By pid: the name in the first event that tells it, else the one saved at the end of the recording."""
    comms = np.array([index.recording.comms.get(pid, "").encode() for pid in index.pids.tolist()], "S16")
    first = np.full(len(index.pids), _UNTOLD)
    for number, table, pid_field, comm_field, _ in described:
        if comm_field:
            at, row, earlier = _first(index, first, number, table, pid_field)
            comms[at[earlier]] = table.strings(comm_field)[row[earlier]]
    return comms


def _first(
    index: TaskIndex, first: NDArray[np.int64], number: int, table: EventTable, pid_field: str
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """(places of the pids that a table tells of, their first rows, whether these are earlier than `first`), `first` updated."""
    row = np.full(len(index.pids), -1, np.int64)
    row[index.place(table.fields[pid_field])[::-1]] = np.arange(
        len(table) - 1, -1, -1
    )  # of several the last stays: the first row
    at = np.flatnonzero(row >= 0)
    row = row[at]
    time = index.rows(number)[row]
    earlier = time < first[at]
    first[at[earlier]] = time[earlier]
    return at, row, earlier


def start_priorities(index: TaskIndex, described: Sequence[Described]) -> bool:
    """Give each task the first priority that is told of it; whether no event tells of another one later."""
    first = np.full(len(index.pids), _UNTOLD)
    value = np.zeros(len(index.pids), np.int64)
    told = [entry for entry in described if entry[4] and len(entry[1])]
    for number, table, pid_field, _, prio_field in told:
        at, row, earlier = _first(index, first, number, table, pid_field)
        value[at[earlier]] = table.fields[prio_field][row[earlier]]
    known = np.flatnonzero((first != _UNTOLD) & (index.pids != 0))
    tasks = index.tasks[index.cpus :][known]
    _set_priority(index, tasks, value[known])
    _set_priority(index, index.tasks[: index.cpus], np.full(index.cpus, DEFAULT_PRIO))
    return not any(np.any(table.fields[prio] != value[index.place(table.fields[pid])]) for _, table, pid, _, prio in told)


def _set_priority(index: TaskIndex, tasks: NDArray[np.uint64], prio: NDArray[np.int64]) -> None:
    index.scatter(tasks, "prio", prio)
    for member, column in derived_from_prio(prio).items():
        index.scatter(tasks, member, column)


def link_tasks(index: TaskIndex) -> NDArray[np.bool_]:
    """mm, signal, real_parent, thread_pid and PF_KTHREAD, where the recording implies them; by index, the kernel threads."""
    kernel_threads = np.zeros(len(index.tasks), np.bool_)
    kernel_threads[: index.cpus] = True
    user = np.zeros(len(index.tasks), np.bool_)
    calls = False
    forks: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for number, table in enumerate(index.recording.tables):
        if table.name in _USER_EVENTS:
            user[index.of_current(number)] = True
            calls |= table.name in _CALLS and len(table) > 0
        elif table.name == "sched_process_fork" and table.has_integers("parent_pid", "child_pid"):
            cpu = index.cpu_of(number)
            forks.append((index.of_pids(table.fields["parent_pid"], cpu), index.of_pids(table.fields["child_pid"], cpu)))
    user[: index.cpus] = False
    _link_pids(index)
    parents = _parents(index, forks)
    born = np.flatnonzero(parents >= 0)
    if calls:
        _spread(user, parents, index.pids, index.cpus)
        _namesakes(user, index)
        kernel_threads[index.cpus :] = ~user[index.cpus :]
        flagged = index.tasks[kernel_threads]
        index.scatter(flagged, "flags", np.full(len(flagged), PF_KTHREAD))
    _link_parents(index, parents, born)
    mine = np.flatnonzero(user[index.cpus :])
    if len(mine):
        addresses = index.tasks[index.cpus :][mine]
        for member, type_name in (("mm", "mm_struct"), ("active_mm", "mm_struct"), ("signal", "signal_struct")):
            index.point(addresses, member, type_name, [("group", "", tgid) for tgid in index.tgids[mine].tolist()])
    return kernel_threads if calls else np.zeros(len(index.tasks), np.bool_)


def _parents(index: TaskIndex, forks: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> NDArray[np.int64]:
    """By index: who forked the task, -1 where the recording does not show it."""
    parents = np.full(len(index.tasks), -1, np.int64)
    for parent, child in forks:
        parents[child] = parent
    parents[: index.cpus] = -1
    return parents


def _spread(user: NDArray[np.bool_], parents: NDArray[np.int64], pids: NDArray[np.int64], cpus: int) -> None:
    """What a task of user space forks is one, too; what kthreadd forks is none."""
    kthreadd = np.zeros(len(user), np.bool_)
    kthreadd[cpus:] = pids == KTHREADD
    while True:
        more = (parents >= 0) & user[parents] & ~user
        if not more.any():
            break
        user |= more
    user &= ~(kthreadd | ((parents >= 0) & kthreadd[parents]))


def _namesakes(user: NDArray[np.bool_], index: TaskIndex) -> None:
    """A task that never came back from the kernel, but in the end has the name of one of user space, is one, too."""
    comms = index.recording.comms
    named = [comms.get(pid, "") for pid in index.pids.tolist()]
    names = {name for name, known in zip(named, user[index.cpus :].tolist(), strict=True) if known and name}
    user[index.cpus :] |= np.array([name in names for name in named], np.bool_)
    user[index.cpus :] &= index.pids != KTHREADD


def _link_pids(index: TaskIndex) -> None:
    """Each task's struct pid, which has its number."""
    addresses = index.tasks[index.cpus :]
    index.point(addresses, "thread_pid", "pid", [("pid of", pid) for pid in index.pids.tolist()])
    if (
        len(addresses)
        and index.objects.has_member("pid", "numbers[0].nr")
        and index.objects.has_member("task_struct", "thread_pid")
    ):
        pids = index.objects.objects("pid", [("pid of", pid) for pid in index.pids.tolist()])
        index.objects.scatter(pids, "pid", "numbers[0].nr", index.pids)


def _link_parents(index: TaskIndex, parents: NDArray[np.int64], born: NDArray[np.int64]) -> None:
    """real_parent: the task that forked, for a thread its creator's."""
    real = parents.copy()
    thread = np.zeros(len(real), np.bool_)
    thread[index.cpus :] = index.tgids != index.pids
    while True:
        inherited = thread & (real >= 0) & (real == parents)
        step = np.where(inherited, np.where(real >= 0, real[real], -1), real)
        if not inherited.any() or np.array_equal(step, real):
            break
        thread &= ~inherited
        real = step
    known = born[real[born] >= 0]
    index.parents = (len(known), index.parents[1])
    for member in ("real_parent", "parent"):
        index.scatter(index.tasks[known], member, index.tasks[real[known]])


def segments(space: str) -> tuple[int, int]:
    """(cs, ss) of registers: of 64-bit user space, or of the kernel."""
    return (_KERNEL_CS, _KERNEL_DS) if space.startswith("kernel") else (_USER_CS, _USER_DS)
