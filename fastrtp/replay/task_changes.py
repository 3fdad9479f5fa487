"""TaskChanges: what events tell of tasks beyond their own fields, by what the kernel does at them.

    sched_switch          thread_info.cpu of both tasks is the event's CPU; a thread that is dead has no thread_pid any more;
                          nvcsw and nivcsw of tasks that were forked in the recording
    task_newtask, sched_process_fork    a pid that is used again has nothing of the task that exited
    sched_process_fork    the child has PF_FORKNOEXEC and the registers that its parent entered the kernel with
    sched_process_exec    the registers of user space are 0, PF_FORKNOEXEC is gone
    sys_exit              behind rt_sigreturn(2), the registers are those that the signal's handler interrupted
    sched_process_exit    mm is NULL, PF_EXITING is set; exit_code, group_exit_code, signal->live; behind it, children have
                          a new parent

Everything is done on whole columns; a change of some rows only has address 0 in the others. These rules agree with the kernel
on recordings of Linux 6.1 and 6.12 that have its own counts beside them.
Kernel: kernel/fork.c:copy_process, kernel/exit.c:do_exit, fs/exec.c:begin_new_exec, kernel/sched/core.c:__schedule
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrtp.errors import BtfError
from fastrtp.record import EventTable
from fastrtp.record.recipes import Argument, Obj, Pid
from fastrtp.record.recipes.sched import EXIT_STATE
from fastrtp.record.switch_state import switch_states

from .bind_args import Told
from .identities import TaskIndex
from .task_events import TaskEvents, nth_of_task
from .task_exits import TaskExits, has_calls

if TYPE_CHECKING:
    from numpy.typing import NDArray

Store: TypeAlias = "tuple[int, Any, int, NDArray[Any] | None, int, int, int, int]"
PF_EXITING = 0x4
PF_FORKNOEXEC = 0x40
_ARGUMENTS = ("di", "si", "dx", "r10", "r8", "r9")
_CLEARED = (*_ARGUMENTS, "bx", "cx", "bp", "r11", "r12", "r13", "r14", "r15")
_ITS_CPU = "the CPU of the event"
_ITS_END = "by exit(2), exit_group(2) or the signal that ended it"
_ITS_THREADS = "its threads without a sched_process_exit yet: one that is right before it may be counted"
_ERESTARTSYS, _ERESTART_RESTARTBLOCK = 512, 516
_SIG_DFL, _SIG_IGN = 0, 1


class TaskChanges:
    """Of one recording. `stores(number, table, plans)`: (before the probes, behind them) for an event kind."""

    def __init__(self, index: TaskIndex) -> None:
        self.index = index
        self.recording = index.recording
        self.objects = index.objects
        self.told: list[Told] = []
        """What the stores of the kind that was asked for last tell in every row."""
        self.events = TaskEvents(index)
        self.exits = TaskExits(self.events)

    def stores(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        """Stores before the probes of an event kind; none where the format or the BTF lacks what they need."""
        self.told = []
        make = {
            "sched_switch": self._switch,
            "task_newtask": self._new_task,
            "sched_process_fork": self._fork,
            "sched_process_exec": self._exec,
            "sched_process_exit": self._exit,
            "sys_exit": self._sigreturn,
        }.get(table.name)
        return make(number, table, plans) if make is not None and len(table) else []

    def after(self, number: int, table: EventTable) -> list[Store]:
        """Stores behind the probes of an event kind."""
        if table.name != "sched_process_exit" or not len(table):
            return []
        found: list[Store] = []
        for children, parents in zip(*self.exits.adoptions(number), strict=True):
            for member in ("real_parent", "parent"):
                found += self._store(children, "task_struct", member, parents)
        return found

    def _store(
        self, where: int | NDArray[np.uint64], type_name: str, path: str, value: NDArray[Any] | int, mask: int = 0, rule: str = ""
    ) -> list[Store]:
        try:
            spot = self.objects.member(type_name, path)
        except BtfError:  # a kernel without such a member has nothing that could read it
            return []
        position, base = (where, None) if isinstance(where, int) else (-1, where)
        column, const = (None, value) if isinstance(value, int) else (value, 0)
        if rule:
            end = spot.offset_bytes + spot.size
            self.told.append(Told(-1, type_name, path.partition("|")[0], spot.offset_bytes, end, "derived", rule))
        return [(position, base, spot.offset_bytes, column, spot.size, const, mask, 0)]

    # events

    def _switch(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        if not table.has_integers("prev_pid", "next_pid"):
            return []
        found: list[Store] = []
        cpu = self.index.cpu_of(number)
        prev = self.index.of_pids(table.fields["prev_pid"], cpu)
        if self.index.cpus > 1:
            column = np.ascontiguousarray(cpu)
            for name in ("prev_pid", "next_pid"):
                found += self._store(
                    self._task(plans, table, name, number), "task_struct", "thread_info.cpu|cpu", column, rule=_ITS_CPU
                )
        if table.has_integers("prev_state") and len(table):
            alone = self.exits.released(number, prev, EXIT_STATE.compute(table) != 0)
            if alone.any():
                found += self._store(np.where(alone, self.index.tasks[prev], np.uint64(0)), "task_struct", "thread_pid", 0)
            found += self._switches(number, table, prev)
        return found

    def _switches(self, number: int, table: EventTable, prev: NDArray[np.int64]) -> list[Store]:
        """How often a task that was forked in the recording has left the CPU, of its own will or not: one of the two counts.
        Kernel: kernel/sched/core.c:__schedule
        """
        when = self.index.rows(number).astype(np.int64)
        born = self.events.born(prev, when)
        known = born >= 0
        try:
            spots = [self.objects.member("task_struct", name) for name in ("nvcsw", "nivcsw")]
        except BtfError:
            return []
        if not known.any() or len({spot.size for spot in spots}) > 1:
            return []
        state = switch_states(table)
        willing = ((state.state | state.exit_state) != 0) & (state.preempt == 0)
        rows = np.flatnonzero(known)
        order = rows[np.lexsort((when[rows], willing[rows], born[rows], prev[rows]))]
        kind = np.stack([prev[order], born[order], willing[order]])
        starts = np.r_[True, np.any(kind[:, 1:] != kind[:, :-1], axis=0)]
        place = np.arange(len(order))
        count = np.zeros(len(table), np.uint64)
        count[order] = place - place[starts][np.cumsum(starts) - 1] + 1
        offset = np.where(willing, spots[0].offset_bytes, spots[1].offset_bytes).astype(np.uint64)
        base = np.where(known, self.index.tasks[prev] + offset, np.uint64(0))
        return [(-1, base, 0, count, spots[0].size, 0, 0, 0)]

    def _fork(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        if not table.has_integers("child_pid"):
            return []
        child = self.index.of_pids(table.fields["child_pid"], self.index.cpu_of(number))
        found = self._again(number, child)
        found += self._store(self._task(plans, table, "child_pid", number), "task_struct", "flags", PF_FORKNOEXEC, PF_FORKNOEXEC)
        entered = self._entered(number, self.index.of_current(number))
        if entered is None:
            return found
        known, row, enter = entered
        arguments = enter.fields["args"]
        for space in self.index.spaces():
            base = np.where(known, self.index.per_task("pt_regs", space)[child], np.uint64(0))
            for place, name in enumerate(_ARGUMENTS):
                if place < arguments.shape[1]:
                    found += self._store(base, "pt_regs", name, np.ascontiguousarray(arguments[row, place]))
            found += self._store(base, "pt_regs", "orig_ax", np.ascontiguousarray(enter.fields["id"][row]))
        return found

    def _new_task(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        if not table.has_integers("pid"):
            return []
        return self._again(number, self.index.of_pids(table.fields["pid"], self.index.cpu_of(number)))

    def _again(self, number: int, child: NDArray[np.int64]) -> list[Store]:
        """A pid that is used again: its task has nothing of the one that exited."""
        left = self.events.table("sched_process_exit")
        if left is None or not len(left[1]):
            return []
        exits = self.index.of_current(left[0])
        reborn, _ = self.events.last(left[0], exits, child, self.index.rows(number).astype(np.int64))
        if not reborn.any():
            return []

        def of(objects: NDArray[np.uint64]) -> NDArray[np.uint64]:
            return np.where(reborn, objects[child], np.uint64(0))

        task, parent = of(self.index.tasks), self.index.tasks[self.index.of_current(number)]
        user = np.where(self.index.kernel_threads[child], np.uint64(0), task)
        pids = np.zeros(len(self.index.tasks), np.uint64)
        pids[self.index.cpus :] = self.objects.objects("pid", [("pid of", pid) for pid in self.index.pids.tolist()])
        found: list[Store] = []
        for member in ("exit_state", "exit_code", "nvcsw", "nivcsw"):
            found += self._store(task, "task_struct", member, 0)
        found += self._store(task, "task_struct", "flags", 0, PF_EXITING)
        found += self._store(task, "task_struct", "thread_pid", pids[child])
        found += self._store(user, "task_struct", "mm", self.index.per_group("mm_struct")[child])
        leaders = np.where(self.exits.groups[child] == child, task, np.uint64(0))
        for member in ("real_parent", "parent"):
            found += self._store(leaders, "task_struct", member, parent)
        process = np.where(self.exits.groups[child] == child, of(self.index.per_group("signal_struct")), np.uint64(0))
        return found + self._store(process, "signal_struct", "group_exit_code", 0)

    def _exec(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        current = self.index.of_current(number)
        found = self._store(self.index.tasks[current], "task_struct", "flags", 0, PF_FORKNOEXEC)
        for space in self.index.spaces():
            base = self.index.per_task("pt_regs", space)[current]
            for name in _CLEARED:
                found += self._store(base, "pt_regs", name, 0)
        return found

    def _sigreturn(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        """rt_sigreturn(2) brings back the registers that the signal's handler interrupted: those of the system call that ended
        right before the signal was delivered. Not where another signal came while the handler ran, or an interrupt before it.
        """
        delivered = self.events.table("signal_deliver", "sa_handler")
        enter = self.events.table("sys_enter", "args", "id")
        returned = np.flatnonzero(table.fields["id"] == -1) if table.has_integers("id", "ret") else np.zeros(0, np.int64)
        if delivered is None or enter is None or not len(returned) or not has_calls(enter[1]):
            return []
        if not len(delivered[1]) or not delivered[1].has_integers("sa_handler"):
            return []
        current, at = self.index.of_current(number), self.index.rows(number)
        of_signal, at_signal = self.index.of_current(delivered[0]), self.index.rows(delivered[0])
        handled = np.flatnonzero(~np.isin(delivered[1].fields["sa_handler"], (_SIG_DFL, _SIG_IGN)))
        known, signal = self.events.last(delivered[0], of_signal, current[returned], at[returned], handled)
        nth = np.zeros(len(of_signal), np.int64)
        nth[handled] = nth_of_task(of_signal[handled], at_signal[handled])
        alone = nth_of_task(current[returned], at[returned]) == nth[signal]
        tasks, when = of_signal[signal], at_signal[signal]
        syscall, call = self.events.last(enter[0], self.index.of_current(enter[0]), tasks, when)
        ended, exit_row = self.events.last(number, current, tasks, when)
        result = table.fields["ret"][exit_row]
        restarted = (result <= -_ERESTARTSYS) & (result >= -_ERESTART_RESTARTBLOCK)
        good = known & alone & syscall & ended & (restarted | (self._interrupted(tasks, when) < at[exit_row]))
        rows, calls = returned[good], call[good]
        arguments = enter[1].fields["args"]
        found: list[Store] = []
        for space in self.index.spaces():
            base = np.zeros(len(table), np.uint64)
            base[rows] = self.index.per_task("pt_regs", space)[current[rows]]
            for place, name in enumerate(_ARGUMENTS[: arguments.shape[1]]):
                column = np.zeros(len(table), arguments.dtype)
                column[rows] = arguments[calls, place]
                found += self._store(base, "pt_regs", name, column)
        return found if len(rows) else []

    def _interrupted(self, tasks: NDArray[np.int64], when: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each task the place of its last interrupt or fault before a place in time order, else -1."""
        found = np.full(len(tasks), -1, np.int64)
        for source, table in enumerate(self.recording.tables):
            vector = table.system == "irq_vectors" and table.name.endswith("_entry")
            if (vector or table.name in ("irq_handler_entry", "page_fault_user")) and len(table):
                known, row = self.events.last(source, self.index.of_current(source), tasks, when)
                found = np.where(known, np.maximum(found, self.index.rows(source)[row]), found)
        return found

    def _exit(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        where = self._task(plans, table, "pid", number)
        current = self.index.of_current(number)
        found = self._store(where, "task_struct", "mm", 0, rule="NULL from exit on")
        found += self._store(where, "task_struct", "flags", PF_EXITING, PF_EXITING)
        known, code, grouped, group_code = self.exits.codes(number)
        found += self._some(known, self.index.tasks[current], "task_struct", "exit_code", code, _ITS_END)
        processes = self.index.per_group("signal_struct")[current]
        found += self._some(grouped, processes, "signal_struct", "group_exit_code", group_code, _ITS_END)
        counted, live = self.exits.live(number)
        return found + self._some(counted, processes, "signal_struct", "live.counter", live, _ITS_THREADS)

    def _some(
        self, known: NDArray[np.bool_], bases: NDArray[np.uint64], type_name: str, path: str, values: NDArray[Any], rule: str
    ) -> list[Store]:
        """A store in the rows where its value is known; told of by its rule where that is all of them."""
        if not known.any():
            return []
        told = rule if known.all() else ""
        return self._store(np.where(known, bases, np.uint64(0)), type_name, path, values, rule=told)

    # what they need to know

    def _task(self, plans: Sequence[Argument | None], table: EventTable, name: str, number: int) -> int | NDArray[np.uint64]:
        """The argument that is the task of a pid field, or the tasks' addresses."""
        for position, plan in enumerate(plans):
            if isinstance(plan, Obj) and plan.type_name == "task_struct" and plan.by == Pid(name):
                return position
        return self.index.tasks[self.index.of_pids(table.fields[name], self.index.cpu_of(number))]

    def _entered(self, number: int, tasks: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64], EventTable] | None:
        """For each row of a table the last sys_enter of a task before it: (whether there is one, its row, the table)."""
        found = self.events.table("sys_enter", "args", "id")
        if found is None or not has_calls(found[1]):
            return None
        known, row = self.events.last(found[0], self.index.of_current(found[0]), tasks, self.index.rows(number))
        return known, row, found[1]
