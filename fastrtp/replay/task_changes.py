"""TaskChanges: what events tell of tasks beyond their own fields, by what the kernel does at them.

    sched_switch          thread_info.cpu of both tasks is the event's CPU; a thread that is dead has no thread_pid any more
    sched_process_fork    the child has PF_FORKNOEXEC and the registers that its parent entered the kernel with
    sched_process_exec    the registers of user space are 0, PF_FORKNOEXEC is gone
    sys_exit              behind rt_sigreturn(2), the registers are those that the signal's handler interrupted
    sched_process_exit    mm is NULL, PF_EXITING is set, exit_code is that of exit(2), exit_group(2) or the fatal signal

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

from .bind_args import Told
from .identities import TaskIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray

Store: TypeAlias = "tuple[int, Any, int, NDArray[Any] | None, int, int, int, int]"
PF_EXITING = 0x4
PF_FORKNOEXEC = 0x40
_NR_EXIT, _NR_EXIT_GROUP = 60, 231
_ARGUMENTS = ("di", "si", "dx", "r10", "r8", "r9")
_CLEARED = (*_ARGUMENTS, "bx", "cx", "bp", "r11", "r12", "r13", "r14", "r15")
_ITS_CPU = "the CPU of the event"
_ERESTARTSYS, _ERESTART_RESTARTBLOCK = 512, 516
_SIG_DFL, _SIG_IGN, _SIGCHLD = 0, 1, 17


class TaskChanges:
    """Of one recording. `stores(number, table, plans)`: (before the probes, behind them) for an event kind."""

    def __init__(self, index: TaskIndex) -> None:
        self.index = index
        self.recording = index.recording
        self.objects = index.objects
        self.told: list[Told] = []
        """What the stores of the kind that was asked for last tell in every row."""
        self._numbers = {table.name: number for number, table in enumerate(self.recording.tables)}

    def stores(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        """Stores before the probes of an event kind; none where the format or the BTF lacks what they need."""
        self.told = []
        make = {
            "sched_switch": self._switch,
            "sched_process_fork": self._fork,
            "sched_process_exec": self._exec,
            "sched_process_exit": self._exit,
            "sys_exit": self._sigreturn,
        }.get(table.name)
        return make(number, table, plans) if make is not None and len(table) else []

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
            dead = EXIT_STATE.compute(table) != 0
            alone = dead & (self._released_by_itself()[prev] | self._unnoticed(number, prev, dead))
            if alone.any():
                found += self._store(np.where(alone, self.index.tasks[prev], np.uint64(0)), "task_struct", "thread_pid", 0)
        return found

    def _fork(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        if not table.has_integers("child_pid"):
            return []
        child = self.index.of_pids(table.fields["child_pid"], self.index.cpu_of(number))
        found = self._store(self._task(plans, table, "child_pid", number), "task_struct", "flags", PF_FORKNOEXEC, PF_FORKNOEXEC)
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
        delivered = self._table("signal_deliver", "sa_handler")
        enter = self._table("sys_enter", "args", "id")
        returned = np.flatnonzero(table.fields["id"] == -1) if table.has_integers("id", "ret") else np.zeros(0, np.int64)
        if delivered is None or enter is None or not len(returned) or not _has_calls(enter[1]):
            return []
        if not len(delivered[1]) or not delivered[1].has_integers("sa_handler"):
            return []
        current, at = self.index.of_current(number), self.index.rows(number)
        of_signal, at_signal = self.index.of_current(delivered[0]), self.index.rows(delivered[0])
        handled = np.flatnonzero(~np.isin(delivered[1].fields["sa_handler"], (_SIG_DFL, _SIG_IGN)))
        known, signal = self._last(delivered[0], of_signal, current[returned], at[returned], handled)
        nth = np.zeros(len(of_signal), np.int64)
        nth[handled] = _nth_of_task(of_signal[handled], at_signal[handled])
        alone = _nth_of_task(current[returned], at[returned]) == nth[signal]
        tasks, when = of_signal[signal], at_signal[signal]
        syscall, call = self._last(enter[0], self.index.of_current(enter[0]), tasks, when)
        ended, exit_row = self._last(number, current, tasks, when)
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
                known, row = self._last(source, self.index.of_current(source), tasks, when)
                found = np.where(known, np.maximum(found, self.index.rows(source)[row]), found)
        return found

    def _exit(self, number: int, table: EventTable, plans: Sequence[Argument | None]) -> list[Store]:
        where = self._task(plans, table, "pid", number)
        current = self.index.of_current(number)
        found = self._store(where, "task_struct", "mm", 0, rule="NULL from exit on")
        found += self._store(where, "task_struct", "flags", PF_EXITING, PF_EXITING)
        known, code = self._exit_codes(number, current)
        if known.any():
            found += self._store(np.where(known, self.index.tasks[current], np.uint64(0)), "task_struct", "exit_code", code)
        return found

    # what they need to know

    def _task(self, plans: Sequence[Argument | None], table: EventTable, name: str, number: int) -> int | NDArray[np.uint64]:
        """The argument that is the task of a pid field, or the tasks' addresses."""
        for position, plan in enumerate(plans):
            if isinstance(plan, Obj) and plan.type_name == "task_struct" and plan.by == Pid(name):
                return position
        return self.index.tasks[self.index.of_pids(table.fields[name], self.index.cpu_of(number))]

    def _released_by_itself(self) -> NDArray[np.bool_]:
        """By index: tasks that nobody waits for, threads and kernel threads: released before they are switched away from."""
        index = self.index
        threads = np.zeros(len(index.tasks), np.bool_)
        threads[index.cpus :] = index.tgids != index.pids
        return threads | index.kernel_threads

    def _unnoticed(self, number: int, tasks: NDArray[np.int64], dead: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows of sched_switch in which a task leaves for good whose parent was not sent SIGCHLD, because it ignores it: then
        nobody waits for it. Kernel: kernel/signal.c:do_notify_parent
        """
        sent, left = self._table("signal_generate", "sig"), self._table("sched_process_exit")
        if sent is None or left is None or not len(left[1]) or not sent[1].has_integers("sig"):
            return np.zeros(len(tasks), np.bool_)
        gone = np.flatnonzero(dead)  # the others need no answer
        tasks, when = tasks[gone], self.index.rows(number)[gone]
        exited, at_exit = self._last(left[0], self.index.of_current(left[0]), tasks, when)
        chosen = np.flatnonzero(sent[1].fields["sig"] == _SIGCHLD)
        told, at_signal = self._last(sent[0], self.index.of_current(sent[0]), tasks, when, chosen)
        noticed = np.zeros(len(tasks), np.bool_)
        if len(sent[1]):
            noticed = told & (self.index.rows(sent[0])[at_signal] > self.index.rows(left[0])[at_exit])
        found = np.zeros(len(dead), np.bool_)
        found[gone] = exited & ~noticed
        return found

    def _table(self, name: str, *fields: str) -> tuple[int, EventTable] | None:
        number = self._numbers.get(name)
        if number is None or any(field not in self.recording.tables[number].fields for field in fields):
            return None
        return number, self.recording.tables[number]

    def _entered(self, number: int, tasks: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64], EventTable] | None:
        """For each row of a table the last sys_enter of a task before it: (whether there is one, its row, the table)."""
        found = self._table("sys_enter", "args", "id")
        if found is None or not _has_calls(found[1]):
            return None
        known, row = self._last(found[0], self.index.of_current(found[0]), tasks, self.index.rows(number))
        return known, row, found[1]

    def _last(
        self,
        source: int,
        sources: NDArray[np.int64],
        tasks: NDArray[np.int64],
        when: NDArray[np.int64],
        chosen: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """For each task the last row of table `source`, whose rows are of `sources`, before a place in time order: (whether there
        is one, the row). `chosen`: only these rows count.
        """
        events = np.int64(max(self.recording.events, 1))
        rows = np.arange(len(sources)) if chosen is None else chosen
        asked = np.zeros(int(max(sources.max(initial=0), tasks.max(initial=0))) + 1, np.bool_)
        asked[tasks] = True
        rows = rows[asked[sources[rows]]]  # few tasks are asked about, and sorting is what costs
        if not len(rows):
            return np.zeros(len(tasks), np.bool_), np.zeros(len(tasks), np.int64)
        keys = sources[rows] * events + self.index.rows(source)[rows]
        order = np.argsort(keys, kind="stable")
        place = np.searchsorted(keys[order], tasks * events + when) - 1
        row = rows[order[np.maximum(place, 0)]]
        return (place >= 0) & (sources[row] == tasks), row

    def _exit_codes(self, number: int, current: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """(known, exit_code) of each row of sched_process_exit."""
        when = self.index.rows(number)
        known, code = np.zeros(len(current), np.bool_), np.zeros(len(current), np.int32)
        delivered = self._table("signal_deliver", "sig", "sa_handler")
        if delivered is not None and len(delivered[1]) and delivered[1].has_integers("sig", "sa_handler"):
            fatal = np.flatnonzero(delivered[1].fields["sa_handler"] == _SIG_DFL)
            killed, row = self._last(delivered[0], self.index.of_current(delivered[0]), current, when, fatal)
            known, code = killed, np.where(killed, delivered[1].fields["sig"][row] & 0x7F, 0).astype(np.int32)
        enter = self._table("sys_enter", "args", "id")
        if enter is not None and _has_calls(enter[1]):
            ids, first = enter[1].fields["id"], enter[1].fields["args"][:, 0]
            groups = self.index.groups()
            of_task = self.index.of_current(enter[0])
            for wanted, sources, tasks in (
                ((_NR_EXIT_GROUP,), groups[of_task], groups[current]),
                ((_NR_EXIT, _NR_EXIT_GROUP), of_task, current),
            ):
                left, row = self._last(enter[0], sources, tasks, when, np.flatnonzero(np.isin(ids, wanted)))
                code = np.where(left, (first[row] & 0xFF).astype(np.int32) << 8, code).astype(np.int32)
                known = known | left
        return known, code


def _has_calls(enter: EventTable) -> bool:
    """Whether a table of sys_enter has what a format of this machine's has."""
    arguments = enter.fields["args"]
    return len(enter) > 0 and enter.has_integers("id") and arguments.ndim == 2 and arguments.dtype.kind in "iu"


def _nth_of_task(tasks: NDArray[np.int64], when: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each event of a task the how many-th it is, from 1."""
    order = np.lexsort((when, tasks))
    sorted_tasks = tasks[order]
    first = np.searchsorted(sorted_tasks, sorted_tasks)
    found = np.empty(len(tasks), np.int64)
    found[order] = np.arange(len(tasks)) - first + 1
    return found
