"""TaskExits: how tasks end, and what becomes of what they leave: exit codes, who is left of a process, whose children are whose.

A process ends by the first of: exit_group(2) of one of its threads, a signal that is fatal by default and was sent to it (its
threads see SIGKILL then), or one that was delivered and makes a core. A thread that calls exit(2) itself has its own code.
Its children go to a thread of its process that still lives, else to pid 1; a process that asked for them
(PR_SET_CHILD_SUBREAPER) in the recording makes who is next unknown.
Kernel: kernel/exit.c:do_exit, do_group_exit, exit_notify, find_new_reaper, kernel/signal.c:complete_signal, get_signal,
do_notify_parent
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrtp.record import EventTable

from .task_events import TaskEvents

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NR_PRCTL, _NR_EXIT, _NR_EXIT_GROUP = 157, 60, 231
_PR_SET_CHILD_SUBREAPER = 36
_SIG_DFL, _SIGKILL, _SIGCHLD = 0, 9, 17
_CORE = (3, 4, 5, 6, 7, 8, 11, 24, 25, 31)
"""Signals that make a core. Kernel: include/linux/signal.h:SIG_KERNEL_COREDUMP_MASK"""
_HARMLESS = (17, 18, 19, 20, 21, 22, 23, 28)
"""Signals that end nothing by default: ignored, or stopping. Kernel: SIG_KERNEL_IGNORE_MASK, SIG_KERNEL_STOP_MASK, SIGCONT"""
MOST_CHILDREN = 32
"""Children of one task that are followed to a new parent when it exits."""


class GroupEnds(NamedTuple):
    """Why processes ended, as columns sorted by process and place: index of the process's leader, place in time order, code."""

    group: NDArray[np.int64]
    place: NDArray[np.int64]
    code: NDArray[np.int64]


class Adoptions(NamedTuple):
    """Children of tasks that exit: for each row of sched_process_exit, columns of task_structs (0: none), of new parents."""

    children: list[NDArray[np.uint64]]
    parents: list[NDArray[np.uint64]]


