"""TaskEvents: which event of a kind a task had last, or first, before a place in time order, for whole columns at a time.

Must not know: what the events mean for a task, objects.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fastrtp.record import EventTable

from .identities import TaskIndex

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Births(NamedTuple):
    """Every fork of a recording, in time order, as columns: index of the child and of its parent, place in time order."""

    child: NDArray[np.int64]
    parent: NDArray[np.int64]
    place: NDArray[np.int64]


class TaskEvents:
    """Of one recording. Tasks are numbers of `index`; places are those of the recording's time order."""

    def __init__(self, index: TaskIndex) -> None:
        self.index = index
        self.tables = index.recording.tables
        self.ends = np.int64(max(index.recording.events, 1))
        self._numbers = {table.name: number for number, table in enumerate(self.tables)}

    def table(self, name: str, *fields: str) -> tuple[int, EventTable] | None:
        """(number, table) of an event kind that has all of these fields."""
        number = self._numbers.get(name)
        if number is None or any(field not in self.tables[number].fields for field in fields):
            return None
        return number, self.tables[number]

    def last(
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
        asked = np.zeros(int(max(sources.max(initial=0), tasks.max(initial=0))) + 1, np.bool_)
        asked[tasks] = True  # few tasks are asked about, and sorting is what costs
        rows = np.flatnonzero(asked[sources]) if chosen is None else chosen[asked[sources[chosen]]]
        if not len(rows):
            return np.zeros(len(tasks), np.bool_), np.zeros(len(tasks), np.int64)
        keys = sources[rows] * self.ends + self.index.rows(source)[rows]
        order = np.argsort(keys)
        place = np.searchsorted(keys[order], tasks * self.ends + when) - 1
        row = rows[order[np.maximum(place, 0)]]
        return (place >= 0) & (sources[row] == tasks), row

    @cached_property
    def births(self) -> Births:
        """What sched_process_fork tells; empty where it is not recorded."""
        found = self.table("sched_process_fork", "parent_pid", "child_pid")
        if found is None or not len(found[1]) or not found[1].has_integers("parent_pid", "child_pid"):
            nothing = np.zeros(0, np.int64)
            return Births(nothing, nothing, nothing)
        number, table = found
        cpu, place = self.index.cpu_of(number), self.index.rows(number)
        parent, child = (self.index.of_pids(table.fields[name], cpu) for name in ("parent_pid", "child_pid"))
        order = np.argsort(place, kind="stable")
        return Births(child[order], parent[order], np.asarray(place)[order].astype(np.int64))

    def born(self, tasks: NDArray[np.int64], when: NDArray[np.int64]) -> NDArray[np.int64]:
        """For each task the place of its last birth before a place in time order, -1 for one that is older than the recording."""
        keys = self._birth_keys
        if not len(keys):
            return np.full(len(tasks), -1, np.int64)
        asked = tasks * self.ends + when
        found = keys[np.maximum(np.searchsorted(keys, asked) - 1, 0)]
        return np.where((found // self.ends == tasks) & (found < asked), found % self.ends, -1)

    @cached_property
    def _birth_keys(self) -> NDArray[np.int64]:
        return np.sort(self.births.child * self.ends + self.births.place)


def nth_of_task(tasks: NDArray[np.int64], when: NDArray[Any]) -> NDArray[np.int64]:
    """For each event of a task the how many-th it is, from 1."""
    order = np.lexsort((when, tasks))
    sorted_tasks = tasks[order]
    first = np.searchsorted(sorted_tasks, sorted_tasks)
    found = np.empty(len(tasks), np.int64)
    found[order] = np.arange(len(tasks)) - first + 1
    return found
