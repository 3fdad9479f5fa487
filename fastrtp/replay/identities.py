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
from fastrtp.record import Recording
from fastrtp.record.recipes import Obj, Pid, Recipe, Tgid, When

from .task_start import Described, first_comms, link_tasks, segments, start_priorities

if TYPE_CHECKING:
    from numpy.typing import NDArray

_PID_MAX_LIMIT = 1 << 22
_LONG, _SAMPLE = 1 << 13, 1 << 11


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
        described: list[Described] = []
        for number, (table, recipe) in enumerate(zip(recording.tables, recipes, strict=True)):
            for pid_field, comm_field, prio_field in _pid_fields(recipe):
                if table.has_integers(pid_field):
                    columns.append(table.fields[pid_field])
                    comm = comm_field if comm_field and table.has_strings(comm_field) else ""
                    prio = prio_field if prio_field and table.has_integers(prio_field) else ""
                    if comm or prio:
                        described.append((number, table, pid_field, comm, prio))
        self.pids = _unique(columns)
        self._dense: NDArray[np.int64] | None = None
        if len(self.pids) and int(self.pids[0]) >= 0 and int(self.pids[-1]) < _PID_MAX_LIMIT:
            self._dense = np.zeros(int(self.pids[-1]) + 1, np.int32)
            self._dense[self.pids] = np.arange(self.cpus, self.cpus + len(self.pids))
        self._per_task: dict[tuple[str, str], NDArray[np.uint64]] = {}
        self._current: NDArray[np.int64] | None = None
        self._of_current: dict[int, NDArray[np.int64]] = {}
        self._cpu_of: dict[int, NDArray[np.uint16]] = {}
        self.parents = (0, int(np.count_nonzero(self.pids)))
        pid_list = self.pids.tolist()
        self.tgids = np.array([recording.tgid(pid) for pid in pid_list], np.int64)
        self.tasks = np.concatenate([
            objects.idle_tasks(self.cpus),
            objects.tasks(pid_list, self.tgids, first_comms(self, described)),
        ])  # fmt: skip
        self.steady_prio = start_priorities(self, described)
        self.kernel_threads = link_tasks(self)

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

    def place(self, pids: NDArray[Any]) -> NDArray[np.int64]:
        """Place of each pid in `pids`, pid 0 as any other."""
        if self._dense is not None:
            dense: NDArray[np.int64] = self._dense[pids].astype(np.int64)
            return dense - self.cpus
        return np.searchsorted(self.pids, pids.astype(np.int64))

    def rows(self, number: int) -> NDArray[np.int64]:
        """Place in time order of each row of table `number`."""
        return self.recording.positions[number]

    def of_current(self, number: int) -> NDArray[np.int64]:
        """Index of the running task in each row of table `number`."""
        if number not in self._of_current:
            self._of_current[number] = self._all_current()[self.rows(number)]
        return self._of_current[number]

    def cpu_of(self, number: int) -> NDArray[np.uint16]:
        """The CPU of each row of table `number`."""
        if number not in self._cpu_of:
            self._cpu_of[number] = self.recording.cpu[self.rows(number)]
        return self._cpu_of[number]

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
            if type_name == "pt_regs" and self.objects.has_member("pt_regs", "cs") and self.objects.has_member("pt_regs", "ss"):
                for member, value in zip(("cs", "ss"), segments(space), strict=True):
                    self.objects.scatter(self._per_task[key], "pt_regs", member, np.full(len(names), value))
        return self._per_task[key]

    def spaces(self) -> list[str]:
        """The spaces in which each task has what it has one of: one for each thread that plays."""
        others = range(1, int(self._split.max()) + 1) if self._split is not None and len(self._split) else ()
        return ["", *(f" of thread {other}" for other in others)]

    def groups(self) -> NDArray[np.int64]:
        """By index: the index of the thread group's first thread, or a number that nothing else has."""
        found = np.arange(len(self.tasks))
        place = np.searchsorted(self.pids, self.tgids)
        known = (place < len(self.pids)) & (self.pids[np.minimum(place, len(self.pids) - 1)] == self.tgids)
        found[self.cpus :] = np.where(known, place + self.cpus, self.tgids + len(self.tasks))
        return found

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
        names: list[Any]
        if len(wide) == 1:
            unique, inverse = _numbered(wide[0])
            names = [("key", space, value) for value in unique.tolist()]
        else:
            codes = np.zeros(len(wide[0]), np.int64)
            for column in wide:  # one after the other: rows of several numbers sort slowly
                values, number = _numbered(column)
                _, codes = _numbered(codes * len(values) + number)
            inverse = codes
            first = np.full(int(inverse.max()) + 1 if len(inverse) else 0, 0, np.int64)
            first[inverse] = np.arange(len(inverse))
            names = [("key", space, *pair) for pair in zip(*(column[first].tolist() for column in wide), strict=True)]
        return self.objects.objects(type_name, names)[inverse]

    # members of task_structs

    def scatter(self, tasks: NDArray[np.uint64], member: str, values: NDArray[Any]) -> None:
        """Write a member of tasks; nothing where the kernel has no such member, which nobody could read then."""
        if len(tasks) and self.objects.has_member("task_struct", member):
            self.objects.scatter(tasks, "task_struct", member, values)

    def point(self, tasks: NDArray[np.uint64], member: str, type_name: str, names: list[Any]) -> None:
        """Let a member of tasks point to the objects of these names."""
        try:
            self.objects.scatter(tasks, "task_struct", member, self.objects.objects(type_name, names))
        except BtfError:  # a kernel without such a member has nothing that could read it
            return


def _numbered(column: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """np.unique(column, return_inverse=True). Long columns have few different values as a rule: those of a part are looked up."""
    if len(column) < _LONG:
        unique, inverse = np.unique(column, return_inverse=True)
        return unique, inverse.reshape(-1)
    known = np.unique(column[:: len(column) // _SAMPLE])
    while True:
        found = np.minimum(np.searchsorted(known, column), len(known) - 1)
        other = np.flatnonzero(known[found] != column)
        if not len(other):
            return known, found
        if len(other) > len(column) // 4:
            unique, inverse = np.unique(column, return_inverse=True)
            return unique, inverse.reshape(-1)
        known = np.unique(np.concatenate([known, column[other]]))


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


def _pid_fields(recipe: Recipe | None) -> list[tuple[str, str, str]]:
    """(pid field, comm field or "", prio field or "") of every task that a recipe tells of."""
    found: list[tuple[str, str, str]] = []
    todo: list[Any] = [] if recipe is None else [*recipe.args, *recipe.also, *recipe.after]
    later = recipe.after if recipe is not None else ()
    while todo:
        item = todo.pop()
        if isinstance(item, When):
            item = item.value
        if isinstance(item, Obj):
            if isinstance(item.by, (Pid, Tgid)):
                comm, prio = item.members.get("comm"), item.members.get("prio")
                named = isinstance(item.by, Pid) and isinstance(comm, str) and item not in later
                found.append((item.by.field, str(comm) if named else "", prio if isinstance(prio, str) else ""))
            todo.extend(member for member in item.members.values() if isinstance(member, (Obj, When)))
    return found