class TaskExits:
    """Of one recording. Rows are those of sched_process_exit, `number`."""

    def __init__(self, events: TaskEvents) -> None:
        self.events = events
        self.index = events.index
        self.groups = self.index.groups()

    def codes(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.int32], NDArray[np.bool_], NDArray[np.int32]]:
        """(exit_code known, exit_code, group_exit_code known, group_exit_code) of each row."""
        when, current = self.index.rows(number), self.index.of_current(number)
        grouped, group_code = self._group_codes(current, when)
        known, code = grouped.copy(), group_code.copy()
        enter = self.events.table("sys_enter", "args", "id")
        if enter is not None and has_calls(enter[1]):
            called, row = self.events.last(enter[0], self.index.of_current(enter[0]), current, when)
            own = called & (enter[1].fields["id"][row] == _NR_EXIT)
            code = np.where(own, _status(enter[1].fields["args"][row, 0]), code)
            known |= own
        return known, code.astype(np.int32), grouped, group_code.astype(np.int32)

    def _group_codes(self, current: NDArray[np.int64], when: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        ends, count = self.ends, self.events.ends
        if not len(ends.group):
            return np.zeros(len(current), np.bool_), np.zeros(len(current), np.int64)
        group = self.groups[current]
        born = self.events.born(np.minimum(group, len(self.index.tasks) - 1), when)
        at = np.searchsorted(ends.group * count + ends.place, group * count + np.maximum(born, 0))
        at = np.minimum(at, len(ends.group) - 1)
        known = (ends.group[at] == group) & (ends.place[at] < when) & (ends.place[at] >= born)
        return known, np.where(known, ends.code[at], 0)

    @cached_property
    def ends(self) -> GroupEnds:
        """Every event that may have ended a process; the first one of a life did."""
        found = [*self._exit_groups(), *self._fatal_signals()]
        if not found:
            nothing = np.zeros(0, np.int64)
            return GroupEnds(nothing, nothing, nothing)
        group, place, code = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((place, group))
        return GroupEnds(group[order], place[order], code[order])

    def _exit_groups(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        enter = self.events.table("sys_enter", "args", "id")
        if enter is None or not has_calls(enter[1]):
            return []
        number, table = enter
        rows = np.flatnonzero(table.fields["id"] == _NR_EXIT_GROUP)
        tasks = self.index.of_current(number)[rows]
        return [(self.groups[tasks], self.index.rows(number)[rows].astype(np.int64), _status(table.fields["args"][rows, 0]))]

    def _fatal_signals(self) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        delivered = self.events.table("signal_deliver", "sig", "sa_handler")
        if delivered is None or not len(delivered[1]) or not delivered[1].has_integers("sig", "sa_handler"):
            return []
        number, table = delivered
        fatal = np.flatnonzero((table.fields["sa_handler"] == _SIG_DFL) & ~np.isin(table.fields["sig"], _HARMLESS))
        signal = table.fields["sig"][fatal].astype(np.int64)
        tasks, place = self.index.of_current(number)[fatal], self.index.rows(number)[fatal].astype(np.int64)
        group = self.groups[tasks]
        sent, sender_place, sender_signal = self._sent(group, place)
        by_kill = sent & (signal == _SIGKILL)
        return [(group, np.where(by_kill, sender_place, place), np.where(by_kill, sender_signal, signal) & 0x7F)]

    def _sent(
        self, group: NDArray[np.int64], place: NDArray[np.int64]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
        """(known, place, signal) of the last signal before a place that ends a process and was sent to it."""
        nothing = np.zeros(len(group), np.int64)
        generated = self.events.table("signal_generate", "sig", "pid", "result")
        if generated is None or not len(generated[1]) or not generated[1].has_integers("sig", "pid", "result"):
            return np.zeros(len(group), np.bool_), nothing, nothing
        number, table = generated
        ends = (table.fields["result"] == 0) & ~np.isin(table.fields["sig"], (*_HARMLESS, *_CORE))
        targets = self.groups[self.index.of_pids(table.fields["pid"], self.index.cpu_of(number))]
        known, row = self.events.last(number, targets, group, place, np.flatnonzero(ends))
        return known, self.index.rows(number)[row].astype(np.int64), table.fields["sig"][row].astype(np.int64)

    def live(self, number: int) -> tuple[NDArray[np.bool_], NDArray[np.int32]]:
        """(known, signal->live) of each row: threads of the process that have not come to exit. Known of processes that were
        forked in the recording.
        """
        births, count = self.events.births, self.events.ends
        when, current = self.index.rows(number).astype(np.int64), self.index.of_current(number)
        group = self.groups[current]
        leader = np.minimum(group, len(self.index.tasks) - 1)
        since = self.events.born(leader, when)
        born, left = np.sort(self.groups[births.child] * count + births.place), np.sort(group * count + when)
        low, high = group * count + np.maximum(since, 0), group * count + when
        threads = np.searchsorted(born, high) - np.searchsorted(born, low)
        gone = np.searchsorted(left, high, side="right") - np.searchsorted(left, low)
        known = (since >= 0) & (leader == group) & (threads >= gone)
        return known, np.where(known, threads - gone, 0).astype(np.int32)

    def adoptions(self, number: int) -> Adoptions:
        """Whose children get which new parent at each row."""
        births = self.events.births
        when, current = self.index.rows(number).astype(np.int64), self.index.of_current(number)
        found = Adoptions([], [])
        if not len(births.child) or self._subreapers():
            return found
        gone = dict(zip(current.tolist(), when.tolist(), strict=True))
        steps = [(int(place), row, -1) for row, place in enumerate(when)]
        steps += zip(births.place.tolist(), births.child.tolist(), births.parent.tolist(), strict=True)
        parent_of: dict[int, int] = {}
        children: dict[int, list[int]] = {}
        init = self.index.objects.task(1)
        for place, what, parent in sorted(steps):
            if parent >= 0:
                parent_of[what] = parent if self._leads(what) else parent_of.get(parent, -1)
                children.setdefault(parent_of[what], []).append(what)
                continue
            leaving = int(current[what])
            orphans = [child for child in children.pop(leaving, ()) if gone.get(child, self.events.ends) > place]
            reaper = self._reaper(leaving, gone) if orphans else -1
            for slot, child in enumerate(orphans[:MOST_CHILDREN]):
                if slot == len(found.children):
                    found.children.append(np.zeros(len(current), np.uint64))
                    found.parents.append(np.zeros(len(current), np.uint64))
                found.children[slot][what] = self.index.tasks[child]
                found.parents[slot][what] = self.index.tasks[reaper] if reaper >= 0 else init
                parent_of[child] = reaper
                children.setdefault(reaper, []).append(child)
        return found

    def _leads(self, task: int) -> bool:
        return task < self.index.cpus or int(self.groups[task]) == task

    def _reaper(self, parent: int, gone: dict[int, int]) -> int:
        """The thread of the same process that gets the children, -1: none lives."""
        group = int(self.groups[parent])
        for thread in self._threads.get(group, ()):
            if thread != parent and gone.get(thread, self.events.ends) > gone[parent]:
                return thread
        return -1

    @cached_property
    def _threads(self) -> dict[int, list[int]]:
        """Threads of each process that has several, its leader first."""
        found: dict[int, list[int]] = {}
        several, count = np.unique(self.groups[self.index.cpus :], return_counts=True)
        wanted = set(several[count > 1].tolist())
        for task, group in enumerate(self.groups.tolist()):
            if group in wanted and task >= self.index.cpus:
                found.setdefault(group, []).append(task)
        return {group: sorted(tasks, key=group.__ne__) for group, tasks in found.items()}

    def _subreapers(self) -> bool:
        enter = self.events.table("sys_enter", "args", "id")
        if enter is None or not has_calls(enter[1]):
            return False
        args = enter[1].fields["args"]
        return bool(np.any((enter[1].fields["id"] == _NR_PRCTL) & (args[:, 0] == _PR_SET_CHILD_SUBREAPER)))

    def released(self, number: int, tasks: NDArray[np.int64], dead: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Rows of sched_switch, `number`, in which a task leaves for good that nobody waits for: it is released before.

        Threads and kernel threads, and those whose parent was not sent SIGCHLD, because it ignores it; not a leader that leaves
        threads behind.
        """
        threads = np.zeros(len(self.index.tasks), np.bool_)
        threads[self.index.cpus :] = self.index.tgids != self.index.pids
        return dead & ((threads | self.index.kernel_threads)[tasks] | self._unnoticed(number, tasks, dead))

    def _unnoticed(self, number: int, tasks: NDArray[np.int64], dead: NDArray[np.bool_]) -> NDArray[np.bool_]:
        sent, left = self.events.table("signal_generate", "sig"), self.events.table("sched_process_exit")
        if sent is None or left is None or not len(left[1]) or not sent[1].has_integers("sig"):
            return np.zeros(len(tasks), np.bool_)
        gone = np.flatnonzero(dead)  # the others need no answer
        tasks, when = tasks[gone], self.index.rows(number)[gone].astype(np.int64)
        leaving, at_exit = self.index.of_current(left[0]), self.index.rows(left[0])
        exited, row = self.events.last(left[0], leaving, tasks, when)
        chosen = np.flatnonzero(sent[1].fields["sig"] == _SIGCHLD)
        told, at_signal = self.events.last(sent[0], self.index.of_current(sent[0]), tasks, when, chosen)
        noticed = np.zeros(len(tasks), np.bool_)
        if len(sent[1]):
            noticed = told & (self.index.rows(sent[0])[at_signal] > at_exit[row])
        ends = np.sort(leaving * self.events.ends + at_exit)
        alone = np.array([self._alone(task, at, ends) for task, at in zip(tasks.tolist(), when.tolist(), strict=True)], np.bool_)
        found = np.zeros(len(dead), np.bool_)
        found[gone] = exited & ~noticed & alone
        return found

    def _alone(self, task: int, when: int, ends: NDArray[np.int64]) -> bool:
        """Whether all other threads of a process have come to exit before a place. `ends`: every exit, by task and place."""
        others = [thread for thread in self._threads.get(int(self.groups[task]), ()) if thread != task]
        first = np.searchsorted(ends, np.array(others, np.int64) * self.events.ends)
        return all(
            at < len(ends) and ends[at] < thread * self.events.ends + when for thread, at in zip(others, first, strict=True)
        )


def has_calls(enter: EventTable) -> bool:
    """Whether a table of sys_enter has what a format of this machine's has."""
    arguments = enter.fields["args"]
    return len(enter) > 0 and enter.has_integers("id") and arguments.ndim == 2 and arguments.dtype.kind in "iu"


def _status(argument: NDArray[np.uint64]) -> NDArray[np.int64]:
    """What wait(2) gives of a code that exit was called with."""
    return (argument.astype(np.int64) & 0xFF) << 8
