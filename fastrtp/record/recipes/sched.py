"""Recipes of include/trace/events/sched.h."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastrtp.record.columns import EventTable
from fastrtp.record.switch_state import switch_states

from .recipe import Derived, Key, Missing, Obj, PerCpu, Pid, Raw, Recipe, Scalar, Text, by_pointer, current, task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TASK_REPORT_MAX = 0x100
_REPORT_SUM = re.compile(r"\(\(\(((?:0x[0-9a-f]{1,8} \| )*0x[0-9a-f]{1,8})\) \+ 1\) << 1\)")


def task_report_max(print_fmt: str) -> int:
    """TASK_REPORT_MAX of the recorded kernel: its sched_switch format prints the flags that it is made from."""
    found = _REPORT_SUM.search(print_fmt)
    if found is None:
        return TASK_REPORT_MAX
    report = 0
    for word in found[1].split("|"):
        report |= int(word, 16)
    return (report + 1) << 1


def _preempt(table: EventTable) -> NDArray[np.uint8]:
    column: NDArray[np.uint8] = switch_states(table).preempt
    return column


def _prev_state(table: EventTable) -> NDArray[np.uint32]:
    column: NDArray[np.uint32] = switch_states(table).state
    return column


def _exit_state(table: EventTable) -> NDArray[np.uint32]:
    column: NDArray[np.uint32] = switch_states(table).exit_state
    return column


PREEMPT = Derived(("prev_state",), _preempt)
PREV_STATE = Derived(("prev_state",), _prev_state)
EXIT_STATE = Derived(("prev_state",), _exit_state)

_WAKEUP = Recipe((Obj("task_struct", Pid("pid"), {"comm": "comm", "prio": "prio", "thread_info.cpu|cpu": "target_cpu"}),))
_PROCESS = Recipe((task("pid", comm="comm", prio="prio"),))
_STAT = Recipe((task("pid", comm="comm"), Scalar("u64", "delay")))
_NUMA_PAIR = Recipe(
    (
        task("src_pid", tgid="src_tgid"), Scalar("int", "src_cpu"),
        task("dst_pid", tgid="dst_tgid"), Scalar("int", "dst_cpu"),
    )
)  # fmt: skip
_WORK = by_pointer("kthread_work", "work", func="function")

RECIPES = {
    "sched_switch": Recipe(
        (
            Scalar("bool", PREEMPT, name="preempt"),
            Obj(
                "task_struct",
                Pid("prev_pid"),
                {"comm": "prev_comm", "prio": "prev_prio", "__state|state": PREV_STATE, "exit_state": EXIT_STATE},
            ),
            task("next_pid", comm="next_comm", prio="next_prio"),
            Scalar("unsigned int", PREV_STATE, name="prev_state"),
        )
    ),
    "sched_waking": _WAKEUP,
    "sched_wakeup": _WAKEUP,
    "sched_wakeup_new": _WAKEUP,
    "sched_migrate_task": Recipe(
        (
            Obj("task_struct", Pid("pid"), {"comm": "comm", "prio": "prio", "thread_info.cpu|cpu": "orig_cpu"}),
            Scalar("int", "dest_cpu"),
        )
    ),
    "sched_process_free": _PROCESS,
    "sched_process_exit": _PROCESS,
    "sched_wait_task": _PROCESS,
    "sched_process_wait": Recipe(
        (Obj("pid", Key(("pid",)), {"numbers[0].nr": "pid"}, nullable=True),),
        also=(current(comm="comm", prio="prio"),),
    ),
    "sched_process_fork": Recipe(
        (
            task("parent_pid", comm="parent_comm"),
            task("child_pid", comm="child_comm"),
        )
    ),
    "sched_process_exec": Recipe(
        (
            task("pid"),
            Scalar("pid_t", "old_pid"),
            Obj("linux_binprm", PerCpu(), {"filename": Text("filename")}),
        )
    ),
    "sched_stat_wait": _STAT,
    "sched_stat_sleep": _STAT,
    "sched_stat_iowait": _STAT,
    "sched_stat_blocked": _STAT,
    "sched_stat_runtime": Recipe(
        (
            Obj("task_struct", Pid("pid"), {"comm": "comm", "se.vruntime": "vruntime"}),
            Scalar("u64", "runtime"),
            Scalar("u64", "vruntime"),
        )
    ),
    "sched_pi_setprio": Recipe(
        (
            task("pid", comm="comm", prio="oldprio"),
            Missing("task_struct", "the record holds the new priority, not the task that it comes from"),
        ),
        after=(task("pid", prio="newprio"),),
    ),
    "sched_process_hang": Recipe((task("pid", comm="comm"),)),
    "sched_move_numa": Recipe((task("pid", tgid="tgid"), Scalar("int", "src_cpu"), Scalar("int", "dst_cpu"))),
    "sched_stick_numa": _NUMA_PAIR,
    "sched_swap_numa": _NUMA_PAIR,
    "sched_wake_idle_without_ipi": Recipe((Scalar("int", "cpu"),)),
    "sched_kthread_stop": Recipe((task("pid", comm="comm"),)),
    "sched_kthread_stop_ret": Recipe((Scalar("int", "ret"),)),
    "sched_kthread_work_queue_work": Recipe((by_pointer("kthread_worker", "worker"), _WORK)),
    "sched_kthread_work_execute_start": Recipe((_WORK,)),
    "sched_kthread_work_execute_end": Recipe((by_pointer("kthread_work", "work"), Raw("function"))),
}
