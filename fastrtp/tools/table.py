"""The table of tools: a row for each."""

from __future__ import annotations

import errno
import signal
from typing import Any

from fastrtp.trace.syscalls import name_of

from .tool import EVENTS, HISTS, ROWS, Option, Tool

_SOFTIRQS = ("hi", "timer", "net_tx", "net_rx", "block", "irq_poll", "tasklet", "sched", "hrtimer", "rcu")
"""Kernel: include/linux/interrupt.h"""
_STATES = {
    0: "runnable",
    1: "sleeping",
    2: "uninterruptible",
    4: "stopped",
    8: "traced",
    16: "exiting",
    32: "exiting",
    64: "parked",
}
"""Kernel: include/linux/sched.h: TASK_*"""
_OPERATIONS = {
    0: "read",
    1: "write",
    2: "flush",
    3: "discard",
    5: "secure erase",
    9: "write zeroes",
    34: "driver in",
    35: "driver out",
}
"""Kernel: include/linux/blk_types.h: enum req_op"""
_ACCESS = ("read", "write", "instruction")
_RESULTS = ("delivered", "ignored", "already pending", "overflow, failed", "info lost")
"""Kernel: include/trace/events/signal.h"""

_PID = Option("pid", ("-p", "--pid"), "Only this thread.", int, {"targ_pid": int})
_MILLISECONDS = Option("milliseconds", ("-m", "--milliseconds"), "Histograms of milliseconds.", bool, {"unit_ns": 1_000_000})
_NANOSECONDS = Option("nanoseconds", ("-N", "--nanoseconds"), "Histograms of nanoseconds.", bool, {"unit_ns": 1})
_THREADS = Option("threads", ("-L", "--threads"), "One for each thread.", bool, {"by": 1})
_PROCESSES = Option("processes", ("-P", "--processes"), "One for each process.", bool, {"by": 2})
_SCHED = ("sched_switch", "sched_wakeup")


def _who(rodata: dict[str, Any]) -> frozenset[str]:
    """Columns of `struct who` that are always zero."""
    return frozenset({0: ("pid", "comm"), 2: ("comm",)}.get(rodata.get("by", 0), ()))


def _errno(text: Any) -> int:
    """A number, or a name of errno.h. ValueError."""
    word = str(text).upper()
    if word.isdigit():
        return int(word)
    found = getattr(errno, word, None)
    if found is None:
        raise ValueError(f"no error is called {text}")
    return int(found)


def _signal(text: Any) -> int:
    """A number, or a name: 9, KILL, SIGKILL. ValueError."""
    word = str(text).upper()
    if word.isdigit():
        return int(word)
    name = word if word.startswith("SIG") else f"SIG{word}"
    if name not in signal.Signals.__members__:
        raise ValueError(f"no signal is called {text}")
    return int(signal.Signals[name])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "runqlat", "How long tasks wait for a CPU after they became runnable.", _SCHED, HISTS,
            (_PID, _MILLISECONDS, _THREADS, _PROCESSES), uses=("sched_wakeup_new",), sort="count", hidden=_who,
        ),
        Tool(
            "runqslower", "Each time that a task waited for a CPU for longer than a limit.", _SCHED, EVENTS,
            (_PID, Option("min_us", ("-u", "--min-us"), "The limit in microseconds. [default: 10000]", int,
                          {"min_ns": lambda us: 1000 * us})),
            uses=("sched_wakeup_new",),
        ),
        Tool(
            "cpudist", "How long tasks stay on the CPU at a time; -O: off it.", ("sched_switch",), HISTS,
            (_PID, _MILLISECONDS, _THREADS, _PROCESSES,
             Option("off_cpu", ("-O", "--offcpu"), "How long they are off the CPU.", bool, {"off_cpu": True})),
            sort="count", hidden=_who,
        ),
        Tool(
            "offcputime", "How long each thread was off the CPU, by the state that it left it in.", ("sched_switch",), HISTS,
            (_PID, _MILLISECONDS,
             Option("min_us", ("--min-us",), "Only times of at least so many microseconds.", int,
                    {"min_ns": lambda us: 1000 * us})),
            sort="total_ns", named={"state": lambda row: _STATES.get(row["state"], f"{row['state']:#x}")},
        ),
        Tool(
            "wakeuptime", "How long tasks were blocked, by who woke them.", _SCHED, HISTS, (_PID, _MILLISECONDS), sort="total_ns",
        ),
        Tool(
            "syscount", "System calls: how many, how many failed, how long they took.", ("sys_enter", "sys_exit"), ROWS,
            (_PID, Option("threads", ("-P", "-L", "--threads"), "By thread instead of by call.", bool, {"by_thread": True}),
             Option("failed", ("-x", "--failed"), "Only calls that failed.", bool, {"failed_only": True}),
             Option("errno", ("-e", "--errno"), "Only calls that failed with this error: ENOENT, or 2.", str,
                    {"targ_errno": _errno})),
            sort="count", named={"syscall": lambda row: name_of(row["number"]) or str(row["number"])},
            hidden=lambda rodata: frozenset({"number", "syscall"} if rodata.get("by_thread") else {"pid", "comm"}),
        ),
        Tool("execsnoop", "Programs that are started.", ("sched_process_exec",), EVENTS, (_PID,)),
        Tool("exitsnoop", "Tasks that end, and how long they lived.", ("sched_process_exit",), EVENTS, (_PID,),
             uses=("sched_process_fork",),
             named={"age_ns": lambda row: row["age_ns"] or None}),
        Tool(
            "sigsnoop", "Signals that are sent.", ("signal_generate",), EVENTS,
            (_PID, Option("signal", ("-s", "--signal"), "Only this one: KILL, or 9.", str, {"targ_signal": _signal})),
            named={"name": lambda row: _signal_name(row["signal"]),
                   "result": lambda row: _RESULTS[row["result"]] if row["result"] < len(_RESULTS) else str(row["result"])},
        ),
        Tool("softirqs", "How long soft interrupts run, by kind.", ("softirq_entry", "softirq_exit"), HISTS,
             (_MILLISECONDS, _NANOSECONDS), sort="total_ns", named={"vector": lambda row: _SOFTIRQS[row["vector"]]}),
        Tool("hardirqs", "How long interrupt handlers run, by number and name.", ("irq_handler_entry", "irq_handler_exit"), HISTS,
             (_MILLISECONDS, _NANOSECONDS), sort="total_ns"),
        Tool("migrations", "Tasks that are moved from a CPU to another.", ("sched_migrate_task",), ROWS, (_PID,), sort="count",
             named={"count": lambda row: row["value"]}, hidden=lambda _: frozenset({"value"})),
        Tool("pagefaults", "Page faults of user space, by thread and by what was tried.", ("page_fault_user",), ROWS, (_PID,),
             sort="count", named={"access": lambda row: _ACCESS[row["access"]]}),
        Tool(
            "biolatency", "How long block requests take, by operation.", ("block_rq_issue", "block_rq_complete"), HISTS,
            (_MILLISECONDS, Option("queued", ("-Q", "--queued"), "From when they were queued.", bool, {"queued": True})),
            uses=("block_rq_insert",), sort="count",
            named={"operation": lambda row: _OPERATIONS.get(row["operation"], str(row["operation"]))},
        ),
    )
}  # fmt: skip
"""By name."""
