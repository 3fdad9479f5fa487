"""TaskIndex: which object a pid, a CPU or a recorded pointer stands for, for whole columns at a time.

All pids of a recording get a dense index once; task_structs, pt_regs and whatever else there is one of per task are then
arrays over that index. Pid 0 is a different task on every CPU: the idle tasks come first in the index.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import BtfError
from fastrtp.mem.objects import ObjectSpace
from fastrtp.record import EventTable, Recording
from fastrtp.record.recipes import Obj, Pid, Recipe, Text, Tgid

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PID_MAX_LIMIT = 1 << 22
_USER_EVENTS = frozenset({"sys_enter", "sys_exit", "page_fault_user"})


class TaskIndex:
    """The tasks of a recording as objects. `tasks`: address of the task_struct by index; `parents`: how many tasks have one that
    the recording tells, of how many.
    """

    def __init__(
        self, recording: Recording, recipes: Sequence[Recipe | None], objects: ObjectSpace, split: NDArray[np.int64] | None = None
    ) -> None:
        self.recording = recording
        self._split = split
        self.objects = objects
        highest = int(recording.cpu.max()) + 1 if recording.events else 1
        self.cpus = max(recording.cpus, highest, 1)
        columns: list[NDArray[Any]] = [recording.pid]
        self._described: list[tuple[int, EventTable, str, str]] = []
        for number, (table, recipe) in enumerate(zip(recording.tables, recipes, strict=True)):
            for pid_field, comm_field in _pid_fields(recipe):
                if table.has_integers(pid_field):
                    columns.append(table.fields[pid_field])
                    if comm_field and table.has_strings(comm_field):
                        self._described.append((number, table, pid_field, comm_field))
        self.pids = _unique(columns)
        self._dense: NDArray[np.int64] | None = None
        if len(self.pids) and int(self.pids[0]) >= 0 and int(self.pids[-1]) < _PID_MAX_LIMIT:
            self._dense = np.zeros(int(self.pids[-1]) + 1, np.int32)
            self._dense[self.pids] = np.arange(self.cpus, self.cpus + len(self.pids))
        self._per_task: dict[tuple[str, str], NDArray[np.uint64]] = {}
        self._current: NDArray[np.int64] | None = None
        self.parents = (0, int(np.count_nonzero(self.pids)))
        pid_list = self.pids.tolist()
        self.tgids = np.array([recording.tgid(pid) for pid in pid_list], np.int64)
        self.tasks = np.concatenate([
            objects.idle_tasks(self.cpus),
            objects.tasks(pid_list, self.tgids, self._first_comms()),
        ])  # fmt: skip
        self._link_tasks()

    # index

    def of_pids(self, pids: NDArray[Any], cpu: NDArray[np.uint16]) -> NDArray[np.int64]:
        """Index of each pid; pid 0 is the idle task of the CPU beside it."""
        if self._dense is not None:
            index: NDArray[Any] = self._dense[pids]
        else:
            index = np.searchsorted(self.pids, pids.astype(np.int64)) + self.cpus
        idle = pids == 0
        if idle.any():
            index = np.where(idle, cpu, index)
        return index

    def rows(self, number: int) -> NDArray[np.int64]:
        """Place in time order of each row of table `number`."""
        return self.recording.positions[number]

    def of_current(self, number: int) -> NDArray[np.int64]:
        """Index of the running task in each row of table `number`."""
        return self._all_current()[self.rows(number)]

    def cpu_of(self, number: int) -> NDArray[np.uint16]:
        """The CPU of each row of table `number`."""
        return self.recording.cpu[self.rows(number)]

    def _all_current(self) -> NDArray[np.int64]:
        if self._current is None:
            self._current = self.of_pids(self.recording.pid, self.recording.cpu)
        return self._current

    def current(self) -> NDArray[np.uint64]:
        """The running task_struct of every event."""
        return self.tasks[self._all_current()]

    # objects

    def per_task(self, type_name: str, space: str = "") -> NDArray[np.uint64]:
        """By index: the object of a type that each task has one of."""
        if type_name == "task_struct":
            return self.tasks
        key = (type_name, space)
        if key not in self._per_task:
            names = [("idle", space, cpu) for cpu in range(self.cpus)] + [("task", space, pid) for pid in self.pids.tolist()]
            self._per_task[key] = self.objects.objects(type_name, names)
        return self._per_task[key]

    def per_current(self, type_name: str, number: int, space: str = "") -> NDArray[np.uint64]:
        """For each row of table `number`: the object of a type that its running task has one of."""
        current = self.of_current(number)
        found = self.per_task(type_name, space)[current]
        if self._split is not None and type_name != "task_struct":
            thread = self._split[self.cpu_of(number)]
            for other in range(1, int(self._split.max()) + 1):
                mine = np.flatnonzero(thread == other)
                found[mine] = self.per_task(type_name, f"{space} of thread {other}")[current[mine]]
        return found

    def per_group(self, type_name: str, space: str = "") -> NDArray[np.uint64]:
        """By index: the object of a type that each thread group has one of."""
        key = (type_name, "group " + space)
        if key not in self._per_task:
            names = [("idle group", space, cpu) for cpu in range(self.cpus)]
            names += [("group", space, tgid) for tgid in self.tgids.tolist()]
            self._per_task[key] = self.objects.objects(type_name, names)
        return self._per_task[key]

    def per_cpu(self, type_name: str, number: int, space: str = "") -> NDArray[np.uint64]:
        """For each row of table `number`: the object of a type that its CPU has one of."""
        return self.objects.objects(type_name, [("cpu", space, cpu) for cpu in range(self.cpus)])[self.cpu_of(number)]

    def keyed(self, type_name: str, space: str, *columns: NDArray[Any]) -> NDArray[np.uint64]:
        """For each row: the object of a type that goes by the values of `columns`."""
        wide = [column.astype(np.int64) for column in columns]
        if len(wide) == 1:
            unique, inverse = np.unique(wide[0], return_inverse=True)
            names: list[Any] = [("key", space, value) for value in unique.tolist()]
        else:
            pairs, inverse = np.unique(np.stack(wide, axis=1), axis=0, return_inverse=True)
            names = [("key", space, *pair) for pair in pairs.tolist()]
        return self.objects.objects(type_name, names)[inverse.reshape(-1)]

    # what is known of tasks before the first event

    def _first_comms(self) -> NDArray[np.bytes_]:
        """By pid: the name in the first event that tells it, else the one saved at the end of the recording."""
        comms = np.array([self.recording.comms.get(pid, "").encode() for pid in self.pids.tolist()], "S16")
        first = np.full(len(self.pids), np.iinfo(np.int64).max)
        for number, table, pid_field, comm_field in self._described:
            pids = table.fields[pid_field].astype(np.int64)
            unique, row = np.unique(pids, return_index=True)
            at = np.searchsorted(self.pids, unique)
            time = self.rows(number)[row]
            earlier = time < first[at]
            first[at[earlier]] = time[earlier]
            comms[at[earlier]] = table.strings(comm_field)[row[earlier]]
        return comms

    def _link_tasks(self) -> None:
        """mm, signal and real_parent, where the recording implies them."""
        user: list[NDArray[Any]] = []
        for number, table in enumerate(self.recording.tables):
            if table.name in _USER_EVENTS:
                seen = np.zeros(len(self.tasks), np.bool_)
                seen[self.of_current(number)] = True
                user.append(np.flatnonzero(seen[self.cpus :]))
            elif table.name == "sched_process_fork" and table.has_integers("parent_pid", "child_pid"):
                self._link_parents(number, table)
        if not user:
            return
        mine = np.unique(np.concatenate(user))
        if len(mine):
            addresses = self.tasks[self.cpus :][mine]
            for member, type_name in (("mm", "mm_struct"), ("active_mm", "mm_struct"), ("signal", "signal_struct")):
                self._point(addresses, member, type_name, [("group", "", tgid) for tgid in self.tgids[mine].tolist()])

    def _point(self, addresses: NDArray[np.uint64], member: str, type_name: str, names: list[Any]) -> None:
        try:
            self.objects.scatter(addresses, "task_struct", member, self.objects.objects(type_name, names))
        except BtfError:  # a kernel without such a member has nothing that could read it
            return

    def _link_parents(self, number: int, table: EventTable) -> None:
        cpu = self.cpu_of(number)
        parents = self.of_pids(table.fields["parent_pid"], cpu)
        children = self.of_pids(table.fields["child_pid"], cpu)
        mine = np.flatnonzero(children >= self.cpus)
        children, parents = children[mine], parents[mine]
        forked = self.tgids[children - self.cpus] == self.pids[children - self.cpus]  # a thread has its creator's parent
        child, parent = self.tasks[children[forked]], self.tasks[parents[forked]]
        self.parents = (len(np.unique(child)), self.parents[1])
        for member in ("real_parent", "parent"):
            if len(child) and self.objects.has_member("task_struct", member):
                self.objects.scatter(child, "task_struct", member, parent)


def _unique(columns: Iterable[NDArray[Any]]) -> NDArray[np.int64]:
    """All different values; a bitmap does it for what can be pids."""
    seen = np.zeros(0, np.bool_)
    rest: list[NDArray[Any]] = []
    for column in columns:
        if not len(column):
            continue
        if int(column.min()) >= 0 and int(column.max()) < _PID_MAX_LIMIT:
            if len(seen) <= int(column.max()):
                seen = np.concatenate([seen, np.zeros(int(column.max()) + 1 - len(seen), np.bool_)])
            seen[column] = True
        else:
            rest.append(np.unique(column.astype(np.int64)))
    small = np.flatnonzero(seen)
    return np.unique(np.concatenate([small, *rest])) if rest else small


def _pid_fields(recipe: Recipe | None) -> list[tuple[str, str]]:
    """(pid field, comm field or "") of every task that a recipe tells of."""
    found: list[tuple[str, str]] = []
    todo: list[Any] = [] if recipe is None else [*recipe.args, *recipe.also, *recipe.after]
    while todo:
        item = todo.pop()
        if isinstance(item, Obj):
            if isinstance(item.by, (Pid, Tgid)):
                comm = item.members.get("comm")
                named = isinstance(item.by, Pid) and isinstance(comm, str) and recipe is not None and item not in recipe.after
                found.append((item.by.field, comm if named and isinstance(comm, str) else ""))
            todo.extend(member for member in item.members.values() if isinstance(member, (Obj, Text)))
    return found
